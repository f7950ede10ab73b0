//! Each planted fault of the models is found: by the histories, or by a link that is slow.
#![cfg(feature = "planted")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod history;
mod slow;
mod world;

use lattis_replication::{Config, Planted};

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

/// What a slow link shows of a fault; it shows nothing without one.
fn shows(scenario: fn(&dyn Fn(&mut Config)) -> Result<(), String>, fault: Planted) {
    scenario(&|_| {}).unwrap();
    let why = scenario(&|config| config.planted = Some(fault)).unwrap_err();
    println!("{fault:?}: {why}");
}

#[test]
fn dead_by_heartbeat() {
    shows(slow::a_slow_link_is_not_dead, Planted::DeadByHeartbeat);
}

#[test]
fn one_lane() {
    shows(slow::what_is_small_waits_for_nothing, Planted::OneLane);
}

#[test]
fn transfer_forgotten() {
    shows(slow::a_transfer_that_is_cut_goes_on, Planted::TransferForgotten);
}

#[test]
fn log_not_held() {
    shows(slow::a_transfer_is_not_overtaken, Planted::LogNotHeld);
}

#[test]
fn clock_not_held() {
    shows(slow::a_clock_ahead_moves_nobody, Planted::ClockNotHeld);
}
