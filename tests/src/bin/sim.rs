//! Replays one seed of the simulator with its trace, and says what became of it.

use std::process::ExitCode;

use lattis_tests::sim::{Fault, run};

fn main() -> ExitCode {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok());
    let Some(seed) = seed else {
        eprintln!("usage: sim SEED");
        return ExitCode::from(2);
    };
    let outcome = run(seed, Fault::None, true);
    for (what, count) in &outcome.coverage {
        println!("{count:>6} {what}");
    }
    println!("trace {:016x}", outcome.trace);
    match outcome.failure {
        None => {
            println!("PASS SEED={seed}");
            ExitCode::SUCCESS
        }
        Some((invariant, why)) => {
            println!("FAIL SEED={seed}: {invariant}: {why}");
            ExitCode::FAILURE
        }
    }
}
