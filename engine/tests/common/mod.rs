//! Generated histories: replicas in memory, random commands, causal delivery, crashes, state transfer.
//!
//! One seed decides everything. The replicas are real engines; what is simulated is only who runs what
//! and which commits have reached whom.
#![allow(dead_code, reason = "each test file uses the part that it needs")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]
#![allow(missing_docs, reason = "no library: the names are read where they are used")]

pub mod types;

use std::ops::ControlFlow;

use bytes::Bytes;
use lattis_engine::causal::{Millis, NodeId, VersionVector};
use lattis_engine::commit::{Commit, EncodedCommit, LogEntry};
use lattis_engine::name::Cursor;
use lattis_engine::store::MemStore;
use lattis_engine::{Engine, EngineConfig, Fresh, OpResult, Staged, StateReader, Ttl, Txn};

/// SplitMix64 (Steele, Lea, Flood 2014): all that a test needs of randomness.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// One of some words, as a key or value.
    pub fn word(&mut self, from: &[&str]) -> Bytes {
        bytes(from[self.below(from.len())])
    }
}

/// Runs a history, and says which one it was if it panics.
pub fn named<T>(name: std::fmt::Arguments<'_>, run: impl FnOnce() -> T) -> T {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(panic) => {
            eprintln!("{name}");
            std::panic::resume_unwind(panic);
        }
    }
}

pub struct Replica {
    pub store: MemStore,
    pub engine: Option<Engine<MemStore>>,
    pub skew: u64,
}

pub struct Delivered {
    pub commit: EncodedCommit,
    /// The issuer's vector when it wrote.
    pub causes: VersionVector,
}

pub struct World {
    pub rng: Rng,
    pub now: u64,
    pub replicas: Vec<Replica>,
    pub commits: Vec<Delivered>,
    pub cache_bytes: usize,
    pub build_at_once: u64,
}

pub const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const MEMBERS: [&str; 5] = ["1", "2", "3", "x", "1.5"];

impl World {
    pub fn new(seed: u64, replicas: usize) -> World {
        let mut rng = Rng(seed);
        let cache_bytes = *rng.pick(&[0, 500, 2_000, 1 << 20]);
        // Views are built at once where the seed is odd.
        let build_at_once = if seed % 2 == 1 { 4096 } else { seed / 2 % 5 };
        let mut world = World {
            rng,
            now: 1_000_000,
            replicas: Vec::new(),
            commits: Vec::new(),
            cache_bytes,
            build_at_once,
        };
        for _ in 0..replicas {
            let skew = world.rng.below(30) as u64;
            let store = MemStore::new();
            world.replicas.push(Replica { store, engine: None, skew });
            world.open(world.replicas.len() - 1);
        }
        world
    }

    pub fn wall(&self, at: usize) -> Millis {
        Millis(self.now + self.replicas[at].skew)
    }

    /// Opens (again) what the replica's store holds.
    pub fn open(&mut self, at: usize) {
        self.replicas[at].engine = None;
        let fresh = Fresh { node: NodeId(at as u64 + 1), nonce: self.rng.next() };
        #[allow(clippy::needless_update, reason = "a feature adds another field")]
        let config = EngineConfig {
            cache_bytes: self.cache_bytes,
            log_max_bytes: 100_000,
            build_at_once: self.build_at_once,
            types: &types::TYPES,
            ..EngineConfig::default()
        };
        let now = self.wall(at);
        let store = self.replicas[at].store.clone();
        self.replicas[at].engine = Some(Engine::open(store, config, fresh, now).unwrap());
    }

    pub fn engine(&mut self, at: usize) -> &mut Engine<MemStore> {
        self.replicas[at].engine.as_mut().unwrap()
    }

    /// Builds views of a replica a little further.
    fn build(&mut self, at: usize) {
        let elements = self.rng.below(4);
        if elements > 0 {
            self.engine(at).build_views(elements).unwrap();
        }
    }

    /// Builds them to the end.
    pub fn build_all(&mut self, at: usize) {
        while self.engine(at).build_views(2).unwrap() {}
        assert_eq!(self.engine(at).views_building(), 0);
    }

    /// Runs one tick with one transaction at a replica.
    pub fn run<T>(&mut self, at: usize, body: impl FnOnce(&mut Txn<'_, MemStore>) -> T) -> T {
        let now = self.wall(at);
        let engine = self.engine(at);
        let causes = engine.vector().clone();
        let mut tick = engine.tick(now);
        let mut txn = tick.txn();
        let result = body(&mut txn);
        txn.commit();
        let entries = tick_seal(tick);
        self.sealed(causes, entries);
        self.build(at);
        result
    }

    fn sealed(&mut self, mut causes: VersionVector, entries: Vec<LogEntry>) {
        for entry in entries {
            if let LogEntry::Commit(commit) = entry {
                let next = (commit.origin, commit.last);
                self.commits.push(Delivered { commit, causes: causes.clone() });
                causes.advance(next.0, next.1);
            }
        }
    }

    pub fn expire(&mut self, at: usize) {
        let now = self.wall(at);
        let engine = self.engine(at);
        let causes = engine.vector().clone();
        let mut tick = engine.tick(now);
        tick.expire_due(100).unwrap();
        let entries = tick_seal(tick);
        self.sealed(causes, entries);
    }

    /// Delivers a random commit that is ready at a replica; false if there is none.
    pub fn deliver(&mut self, at: usize) -> bool {
        let vector = self.engine(at).vector().clone();
        let ready: Vec<usize> = (0..self.commits.len())
            .filter(|index| {
                let Delivered { commit, causes } = &self.commits[*index];
                commit.first == vector.get(&commit.origin) + 1 && vector.covers(causes)
            })
            .collect();
        if ready.is_empty() {
            return false;
        }
        let index = *self.rng.pick(&ready);
        let commit = self.commits[index].commit.clone();
        let now = self.wall(at);
        let engine = self.engine(at);
        // What is decoded encodes to the same bytes.
        assert_eq!(Commit::decode(&commit).unwrap().encode(), commit);
        let mut tick = engine.tick(now);
        assert_eq!(tick.apply(&commit), Ok(true));
        assert_eq!(tick.apply(&commit), Ok(false));
        tick.seal(false).unwrap();
        self.build(at);
        true
    }

    /// Joins the whole state of one replica into another, by way of bytes.
    pub fn transfer(&mut self, from: usize, to: usize) {
        let staged = self.stage(from);
        let now = self.wall(to);
        let mut tick = self.engine(to).tick(now);
        tick.join(&staged).unwrap();
        tick.seal(false).unwrap();
    }

    /// Joins the state of a random other replica.
    pub fn receive_a_state(&mut self, at: usize) {
        let from = self.rng.below(self.replicas.len());
        if from != at {
            self.transfer(from, at);
        }
    }

    pub fn stage(&mut self, from: usize) -> Staged {
        let mut reader = StateReader::new(self.engine(from).snapshot().unwrap()).unwrap();
        let mut staged = Staged::new(&types::TYPES, 1 << 30);
        loop {
            let (chunk, last) = reader.next_chunk(100).unwrap();
            staged.add(&chunk).unwrap();
            if last {
                return staged;
            }
        }
    }

    /// Loses a random part of what was not synced, and starts again.
    pub fn crash(&mut self, at: usize) {
        self.replicas[at].engine = None;
        let keep = self.rng.below(self.replicas[at].store.unsynced() + 1);
        self.replicas[at].store.crash(keep);
        self.open(at);
    }

    /// Commits that everyone has lost can never be delivered: a crash took them before they were sent.
    pub fn forget_lost(&mut self) {
        let mut known = VersionVector::new();
        for replica in &self.replicas {
            known.join(replica.engine.as_ref().unwrap().vector());
        }
        self.commits.retain(|it| it.commit.last <= known.get(&it.commit.origin));
    }

    pub fn settle(&mut self) {
        for _ in 0..2 {
            for at in 0..self.replicas.len() {
                while self.deliver(at) {}
            }
        }
        // What a crash took from its origin may be alive elsewhere only as state.
        for _ in 0..2 {
            for from in 0..self.replicas.len() {
                for to in 0..self.replicas.len() {
                    if from != to {
                        self.transfer(from, to);
                    }
                }
            }
        }
        (0..self.replicas.len()).for_each(|at| self.build_all(at));
    }

    /// Equal vectors must mean equal digests.
    /// All deadlines pass everywhere, and their removals reach everybody.
    pub fn pass_all_deadlines(&mut self) {
        self.now += 1_000;
        for _ in 0..2 {
            (0..self.replicas.len()).for_each(|at| self.expire(at));
            self.settle();
        }
    }

    pub fn check_digests(&mut self) {
        for a in 0..self.replicas.len() {
            for b in 0..a {
                let left = (self.engine(a).vector().clone(), self.engine(a).digest());
                let right = (self.engine(b).vector().clone(), self.engine(b).digest());
                assert_eq!(left.0 == right.0, left.1 == right.1, "replicas {a} and {b}");
            }
        }
    }

    pub fn verify(&mut self, at: usize) {
        self.engine(at).verify().unwrap();
    }

    /// A random command, sometimes one that fails.
    pub fn random_command(&mut self, at: usize) {
        let mut rng = Rng(self.rng.next());
        let now = self.wall(at).0;
        self.run(at, |txn| {
            if rng.chance(20) {
                for _ in 0..rng.below(5) {
                    let savepoint = txn.savepoint();
                    let _ = command(txn, &mut rng, now);
                    if rng.chance(30) {
                        txn.rollback(savepoint);
                    }
                }
            } else {
                let _ = command(txn, &mut rng, now);
            }
        });
    }

    /// What clients see of db 0 at a replica.
    pub fn dump(&mut self, at: usize) -> Vec<String> {
        self.run(at, dump)
    }
}

pub fn tick_seal(tick: lattis_engine::Tick<'_, MemStore>) -> Vec<LogEntry> {
    tick.seal(false).unwrap().map(|sealed| sealed.entries).unwrap_or_default()
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn command(txn: &mut Txn<'_, MemStore>, rng: &mut Rng, now: u64) -> OpResult<()> {
    let key = (*rng.pick(&KEYS)).as_bytes();
    let member = rng.word(&MEMBERS);
    let other = rng.word(&MEMBERS);
    match rng.below(36) {
        0 | 1 => txn.set(0, key, member, Ttl::Clear)?,
        2 => txn.set(0, key, member, Ttl::Keep)?,
        3 => txn.set(0, key, member, Ttl::At(Millis(now + rng.below(60) as u64)))?,
        4..=6 => drop(txn.increment(0, key, rng.below(7) as i64 - 3)?),
        7 => drop(txn.append(0, key, &member)?),
        8..=11 => drop(txn.set_add(0, key, &[member, other])?),
        12 | 13 => drop(txn.set_remove(0, key, &[member, other])?),
        14 | 15 => drop(txn.hash_set(0, key, &[(member, other)])?),
        16 | 17 => drop(txn.hash_increment(0, key, &member, rng.below(9) as i64 - 4)?),
        18 | 19 => drop(txn.hash_remove(0, key, &[member, other])?),
        20..=22 => drop(txn.delete(0, key)?),
        23 | 24 => drop(txn.expire(0, key, Some(Millis(now + rng.below(60) as u64)))?),
        25 => drop(txn.expire(0, key, None)?),
        26 => {
            if rng.chance(30) {
                txn.flush(0)?;
            }
        }
        27..=29 => {
            let targets = ["v", "w", "d"];
            let target = *rng.pick(&targets);
            let sources = ["a", "b", "v", "w", "d"];
            let one = rng.word(&sources);
            let two = rng.word(&sources);
            match rng.below(3) {
                0 => txn.bind(0, target.as_bytes(), "MAP", &[one], "x * 2")?,
                1 => txn.bind(0, target.as_bytes(), "FILTER", &[one], "x > 1")?,
                _ => txn.bind(0, target.as_bytes(), "UNION", &[one, two], "")?,
            }
        }
        32.. => (rng.pick(types::TESTS).change)(txn, 0, key, rng.next())?,
        30 => drop(txn.unbind(0, (*rng.pick(&["v", "w", "d"])).as_bytes())?),
        _ => {
            // Many members, so that the key is removed by scope.
            let members: Vec<Bytes> = (0..70).map(|n| bytes(&n.to_string())).collect();
            txn.set_add(0, b"c", &members)?;
        }
    }
    Ok(())
}

pub fn dump(txn: &mut Txn<'_, MemStore>) -> Vec<String> {
    let mut keys = Vec::new();
    txn.keys(0, Cursor::START, &mut |key, kind| {
        keys.push((Bytes::copy_from_slice(key), kind));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(keys.len() as u64, txn.db_size(0).unwrap());
    keys.sort();
    let mut lines = Vec::new();
    for (key, kind) in keys {
        let mut line = format!("{kind} {}", String::from_utf8_lossy(&key));
        let mut add = |part: &[u8]| line.push_str(&format!(" {}", String::from_utf8_lossy(part)));
        types::show(txn, 0, &key, kind, &mut add).unwrap();
        lines.push(line);
    }
    lines
}
