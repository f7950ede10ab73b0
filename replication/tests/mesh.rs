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
                    let mut sums = [0; 6];
                    let mut failures = Vec::new();
                    for seed in (first..first + count).filter(|seed| seed % threads == worker) {
                        match history(seed, change) {
                            Ok(world) => {
                                let (w, n) = (&world, world.count() as u64 - 1);
                                let ideal = w.commits() * n;
                                let news = [
                                    ideal,
                                    w.payloads,
                                    w.grafts,
                                    w.transfers,
                                    w.resets,
                                    w.refusals,
                                ];
                                sums.iter_mut().zip(news).for_each(|(sum, new)| *sum += new);
                            }
                            Err(why) => failures.push((seed, why)),
                        }
                    }
                    (sums, failures)
                })
            })
            .collect();
        let mut sums = [0u64; 6];
        let mut failures = Vec::new();
        for worker in workers {
            let (news, more) = worker.join().unwrap();
            sums.iter_mut().zip(news).for_each(|(sum, new)| *sum += new);
            failures.extend(more);
        }
        let [ideal, payloads, grafts, transfers, resets, refusals] = sums;
        println!(
            "{count} histories: {:.3} payloads for each commit and receiver, {grafts} grafts, \
             {transfers} state transfers, {resets} links closed, {refusals} refusals",
            payloads as f64 / ideal as f64
        );
        failures
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

/// Payloads for each commit and receiver while `rounds` commits are written, one a ms, then `quiet` ms.
fn measure(world: &mut World, rounds: u64, quiet: u64) -> f64 {
    let (payloads, commits) = (world.payloads, world.commits());
    for round in 0..rounds {
        world.write((round % world.count() as u64) as usize, 1);
        world.run(1);
    }
    world.run(quiet);
    assert_eq!(world.violation, None);
    assert!(world.converged());
    let ideal = (world.commits() - commits) * (world.count() as u64 - 1);
    (world.payloads - payloads) as f64 / ideal as f64
}

#[test]
fn a_bridge_carries_what_the_direct_link_cannot_and_gives_it_back() {
    let edges = [(0, 1), (0, 2), (1, 2)].into_iter().collect();
    let mut world = World::new(3, 3, Config::default(), edges);
    world.run(3000);
    let direct = measure(&mut world, 500, 1000);
    world.cut.insert((0, 2));
    world.run(8000);
    let bridge = measure(&mut world, 500, 1000);
    world.heal();
    world.run(8000);
    measure(&mut world, 50, 1000);
    let again = measure(&mut world, 500, 1000);
    println!("payloads: direct {direct:.3}, by the bridge {bridge:.3}, direct again {again:.3}");
    assert!(direct < 1.02 && bridge < 1.02 && again < 1.02, "{direct} {bridge} {again}");
}

#[test]
fn a_chain_relays_each_payload_once() {
    let edges = (1..5).map(|b| (b - 1, b)).collect();
    let mut world = World::new(5, 5, Config::default(), edges);
    world.run(3000);
    measure(&mut world, 100, 2000);
    let ratio = measure(&mut world, 1000, 2000);
    println!("chain: {ratio:.3}");
    assert!(ratio < 1.02, "{ratio}");
}

#[test]
fn a_newcomer_is_filled_once_from_logs_and_by_state_where_they_are_trimmed() {
    for trimmed in [false, true] {
        let edges = [(0, 1), (0, 2), (1, 2)].into_iter().collect();
        let config = Config { window_bytes: 4096, buffer_bytes: 4096, ..Config::default() };
        let mut world = World::new(9, 3, config, edges);
        world.run(3000);
        world.cut.extend([(0, 2), (1, 2)]);
        world.run(8000);
        for round in 0..4000u64 {
            world.write((round % 2) as usize, 1);
            world.run(1);
        }
        world.run(1000);
        if trimmed {
            for site in 0..2 {
                world.sync(site);
                world.trim_all(site);
            }
        }
        let payloads = world.payloads;
        world.heal();
        world.run(10_000);
        assert!(world.converged());
        assert_eq!(world.violation, None);
        let ratio = (world.payloads - payloads) as f64 / 4000.0;
        println!("newcomer, trimmed {trimmed}: {ratio:.3} payloads, {} transfers", world.transfers);
        assert!(if trimmed { world.transfers == 1 && ratio < 0.1 } else { ratio < 1.3 });
    }
}
