//! Benchmarks beside Redis, in one run on one machine, as ratios; prints markdown for docs/performance.md.
//!
//! `bench [mode] [--quick] [--rounds n] [--subject redis] [--tests SET,GET] [--cache-bytes n]`; modes are
//! `commands` (throughput, latency and CPU of single commands), `peers` (the same with two peers
//! attached), `propagation` (from a write on one node until it can be read on another), `bindings`
//! (what a binding costs per change), `collections` (whole reads, and bytes in memory), `expiry` (keys that
//! go by themselves) and `flush` (latency while rows are written to files).
//! `--subject redis` puts a second Redis in Lattis's place: what it then shows is noise.

mod bindings;
mod collections;
mod commands;
mod expiry;
mod flush;
mod measure;
mod propagation;

use lattis_tests::process::{NodeConfig, Server};

use crate::measure::NEW_MEMBERS;

/// What the command line asks for.
pub struct Options {
    quick: bool,
    rounds: usize,
    /// Redis in Lattis's place.
    redis_as_subject: bool,
    tests: Vec<String>,
    cache_bytes: u64,
}

/// Redis as it is compared with: a file of all writes, synced each second. Its rewrite is off, since it
/// would fall into some samples and not into others.
pub const REDIS: &[&str] = &[
    "--appendonly",
    "yes",
    "--appendfsync",
    "everysec",
    "--save",
    "",
    "--auto-aof-rewrite-percentage",
    "0",
];

impl Options {
    fn parse() -> (String, Options) {
        let mut mode = "commands".to_string();
        let mut options = Options {
            quick: false,
            rounds: 0,
            redis_as_subject: false,
            tests: Vec::new(),
            cache_bytes: 2 << 30,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| usage());
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--rounds" => options.rounds = value().parse().unwrap_or_else(|_| usage()),
                "--subject" => options.redis_as_subject = value() == "redis",
                "--cache-bytes" => {
                    options.cache_bytes = value().parse().unwrap_or_else(|_| usage());
                }
                "--tests" => options.tests = value().split(',').map(str::to_string).collect(),
                word if !word.starts_with('-') => mode = word.to_string(),
                _ => usage(),
            }
        }
        if options.rounds == 0 {
            options.rounds = if options.quick { 2 } else { 5 };
        }
        if options.tests.is_empty() {
            options.tests =
                ["SET", "GET", "INCR", "SADD", NEW_MEMBERS].map(str::to_string).to_vec();
        }
        (mode, options)
    }

    /// Seconds per sample.
    fn seconds(&self) -> f64 {
        if self.quick { 0.5 } else { 3.2 }
    }

    /// The name of what is measured.
    fn subject(&self) -> &'static str {
        if self.redis_as_subject { "Redis (second)" } else { "Lattis" }
    }

    /// One node of what is measured.
    fn start_alone(&self) -> Server {
        match self.redis_as_subject {
            true => Server::redis(REDIS),
            false => {
                let mut config = durable(NodeConfig::new("bench"));
                // All data lies in memory, as it does in Redis.
                config.cache_bytes = Some(self.cache_bytes);
                Server::lattis(&config)
            }
        }
    }

    /// A node and `count` others that receive its writes.
    fn start_with_peers(&self, count: usize) -> Vec<Server> {
        if self.redis_as_subject {
            let first = Server::redis(REDIS);
            let port = first.port().to_string();
            let mut servers = vec![first];
            for _ in 0..count {
                servers
                    .push(Server::redis(&[REDIS, &["--replicaof", "127.0.0.1", &port]].concat()));
            }
            return servers;
        }
        let names = ["bench-a", "bench-b", "bench-c"];
        NodeConfig::mesh(&names[..=count])
            .into_iter()
            .map(|c| Server::lattis(&durable(c)))
            .collect()
    }
}

fn durable(config: NodeConfig) -> NodeConfig {
    NodeConfig { appendfsync: Some("everysec".into()), ..config }
}

/// Waits until a write on the first is readable on all others.
pub fn wait_until_joined(servers: &[Server]) {
    let mut writer = servers[0].client();
    for (round, other) in servers[1..].iter().enumerate() {
        let mut reader = other.client();
        let start = std::time::Instant::now();
        loop {
            writer.call(&["SET", "joined", &round.to_string()]);
            std::thread::sleep(std::time::Duration::from_millis(20));
            if reader.words("GET joined").text() == Some(round.to_string()) {
                break;
            }
            let name = other.name();
            assert!(start.elapsed().as_secs() < 30, "{name} does not follow\n{}", other.log());
        }
    }
}

fn usage() -> ! {
    eprintln!(
        "bench [commands|peers|propagation|bindings|collections|expiry|flush] [--quick] [--rounds n] \
         [--subject redis] [--tests SET,GET,...] [--cache-bytes n]"
    );
    std::process::exit(2)
}

fn main() {
    let (mode, options) = Options::parse();
    measure::print_machine();
    match mode.as_str() {
        "commands" => commands::alone(&options),
        "peers" => commands::with_peers(&options),
        "propagation" => propagation::run(&options),
        "bindings" => bindings::run(&options),
        "collections" => collections::run(&options),
        "expiry" => expiry::run(&options),
        "flush" => flush::run(&options),
        _ => usage(),
    }
}
