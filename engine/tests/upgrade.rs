//! Stores whose rows are in the first order, that of the names' bytes: a start brings them into today's,
//! whole or after a start that ended in the middle, and they hold what they held.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

mod common;

use std::ops::ControlFlow;

use bytes::Bytes;
use common::World;
use lattis_engine::causal::{Millis, NodeId};
use lattis_engine::store::{Family, Hole, MemStore, Read, Run, Store, StoreError};
use lattis_engine::{Engine, EngineConfig, Fresh, OpenError, upgrade};

/// Bytes of a hash in today's names.
const HASH: usize = 8;

/// Puts a store's rows back into the first order, and its state into the first format.
fn downgrade(store: &MemStore) {
    let mut run = Run::default();
    for (family, first) in [
        (Family::Keys, Family::FirstKeys),
        (Family::Data, Family::FirstData),
        (Family::Derived, Family::FirstDerived),
    ] {
        let to = Vec::new();
        run.erase(Hole { family, from: Vec::new(), to, why: String::new() });
        let visit = &mut |key: &[u8], value: &[u8]| {
            // The hash stands behind the db, or behind the client's key and its slot.
            let length = || u32::from_be_bytes(key[2..6].try_into().unwrap()) as usize;
            let at = match family {
                Family::Keys => 2,
                Family::Data => 6 + length() + 1,
                _ => 6 + length(),
            };
            run.put(first, &[&key[..at], &key[at + HASH..]].concat(), value);
            ControlFlow::Continue(())
        };
        store.scan(family, &[], &[], visit).unwrap();
    }
    let state = store.get(Family::System, b"state").unwrap().unwrap();
    run.put(Family::System, b"state", &[&[1], &state[1..]].concat());
    store.write_run(&mut run).unwrap();
}

fn open(store: &MemStore, nonce: u64) -> Result<Engine<MemStore>, OpenError> {
    let types = &common::types::TYPES;
    #[allow(clippy::needless_update, reason = "a feature adds another field")]
    let config = EngineConfig { types, ..EngineConfig::default() };
    Engine::open(store.clone(), config, Fresh { node: NodeId(1), nonce }, Millis(2_000_000))
}

#[test]
fn histories_are_what_they_were() {
    for seed in 0..60 {
        let mut world = World::new(seed, 2);
        for _ in 0..150 {
            let at = world.rng.below(2);
            match world.rng.below(3) {
                0 => drop(world.deliver(at)),
                _ => world.random_command(at),
            }
        }
        world.engine(0).flush().unwrap();
        let (digest, shown) = (world.engine(0).digest(), world.dump(0));
        let store = world.replicas[0].store.clone();
        world.replicas[0].engine = None;
        downgrade(&store);
        assert!(upgrade::is_due(&store).unwrap() || shown.is_empty());
        world.open(0);
        world.verify(0);
        assert_eq!((world.engine(0).digest(), world.dump(0)), (digest, shown), "seed {seed}");
        assert!(!upgrade::is_due(&store).unwrap());
    }
}

/// So many rows that they are moved in several steps, each of which may be the last of a start.
#[test]
fn a_start_that_ends_in_the_middle_is_gone_on_with() {
    let store = MemStore::new();
    let mut engine = open(&store, 1).unwrap();
    for first in (0..200_000).step_by(10_000) {
        let mut tick = engine.tick(Millis(1_000));
        let mut txn = tick.txn();
        let members: Vec<Bytes> =
            (first..first + 10_000).map(|n: u32| Bytes::from(n.to_string())).collect();
        txn.set_add(0, b"many", &members).unwrap();
        txn.set(1, &members[0], Bytes::new(), lattis_engine::Ttl::Clear).unwrap();
        txn.commit();
        tick.seal(true).unwrap();
    }
    engine.flush().unwrap();
    let digest = engine.digest();
    drop(engine);
    downgrade(&store);
    let of = |family| store.keys(family).len();
    let (all, mut starts) = (of(Family::FirstData), 0);
    loop {
        // One range is written, and then the disk is full.
        store.fail_runs_after(1, StoreError::Full("of the test".into()));
        starts += 1;
        let opened = open(&store, 10 + starts);
        assert_eq!(of(Family::FirstData) + of(Family::Data), all);
        if let Ok(mut engine) = opened {
            engine.verify().unwrap();
            assert_eq!(engine.digest(), digest);
            break;
        }
        assert!(starts < 10);
    }
    assert!(starts > 2, "{starts} starts");
}

/// A version before does not take a store whose rows it would not find for one without.
#[test]
fn a_version_before_refuses() {
    let store = MemStore::new();
    let mut engine = open(&store, 1).unwrap();
    engine.flush().unwrap();
    let state = store.get(Family::System, b"state").unwrap();
    assert!(state.is_none_or(|state| state[0] == 2));
}
