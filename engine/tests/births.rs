//! Births (MODEL M8): several types under one key, and one of them visible, the same everywhere.
//!
//! Random commands of all types on two keys. At all moments a collection that is not empty has a birth
//! (`Engine::verify` looks), exactly one slot is visible where any is, replicas with equal vectors show
//! the same one, and a command that empties the visible slot leaves nothing behind that it had seen.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{World, bytes, named};
use lattis_engine::causal::Millis;
use lattis_engine::{KeyInfo, Ttl};

const KEYS: [&str; 2] = ["a", "b"];

fn inspect(world: &mut World, at: usize, key: &str) -> Option<KeyInfo> {
    world.run(at, |txn| {
        let info = txn.inspect(0, key.as_bytes()).unwrap();
        let kind = txn.kind(0, key.as_bytes()).unwrap();
        let slots = info.as_ref().map(|info| info.slots.as_slice()).unwrap_or_default();
        let visible: Vec<&str> =
            slots.iter().filter(|slot| slot.visible).map(|slot| slot.kind).collect();
        assert_eq!(visible, kind.into_iter().collect::<Vec<_>>());
        // The visible slot is the one born last.
        assert!(slots.iter().all(|slot| slot.born <= slots[0].born));
        assert!(slots.iter().all(|slot| slot.live > 0));
        info
    })
}

fn hidden(info: &Option<KeyInfo>) -> bool {
    info.as_ref().is_some_and(|info| info.slots.len() > 1)
}

/// What a history has had to do with.
#[derive(Default)]
struct Seen {
    conflicts: u64,
    emptied_over_hidden: u64,
}

fn command(world: &mut World, at: usize, seen: &mut Seen) {
    let key = *world.rng.pick(&KEYS);
    let member = world.rng.word(&["1", "2"]);
    let choice = world.rng.below(18);
    let before = inspect(world, at, key);
    let name = key.as_bytes();
    let deadline = Ttl::At(Millis(world.now + 20));
    let removes = world.run(at, |txn| {
        let pair = (member.clone(), bytes("5"));
        match choice {
            0 => drop(txn.set(0, name, member, Ttl::Clear)),
            1 => drop(txn.set(0, name, member, Ttl::Keep)),
            2 => drop(txn.set(0, name, member, deadline)),
            3 | 4 => drop(txn.increment(0, name, 1)),
            5..8 => drop(txn.set_add(0, name, &[member])),
            8..10 => drop(txn.hash_set(0, name, &[pair])),
            10 => drop(txn.hash_increment(0, name, &member, 2)),
            11..13 => drop(txn.set_remove(0, name, &[member])),
            13..15 => drop(txn.hash_remove(0, name, &[member])),
            15 => drop(txn.delete(0, name)),
            16 => drop(txn.expire(0, name, Some(Millis(1)))),
            _ => {
                // Emptied and filled again by one transaction.
                let _ = txn.delete(0, name);
                drop(txn.hash_set(0, name, &[pair]));
            }
        }
        (11..17).contains(&choice)
    });
    let after = inspect(world, at, key);
    let kind = |info: &Option<KeyInfo>| info.as_ref().map(|info| info.slots[0].kind);
    seen.conflicts += u64::from(hidden(&after));
    if removes && kind(&before) != kind(&after) {
        // The visible slot went: nothing else may have come to light.
        assert_eq!(after, None, "{key} at {at} by {choice}, before it {before:?}");
        seen.emptied_over_hidden += u64::from(hidden(&before));
    }
    if choice < 3 {
        assert_eq!(kind(&after), Some("string"));
        assert!(!hidden(&after), "SET removes what it saw, whatever its type");
    }
}

fn check(world: &mut World) {
    let mut shown: BTreeMap<u128, Vec<Option<KeyInfo>>> = BTreeMap::new();
    for at in 0..world.replicas.len() {
        world.verify(at);
        let infos = KEYS.map(|key| inspect(world, at, key)).to_vec();
        let digest = world.engine(at).digest();
        let known = shown.entry(digest).or_insert_with(|| infos.clone());
        assert_eq!(*known, infos, "replica {at} shows something else");
    }
}

fn history(seed: u64, seen: &mut Seen) {
    let replicas = 2 + (seed % 2) as usize;
    let mut world = World::new(seed, replicas);
    // Equal clocks: replicas with equal vectors hide the same.
    world.replicas.iter_mut().for_each(|replica| replica.skew = 0);
    for _ in 0..40 {
        let at = world.rng.below(replicas);
        match world.rng.below(100) {
            0..50 => command(&mut world, at, seen),
            50..90 => drop(world.deliver(at)),
            90..95 => world.receive_a_state(at),
            _ => {
                world.now += 7;
                (0..replicas).for_each(|at| world.expire(at));
            }
        }
        check(&mut world);
        world.check_digests();
    }
    world.settle();
    check(&mut world);
    for key in KEYS {
        for at in 0..replicas {
            world.run(at, |txn| txn.delete(0, key.as_bytes()).unwrap());
            assert_eq!(inspect(&mut world, at, key), None);
            world.settle();
        }
    }
    check(&mut world);
}

#[test]
fn every_slot_has_a_birth_and_one_is_visible() {
    let mut seen = Seen::default();
    for seed in 0..1_000 {
        named(format_args!("seed {seed}"), || history(seed, &mut seen));
    }
    println!("{} conflicts, {} emptied", seen.conflicts, seen.emptied_over_hidden);
    assert!(seen.conflicts > 500 && seen.emptied_over_hidden > 50);
}

#[test]
fn the_last_born_type_is_visible_and_what_empties_it_takes_the_others() {
    let mut world = World::new(1, 2);
    world.replicas.iter_mut().for_each(|replica| replica.skew = 0);
    world.run(0, |txn| txn.set_add(0, b"k", &[bytes("m")]).unwrap());
    world.now += 1;
    world.run(1, |txn| txn.hash_set(0, b"k", &[(bytes("f"), bytes("v"))]).unwrap());
    while world.deliver(0) || world.deliver(1) {}
    for at in [0, 1] {
        let info = inspect(&mut world, at, "k").unwrap();
        assert_eq!(info.slots.iter().map(|slot| slot.kind).collect::<Vec<_>>(), ["hash", "set"]);
    }
    // A new member of the hidden set would be of the wrong type.
    assert!(world.run(0, |txn| txn.set_add(0, b"k", &[bytes("n")])).is_err());
    assert_eq!(world.run(0, |txn| txn.hash_remove(0, b"k", &[bytes("f")]).unwrap()), 1);
    assert_eq!(inspect(&mut world, 0, "k"), None);
    while world.deliver(1) {}
    assert_eq!(inspect(&mut world, 1, "k"), None);
    assert_eq!(world.dump(1), Vec::<String>::new());
}

/// Members that are taken away at two nodes, each its own, leave an empty set with a birth: nothing that
/// anyone sees, and nothing that the next life of the key inherits.
#[test]
fn a_set_emptied_by_two_nodes_is_absent_and_is_born_anew() {
    let mut world = World::new(1, 2);
    world.run(0, |txn| txn.set_add(0, b"k", &[bytes("m"), bytes("n")]).unwrap());
    world.deliver(1);
    for (at, member) in [(0, "m"), (1, "n")] {
        let member: Bytes = bytes(member);
        world.run(at, |txn| txn.set_remove(0, b"k", &[member]).unwrap());
    }
    while world.deliver(0) || world.deliver(1) {}
    assert_eq!(inspect(&mut world, 0, "k"), None);
    world.now += 100;
    world.run(1, |txn| txn.set_add(0, b"k", &[bytes("o")]).unwrap());
    let born = inspect(&mut world, 1, "k").unwrap().slots[0].born;
    assert_eq!(born.0, world.engine(1).clock());
}
