//! The latency of single SETs while rows are written to files and merged underneath.
//!
//! One connection measures, one command at a time; another writes volume at a bounded rate, so that
//! what is seen is flushing and not saturation. Each second is a row, with the table files that
//! appeared in it; at the end the seconds with and without new files are put side by side.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::Options;
use crate::measure::{percentile, pipelined};

const VALUE: usize = 1024;
const VOLUME_PER_SECOND: u64 = 16_000;
const KEYS: u64 = 500_000;

/// Measures, and prints a table.
pub fn run(options: &Options) {
    let server = options.start_alone();
    let seconds = if options.quick { 4 } else { 30 };
    println!(
        "{}: SET of {VALUE} bytes one at a time, beside {VOLUME_PER_SECOND} such SETs/s; microseconds.\n",
        options.subject()
    );
    println!("| second | volume SETs | new table files | measured | p50 | p99 | p99.9 | max |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut quiet = Vec::new();
    let mut flushing = Vec::new();
    thread::scope(|scope| {
        let mut volume = server.client();
        let (stop, written) = (&stop, &written);
        scope.spawn(move || {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            let start = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let due = start.elapsed().as_millis() as u64 * VOLUME_PER_SECOND / 1000;
                if written.load(Ordering::Relaxed) >= due {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let commands: Vec<Vec<String>> = (0..16).map(|_| set(&mut rng)).collect();
                pipelined(&mut volume, 16, &commands);
                written.fetch_add(16, Ordering::Relaxed);
            }
        });
        let mut probe = server.client();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (mut known, mut volume_before) = (tables(server.data()), 0);
        for second in 1..=seconds {
            let start = Instant::now();
            let mut latencies = Vec::new();
            while start.elapsed() < Duration::from_secs(1) {
                let command = set(&mut rng);
                let asked = Instant::now();
                assert!(probe.call(&command).is_ok());
                latencies.push(asked.elapsed().as_secs_f64() * 1e6);
            }
            let now = tables(server.data());
            let fresh = now.difference(&known).count();
            known = now;
            let volume = written.load(Ordering::Relaxed);
            println!("| {second} | {} | {fresh} | {}", volume - volume_before, columns(&latencies));
            volume_before = volume;
            if fresh > 0 { &mut flushing } else { &mut quiet }.extend(latencies);
        }
        stop.store(true, Ordering::Relaxed);
    });
    for (name, latencies) in [("without new files", &quiet), ("with new files", &flushing)] {
        if !latencies.is_empty() {
            println!("| {name} | | | {}", columns(latencies));
        }
    }
}

fn columns(latencies: &[f64]) -> String {
    let [p50, p99, p999, max] = [50.0, 99.0, 99.9, 100.0].map(|p| percentile(latencies, p));
    format!("{} | {p50:.0} | {p99:.0} | {p999:.0} | {max:.0} |", latencies.len())
}

fn set(rng: &mut ChaCha8Rng) -> Vec<String> {
    let key = format!("flush:{:06}", rng.next_u64() % KEYS);
    // Random digits, so that compression has to work as it would.
    let mut value = String::with_capacity(VALUE);
    while value.len() < VALUE {
        value.push_str(&format!("{:016x}", rng.next_u64()));
    }
    vec!["SET".to_string(), key, value]
}

/// Table files below a directory.
fn tables(dir: &Path) -> BTreeSet<std::ffi::OsString> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(tables(&path));
        } else if path.extension().is_some_and(|extension| extension == "sst") {
            found.insert(entry.file_name());
        }
    }
    found
}
