//! Collections as a whole, beside Redis: reading them, scanning, and what they take in memory.

use std::fs;
use std::thread;
use std::time::Duration;

use lattis_tests::process::Server;

use crate::measure::{CpuWatch, custom_benchmark, median, pipelined, spread};
use crate::{Options, REDIS};

/// Commands in flight while data is loaded.
const DEPTH: usize = 64;
const PIPELINE: usize = 16;
/// Keys in the db while it is scanned.
const SCANNED: usize = 120_000;

/// Measures, and prints tables.
pub fn run(options: &Options) {
    let servers = [Server::redis(REDIS), options.start_alone()];
    reads(options, &servers);
    drop(servers);
    memory(options);
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_string).collect()
}

/// A set and a hash of that size, and one of each that shares half of its members.
fn fill(server: &Server, size: usize) {
    let mut client = server.client();
    let mut load = Vec::new();
    for copy in 0..2 {
        let members = (copy * size / 2..copy * size / 2 + size).map(|at| format!("member:{at}"));
        let fields = (0..size).flat_map(|at| [format!("field:{at}"), format!("value:{at}")]);
        let key = |kind| format!("{kind}:{size}:{copy}");
        load.push(words(&format!("SADD {}", key("set"))).into_iter().chain(members).collect());
        load.push(words(&format!("HSET {}", key("hash"))).into_iter().chain(fields).collect());
    }
    pipelined(&mut client, DEPTH, &load);
}

fn reads(options: &Options, servers: &[Server; 2]) {
    let keys: Vec<_> = (0..SCANNED).map(|at| words(&format!("SET key:{at} {at}"))).collect();
    for server in servers {
        [10, 100, 1_000].iter().for_each(|size| fill(server, *size));
        pipelined(&mut server.client(), DEPTH, &keys);
    }
    println!(
        "Pipeline {PIPELINE}, 50 clients, median of {} rounds; CPU microseconds of the server per request.\n",
        options.rounds
    );
    println!(
        "| command | Redis, requests/s | {}, requests/s | ratio | CPU us, Redis | CPU us |",
        options.subject()
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    let mut commands = Vec::new();
    for size in [10, 100, 1_000] {
        for line in ["SMEMBERS set", "HGETALL hash"] {
            commands.push((size, format!("{line}:{size}:0")));
        }
        for line in ["SINTER", "SUNION", "SDIFF"] {
            commands.push((size, format!("{line} set:{size}:0 set:{size}:1")));
        }
    }
    commands.push((1_000, "SINTER set:10:0 set:1000:0".into()));
    commands.push((10, "SCAN 0 COUNT 10".into()));
    for (size, command) in commands {
        let mut rates = [Vec::new(), Vec::new()];
        let mut cpus = [Vec::new(), Vec::new()];
        let seconds = options.seconds() / 2.0;
        let requests: Vec<u64> = servers
            .iter()
            .map(|server| {
                let few = 40_000 / size as u64 + 1_000;
                let probe = custom_benchmark(server.port(), &words(&command), PIPELINE, few);
                (probe * seconds) as u64 + 1_000
            })
            .collect();
        for _ in 0..options.rounds {
            for (index, server) in servers.iter().enumerate() {
                let watch = CpuWatch::start(&[server.pid()]);
                let count = requests[index];
                let rate = custom_benchmark(server.port(), &words(&command), PIPELINE, count);
                rates[index].push(rate);
                cpus[index].push(watch.stop().0 * 1e6 / count as f64);
            }
        }
        let ratios: Vec<f64> =
            rates[1].iter().zip(&rates[0]).map(|(it, redis)| it / redis).collect();
        let (least, most) = spread(&ratios);
        println!(
            "| {command} | {:.0} | {:.0} | {:.2} ({least:.2}-{most:.2}) | {:.2} | {:.2} |",
            median(&rates[0]),
            median(&rates[1]),
            median(&ratios),
            median(&cpus[0]),
            median(&cpus[1]),
        );
    }
}

/// What is loaded: its name, how many it is, and a command that adds some of them by number.
type Load = (&'static str, usize, fn(usize) -> Vec<String>);

/// Members or fields that one command adds.
const AT_ONCE: usize = 100;

fn small_hash(fields: usize, number: usize) -> Vec<String> {
    let pairs = (0..fields).flat_map(|at| [format!("f{at}"), format!("v{}", number + at)]);
    words(&format!("HSET hash:{number:09}")).into_iter().chain(pairs).collect()
}

const LOADS: &[Load] = &[
    ("key of 16 bytes, value of 64", 1_000_000, |at| {
        vec!["SET".into(), format!("key:{at:012}"), "x".repeat(64)]
    }),
    ("member of 8 bytes, of a set of a million", 1_000_000, |at| {
        let members = (at..at + AT_ONCE).map(|at| format!("{at:08}"));
        words("SADD set").into_iter().chain(members).collect()
    }),
    ("member of 20 bytes, of a set of a million", 1_000_000, |at| {
        let members = (at..at + AT_ONCE).map(|at| format!("{at:020}"));
        words("SADD set").into_iter().chain(members).collect()
    }),
    ("field and value of 13 bytes, of a hash of a million", 1_000_000, |at| {
        let fields = at..at + AT_ONCE;
        let pairs = fields.flat_map(|at| [format!("field:{at:07}"), format!("value:{at:07}")]);
        words("HSET hash").into_iter().chain(pairs).collect()
    }),
    ("hash of 5 small fields", 1_000_000, |at| small_hash(5, at)),
    ("hash of 10 small fields", 1_000_000, |at| small_hash(10, at)),
    ("set of 5 small members", 1_000_000, |at| {
        let members = (0..5).map(|member| format!("m{}", at + member));
        words(&format!("SADD set:{at:09}")).into_iter().chain(members).collect()
    }),
];

fn resident(server: &Server) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) * 1024.0
}

fn memory(options: &Options) {
    println!(
        "\nResident bytes of the process for each, four seconds after the last was added, less those of an \
         empty server.\n"
    );
    println!("| each | how many | Redis | {} | ratio |", options.subject());
    println!("| --- | --- | --- | --- | --- |");
    for (name, count, load) in LOADS {
        let step = if load(0).len() > AT_ONCE { AT_ONCE } else { 1 };
        let mut each = Vec::new();
        for server in [Server::redis(REDIS), options.start_alone()] {
            let mut client = server.client();
            let empty = resident(&server);
            for from in (0..*count).step_by(step * 4_096) {
                let commands: Vec<_> =
                    (from..(from + step * 4_096).min(*count)).step_by(step).map(load).collect();
                pipelined(&mut client, DEPTH, &commands);
            }
            thread::sleep(Duration::from_secs(4));
            each.push((resident(&server) - empty) / *count as f64);
        }
        println!(
            "| {name} | {count} | {:.0} | {:.0} | {:.2} |",
            each[0],
            each[1],
            each[1] / each[0]
        );
    }
}
