//! The contract, computed from causal histories alone.
//!
//! A write is gone when a removal or a later write *that had seen it* took its place; what is left of a
//! row is its surviving puts and increments. No vectors, rows or generations: only who had seen what.

use bytes::Bytes;
use lattis_engine::causal::{Hlc, Millis, Origin, VersionVector};

use super::{History, Known};
use crate::sim::workload::{Fact, Place};

/// One fact of a commit, with its place in the history.
#[derive(Clone, Copy)]
struct At<'h> {
    origin: &'h Origin,
    last: u64,
    index: usize,
    known: &'h Known,
}

impl At<'_> {
    /// Whether `self` had been seen when `later` was done.
    fn seen_by(&self, later: &At<'_>) -> bool {
        if (self.origin, self.last) == (later.origin, later.last) {
            return self.index < later.index;
        }
        later.known.causes.get(self.origin) >= self.last
    }
}

/// What is left of one row.
#[derive(Debug, Default)]
pub struct Left {
    /// The winning put: stamp, origin, value.
    pub winner: Option<(Hlc, Origin, Bytes)>,
    /// What its writer's wall clock showed.
    pub written: Millis,
    /// The sum of the surviving increments, if there are any.
    pub sum: Option<i128>,
}

impl Left {
    /// What a client reads.
    pub fn shown(&self) -> Option<Bytes> {
        match (&self.winner, self.sum) {
            (None, None) => None,
            (None, Some(sum)) => Some(Bytes::from(sum.to_string())),
            (Some((_, _, value)), None) => Some(value.clone()),
            (Some((_, _, value)), Some(sum)) => Some(match integer(value) {
                Some(base) => Bytes::from((base + sum).to_string()),
                None => value.clone(),
            }),
        }
    }
}

/// A canonical decimal.
fn integer(value: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(i128::from(number))
}

fn touches(fact: &Fact, place: &Place) -> bool {
    match fact {
        Fact::Put(at, _) | Fact::RemoveRow(at) => at == place,
        Fact::RemoveKey(db, key) => (*db, *key) == (place.0, place.1),
        Fact::RemoveDb(db) => *db == place.0,
        Fact::Add(..) | Fact::Deadline(..) => false,
    }
}

/// What is left of a row after all that a vector covers.
pub fn left(history: &History, vector: &VersionVector, place: &Place) -> Left {
    let mut writes: Vec<(At<'_>, &Fact)> = Vec::new();
    let mut takes: Vec<At<'_>> = Vec::new();
    for ((origin, last), known) in &history.commits {
        if vector.get(origin) < *last {
            continue;
        }
        for (index, fact) in known.facts.iter().enumerate() {
            let at = At { origin, last: *last, index, known };
            if touches(fact, place) {
                takes.push(at);
            }
            if matches!(fact, Fact::Put(p, _) | Fact::Add(p, _) if p == place) {
                writes.push((at, fact));
            }
        }
    }
    writes.retain(|(write, _)| !takes.iter().any(|take| write.seen_by(take)));
    let mut left = Left::default();
    for (at, fact) in writes {
        match fact {
            Fact::Put(_, value) => {
                let rank = (at.known.hlc, *at.origin, value.clone());
                let wins = left
                    .winner
                    .as_ref()
                    .is_none_or(|(hlc, origin, _)| (*hlc, *origin) < (rank.0, rank.1));
                if wins {
                    left.winner = Some(rank);
                    left.written = at.known.written;
                }
            }
            Fact::Add(_, by) => left.sum = Some(left.sum.unwrap_or(0) + i128::from(*by)),
            _ => {}
        }
    }
    left
}
