//! Deadlines: what was written after every deadline of a key is never taken by any of them, whatever
//! the clocks say.

use std::collections::BTreeSet;

use lattis_engine::causal::{Hlc, Millis, VersionVector};

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
            if left.winner.as_ref().is_some_and(|(hlc, ..)| *hlc > Hlc::end_of(end)) {
                counters::compare(place, left.shown(), reading)?;
            }
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
