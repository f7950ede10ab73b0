//! What it costs that keys go by themselves, beside Redis in the same run.
//!
//! First a cache: keys are written at a fixed rate and live for two seconds, while another client reads;
//! then many keys that are due at one moment, while another client writes. Who reads and writes beside it is
//! told by its latencies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lattis_tests::process::Server;

use crate::measure::{cpu_seconds, percentile, pipelined};
use crate::{Options, REDIS};

/// SETs a second of the cache.
const RATES: [u64; 3] = [2_000, 10_000, 30_000];

/// Measures, and prints two tables.
pub fn run(options: &Options) {
    println!(
        "| SET a second | time to live | server | done a second | CPU | GET p50 ms | p99 | max |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let seconds = if options.quick { 4 } else { 10 };
    for rate in RATES {
        for (shown, millis) in [("none", None), ("2 s", Some(2_000))] {
            for server in [Server::redis(REDIS), options.start_alone()] {
                cache(&server, rate, shown, millis, seconds);
            }
        }
    }
    println!("\n| keys due at once | server | gone after s | SET p50 ms | p99 | max |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let keys = if options.quick { 200_000 } else { 1_000_000 };
    for _ in 0..options.rounds.min(3) {
        for server in [Server::redis(REDIS), options.start_alone()] {
            at_once(&server, keys);
        }
    }
}

fn cache(server: &Server, rate: u64, shown: &str, millis: Option<u64>, seconds: u64) {
    // Until as many go as come.
    let warm = Duration::from_secs(3);
    let (measuring, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let (done, cpu, latencies) = thread::scope(|scope| {
        let (measuring, stop) = (&measuring, &stop);
        let writing = scope.spawn(move || {
            let mut client = server.client();
            let (start, mut sent, mut before) = (Instant::now(), 0, None);
            while !stop.load(Ordering::Relaxed) {
                let due = start.elapsed().as_micros() as u64 * rate / 1_000_000;
                if sent >= due {
                    thread::sleep(Duration::from_micros(500));
                    continue;
                }
                let commands: Vec<Vec<String>> = (sent..due.min(sent + 64))
                    .map(|number| {
                        let mut command = vec!["SET".into(), format!("s:{number}"), "v".into()];
                        if let Some(millis) = millis {
                            command.extend(["PX".into(), millis.to_string()]);
                        }
                        command
                    })
                    .collect();
                pipelined(&mut client, commands.len(), &commands);
                sent += commands.len() as u64;
                if before.is_none() && measuring.load(Ordering::Relaxed) {
                    before = Some(sent);
                }
            }
            sent - before.unwrap_or(0)
        });
        let reading = scope.spawn(move || {
            let mut client = server.client();
            let mut latencies = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                client.words("GET s:1");
                if measuring.load(Ordering::Relaxed) {
                    latencies.push(asked.elapsed().as_secs_f64() * 1e3);
                }
                thread::sleep(Duration::from_millis(1));
            }
            latencies
        });
        thread::sleep(warm);
        let before = cpu_seconds(server.pid());
        measuring.store(true, Ordering::Relaxed);
        thread::sleep(Duration::from_secs(seconds));
        let cpu = cpu_seconds(server.pid()) - before;
        stop.store(true, Ordering::Relaxed);
        (writing.join().expect("the writer"), cpu, reading.join().expect("the reader"))
    });
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|p| percentile(&latencies, p));
    println!(
        "| {rate} | {shown} | {} | {} | {:.0} % | {p50:.2} | {p99:.1} | {max:.0} |",
        server.name(),
        done / seconds,
        cpu / seconds as f64 * 100.0,
    );
}

fn at_once(server: &Server, keys: u64) {
    let mut client = server.client();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    // Far enough for all of them to be written before.
    let due = Duration::from_millis(now.as_millis() as u64) + Duration::from_secs(20);
    let at = due.as_millis().to_string();
    for first in (0..keys).step_by(10_000) {
        let commands: Vec<Vec<String>> = (first..(first + 10_000).min(keys))
            .map(|number| {
                ["SET", &format!("s:{number}"), "v", "PXAT", &at].map(str::to_owned).to_vec()
            })
            .collect();
        pipelined(&mut client, 500, &commands);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    thread::sleep(due.checked_sub(now).expect("the keys are written before they are due"));
    let (start, mut latencies) = (Instant::now(), Vec::new());
    let mut counter = server.client();
    loop {
        let asked = Instant::now();
        assert!(client.words("SET other v").is_ok());
        latencies.push(asked.elapsed().as_secs_f64() * 1e3);
        if latencies.len().is_multiple_of(50) && counter.words("DBSIZE").int() == Some(1) {
            break;
        }
        thread::sleep(Duration::from_micros(500));
    }
    let gone = start.elapsed().as_secs_f64();
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|p| percentile(&latencies, p));
    let name = server.name();
    println!("| {keys} | {name} | {gone:.1} | {p50:.2} | {p99:.1} | {max:.0} |");
}
