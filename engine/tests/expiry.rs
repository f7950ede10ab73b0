//! The list of deadlines: what is due is found, once, in order, and at a cost that does not grow with what
//! was due before.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::Rng;
use lattis_engine::causal::{Millis, NodeId};
use lattis_engine::store::MemStore;
use lattis_engine::{Engine, EngineConfig, Fresh, Ttl};

type Node = Engine<MemStore>;

fn open(store: MemStore, nonce: u64, now: u64) -> Node {
    let fresh = Fresh { node: NodeId(1), nonce };
    Engine::open(store, EngineConfig::default(), fresh, Millis(now)).unwrap()
}

fn write(node: &mut Node, now: u64, writes: &[(u64, Option<u64>)]) {
    let mut tick = node.tick(Millis(now));
    for (key, end) in writes {
        let mut txn = tick.txn();
        let ttl = end.map_or(Ttl::Clear, |end| Ttl::At(Millis(end)));
        txn.set(0, format!("k{key}").as_bytes(), Bytes::from_static(b"v"), ttl).unwrap();
        txn.commit();
    }
    tick.seal(false).unwrap();
}

/// Takes what is due, in portions.
fn expire(node: &mut Node, now: u64) {
    loop {
        let mut tick = node.tick(Millis(now));
        let more = tick.expire_due(1_000).unwrap();
        tick.seal(false).unwrap();
        if !more {
            return;
        }
    }
}

/// Many more keys than are looked at together, written, overwritten, kept for ever, with clocks that go on
/// and back, rows that are written and starts between: at each moment those are there that should be.
#[test]
fn what_is_due_goes_whatever_was_before() {
    for seed in 1..=4 {
        let mut rng = Rng(seed);
        let mut node = open(MemStore::new(), seed, 1_000);
        let mut model: BTreeMap<u64, Option<u64>> = BTreeMap::new();
        let mut now = 10_000;
        let mut gone = 0;
        for round in 0..30 {
            let writes: Vec<(u64, Option<u64>)> = (0..3_000)
                .map(|_| {
                    let end = (rng.below(8) > 0).then(|| now + 1 + rng.below(20_000) as u64);
                    (rng.below(40_000) as u64, end)
                })
                .collect();
            write(&mut node, now, &writes);
            model.extend(writes);
            match rng.below(4) {
                0 => node.flush().unwrap(),
                1 => {
                    node.flush().unwrap();
                    node = open(node.store().copy(), seed * 100 + round, now);
                }
                _ => {}
            }
            // What is hidden at one time stays so, so the clock does not go back behind what it has passed.
            now += rng.below(2_000) as u64;
            expire(&mut node, now);
            let before = model.len();
            model.retain(|_, end| end.is_none_or(|end| end >= now));
            gone += before - model.len();
            let mut tick = node.tick(Millis(now));
            assert_eq!(tick.txn().db_size(0).unwrap(), model.len() as u64, "{seed} {round}");
            drop(tick);
            let next = model.values().flatten().min().copied();
            assert!(node.next_deadline() <= next.map(Millis), "{seed} {round}");
        }
        assert!(gone > 20_000, "{gone}");
        node.verify().unwrap();
    }
}

/// A tick that cannot be sealed puts back what it has taken.
#[test]
fn what_was_taken_comes_back_with_a_tick_that_failed() {
    let store = MemStore::new();
    let mut node = open(store.clone(), 1, 1_000);
    let writes: Vec<(u64, Option<u64>)> = (0..100).map(|key| (key, Some(2_000 + key))).collect();
    write(&mut node, 1_000, &writes);
    store.fail_writes(Some(lattis_engine::store::StoreError::Full("full".into())));
    for _ in 0..3 {
        let mut tick = node.tick(Millis(5_000));
        tick.expire_due(10).unwrap();
        assert!(tick.seal(false).is_err());
        assert_eq!(node.next_deadline(), Some(Millis(2_000)));
    }
    store.fail_writes(None);
    expire(&mut node, 5_000);
    assert_eq!((node.next_deadline(), node.expired_keys()), (None, 100));
}

/// A cache whose entries come and go: the store is not looked through again and again.
#[test]
fn a_deadline_costs_the_same_after_many_others() {
    let store = MemStore::new();
    let mut node = open(store.clone(), 1, 1_000);
    let (mut now, mut key) = (10_000, 0);
    let begin = store.scanned();
    for round in 0..1_000 {
        let writes: Vec<(u64, Option<u64>)> = (0..100)
            .map(|at| {
                key += 1;
                (key, Some(now + 2_000 + at))
            })
            .collect();
        write(&mut node, now, &writes);
        now += 100;
        expire(&mut node, now);
        if round % 50 == 0 {
            node.flush().unwrap();
        }
    }
    let scanned = store.scanned() - begin;
    assert!(node.expired_keys() > 90_000);
    assert!(scanned < 300_000, "{scanned} rows were passed over for {} deadlines", key);
}
