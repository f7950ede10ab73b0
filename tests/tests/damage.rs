//! Damaged, foreign, full and read-only directories, on real nodes: what cannot be read fails those who ask
//! for it and nobody else, a start is refused in words or serves what there is, and the tools for a
//! directory do what they say.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use lattis_tests::process::{NodeConfig, Server, TempDir, lattis_server, wait};
use lattis_tests::resp::{Client, Value};

const KEYS: usize = 20_000;

/// A node of which the rows are all written, and that does not run.
fn filled(name: &str, keys: usize) -> Server {
    let mut server = Server::lattis(&NodeConfig::new(name));
    let mut client = server.client();
    let value = "v".repeat(60);
    for part in 0..keys / 1_000 {
        for number in part * 1_000..(part + 1) * 1_000 {
            client.send(&["SET", &format!("k{number}"), &value]).unwrap();
            client.send(&["SADD", &format!("s{}", number % 10), &number.to_string()]).unwrap();
        }
        (0..2_000).for_each(|_| assert!(client.read().unwrap().error().is_none()));
    }
    assert!(server.terminate().success(), "{}", server.log());
    server
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    paths.sort_by_key(|path| fs::metadata(path).unwrap().len());
    paths
}

/// Changes one byte of a file, at a part of its length.
fn flip(path: &Path, percent: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() * percent / 100;
    bytes[at] ^= 0x55;
    fs::write(path, bytes).unwrap();
}

/// A field of INFO.
fn info(client: &mut Client, name: &str) -> Option<String> {
    let text = client.words("INFO everything").text().unwrap();
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| *field == name).map(|(_, value)| value.to_owned())
}

fn tool(option: &str, dir: &Path) -> (Option<i32>, String) {
    let output = Command::new(lattis_server()).arg(option).arg(dir).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// Keys of which the value cannot be read.
fn unreadable(client: &mut Client, keys: usize) -> Vec<usize> {
    let unread = |number: &usize| {
        let reply = client.words(&format!("GET k{number}"));
        let why = reply.error().map(str::to_owned);
        assert!(why.as_ref().is_none_or(|why| why.contains("orrupt")), "{why:?}");
        assert!(why.is_some() || reply.text().is_some(), "k{number} is gone");
        why.is_some()
    };
    (0..keys).filter(unread).collect()
}

#[test]
fn one_damaged_block_stops_nobody() {
    let mut server = filled("block", KEYS);
    flip(&files(&server.data().join("rows"), "sst").pop().unwrap(), 50);
    server.restart();
    let mut client = server.client();
    let bad = unreadable(&mut client, KEYS);
    assert!(!bad.is_empty() && bad.len() < KEYS / 10, "{} keys cannot be read", bad.len());
    let bad: Vec<String> = bad.into_iter().map(|number| format!("k{number}")).collect();

    // Others that share ticks, and a pipeline, with who reads them.
    thread::scope(|scope| {
        let (bad, server) = (&bad[0], &server);
        let reading = scope.spawn(move || {
            let mut reader = server.client();
            for _ in 0..2_000 {
                assert!(reader.call(&["GET", bad]).error().is_some());
            }
        });
        let mut writer = server.client();
        let mut written = 0;
        while !reading.is_finished() {
            assert!(writer.call(&["SET", "innocent", &written.to_string()]).is_ok());
            written += 1;
        }
        assert!(written > 100, "{written}");
    });
    let pipeline = [vec!["SET", "one", "1"], vec!["GET", &bad[0]], vec!["INCR", "one"]];
    pipeline.iter().for_each(|command| client.send(command).unwrap());
    let replies: Vec<Value> = pipeline.iter().map(|_| client.read().unwrap()).collect();
    assert!(replies[0].is_ok() && replies[1].error().is_some(), "{replies:?}");
    assert_eq!(replies[2], Value::Int(2));
    assert_eq!(client.words("DBSIZE").int(), Some(KEYS as i64 + 12));

    // Files are merged until the damaged one is met; then that is told, and everything goes on.
    let mut written = 0;
    wait("the merging to meet it", || {
        for _ in 0..500 {
            assert!(client.words(&format!("SET new{written} x")).is_ok());
            written += 1;
        }
        info(&mut client, "lattis_files_are_merged").as_deref() == Some("0")
    });
    wait("all to be looked through", || info(&mut client, "lattis_damaged_ranges").is_some());
    assert_eq!(info(&mut client, "lattis_health").as_deref(), Some("damaged"));
    assert_ne!(info(&mut client, "lattis_damaged_ranges").as_deref(), Some("0"));
    let log = server.log();
    assert!(log.contains("cannot be read: from ") && log.contains(".sst"), "{log}");
    for _ in 0..2 {
        server.kill();
        server.restart();
        client = server.client();
        assert!(client.words("SET innocent again").is_ok());
        assert!(client.words("GET k0").text().is_some() || bad.contains(&"k0".to_owned()));
    }

    // What replaces a key need not read it.
    assert!(client.call(&["SET", &bad[0], "new"]).is_ok());
    assert_eq!(client.call(&["GET", &bad[0]]).text().as_deref(), Some("new"));
    assert_eq!(client.call(&["DEL", &bad[1]]).int(), Some(1));
    assert_eq!(client.call(&["EXISTS", &bad[1]]).int(), Some(0));
    assert_ne!(info(&mut client, "lattis_lost_rows").as_deref(), Some("0"));
    assert!(client.words("KEYS *").items().unwrap().len() > KEYS / 2);
    thread::sleep(Duration::from_secs(2));
    server.kill();
    server.restart();
    client = server.client();
    assert_eq!(client.call(&["GET", &bad[0]]).text().as_deref(), Some("new"));
    assert_eq!(client.call(&["EXISTS", &bad[1]]).int(), Some(0));
    for _ in 0..2 {
        assert!(client.words("FLUSHALL").is_ok());
        assert_eq!(client.words("DBSIZE").int(), Some(0));
        assert_eq!(client.words("KEYS *").items().unwrap().len(), 0);
        assert!(client.words("SADD s1 a").int().is_some());
        assert_eq!(client.words("SMEMBERS s1").sorted_texts(), ["a"]);
        thread::sleep(Duration::from_millis(1_500));
        server.kill();
        server.restart();
        client = server.client();
        assert_eq!(client.words("SMEMBERS s1").sorted_texts(), ["a"]);
        assert_eq!(client.words("DBSIZE").int(), Some(1));
    }
}

#[test]
fn a_directory_with_damaged_rows_is_checked_and_repaired() {
    let mut server = filled("repair", 5_000);
    let (code, text) = tool("--check", server.data());
    assert_eq!((code, text.contains("all of it can be read")), (Some(0), true), "{text}");
    flip(&files(&server.data().join("rows"), "sst").pop().unwrap(), 40);
    let (code, text) = tool("--check", server.data());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("damaged: from ") && text.contains(".sst"), "{text}");
    let (code, text) = tool("--repair", server.data());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("dropped: from ") && text.contains("peers"), "{text}");
    assert!(fs::read_to_string(server.data().join(".dropped")).unwrap().contains("dropped: "));
    assert!(server.data().with_file_name("data.damaged").is_dir());
    let (code, text) = tool("--check", server.data());
    assert_eq!(code, Some(0), "{text}");
    server.restart();
    let mut client = server.client();
    let keys = client.words("KEYS k*").items().unwrap().len();
    assert!((4_000..5_010).contains(&keys), "{keys}");
    let count = client.words("DBSIZE").int().unwrap();
    assert_eq!(client.words("KEYS *").items().unwrap().len() as i64, count);
    for set in 0..10 {
        let members = client.words(&format!("SMEMBERS s{set}")).items().unwrap().len();
        assert_eq!(client.words(&format!("SCARD s{set}")).int(), Some(members as i64));
    }
    assert!(client.words("SET k1 again").is_ok());
    assert_ne!(info(&mut client, "lattis_lost_rows").as_deref(), Some("0"));
    assert_ne!(info(&mut client, "incarnation").as_deref(), Some("1"));
    // A second time it is in the way of itself.
    server.kill();
    let (code, text) = tool("--repair", server.data());
    assert_eq!((code, text.contains("in the way")), (Some(1), true), "{text}");
}

#[test]
fn a_directory_with_a_damaged_log_keeps_its_rows() {
    let mut server = filled("log", 3_000);
    // A start writes what the write-ahead log holds to a file.
    server.restart();
    assert!(server.client().words("SET last 1").is_ok());
    assert!(server.terminate().success());
    flip(&files(server.data(), "sst").pop().unwrap(), 50);
    server.spawn();
    wait("the refusal", || server.try_wait().is_some_and(|status| status.code() == Some(1)));
    assert!(server.log().contains("--repair"), "{}", server.log());
    let (code, text) = tool("--check", server.data());
    assert_eq!((code, text.contains("damaged: the log, positions")), (Some(1), true), "{text}");
    let (code, text) = tool("--repair", server.data());
    assert_eq!(code, Some(0), "{text}");
    server.restart();
    let mut client = server.client();
    assert_eq!(client.words("DBSIZE").int(), Some(3_011));
    assert_eq!(client.words("GET last").text().as_deref(), Some("1"));
    assert_eq!(info(&mut client, "lattis_lost_rows").as_deref(), Some("0"));
    // Nothing was lost, so a peer can have it.
    let mut config = NodeConfig::new("peer");
    config.peers = vec![format!("127.0.0.1:{}", info(&mut client, "tcp_port").unwrap())];
    config.peers.clear();
    let peer = Server::lattis(&config);
    assert!(client.words(&format!("PEER.MEET 127.0.0.1 {}", config.peer_port)).is_ok());
    let mut there = peer.client();
    wait("the peer", || there.words("DIGEST.CRDT") == client.words("DIGEST.CRDT"));
    assert_eq!(there.words("DBSIZE").int(), Some(3_011));
}

#[test]
fn the_end_of_a_log_that_is_not_whole_is_told() {
    let mut server = Server::lattis(&NodeConfig::new("tail"));
    let mut client = server.client();
    for number in 0..100 {
        assert!(client.words(&format!("SET k{number} v")).is_ok());
    }
    server.kill();
    let wal = files(server.data(), "log").pop().unwrap();
    flip(&wal, 100 - 1);
    let (code, text) = tool("--check", server.data());
    assert_eq!((code, text.contains("are not whole")), (Some(0), true), "{text}");
    server.restart();
    let log = server.log();
    assert!(log.contains("were not whole") && log.contains("ends at position"), "{log}");
    let left = server.client().words("DBSIZE").int().unwrap();
    assert!((50..100).contains(&left), "{left}");
    server.kill();
    server.restart();
    assert_eq!(server.log().matches("were not whole").count(), 1, "{}", server.log());
}

/// A start that is refused, in one line.
fn refused(dir: &Path) -> String {
    let config = NodeConfig::new("refused");
    let output = Command::new(lattis_server())
        .args(["--port", &config.port.to_string(), "--peer-port", &config.peer_port.to_string()])
        .arg("--dir")
        .arg(dir)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let redis = Server::redis(&["--appendonly", "yes"]);
    assert!(redis.client().words("SET k v").is_ok());
    let text = refused(redis.data());
    assert!(text.contains("Redis") && text.contains("a directory of its own"), "{text}");
    let dir = TempDir::new("foreign");
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let text = refused(dir.path());
    assert!(text.contains("notes.txt") && text.contains("empty directory"), "{text}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let text = refused(&dir.path().join("notes.txt"));
    assert!(text.contains("not a directory"), "{text}");
    // A second server leaves the log of RocksDB of the first one alone.
    let server = Server::lattis(&NodeConfig::new("first"));
    let logs = || {
        let entries = fs::read_dir(server.data()).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("LOG")).collect::<Vec<_>>()
    };
    let before = logs();
    assert!(refused(server.data()).contains("another server"));
    assert_eq!(logs(), before);
}

/// A small file system of its own.
struct Disk(TempDir);

impl Disk {
    /// `None` where nothing may be mounted.
    fn new(size: &str) -> Option<Disk> {
        let dir = TempDir::new("disk");
        let size = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path());
        match mount.status().is_ok_and(|status| status.success()) {
            true => Some(Disk(dir)),
            false => {
                println!("nothing may be mounted here: not tested");
                None
            }
        }
    }

    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let mut mount = Command::new("mount");
        let status = mount.args(["-o", &options]).arg(self.0.path()).status();
        assert!(status.unwrap().success(), "{options}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn on(disk: &Disk) -> Server {
    let mut config = NodeConfig::new("disk");
    let dir = disk.0.path().join("data").display().to_string();
    config.more.extend(["--dir".into(), dir]);
    Server::lattis(&config)
}

fn cannot_write(client: &mut Client) {
    let reply = client.words("SET k2 v");
    assert!(reply.error().is_some_and(|it| it.starts_with("MISCONF")), "{reply:?}");
    assert_eq!(client.words("GET k").text().as_deref(), Some("v"));
    assert_eq!(client.words("EXISTS k2").int(), Some(0));
}

#[test]
fn a_file_system_that_cannot_be_written_is_read() {
    let Some(disk) = Disk::new("400m") else { return };
    let mut server = on(&disk);
    assert!(server.client().words("SET k v").is_ok());
    server.kill();
    disk.remount("ro");
    for _ in 0..2 {
        server.restart();
        cannot_write(&mut server.client());
        server.kill();
    }
    disk.remount("rw");
    server.restart();
    let mut client = server.client();
    assert!(client.words("SET k2 v").is_ok());
    assert_eq!(info(&mut client, "incarnation").as_deref(), Some("2"));
}

#[test]
fn a_full_disk_is_read_at_a_start() {
    let Some(disk) = Disk::new("400m") else { return };
    let mut server = on(&disk);
    assert!(server.client().words("SET k v").is_ok());
    server.kill();
    let filler = disk.0.path().join("filler");
    let mut fill = Command::new("dd");
    let fill = fill.args(["if=/dev/zero", "bs=4k", &format!("of={}", filler.display())]);
    assert!(!fill.output().unwrap().status.success());
    server.restart();
    cannot_write(&mut server.client());
    fs::remove_file(&filler).unwrap();
    server.kill();
    server.restart();
    assert!(server.client().words("SET k2 v").is_ok());
}
