//! Links with a rate, and views that are no mesh: everything gets there, in a time that follows from the
//! rate.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod slow;
mod world;

#[test]
fn a_big_value_arrives_once() {
    slow::a_big_value_arrives_once(&|_| {}).unwrap();
}

#[test]
fn a_slow_link_is_not_dead() {
    slow::a_slow_link_is_not_dead(&|_| {}).unwrap();
}

#[test]
fn what_is_small_waits_for_nothing() {
    slow::what_is_small_waits_for_nothing(&|_| {}).unwrap();
}

#[test]
fn a_transfer_that_is_cut_goes_on() {
    slow::a_transfer_that_is_cut_goes_on(&|_| {}).unwrap();
}

#[test]
fn a_transfer_is_not_overtaken() {
    slow::a_transfer_is_not_overtaken(&|_| {}).unwrap();
}

#[test]
fn a_clock_ahead_moves_nobody() {
    slow::a_clock_ahead_moves_nobody(&|_| {}).unwrap();
}

/// Over partial views with jitter, payloads at their place in the order wait for each other in circles, which
/// only timers end (version 1). Apart from the order they do not.
#[test]
fn no_circles_on_a_ring_and_on_views_of_degree_four() {
    for (nodes, degree) in [(8, 2), (15, 4), (40, 4)] {
        let before = slow::latencies(nodes, degree, 1, 3);
        let (p50, p99, max) = slow::latencies(nodes, degree, 2, 3);
        println!(
            "{nodes} nodes, degree {degree}: {before:?} ms in order, {:?} apart",
            (p50, p99, max)
        );
        assert!(p99 < before.1 && max < before.2, "{nodes} nodes");
    }
}
