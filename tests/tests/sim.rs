//! The simulator over a fixed range of seeds: no invariant breaks, everything was exercised, the same
//! seed gives the same history. With the feature `planted`: every planted bug is found.

use std::panic::catch_unwind;

use lattis_tests::sim::{Coverage, Fault, Outcome, run};

/// Seeds that found a bug once; the words say which.
const REGRESSIONS: [(u64, &str); 0] = [];

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

#[cfg(feature = "planted")]
mod planted {
    use super::*;

    /// Seeds within which every planted bug has to be found.
    const LIMIT: u64 = 500;

    #[test]
    fn every_planted_bug_is_found() {
        let mut missed = Vec::new();
        for fault in Fault::all() {
            let found = (0..LIMIT).find_map(|seed| play(seed, fault).failure.map(|it| (seed, it)));
            match found {
                Some((seed, (invariant, why))) => {
                    let why: String = why.chars().take(120).collect();
                    println!("{:<45} {:>4} seeds  {invariant}: {why}", format!("{fault:?}"), seed + 1);
                }
                None => missed.push(fault),
            }
        }
        assert!(missed.is_empty(), "not found within {LIMIT} seeds: {missed:?}");
    }
}
