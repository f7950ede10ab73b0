//! The bytes that are stored and sent, as they were written: a change of format is noticed here.
//!
//! Data outlives programs, and nodes of two versions talk to each other. If a case fails and the change
//! is meant, the format number at its place has to be raised, the old form has to stay readable or to be
//! refused by its number, and the new bytes go here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

use std::fmt::Write as _;
use std::ops::ControlFlow;

use bytes::Bytes;
use lattis_engine::causal::{Dot, Hlc, LogPosition, Millis, NodeId, Origin, VersionVector};
use lattis_engine::codec::{Reader, Writer};
use lattis_engine::commit::{
    Clear, Commit, CounterReset, Delta, Effect, EncodedCommit, Increment, LogEntry, RowEffect,
};
use lattis_engine::crdt::TYPES;
use lattis_engine::crdt::hash::HASH;
use lattis_engine::crdt::set::SET;
use lattis_engine::crdt::string::STRING;
use lattis_engine::name::{RowKey, Scope, Slot};
use lattis_engine::store::{Batch, Family, MemStore, Read, Run, Store};
use lattis_engine::{Engine, EngineConfig, Fresh, Staged, StateReader, Ttl};

/// Compares line by line. `place` says where the format number lies.
fn golden(name: &str, actual: &str, expected: &str, place: &str) {
    if actual.trim() != expected.trim() {
        panic!(
            "{name} is encoded in another way than before.\nIf that is meant, raise the format number \
             in {place} and put the new bytes into this file.\n--- then\n{expected}\n--- now\n{actual}"
        );
    }
}

/// Lines of 48 bytes.
fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for line in bytes.chunks(48) {
        line.iter().for_each(|byte| write!(out, "{byte:02x}").unwrap());
        out.push('\n');
    }
    out
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn origin(node: u64) -> Origin {
    Origin { node: NodeId(node), incarnation: 3, nonce: 0x0102_0304_0506_0708 }
}

fn row(slot: Slot, subkey: &'static [u8]) -> RowKey {
    let (key, subkey) = (Bytes::from_static(b"key"), Bytes::from_static(subkey));
    RowKey { db: 1, key, slot, subkey }
}

/// One effect of each kind.
fn commit() -> Commit {
    let foreign = Dot { origin: origin(2), seq: 300 };
    let own = Dot { origin: origin(1), seq: 7 };
    let reset = CounterReset { origin: origin(2), generation: 290, last: 299, sum: -5 };
    let mut put = RowEffect { row: row(STRING, b""), delta: Delta::default() };
    put.delta.replaces = smallvec::smallvec![own, foreign];
    put.delta.resets = vec![reset];
    put.delta.resets_own = true;
    put.delta.put = Some(Bytes::from_static(b"value"));
    let mut add = RowEffect { row: row(HASH, b"field"), delta: Delta::default() };
    add.delta.add = Some(Increment { generation: 9, sum: 1 << 70 });
    let mut member = RowEffect { row: row(SET, b"member"), delta: Delta::default() };
    member.delta.put = Some(Bytes::new());
    let mut elsewhere =
        RowEffect { row: RowKey { db: 300, ..row(SET, b"m") }, delta: Delta::default() };
    elsewhere.delta.replaces = smallvec::smallvec![Dot { origin: origin(3), seq: 1 }];
    let context: VersionVector = [(origin(1), 9), (origin(2), 300)].into_iter().collect();
    let flush = Clear {
        scope: Scope::Db(1),
        context: context.clone(),
        resets: vec![(row(STRING, b""), reset)],
    };
    let clear = Clear { scope: Scope::Key(1, "key".into()), context, resets: Vec::new() };
    let effects = vec![
        Effect::Row(put),
        Effect::Row(add),
        Effect::Clear(flush),
        Effect::Row(member),
        Effect::Clear(clear),
        Effect::Row(elsewhere),
    ];
    Commit {
        origin: origin(1),
        first: 10,
        hlc: Hlc::at(Millis(1_700_000_000_000)),
        lead: 0,
        effects,
    }
}

const COMMIT_BODY: &str = "
01018bcfe568000000020000000000000002000000030102030405060708000000000000000300000003010203040506
07083d01036b6579100002000301ac020101a20209090576616c75654312056669656c64098080808080808080808002
00000102000901ac020101036b6579100001a20209092311066d656d62657200000101036b657902000901ac020005ac
02036b657911016d010201
";

#[test]
fn commits() {
    let encoded = commit().encode();
    golden("a commit", &hex(&encoded.body), COMMIT_BODY, "engine/src/commit.rs");
    let stored = EncodedCommit { body: unhex(COMMIT_BODY).into(), ..encoded };
    assert_eq!(Commit::decode(&stored).unwrap(), commit());
}

const LOG_COMMIT: &str = "
000000000000000001000000030102030405060708c8010304626f6479
";
const LOG_BARRIER: &str = "
01020000000000000001000000030102030405060708c801000000000000000200000003010203040506070803
";

#[test]
fn log_entries() {
    let body = Bytes::from_static(b"body");
    let commit = EncodedCommit { origin: origin(1), first: 200, last: 203, body };
    let vector = [(origin(1), 200), (origin(2), 3)].into_iter().collect();
    let cases = [(LogEntry::Commit(commit), LOG_COMMIT), (LogEntry::Barrier(vector), LOG_BARRIER)];
    for (entry, expected) in cases {
        let mut out = Writer::new();
        entry.encode(&mut out);
        golden("a log entry", &hex(out.as_slice()), expected, "engine/src/log.rs");
        assert_eq!(LogEntry::decode(&mut Reader::new(&unhex(expected))).unwrap(), entry);
    }
}

const VECTOR: &str = "
030000000000000001000000030102030405060708c80100000000000000020000000301020304050607080300000000
00000009000000030102030405060708ffffffffffffffffff01
";

#[test]
fn version_vectors() {
    let vector: VersionVector =
        [(origin(2), 3), (origin(1), 200), (origin(9), u64::MAX)].into_iter().collect();
    let mut out = Writer::new();
    vector.encode(&mut out);
    golden("a vector", &hex(out.as_slice()), VECTOR, "all that holds a vector");
    assert_eq!(VersionVector::decode(&mut Reader::new(&unhex(VECTOR))).unwrap(), vector);
}

fn open(store: &MemStore, node: u64) -> Engine<MemStore> {
    let fresh = Fresh { node: NodeId(node), nonce: node };
    let config = EngineConfig { log_max_bytes: 1_000, ..EngineConfig::default() };
    Engine::open(store.clone(), config, fresh, Millis(1_000)).unwrap()
}

/// A history with something in every family that is used: siblings, a counter that others have reset,
/// several types under one key, deadlines, a binding, a trimmed log.
fn history() -> (MemStore, Engine<MemStore>) {
    let (store, mut other) = (MemStore::new(), open(&MemStore::new(), 2));
    let mut engine = open(&store, 1);
    let mut tick = other.tick(Millis(1_001));
    let mut txn = tick.txn();
    txn.set(0, b"string", "theirs".into(), Ttl::Clear).unwrap();
    txn.increment(0, b"number", 5).unwrap();
    txn.hash_set(0, b"both", &[("f".into(), "v".into())]).unwrap();
    txn.hash_increment(0, b"hash", b"n", 3).unwrap();
    txn.commit();
    let theirs = tick.seal(true).unwrap().unwrap();

    let mut tick = engine.tick(Millis(1_002));
    let mut txn = tick.txn();
    txn.set(0, b"string", "ours".into(), Ttl::At(Millis(9_000))).unwrap();
    txn.set_add(0, b"both", &["1".into(), "2".into()]).unwrap();
    txn.bind(0, b"view", "MAP", &["both".into()], "x * 10").unwrap();
    txn.commit();
    tick.seal(true).unwrap();

    let mut tick = engine.tick(Millis(1_003));
    for entry in &theirs.entries {
        let LogEntry::Commit(commit) = entry else { panic!("a barrier") };
        tick.apply(commit).unwrap();
    }
    let mut txn = tick.txn();
    txn.set(0, b"number", "100".into(), Ttl::Clear).unwrap();
    txn.increment(0, b"number", -7).unwrap();
    txn.expire(0, b"hash", Some(Millis(8_000))).unwrap();
    txn.commit();
    tick.seal(true).unwrap();
    // Fills the log until its first part is trimmed.
    for n in 0..12 {
        let mut tick = engine.tick(Millis(1_004 + n));
        let mut txn = tick.txn();
        txn.set(1, b"filler", vec![b'.'; 80].into(), Ttl::Clear).unwrap();
        txn.commit();
        tick.seal(true).unwrap();
        engine.flush().unwrap();
    }
    let mut tick = engine.tick(Millis(1_100));
    let mut txn = tick.txn();
    txn.flush(1).unwrap();
    txn.commit();
    tick.seal(true).unwrap();
    (store, engine)
}

fn readable(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

/// The store as the first version wrote it: the record of a key tells what is hidden by a stamp, and no
/// stamp has a lead.
const FIRST_DUMP: &str = r"
data \x00\x00\x00\x00\x00\x04both\x111
010100030000000003ea00000000
data \x00\x00\x00\x00\x00\x04both\x112
010100040000000003ea00000000
data \x00\x00\x00\x00\x00\x04both\x12f
010101030000000003e90000017600
data \x00\x00\x00\x00\x00\x04hash\x12n
01000101050000000003e90000050000000003e900000600
keys \x00\x00both
010000000002110100050000000003ea000000000202120101040000000003e90000000001010000
keys \x00\x00hash
0100000100080000000003eb000004c13e00000001120101060000000003e90000000001010000
keys \x00\x00number
010100070000000003eb0000033130300200070000000003eb0000070000000003eb00000d0001020000000003e90000
020000000003e900000a020a00070000000000
keys \x00\x00string
010200010000000003ea0000046f75727301010000000003e9000006746865697273000100020000000003ea000004a9
46000000000000
keys \x00\x00view
0100000000000003
derived \x00\x00\x00\x00\x00\x04view10
0101
derived \x00\x00\x00\x00\x00\x04view20
0101
system b\x00\x00view
010100060000000003ea000011034d41500104626f74680678202a20313000
system d\x00\x00\x00\x00\x00\x00\x1f@\x00\x00hash
system d\x00\x00\x00\x00\x00\x00#(\x00\x00string
system expiring
0110010200000000000000000000000000004268
system o\x00\x00\x00\x00
0000000000000001000000010000000000000001
system o\x00\x00\x00\x01
0000000000000002000000010000000000000002
system state
011000000000044c0000b6cbb4bb53e25746677ceb34c20faeda02050002000000000000000100000001000000000000
000115000000000000000200000001000000000000000206
log \x00\x00\x00\x00\x00\x00\x00\x10
01010000000000000000010000000100000000000000011500270100000000044c000001000000000000000200000001
0000000000000002000001020014010600
node floor
01080200000000000000010000000100000000000000010d000000000000000200000001000000000000000206
node identity
0000000000000001000000010000000000000001
";

/// As the second version wrote it: a record of a key begins with the row of its string.
const SECOND_DUMP: &str = r"
data \x00\x00\x00\x00\x00\x04both\x111
020100030000000003ea00000000
data \x00\x00\x00\x00\x00\x04both\x112
020100040000000003ea00000000
data \x00\x00\x00\x00\x00\x04both\x12f
020101030000000003e90000017600
data \x00\x00\x00\x00\x00\x04hash\x12n
02000101050000000003e90000050000000003e900000600
keys \x00\x00both
020000000002110100050000000003ea000000000202120101040000000003e90000000001010000
keys \x00\x00hash
0200000100080000000003eb000004c13e00000001120101060000000003e90000000001010000
keys \x00\x00number
020100070000000003eb0000033130300200070000000003eb0000070000000003eb00000d0001020000000003e90000
020000000003e900000a020a00070000000000
keys \x00\x00string
020200010000000003ea0000046f75727301010000000003e9000006746865697273000100020000000003ea000004a9
46000000000000
keys \x00\x00view
0200000000000003
derived \x00\x00\x00\x00\x00\x04view10
0101
derived \x00\x00\x00\x00\x00\x04view20
0101
system b\x00\x00view
020100060000000003ea000011034d41500104626f74680678202a20313000
system d\x00\x00\x00\x00\x00\x00\x1f@\x00\x00hash
system d\x00\x00\x00\x00\x00\x00#(\x00\x00string
system expiring
0110010200000000000000000000000000004268
system o\x00\x00\x00\x00
0000000000000001000000010000000000000001
system o\x00\x00\x00\x01
0000000000000002000000010000000000000002
system state
011000000000044c0000b6cbb4bb53e25746677ceb34c20faeda02050002000000000000000100000001000000000000
000115000000000000000200000001000000000000000206
log \x00\x00\x00\x00\x00\x00\x00\x10
01010000000000000000010000000100000000000000011500270100000000044c000001000000000000000200000001
0000000000000002000001020014010600
node floor
01080200000000000000010000000100000000000000010d000000000000000200000001000000000000000206
node identity
0000000000000001000000010000000000000001
";

const DUMP: &str = r"
system b\x00\x00view
030000000003ea00000006034d41500104626f74680678202a203130
system d\x00\x00\x00\x00\x00\x00\x1f@\x00\x00hash
system d\x00\x00\x00\x00\x00\x00#(\x00\x00string
system expiring
01100202000000000000000000000000000042680000000000000000000000000000000000
system o\x00\x00\x00\x00
0000000000000001000000010000000000000001
system o\x00\x00\x00\x01
0000000000000002000000010000000000000002
system state
021000000000044c0000b6cbb4bb53e25746677ceb34c20faeda02050002000000000000000100000001000000000000
000115000000000000000200000001000000000000000206
system sums
011002b6cbb4bb53e25746677ceb34c20faeda020000000000000000000000000000000000
log \x00\x00\x00\x00\x00\x00\x00\x10
01010000000000000000010000000100000000000000011500270100000000044c000001000000000000000200000001
0000000000000002000001020014010600
node floor
01080200000000000000010000000100000000000000010d000000000000000200000001000000000000000206
node identity
0000000000000001000000010000000000000001
data \x00\x00\x00\x00\x00\x04hash\x12\xcb\xaa\x0fg$\xae\x8b\nn
02000101050000000003e90000050000000003e900000600
keys \x00\x00)+\x1aP\xc1e\xa0&both
0600000002110100050000000003ea00000000020202130a0000000003ea000000030131010001320900120101040000
000003e900000000010102100a0000000003e90000010301660101760000
keys \x00\x00E\x8f\x94\xb8\x83#\xd9<number
0601100100070000000003eb0000033130300200070000000003eb0000070000000003eb00000d0001020000000003e9
0000020000000003e900000a020a00070000000000
keys \x00\x00\x8c\x18[\xbdO\x0f\xa2\xbbview
06000000000003
keys \x00\x00\x91YR\x1a&\xf2\xa0\x10hash
06000100080000000003eb000004c13e00000001120101060000000003e90000000001010189509f1e81021e1e8cd506
9adc845722010000
keys \x00\x00\xd8\xad\x19FH\xe7t\xf1string
0601100200010000000003ea0000046f75727301010000000003e9000006746865697273000100020000000003ea0000
04a946000000000000
derived \x00\x00\x00\x00\x00\x04view\xd0i\x84D\xed9\xc8210
0101
derived \x00\x00\x00\x00\x00\x04view\xe4\xf7\xceL\x0f\t\xec\xfd20
0101
";

#[test]
fn stored_rows() {
    let (store, mut engine) = history();
    engine.verify().unwrap();
    engine.flush().unwrap();
    let mut dump = String::new();
    for family in Family::ALL {
        let visited = store.scan(family, &[], &[], &mut |key, value| {
            // Of the log one row is enough: what it holds is above.
            if family != Family::Log || value.len() < 100 {
                write!(
                    dump,
                    "{} {}\n{}",
                    format!("{family:?}").to_lowercase(),
                    readable(key),
                    hex(value)
                )
                .unwrap();
            }
            ControlFlow::Continue(())
        });
        visited.unwrap();
    }
    let places = "engine/src/space.rs (rows, weights), header.rs, engine.rs (state) or log.rs";
    golden("a stored row", &dump, DUMP, places);
    let log = engine.log().read(LogPosition(0), usize::MAX, None).unwrap();
    assert!(matches!(log.entries[0], LogEntry::Barrier(_)));
}

const CHUNK: &str = "
010002000000000000000100000001000000000000000115000000000000000200000001000000000000000206000000
00044c000002000000000000000100000001000000000000000100000000000000020000000100000000000000020c00
04626f74680101110100050000000003ea000000000004626f74681101310100030000000003ea000000000004626f74
681101320100040000000003ea000000000004626f74680101120101040000000003e9000000000004626f7468120166
0101030000000003e9000001760000066e756d62657210000100070000000003eb0000033130300200070000000003eb
0000070000000003eb00000d0001020000000003e90000020000000003e900000a020a00070004686173680200010008
0000000003eb000004c13e0000000004686173680101120101060000000003e9000000000006737472696e6710000200
010000000003ea0000046f75727301010000000003e9000006746865697273000006737472696e670200010002000000
0003ea000004a94600000000046861736812016e000101050000000003e90000050000000003e9000006000004766965
7703000100060000000003ea000011034d41500104626f74680678202a20313000
";

#[test]
fn state_transfer() {
    let (_, mut engine) = history();
    let (chunk, last) =
        StateReader::new(engine.snapshot().unwrap()).unwrap().next_chunk(1 << 20).unwrap();
    assert!(last);
    golden("a state chunk", &hex(&chunk), CHUNK, "engine/src/transfer.rs");
    let mut staged = Staged::new(&TYPES, 1 << 20);
    staged.add(&unhex(CHUNK)).unwrap();
    let mut other = open(&MemStore::new(), 3);
    let mut tick = other.tick(Millis(1_000));
    tick.join(&staged).unwrap();
    tick.seal(true).unwrap();
    other.verify().unwrap();
    assert_eq!(other.digest(), engine.digest());
}

/// A store that a version before has written opens, and holds the same.
#[test]
fn a_store_of_a_version_before_opens() {
    opens(FIRST_DUMP);
    opens(SECOND_DUMP);
}

fn opens(dump: &str) {
    let (_, engine) = history();
    let store = MemStore::new();
    let (mut batch, mut run) = (store.batch(), Run::default());
    for (family, key, value) in entries(dump) {
        // These versions had the rows in another order.
        let family = match family {
            Family::Data => Family::FirstData,
            Family::Keys => Family::FirstKeys,
            Family::Derived => Family::FirstDerived,
            other => other,
        };
        match family {
            Family::Log | Family::Node => batch.put(family, &key, &value),
            _ => run.put(family, &key, &value),
        }
    }
    // The dump has the last row of the log alone: here the log begins with that.
    let mut floor = Writer::with_format(1);
    floor.varint(15);
    let lives = |node| Origin { node: NodeId(node), incarnation: 1, nonce: node };
    let vector: VersionVector = [(lives(1), 20), (lives(2), 6)].into_iter().collect();
    vector.encode(&mut floor);
    batch.put(Family::Node, b"floor", floor.as_slice());
    store.write(batch, true).unwrap();
    store.write_run(&mut run).unwrap();
    let mut opened = open(&store, 1);
    opened.verify().unwrap();
    assert_eq!(opened.digest(), engine.digest());
    let mut tick = opened.tick(Millis(1_200));
    let mut txn = tick.txn();
    assert_eq!(txn.get(0, b"string").unwrap().as_deref(), Some(b"ours".as_slice()));
    assert_eq!(txn.deadline(0, b"hash").unwrap(), Some(Some(Millis(8_000))));
    txn.increment(0, b"number", 1).unwrap();
    txn.commit();
    tick.seal(true).unwrap();
    opened.verify().unwrap();
}

/// The rows of a dump.
fn entries(dump: &str) -> Vec<(Family, Vec<u8>, Vec<u8>)> {
    let mut entries: Vec<(Family, Vec<u8>, Vec<u8>)> = Vec::new();
    for line in dump.trim().lines() {
        match line.split_once(' ') {
            Some((name, key)) => {
                let family = Family::ALL
                    .into_iter()
                    .find(|it| format!("{it:?}").to_lowercase() == name)
                    .unwrap();
                entries.push((family, unescape(key), Vec::new()));
            }
            None => entries.last_mut().unwrap().2.extend(unhex(line)),
        }
    }
    entries
}

/// Undoes [`readable`].
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = match (byte, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                after
            }
            (b'\\', [escaped, after @ ..]) => {
                out.push(match escaped {
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'n' => b'\n',
                    other => *other,
                });
                after
            }
            (byte, after) => {
                out.push(*byte);
                after
            }
        };
    }
    out
}

/// A stamp that is ahead of its writer's wall clock says by how much, in a format of its own; peers of the
/// version before get the commit without.
#[test]
fn leads() {
    let led = Commit { lead: 7_200_000, ..commit() };
    let encoded = led.encode();
    assert_eq!(Commit::decode(&encoded).unwrap(), led);
    assert_eq!(encoded.body[0], 2);
    assert_eq!(Commit::decode(&encoded.downgrade()).unwrap(), commit());
    assert_eq!(encoded.downgrade(), commit().encode());
    assert_eq!(encoded.hlc().unwrap(), led.hlc);
}

/// A stamp that nobody can have made is invalid on its face, wherever it stands.
#[test]
fn stamps_beyond_all_time_are_refused() {
    for hlc in [u64::MAX, (1 << 63) | 1, Hlc::at(Millis(7_258_118_400_001)).0] {
        let mut body = commit().encode().body.to_vec();
        body[1..9].copy_from_slice(&hlc.to_be_bytes());
        let encoded = EncodedCommit { body: body.into(), ..commit().encode() };
        assert!(Commit::decode(&encoded).is_err(), "{hlc:x}");
        assert!(encoded.hlc().is_err());
    }
}

#[test]
fn what_this_version_does_not_know_is_refused() {
    let encoded = commit().encode();
    let mut body = encoded.body.to_vec();
    body[0] = 3;
    let error = Commit::decode(&EncodedCommit { body: body.into(), ..encoded }).unwrap_err();
    assert_eq!(error.to_string(), "unknown format 3");
    let mut chunk = unhex(CHUNK);
    chunk[0] = 3;
    assert_eq!(
        Staged::new(&TYPES, 1 << 20).add(&chunk).unwrap_err().to_string(),
        "unknown format 3"
    );
}
