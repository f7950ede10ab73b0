//! Each planted fault of MODEL M5 is found by the histories.
#![cfg(feature = "planted")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod history;
mod world;

use lattis_replication::Planted;

/// Seeds until the first failure, and what it was.
fn found(fault: Planted) -> (u64, String) {
    for seed in 0..10_000 {
        if let Err(why) = history::history(seed, &|config| config.planted = Some(fault)) {
            println!("{fault:?}: seed {seed}: {why}");
            return (seed, why);
        }
    }
    panic!("{fault:?} was not found");
}

#[test]
fn activation_from_now_on() {
    found(Planted::ActivateFromNow);
}

#[test]
fn entry_dropped_from_a_queue() {
    found(Planted::DropFromQueue);
}

#[test]
fn commit_applied_on_arrival() {
    found(Planted::AppliedOnArrival);
}

#[test]
fn no_barriers() {
    found(Planted::NoBarrier);
}

#[test]
fn stale_knowledge() {
    found(Planted::StaleKnowledge);
}

#[test]
fn order_ignored() {
    found(Planted::OrderIgnored);
}

#[test]
fn refusal_restores_nothing() {
    found(Planted::RefusalRestoresNothing);
}
