//! The same stream of random commands to Lattis and to a real Redis: no reply may differ.
//!
//! `COMPARE_SEED` and `COMPARE_COUNT` choose another stream or a longer one.

use std::io;

use lattis_tests::compare::{Covered, Difference, Endpoint, Words, compare};
use lattis_tests::process::{NodeConfig, Server};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

fn connections(server: &Server) -> [Box<dyn Endpoint>; 2] {
    [Box::new(server.client()), Box::new(server.client())]
}

fn run(first: &Server, second: &Server, protocol: u8, count: usize, pipeline: u32) -> Covered {
    let seed = setting("COMPARE_SEED", 1) + u64::from(protocol);
    let (mut left, mut right) = (connections(first), connections(second));
    match compare(seed, protocol, count, pipeline, &mut left, &mut right) {
        Ok(covered) => covered,
        Err(difference) => {
            panic!("{} (first) and {} (second) differ\n{difference:?}", first.name(), second.name())
        }
    }
}

/// The harness forgives a correct server, and its stream is worth sending: every command succeeds
/// often, and every one that takes arguments fails sometimes.
#[test]
fn redis_equals_redis() {
    let (first, second) = (Server::redis(&[]), Server::redis(&[]));
    let mut all = Covered::default();
    for protocol in [2, 3] {
        for (name, (replies, errors)) in run(&first, &second, protocol, 20_000, 1).0 {
            let sum = all.0.entry(name).or_default();
            *sum = (sum.0 + replies, sum.1 + errors);
        }
    }
    assert_eq!(all.0.len(), 53, "commands of the grammar that were sent");
    for (name, (replies, errors)) in &all.0 {
        let good = replies - errors;
        assert!(name == "NOSUCH" || good >= 20, "{name} succeeded {good} times of {replies}");
        let plain = ["PING", "DBSIZE", "MULTI", "EXEC", "DISCARD", "UNWATCH"];
        assert!(plain.contains(&&name[..]) || *errors > 0, "{name} never failed in {replies}");
    }
}

/// An endpoint that changes one byte of one reply.
struct Tampered {
    inner: Box<dyn Endpoint>,
    calls: usize,
    at: usize,
}

impl Endpoint for Tampered {
    fn ask(&mut self, words: &Words) -> io::Result<Vec<u8>> {
        let mut reply = self.inner.ask(words)?;
        self.calls += 1;
        if self.calls >= self.at && reply.starts_with(b"$") && reply.len() > 5 {
            let last = reply.len() - 3;
            reply[last] ^= 1;
            self.at = usize::MAX;
        }
        Ok(reply)
    }
}

/// The harness notices one changed byte in thousands of replies, and says where.
#[test]
fn a_tampered_reply_is_found() {
    let (first, second) = (Server::redis(&[]), Server::redis(&[]));
    let mut left = connections(&first);
    let [one, other] = connections(&second);
    let mut right =
        [Box::new(Tampered { inner: one, calls: 0, at: 3000 }) as Box<dyn Endpoint>, other];
    let difference: Box<Difference> =
        compare(1, 2, 10_000, 1, &mut left, &mut right).expect_err("the tampered reply");
    assert!(difference.index >= 3000, "{difference:?}");
    assert_eq!(difference.left.len(), difference.right.len(), "{difference:?}");
    assert!(!difference.before.is_empty());
    let report = format!("{difference:?}");
    assert!(report.contains("seed 1, RESP2, command"), "{report}");
}

fn lattis_equals_redis(protocol: u8, pipeline: u32) {
    let lattis = Server::lattis(&NodeConfig::new("compared"));
    let redis = Server::redis(&[]);
    let count = setting("COMPARE_COUNT", 50_000) as usize;
    let covered = run(&lattis, &redis, protocol, count, pipeline);
    let commands: usize = covered.0.values().map(|(replies, _)| replies).sum();
    println!("RESP{protocol}: {commands} commands, no difference");
}

#[test]
fn lattis_equals_redis_in_resp2() {
    lattis_equals_redis(2, 1);
}

#[test]
fn lattis_equals_redis_in_resp3() {
    lattis_equals_redis(3, 1);
}

/// A watched key that is written again, by what leaves it as it was.
const WATCHES: &[&[&str]] = &[
    &["SET k v", "WATCH k", "SET k v"],
    &["SET k v", "EXPIRE k 100", "WATCH k", "EXPIRE k 200"],
    &["SET k v", "EXPIREAT k 9999999999", "WATCH k", "EXPIREAT k 9999999999"],
    &["SET k v", "EXPIRE k 100", "WATCH k", "PERSIST k"],
    &["SET k v", "WATCH k", "PERSIST k"],
    &["SET k v EX 100", "WATCH k", "SET k v EX 100"],
    &["SET k v EX 100", "WATCH k", "SET k v KEEPTTL"],
    &["SADD k v", "WATCH k", "SADD k v"],
    &["SADD k v", "EXPIRE k 100", "WATCH k", "SADD k v"],
    &["SADD k v", "WATCH k", "SREM k v", "SADD k v"],
    &["SADD k v", "WATCH k", "SREM k w"],
    &["HSET k f v", "WATCH k", "HSET k f v"],
    &["HSET k f 1", "WATCH k", "HINCRBY k f 0"],
    &["INCR k", "WATCH k", "INCRBY k 0"],
    &["INCR k", "WATCH k", "DEL k", "INCR k"],
    &["INCR k", "WATCH k", "APPEND k x"],
    &["SET k v", "WATCH k", "GET k", "EXISTS k", "SET other v"],
    &["WATCH k", "SET k v", "DEL k"],
    &["WATCH k", "DEL k"],
    &["SET k v", "WATCH k", "FLUSHALL"],
];

/// Whether an EXEC is refused does not depend on what shares its tick with it.
#[test]
fn watched_keys_are_watched_within_a_tick() {
    let (lattis, redis) = (Server::lattis(&NodeConfig::new("watched")), Server::redis(&[]));
    // Somebody watches, so the engine tells of changes from the first of a sequence on.
    let mut watcher = lattis.client();
    assert!(watcher.words("WATCH elsewhere").is_ok());
    for sequence in WATCHES {
        let line = |line: &&str| line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let rest = ["MULTI", "EXISTS k", "EXEC"];
        let words: Vec<Words> = sequence.iter().chain(&rest).map(line).collect();
        let batch: Vec<&Words> = words.iter().collect();
        let [ours, theirs] = [&lattis, &redis].map(|server| {
            let mut client = server.client();
            assert!(client.words("FLUSHALL").is_ok());
            Endpoint::ask_all(&mut client, &batch).expect("replies")
        });
        assert_eq!(ours.last(), theirs.last(), "{sequence:?}");
    }
}

/// Commands that are executed in one tick share a commit; one after the other they are none the less.
#[test]
fn lattis_equals_redis_with_a_pipeline() {
    lattis_equals_redis(2, 40);
}
