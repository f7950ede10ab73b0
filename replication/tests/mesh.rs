//! Histories from seeds: whatever the weather, no node applies a commit before its causes, and when the
//! weather is fair again all nodes become equal.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod world;

use std::collections::BTreeSet;

use lattis_engine::causal::Millis;
use lattis_replication::Config;
use world::World;

fn small(rng: &mut world::Rng) -> Config {
    Config {
        graft_after: Millis(20),
        barrier_after: Millis(60),
        heartbeat: Millis(50),
        dead_after: Millis(250),
        handshake_after: Millis(200),
        transfer_after: Millis(500),
        redial: (Millis(10), Millis(100)),
        window_bytes: 200 + rng.below(3000),
        buffer_bytes: 200 + rng.below(2000) as usize,
        read_bytes: 100 + rng.below(1000) as usize,
        graft_bytes: 60 + rng.below(1000) as usize,
        in_flight_bytes: 100 + rng.below(2000) as usize,
        max_frame: 1024,
        ..Config::default()
    }
}

fn edges(rng: &mut world::Rng, count: usize) -> BTreeSet<(usize, usize)> {
    let full = rng.chance(40);
    let mut edges = BTreeSet::new();
    for b in 1..count {
        for a in 0..b {
            if full || a + 1 == b || rng.chance(25) {
                edges.insert((a, b));
            }
        }
    }
    edges
}

fn history(seed: u64, change: &dyn Fn(&mut Config)) -> Result<World, String> {
    let mut rng = world::Rng::new(seed.wrapping_mul(77));
    let count = 3 + rng.below(3) as usize;
    let mut config = small(&mut rng);
    change(&mut config);
    let edges = edges(&mut rng, count);
    let mut world = World::new(seed, count, config, edges.clone());
    world.max_delay = 2 + rng.below(15);
    world.drop_sealed = rng.below(20);
    let crashes = rng.chance(70);
    let trims = rng.chance(70);
    let full = rng.chance(30);
    world.run(20);
    let pairs: Vec<_> = edges.into_iter().collect();
    for _ in 0..120 {
        let site = rng.below(count as u64) as usize;
        match rng.below(100) {
            0..50 => {
                let commits = 1 + rng.below(4);
                world.write(site, commits);
            }
            50..55 if world.conn_count() > 0 => {
                let conn = rng.below(world.conn_count() as u64) as usize;
                world.reset(conn);
            }
            55..60 => {
                let edge = pairs[rng.below(pairs.len() as u64) as usize];
                world.cut.insert(edge);
            }
            60..64 => world.heal(),
            64..74 => world.sync(site),
            74..80 if trims => world.trim(site),
            80..83 if crashes => world.crash(site),
            83..86 => world.set_full(site, full),
            86..92 => world.heal_engines(),
            _ => {}
        }
        let span = rng.below(30);
        world.run(span);
        if let Some(violation) = &world.violation {
            return Err(violation.clone());
        }
    }
    world.heal();
    world.heal_engines();
    for _ in 0..100 {
        world.run(100);
        if let Some(violation) = &world.violation {
            return Err(violation.clone());
        }
        if world.converged() {
            return Ok(world);
        }
    }
    for site in 0..world.count() {
        println!("n{site} {:?}\n   {:#?}", world.vector(site), world.node(site).peers());
    }
    Err("not converged".to_owned())
}

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
