//! Links that have a rate, and views that are no mesh: what has to get through, and in what time. Each
//! scenario returns why it failed, so that the planted faults can be shown to fail it.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::collections::BTreeSet;

use lattis_engine::causal::Millis;
use lattis_replication::{Broadcast, Config};

use crate::world::{Rng, World};

fn two(change: &dyn Fn(&mut Config), rate: u64) -> World {
    let mut config = Config { max_message: 1 << 30, ..Config::default() };
    change(&mut config);
    let mut world = World::new(11, 2, config, [(0, 1)].into_iter().collect());
    world.rate = rate;
    world.run(3000);
    world
}

fn expect(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

/// A value of 64 MB over 1 MB/s arrives once, in its 64 s, by one connection; what is written meanwhile is
/// there hardly later. A heartbeat that waits behind it, or a silence that is none, would never let it
/// through.
pub fn a_big_value_arrives_once(change: &dyn Fn(&mut Config)) -> Result<(), String> {
    let (size, rate) = (64 << 20, 1_000_000);
    let mut world = two(change, rate);
    let (payloads, resets, bytes) = (world.payloads, world.resets, world.bytes);
    world.write_bytes(0, size);
    let took = size as u64 * 1000 / rate;
    let mut written = 1;
    for _ in 0..took / 100 {
        world.write_bytes(0, 100);
        written += 1;
        world.run(100);
    }
    world.run(2000);
    let (lag, resets) = (world.lag(0, 1), world.resets - resets);
    expect(lag == 0, || format!("{lag} commits are not there after {took} ms and 2 s"))?;
    expect(resets == 0, || format!("{resets} connections were reset"))?;
    let payloads = world.payloads - payloads;
    expect(payloads == written, || format!("{payloads} payloads for {written} commits"))?;
    let bytes = world.bytes - bytes;
    expect(bytes < size as u64 * 101 / 100, || format!("{bytes} bytes for a value of {size}"))?;
    // One that is not late for what came before it: the position, the payload and the ack each take a while.
    let late = world.latencies.iter().max().copied().unwrap_or(0);
    expect(late < took + 1500, || format!("the slowest took {late} ms"))
}

/// A link of 10 kB/s, on which a single piece of a big value takes longer than a link may be silent, is slow
/// and not dead.
pub fn a_slow_link_is_not_dead(change: &dyn Fn(&mut Config)) -> Result<(), String> {
    let mut world = two(change, 10_000);
    let resets = world.resets;
    world.write_bytes(0, 300_000);
    world.run(33_000);
    let (lag, resets) = (world.lag(0, 1), world.resets - resets);
    expect(lag == 0 && resets == 0, || format!("{lag} behind after {resets} resets"))
}

/// While a big value is on its way, the order goes on: heartbeats are answered, so that both ends know that
/// the other lives, and commits that come another way are not held up.
pub fn what_is_small_waits_for_nothing(change: &dyn Fn(&mut Config)) -> Result<(), String> {
    let mut world = two(change, 100_000);
    world.write_bytes(0, 4 << 20);
    for _ in 0..30 {
        world.run(1000);
        for site in 0..2 {
            let rtt = world.node(site).peers()[0].rtt_ms.unwrap_or(0);
            // A piece of 64 KiB that has begun goes to its end first.
            expect(rtt < 1500, || format!("a heartbeat of n{site} took {rtt} ms"))?;
        }
    }
    Ok(())
}

/// The second node is cut off, and when it is back the log does not reach back.
fn behind(world: &mut World, state_bytes: usize) {
    world.cut.insert((0, 1));
    world.run(7000);
    for _ in 0..50 {
        world.write_bytes(0, 100);
    }
    world.run(100);
    world.sync(0);
    world.trim_all(0);
    world.state_bytes = state_bytes;
    world.heal();
}

/// A state transfer whose connection breaks again and again ends, since it goes on where it was.
pub fn a_transfer_that_is_cut_goes_on(change: &dyn Fn(&mut Config)) -> Result<(), String> {
    let mut world = two(change, 50_000);
    behind(&mut world, 200_000);
    for round in 0..60 {
        world.run(1500);
        let conn = world.conn_count() - 1;
        if world.lag(0, 1) == 0 {
            let parts = world.state_parts;
            return expect(parts < 100, || format!("{parts} parts were sent, round {round}"));
        }
        world.reset(conn);
    }
    let parts = world.state_parts;
    Err(format!("not there after 60 cuts; {parts} parts were sent"))
}

/// A state transfer ends although writes go on and the log is over its limit: what is behind the snapshot
/// is kept until the receiver has it. One is enough, and then nothing is kept any more.
pub fn a_transfer_is_not_overtaken(change: &dyn Fn(&mut Config)) -> Result<(), String> {
    let small = |config: &mut Config| {
        // So that little is kept but in the log.
        (config.buffer_bytes, config.window_bytes, config.read_bytes) = (4_000, 4_000, 4_000);
        change(config);
    };
    let mut world = two(&small, 20_000);
    behind(&mut world, 60_000);
    for _ in 0..600 {
        (0..3).for_each(|_| world.write_bytes(0, 100));
        world.run(100);
        world.sync(0);
        world.trim_all(0);
        let lag = world.lag(0, 1);
        if lag <= 9 && !world.holds() {
            let transfers = world.transfers;
            return expect(transfers == 1, || format!("{transfers} states were sent"));
        }
    }
    Err(format!("{} states, still {} behind", world.transfers, world.lag(0, 1)))
}

/// A node whose clock is far ahead moves nobody else's: what it writes waits, and others are served.
pub fn a_clock_ahead_moves_nobody(change: &dyn Fn(&mut Config)) -> Result<(), String> {
    let edges = [(0, 1), (0, 2), (1, 2)].into_iter().collect();
    let mut config = Config::default();
    change(&mut config);
    let mut world = World::new(5, 3, config, edges);
    world.set_skew(2, 7_200_000);
    world.run(3000);
    world.write_bytes(2, 10);
    world.write_bytes(0, 10);
    world.run(3000);
    for site in 0..2 {
        let lag = world.lag(2, site);
        expect(lag == 1, || format!("n{site} lacks {lag} commits of the clock ahead"))?;
    }
    let lag = world.lag(0, 1);
    expect(lag == 0, || format!("{lag} commits of the others are missing"))
}

/// Latencies in ms of commits by random writers, one each 10 ms, over links of 1 to 50 ms that are late by up
/// to as much again: the median, the 99th of 100, the longest.
pub fn latencies(nodes: usize, degree: usize, version: u16, seed: u64) -> (u64, u64, u64) {
    let mut rng = Rng::new(seed);
    let mut edges: BTreeSet<(usize, usize)> = (0..nodes).map(|a| ((a + 1) % nodes, a)).collect();
    edges = edges.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
    let mut degrees = vec![2; nodes];
    for _ in 0..nodes * degree * 4 {
        let (a, b) = (rng.below(nodes as u64) as usize, rng.below(nodes as u64) as usize);
        let edge = (a.min(b), a.max(b));
        if a != b && degrees[a] < degree && degrees[b] < degree && edges.insert(edge) {
            degrees[a] += 1;
            degrees[b] += 1;
        }
    }
    // The graft timer that the model was measured with.
    let config = Config {
        version,
        broadcast: Broadcast::Tree,
        dial_advertised: false,
        graft_after: Millis(400),
        ..Config::default()
    };
    let mut world = World::new(seed, nodes, config, edges.clone());
    for edge in edges {
        world.delays.insert(edge, 1 + rng.below(50));
    }
    world.run(5000);
    // Trees form; then it counts.
    for phase in 0..2 {
        world.latencies.clear();
        for _ in 0..400 {
            world.write_bytes(rng.below(nodes as u64) as usize, 50);
            world.run(5 + rng.below(10));
        }
        world.run(if phase == 0 { 3000 } else { 10_000 });
    }
    assert!(world.converged(), "{:?}", world.violation);
    assert_eq!(world.violation, None);
    let mut sorted = std::mem::take(&mut world.latencies);
    sorted.sort_unstable();
    let at = |part: usize| sorted[(sorted.len() - 1) * part / 100];
    (at(50), at(99), at(100))
}
