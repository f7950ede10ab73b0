//! Sets: a member is there while an addition is left that no removal had seen.

use std::collections::BTreeSet;

use bytes::Bytes;
use lattis_engine::causal::VersionVector;

use super::{History, Reading, Verdict, counters, spec};
use crate::sim::workload::{Fact, Place};

/// Compares the members that a node shows with what it has delivered.
pub fn check(history: &History, vector: &VersionVector, reading: &Reading) -> Verdict {
    let facts = history.commits.values().flat_map(|known| &known.facts);
    let members: BTreeSet<&Place> = facts
        .filter_map(|fact| match fact {
            Fact::Put(place, _) if place.1 == "s1" => Some(place),
            _ => None,
        })
        .collect();
    for place in members {
        let there = spec::left(history, vector, place).winner.is_some();
        counters::compare(place, there.then(Bytes::new), reading)?;
    }
    Ok(())
}
