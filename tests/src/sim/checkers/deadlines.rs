//! Deadlines: what was written after every deadline of a key is never taken by any of them, whatever
//! the clocks say.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use lattis_engine::causal::{Millis, Origin, VersionVector};
use lattis_engine::commit::{Commit, LogEntry};
use lattis_engine::store::{Family, MemStore, Read};
use lattis_engine::{OpError, Txn};

use super::{History, Reading, Verdict, counters, spec};
use crate::sim::workload::{Fact, Place};

/// Looks for newer lives of keys with deadlines.
pub fn check(history: &History, vector: &VersionVector, reading: &Reading) -> Verdict {
    for key in ["t1", "t2"] {
        let mut end = Millis(0);
        let mut places: BTreeSet<&Place> = BTreeSet::new();
        for ((origin, last), known) in &history.commits {
            for fact in &known.facts {
                match fact {
                    Fact::Deadline(_, of, time) if *of == key && vector.get(origin) >= *last => {
                        end = end.max(*time);
                    }
                    Fact::Put(place, _) if place.1 == key => drop(places.insert(place)),
                    _ => {}
                }
            }
        }
        for place in places {
            let left = spec::left(history, vector, place);
            if left.winner.is_some() && left.written > end {
                counters::compare(place, left.shown(), reading)?;
            }
        }
    }
    Ok(())
}

/// A deadline passes by the wall clock of its node, at once and not before: what it has hidden it has
/// reached, `latest` being the latest that the node's clock has shown. And it does not come back, as long
/// as the node runs: `seen` is what was hidden by which deadline.
pub fn passes(
    txn: &mut Txn<'_, MemStore>,
    wall: Millis,
    latest: Millis,
    seen: &mut BTreeMap<&'static str, Millis>,
) -> Verdict {
    for key in ["t1", "t2"] {
        let error = |error: OpError| error.to_string();
        let hidden = txn.hidden_by(1, key.as_bytes()).map_err(error)?;
        if let Some(time) = hidden.filter(|time| *time >= latest) {
            return Err(format!("{key} is hidden by {}, but it is {} at most", time.0, latest.0));
        }
        let left = txn.deadline(1, key.as_bytes()).map_err(error)?.flatten();
        if let Some(time) = left.filter(|time| *time < wall) {
            return Err(format!("{key} is there till {}, but it is {}", time.0, wall.0));
        }
        if let Some(time) = left.filter(|time| seen.get(key) == Some(time)) {
            return Err(format!("{key} is there again, which {} had hidden", time.0));
        }
        seen.extend(hidden.map(|time| (key, time)));
    }
    Ok(())
}

/// A node's commits say what its wall clock showed when they were made.
pub fn told(entries: &[LogEntry], origin: &Origin, wall: Millis) -> Verdict {
    for entry in entries {
        let LogEntry::Commit(encoded) = entry else { continue };
        let commit = Commit::decode(encoded).map_err(|error| error.to_string())?;
        let written = commit.stamp().written;
        if commit.origin == *origin && written != wall {
            return Err(format!("a commit says {}, when it was {}", written.0, wall.0));
        }
    }
    Ok(())
}

/// In the end a key that expired has left no value and no member on the disk.
pub fn finish(store: &MemStore, reading: &Reading) -> Verdict {
    for key in ["t1", "t2"] {
        if reading.keys().any(|place| place.1 == key) {
            continue;
        }
        let mut name = 1u16.to_be_bytes().to_vec();
        name.extend_from_slice(key.as_bytes());
        let record = store.get(Family::Keys, &name).map_err(|error| error.to_string())?;
        // A record begins with its format, and how many single rows it has.
        let value = record.filter(|record| record.get(1) != Some(&0));
        let mut members = Vec::new();
        let rows = store.scan(Family::Data, &[0, 1], &[0, 2], &mut |row, _| {
            if row.windows(2).any(|part| part == key.as_bytes()) {
                members.push(row.to_vec());
            }
            ControlFlow::Continue(())
        });
        rows.map_err(|error| error.to_string())?;
        if value.is_some() || !members.is_empty() {
            return Err(format!("{key} is gone, but has left {value:?} {members:?}"));
        }
    }
    Ok(())
}

/// After this time no deadline can hide anything more.
pub fn last(history: &History) -> Millis {
    let facts = history.commits.values().flat_map(|known| &known.facts);
    facts
        .filter_map(|fact| match fact {
            Fact::Deadline(_, _, time) => Some(*time),
            _ => None,
        })
        .max()
        .unwrap_or_default()
}
