//! Deadlines: what was written after every deadline of a key is never taken by any of them, whatever
//! the clocks say.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use lattis_engine::causal::{Millis, VersionVector};
use lattis_engine::store::{Family, MemStore, Read};

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

/// In the end a key that expired has left no value and no member on the disk.
pub fn finish(store: &MemStore, reading: &Reading) -> Verdict {
    for key in ["t1", "t2"] {
        if reading.keys().any(|place| place.1 == key) {
            continue;
        }
        let mut name = 1u16.to_be_bytes().to_vec();
        name.extend_from_slice(key.as_bytes());
        let record = store.get(Family::Keys, &name).map_err(|error| error.to_string())?;
        // A record begins with its format, and the string's siblings and increments, counted.
        let value = record.filter(|record| record.get(1..3) != Some(&[0, 0]));
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
