//! From a write on one node until it can be read on another, at 10,000 writes a second.
//!
//! Writer and reader are threads of one process, hence one clock. The reader takes the next write that
//! the writer is about to send, polls the other node for it, and then knows two moments: when it sent
//! the last poll that did not see the write, and when the first reply that shows it arrived. The write
//! became readable in between. Both ends are reported; the distance between them is the error.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lattis_tests::resp::{Client, encode};

use crate::measure::percentile;
use crate::{Options, wait_until_joined};

const WRITES_PER_SECOND: u64 = 10_000;
/// Writes go round over so many keys.
const KEYS: u64 = 1000;
/// The writer wakes this often and sends what is due.
const STEP: Duration = Duration::from_micros(200);

/// Measures, and prints a table.
pub fn run(options: &Options) {
    let nodes = options.start_with_peers(1);
    wait_until_joined(&nodes);
    let seconds = if options.quick { 2 } else { 10 };
    println!(
        "{}: {WRITES_PER_SECOND} writes/s to A for {seconds} s, read on B.\n",
        options.subject()
    );
    println!("| round | sampled | readable p50 ms | p99 ms | max ms | error p50 ms | p99 ms |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for round in 1..=options.rounds {
        let bounds = measure(nodes[0].client(), nodes[1].client(), seconds * WRITES_PER_SECOND);
        // At the latest: when the reply arrived. The error is how much earlier it may have been.
        let latest: Vec<f64> = bounds.iter().map(|(_, latest)| *latest).collect();
        let errors: Vec<f64> = bounds.iter().map(|(earliest, latest)| latest - earliest).collect();
        println!(
            "| {round} | {} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} |",
            bounds.len(),
            percentile(&latest, 50.0),
            percentile(&latest, 99.0),
            percentile(&latest, 100.0),
            percentile(&errors, 50.0),
            percentile(&errors, 99.0),
        );
    }
}

fn key(write: u64) -> String {
    format!("propagated:{}", write % KEYS)
}

/// Milliseconds from sending to being readable, at the earliest and at the latest, of sampled writes.
fn measure(writer: Client, mut reader: Client, writes: u64) -> Vec<(f64, f64)> {
    let start = Instant::now();
    // When each write was sent, in ns after the start; 0 = not yet.
    let sent_at: Vec<AtomicU64> = (0..writes).map(|_| AtomicU64::new(0)).collect();
    let next = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    let nanos = |moment: Instant| (moment - start).as_nanos() as u64;
    let mut bounds = Vec::new();
    // What earlier rounds left must not be taken for this round's writes.
    let generation = &format!("round-{}", unique());
    thread::scope(|scope| {
        let mut drain = writer.stream().try_clone().expect("a second handle");
        let (sent_at, next, done) = (&sent_at, &next, &done);
        scope.spawn(move || {
            let mut writer = writer;
            while next.load(Ordering::Relaxed) < writes {
                let first = next.load(Ordering::Relaxed);
                let due = nanos(Instant::now()) * WRITES_PER_SECOND / 1_000_000_000;
                let due = due.min(writes).max(first);
                let mut bytes = Vec::new();
                for write in first..due {
                    let value = format!("{generation}:{write:016}{:<24}", "");
                    encode(&["SET", &key(write), &value], &mut bytes);
                }
                let now = nanos(Instant::now());
                for write in first..due {
                    sent_at[write as usize].store(now, Ordering::Release);
                }
                writer.send_raw(&bytes).expect("the connection");
                next.store(due, Ordering::Release);
                thread::sleep(STEP);
            }
            done.store(true, Ordering::Release);
        });
        scope.spawn(move || {
            use std::io::Read;
            let (mut chunk, mut replies) = ([0; 4096], 0);
            while replies < writes {
                let length = drain.read(&mut chunk).expect("replies");
                assert!(length > 0 && !chunk[..length].contains(&b'-'), "a write was refused");
                replies += chunk[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
            }
        });
        while !done.load(Ordering::Acquire) {
            let write = next.load(Ordering::Acquire);
            if write >= writes {
                break;
            }
            let (key, mut unseen) = (key(write), None);
            let (earliest, latest) = loop {
                let asked = Instant::now();
                let seen = reader.call(&["GET", &key]).text().is_some_and(|value| {
                    let number = value.strip_prefix(generation.as_str());
                    let number = number.and_then(|rest| rest[1..].trim().parse::<u64>().ok());
                    number.is_some_and(|number| number >= write)
                });
                if seen {
                    break (unseen, Instant::now());
                }
                unseen = Some(asked);
            };
            // Seen at once: it may have been readable from the moment that it was sent.
            let sent = sent_at[write as usize].load(Ordering::Acquire);
            let since = |moment| nanos(moment).saturating_sub(sent) as f64 / 1e6;
            bounds.push((earliest.map_or(0.0, since), since(latest)));
        }
    });
    bounds
}

fn unique() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}
