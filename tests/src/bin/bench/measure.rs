//! What all benchmarks measure with: redis-benchmark's figures, CPU times, medians.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use lattis_tests::resp::{Client, encode};

/// Clock ticks per second in /proc: fixed on Linux.
const TICKS: f64 = 100.0;

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The value that this share of all values do not exceed.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// The smallest and the largest value.
pub fn spread(values: &[f64]) -> (f64, f64) {
    (percentile(values, 0.0), percentile(values, 100.0))
}

fn stat_fields(path: &str) -> Vec<f64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect()
}

/// CPU seconds of all threads of a process, user and system.
pub fn cpu_seconds(pid: u32) -> f64 {
    let fields = stat_fields(&format!("/proc/{pid}/stat"));
    (fields[11] + fields[12]) / TICKS
}

/// CPU seconds of this process and of the children that it has waited for.
fn own_cpu_seconds() -> f64 {
    stat_fields("/proc/self/stat")[11..15].iter().sum::<f64>() / TICKS
}

/// CPU seconds of everything on the machine.
fn machine_cpu_seconds() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / TICKS
}

/// CPU used between two moments: by some processes, and by all that has nothing to do with us.
pub struct CpuWatch {
    start: Instant,
    pids: Vec<u32>,
    servers: f64,
    own: f64,
    machine: f64,
}

impl CpuWatch {
    /// Begins to watch.
    pub fn start(pids: &[u32]) -> CpuWatch {
        CpuWatch {
            start: Instant::now(),
            pids: pids.to_vec(),
            servers: pids.iter().map(|pid| cpu_seconds(*pid)).sum(),
            own: own_cpu_seconds(),
            machine: machine_cpu_seconds(),
        }
    }

    /// CPU seconds of the processes, and cores that others were using.
    pub fn stop(&self) -> (f64, f64) {
        let servers = self.pids.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>() - self.servers;
        let own = own_cpu_seconds() - self.own;
        let machine = machine_cpu_seconds() - self.machine;
        let elapsed = self.start.elapsed().as_secs_f64();
        (servers, ((machine - servers - own) / elapsed).max(0.0))
    }
}

/// What redis-benchmark said of one run.
pub struct Run {
    pub rps: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// SADD of members that are not there, into an empty set. In redis-benchmark's own test nearly all are.
pub const NEW_MEMBERS: &str = "SADD new";

/// One run of redis-benchmark: 50 clients, 64-byte values, 100,000 keys.
pub fn redis_benchmark(port: u16, test: &str, pipeline: usize, requests: u64) -> Run {
    let (test, range) = match test {
        NEW_MEMBERS => ("SADD", "2000000000"),
        test => (test, "100000"),
    };
    let (port, pipeline, requests) = (port.to_string(), pipeline.to_string(), requests.to_string());
    let output = Command::new("redis-benchmark")
        .args(["-p", &port, "-c", "50", "-P", &pipeline, "-n", &requests])
        .args(["-r", range, "-d", "64", "-t", &test.to_lowercase(), "--csv"])
        .output()
        .expect("redis-benchmark is missing: apt-get install -y redis-tools");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with(&format!("\"{test}")));
    let fields: Vec<f64> = line
        .unwrap_or_else(|| panic!("{test}: {text}{}", String::from_utf8_lossy(&output.stderr)))
        .split("\",\"")
        .skip(1)
        .map(|field| field.trim_matches('"').parse().expect("a number"))
        .collect();
    Run { rps: fields[0], p50_ms: fields[3], p99_ms: fields[5] }
}

/// Requests per second of one command, by redis-benchmark with 50 clients.
pub fn custom_benchmark(port: u16, command: &[String], pipeline: usize, requests: u64) -> f64 {
    let (port, pipeline, requests) = (port.to_string(), pipeline.to_string(), requests.to_string());
    let output = Command::new("redis-benchmark")
        .args(["-p", &port, "-c", "50", "-P", &pipeline, "-n", &requests, "--csv"])
        .args(command)
        .output()
        .expect("redis-benchmark is missing: apt-get install -y redis-tools");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    let rate = line.split("\",\"").nth(1).and_then(|field| field.parse().ok());
    rate.unwrap_or_else(|| panic!("{command:?}: {text}"))
}

/// Sends commands, `depth` at a time, and returns how long it took. An error reply ends the benchmark.
pub fn pipelined(client: &mut Client, depth: usize, commands: &[Vec<String>]) -> Duration {
    let start = Instant::now();
    for chunk in commands.chunks(depth) {
        let mut bytes = Vec::new();
        chunk.iter().for_each(|command| encode(command, &mut bytes));
        client.send_raw(&bytes).expect("the connection");
        for command in chunk {
            let reply = client.read().expect("a reply");
            assert!(reply.error().is_none(), "{command:?}: {reply:?}");
        }
    }
    start.elapsed()
}

/// The machine, as far as a reader of the figures has to know it.
pub fn print_machine() {
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown");
    let version = Command::new("redis-benchmark").arg("--version").output();
    let version = version.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_string());
    println!("{cores} cores ({model}), {}\n", version.unwrap_or_default());
}
