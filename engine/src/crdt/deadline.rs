//! Time to live: one deadline per key, kept as decisions that outlive concurrent writes (MODEL M7).
//!
//! A *decision* (EXPIRE, PERSIST, SET with or without EX) names a time or none at all, and all decisions
//! that its issuer had observed; those it replaces. Any other write to a key with a deadline copies the
//! decision under a dot of its own, so that a key is never half alive without its time to live. Copies
//! of a replaced decision do not count; among those left the longest wins, "never" being the longest.

use bytes::Bytes;

use super::TypeRecord;
use crate::causal::{Dot, Millis, VersionVector};
use crate::codec::{CodecError, Reader, Writer};
use crate::name::Slot;
use crate::row::{Row, Sibling};

pub(super) static TYPE: TypeRecord = TypeRecord {
    slot: Slot::DEADLINE,
    name: "deadline",
    kind: None,
    single: true,
    counts: false,
    register: false,
    elements: false,
    read: Row::shown,
    validate: |payload| decode(payload).map(drop),
    sample: |seed| encode(Some(Millis(u64::from(seed))), None, &VersionVector::new()).to_vec(),
};

/// What was decided about a key's time to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The absolute deadline; `None` is "never".
    pub time: Option<Millis>,
    /// The effect by which it was decided, whoever carries a copy.
    pub dot: Dot,
    /// All decisions on this key that had been observed.
    pub replaces: VersionVector,
}

impl Decision {
    /// "Never" is longer than any time; ties go to the larger dot.
    fn rank(&self) -> (bool, Option<Millis>, Dot) {
        (self.time.is_none(), self.time, self.dot)
    }

    /// Whether a record is one of this decision, or of one that it replaces: a copy of it supersedes those.
    pub(crate) fn covers(&self, record: &Sibling) -> bool {
        of_sibling(record).is_none_or(|it| it.dot == self.dot || self.replaces.contains(&it.dot))
    }

    /// The payload of a copy.
    pub(crate) fn copy(&self) -> Bytes {
        encode(self.time, Some(&self.dot), &self.replaces)
    }
}

/// The payload of a decision; without a dot it is decided by the very effect that writes it.
pub(crate) fn encode(time: Option<Millis>, dot: Option<&Dot>, replaces: &VersionVector) -> Bytes {
    let mut out = Writer::new();
    out.varint(time.map_or(0, |time| time.0.saturating_add(1)));
    match dot {
        None => out.u8(0),
        Some(dot) => {
            out.u8(1);
            out.dot(dot);
        }
    }
    replaces.encode(&mut out);
    out.finish()
}

type Fields = (Option<Millis>, Option<Dot>, VersionVector);

fn decode(payload: &[u8]) -> Result<Fields, CodecError> {
    let mut input = Reader::new(payload);
    let time = input.varint()?.checked_sub(1).map(Millis);
    let dot = match input.u8()? {
        0 => None,
        1 => Some(input.dot()?),
        _ => return Err(CodecError::Invalid("deadline")),
    };
    let replaces = VersionVector::decode(&mut input)?;
    input.end()?;
    Ok((time, dot, replaces))
}

fn of_sibling(sibling: &Sibling) -> Option<Decision> {
    let (time, dot, replaces) = decode(&sibling.payload).ok()?;
    Some(Decision { time, dot: dot.unwrap_or(sibling.dot), replaces })
}

/// The decision that counts. It carries what any decision in the row has replaced: a copy of it
/// supersedes them all, and what they took away must not come back.
pub(crate) fn effective(row: &Row) -> Option<Decision> {
    let decisions: Vec<Decision> = row.siblings().iter().filter_map(of_sibling).collect();
    let mut effective = decisions
        .iter()
        .filter(|decision| !decisions.iter().any(|other| other.replaces.contains(&decision.dot)))
        .max_by_key(|decision| decision.rank())
        .cloned()?;
    for other in &decisions {
        effective.replaces.join(&other.replaces);
    }
    Some(effective)
}

/// What a new decision replaces: every decision in the row, and all that those replaced; but not one that
/// has the same dot, which it overwrites: it would replace itself.
pub(crate) fn observed(row: &Row, own: &Dot) -> VersionVector {
    let mut observed = VersionVector::new();
    for decision in row.siblings().iter().filter_map(of_sibling) {
        if decision.dot != *own {
            observed.advance(decision.dot.origin, decision.dot.seq);
        }
        observed.join(&decision.replaces);
    }
    observed
}
