//! Directories that versions before have written, as they left them after a stop and after a kill: they open,
//! and hold what they held.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

use std::process::Command;

use lattis_tests::process::{NodeConfig, Server, repository};
use lattis_tests::resp::Client;

/// A directory, and what its node told last.
struct Left {
    archive: &'static str,
    folder: &'static str,
    digest: &'static str,
    keys: i64,
    members: i64,
    doubled: &'static [&'static str],
}

/// Rows lie in the order of their names' bytes, and a record of a key begins with the row of a string.
const BY_NAME: [Left; 2] = [
    Left {
        archive: "rows-by-name.tar.gz",
        folder: "whole",
        digest: "a58e7e110ec7cf80fa0b45d34559e10d",
        keys: 309,
        members: 301,
        doubled: &["2", "4", "6"],
    },
    Left {
        archive: "rows-by-name-killed.tar.gz",
        folder: "killed",
        digest: "add4026e578b673a3a8d95aab83ed16f",
        keys: 408,
        members: 298,
        doubled: &["2", "4", "6", "8"],
    },
];

fn holds(client: &mut Client, left: &Left) {
    assert_eq!(client.words("DIGEST.CRDT").text().unwrap(), left.digest);
    assert_eq!(client.words("DBSIZE").int(), Some(left.keys));
    assert_eq!(client.words("SCARD set").int(), Some(left.members));
    assert_eq!(client.words("SMEMBERS set").items().unwrap().len() as i64, left.members);
    assert_eq!(client.words("SMEMBERS doubled").sorted_texts(), left.doubled);
    let text = |client: &mut Client, line: &str| client.words(line).text();
    assert_eq!(text(client, "GET counter").as_deref(), Some("210"));
    assert_eq!(text(client, "HGET hash count").as_deref(), Some("210"));
    assert_eq!(text(client, "HGET hash f300").as_deref(), Some("v300"));
    assert_eq!(text(client, "GET key:300").as_deref(), Some("value-300"));
    assert_eq!(client.words("EXPIRETIME lasting").int(), Some(4_102_444_800));
    assert_eq!(client.call(&["GET", ""]).text().as_deref(), Some("empty"));
    assert_eq!(client.call(&[&b"GET"[..], b"\x00\xff\r\n"]).text().as_deref(), Some("bytes"));
    let mut found = 0;
    let mut cursor = "0".to_owned();
    loop {
        let page = client.words(&format!("SCAN {cursor}"));
        let [next, names] = page.items().unwrap() else { panic!("{page:?}") };
        found += names.items().unwrap().len() as i64;
        cursor = next.text().unwrap();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found, left.keys);
    assert!(client.words("SELECT 3").is_ok());
    assert_eq!(client.words("DBSIZE").int(), Some(2));
    assert_eq!(client.call(&[&b"HGET"[..], b"h:\xff", b"f\x00"]).text().as_deref(), Some("v"));
    assert!(client.words("SELECT 0").is_ok());
}

#[test]
fn directories_of_versions_before_open() {
    for left in &BY_NAME {
        let mut server = Server::lattis(&NodeConfig::new("new"));
        server.kill();
        std::fs::remove_dir_all(server.data()).unwrap();
        let archive = repository().join("tests/fixtures").join(left.archive);
        let into = server.data().parent().unwrap();
        let unpacked = Command::new("tar").arg("-xzf").arg(archive).current_dir(into).status();
        assert!(unpacked.unwrap().success());
        std::fs::rename(into.join(left.folder), server.data()).unwrap();
        server.restart();
        assert!(server.log().contains("is of a version before"), "{}", server.log());
        let mut client = server.client();
        holds(&mut client, left);
        // It goes on from there, also after the end of its power.
        for _ in 0..2 {
            server.kill();
            server.restart();
            assert_eq!(server.log().matches("is of a version before").count(), 1);
            holds(&mut server.client(), left);
        }
        let mut client = server.client();
        assert_eq!(client.words("SREM numbers 1").int(), Some(1));
        assert_eq!(client.words("SCARD doubled").int(), Some(left.doubled.len() as i64 - 1));
        assert!(client.words("FLUSHALL").is_ok());
        assert_eq!(client.words("SCAN 0").items().unwrap()[1].items().unwrap().len(), 0);
    }
}
