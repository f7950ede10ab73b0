//! Swarm testing: each seed draws which faults and features are on, and how tight the limits are.
//!
//! Everything at once hides much (a node that crashes all the time never fills a window), so each seed
//! leaves out a random half (Groce et al.: "Swarm Testing", 2012).

use std::collections::BTreeSet;

use super::types::TYPES;
use lattis_engine::causal::Millis;
use lattis_replication::Config;

use super::rng::Rng;

/// What one seed is made of.
#[derive(Clone)]
pub struct Swarm {
    /// Nodes.
    pub nodes: usize,
    /// Pairs of nodes that can talk at all.
    pub edges: BTreeSet<(usize, usize)>,
    /// Actions before the weather gets fair.
    pub steps: u64,
    /// Longest delay of a packet, ms.
    pub delay: u64,
    /// Bytes a second of every connection and direction, 0 for any.
    pub rate: u64,
    /// Longest time between two actions, ms.
    pub span: u64,
    /// Nodes that sync before they answer.
    pub always: BTreeSet<usize>,
    /// Crashes that keep everything written.
    pub kills: bool,
    /// Crashes that lose some of what was not synced.
    pub losses: bool,
    /// Crashes while starting.
    pub double: bool,
    /// Writes of which nobody knows whether they reached the disk.
    pub unknown: bool,
    /// Disks that are put back to an old copy.
    pub restores: bool,
    /// Full disks.
    pub full: bool,
    /// Connections that break, at any byte.
    pub resets: bool,
    /// Partitions.
    pub partitions: bool,
    /// Links that fail in one direction.
    pub one_way: bool,
    /// The operator's pauses.
    pub pauses: bool,
    /// Clocks that are wrong by this many ms at most.
    pub skew: u64,
    /// Clocks that jump, by this many ms at most.
    pub jumps: u64,
    /// Ticks that come late.
    pub stalls: bool,
    /// Bytes of sealed entries that wait for the peers' side.
    pub outbox: usize,
    /// Deadlines.
    pub deadlines: bool,
    /// FLUSHDB.
    pub flush: bool,
    /// Bindings.
    pub bindings: bool,
    /// MULTI.
    pub multi: bool,
    /// Sets that are removed by scope.
    pub big: bool,
    /// Percent of actions that write.
    pub writes: u64,
    /// Bytes of decoded rows in memory.
    pub cache_bytes: usize,
    /// Elements of sources that are read at once for a view.
    pub build_at_once: u64,
    /// Bytes of log.
    pub log_bytes: u64,
    /// Limits of replication.
    pub config: Config,
}

impl Swarm {
    /// Draws one.
    pub fn draw(rng: &mut Rng) -> Swarm {
        let nodes = 3 + rng.below(3) as usize;
        let config = Config {
            graft_after: Millis(5 + rng.below(25)),
            barrier_after: Millis(20 + rng.below(60)),
            heartbeat: Millis(20 + rng.below(60)),
            dead_after: Millis(200 + rng.below(200)),
            handshake_after: Millis(200),
            transfer_after: Millis(500),
            redial: (Millis(10), Millis(100)),
            window_bytes: 100 + rng.below(3000),
            buffer_bytes: 100 + rng.below(3000) as usize,
            read_bytes: 50 + rng.below(1500) as usize,
            graft_bytes: 50 + rng.below(1000) as usize,
            in_flight_bytes: 100 + rng.below(2000) as usize,
            max_frame: 1024 + rng.below(4000) as usize,
            is_sound: |commit| TYPES.check(commit).is_ok(),
            ..Config::default()
        };
        let log_bytes = rng.pick(&[200, 600, 2_000, 2_000, 20_000, 20_000]);
        let every = rng.chance(10);
        let always = (0..nodes).filter(|_| every || rng.chance(25)).collect();
        Swarm {
            nodes,
            edges: edges(rng, nodes),
            steps: if rng.chance(3) { 500 } else { 60 + rng.below(80) },
            delay: 2 + rng.below(15),
            rate: if rng.chance(30) { 20_000 + rng.below(200_000) } else { 0 },
            span: 5 + rng.below(30),
            always,
            kills: rng.chance(50),
            losses: rng.chance(50),
            double: rng.chance(30),
            unknown: rng.chance(30),
            restores: rng.chance(25),
            full: rng.chance(35),
            resets: rng.chance(50),
            partitions: rng.chance(50),
            one_way: rng.chance(25),
            pauses: rng.chance(25),
            skew: if rng.chance(50) { rng.below(60) } else { 0 },
            jumps: rng.pick(&[0, 0, 0, 300, 300, 3_600_000]),
            stalls: rng.chance(30),
            outbox: rng.pick(&[200, 1_000, 100_000]),
            deadlines: rng.chance(60),
            flush: rng.chance(40),
            bindings: rng.chance(50),
            multi: rng.chance(60),
            big: rng.chance(25),
            writes: 30 + rng.below(40),
            cache_bytes: rng.pick(&[0, 300, 2_000, 1 << 20]),
            build_at_once: rng.pick(&[0, 2, 4096]),
            log_bytes,
            config,
        }
    }
}

/// A full mesh, or a chain with some more links.
fn edges(rng: &mut Rng, nodes: usize) -> BTreeSet<(usize, usize)> {
    let full = rng.chance(50);
    let mut edges = BTreeSet::new();
    for b in 1..nodes {
        for a in 0..b {
            if full || a + 1 == b || rng.chance(25) {
                edges.insert((a, b));
            }
        }
    }
    edges
}
