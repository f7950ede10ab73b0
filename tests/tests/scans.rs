//! Iteration in pages: what is there throughout is returned once and every scan ends, whatever others do
//! meanwhile, on whatever connection, with rows in memory and on disk, before and after a restart.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

use std::collections::BTreeMap;

use lattis_tests::process::{NodeConfig, Server};
use lattis_tests::resp::{Client, encode};
use lattis_tests::sim::Rng;

const LASTING: usize = 8_000;
/// Numbers above are not whole for clients that keep them as doubles.
const EXACT: u64 = 1 << 53;

/// What is iterated, and how elements come and go.
#[derive(Clone, Copy)]
struct Kind {
    scan: &'static str,
    add: &'static str,
    remove: &'static str,
    /// Parts of a page for each element.
    parts: usize,
    value: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind { scan: "SCAN", add: "SET", remove: "DEL", parts: 1, value: " v" },
    Kind { scan: "SSCAN s", add: "SADD s", remove: "SREM s", parts: 1, value: "" },
    Kind { scan: "HSCAN h", add: "HSET h", remove: "HDEL h", parts: 2, value: " v" },
];

fn pipelined(client: &mut Client, lines: impl Iterator<Item = String>) {
    let mut bytes = Vec::new();
    let mut count = 0;
    for line in lines {
        encode(&line.split(' ').collect::<Vec<_>>(), &mut bytes);
        count += 1;
    }
    client.send_raw(&bytes).unwrap();
    (0..count).for_each(|_| assert!(client.read().unwrap().error().is_none()));
}

/// A page: its names, and the cursor of the next one.
fn page(client: &mut Client, kind: Kind, cursor: u64, count: u64) -> (Vec<String>, u64) {
    let reply = client.words(&format!("{} {cursor} COUNT {count}", kind.scan));
    let [next, found] = reply.items().unwrap() else { panic!("{reply:?}") };
    let found = found.items().unwrap().chunks(kind.parts);
    let names = found.map(|parts| parts[0].text().unwrap()).collect();
    (names, next.text().unwrap().parse().unwrap())
}

#[test]
fn what_lasts_is_returned_once() {
    // So that most rows lie on disk.
    let config = NodeConfig { cache_bytes: Some(1 << 20), ..NodeConfig::new("a") };
    let mut server = Server::lattis(&config);
    for (round, kind) in KINDS.into_iter().enumerate() {
        let mut rng = Rng::new(7, round as u64);
        let mut client = server.client();
        let lasting = |number| format!("{} lasting:{number}{}", kind.add, kind.value);
        pipelined(&mut client, (0..LASTING).map(lasting));
        let (mut seen, mut cursor, mut pages) = (BTreeMap::new(), 0, 0);
        loop {
            // Each page on a connection of its own.
            let mut client = server.client();
            let (names, next) = page(&mut client, kind, cursor, 1 + rng.below(400));
            assert!(next < EXACT && (next == 0 || next > cursor), "{next} after {cursor}");
            for name in names.into_iter().filter(|name| name.starts_with("lasting:")) {
                *seen.entry(name).or_insert(0) += 1;
            }
            (cursor, pages) = (next, pages + 1);
            if cursor == 0 {
                break;
            }
            let changes: Vec<String> = (0..rng.below(60))
                .map(|_| match rng.below(2) {
                    0 => format!("{} t:{}{}", kind.add, rng.below(4_000), kind.value),
                    _ => format!("{} t:{}", kind.remove, rng.below(4_000)),
                })
                .collect();
            pipelined(&mut client, changes.into_iter());
            if pages == 20 {
                server.kill();
                server.restart();
            }
        }
        assert!(pages > 20, "{pages} pages");
        assert_eq!(seen.len(), LASTING, "{}", kind.scan);
        assert!(seen.values().all(|times| *times == 1), "{}", kind.scan);
    }
}

/// A scan that is slow ends, however many others there are beside it.
#[test]
fn scans_do_not_know_of_each_other() {
    let server = Server::lattis(&NodeConfig::new("a"));
    let mut client = server.client();
    pipelined(&mut client, (0..20_000).map(|number| format!("SET k:{number} v")));
    let (mut found, mut cursor, mut pages) = (0, 0, 0);
    loop {
        let (names, next) = page(&mut client, KINDS[0], cursor, 5_000);
        (found, cursor, pages) = (found + names.len(), next, pages + 1);
        if cursor == 0 {
            break;
        }
        pipelined(&mut client, (0..17_000).map(|_| "SCAN 0 COUNT 10".to_owned()));
    }
    assert_eq!((found, pages), (20_000, 4));
}

/// What asks for no page of ours gets Redis's errors, and a cursor from elsewhere an end.
#[test]
fn cursors_that_are_none() {
    let server = Server::lattis(&NodeConfig::new("a"));
    let mut client = server.client();
    pipelined(&mut client, ["SADD s m", "HSET h f v"].map(str::to_owned).into_iter());
    for kind in KINDS {
        for cursor in [EXACT - 1, EXACT, u64::MAX] {
            assert_eq!(page(&mut client, kind, cursor, 10), (Vec::new(), 0));
        }
        let error = |client: &mut Client, rest: &str| {
            let reply = client.words(&format!("{} {rest}", kind.scan));
            reply.error().unwrap().to_owned()
        };
        assert_eq!(error(&mut client, "x"), "ERR invalid cursor");
        assert_eq!(error(&mut client, "0 COUNT 0"), "ERR syntax error");
        assert_eq!(error(&mut client, "0 COUNT x"), "ERR value is not an integer or out of range");
        assert_eq!(error(&mut client, "0 MATCH"), "ERR syntax error");
    }
    assert!(client.words("SSCAN h 0").error().unwrap().starts_with("WRONGTYPE"));
    assert!(client.words("HSCAN s 0").error().unwrap().starts_with("WRONGTYPE"));
    assert_eq!(page(&mut client, Kind { scan: "SSCAN none", ..KINDS[1] }, 0, 10), (Vec::new(), 0));
}
