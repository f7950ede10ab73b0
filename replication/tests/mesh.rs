//! Histories from seeds: whatever the weather, no node applies a commit before its causes, and when the
//! weather is fair again all nodes become equal.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod history;
mod world;

use history::history;
use lattis_replication::Config;
use world::World;

fn seeds() -> (u64, u64) {
    let read = |name: &str, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    (read("SEED", 0), read("SEEDS", 2000))
}

/// Runs all seeds on a few threads; the failures, in order of seeds.
fn all(first: u64, count: u64, change: &(dyn Fn(&mut Config) + Sync)) -> Vec<(u64, String)> {
    let threads = 4;
    let mut failures: Vec<(u64, String)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    let mine = (first..first + count).filter(|seed| seed % threads == worker);
                    mine.filter_map(|seed| Some((seed, history(seed, change).err()?)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    failures.sort();
    failures
}

#[test]
fn histories_are_causal_and_converge() {
    let (first, count) = seeds();
    let failures = all(first, count, &|_| {});
    let few: Vec<_> = failures.iter().take(10).collect();
    assert!(failures.is_empty(), "{} of {count} seeds fail: {few:?}", failures.len());
}

#[test]
fn a_seed_is_a_history() {
    let run = || history(7, &|_| {}).map(|world| (world.now, world.bytes, world.payloads));
    assert_eq!(run(), run());
}

#[test]
fn in_fair_weather_every_payload_travels_once() {
    for count in [3usize, 5] {
        let edges = (1..count).flat_map(|b| (0..b).map(move |a| (a, b))).collect();
        let mut world = World::new(count as u64, count, Config::default(), edges);
        world.run(3000);
        for round in 0..2000u64 {
            world.write((round % count as u64) as usize, 1 + round % 3);
            world.run(1);
        }
        world.run(3000);
        assert!(world.converged() && world.violation.is_none());
        let ideal = world.commits() * (count as u64 - 1);
        let ratio = world.payloads as f64 / ideal as f64;
        println!(
            "{count} nodes: {ratio:.3} payloads, {:.2} markers, {:.1} bytes per commit and receiver",
            world.markers as f64 / ideal as f64,
            world.bytes as f64 / ideal as f64
        );
        assert!(ratio < 1.02, "{count} nodes: {ratio}");
        assert_eq!(world.transfers, 0);
    }
}
