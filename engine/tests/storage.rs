//! What is kept on disk, over both stores by the same bodies: eviction, restarts, failures, tampering,
//! the trimmed log; and the stores against each other.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use common::{Rng, bytes};
use lattis_engine::causal::{LogPosition, Millis, NodeId, VersionVector};
use lattis_engine::codec::{Reader, Writer};
use lattis_engine::commit::LogEntry;
use lattis_engine::crdt::TYPES;
use lattis_engine::store::{Batch, Family, MemStore, Read, Run, Store, StoreError, keys};
use lattis_engine::{
    Engine, EngineConfig, Fresh, OpenError, Sealed, Staged, StateReader, Ttl, Txn,
};

/// A store that can be let go of and opened again.
trait Place {
    type Store: Store;
    fn open(&self) -> Self::Store;
}

/// The same store, again and again.
struct InMemory(MemStore);

impl Place for InMemory {
    type Store = MemStore;

    fn open(&self) -> MemStore {
        self.0.clone()
    }
}

#[cfg(feature = "rocks")]
mod disk {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use lattis_engine::store::{RocksOptions, RocksStore};

    /// A directory that goes when the test ends.
    pub struct OnDisk(PathBuf);

    impl OnDisk {
        pub fn new() -> OnDisk {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("lattis-storage-{}-{number}", std::process::id());
            OnDisk(std::env::temp_dir().join(name))
        }
    }

    impl OnDisk {
        /// The files of the rows' store, oldest first.
        pub fn runs(&self) -> Vec<PathBuf> {
            let rows = std::fs::read_dir(self.0.join("rows")).unwrap();
            let mut runs: Vec<PathBuf> = rows.map(|entry| entry.unwrap().path()).collect();
            runs.retain(|file| file.extension().is_some_and(|extension| extension == "sst"));
            runs.sort();
            runs
        }
    }

    impl Drop for OnDisk {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    impl super::Place for OnDisk {
        type Store = RocksStore;

        fn open(&self) -> RocksStore {
            RocksStore::open(&self.0, &RocksOptions::default()).unwrap()
        }
    }
}

/// Makes a test of a body for each store.
macro_rules! on_both_stores {
    ($($body:ident),* $(,)?) => {$(
        mod $body {
            #[test]
            fn in_memory() {
                super::bodies::$body(&super::InMemory(super::MemStore::new()));
            }

            #[cfg(feature = "rocks")]
            #[test]
            fn on_disk() {
                super::bodies::$body(&super::disk::OnDisk::new());
            }
        }
    )*};
}

on_both_stores!(
    ten_times_the_cache,
    each_start_opens_an_incarnation,
    a_log_that_lacks_its_last_row_is_refused,
    a_vector_ahead_of_the_log_is_refused,
    data_without_identity_is_refused,
    a_log_without_identity_is_refused,
    the_log_brings_the_rows_up_to_date,
    rows_that_lack_a_joined_state_are_refused,
    a_trimmed_log_begins_with_a_barrier,
    a_log_is_held_within_bounds,
    the_log_brings_another_node_up_to_date,
    large_values_are_what_they_were,
);

/// A process that is killed while RocksDB takes a run over leaves it under both names: as a file of the store
/// and as the one that runs are written to.
#[cfg(feature = "rocks")]
#[test]
fn a_run_that_was_left_under_two_names_stays_what_it_is() {
    let place = disk::OnDisk::new();
    let mut engine = open(place.open());
    set(&mut engine, "k", "1");
    engine.flush().unwrap();
    drop(engine);
    let file = place.runs().pop().unwrap();
    std::fs::hard_link(&file, file.with_file_name("run.sst")).unwrap();
    let mut engine = open(place.open());
    set(&mut engine, "another", "2");
    engine.flush().unwrap();
    drop(engine);
    let mut engine = open(place.open());
    assert_eq!(run(&mut engine, |txn| txn.get(0, b"k").unwrap()), Some(bytes("1")));
    engine.verify().unwrap();
}

/// A view's row that cannot be read is found when its source has changed already: the view is computed anew.
#[test]
fn a_view_that_cannot_be_read_is_computed_anew() {
    let store = MemStore::new();
    let mut engine = open(store.clone());
    run(&mut engine, |txn| {
        txn.set_add(0, b"s", &[bytes("1"), bytes("2")]).unwrap();
        txn.bind(0, b"view", "MAP", &[bytes("s")], "x * 2").unwrap();
    });
    engine.flush().unwrap();
    let is_four = |(key, _): &(Vec<u8>, Vec<u8>)| key.ends_with(b"4");
    let element = rows(&store, Family::Derived).into_iter().find(is_four).unwrap().0;
    put_row(&store, Family::Derived, &element, Some(b"nonsense"));
    let mut engine = try_open(store, &EngineConfig::default(), 2).unwrap();
    run(&mut engine, |txn| {
        assert!(txn.set_contains(0, b"view", b"4").is_err());
        assert_eq!(txn.set_remove(0, b"s", &[bytes("2")]).unwrap(), 1);
        assert!(!txn.set_contains(0, b"view", b"4").unwrap());
    });
    engine.verify().unwrap();
    assert_eq!(engine.lost_rows(), 0);
}

fn try_open<S: Store>(store: S, config: &EngineConfig, nonce: u64) -> Result<Engine<S>, OpenError> {
    Engine::open(store, config.clone(), Fresh { node: NodeId(1), nonce }, Millis(1_000))
}

fn open<S: Store>(store: S) -> Engine<S> {
    try_open(store, &EngineConfig::default(), 1).unwrap()
}

fn run<S: Store, T>(engine: &mut Engine<S>, body: impl FnOnce(&mut Txn<'_, S>) -> T) -> T {
    let mut tick = engine.tick(Millis(1_000));
    let mut txn = tick.txn();
    let result = body(&mut txn);
    txn.commit();
    tick.seal(false).unwrap();
    if engine.is_behind() {
        engine.flush().unwrap();
    }
    result
}

fn set<S: Store>(engine: &mut Engine<S>, key: &str, value: &str) {
    run(engine, |txn| txn.set(0, key.as_bytes(), bytes(value), Ttl::Clear).unwrap());
}

fn refusal<S: Store>(store: S) -> String {
    match try_open(store, &EngineConfig::default(), 9) {
        Err(OpenError::Damaged(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a damaged store was opened"),
    }
}

fn change<S: Store>(store: &S, change: impl FnOnce(&mut S::Batch)) {
    let mut batch = store.batch();
    change(&mut batch);
    store.write(batch, true).unwrap();
}

fn put_row<S: Store>(store: &S, family: Family, key: &[u8], value: Option<&[u8]>) {
    let mut run = Run::default();
    match value {
        Some(value) => run.put(family, key, value),
        None => run.delete(family, key),
    }
    store.write_run(&mut run).unwrap();
}

fn rows<R: Read>(store: &R, family: Family) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    store
        .scan(family, &[], &[], &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

fn everything<R: Read>(store: &R) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
    Family::ALL.into_iter().map(|family| rows(store, family)).collect()
}

/// How many pieces of large values the store's files hold, however old: only for those on disk.
#[cfg(feature = "rocks")]
#[test]
fn the_pieces_of_a_large_value_go_with_it() {
    let place = disk::OnDisk::new();
    let store = place.open();
    let large = vec![7; 5 << 20];
    put_row(&store, Family::Data, b"one", Some(&large));
    put_row(&store, Family::Data, b"two", Some(&large[1..]));
    assert_eq!(store.pieces().unwrap(), 10);
    put_row(&store, Family::Data, b"one", Some(&large[..2 << 20]));
    assert_eq!(store.pieces().unwrap(), 7);
    drop(store);
    let store = place.open();
    put_row(&store, Family::Data, b"two", Some(b"small"));
    assert_eq!(store.pieces().unwrap(), 2);
    put_row(&store, Family::Data, b"one", None);
    assert_eq!(store.pieces().unwrap(), 0);
    assert_eq!(rows(&store, Family::Data), [(b"two".to_vec(), b"small".to_vec())]);
}

mod bodies {
    use super::*;

    /// Values larger than a piece: replaced, removed, evicted, read from snapshots, from the log and after a
    /// start.
    pub fn large_values_are_what_they_were(place: &impl Place) {
        let large = |seed: usize, len: usize| {
            Bytes::from((0..len).map(|n| (n / 1000 * seed) as u8).collect::<Vec<_>>())
        };
        let config = EngineConfig { cache_bytes: 4 << 20, ..EngineConfig::default() };
        let mut engine = try_open(place.open(), &config, 1).unwrap();
        let (first, second, field) =
            (large(3, 9 << 20), large(5, (3 << 20) + 7), large(7, (1 << 20) + 1));
        let check = |engine: &mut Engine<_>, string: &Bytes, field: Option<&Bytes>| {
            run(engine, |txn| {
                assert!(txn.get(0, b"string").unwrap().as_ref() == Some(string));
                assert!(txn.hash_get(0, b"hash", b"field").unwrap().as_ref() == field);
            });
            engine.verify().unwrap();
        };
        run(&mut engine, |txn| {
            txn.set(0, b"string", first.clone(), Ttl::Clear).unwrap();
            txn.hash_set(0, b"hash", &[(bytes("field"), field.clone())]).unwrap();
        });
        check(&mut engine, &first, Some(&field));
        let old = engine.snapshot().unwrap();
        check(&mut engine, &first, Some(&field));
        run(&mut engine, |txn| txn.set(0, b"string", second.clone(), Ttl::Clear).unwrap());
        run(&mut engine, |txn| txn.delete(0, b"hash").unwrap());
        check(&mut engine, &second, None);
        let lens = |read: &dyn Fn(Family) -> Vec<(Vec<u8>, Vec<u8>)>| -> Vec<usize> {
            [Family::Keys, Family::Data]
                .map(|family| read(family).iter().map(|(_, value)| value.len() >> 20).sum())
                .to_vec()
        };
        assert_eq!(lens(&|family| rows(&old, family)), [9, 1]);
        let _ = engine.snapshot().unwrap();
        assert_eq!(lens(&|family| rows(engine.store(), family)), [3, 0]);
        // What is not written before the end, the log brings back.
        run(&mut engine, |txn| txn.set(0, b"string", first.clone(), Ttl::Clear).unwrap());
        let (digest, log) = (engine.digest(), engine.log());
        let chunk = log.read(LogPosition(0), usize::MAX, None).unwrap();
        drop((engine, old, log));
        let mut engine = try_open(place.open(), &config, 2).unwrap();
        assert_eq!(engine.digest(), digest);
        check(&mut engine, &first, None);
        assert!(engine.log().read(LogPosition(0), usize::MAX, None).unwrap() == chunk);
        let sizes = chunk.entries.iter().map(|entry| match entry {
            LogEntry::Commit(commit) => commit.body.len() >> 20,
            LogEntry::Barrier(_) => 0,
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [10, 3, 0, 9]);
    }

    const CACHE: usize = 64 << 10;

    /// What the data should be.
    #[derive(Default)]
    struct Model {
        strings: BTreeMap<usize, usize>,
        members: BTreeMap<usize, BTreeSet<Bytes>>,
        fields: BTreeMap<usize, BTreeMap<Bytes, Bytes>>,
    }

    /// A value of about 500 bytes that tells which one it is.
    fn value(number: usize) -> Bytes {
        bytes(&format!("{number:0>500}"))
    }

    fn string_key(at: usize) -> Vec<u8> {
        format!("string{at}").into_bytes()
    }

    fn set_key(at: usize) -> Vec<u8> {
        format!("set{at}").into_bytes()
    }

    fn hash_key(at: usize) -> Vec<u8> {
        format!("hash{at}").into_bytes()
    }

    fn operation<S: Store>(txn: &mut Txn<'_, S>, model: &mut Model, rng: &mut Rng) {
        let (at, small) = (rng.below(2_000), rng.below(4));
        let name = bytes(&rng.below(2_000).to_string());
        match rng.below(10) {
            0..3 => {
                let number = rng.below(1 << 20);
                txn.set(0, &string_key(at), value(number), Ttl::Clear).unwrap();
                model.strings.insert(at, number);
            }
            3 => {
                let there = txn.delete(0, &string_key(at)).unwrap();
                assert_eq!(there, model.strings.remove(&at).is_some());
            }
            4..6 => {
                let added = txn.set_add(0, &set_key(small), std::slice::from_ref(&name)).unwrap();
                assert_eq!(added == 1, model.members.entry(small).or_default().insert(name));
            }
            6 => {
                let key = set_key(small);
                let removed = txn.set_remove(0, &key, std::slice::from_ref(&name)).unwrap();
                assert_eq!(removed == 1, model.members.entry(small).or_default().remove(&name));
            }
            7..9 => {
                let pair = [(name.clone(), value(at))];
                txn.hash_set(0, &hash_key(small), &pair).unwrap();
                model.fields.entry(small).or_default().insert(name, value(at));
            }
            _ => {
                let found = txn.hash_get(0, &hash_key(small), &name).unwrap();
                let fields = model.fields.get(&small);
                assert_eq!(found.as_ref(), fields.and_then(|fields| fields.get(&name)));
                let got = txn.get(0, &string_key(at)).unwrap();
                assert_eq!(got, model.strings.get(&at).map(|number| value(*number)));
            }
        }
    }

    fn compare<S: Store>(engine: &mut Engine<S>, model: &Model, most: usize) {
        for at in 0..2_000 {
            let got = run(engine, |txn| txn.get(0, &string_key(at)).unwrap());
            assert_eq!(got, model.strings.get(&at).map(|number| value(*number)));
            assert!(engine.cache_bytes() <= most);
        }
        for at in 0..4 {
            let mut members = BTreeSet::new();
            let mut fields = BTreeMap::new();
            run(engine, |txn| {
                txn.set_members(0, &set_key(at), &mut |member| {
                    members.insert(Bytes::copy_from_slice(member));
                    ControlFlow::Continue(())
                })
                .unwrap();
                txn.hash_fields(0, &hash_key(at), &mut |field, value| {
                    fields.insert(Bytes::copy_from_slice(field), Bytes::copy_from_slice(value));
                    ControlFlow::Continue(())
                })
                .unwrap();
                let counted = txn.set_len(0, &set_key(at)).unwrap() as usize;
                assert_eq!(counted, members.len());
            });
            assert_eq!(members, model.members.get(&at).cloned().unwrap_or_default());
            assert_eq!(fields, model.fields.get(&at).cloned().unwrap_or_default());
        }
        engine.verify().unwrap();
    }

    pub fn ten_times_the_cache<P: Place>(place: &P) {
        let config = EngineConfig { cache_bytes: CACHE, ..EngineConfig::default() };
        let mut model = Model::default();
        let mut rng = Rng(5);
        for life in 0..2 {
            let mut engine = try_open(place.open(), &config, life).unwrap();
            compare(&mut engine, &model, CACHE * 9 / 8);
            for _ in 0..600 {
                run(&mut engine, |txn| {
                    for _ in 0..1 + rng.below(20) {
                        operation(txn, &mut model, &mut rng);
                    }
                });
                let held = engine.cache_bytes();
                assert!(held <= CACHE * 9 / 8, "{held} bytes are cached");
            }
            compare(&mut engine, &model, CACHE * 9 / 8);
            engine.close().unwrap();
        }
        let bytes: usize =
            500 * (model.strings.len() + model.fields.values().map(BTreeMap::len).sum::<usize>());
        assert!(bytes > 10 * CACHE, "only {bytes} bytes");
    }

    pub fn each_start_opens_an_incarnation<P: Place>(place: &P) {
        let mut before = None;
        for life in 1..5u32 {
            let mut engine =
                try_open(place.open(), &EngineConfig::default(), u64::from(life)).unwrap();
            assert_eq!(engine.origin().incarnation, life);
            assert_eq!(engine.origin().nonce, u64::from(life));
            assert_eq!(engine.origin().node, NodeId(1));
            if let Some((vector, position, clock, dump)) = before {
                assert_eq!(engine.vector(), &vector);
                assert_eq!(engine.position(), position);
                assert!(engine.clock() >= clock);
                let now = run(&mut engine, |txn| txn.get(0, b"k").unwrap());
                assert_eq!(now, dump);
            }
            set(&mut engine, "k", &life.to_string());
            engine.verify().unwrap();
            let vector = engine.vector().clone();
            assert_eq!(vector.len(), life as usize);
            let dump = run(&mut engine, |txn| txn.get(0, b"k").unwrap());
            before = Some((vector, engine.position(), engine.clock(), dump));
            engine.close().unwrap();
        }
    }

    pub fn a_log_that_lacks_its_last_row_is_refused<P: Place>(place: &P) {
        let mut engine = open(place.open());
        (0..5).for_each(|n| set(&mut engine, "k", &n.to_string()));
        engine.close().unwrap();
        let store = place.open();
        let (last, _) = rows(&store, Family::Log).pop().unwrap();
        change(&store, |batch| batch.delete(Family::Log, &last));
        let before = everything(&store);
        let why = refusal(store.clone());
        assert_eq!(
            why,
            "the rows are those of log position 5, but the log ends at 4: its end is lost"
        );
        assert_eq!(everything(&store), before, "a refused store was changed");
        // A row from the middle is a gap.
        let (first, _) = rows(&store, Family::Log).remove(1);
        change(&store, |batch| batch.delete(Family::Log, &first));
        let error = try_open(store, &EngineConfig::default(), 9).map(drop).unwrap_err();
        assert_eq!(error, OpenError::Store(StoreError::Corrupt("the log has a gap".into())));
    }

    pub fn a_vector_ahead_of_the_log_is_refused<P: Place>(place: &P) {
        let mut engine = open(place.open());
        set(&mut engine, "k", "1");
        engine.close().unwrap();
        let store = place.open();
        let state = store.get(Family::System, keys::STATE).unwrap().unwrap();
        // The record ends with the seq of the only origin.
        let mut ahead = state.to_vec();
        *ahead.last_mut().unwrap() += 1;
        put_row(&store, Family::System, keys::STATE, Some(&ahead));
        assert_eq!(refusal(store), "its rows and its log differ at position 1");
    }

    pub fn data_without_identity_is_refused<P: Place>(place: &P) {
        let mut engine = open(place.open());
        set(&mut engine, "k", "1");
        engine.close().unwrap();
        let store = place.open();
        change(&store, |batch| batch.delete(Family::Node, keys::IDENTITY));
        assert_eq!(refusal(store.clone()), "its rows are there, but not who the node is");
        put_row(&store, Family::System, keys::STATE, None);
        assert_eq!(
            refusal(store.clone()),
            "its rows are there, but not what they are the state of"
        );
        // Not even if nothing is left but the data.
        for (key, _) in rows(&store, Family::Log) {
            change(&store, |batch| batch.delete(Family::Log, &key));
        }
        assert_eq!(refusal(store), "its rows are there, but not what they are the state of");
    }

    pub fn a_log_without_identity_is_refused<P: Place>(place: &P) {
        let mut engine = open(place.open());
        set(&mut engine, "k", "1");
        drop(engine);
        let store = place.open();
        change(&store, |batch| batch.delete(Family::Node, keys::IDENTITY));
        assert_eq!(refusal(store), "its log is there, but not who the node is");
    }

    /// A joined state is in the rows alone.
    pub fn rows_that_lack_a_joined_state_are_refused<P: Place>(place: &P) {
        let mut engine = open(place.open());
        set(&mut engine, "k", "1");
        let fresh = Fresh { node: NodeId(2), nonce: 5 };
        let config = EngineConfig::default();
        let mut other = Engine::open(MemStore::new(), config, fresh, Millis(1_000)).unwrap();
        run(&mut other, |txn| txn.set(0, b"theirs", bytes("2"), Ttl::Clear).unwrap());
        let mut reader = StateReader::new(other.snapshot().unwrap()).unwrap();
        let mut staged = Staged::new(&TYPES, 1 << 20);
        staged.add(&reader.next_chunk(1 << 20).unwrap().0).unwrap();
        let mut tick = engine.tick(Millis(1_000));
        tick.join(&staged).unwrap();
        tick.seal(false).unwrap();
        let digest = engine.digest();
        let joined = engine.position();
        drop(engine);
        // It is there without a flush of its own.
        let mut engine = open(place.open());
        assert_eq!(engine.digest(), digest);
        set(&mut engine, "k", "2");
        engine.close().unwrap();
        let store = place.open();
        for family in [Family::System, Family::Keys] {
            for (key, _) in rows(&store, family) {
                put_row(&store, family, &key, None);
            }
        }
        let before = everything(&store);
        assert_eq!(refusal(store.clone()), "the rows lack a state that was joined");
        assert_eq!(everything(&store), before, "a refused store was changed");
        // As the last row it is a join that did not come to its end.
        for (key, _) in rows(&store, Family::Log) {
            if keys::split_log(&key).unwrap() > joined {
                change(&store, |batch| batch.delete(Family::Log, &key));
            }
        }
        let mut engine = try_open(store, &EngineConfig::default(), 9).unwrap();
        assert_eq!(engine.position(), LogPosition(joined.0 - 1));
        assert_eq!(run(&mut engine, |txn| txn.get(0, b"k").unwrap()), Some(bytes("1")));
        assert_eq!(run(&mut engine, |txn| txn.get(0, b"theirs").unwrap()), None);
        engine.verify().unwrap();
    }

    pub fn the_log_brings_the_rows_up_to_date<P: Place>(place: &P) {
        let mut rng = Rng(17);
        let mut model = Model::default();
        let mut before = None;
        for life in 0..8 {
            let mut engine = try_open(place.open(), &EngineConfig::default(), life).unwrap();
            compare(&mut engine, &model, usize::MAX);
            let seen = (engine.digest(), engine.vector().clone(), engine.position());
            assert_eq!(before.as_ref().unwrap_or(&seen), &seen);
            for _ in 0..60 {
                run(&mut engine, |txn| {
                    for _ in 0..1 + rng.below(10) {
                        operation(txn, &mut model, &mut rng);
                    }
                });
                // Of some generations the engine never learns what became of them.
                if rng.chance(5)
                    && let Some(mut generation) = engine.freeze()
                {
                    let result = generation.write(engine.store());
                    if rng.chance(50) {
                        engine.written(generation, &result);
                    }
                }
            }
            compare(&mut engine, &model, usize::MAX);
            before = Some((engine.digest(), engine.vector().clone(), engine.position()));
        }
    }

    pub fn a_log_is_held_within_bounds<P: Place>(place: &P) {
        let config = EngineConfig { log_max_bytes: 100_000, ..EngineConfig::default() };
        let mut engine = try_open(place.open(), &config, 1).unwrap();
        let fill = |engine: &mut Engine<P::Store>, writes: u64| {
            (0..writes).for_each(|n| set(engine, "k", &format!("{n:0>200}")));
            engine.log_bytes()
        };
        fill(&mut engine, 100);
        let held = engine.position();
        engine.hold_log(Some(held));
        assert!((200_000..300_000).contains(&fill(&mut engine, 1_000)));
        assert!(!engine.log_let_go());
        assert_eq!(engine.log().read(held, 1, None).unwrap().next.0, held.0 + 1);
        // Four times its limit, and no more.
        assert!(fill(&mut engine, 2_000) <= 400_000 + 20_000);
        assert!(engine.log_let_go());
        // Less where the disk has less, and never less than the limit.
        engine.set_log_room(250_000);
        assert!((200_000..250_000 + 20_000).contains(&fill(&mut engine, 10)));
        engine.set_log_room(0);
        assert!((60_000..100_000 + 20_000).contains(&fill(&mut engine, 10)));
        engine.set_log_room(u64::MAX);
        engine.hold_log(None);
        assert!(fill(&mut engine, 1_000) <= 100_000 + 20_000);
        assert!(!engine.log_let_go());
    }

    pub fn a_trimmed_log_begins_with_a_barrier<P: Place>(place: &P) {
        let config = EngineConfig { log_max_bytes: 100_000, ..EngineConfig::default() };
        let mut engine = try_open(place.open(), &config, 1).unwrap();
        let origin = engine.origin();
        for n in 0..1_500 {
            set(&mut engine, "k", &format!("{n:0>200}"));
            assert!(engine.log_bytes() <= 100_000 + 20_000);
        }
        let check = |engine: &Engine<P::Store>| {
            let log = engine.log();
            let chunk = log.read(LogPosition(0), usize::MAX, None).unwrap();
            let LogEntry::Barrier(floor) = &chunk.entries[0] else { panic!("no barrier") };
            assert!(floor.get(&origin) > 500);
            // What is left leads from the floor to the vector, without a gap.
            let mut vector = VersionVector::new();
            chunk.entries.iter().for_each(|entry| {
                entry.advance(&mut vector);
            });
            assert_eq!(&vector, engine.vector());
            assert_eq!((chunk.next, chunk.at_end), (engine.position(), true));
            let next = floor.get(&origin) + 1;
            let LogEntry::Commit(first) = &chunk.entries[1] else { panic!("no commit") };
            assert_eq!(first.first, next);
            // What was trimmed cannot be grafted, what was not can, from any seq on.
            let gone = log.commits(origin, 1, 10, usize::MAX).unwrap();
            assert!(gone.truncated && gone.commits.is_empty());
            let gone = log.commits(origin, next - 1, next + 5, usize::MAX).unwrap();
            assert!(gone.truncated);
            for from in [next, next + 17, vector.get(&origin)] {
                let to = (from + 5).min(vector.get(&origin));
                let found = log.commits(origin, from, to, usize::MAX).unwrap();
                assert!(!found.truncated);
                let seqs: Vec<u64> = found.commits.iter().map(|commit| commit.first).collect();
                assert_eq!(seqs, (from..=to).collect::<Vec<_>>());
            }
            // A peer that has the floor needs no barrier.
            let floor_position = LogPosition(chunk.next.0 - (chunk.entries.len() as u64 - 1));
            let rest = log.read(floor_position, usize::MAX, None).unwrap();
            assert_eq!(rest.entries, chunk.entries[1..]);
            let known = log.read(LogPosition(0), usize::MAX, Some(&vector)).unwrap();
            assert!(known.entries.is_empty() && known.at_end);
            // In small pieces it is the same log.
            let mut pieces = Vec::new();
            let mut after = LogPosition(0);
            loop {
                let chunk = log.read(after, 1_000, None).unwrap();
                pieces.extend(chunk.entries);
                after = chunk.next;
                if chunk.at_end {
                    break;
                }
            }
            assert_eq!(pieces, chunk.entries);
        };
        check(&engine);
        engine.verify().unwrap();
        engine.close().unwrap();
        let engine = try_open(place.open(), &config, 2).unwrap();
        check(&engine);
    }

    pub fn the_log_brings_another_node_up_to_date<P: Place>(place: &P) {
        let mut engine = open(place.open());
        let mut rng = Rng(3);
        let (mut known, mut position) = (VersionVector::new(), LogPosition(0));
        for n in 0..300 {
            let member = bytes(&rng.below(50).to_string());
            run(&mut engine, |txn| match rng.below(3) {
                0 => drop(txn.set_add(0, b"s", &[member]).unwrap()),
                1 => drop(txn.set_remove(0, b"s", &[member]).unwrap()),
                _ => drop(txn.hash_increment(0, b"h", &member, 3).unwrap()),
            });
            if n == 100 {
                (known, position) = (engine.vector().clone(), engine.position());
            }
        }
        let fresh = Fresh { node: NodeId(2), nonce: 5 };
        let config = EngineConfig::default();
        let mut other = Engine::open(MemStore::new(), config, fresh, Millis(1_000)).unwrap();
        let mut after = LogPosition(0);
        let mut reached = false;
        loop {
            let chunk = engine.log().read(after, 500, Some(other.vector())).unwrap();
            let mut tick = other.tick(Millis(1_000));
            for entry in chunk.entries {
                let LogEntry::Commit(commit) = entry else { panic!("a barrier") };
                tick.apply(&commit).unwrap();
            }
            tick.seal(false).unwrap();
            after = chunk.next;
            reached |= other.vector() == &known && after == position;
            if chunk.at_end {
                break;
            }
        }
        assert!(reached || known.is_empty() || other.vector().covers(&known));
        assert_eq!(other.digest(), engine.digest());
        other.verify().unwrap();
    }
}

// ---- failures ----------------------------------------------------------------------------------------

/// Everything that could tell that something has happened.
fn witness(engine: &mut Engine<MemStore>) -> impl PartialEq + std::fmt::Debug + use<> {
    engine.verify().unwrap();
    let seen = (engine.vector().clone(), engine.digest(), engine.position(), engine.clock());
    let dump = run(engine, |txn| (common::dump(txn), txn.bindings(0), txn.db_size(0).unwrap()));
    let journal = [Family::Log, Family::Node].map(|family| rows(engine.store(), family));
    (seen, dump, engine.next_deadline(), engine.log_bytes(), journal)
}

fn commands(txn: &mut Txn<'_, MemStore>, n: u64) {
    let member = bytes(&n.to_string());
    txn.set(0, b"string", member.clone(), Ttl::At(Millis(2_000 + n))).unwrap();
    txn.increment(0, b"number", 1).unwrap();
    txn.set_add(0, b"s", std::slice::from_ref(&member)).unwrap();
    txn.hash_set(0, b"h", &[(member.clone(), member.clone())]).unwrap();
    txn.bind(0, b"view", "MAP", &[bytes("s")], &format!("x + {n}")).unwrap();
    if n % 2 == 1 {
        txn.delete(0, b"h").unwrap();
        txn.set_remove(0, b"s", &[bytes(&(n - 1).to_string())]).unwrap();
    }
    if n % 5 == 4 {
        txn.flush(0).unwrap();
        txn.set_add(0, b"s", &[member]).unwrap();
    }
}

#[test]
fn a_tick_that_cannot_be_written_has_not_happened() {
    let store = MemStore::new();
    for cache_bytes in [0, 1 << 20] {
        let config = EngineConfig { cache_bytes, ..EngineConfig::default() };
        let mut engine = try_open(store.clone(), &config, 1).unwrap();
        for n in 0..20 {
            let before = witness(&mut engine);
            store.fail_writes(Some(StoreError::Full("test".into())));
            for _ in 0..2 {
                let mut tick = engine.tick(Millis(1_000));
                let mut txn = tick.txn();
                commands(&mut txn, n + 100);
                txn.commit();
                assert!(matches!(tick.seal(true), Err(StoreError::Full(_))));
            }
            store.fail_writes(None);
            assert_eq!(witness(&mut engine), before);
            // A tick that is dropped, and a transaction that is, have not happened either.
            let mut tick = engine.tick(Millis(1_000));
            commands(&mut tick.txn(), n + 200);
            let mut txn = tick.txn();
            commands(&mut txn, n + 300);
            assert!(txn.commit().is_some());
            drop(tick);
            assert_eq!(witness(&mut engine), before);
            run(&mut engine, |txn| commands(txn, n));
            assert!(witness(&mut engine) != before);
            engine.verify().unwrap();
        }
        let digest = engine.digest();
        drop(engine);
        let mut again = try_open(store.clone(), &config, 2).unwrap();
        assert_eq!(again.digest(), digest);
        again.verify().unwrap();
    }
}

/// A large value stays where it was read, unless that would keep much more.
#[test]
fn a_large_value_is_not_copied_when_it_is_read() {
    let value = vec![b'v'; 100_000];
    let encoded = |values: usize| {
        let mut out = Writer::with_format(1);
        (0..values).for_each(|_| out.bytes(&value));
        out.bytes(b"small");
        out.finish()
    };
    let lies_in = |part: &Bytes, whole: &Bytes| whole.as_ptr_range().contains(&part.as_ptr());
    for (values, shared) in [(1, true), (2, false)] {
        let bytes = encoded(values);
        let mut input = Reader::over(&bytes).format(1).unwrap();
        for _ in 0..values {
            let kept = input.kept().unwrap();
            assert_eq!((lies_in(&kept, &bytes), &kept[..]), (shared, &value[..]));
        }
        let small = input.kept().unwrap();
        assert_eq!((lies_in(&small, &bytes), &small[..]), (false, &b"small"[..]));
        let kept = Reader::new(&bytes).format(1).unwrap().kept().unwrap();
        assert!(!lies_in(&kept, &bytes), "it may go at any time");
    }
}

/// Keys with a deadline are counted change by change, and stored; where the record is not there, or is one
/// of another position, they are counted anew.
#[test]
fn keys_with_a_deadline_are_counted() {
    const NOW: Millis = Millis(1_000);
    let store = MemStore::new();
    let mut engine = open(store.clone());
    run(&mut engine, |txn| {
        for (key, deadline) in [("a", 3_000), ("b", 5_000), ("c", 90_000)] {
            txn.set(0, key.as_bytes(), bytes("v"), Ttl::At(Millis(deadline))).unwrap();
        }
        txn.set(0, b"none", bytes("v"), Ttl::Clear).unwrap();
        txn.set_add(2, b"s", &[bytes("m")]).unwrap();
        txn.expire(2, b"s", Some(Millis(7_000))).unwrap();
    });
    assert_eq!(engine.expires(0, NOW), (3, Millis((3_000 + 5_000 + 90_000) / 3 - 1_000)));
    assert_eq!(engine.expires(2, NOW), (1, Millis(6_000)));
    assert_eq!(engine.expires(1, NOW), (0, Millis(0)));
    run(&mut engine, |txn| {
        txn.expire(0, b"c", None).unwrap();
        txn.set(0, b"b", bytes("w"), Ttl::Keep).unwrap();
        txn.delete(2, b"s").unwrap();
    });
    // What is taken back has not been counted.
    let mut tick = engine.tick(NOW);
    tick.txn().expire(0, b"none", Some(Millis(9_000))).unwrap();
    drop(tick);
    let counted = (2, Millis(3_000));
    assert_eq!((engine.expires(0, NOW), engine.expires(2, NOW).0), (counted, 0));
    engine.verify().unwrap();
    engine.flush().unwrap();
    drop(engine);
    let mut foreign = Run::default();
    foreign.put(
        Family::System,
        keys::EXPIRING,
        &[1, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
    );
    let mut absent = Run::default();
    absent.delete(Family::System, keys::EXPIRING);
    for mut change in [Run::default(), foreign, absent] {
        store.write_run(&mut change).unwrap();
        let mut engine = open(store.clone());
        assert_eq!(engine.expires(0, NOW), counted);
        engine.verify().unwrap();
    }
    let mut engine = open(store);
    let mut tick = engine.tick(Millis(4_000));
    tick.expire_due(10).unwrap();
    tick.seal(true).unwrap();
    assert_eq!(engine.expires(0, Millis(4_000)), (1, Millis(1_000)));
    assert_eq!(engine.expired_keys(), 1);
    engine.verify().unwrap();
}

#[test]
fn a_removal_by_deadline_that_cannot_be_written_has_not_happened() {
    let store = MemStore::new();
    let mut engine = open(store.clone());
    run(&mut engine, |txn| {
        txn.set(0, b"k", bytes("v"), Ttl::At(Millis(1_500))).unwrap();
    });
    let before = (engine.vector().clone(), engine.next_deadline());
    store.fail_writes(Some(StoreError::Full("test".into())));
    let mut tick = engine.tick(Millis(2_000));
    tick.expire_due(10).unwrap();
    assert!(tick.seal(true).is_err());
    store.fail_writes(None);
    assert_eq!((engine.vector().clone(), engine.next_deadline()), before);
    let mut tick = engine.tick(Millis(2_000));
    tick.expire_due(10).unwrap();
    let sealed: Sealed = tick.seal(true).unwrap().unwrap();
    assert_eq!(sealed.entries.len(), 1);
    engine.verify().unwrap();
}

#[test]
fn after_an_unknown_failure_the_store_says_what_happened() {
    let store = MemStore::new();
    let mut engine = open(store.clone());
    set(&mut engine, "k", "1");
    store.fail_writes(Some(StoreError::Unknown("test".into())));
    let mut tick = engine.tick(Millis(1_000));
    let mut txn = tick.txn();
    txn.set(0, b"k", bytes("2"), Ttl::Clear).unwrap();
    txn.commit();
    assert!(matches!(tick.seal(true), Err(StoreError::Unknown(_))));
    drop(engine);
    store.fail_writes(None);
    // Here it did reach the disk; a crash may have lost it, or the tick before as well. All are whole.
    let mut survivor = open(store.copy());
    assert_eq!(run(&mut survivor, |txn| txn.get(0, b"k").unwrap()), Some(bytes("2")));
    survivor.verify().unwrap();
    assert_eq!(store.unsynced(), 2);
    store.crash(1);
    let mut survivor = open(store.copy());
    assert_eq!(run(&mut survivor, |txn| txn.get(0, b"k").unwrap()), Some(bytes("1")));
    survivor.verify().unwrap();
}

// ---- the stores against each other ---------------------------------------------------------------------

#[cfg(feature = "rocks")]
fn random_key(rng: &mut Rng) -> Vec<u8> {
    (0..1 + rng.below(3)).map(|_| *rng.pick(&[0, 1, 7, 0x7f, 0xfe, 0xff])).collect()
}

#[cfg(feature = "rocks")]
#[test]
fn both_stores_do_the_same() {
    let place = disk::OnDisk::new();
    let (mut disk, memory) = (place.open(), MemStore::new());
    let mut rng = Rng(11);
    let mut held = None;
    let (rows, journal) =
        Family::ALL.into_iter().partition::<Vec<Family>, _>(|it| !it.is_journal());
    for round in 0..10_000 {
        let (mut one, mut other) = (disk.batch(), memory.batch());
        for _ in 0..10 {
            let family = *rng.pick(&journal);
            let key = random_key(&mut rng);
            match rng.below(20) {
                0..12 => {
                    let value = vec![rng.next() as u8; rng.below(20)];
                    one.put(family, &key, &value);
                    other.put(family, &key, &value);
                }
                _ => {
                    one.delete(family, &key);
                    other.delete(family, &key);
                }
            }
        }
        let sync = rng.chance(1);
        disk.write(one, sync).unwrap();
        memory.write(other, sync).unwrap();
        if rng.chance(10) {
            let mut run = Run::default();
            let mut changed = BTreeSet::new();
            for _ in 0..1 + rng.below(60) {
                let (family, key) = (*rng.pick(&rows), random_key(&mut rng));
                if !changed.insert((family, key.clone())) {
                    continue;
                }
                match rng.chance(70) {
                    true => run.put(family, &key, &vec![rng.next() as u8; rng.below(20)]),
                    false => run.delete(family, &key),
                }
            }
            disk.write_run(&mut run.clone()).unwrap();
            memory.write_run(&mut run).unwrap();
        }
        for _ in 0..2 {
            let family = *rng.pick(&Family::ALL);
            let (from, mut to) = (random_key(&mut rng), random_key(&mut rng));
            if rng.chance(20) {
                to.clear();
            }
            let most = rng.below(50);
            let some = |scan: &dyn Fn(&mut lattis_engine::store::Visit<'_>)| {
                let mut rows = Vec::new();
                scan(&mut |key, value| {
                    rows.push((key.to_vec(), value.to_vec()));
                    if rows.len() > most {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
                rows
            };
            assert_eq!(
                some(&|visit| disk.scan(family, &from, &to, visit).unwrap()),
                some(&|visit| memory.scan(family, &from, &to, visit).unwrap()),
            );
            assert_eq!(disk.get(family, &from).unwrap(), memory.get(family, &from).unwrap());
        }
        match round % 1_000 {
            0 => held = Some((disk.snapshot(), memory.snapshot())),
            500 => {
                let (one, other) = held.take().unwrap();
                assert_eq!(everything(&one), everything(&other));
                disk.flush().unwrap();
            }
            600 => {
                disk.sync().unwrap();
                drop(disk);
                disk = place.open();
            }
            _ => {}
        }
    }
    assert_eq!(everything(&disk), everything(&memory));
}
