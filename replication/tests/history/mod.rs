//! One history from one seed: a random mesh, chain or bridge with tiny limits, everything that can go
//! wrong in random order, then fair weather until all nodes are equal.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::collections::BTreeSet;

use lattis_engine::causal::Millis;
use lattis_replication::{Broadcast, Config};

use crate::world::{self, World};

fn small(rng: &mut world::Rng) -> Config {
    Config {
        graft_after: Millis(20),
        barrier_after: Millis(60),
        heartbeat: Millis(50),
        dead_after: Millis(250),
        handshake_after: Millis(200),
        transfer_after: Millis(500),
        keep_after: Millis(1000),
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

/// Plays a seed; an error says which law was broken.
pub fn history(seed: u64, change: &dyn Fn(&mut Config)) -> Result<World, String> {
    let mut rng = world::Rng::new(seed.wrapping_mul(77));
    let count = 3 + rng.below(3) as usize;
    let mut config = small(&mut rng);
    change(&mut config);
    let edges = edges(&mut rng, count);
    let old = rng.chance(20);
    config.broadcast = if rng.chance(50) { Broadcast::Tree } else { Broadcast::Direct };
    let mut world = World::new(seed, count, config, edges.clone());
    if old {
        // Some nodes are of the version before.
        (0..count).filter(|site| site % 2 == 0).for_each(|site| world.speaks(site, 1));
    } else if rng.chance(30) {
        world.rate = 20_000 + rng.below(100_000);
    }
    world.max_delay = 2 + rng.below(15);
    world.drop_sealed = rng.below(20);
    world.corrupt = if rng.chance(30) { rng.below(40) } else { 0 };
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
    world.corrupt = 0;
    world.heal();
    world.heal_engines();
    for _ in 0..100 {
        world.run(100);
        if let Some(violation) = &world.violation {
            return Err(violation.clone());
        }
        if world.converged() {
            // What was kept for a transfer is let go.
            world.run(2000);
            return match (&world.violation, world.holds()) {
                (Some(violation), _) => Err(violation.clone()),
                (None, true) => Err("a log is held for ever".to_owned()),
                (None, false) => Ok(world),
            };
        }
    }
    for site in 0..world.count() {
        println!("n{site} {:?}\n   {:#?}", world.vector(site), world.node(site).peers());
    }
    Err("not converged".to_owned())
}
