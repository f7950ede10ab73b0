//! Numbers (MODEL M2), checked against a specification computed from causal histories.
//!
//! Random executions of a few replicas over two rows: signed INCR, SET, DEL, FLUSH, deliveries in causal
//! order, joins of whole states. What a row shows has to be the base of the last SET that no later reset
//! saw, plus all increments that no reset saw; and replicas that have seen the same have to be equal to
//! the byte. The same checker runs over small models in which one rule is left out, each a mistake that
//! looks right: it has to find all of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::Rng;
use lattis_engine::causal::{Dot, Hlc, Millis, NodeId, Origin, VersionVector};
use lattis_engine::codec::Writer;
use lattis_engine::commit::{CounterReset, Delta};
use lattis_engine::row::{CounterEntry, Row, Shown};

const ROWS: usize = 2;

/// What a row shows, and how many siblings it holds; `None` if it is absent.
type Value = Option<(i64, usize)>;

/// A row as the checker needs it: the engine's, or a model with a flaw.
trait Number: Clone {
    fn put(&mut self, dot: Dot, hlc: Hlc, base: i64);
    fn increment(&mut self, dot: Dot, hlc: Hlc, by: i64);
    fn supersede(&mut self, dot: Dot);
    fn observed(&self, dot: Dot) -> Vec<CounterReset>;
    fn diff(&self, before: &Self, dot: Dot) -> Delta;
    fn apply(&mut self, delta: &Delta, dot: Dot, hlc: Hlc);
    fn clear(&mut self, context: &VersionVector, resets: &[CounterReset], dot: Dot);
    fn join(&self, mine: &VersionVector, other: &Self, theirs: &VersionVector) -> Self;
    fn value(&self) -> Value;
    fn canonical(&self) -> Vec<u8>;
}

fn resets_of<'e>(entries: impl Iterator<Item = &'e CounterEntry>, dot: Dot) -> Vec<CounterReset> {
    entries
        .filter(|entry| entry.is_live() && entry.origin != dot.origin)
        .map(|entry| CounterReset {
            origin: entry.origin,
            generation: entry.generation,
            last: entry.last,
            sum: entry.sum,
        })
        .collect()
}

impl Number for Row {
    fn put(&mut self, dot: Dot, hlc: Hlc, base: i64) {
        Row::put(self, dot, hlc, Bytes::from(base.to_string()));
    }

    fn increment(&mut self, dot: Dot, hlc: Hlc, by: i64) {
        Row::increment(self, dot, hlc, i128::from(by));
    }

    fn supersede(&mut self, dot: Dot) {
        Row::supersede(self, dot);
    }

    fn observed(&self, dot: Dot) -> Vec<CounterReset> {
        resets_of(self.counters().iter(), dot)
    }

    fn diff(&self, before: &Row, dot: Dot) -> Delta {
        Row::diff(self, before, dot)
    }

    fn apply(&mut self, delta: &Delta, dot: Dot, hlc: Hlc) {
        Row::apply(self, delta, dot, hlc);
    }

    fn clear(&mut self, context: &VersionVector, resets: &[CounterReset], dot: Dot) {
        Row::clear(self, context, &dot.origin);
        resets.iter().for_each(|reset| self.apply_reset(reset, dot));
    }

    fn join(&self, mine: &VersionVector, other: &Row, theirs: &VersionVector) -> Row {
        Row::join(self, mine, other, theirs)
    }

    fn value(&self) -> Value {
        let number = match self.shown(Millis(0))? {
            Shown::Number(number) => number,
            shown => std::str::from_utf8(&shown.text()).unwrap().parse().unwrap(),
        };
        Some((number, self.siblings().len()))
    }

    fn canonical(&self) -> Vec<u8> {
        let mut out = Writer::new();
        Row::canonical(self, &mut out);
        // What follows from the dots and is not written with them has to be equal as well.
        for entry in self.counters().iter().filter(|entry| entry.is_live()) {
            out.u64(entry.born.0);
            out.u64(entry.stamp.hlc.0);
        }
        self.siblings().iter().for_each(|sibling| out.u64(sibling.stamp.hlc.0));
        out.into_vec()
    }
}

// ---- models with a flaw ------------------------------------------------------------------------------

/// The rule that a model leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// None: the model itself has to pass.
    None,
    /// Sums and resets are joined by value, as for counters that only grow.
    JoinByValue,
    /// What a reset has covered is dropped at once, not kept as residue.
    DropAtOnce,
    /// A bulk clear carries its context and not the sums that its issuer observed.
    ClearByContext,
    /// A reset of another generation is applied all the same.
    AnyGeneration,
}

/// The row of MODEL M2 written down once more, the short way.
#[derive(Clone)]
struct Model {
    flaw: Flaw,
    siblings: BTreeMap<(Hlc, Dot), i64>,
    entries: BTreeMap<Origin, CounterEntry>,
}

impl Model {
    fn new(flaw: Flaw) -> Model {
        Model { flaw, siblings: BTreeMap::new(), entries: BTreeMap::new() }
    }

    fn opened(dot: Dot, hlc: Hlc, generation: u64, sum: i128) -> CounterEntry {
        CounterEntry {
            origin: dot.origin,
            generation,
            born: hlc,
            last: dot.seq,
            stamp: hlc.into(),
            sum,
            reset_last: 0,
            reset_sum: 0,
            reset_dot: None,
        }
    }

    fn reset(&mut self, reset: &CounterReset, dot: Dot) {
        let flaw = self.flaw;
        let Some(entry) = self.entries.get_mut(&reset.origin) else { return };
        if entry.generation != reset.generation && flaw != Flaw::AnyGeneration {
            return;
        }
        if flaw == Flaw::JoinByValue {
            if reset.sum >= entry.reset_sum {
                (entry.reset_sum, entry.reset_dot) = (reset.sum, Some(dot));
            }
            entry.reset_last = entry.reset_last.max(reset.last);
        } else if (reset.last, Some(dot)) > (entry.reset_last, entry.reset_dot) {
            entry.reset_last = reset.last;
            (entry.reset_sum, entry.reset_dot) = (reset.sum, Some(dot));
        }
        if flaw == Flaw::DropAtOnce && !entry.is_live() {
            self.entries.remove(&reset.origin);
        }
    }
}

impl Number for Model {
    fn put(&mut self, dot: Dot, hlc: Hlc, base: i64) {
        self.supersede(dot);
        self.siblings.insert((hlc, dot), base);
    }

    fn increment(&mut self, dot: Dot, hlc: Hlc, by: i64) {
        let entry = match self.entries.get(&dot.origin).filter(|entry| entry.is_live()) {
            None => Model::opened(dot, hlc, dot.seq, i128::from(by)),
            Some(entry) => {
                let sum = entry.sum + i128::from(by);
                CounterEntry { last: dot.seq, stamp: hlc.into(), sum, ..entry.clone() }
            }
        };
        self.entries.insert(dot.origin, entry);
    }

    fn supersede(&mut self, dot: Dot) {
        self.siblings.clear();
        self.entries.remove(&dot.origin);
        for reset in self.observed(dot) {
            self.reset(&reset, dot);
        }
    }

    fn observed(&self, dot: Dot) -> Vec<CounterReset> {
        resets_of(self.entries.values(), dot)
    }

    fn diff(&self, before: &Model, dot: Dot) -> Delta {
        let mut delta = Delta::default();
        let gone = before.siblings.keys().filter(|key| !self.siblings.contains_key(*key));
        delta.replaces = gone.map(|(_, dot)| *dot).collect();
        let own = |model: &Model| model.entries.get(&dot.origin).map(|entry| entry.generation);
        delta.resets_own = own(before).is_some() && own(before) != own(self);
        if self.entries.get(&dot.origin).is_none_or(|entry| entry.last != dot.seq) {
            delta.resets = before.observed(dot);
        }
        let put = self.siblings.iter().find(|((_, by), _)| *by == dot);
        delta.put = put.map(|(_, base)| Bytes::from(base.to_string()));
        delta.add =
            self.entries.get(&dot.origin).filter(|entry| entry.last == dot.seq).map(|own| {
                lattis_engine::commit::Increment { generation: own.generation, sum: own.sum }
            });
        delta
    }

    fn apply(&mut self, delta: &Delta, dot: Dot, hlc: Hlc) {
        self.siblings.retain(|(_, by), _| !delta.replaces.contains(by));
        delta.resets.iter().for_each(|reset| self.reset(reset, dot));
        if delta.resets_own {
            self.entries.remove(&dot.origin);
        }
        if let Some(add) = &delta.add {
            match self.entries.get_mut(&dot.origin) {
                Some(entry) if entry.generation == add.generation => {
                    (entry.last, entry.stamp, entry.sum) = (dot.seq, hlc.into(), add.sum);
                }
                _ => {
                    let opened = Model::opened(dot, hlc, add.generation, add.sum);
                    self.entries.insert(dot.origin, opened);
                }
            }
        }
        if let Some(base) = &delta.put {
            let base = std::str::from_utf8(base).unwrap().parse().unwrap();
            self.siblings.insert((hlc, dot), base);
        }
    }

    fn clear(&mut self, context: &VersionVector, resets: &[CounterReset], dot: Dot) {
        self.siblings.retain(|(_, by), _| !context.contains(by));
        if self.flaw == Flaw::ClearByContext {
            let covered = |entry: &CounterEntry| entry.last <= context.get(&entry.origin);
            self.entries.retain(|_, entry| !covered(entry));
            return;
        }
        self.entries.remove(&dot.origin);
        resets.iter().for_each(|reset| self.reset(reset, dot));
    }

    fn join(&self, mine: &VersionVector, other: &Model, theirs: &VersionVector) -> Model {
        let mut joined = Model::new(self.flaw);
        for (key, base) in &self.siblings {
            if other.siblings.contains_key(key) || !theirs.contains(&key.1) {
                joined.siblings.insert(*key, *base);
            }
        }
        let fresh = other.siblings.iter().filter(|((_, dot), _)| !mine.contains(dot));
        joined.siblings.extend(fresh.map(|(key, base)| (*key, *base)));
        for (origin, entry) in &self.entries {
            if other.entries.contains_key(origin) || entry.last > theirs.get(origin) {
                joined.entries.insert(*origin, entry.clone());
            }
        }
        for (origin, entry) in &other.entries {
            match joined.entries.get_mut(origin) {
                None if entry.last > mine.get(origin) => {
                    joined.entries.insert(*origin, entry.clone());
                }
                None => {}
                Some(ours) if ours.generation < entry.generation => *ours = entry.clone(),
                Some(ours) if ours.generation > entry.generation => {}
                Some(ours) => {
                    if entry.last > ours.last {
                        (ours.last, ours.stamp, ours.sum) = (
                            entry.last,
                            entry.stamp,
                            match self.flaw {
                                Flaw::JoinByValue => entry.sum.max(ours.sum),
                                _ => entry.sum,
                            },
                        );
                    }
                    if let Some(dot) = entry.reset_dot {
                        let reset = CounterReset {
                            origin: *origin,
                            generation: entry.generation,
                            last: entry.reset_last,
                            sum: entry.reset_sum,
                        };
                        joined.reset(&reset, dot);
                    }
                }
            }
        }
        joined
    }

    fn value(&self) -> Value {
        let mut live = self.entries.values().filter(|entry| entry.is_live()).peekable();
        let base = self.siblings.last_key_value().map(|(_, base)| *base);
        if base.is_none() && live.peek().is_none() {
            return None;
        }
        let sum: i128 = live.map(CounterEntry::value).sum();
        Some((base.unwrap_or(0) + sum as i64, self.siblings.len()))
    }

    fn canonical(&self) -> Vec<u8> {
        let live: Vec<_> = self
            .entries
            .values()
            .filter(|entry| entry.is_live())
            .map(|entry| (entry.origin, entry.last, entry.sum, entry.reset_last, entry.reset_sum))
            .collect();
        format!("{:?} {live:?}", self.siblings).into_bytes()
    }
}

// ---- executions --------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Increment(i64),
    Set(i64),
    Delete,
    Flush,
}

enum Body {
    Row(usize, Delta),
    Clear(VersionVector, [Vec<CounterReset>; ROWS]),
}

/// One commit of one delta. Sets of events are bits of a `u64`.
struct Event {
    kind: Kind,
    row: usize,
    dot: Dot,
    hlc: Hlc,
    /// What its issuer had seen.
    seen: u64,
    body: Body,
}

struct Replica<N> {
    rows: [N; ROWS],
    vector: VersionVector,
    seen: u64,
}

struct Execution<N> {
    replicas: Vec<Replica<N>>,
    events: Vec<Event>,
    rng: Rng,
    trace: Vec<String>,
}

fn origin(at: usize) -> Origin {
    Origin { node: NodeId(at as u64 + 1), incarnation: 1, nonce: 0 }
}

impl<N: Number> Execution<N> {
    fn new(seed: u64, replicas: usize, row: &N) -> Execution<N> {
        let replica =
            |_| Replica { rows: [row.clone(), row.clone()], vector: VersionVector::new(), seen: 0 };
        Execution {
            replicas: (0..replicas).map(replica).collect(),
            events: Vec::new(),
            rng: Rng(seed),
            trace: Vec::new(),
        }
    }

    fn mint(&mut self, at: usize) {
        let (kind, row) = match self.rng.below(92) {
            0..60 => (Kind::Increment(*self.rng.pick(&[1, -1, 3, -2])), self.rng.below(ROWS)),
            60..70 => (Kind::Set(100 + self.rng.below(100) as i64), self.rng.below(ROWS)),
            70..85 => (Kind::Delete, self.rng.below(ROWS)),
            _ => (Kind::Flush, 0),
        };
        let hlc = Hlc(self.events.len() as u64 + 1);
        let replica = &mut self.replicas[at];
        let dot = Dot { origin: origin(at), seq: replica.vector.get(&origin(at)) + 1 };
        let body = if kind == Kind::Flush {
            let context = replica.vector.clone();
            let resets = [0, 1].map(|row| replica.rows[row].observed(dot));
            replica.rows.iter_mut().for_each(|row| row.supersede(dot));
            Body::Clear(context, resets)
        } else {
            let before = replica.rows[row].clone();
            let changed = &mut replica.rows[row];
            match kind {
                Kind::Increment(by) => changed.increment(dot, hlc, by),
                Kind::Set(base) => changed.put(dot, hlc, base),
                _ => changed.supersede(dot),
            }
            Body::Row(row, changed.diff(&before, dot))
        };
        self.trace.push(format!("{at} {kind:?} row {row} as {}", dot.seq));
        let seen = replica.seen;
        self.events.push(Event { kind, row, dot, hlc, seen, body });
        self.saw(at, self.events.len() - 1);
    }

    fn saw(&mut self, at: usize, event: usize) {
        let dot = self.events[event].dot;
        self.replicas[at].seen |= 1 << event;
        self.replicas[at].vector.advance(dot.origin, dot.seq);
    }

    fn deliver(&mut self, at: usize) {
        let seen = self.replicas[at].seen;
        let ready: Vec<usize> = (0..self.events.len())
            .filter(|event| seen >> event & 1 == 0 && self.events[*event].seen & !seen == 0)
            .collect();
        if ready.is_empty() {
            return;
        }
        let index = *self.rng.pick(&ready);
        let event = &self.events[index];
        let rows = &mut self.replicas[at].rows;
        match &event.body {
            Body::Row(row, effect) => rows[*row].apply(effect, event.dot, event.hlc),
            Body::Clear(context, resets) => {
                for (row, resets) in rows.iter_mut().zip(resets) {
                    row.clear(context, resets, event.dot);
                }
            }
        }
        self.trace.push(format!("{at} gets {} of {}", event.dot.seq, event.dot.origin.node.0 - 1));
        self.saw(at, index);
    }

    fn transfer(&mut self, from: usize, to: usize) {
        let (mine, theirs) = (&self.replicas[to], &self.replicas[from]);
        let joined =
            [0, 1].map(|row| mine.rows[row].join(&mine.vector, &theirs.rows[row], &theirs.vector));
        let (seen, vector) = (theirs.seen, theirs.vector.clone());
        let replica = &mut self.replicas[to];
        replica.rows = joined;
        replica.seen |= seen;
        replica.vector.join(&vector);
        self.trace.push(format!("{to} joins {from}"));
    }

    /// The value that a set of events means.
    fn meant(&self, seen: u64, row: usize) -> Value {
        let events = || {
            let known = self.events.iter().enumerate().filter(move |(i, _)| seen >> i & 1 == 1);
            known.filter(move |(_, event)| event.row == row || event.kind == Kind::Flush)
        };
        let mut taken_back = 0;
        for (_, event) in events() {
            if !matches!(event.kind, Kind::Increment(_)) {
                taken_back |= event.seen;
            }
        }
        let (mut base, mut siblings, mut sum, mut exists) = (0, 0, 0, false);
        for (_, event) in events().filter(|(i, _)| taken_back >> i & 1 == 0) {
            match event.kind {
                Kind::Increment(by) => (sum, exists) = (sum + by, true),
                // Events are in the order of their stamps.
                Kind::Set(value) => (base, siblings, exists) = (value, siblings + 1, true),
                Kind::Delete | Kind::Flush => {}
            }
        }
        exists.then_some((base + sum, siblings))
    }

    /// Whether a replica shows what it should, and equals those that have seen the same.
    fn check(&self, at: usize) -> Result<(), String> {
        let here = &self.replicas[at];
        for row in 0..ROWS {
            let (shown, meant) = (here.rows[row].value(), self.meant(here.seen, row));
            if shown != meant {
                return Err(format!("replica {at} row {row}: {shown:?} instead of {meant:?}"));
            }
        }
        for (other, there) in self.replicas.iter().enumerate() {
            for row in 0..ROWS {
                if other != at
                    && there.seen == here.seen
                    && there.rows[row].canonical() != here.rows[row].canonical()
                {
                    return Err(format!("replicas {at} and {other} have seen the same, row {row}"));
                }
            }
        }
        Ok(())
    }

    fn run(&mut self, steps: usize) -> Result<(), String> {
        let replicas = self.replicas.len();
        for _ in 0..steps {
            let at = self.rng.below(replicas);
            match self.rng.below(100) {
                0..45 => self.mint(at),
                45..85 => self.deliver(at),
                _ => {
                    let from = self.rng.below(replicas);
                    if from != at {
                        self.transfer(from, at);
                    }
                }
            }
            self.check(at)?;
        }
        for _ in 0..2 {
            for from in 0..replicas {
                for to in (0..replicas).filter(|to| *to != from) {
                    self.transfer(from, to);
                    self.check(to)?;
                }
            }
        }
        Ok(())
    }
}

fn execution<N: Number>(seed: u64, row: &N) -> Result<(), String> {
    let replicas = 3 + (seed % 2) as usize;
    let steps = [40, 60][replicas - 3];
    let mut execution = Execution::new(seed, replicas, row);
    let result = execution.run(steps);
    result.map_err(|why| format!("seed {seed}: {why}\n{}", execution.trace.join("\n")))
}

#[test]
fn rows_are_what_causal_histories_mean() {
    for seed in 0..100_000 {
        if let Err(why) = execution(seed, &Row::default()) {
            panic!("{why}");
        }
    }
}

/// Of how many executions the checker refuses one with the flaw.
fn refused(flaw: Flaw, executions: u64) -> u64 {
    let bad = (0..executions).filter(|seed| execution(*seed, &Model::new(flaw)).is_err()).count();
    println!("{flaw:?}: {bad} of {executions} executions are refused");
    bad as u64
}

#[test]
fn the_model_without_a_flaw_passes() {
    assert_eq!(refused(Flaw::None, 4_000), 0);
}

#[test]
fn joining_by_value_is_found() {
    assert!(refused(Flaw::JoinByValue, 2_000) > 100);
}

#[test]
fn dropping_residue_at_once_is_found() {
    assert!(refused(Flaw::DropAtOnce, 2_000) > 100);
}

#[test]
fn clearing_by_context_alone_is_found() {
    assert!(refused(Flaw::ClearByContext, 2_000) > 20);
}

#[test]
fn resetting_another_generation_is_found() {
    assert!(refused(Flaw::AnyGeneration, 2_000) > 0);
}
