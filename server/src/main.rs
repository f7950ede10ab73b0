//! Starts a node.

use std::io::Write as _;

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

/// Writes to the standard output; who asks and does not listen is not told.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
