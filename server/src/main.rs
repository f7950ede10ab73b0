//! Starts a node.

use std::process::ExitCode;

use lattis_server::config::{Config, help};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--help" | "-h") => {
            print!("{}", help());
            return ExitCode::SUCCESS;
        }
        Some("--version" | "-v") => {
            println!("lattis-server {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    match Config::from_arguments(arguments).and_then(lattis_server::run::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("lattis-server: {why}");
            ExitCode::FAILURE
        }
    }
}
