//! Starts a node.

use std::io::Write as _;
use std::path::Path;

use lattis_server::check::{self, Outcome};
use lattis_server::config::{Config, help};
use lattis_server::{logging, process, run};

fn main() {
    process::end_on_panic();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--help" | "-h") => print(&help()),
        Some("--version" | "-v") => {
            print(&format!("lattis-server {}\n", env!("CARGO_PKG_VERSION")))
        }
        Some("--check") => report(arguments.get(1), check::check),
        Some("--repair") => report(arguments.get(1), check::repair),
        _ => match Config::from_arguments(arguments).and_then(run::run) {
            Ok(()) => {}
            Err(why) => {
                logging::last_words(&why);
                process::end(process::FAILED);
            }
        },
    }
    process::end(0)
}

/// Does what is to be done with a directory, and ends the process: with 1 if it is damaged.
fn report(directory: Option<&String>, work: fn(&Path) -> Result<Outcome, String>) -> ! {
    let Some(directory) = directory else {
        logging::last_words("a directory is missing");
        process::end(process::FAILED);
    };
    match work(Path::new(directory)) {
        Ok(outcome) => {
            print(&outcome.text);
            process::end(if outcome.whole { 0 } else { process::FAILED });
        }
        Err(why) => {
            logging::last_words(&why);
            process::end(process::FAILED);
        }
    }
}

/// Writes to the standard output; who asks and does not listen is not told.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
