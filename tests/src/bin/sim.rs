//! Replays one seed of the simulator with its trace, and says what became of it. Of a range of seeds
//! (`sim 1..1000`) it tells the failures only.

use std::process::ExitCode;

use lattis_tests::sim::{Coverage, Fault, Outcome, run};

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_default();
    if let Ok(seed) = argument.parse() {
        return replay(seed);
    }
    let range = argument
        .split_once("..")
        .and_then(|(from, to)| Some(from.parse::<u64>().ok()?..to.parse::<u64>().ok()?));
    let Some(range) = range else {
        eprintln!("usage: sim SEED | sim FROM..TO");
        return ExitCode::from(2);
    };
    let mut failures = 0;
    let mut coverage = Coverage::new();
    for seed in range {
        let outcome = run(seed, Fault::None, false);
        failures += u64::from(!verdict(&outcome));
        for (what, count) in outcome.coverage {
            *coverage.entry(what).or_insert(0) += count;
        }
    }
    show(&coverage);
    println!("{failures} seeds failed");
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(seed: u64) -> ExitCode {
    let outcome = run(seed, Fault::None, true);
    show(&outcome.coverage);
    println!("trace {:016x}", outcome.trace);
    if verdict(&outcome) {
        println!("PASS SEED={seed}");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

fn show(coverage: &Coverage) {
    for (what, count) in coverage {
        println!("{count:>8} {what}");
    }
}

fn verdict(outcome: &Outcome) -> bool {
    if let Some((invariant, why)) = &outcome.failure {
        println!("FAIL SEED={}: {invariant}: {why}", outcome.seed);
    }
    outcome.failure.is_none()
}
