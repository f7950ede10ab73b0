//! Rows that cannot be read: a command that meets one fails alone and has changed nothing; what replaces a
//! key and what has to be applied goes on over it; nobody takes what was given up for removed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in tests a panic is the report"
)]

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use lattis_engine::causal::{Millis, NodeId};
use lattis_engine::commit::{EncodedCommit, LogEntry};
use lattis_engine::name::Cursor;
use lattis_engine::store::{Family, MemStore, StoreError, keys};
use lattis_engine::{Engine, EngineConfig, Fresh, OpError, OpResult, Ttl, Txn};

type Node = Engine<MemStore>;

fn open(store: &MemStore, node: u64) -> Node {
    let fresh = Fresh { node: NodeId(node), nonce: node };
    Engine::open(store.clone(), EngineConfig::default(), fresh, Millis(1_000)).unwrap()
}

/// Writes everything, and opens anew what was written: nothing is in memory.
fn cold(mut node: Node) -> (MemStore, Node) {
    node.flush().unwrap();
    let store = node.store().copy();
    let node = open(&store, 7);
    (store, node)
}

fn run<T>(
    node: &mut Node,
    body: impl FnOnce(&mut Txn<'_, MemStore>) -> OpResult<T>,
) -> OpResult<(T, Vec<EncodedCommit>)> {
    let mut tick = node.tick(Millis(1_000));
    let mut txn = tick.txn();
    let result = body(&mut txn);
    if result.is_ok() {
        txn.commit();
    } else {
        drop(txn);
    }
    let sealed = tick.seal(false).expect("a tick is sealed, whatever a command met");
    let entries = sealed.map(|sealed| sealed.entries).unwrap_or_default();
    let commits = entries.into_iter().filter_map(|entry| match entry {
        LogEntry::Commit(commit) => Some(commit),
        LogEntry::Barrier(_) => None,
    });
    let commits = commits.collect();
    result.map(|result| (result, commits))
}

fn set(node: &mut Node, key: &str, value: &str) -> OpResult<()> {
    let value = Bytes::copy_from_slice(value.as_bytes());
    run(node, |txn| txn.set(0, key.as_bytes(), value, Ttl::Clear)).map(drop)
}

fn get(node: &mut Node, key: &str) -> OpResult<Option<String>> {
    let found = run(node, |txn| txn.get(0, key.as_bytes()))?.0;
    Ok(found.map(|value| String::from_utf8(value.to_vec()).unwrap()))
}

fn add(node: &mut Node, key: &str, members: &[&str]) -> OpResult<u64> {
    let members: Vec<Bytes> =
        members.iter().map(|member| Bytes::copy_from_slice(member.as_bytes())).collect();
    Ok(run(node, |txn| txn.set_add(0, key.as_bytes(), &members))?.0)
}

fn members(node: &mut Node, key: &str) -> OpResult<Vec<String>> {
    let mut found = Vec::new();
    run(node, |txn| {
        txn.set_members(0, key.as_bytes(), &mut |member| {
            found.push(String::from_utf8(member.to_vec()).unwrap());
            ControlFlow::Continue(())
        })
    })?;
    found.sort();
    Ok(found)
}

fn delete(node: &mut Node, key: &str) -> OpResult<bool> {
    Ok(run(node, |txn| txn.delete(0, key.as_bytes()))?.0)
}

fn count(node: &mut Node) -> u64 {
    run(node, |txn| txn.db_size(0)).unwrap().0
}

fn listed(node: &mut Node) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    run(node, |txn| {
        txn.keys(0, Cursor::START, &mut |key, _| {
            found.insert(String::from_utf8(key.to_vec()).unwrap());
            ControlFlow::Continue(())
        })
    })
    .unwrap();
    found
}

fn bind(node: &mut Node, target: &str, source: &str) -> OpResult<()> {
    let sources = [Bytes::copy_from_slice(source.as_bytes())];
    run(node, |txn| txn.bind(0, target.as_bytes(), "MAP", &sources, "x * 2")).map(drop)
}

/// Sees to it that each member of a set lies by itself: so they do where one was long.
fn spread(node: &mut Node, key: &str) {
    let long = [Bytes::from("x".repeat(1_000))];
    run(node, |txn| txn.set_add(0, key.as_bytes(), &long)).unwrap();
    run(node, |txn| txn.set_remove(0, key.as_bytes(), &long)).unwrap();
}

fn damage_record(store: &MemStore, key: &str) {
    let mut name = Vec::new();
    keys::header(&mut name, 0, key.as_bytes());
    assert!(store.keys(Family::Keys).contains(&name), "{key} is not stored");
    store.damage(Family::Keys, &name);
}

/// Makes one member of a set unreadable.
fn damage_member(store: &MemStore, key: &str, member: &str) {
    let rows = store.keys(Family::Data).into_iter();
    let mut its = rows.filter(|row| {
        keys::split_row(row)
            .is_some_and(|row| row.key == key.as_bytes() && row.subkey == member.as_bytes())
    });
    store.damage(Family::Data, &its.next().expect("the member is stored"));
}

fn unreadable<T: std::fmt::Debug>(result: OpResult<T>) {
    let corrupt = matches!(result, Err(OpError::Store(StoreError::Corrupt(_))));
    assert!(corrupt, "{result:?}");
}

/// Ten strings and ten sets, of which `bad` and `sets` have damage.
fn damaged() -> (MemStore, Node) {
    let mut node = open(&MemStore::new(), 1);
    for number in 0..10 {
        set(&mut node, &format!("k{number}"), "v").unwrap();
        add(&mut node, &format!("s{number}"), &["1", "2", "3"]).unwrap();
        spread(&mut node, &format!("s{number}"));
    }
    let (store, node) = cold(node);
    damage_record(&store, "k3");
    damage_member(&store, "s3", "2");
    (store, node)
}

#[test]
fn a_command_that_meets_damage_fails_alone() {
    let (_, mut node) = damaged();
    let mut tick = node.tick(Millis(1_000));
    let mut sum = 0;
    for key in ["k1", "k3", "k4", "k3", "k5"] {
        let mut txn = tick.txn();
        txn.increment(0, b"n", 1).unwrap();
        match txn.get(0, key.as_bytes()) {
            Ok(_) => {
                txn.commit();
                sum += 1;
            }
            // What was changed before it met the damage goes with it.
            Err(_) => assert_eq!(key, "k3"),
        }
    }
    tick.seal(false).unwrap();
    assert_eq!(get(&mut node, "n").unwrap(), Some(sum.to_string()));
    unreadable(get(&mut node, "k3"));
    unreadable(members(&mut node, "s3"));
    unreadable(add(&mut node, "s3", &["2"]));
    assert_eq!(add(&mut node, "s3", &["4"]).unwrap(), 1);
    assert_eq!(node.lost_rows(), 0);
    // What lists keys tells those that it can read.
    // `k3` is passed over, and `n` is new.
    assert_eq!(listed(&mut node).len(), 20);
    assert!(node.has_unread());
}

#[test]
fn what_replaces_a_key_does_not_need_to_read_it() {
    for replace in ["SET", "DEL", "FLUSH"] {
        let (store, mut node) = damaged();
        match replace {
            "SET" => {
                set(&mut node, "k3", "new").unwrap();
                set(&mut node, "s3", "new").unwrap();
            }
            "DEL" => {
                assert!(delete(&mut node, "k3").unwrap());
                assert!(delete(&mut node, "s3").unwrap());
                assert!(!delete(&mut node, "s3").unwrap());
            }
            _ => drop(run(&mut node, |txn| txn.flush(0)).unwrap()),
        }
        // What goes as a whole need not be read: nothing of it is missed.
        let lost = if replace == "FLUSH" { 0 } else { 2 };
        assert!(node.lost_rows() >= lost, "{replace}: {}", node.lost_rows());
        // At once, when it is written, and after a start.
        for round in 0..3 {
            let there = |key| (replace == "SET").then_some(key);
            assert_eq!(get(&mut node, "k3").unwrap().as_deref(), there("new"), "{replace} {round}");
            let keys = match replace {
                "SET" => 20,
                "DEL" => 18,
                _ => 0,
            };
            assert_eq!((count(&mut node), listed(&mut node).len()), (keys, keys as usize));
            if replace != "SET" {
                assert_eq!(add(&mut node, "s3", &["5"]).unwrap(), 1);
                assert_eq!(members(&mut node, "s3").unwrap(), ["5"], "{replace} {round}");
                assert!(delete(&mut node, "s3").unwrap());
                add(&mut node, "k3", &["6"]).unwrap();
                assert_eq!(members(&mut node, "k3").unwrap(), ["6"], "{replace} {round}");
                assert!(delete(&mut node, "k3").unwrap());
            }
            node.flush().unwrap();
            if round == 1 {
                node = open(&store.copy(), 9);
            }
        }
        assert!(node.lost_rows() >= lost);
        match node.snapshot().map(drop) {
            Ok(()) => assert_eq!(replace, "FLUSH", "what was given up is for nobody"),
            Err(refused) => assert!(refused.to_string().contains("given up"), "{refused}"),
        }
    }
}

#[test]
fn a_view_over_damage_is_refused_and_one_whose_source_is_given_up_follows() {
    let (_, mut node) = damaged();
    unreadable(bind(&mut node, "d3", "s3"));
    assert_eq!(node.active_bindings(), 0);
    node.verify().unwrap_err();
    bind(&mut node, "d1", "s1").unwrap();
    assert_eq!(members(&mut node, "d1").unwrap(), ["2", "4", "6"]);

    let mut node = open(&MemStore::new(), 1);
    add(&mut node, "s", &["1", "2", "3"]).unwrap();
    spread(&mut node, "s");
    bind(&mut node, "d", "s").unwrap();
    bind(&mut node, "dd", "d").unwrap();
    let (store, mut node) = cold(node);
    damage_member(&store, "s", "2");
    assert!(delete(&mut node, "s").unwrap());
    assert!(members(&mut node, "d").unwrap().is_empty());
    assert!(members(&mut node, "dd").unwrap().is_empty());
    add(&mut node, "s", &["4"]).unwrap();
    assert_eq!(members(&mut node, "dd").unwrap(), ["16"]);
}

#[test]
fn commits_of_peers_and_the_log_are_applied_over_damage() {
    // A peer that has all of it, and goes on.
    let mut peer = open(&MemStore::new(), 2);
    let mut node = open(&MemStore::new(), 1);
    let feed = |node: &mut Node, commits: &[EncodedCommit]| {
        let mut tick = node.tick(Millis(1_000));
        for commit in commits {
            assert!(tick.apply(commit).unwrap());
        }
        tick.seal(false).unwrap();
    };
    let write = |peer: &mut Node, key: &'static str, members: &[&'static str]| {
        let members: Vec<Bytes> =
            members.iter().map(|member| Bytes::from_static(member.as_bytes())).collect();
        run(peer, |txn| txn.set_add(0, key.as_bytes(), &members)).unwrap().1
    };
    let long = "x".repeat(1_000).leak();
    for members in [&["1", "2", "3"][..], &[long]] {
        let commits = write(&mut peer, "s", members);
        feed(&mut node, &commits);
    }
    let long = [Bytes::from_static(long.as_bytes())];
    let commits = run(&mut peer, |txn| txn.set_remove(0, b"s", &long)).unwrap().1;
    feed(&mut node, &commits);
    feed(&mut node, &write(&mut peer, "t", &["1"]));
    let (store, mut node) = cold(node);
    damage_member(&store, "s", "2");
    damage_record(&store, "t");
    feed(&mut node, &write(&mut peer, "s", &["2", "4"]));
    feed(&mut node, &write(&mut peer, "t", &["2"]));
    assert_eq!(members(&mut node, "s").unwrap(), ["1", "2", "3", "4"]);
    assert_eq!(members(&mut node, "t").unwrap(), ["2"]);
    assert!(node.lost_rows() >= 2);
    assert_eq!(node.vector(), peer.vector());
    // The same from the log at a start: what was applied is not in the rows yet, which are damaged.
    let again = store.copy();
    damage_member(&again, "s", "2");
    damage_record(&again, "t");
    let mut node = open(&again, 8);
    assert_eq!(members(&mut node, "s").unwrap(), ["1", "2", "3", "4"]);
    assert_eq!(members(&mut node, "t").unwrap(), ["2"]);
}

#[test]
fn a_deadline_of_what_cannot_be_read_stops_nobody() {
    let mut node = open(&MemStore::new(), 1);
    for key in ["a", "b", "c"] {
        let value = Bytes::from_static(b"v");
        let at = Ttl::At(Millis(2_000));
        run(&mut node, |txn| txn.set(0, key.as_bytes(), value, at)).unwrap();
    }
    let (store, mut node) = cold(node);
    damage_record(&store, "b");
    let mut tick = node.tick(Millis(3_000));
    assert!(!tick.expire_due(10).unwrap());
    tick.seal(false).unwrap();
    assert_eq!(node.next_deadline(), None);
    let mut tick = node.tick(Millis(3_000));
    assert_eq!(tick.txn().get(0, b"c").unwrap(), None);
    assert!(tick.txn().get(0, b"b").is_err());
}

/// Which records are damaged is chance: whatever they were, giving them up does not upset what is counted.
#[test]
fn any_record_can_be_given_up() {
    for seed in 0..40u64 {
        let mut node = open(&MemStore::new(), 1);
        for number in 0..20 {
            match (number + seed) % 4 {
                0 => set(&mut node, &format!("k{number}"), "v").unwrap(),
                1 => drop(add(&mut node, &format!("k{number}"), &["1", "2"]).unwrap()),
                2 => {
                    // Of a counter that was removed something is left that is not seen.
                    let key = format!("k{number}");
                    run(&mut node, |txn| txn.increment(0, key.as_bytes(), 1)).unwrap();
                    delete(&mut node, &key).unwrap();
                }
                _ => {
                    let key = format!("k{number}");
                    let at = Ttl::At(Millis(9_000));
                    let value = Bytes::from_static(b"v");
                    run(&mut node, |txn| txn.set(0, key.as_bytes(), value, at)).unwrap();
                }
            }
        }
        let (store, mut node) = cold(node);
        for name in store.keys(Family::Keys) {
            store.damage(Family::Keys, &name);
        }
        for name in
            store.keys(Family::Data).into_iter().filter(|name| name.len() as u64 % 2 == seed % 2)
        {
            store.damage(Family::Data, &name);
        }
        for number in 0..20 {
            let key = format!("k{number}");
            match (number + seed) % 3 {
                0 => set(&mut node, &key, "new").unwrap(),
                1 => drop(delete(&mut node, &key).unwrap()),
                _ => {}
            }
        }
        run(&mut node, |txn| txn.flush(0)).unwrap();
        assert_eq!((count(&mut node), listed(&mut node).len()), (0, 0), "{seed}");
        add(&mut node, "s", &["1"]).unwrap();
        node.flush().unwrap();
        let mut node = open(&store.copy(), 3);
        assert_eq!((count(&mut node), listed(&mut node).len()), (1, 1), "{seed}");
        assert_eq!(members(&mut node, "s").unwrap(), ["1"]);
    }
}
