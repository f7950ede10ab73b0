//! Starts a node.

use std::io::Write as _;

use lattis_server::check::{self, Outcome};
use lattis_server::config::{Config, Wanted, help};
use lattis_server::{logging, process, run};

fn main() {
    process::end_on_panic();
    let ended = Config::from_arguments(std::env::args().skip(1)).and_then(|wanted| match wanted {
        Wanted::Run(config) => run::run(*config).map(|()| 0),
        Wanted::Help => Ok(print(&help())),
        Wanted::Version => Ok(print(&format!("lattis-server {}\n", env!("CARGO_PKG_VERSION")))),
        Wanted::Check(directory) => check::check(&directory).map(report),
        Wanted::Repair(directory) => check::repair(&directory).map(report),
    });
    process::end(ended.unwrap_or_else(|why| {
        logging::last_words(&why);
        process::FAILED
    }))
}

/// The exit code says whether the directory is whole.
fn report(outcome: Outcome) -> u8 {
    print(&outcome.text);
    if outcome.whole { 0 } else { process::FAILED }
}

/// Writes to the standard output; who asks and does not listen is not told.
fn print(text: &str) -> u8 {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    0
}
