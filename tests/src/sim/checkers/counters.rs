//! Exact counters: every increment that was delivered counts once; a reset takes back exactly the
//! increments that its node had seen.

use std::collections::BTreeMap;

use bytes::Bytes;
use lattis_engine::causal::VersionVector;

use super::{History, Reading, Verdict, spec};
use crate::sim::workload::{Fact, Place};

const INCREMENTED: [&str; 4] = ["c1", "c2", "c3", "ch"];
const RESET: [&str; 3] = ["r1", "r2", "h1"];

/// Compares what a node shows with what it has delivered.
pub fn check(history: &History, vector: &VersionVector, reading: &Reading) -> Verdict {
    let mut sums: BTreeMap<&Place, i64> = BTreeMap::new();
    let mut resets: BTreeMap<&Place, ()> = BTreeMap::new();
    for ((origin, last), known) in &history.commits {
        if vector.get(origin) < *last {
            continue;
        }
        for fact in &known.facts {
            match fact {
                Fact::Add(place, by) if INCREMENTED.contains(&place.1) => {
                    *sums.entry(place).or_insert(0) += by;
                }
                Fact::Add(place, _) | Fact::Put(place, _) if RESET.contains(&place.1) => {
                    resets.insert(place, ());
                }
                _ => {}
            }
        }
    }
    for (place, sum) in sums {
        compare(place, Some(Bytes::from(sum.to_string())), reading)?;
    }
    for place in resets.into_keys() {
        compare(place, spec::left(history, vector, place).shown(), reading)?;
    }
    Ok(())
}

/// What is to be seen at a place, and what is seen.
pub fn compare(place: &Place, wanted: Option<Bytes>, reading: &Reading) -> Verdict {
    let seen = reading.get(place);
    match seen == wanted.as_ref() {
        true => Ok(()),
        false => Err(format!("{place:?} shows {seen:?}, by the history it is {wanted:?}")),
    }
}
