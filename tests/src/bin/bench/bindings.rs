//! What a `MAP.BIND` costs per change of its source, at small and at large sets: the same additions and
//! removals on a set without and on one with a binding, on one node, interleaved. And what many of them cost:
//! to define, to flow through, to start with, to flush.

use std::time::{Duration, Instant};

use lattis_tests::resp::Client;

use crate::Options;
use crate::measure::{CpuWatch, median, pipelined, spread};

const DEPTH: usize = 16;

/// Measures, and prints a table.
pub fn run(options: &Options) {
    let server = options.start_alone();
    let mut client = server.client();
    let changes: usize = if options.quick { 4_000 } else { 40_000 };
    println!(
        "{}: {changes} SADD and as many SREM of single members, pipeline {DEPTH}, median of {} rounds.\n",
        options.subject(),
        options.rounds
    );
    println!(
        "| members | bare changes/s | bound changes/s | ratio | CPU us, bare | bound | binding |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for members in [1_000, 100_000] {
        let (bare, bound) = (format!("bare:{members}"), format!("bound:{members}"));
        for key in [&bare, &bound] {
            let fill: Vec<Vec<String>> = (0..members).map(|n| command("SADD", key, n)).collect();
            pipelined(&mut client, 128, &fill);
        }
        if !options.redis_as_subject {
            let reply = client.call(&["MAP.BIND", &format!("view:{members}"), &bound, "x * 2"]);
            assert!(reply.is_ok(), "MAP.BIND: {reply:?}");
        }
        let mut rates = [Vec::new(), Vec::new()];
        let mut cpus = [Vec::new(), Vec::new()];
        for round in 0..options.rounds {
            for (index, key) in [&bare, &bound].into_iter().enumerate() {
                let first = members + round * changes;
                let each =
                    |word: &str| (first..first + changes).map(|n| command(word, key, n)).collect();
                let (adds, removals): (Vec<_>, Vec<_>) = (each("SADD"), each("SREM"));
                let watch = CpuWatch::start(&[server.pid()]);
                let time =
                    pipelined(&mut client, DEPTH, &adds) + pipelined(&mut client, DEPTH, &removals);
                let total = 2.0 * changes as f64;
                rates[index].push(total / time.as_secs_f64());
                cpus[index].push(watch.stop().0 * 1e6 / total);
            }
        }
        let ratios: Vec<f64> =
            rates[1].iter().zip(&rates[0]).map(|(bound, bare)| bound / bare).collect();
        let (least, most) = spread(&ratios);
        let (bare_cpu, bound_cpu) = (median(&cpus[0]), median(&cpus[1]));
        println!(
            "| {members} | {:.0} | {:.0} | {:.2} ({least:.2}-{most:.2}) | {bare_cpu:.2} \
             | {bound_cpu:.2} | {:.2} |",
            median(&rates[0]),
            median(&rates[1]),
            median(&ratios),
            bound_cpu - bare_cpu,
        );
    }
    if !options.redis_as_subject {
        println!("\n| bindings | define, ms | longest | SADD, ms | start, s | FLUSHDB, ms |");
        println!("| --- | --- | --- | --- | --- | --- |");
        let many = if options.quick { 1_000 } else { 9_999 };
        many_bindings(options, "of one set", many, |_| "source".into());
        let chain = |at: usize| if at == 0 { "source".into() } else { format!("view:{}", at - 1) };
        many_bindings(options, "in a chain", many / 10, chain);
    }
}

/// Defines that many, each of what `source` names for its number.
fn many_bindings(options: &Options, name: &str, count: usize, source: impl Fn(usize) -> String) {
    let mut server = options.start_alone();
    let mut client = server.client();
    let timed = |client: &mut Client, words: &[&str]| {
        let start = Instant::now();
        let reply = client.call(words);
        assert!(reply.error().is_none(), "{reply:?}");
        start.elapsed()
    };
    timed(&mut client, &["SADD", "source", "1", "2", "3"]);
    let (mut all, mut longest) = (Duration::ZERO, Duration::ZERO);
    for at in 0..count {
        let words = ["MAP.BIND", &format!("view:{at}"), &source(at), "x + 1"];
        let took = timed(&mut client, &words);
        (all, longest) = (all + took, longest.max(took));
    }
    let added = timed(&mut client, &["SADD", "source", "4"]);
    server.terminate();
    let start = Instant::now();
    server.restart();
    let start = start.elapsed();
    let flushed = timed(&mut server.client(), &["FLUSHDB"]);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "| {count} {name} | {:.2} | {:.1} | {:.1} | {:.2} | {:.0} |",
        ms(all) / count as f64,
        ms(longest),
        ms(added),
        start.as_secs_f64(),
        ms(flushed),
    );
}

fn command(word: &str, key: &str, member: usize) -> Vec<String> {
    vec![word.to_string(), key.to_string(), member.to_string()]
}
