//! The simulator over a fixed range of seeds: no invariant breaks, everything was exercised, the same
//! seed gives the same history. With the feature `planted`: every planted bug is found.

use std::panic::catch_unwind;
use std::thread;

use lattis_tests::sim::{Coverage, Fault, Outcome, run};

/// Seeds that are played each time.
const SEEDS: u64 = 2_000;

/// What has to happen in them, and how often at least.
const EXERCISED: &[(&str, u64)] = &[
    ("broken connections", 1_000),
    ("clock jumps ahead", 200),
    ("clock jumps back", 200),
    ("clocks accepted", 300),
    ("clocks fenced", 200),
    ("clocks held", 1_000),
    ("closed links", 10_000),
    ("dead links", 500),
    ("double crashes", 500),
    ("equal moments", 20_000),
    ("generations", 100_000),
    ("generations that found the disk full", 1_000),
    ("grafts", 5_000),
    ("kills", 1_000),
    ("log reads below the floor", 2_000),
    ("one-way cuts", 200),
    ("outbox drops", 1_000),
    ("partitions", 1_000),
    ("pauses", 100),
    ("power cuts with loss", 300),
    ("refusals", 500),
    ("requests", 100_000),
    ("restored disks", 100),
    ("shared commits", 10_000),
    ("spoilt disks", 1_000),
    ("stops with rows under way", 500),
    ("torn frames", 300),
    ("transfers", 1_000),
    ("transfers that go on", 20),
    ("truncated grafts", 500),
    ("undone ticks", 1_000),
    ("unknown writes", 50),
    ("verifications", 10_000),
];

/// Plays a seed; a panic in the code under test is a failure like any other.
fn play(seed: u64, fault: Fault) -> Outcome {
    catch_unwind(|| run(seed, fault, false)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        let failure = Some(("panic", text.to_owned()));
        Outcome { seed, failure, trace: 0, coverage: Coverage::new() }
    })
}

fn passes(seed: u64) -> Outcome {
    let outcome = play(seed, Fault::None);
    if let Some((invariant, why)) = &outcome.failure {
        panic!("SEED={seed} {invariant}: {why}");
    }
    outcome
}

#[test]
fn no_invariant_breaks_and_everything_is_exercised() {
    let workers = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let share = move |worker| {
        let mut coverage = Coverage::new();
        for seed in (worker..SEEDS).step_by(workers as usize) {
            for (what, count) in passes(seed).coverage {
                *coverage.entry(what).or_insert(0) += count;
            }
        }
        coverage
    };
    let threads: Vec<_> = (0..workers).map(|worker| thread::spawn(move || share(worker))).collect();
    let mut coverage = Coverage::new();
    for thread in threads {
        for (what, count) in thread.join().expect("a seed failed, see above") {
            *coverage.entry(what).or_insert(0) += count;
        }
    }
    for (what, count) in &coverage {
        println!("{count:>8} {what}");
    }
    for (what, least) in EXERCISED {
        let count = coverage.get(what).copied().unwrap_or(0);
        assert!(count >= *least, "{what}: {count} times in {SEEDS} seeds, not {least}");
    }
}

#[test]
fn a_seed_gives_one_history() {
    for seed in 0..30 {
        assert_eq!(passes(seed).trace, passes(seed).trace, "SEED={seed}");
    }
}

#[cfg(feature = "planted")]
mod planted {
    use super::*;

    /// Seeds within which every planted bug has to be found.
    const LIMIT: u64 = 2_000;

    #[test]
    fn every_planted_bug_is_found() {
        // What finds a bug has to be silent without it.
        for seed in 0..100 {
            passes(seed);
        }
        let mut missed = Vec::new();
        for fault in Fault::all() {
            let found = (0..LIMIT).find_map(|seed| play(seed, fault).failure.map(|it| (seed, it)));
            match found {
                Some((seed, (invariant, why))) => {
                    let why: String = why.chars().take(90).collect();
                    let name = format!("{fault:?}");
                    println!("{name:<40} {:>4} seeds  {invariant}: {why}", seed + 1);
                }
                None => missed.push(fault),
            }
        }
        assert!(missed.is_empty(), "not found within {LIMIT} seeds: {missed:?}");
    }
}
