//! What the transactions of a tick become: one commit, whose effects are net.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

use bytes::Bytes;
use lattis_engine::causal::{Millis, NodeId};
use lattis_engine::commit::{Commit, Delta, Effect, EncodedCommit, LogEntry};
use lattis_engine::crdt::set::SET;
use lattis_engine::crdt::string::STRING;
use lattis_engine::name::Slot;
use lattis_engine::store::MemStore;
use lattis_engine::{Engine, EngineConfig, Fresh, OpError, Sealed, Tick, Ttl};

const NOW: Millis = Millis(1_000);

fn open_with(node: u64, config: EngineConfig) -> Engine<MemStore> {
    let fresh = Fresh { node: NodeId(node), nonce: node };
    Engine::open(MemStore::new(), config, fresh, NOW).unwrap()
}

fn open(node: u64) -> Engine<MemStore> {
    open_with(node, EngineConfig::default())
}

fn commits(sealed: &Sealed) -> Vec<&EncodedCommit> {
    fn commit(entry: &LogEntry) -> &EncodedCommit {
        match entry {
            LogEntry::Commit(commit) => commit,
            LogEntry::Barrier(_) => panic!("a barrier"),
        }
    }
    sealed.entries.iter().map(commit).collect()
}

/// Slot, subkey and delta of each effect.
fn effects(commit: &EncodedCommit) -> Vec<(Slot, Bytes, Delta)> {
    let effect = |effect| match effect {
        Effect::Row(effect) => (effect.row.slot, effect.row.subkey, effect.delta),
        Effect::Clear(_) => panic!("a clear"),
    };
    Commit::decode(commit).unwrap().effects.into_iter().map(effect).collect()
}

fn add(tick: &mut Tick<'_, MemStore>, key: &str, member: &str) {
    let mut txn = tick.txn();
    txn.set_add(0, key.as_bytes(), &[Bytes::copy_from_slice(member.as_bytes())]).unwrap();
    txn.commit();
}

/// A commit of node 2.
fn another_nodes() -> Sealed {
    let mut other = open(2);
    let mut tick = other.tick(NOW);
    add(&mut tick, "s", "theirs");
    tick.seal(true).unwrap().unwrap()
}

#[test]
fn each_row_has_one_dot() {
    let mut engine = open(1);
    let mut tick = engine.tick(NOW);
    for member in ["a", "b", "a", "c"] {
        add(&mut tick, "s", member);
    }
    for by in [3, 4] {
        let mut txn = tick.txn();
        txn.increment(0, b"n", by).unwrap();
        txn.commit();
    }
    // What fails or is dropped takes its own changes back and no others.
    let mut txn = tick.txn();
    txn.increment(0, b"n", 100).unwrap();
    txn.set(0, b"gone", "1".into(), Ttl::Clear).unwrap();
    drop(txn);
    let mut txn = tick.txn();
    txn.set_remove(0, b"s", &["c".into()]).unwrap();
    txn.commit();
    let sealed = tick.seal(true).unwrap().unwrap();
    let [commit] = commits(&sealed)[..] else { panic!("{sealed:?}") };
    let effects = effects(commit);
    let rows: Vec<(Slot, &[u8])> =
        effects.iter().map(|(slot, name, _)| (*slot, &name[..])).collect();
    let birth = &[SET.0][..];
    assert_eq!(
        rows,
        [(SET, &b"a"[..]), (Slot::BIRTH, birth), (SET, b"b"), (SET, b"c"), (STRING, b""),]
    );
    assert_eq!(effects[3].2, Delta::default(), "added and removed");
    assert_eq!(effects[4].2.add.unwrap().sum, 7);

    let mut other = open(2);
    let mut tick = other.tick(NOW);
    assert!(tick.apply(commit).unwrap());
    tick.seal(true).unwrap();
    assert_eq!(engine.digest(), other.digest());
    engine.verify().unwrap();
    other.verify().unwrap();
}

#[test]
fn a_commit_of_another_node_comes_between() {
    let (mut engine, theirs) = (open(1), another_nodes());
    let mut tick = engine.tick(NOW);
    add(&mut tick, "s", "a");
    tick.apply(commits(&theirs)[0]).unwrap();
    add(&mut tick, "s", "a");
    let sealed = tick.seal(true).unwrap().unwrap();
    let [one, two, three] = commits(&sealed)[..] else { panic!("{sealed:?}") };
    assert_eq!((one.origin, two.origin.node), (three.origin, NodeId(2)));
    assert_eq!(three.first, one.last + 1);
    assert_eq!(effects(three)[0].2.replaces.as_slice(), [one.first_dot()]);
    // The later one has seen theirs.
    assert_eq!(effects(three)[1].2.replaces.len(), 2);
}

#[test]
fn a_tick_that_fails_takes_all_of_them_back() {
    let (mut engine, theirs) = (open(1), another_nodes());
    let mut tick = engine.tick(NOW);
    add(&mut tick, "s", "a");
    tick.seal(true).unwrap();
    let (digest, vector) = (engine.digest(), engine.vector().clone());
    let mut tick = engine.tick(NOW);
    add(&mut tick, "s", "a");
    let mut txn = tick.txn();
    txn.flush(0).unwrap();
    txn.set_add(0, b"s", &["a".into(), "b".into()]).unwrap();
    txn.commit();
    tick.apply(commits(&theirs)[0]).unwrap();
    add(&mut tick, "s", "theirs");
    add(&mut tick, "s", "a");
    drop(tick);
    assert_eq!((engine.digest(), engine.vector()), (digest, &vector));
    engine.verify().unwrap();
    let mut tick = engine.tick(NOW);
    assert!(tick.txn().set_contains(0, b"s", b"a").unwrap());
    assert_eq!(tick.txn().set_len(0, b"s").unwrap(), 1);
}

#[test]
fn large_commits_are_closed_between_transactions() {
    let mut engine = open(1);
    let mut tick = engine.tick(NOW);
    for member in 0..10_000 {
        add(&mut tick, "s", &member.to_string());
    }
    let sealed = tick.seal(true).unwrap().unwrap();
    let lens: Vec<u64> = commits(&sealed).iter().map(|it| it.last - it.first + 1).collect();
    // Each has the birth once.
    assert_eq!((lens.iter().sum::<u64>(), lens.len()), (10_003, 3));
    assert!(lens.iter().all(|len| *len <= 4_097), "{lens:?}");
    engine.verify().unwrap();
}

#[test]
fn a_transaction_that_no_peer_would_take_is_refused() {
    let mut engine = open_with(1, EngineConfig { max_effects: 10, ..EngineConfig::default() });
    let members = |count: u8| (0..count).map(|n| Bytes::from(vec![n])).collect::<Vec<_>>();
    let mut tick = engine.tick(NOW);
    let mut txn = tick.txn();
    // Ten members, and the birth.
    assert_eq!(txn.set_add(0, b"s", &members(10)), Err(OpError::TooLarge(10)));
    drop(txn);
    let mut txn = tick.txn();
    assert_eq!(txn.set_len(0, b"s"), Ok(0));
    assert_eq!(txn.set_add(0, b"s", &members(9)), Ok(9));
    txn.commit();
    // The next one begins another commit only if that is full.
    assert_eq!(tick.txn().flush(0), Err(OpError::TooLarge(10)));
    let sealed = tick.seal(true).unwrap().unwrap();
    assert_eq!(commits(&sealed)[0].last, 10);
    engine.verify().unwrap();
}

/// Bytes count as effects do; what was undone does not, nor what was there before.
#[test]
fn a_transaction_that_writes_too_much_is_refused() {
    let limit = 10_000;
    let mut engine = open_with(1, EngineConfig { max_bytes: limit, ..EngineConfig::default() });
    let value = |len: usize| Bytes::from(vec![b'v'; len]);
    let mut tick = engine.tick(NOW);
    assert_eq!(tick.bytes(), 0);
    for key in [b"a", b"b", b"c"] {
        let mut txn = tick.txn();
        txn.set(0, key, value(9_000), Ttl::Clear).unwrap();
        txn.commit();
    }
    assert!((27_000..28_000).contains(&tick.bytes()), "{}", tick.bytes());
    let mut txn = tick.txn();
    let refused = OpError::TooManyBytes(limit);
    assert_eq!(txn.set(0, b"d", value(10_001), Ttl::Clear), Err(refused.clone()));
    for _ in 0..5 {
        let savepoint = txn.savepoint();
        assert_eq!(txn.append(0, b"e", &value(9_000)), Ok(9_000));
        txn.rollback(savepoint);
    }
    txn.set(0, b"d", value(4_000), Ttl::Clear).unwrap();
    txn.set(0, b"f", value(4_000), Ttl::Clear).unwrap();
    assert_eq!(
        txn.append(0, b"a", &value(2_000)),
        Err(refused.clone()),
        "11,000 bytes as one value"
    );
    let field = (Bytes::from_static(b"field"), value(4_000));
    assert_eq!(txn.hash_set(0, b"h", &[field]), Err(refused));
    drop(txn);
    let mut txn = tick.txn();
    assert_eq!(
        (txn.get(0, b"d"), txn.get(0, b"f"), txn.hash_len(0, b"h")),
        (Ok(None), Ok(None), Ok(0))
    );
    drop(txn);
    tick.seal(true).unwrap().unwrap();
    engine.verify().unwrap();
}

#[test]
fn savepoints_end_with_their_transaction() {
    let mut engine = open(1);
    let mut tick = engine.tick(NOW);
    let mut txn = tick.txn();
    let begin = txn.savepoint();
    txn.set(0, b"k", "1".into(), Ttl::Clear).unwrap();
    txn.commit();
    let mut txn = tick.txn();
    txn.set(0, b"k", "2".into(), Ttl::Clear).unwrap();
    txn.rollback(begin);
    assert_eq!(txn.get(0, b"k").unwrap().as_deref(), Some(&b"1"[..]));
}

/// A transaction that clears its db again and again looks each time at what came since, and not at all that
/// it has ever touched.
#[test]
fn clearing_again_and_again_is_linear() {
    let mut engine = open(1);
    let mut tick = engine.tick(Millis(1_000));
    let mut txn = tick.txn();
    for number in 0..20_000 {
        let key = format!("k{number}");
        txn.set(0, key.as_bytes(), Bytes::from_static(b"v"), Ttl::Clear).unwrap();
        txn.set_add(0, b"s", &[Bytes::from(key)]).unwrap();
        txn.flush(0).unwrap();
        assert_eq!(txn.db_size(0).unwrap(), 0);
    }
    txn.set_add(0, b"s", &[Bytes::from_static(b"last")]).unwrap();
    txn.flush(1).unwrap();
    txn.set(0, b"k", Bytes::from_static(b"v"), Ttl::Clear).unwrap();
    let before = txn.savepoint();
    txn.flush(0).unwrap();
    assert_eq!(txn.db_size(0).unwrap(), 0);
    txn.rollback(before);
    assert_eq!(txn.db_size(0).unwrap(), 2);
    txn.commit();
    // Others of the same tick, on rows that were touched before the clear, too.
    for _ in 0..2 {
        let mut txn = tick.txn();
        txn.set(0, b"k1", Bytes::from_static(b"again"), Ttl::Clear).unwrap();
        txn.commit();
        let mut txn = tick.txn();
        assert!(txn.db_size(0).unwrap() > 0);
        txn.flush(0).unwrap();
        assert_eq!(txn.db_size(0).unwrap(), 0);
        txn.commit();
    }
    tick.seal(false).unwrap();
    engine.verify().unwrap();
}
