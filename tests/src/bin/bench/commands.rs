//! Throughput, latency and CPU of single commands, side by side: one round measures every server once,
//! and ratios are taken within a round, since the machine's mood changes between rounds.

use std::thread;
use std::time::Duration;

use lattis_tests::process::Server;

use crate::measure::{CpuWatch, NEW_MEMBERS, median, redis_benchmark, spread};
use crate::{Options, REDIS, wait_until_joined};

struct Sample {
    rps: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// CPU microseconds of the server per request.
    cpu_us: f64,
    /// Cores that neither server nor load generator used.
    others: f64,
}

/// Redis against one node.
pub fn alone(options: &Options) {
    let servers = [Server::redis(REDIS), options.start_alone()];
    compare(options, &[("Redis", &servers[0]), (options.subject(), &servers[1])]);
}

/// Redis against one node and against one with two peers attached.
pub fn with_peers(options: &Options) {
    let (redis, alone) = (Server::redis(REDIS), options.start_alone());
    let nodes = options.start_with_peers(2);
    wait_until_joined(&nodes);
    let with_peers = format!("{}, two peers", options.subject());
    compare(
        options,
        &[("Redis", &redis), (options.subject(), &alone), (with_peers.as_str(), &nodes[0])],
    );
}

fn sample(server: &Server, test: &str, pipeline: usize, requests: u64) -> Sample {
    if test == NEW_MEMBERS {
        server.client().words("DEL myset");
        thread::sleep(Duration::from_secs(2)); // until it is gone from disks and caches, too
    }
    let watch = CpuWatch::start(&[server.pid()]);
    let run = redis_benchmark(server.port(), test, pipeline, requests);
    let (cpu, others) = watch.stop();
    let cpu_us = cpu * 1e6 / requests as f64;
    Sample { rps: run.rps, p50_ms: run.p50_ms, p99_ms: run.p99_ms, cpu_us, others }
}

fn compare(options: &Options, servers: &[(&str, &Server)]) {
    for (_, server) in servers {
        redis_benchmark(server.port(), "SET", 16, 300_000); // so that GET finds its keys
    }
    println!(
        "Median of {} rounds of at least {} s; ratio and CPU ratio to the first server, (least-most); \
         CPU seconds per million requests; others = cores used by all other processes (peers too).\n",
        options.rounds,
        options.seconds()
    );
    println!(
        "| command | pipeline | server | requests/s | ratio | p50 ms | p99 ms | CPU | CPU ratio | others |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for test in &options.tests {
        for pipeline in [1, 16] {
            let requests: Vec<u64> = servers
                .iter()
                .map(|(_, server)| {
                    let probe = redis_benchmark(server.port(), test, pipeline, 40_000);
                    (probe.rps * options.seconds()) as u64
                })
                .collect();
            let rounds: Vec<Vec<Sample>> = (0..options.rounds)
                .map(|_| {
                    let each = servers.iter().zip(&requests);
                    each.map(|((_, server), n)| sample(server, test, pipeline, *n)).collect()
                })
                .collect();
            for (index, (name, _)) in servers.iter().enumerate() {
                let all = |value: fn(&Sample) -> f64| -> Vec<f64> {
                    rounds.iter().map(|round| value(&round[index])).collect()
                };
                let ratios = |value: fn(&Sample) -> f64| -> String {
                    let ratios: Vec<f64> = rounds
                        .iter()
                        .map(|round| value(&round[index]) / value(&round[0]))
                        .collect();
                    let (least, most) = spread(&ratios);
                    format!("{:.2} ({least:.2}-{most:.2})", median(&ratios))
                };
                println!(
                    "| {test} | {pipeline} | {name} | {:.0} | {} | {:.2} | {:.2} | {:.2} | {} | {:.1} |",
                    median(&all(|s| s.rps)),
                    ratios(|s| s.rps),
                    median(&all(|s| s.p50_ms)),
                    median(&all(|s| s.p99_ms)),
                    median(&all(|s| s.cpu_us)),
                    ratios(|s| s.cpu_us),
                    median(&all(|s| s.others)),
                );
            }
        }
    }
}
