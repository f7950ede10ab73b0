//! Clears in a commit that has cleared before: what is left is what a model says, here and at a peer, and the
//! cost is that of what came since.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use common::{Rng, named};
use lattis_engine::causal::{Hlc, Millis, NodeId, Origin, VersionVector};
use lattis_engine::commit::{Clear, Commit, Effect, EncodedCommit, LogEntry};
use lattis_engine::name::{Cursor, Scope};
use lattis_engine::store::MemStore;
use lattis_engine::{Engine, EngineConfig, Fresh, Sealed, Ttl, Txn};

const NOW: Millis = Millis(1_000);
/// Steps of a test of cost: seconds if one step looks at those before, many minutes if each does.
const MANY: usize = 20_000;

fn open(node: u64) -> Engine<MemStore> {
    let fresh = Fresh { node: NodeId(node), nonce: node };
    Engine::open(MemStore::new(), EngineConfig::default(), fresh, NOW).unwrap()
}

fn word(number: usize) -> Bytes {
    Bytes::from(format!("w{number}"))
}

fn write(engine: &mut Engine<MemStore>) {
    let Some(mut generation) = engine.freeze() else { return };
    let result = generation.write(engine.store());
    engine.written(generation, &result);
}

fn commits(sealed: &Sealed) -> impl Iterator<Item = &EncodedCommit> {
    sealed.entries.iter().map(|entry| match entry {
        LogEntry::Commit(commit) => commit,
        LogEntry::Barrier(_) => panic!("a barrier"),
    })
}

/// Runs one transaction; the peer gets what it became.
fn transact(
    engine: &mut Engine<MemStore>,
    peer: &mut Engine<MemStore>,
    run: impl FnOnce(&mut Txn<'_, MemStore>),
) -> Option<Sealed> {
    let mut tick = engine.tick(NOW);
    let mut txn = tick.txn();
    run(&mut txn);
    txn.commit();
    let sealed = tick.seal(false).unwrap()?;
    let mut tick = peer.tick(NOW);
    for commit in commits(&sealed) {
        assert!(tick.apply(commit).unwrap());
    }
    tick.seal(false).unwrap();
    Some(sealed)
}

/// The clears of the only commit.
fn clears(sealed: &Sealed) -> usize {
    let commits: Vec<_> = commits(sealed).collect();
    let [commit] = commits.as_slice() else { panic!("{} commits", commits.len()) };
    let effects = Commit::decode(commit).unwrap().effects;
    effects.iter().filter(|effect| matches!(effect, Effect::Clear(_))).count()
}

/// Members by key; a counter is a key without any.
type Model = BTreeMap<Bytes, BTreeSet<Bytes>>;

fn look(engine: &mut Engine<MemStore>) -> Model {
    let mut tick = engine.tick(NOW);
    let mut txn = tick.txn();
    let mut keys = Vec::new();
    txn.keys(0, Cursor::START, &mut |key, _| {
        keys.push(Bytes::copy_from_slice(key));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(txn.db_size(0).unwrap(), keys.len() as u64);
    let mut model = Model::new();
    for key in keys {
        let mut members = BTreeSet::new();
        if txn.get(0, &key).is_err() {
            txn.set_members(0, &key, &mut |member| {
                members.insert(Bytes::copy_from_slice(member));
                ControlFlow::Continue(())
            })
            .unwrap();
        }
        model.insert(key, members);
    }
    model
}

/// One command on a set, a counter or the whole db.
fn command(rng: &mut Rng, txn: &mut Txn<'_, MemStore>, model: &mut Model) {
    let set = word(rng.below(2));
    let some = |rng: &mut Rng| -> Vec<Bytes> {
        // What a command removes one by one, and what it clears.
        let count = *rng.pick(&[1, 3, 70]);
        (0..count).map(|_| word(rng.below(200))).collect()
    };
    match rng.below(9) {
        0..=2 => {
            let members = some(rng);
            txn.set_add(0, &set, &members).unwrap();
            model.entry(set).or_default().extend(members);
        }
        3 => {
            let members = some(rng);
            txn.set_remove(0, &set, &members).unwrap();
            if let Some(left) = model.get_mut(&set) {
                left.retain(|member| !members.contains(member));
                if left.is_empty() {
                    model.remove(&set);
                }
            }
        }
        4 | 5 => assert_eq!(txn.delete(0, &set).unwrap(), model.remove(&set).is_some()),
        6 => {
            txn.increment(0, b"counter", 1).unwrap();
            model.insert(Bytes::from_static(b"counter"), BTreeSet::new());
        }
        7 => {
            txn.expire(0, &set, Some(Millis(100_000))).unwrap();
        }
        _ => {
            txn.flush(0).unwrap();
            model.clear();
        }
    }
}

#[test]
fn what_is_cleared_again_is_gone_and_what_is_taken_back_is_not() {
    for seed in 0..300 {
        named(format_args!("seed {seed}"), || {
            let mut rng = Rng(seed);
            let mut nodes = [open(1), open(2)];
            let mut model = Model::new();
            for _ in 0..12 {
                // Counters of both, so that clears have something to reset.
                nodes.reverse();
                let [engine, peer] = &mut nodes;
                transact(engine, peer, |txn| {
                    let mut marks = Vec::new();
                    for _ in 0..rng.below(30) {
                        command(&mut rng, txn, &mut model);
                        match rng.below(8) {
                            0 => marks.push((txn.savepoint(), model.clone())),
                            1 if !marks.is_empty() => {
                                let to = rng.below(marks.len());
                                marks.truncate(to + 1);
                                if let Some((savepoint, then)) = marks.pop() {
                                    txn.rollback(savepoint);
                                    model = then;
                                }
                            }
                            _ => {}
                        }
                    }
                });
                if rng.chance(20) {
                    write(engine);
                }
                for node in &mut nodes {
                    assert_eq!(look(node), model);
                    node.verify().unwrap();
                }
                assert_eq!(nodes[0].digest(), nodes[1].digest());
            }
        });
    }
}

#[test]
fn a_commit_clears_its_db_once() {
    let [mut engine, mut peer] = [open(1), open(2)];
    transact(&mut engine, &mut peer, |txn| {
        for number in 0..MANY {
            txn.set(0, &word(number), word(0), Ttl::Clear).unwrap();
        }
    });
    // Rows in the store, too, are not looked at again.
    write(&mut engine);
    write(&mut peer);
    let sealed = transact(&mut engine, &mut peer, |txn| {
        for number in 0..MANY {
            txn.set(0, &word(number), word(1), Ttl::Clear).unwrap();
            txn.set_add(0, b"s", &[word(number)]).unwrap();
            txn.flush(0).unwrap();
        }
        txn.set(0, b"last", word(1), Ttl::Clear).unwrap();
    });
    assert_eq!(clears(&sealed.unwrap()), 1);
    for node in [&mut engine, &mut peer] {
        assert_eq!(look(node).into_keys().collect::<Vec<_>>(), ["last"]);
        node.verify().unwrap();
    }
    assert_eq!(engine.digest(), peer.digest());
}

#[test]
fn a_commit_clears_its_key_once() {
    let [mut engine, mut peer] = [open(1), open(2)];
    let all: Vec<Bytes> = (0..MANY).map(word).collect();
    transact(&mut engine, &mut peer, |txn| {
        txn.set_add(0, b"s", &all).unwrap();
    });
    write(&mut engine);
    let sealed = transact(&mut engine, &mut peer, |txn| {
        for (number, member) in all.iter().enumerate() {
            txn.set_add(0, b"s", std::slice::from_ref(member)).unwrap();
            if number % 100 == 0 {
                txn.set_add(0, b"s", &all[number..all.len().min(number + 100)]).unwrap();
            }
            txn.delete(0, b"s").unwrap();
        }
    });
    assert_eq!(clears(&sealed.unwrap()), 1);
    assert!(look(&mut engine).is_empty() && look(&mut peer).is_empty());
    assert_eq!(engine.digest(), peer.digest());
}

/// Ticks that clear what they wrote do not look at what those before them removed.
#[test]
fn clears_of_many_ticks_are_linear() {
    let [mut engine, mut peer] = [open(1), open(2)];
    for number in 0..MANY {
        transact(&mut engine, &mut peer, |txn| {
            txn.set(0, &word(number), word(0), Ttl::Clear).unwrap();
            txn.set_add(0, b"s", &[word(number)]).unwrap();
            txn.delete(0, b"s").unwrap();
        });
        transact(&mut engine, &mut peer, |txn| txn.flush(0).unwrap());
    }
    assert!(look(&mut engine).is_empty() && look(&mut peer).is_empty());
    assert_eq!(engine.digest(), peer.digest());
}

/// A clear names all origins that its issuer knows; each is looked for once, not among all before it.
#[test]
fn a_clear_names_many_origins() {
    let origin = |node| Origin { node: NodeId(node), ..Origin::default() };
    let context: VersionVector = (1..=200_000).map(|node| (origin(node), node)).collect();
    let clear = |db| {
        Effect::Clear(Clear { scope: Scope::Db(db), context: context.clone(), resets: vec![] })
    };
    let effects = (0..4).map(clear).collect();
    let commit = Commit { origin: origin(7), first: 8, hlc: Hlc(0), lead: 0, effects };
    assert_eq!(Commit::decode(&commit.encode()).unwrap(), commit);
}

/// Keys of all kinds: of two dbs, with counters of both nodes.
fn fill(engine: &mut Engine<MemStore>, peer: &mut Engine<MemStore>, keys: usize) {
    for number in 0..keys {
        transact(engine, peer, |txn| {
            txn.set(0, &word(number), word(number), Ttl::Clear).unwrap();
            txn.set_add(0, b"set", &[word(number)]).unwrap();
            txn.increment(0, b"both", 1).unwrap();
            txn.hash_increment(0, b"hash", &word(number), 1).unwrap();
            txn.set(1, &word(number), word(number), Ttl::Clear).unwrap();
        });
    }
    transact(peer, engine, |txn| {
        txn.increment(0, b"both", 10).unwrap();
    });
}

fn sizes(engine: &mut Engine<MemStore>) -> (u64, u64) {
    let mut tick = engine.tick(NOW);
    let mut txn = tick.txn();
    (txn.db_size(0).unwrap(), txn.db_size(1).unwrap())
}

#[test]
fn a_db_goes_as_a_whole_and_comes_back_if_it_has_not_gone() {
    let (mut engine, mut peer) = (open(1), open(2));
    fill(&mut engine, &mut peer, 300);
    write(&mut engine);
    fill(&mut engine, &mut peer, 310);
    let full = engine.cache_bytes();
    // In the middle of a transaction, between changes of before and after, and taken back.
    {
        let mut tick = engine.tick(NOW);
        let mut txn = tick.txn();
        txn.set(0, b"w1", word(7), Ttl::Clear).unwrap();
        let before = txn.savepoint();
        txn.set(0, b"w2", word(8), Ttl::Clear).unwrap();
        txn.flush(0).unwrap();
        assert_eq!(txn.db_size(0).unwrap(), 0);
        assert_eq!(txn.get(0, b"w1").unwrap(), None);
        txn.set(0, b"w3", word(9), Ttl::Clear).unwrap();
        txn.set_add(0, b"set", &[word(1_000)]).unwrap();
        assert_eq!(txn.set_len(0, b"set").unwrap(), 1);
        txn.rollback(before);
        assert_eq!(txn.db_size(0).unwrap(), 313);
        assert_eq!(txn.get(0, b"w1").unwrap(), Some(word(7)));
        assert_eq!(txn.get(0, b"w2").unwrap(), Some(word(2)));
        assert_eq!(txn.get(0, b"w3").unwrap(), Some(word(3)));
        assert_eq!(txn.set_len(0, b"set").unwrap(), 310);
    }
    engine.verify().unwrap();
    assert_eq!((sizes(&mut engine), engine.digest()), ((313, 310), peer.digest()));
    // It goes, with what came before it in its commit, and what comes after stays.
    let sealed = transact(&mut engine, &mut peer, |txn| {
        txn.set(0, b"w1", word(7), Ttl::Clear).unwrap();
        txn.flush(0).unwrap();
        txn.set(0, b"w3", word(9), Ttl::Clear).unwrap();
        assert_eq!(txn.increment(0, b"both", 1).unwrap(), 1);
    });
    assert_eq!(clears(&sealed.unwrap()), 1);
    for engine in [&mut engine, &mut peer] {
        assert_eq!(sizes(engine), (2, 310));
        engine.verify().unwrap();
    }
    assert_eq!(engine.digest(), peer.digest());
    // The peer's next increment adds to what is left of its own.
    transact(&mut peer, &mut engine, |txn| {
        assert_eq!(txn.increment(0, b"both", 5).unwrap(), 6);
    });
    assert_eq!(engine.digest(), peer.digest());
    while engine.rest() {}
    assert!(engine.cache_bytes() < full / 2, "{} of {full} bytes", engine.cache_bytes());
    // The store follows, and what was written before does not come back.
    write(&mut engine);
    let (store, digest) = (engine.store().copy(), engine.digest());
    let fresh = Fresh { node: NodeId(1), nonce: 3 };
    let mut again = Engine::open(store, EngineConfig::default(), fresh, NOW).unwrap();
    assert_eq!((sizes(&mut again), again.digest()), ((2, 310), digest));
    again.verify().unwrap();
}

/// A clear that arrives where there is what it has not seen leaves that.
#[test]
fn a_db_that_has_more_than_the_clear_has_seen_is_looked_through() {
    let (mut engine, mut peer) = (open(1), open(2));
    fill(&mut engine, &mut peer, 20);
    let mut tick = peer.tick(NOW);
    let mut txn = tick.txn();
    txn.set(0, b"unseen", word(1), Ttl::Clear).unwrap();
    txn.set_add(0, b"set", &[word(3), word(99)]).unwrap();
    txn.commit();
    let unseen = tick.seal(false).unwrap().unwrap();
    transact(&mut engine, &mut peer, |txn| txn.flush(0).unwrap());
    let mut tick = engine.tick(NOW);
    for commit in commits(&unseen) {
        assert!(tick.apply(commit).unwrap());
    }
    tick.seal(false).unwrap();
    for engine in [&mut engine, &mut peer] {
        assert_eq!(sizes(engine), (2, 20));
        engine.verify().unwrap();
    }
    assert_eq!(engine.digest(), peer.digest());
}

/// A large collection goes as a whole, by DEL and by its deadline, and comes back if it has not gone.
#[test]
fn a_large_collection_goes_as_a_whole() {
    let (mut engine, mut peer) = (open(1), open(2));
    let members: Vec<Bytes> = (0..3_000).map(word).collect();
    let fill = |engine: &mut Engine<MemStore>, peer: &mut Engine<MemStore>| {
        transact(engine, peer, |txn| {
            txn.set_add(0, b"set", &members).unwrap();
            let fields: Vec<_> = members.iter().map(|it| (it.clone(), it.clone())).collect();
            txn.hash_set(0, b"hash", &fields).unwrap();
        });
    };
    fill(&mut engine, &mut peer);
    write(&mut engine);
    let full = engine.digest();
    {
        let mut tick = engine.tick(NOW);
        let mut txn = tick.txn();
        txn.set_add(0, b"set", &[word(5_000)]).unwrap();
        let before = txn.savepoint();
        txn.set_add(0, b"set", &[word(5_001)]).unwrap();
        assert!(txn.delete(0, b"set").unwrap());
        assert_eq!(txn.set_len(0, b"set").unwrap(), 0);
        txn.set_add(0, b"set", &[word(1), word(6_000)]).unwrap();
        assert_eq!(txn.set_len(0, b"set").unwrap(), 2);
        txn.rollback(before);
        assert_eq!(txn.set_len(0, b"set").unwrap(), 3_001);
        for (member, is_there) in [(1, true), (5_000, true), (5_001, false), (6_000, false)] {
            assert_eq!(txn.set_contains(0, b"set", &word(member)).unwrap(), is_there, "{member}");
        }
    }
    engine.verify().unwrap();
    assert_eq!(engine.digest(), full);
    let sealed = transact(&mut engine, &mut peer, |txn| {
        txn.set_add(0, b"set", &[word(5_000)]).unwrap();
        assert!(txn.delete(0, b"set").unwrap());
        txn.set_add(0, b"set", &[word(1)]).unwrap();
        assert!(txn.delete(0, b"hash").unwrap());
    });
    assert_eq!(clears(&sealed.unwrap()), 2);
    for engine in [&mut engine, &mut peer] {
        engine.verify().unwrap();
        assert_eq!(look(engine), Model::from([("set".into(), BTreeSet::from([word(1)]))]));
    }
    assert_eq!(engine.digest(), peer.digest());
    // By its deadline, as a whole too.
    fill(&mut engine, &mut peer);
    transact(&mut engine, &mut peer, |txn| {
        assert!(txn.expire(0, b"set", Some(Millis(NOW.0 + 10))).unwrap());
    });
    let mut tick = engine.tick(Millis(NOW.0 + 20));
    tick.expire_due(10).unwrap();
    let sealed = tick.seal(false).unwrap().unwrap();
    assert_eq!(clears(&sealed), 1);
    let mut tick = peer.tick(Millis(NOW.0 + 20));
    for commit in commits(&sealed) {
        assert!(tick.apply(commit).unwrap());
    }
    tick.seal(false).unwrap();
    engine.verify().unwrap();
    peer.verify().unwrap();
    assert_eq!(engine.digest(), peer.digest());
    write(&mut engine);
    let fresh = Fresh { node: NodeId(1), nonce: 3 };
    let store = engine.store().copy();
    let mut again = Engine::open(store, EngineConfig::default(), fresh, NOW).unwrap();
    again.verify().unwrap();
    assert_eq!((sizes(&mut again), again.digest()), ((1, 0), engine.digest()));
}

fn bind(txn: &mut Txn<'_, MemStore>, target: &str, operator: &str, sources: &[&str], text: &str) {
    let sources: Vec<Bytes> =
        sources.iter().map(|it| Bytes::copy_from_slice(it.as_bytes())).collect();
    txn.bind(0, target.as_bytes(), operator, &sources, text).unwrap();
}

/// What is derived from a large collection, and from nothing else, goes with it; what has more sources keeps
/// what comes from those; and all of it comes back if the collection has not gone.
#[test]
fn views_go_with_what_they_are_derived_from() {
    for alone in [true, false] {
        let (mut engine, mut peer) = (open(1), open(2));
        let members: Vec<Bytes> = (0..3_000).map(|it| Bytes::from(it.to_string())).collect();
        let numbers = [Bytes::from_static(b"7"), Bytes::from_static(b"9999")];
        transact(&mut engine, &mut peer, |txn| {
            txn.set_add(0, b"set", &members).unwrap();
            txn.set_add(0, b"more", &numbers).unwrap();
            bind(txn, "half", "MAP", &["set"], "x / 2");
            bind(txn, "even", "FILTER", &["set"], "x % 2 == 0");
            bind(txn, "both", "UNION", &["half", "even"], "");
            if !alone {
                bind(txn, "all", "UNION", &["both", "more"], "");
            }
        });
        write(&mut engine);
        let lens = |txn: &mut Txn<'_, MemStore>| {
            ["set", "half", "even", "both", "all"]
                .map(|key| txn.set_len(0, key.as_bytes()).unwrap())
        };
        let all = if alone { 0 } else { 2_251 };
        let full = [3_000, 1_500, 1_500, 2_250, all];
        let left = [0, 0, 0, 0, if alone { 0 } else { 2 }];
        {
            let mut tick = engine.tick(NOW);
            let mut txn = tick.txn();
            assert_eq!(lens(&mut txn), full);
            for clear in [true, false] {
                let before = txn.savepoint();
                match clear {
                    true => assert!(txn.delete(0, b"set").unwrap()),
                    false => txn.flush(0).unwrap(),
                }
                assert_eq!(lens(&mut txn), if clear { left } else { [0; 5] });
                txn.set_add(0, b"set", &[Bytes::from_static(b"10")]).unwrap();
                assert_eq!(txn.set_len(0, b"half").unwrap(), u64::from(clear));
                txn.rollback(before);
                assert_eq!(lens(&mut txn), full);
            }
        }
        engine.verify().unwrap();
        let sealed = transact(&mut engine, &mut peer, |txn| {
            assert!(txn.delete(0, b"set").unwrap());
            assert_eq!(lens(txn), left);
        });
        assert_eq!(clears(&sealed.unwrap()), 1);
        transact(&mut peer, &mut engine, |txn| {
            txn.set_add(0, b"set", &members[..10]).unwrap();
        });
        for node in [&mut engine, &mut peer] {
            node.verify().unwrap();
            let mut tick = node.tick(NOW);
            assert_eq!(lens(&mut tick.txn())[..4], [10, 5, 5, 7]);
        }
        write(&mut engine);
        while engine.rest() {}
        let fresh = Fresh { node: NodeId(1), nonce: 3 };
        let store = engine.store().copy();
        let mut again = Engine::open(store, EngineConfig::default(), fresh, NOW).unwrap();
        again.verify().unwrap();
        // With the db the bindings go as well.
        transact(&mut engine, &mut peer, |txn| txn.flush(0).unwrap());
        for node in [&mut engine, &mut peer] {
            node.verify().unwrap();
            assert_eq!((sizes(node), node.active_bindings()), ((0, 0), 0));
        }
        assert_eq!(engine.digest(), peer.digest());
        write(&mut engine);
        let store = engine.store().copy();
        let mut again = Engine::open(store, EngineConfig::default(), fresh, NOW).unwrap();
        again.verify().unwrap();
        assert_eq!((sizes(&mut again), again.active_bindings()), ((0, 0), 0));
    }
}
