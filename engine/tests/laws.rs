//! The laws of merging, for every type in `TYPES`: a type that is added there is tested here.
//!
//! Random histories of causally consistent replicas, with payloads made by the type's own samples. Rows
//! have to be lattices: joins are associative, commutative and idempotent; applying effects one by one
//! comes to what joining states comes to; a difference leads back to what it was made of; and what is
//! written reads back the same.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

mod common;

use bytes::Bytes;
use common::types::TYPES;
use common::{Rng, named};
use lattis_engine::causal::{Dot, Hlc, Millis, NodeId, Origin, Stamp, VersionVector};
use lattis_engine::codec::{Reader, Writer};
use lattis_engine::commit::{
    Clear, Commit, CounterReset, Delta, Effect, EncodedCommit, Increment, RowEffect,
};
use lattis_engine::crdt::TypeRecord;
use lattis_engine::crdt::hash::HASH;
use lattis_engine::crdt::set::SET;
use lattis_engine::crdt::string::STRING;
use lattis_engine::name::{RowKey, Scope, Slot};
use lattis_engine::row::{Origins, Row};
use lattis_engine::store::MemStore;
use lattis_engine::{Engine, EngineConfig, Fresh, Refused};

const REPLICAS: usize = 3;
const ROWS: usize = 2;
const HISTORIES: u64 = 1_500;

#[derive(Clone)]
struct State {
    rows: Vec<Row>,
    vector: VersionVector,
}

impl State {
    fn new() -> State {
        State { rows: vec![Row::default(); ROWS], vector: VersionVector::new() }
    }

    fn apply(&mut self, name: impl Fn(usize) -> RowKey, commit: &Commit) {
        for (index, effect) in commit.effects.iter().enumerate() {
            if let Effect::Clear(clear) = effect {
                let dot = commit.dot(index);
                self.rows.iter_mut().for_each(|row| row.clear(&clear.context, &dot.origin));
                for (key, reset) in &clear.resets {
                    let at = (0..ROWS).find(|at| name(*at) == *key).unwrap();
                    self.rows[at].apply_reset(reset, dot);
                }
            }
        }
        for (index, effect) in commit.effects.iter().enumerate() {
            if let Effect::Row(effect) = effect {
                let at = (0..ROWS).find(|at| name(*at) == effect.row).unwrap();
                self.rows[at].apply(&effect.delta, commit.dot(index), commit.stamp());
            }
        }
        self.vector.advance(commit.origin, commit.last());
    }

    fn join(&self, other: &State) -> State {
        let pairs = self.rows.iter().zip(&other.rows);
        let rows = pairs.map(|(mine, theirs)| mine.join(&self.vector, theirs, &other.vector));
        let mut vector = self.vector.clone();
        vector.join(&other.vector);
        State { rows: rows.collect(), vector }
    }

    fn canonical(&self) -> Vec<Vec<u8>> {
        self.rows.iter().map(canonical).collect()
    }
}

fn canonical(row: &Row) -> Vec<u8> {
    let mut out = Writer::new();
    assert_eq!(row.canonical(&mut out), row.is_live());
    assert_eq!(out.is_empty(), !row.is_live());
    out.into_vec()
}

fn origin(at: usize) -> Origin {
    Origin { node: NodeId(at as u64 + 1), incarnation: 1 + at as u32, nonce: 7 * at as u64 }
}

/// A history of one type: its commits, and states of its replicas from along the way.
struct History {
    record: &'static TypeRecord,
    rng: Rng,
    replicas: Vec<State>,
    commits: Vec<(Commit, VersionVector)>,
    states: Vec<State>,
    wall: u64,
}

fn row_name(record: &'static TypeRecord) -> impl Fn(usize) -> RowKey {
    let slot = record.slot;
    move |at| {
        let subkey = match (slot, record.single) {
            (Slot::BIRTH, _) => Bytes::from(vec![[SET, HASH][at].0]),
            (_, true) => Bytes::new(),
            (_, false) => Bytes::from(format!("m{at}")),
        };
        let key = if record.single && slot != Slot::BIRTH { format!("k{at}") } else { "k".into() };
        RowKey { db: 0, key: Bytes::from(key), slot, subkey }
    }
}

impl History {
    fn of(record: &'static TypeRecord, seed: u64) -> History {
        let mut history = History {
            record,
            rng: Rng(seed),
            replicas: vec![State::new(); REPLICAS],
            commits: Vec::new(),
            states: vec![State::new()],
            wall: 1,
        };
        for _ in 0..30 {
            let at = history.rng.below(REPLICAS);
            match history.rng.below(10) {
                0..5 => history.write(at),
                5..9 => history.deliver(at),
                _ => {
                    let from = history.rng.below(REPLICAS);
                    history.replicas[at] = history.replicas[at].join(&history.replicas[from]);
                }
            }
            history.states.push(history.replicas[at].clone());
        }
        history
    }

    /// One commit of one or two effects on different rows, or a clear of both.
    fn write(&mut self, at: usize) {
        self.wall += self.rng.below(3) as u64;
        let state = &mut self.replicas[at];
        let before = state.clone();
        let first = state.vector.get(&origin(at)) + 1;
        // Stamps grow along causality, and are equal only between concurrent writes.
        let seen = self.commits.iter().filter(|(commit, _)| {
            state.vector.contains(&Dot { origin: commit.origin, seq: commit.last() })
        });
        let least = seen.map(|(commit, _)| commit.hlc.millis().0 + 1).max().unwrap_or(1);
        let hlc = Hlc::at(Millis(least.max(self.wall)));
        // The wall clock is what deadlines are judged by; it may be behind.
        let lead =
            if self.rng.chance(30) { self.rng.below(3).min(hlc.millis().0 as usize) } else { 0 };
        let lead = lead as u64;
        let stamp = Stamp::with_lead(hlc, lead);
        let mut effects = Vec::new();
        if self.rng.chance(12) {
            let dot = Dot { origin: origin(at), seq: first };
            let mut resets = Vec::new();
            for row in 0..ROWS {
                let foreign = state.rows[row].counters().iter();
                let foreign = foreign.filter(|it| it.is_live() && it.origin != dot.origin);
                resets.extend(foreign.map(|entry| {
                    let reset = CounterReset {
                        origin: entry.origin,
                        generation: entry.generation,
                        last: entry.last,
                        sum: entry.sum,
                    };
                    (row_name(self.record)(row), reset)
                }));
                state.rows[row].supersede(dot);
            }
            let context = before.vector.clone();
            effects.push(Effect::Clear(Clear { scope: Scope::Db(0), context, resets }));
        }
        let rows = if self.rng.chance(30) { 0..ROWS } else { 0..1 };
        let turn = self.rng.below(ROWS);
        for row in rows.map(|row| (row + turn) % ROWS) {
            let dot = Dot { origin: origin(at), seq: first + effects.len() as u64 };
            let base = state.rows[row].clone();
            // Several operations of one commit on a row are one effect.
            for _ in 0..1 + self.rng.below(2) {
                let changed = &mut state.rows[row];
                match self.rng.below(10) {
                    0..4 => {
                        let payload = (self.record.sample)(self.rng.next() as u8);
                        changed.put(dot, stamp, Bytes::from(payload));
                    }
                    4..8 if self.record.counts => {
                        changed.increment(dot, stamp, self.rng.below(9) as i128 - 4);
                    }
                    4..8 => changed.put(dot, stamp, Bytes::from((self.record.sample)(0))),
                    8 => changed.supersede(dot),
                    _ => changed
                        .supersede_until(Millis(self.rng.below(self.wall as usize) as u64), dot),
                }
            }
            let after = &state.rows[row];
            let delta = after.diff(&base, dot);
            // A difference is the inverse of the change.
            let mut again = base.clone();
            again.apply(&delta, dot, stamp);
            assert_eq!(&again, after, "{} from {base:?} by {delta:?}", self.record.name);
            effects.push(Effect::Row(RowEffect { row: row_name(self.record)(row), delta }));
        }
        let commit = Commit { origin: origin(at), first, hlc, lead, effects };
        state.vector.advance(commit.origin, commit.last());
        self.commits.push((commit, before.vector));
    }

    fn ready(&self, state: &State) -> Vec<usize> {
        let next = |commit: &Commit| commit.first == state.vector.get(&commit.origin) + 1;
        (0..self.commits.len())
            .filter(|index| {
                let (commit, causes) = &self.commits[*index];
                next(commit) && state.vector.covers(causes)
            })
            .collect()
    }

    fn deliver(&mut self, at: usize) {
        let ready = self.ready(&self.replicas[at]);
        if !ready.is_empty() {
            let commit = &self.commits[*self.rng.pick(&ready)].0;
            self.replicas[at].apply(row_name(self.record), commit);
        }
    }
}

fn for_all_histories(check: impl Fn(&mut History)) {
    for record in TYPES.iter() {
        for seed in 0..HISTORIES {
            let mut history = History::of(record, seed);
            named(format_args!("type {}, seed {seed}", record.name), || check(&mut history));
        }
    }
}

#[test]
fn joins_are_idempotent_commutative_and_associative() {
    for_all_histories(|history| {
        for _ in 0..10 {
            let [a, b, c] = [0; 3].map(|_| history.rng.pick(&history.states).clone());
            assert_eq!(a.join(&a).rows, a.rows);
            assert_eq!(a.join(&b).rows, b.join(&a).rows);
            let (left, right) = (a.join(&b).join(&c), a.join(&b.join(&c)));
            assert_eq!(left.rows, right.rows);
            // What was joined is part of the result: joining it again changes nothing.
            assert_eq!(left.join(&b).rows, left.rows);
        }
    });
}

#[test]
fn effects_one_by_one_come_to_what_states_come_to() {
    for_all_histories(|history| {
        let name = row_name(history.record);
        let mut joined = State::new();
        for state in &history.states {
            joined = joined.join(state);
        }
        // Two random orders of delivery.
        for _ in 0..2 {
            let mut applied = State::new();
            loop {
                let ready = history.ready(&applied);
                if ready.is_empty() {
                    break;
                }
                let commit = &history.commits[*history.rng.pick(&ready)].0;
                applied.apply(&name, commit);
            }
            assert_eq!(applied.vector, joined.vector);
            assert_eq!(applied.canonical(), joined.canonical());
        }
        // An effect is a small state: from any state on, both ways lead to the same place.
        let base = history.rng.pick(&history.states).clone();
        for index in history.ready(&base) {
            let (commit, causes) = &history.commits[index];
            let mut issuer = State::new();
            while issuer.vector != *causes {
                let ready = history.ready(&issuer);
                let next = ready.iter().find(|next| {
                    let (commit, _) = &history.commits[**next];
                    commit.last() <= causes.get(&commit.origin)
                });
                issuer.apply(&name, &history.commits[*next.unwrap()].0);
            }
            issuer.apply(&name, commit);
            let mut applied = base.clone();
            applied.apply(&name, commit);
            assert_eq!(applied.canonical(), base.join(&issuer).canonical());
        }
    });
}

#[test]
fn effects_are_idempotent_and_concurrent_ones_commute() {
    for_all_histories(|history| {
        let name = row_name(history.record);
        for _ in 0..5 {
            let base = history.rng.pick(&history.states).clone();
            let ready = history.ready(&base);
            for one in &ready {
                let mut once = base.clone();
                once.apply(&name, &history.commits[*one].0);
                let mut twice = once.clone();
                twice.apply(&name, &history.commits[*one].0);
                assert_eq!(twice.rows, once.rows);
                // All that are ready at once are concurrent.
                for two in ready.iter().filter(|two| *two != one) {
                    let mut forth = once.clone();
                    forth.apply(&name, &history.commits[*two].0);
                    let mut back = base.clone();
                    back.apply(&name, &history.commits[*two].0);
                    back.apply(&name, &history.commits[*one].0);
                    assert_eq!(forth.rows, back.rows);
                }
            }
        }
    });
}

#[test]
fn commits_read_back_as_they_were_written() {
    for_all_histories(|history| {
        for (commit, _) in &history.commits {
            let encoded = commit.encode();
            assert_eq!((encoded.first, encoded.last), (commit.first, commit.last()));
            let decoded = Commit::decode(&encoded).unwrap();
            assert_eq!(&decoded, commit);
            assert_eq!(decoded.encode(), encoded);
            TYPES.validate(&decoded).unwrap();
        }
    });
}

#[test]
fn rows_read_back_as_they_were_written() {
    for_all_histories(|history| {
        let mut origins = Origins::default();
        for state in &history.states {
            for row in &state.rows {
                let mut out = Writer::new();
                row.encode(&mut out, &mut origins);
                let mut input = Reader::new(out.as_slice());
                assert_eq!(&Row::decode(&mut input, &origins).unwrap(), row);
                assert!(input.is_empty());
                // Whatever is cut off is noticed.
                let cut = history.rng.below(out.len());
                let mut input = Reader::new(&out.as_slice()[..cut]);
                assert!(Row::decode(&mut input, &origins).is_err());
            }
        }
    });
}

/// The stored form of a row, siblings in the opposite order and without residue.
fn without_residue(row: &Row, origins: &mut Origins) -> Vec<u8> {
    let mut out = Writer::new();
    out.varint(row.siblings().len() as u64);
    for sibling in row.siblings().iter().rev() {
        out.varint(origins.intern(&sibling.dot.origin));
        out.varint(sibling.dot.seq);
        out.stamp(sibling.stamp);
        out.bytes(&sibling.payload);
    }
    let live: Vec<_> = row.counters().iter().filter(|entry| entry.is_live()).collect();
    out.varint(live.len() as u64);
    for entry in live {
        out.varint(origins.intern(&entry.origin));
        out.varint(entry.generation);
        out.u64(entry.born.0);
        out.varint(entry.last);
        out.stamp(entry.stamp);
        out.varint_i128(entry.sum);
        out.varint(entry.reset_last);
        if let Some(dot) = entry.reset_dot {
            out.varint_i128(entry.reset_sum);
            out.varint(origins.intern(&dot.origin));
            out.varint(dot.seq);
        }
    }
    out.into_vec()
}

#[test]
fn canonical_bytes_know_neither_residue_nor_order() {
    let residue = std::cell::Cell::new(0);
    for_all_histories(|history| {
        let mut origins = Origins::default();
        for row in history.states.iter().flat_map(|state| &state.rows) {
            let bytes = without_residue(row, &mut origins);
            let plain = Row::decode(&mut Reader::new(&bytes), &origins).unwrap();
            residue.set(residue.get() + u64::from(plain != *row));
            assert_eq!(canonical(&plain), canonical(row));
            assert_eq!(plain.shown(Millis(0)), row.shown(Millis(0)));
            assert_eq!(plain.born(Millis(0)), row.born(Millis(0)));
        }
    });
    assert!(residue.get() > 1_000, "only {} rows with residue", residue.get());
}

#[test]
fn every_type_accepts_its_own_samples() {
    for record in TYPES.iter() {
        for seed in 0..=255 {
            let payload = (record.sample)(seed);
            (record.validate)(&payload).unwrap_or_else(|error| panic!("{}: {error}", record.name));
        }
        let of = TYPES.of(record.slot).unwrap();
        assert!(std::ptr::eq(of, record), "{} is not its slot's", record.name);
        assert_eq!(TYPES.kind(record.slot), record.kind);
    }
    assert!(TYPES.iter().is_sorted_by_key(|record| record.slot));
}

/// What a damaged or ill-meant commit can do is to be refused.
#[test]
fn damaged_commits_are_refused_or_are_commits() {
    for_all_histories(|history| {
        let Some((commit, _)) = history.commits.first() else { return };
        let encoded = commit.encode();
        for _ in 0..20 {
            let mut body = encoded.body.to_vec();
            for _ in 0..1 + history.rng.below(3) {
                let at = history.rng.below(body.len());
                body[at] = history.rng.next() as u8;
            }
            if history.rng.chance(30) {
                body.truncate(history.rng.below(body.len()));
            }
            let damaged = EncodedCommit { body: body.into(), ..encoded.clone() };
            let Ok(commit) = Commit::decode(&damaged) else { continue };
            if TYPES.validate(&commit).is_ok() {
                assert_eq!(Commit::decode(&commit.encode()).unwrap(), commit);
            }
        }
    });
}

/// Increments and resets where nothing counts, rows that cannot be, payloads of no type.
#[test]
fn commits_that_cannot_be_are_refused() {
    let row = |slot, subkey: &'static [u8]| {
        let subkey = Bytes::from_static(subkey);
        RowKey { db: 0, key: Bytes::from_static(b"k"), slot, subkey }
    };
    let alone = |effect| {
        let commit =
            Commit { origin: origin(0), first: 5, hlc: Hlc(1), lead: 0, effects: vec![effect] };
        let encoded = commit.encode();
        assert_eq!(Commit::decode(&encoded).as_ref(), Ok(&commit));
        let store = MemStore::new();
        let fresh = Fresh { node: NodeId(9), nonce: 9 };
        let mut engine = Engine::open(store, EngineConfig::default(), fresh, Millis(1)).unwrap();
        let mut tick = engine.tick(Millis(1));
        // Four effects of nothing come first, so that the commit follows.
        let nothing = |_| Effect::Row(RowEffect { row: row(STRING, b""), delta: Delta::default() });
        let effects = (0..4).map(nothing).collect();
        let before = Commit { origin: origin(0), first: 1, hlc: Hlc(1), lead: 0, effects };
        assert_eq!(tick.apply(&before.encode()), Ok(true));
        match tick.apply(&encoded) {
            Ok(true) => true,
            Err(Refused::Invalid(_)) => {
                tick.seal(true).unwrap().unwrap();
                engine.verify().unwrap();
                false
            }
            other => panic!("{other:?}"),
        }
    };
    let put = |slot, subkey, payload: &'static [u8]| {
        let mut effect = RowEffect { row: row(slot, subkey), delta: Delta::default() };
        effect.delta.put = Some(Bytes::from_static(payload));
        alone(Effect::Row(effect))
    };
    assert!(put(SET, b"m", b""));
    assert!(!put(SET, b"m", b"payload"));
    assert!(!put(STRING, b"subkey", b""));
    assert!(!put(Slot::BIRTH, b"", b""));
    assert!(!put(Slot::BIRTH, &[STRING.0], b""));
    assert!(!put(Slot::DEADLINE, b"", b"nonsense"));
    assert!(!put(Slot::BINDING, b"", b"nonsense"));
    let add = |slot, subkey, generation| {
        let mut effect = RowEffect { row: row(slot, subkey), delta: Delta::default() };
        effect.delta.add = Some(Increment { generation, sum: 1 });
        alone(Effect::Row(effect))
    };
    assert!(add(STRING, b"", 5));
    assert!(add(HASH, b"f", 1));
    assert!(!add(SET, b"m", 5));
    assert!(!add(STRING, b"", 6));
    assert!(!add(STRING, b"", 0));
    let reset = CounterReset { origin: origin(1), generation: 1, last: 1, sum: 1 };
    let resets = |slot, subkey| {
        let mut effect = RowEffect { row: row(slot, subkey), delta: Delta::default() };
        effect.delta.resets.push(reset);
        let (scope, context) = (Scope::Db(0), VersionVector::new());
        let clear = Clear { scope, context, resets: vec![(row(slot, subkey), reset)] };
        [alone(Effect::Row(effect)), alone(Effect::Clear(clear))]
    };
    assert_eq!(resets(STRING, b""), [true, true]);
    assert_eq!(resets(SET, b"m"), [false, false]);
    assert_eq!(resets(Slot::BIRTH, b""), [false, false]);
    assert_eq!(resets(STRING, b"subkey"), [false, false]);
}
