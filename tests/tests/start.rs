//! Starting, telling, ending: the process around the data.
//!
//! Nodes are started as a supervisor would start them, with a standard error that goes somewhere else, with
//! ports that are taken, with signals; what is looked at is whether they run whole, and how they end.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lattis_tests::process::{PATIENCE, TempDir, free_port, guard, lattis_server};
use lattis_tests::resp::{Client, Value};

/// A node's process whose streams are the test's own affair.
struct Node {
    child: Child,
    port: u16,
    peer_port: u16,
}

impl Node {
    /// Starts a node with a data directory below that one.
    fn spawn(dir: &Path, more: &[&str], stderr: impl Into<Stdio>) -> Node {
        let (port, peer_port) = (free_port(), free_port());
        Node::spawn_at(dir, port, peer_port, more, stderr)
    }

    fn spawn_at(
        dir: &Path,
        port: u16,
        peer_port: u16,
        more: &[&str],
        stderr: impl Into<Stdio>,
    ) -> Node {
        let child = Command::new(lattis_server())
            .args(["--port", &port.to_string(), "--peer-port", &peer_port.to_string()])
            .arg("--dir")
            .arg(dir.join(format!("data-{port}")))
            .args(more)
            .current_dir(dir)
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("lattis-server");
        guard("add", child.id());
        Node { child, port, peer_port }
    }

    /// Waits until it answers.
    fn up(mut self) -> Node {
        let start = Instant::now();
        loop {
            let pong = Client::connect(self.port).and_then(|mut it| it.try_call(&["PING"]));
            if pong.is_ok() {
                return self;
            }
            let ended = self.child.try_wait().expect("the child's status");
            assert!(ended.is_none(), "ended at once: {ended:?}");
            assert!(start.elapsed() < PATIENCE, "does not answer");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn client(&self) -> Client {
        Client::connect(self.port).expect("a connection")
    }

    fn signal(&self, name: &str) {
        let (name, pid) = (name.to_string(), self.child.id().to_string());
        let kill = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", &name, &pid]).status();
        assert!(kill.expect("a shell").success(), "kill -s {name} {pid}");
    }

    /// Waits for the end.
    fn ended(&mut self, within: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child's status") {
                return status;
            }
            assert!(start.elapsed() < within, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and how it ends.
    fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.ended(PATIENCE).code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        guard("remove", self.child.id());
    }
}

fn wait_for(port: u16, line: &str, wanted: &str) {
    let start = Instant::now();
    let mut client = Client::connect(port).expect("a connection");
    while client.words(line).text().as_deref() != Some(wanted) {
        assert!(start.elapsed() < PATIENCE, "{line} is not {wanted}: {:?}", client.words(line));
        thread::sleep(Duration::from_millis(10));
    }
}

// ---- the log

/// A node whose log lines go nowhere is a whole node: it replicates, answers about its peers, and ends well.
fn is_whole(dir: &Path, more: &[&str], stderr: impl Into<Stdio>) {
    let mut node = Node::spawn(dir, more, stderr).up();
    let peers = format!("127.0.0.1:{}", node.peer_port);
    let more = ["--peers", &peers, "--node-name", "other"];
    let mut other = Node::spawn(dir, &more, Stdio::null()).up();
    assert!(node.client().words("SET k 1").is_ok());
    wait_for(other.port, "GET k", "1");
    assert!(other.client().words("SET back 2").is_ok());
    wait_for(node.port, "GET back", "2");
    let list = node.client().words("PEER.LIST");
    assert!(list.items().is_some_and(|peers| peers.len() == 1), "{list:?}");
    assert_eq!(other.stop(), Some(0));
    assert!(node.client().words("SET k 2").is_ok());
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn the_reader_of_the_log_is_gone() {
    let dir = TempDir::new("unheard");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    is_whole(dir.path(), &["--loglevel", "debug"], writer);
}

#[test]
fn the_reader_of_the_log_sleeps() {
    let dir = TempDir::new("asleep");
    let (_reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(&[b'x'; 64 << 10]).expect("room for as much as a pipe holds");
    is_whole(dir.path(), &["--loglevel", "debug"], writer);
}

#[test]
fn the_disk_of_the_log_is_full() {
    let dir = TempDir::new("full");
    let full = || File::options().write(true).open("/dev/full").expect("/dev/full");
    is_whole(dir.path(), &[], full());
    is_whole(dir.path(), &["--logfile", "/dev/full"], full());
}

/// Each line has time, level and part; a start tells where everything is and nothing that is normal; the
/// file is opened anew at SIGHUP.
#[test]
fn lines_have_time_level_and_part() {
    let dir = TempDir::new("lines");
    let file = dir.path().join("log");
    let path = file.display().to_string();
    let mut node = Node::spawn(dir.path(), &["--logfile", &path], Stdio::piped()).up();
    let peers = format!("127.0.0.1:{}", node.peer_port);
    let other = Node::spawn(dir.path(), &["--peers", &peers], Stdio::null()).up();
    assert!(node.client().words("SET k 1").is_ok());
    wait_for(other.port, "GET k", "1");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    let before = read();
    for line in before.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [time, level, part, text] = words[..] else { panic!("{line}") };
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{line}");
        assert_eq!(level, "INFO", "{line}");
        assert!(part.ends_with(':') && !text.is_empty(), "{line}");
    }
    assert!(before.lines().next().is_some_and(|line| line.contains(" run: Lattis ")), "{before}");
    assert!(before.contains("incarnation 1"), "{before}");
    assert!(!before.contains("unknown"), "{before}");
    let moved = dir.path().join("log.1");
    std::fs::rename(&file, &moved).expect("the log moves");
    node.signal("HUP");
    let start = Instant::now();
    while !read().contains("opened anew") {
        assert!(start.elapsed() < PATIENCE, "{}", read());
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(node.stop(), Some(0));
    assert!(read().contains("stopped"), "{}", read());
    assert_eq!(std::fs::read_to_string(&moved).ok(), Some(before));
    let mut stderr = String::new();
    node.child.stderr.take().expect("stderr").read_to_string(&mut stderr).expect("text");
    assert_eq!(stderr, "", "the log is a file");
}

// ---- signals

/// SIGHUP and its kin end nothing; SIGTERM and SIGINT do, with everything kept.
#[test]
fn signals_are_decided() {
    let dir = TempDir::new("signals");
    let mut node = Node::spawn(dir.path(), &[], Stdio::null()).up();
    for (at, name) in ["HUP", "PIPE", "USR1", "USR2", "HUP"].into_iter().enumerate() {
        node.signal(name);
        assert!(node.client().words("INCR n").int() == Some(at as i64 + 1), "{name}");
    }
    let (port, peer_port) = (node.port, node.peer_port);
    node.signal("INT");
    assert_eq!(node.ended(PATIENCE).code(), Some(0));
    let mut again = Node::spawn_at(dir.path(), port, peer_port, &[], Stdio::null()).up();
    assert_eq!(again.client().words("GET n"), Value::Bulk(b"5".to_vec()));
    // A second one does not wait for the first: what was answered is kept.
    assert!(again.client().words("INCR n").int() == Some(6));
    again.signal("STOP");
    again.signal("TERM");
    again.signal("INT");
    again.signal("CONT");
    assert!(again.ended(PATIENCE).code().is_some());
    let after = Node::spawn_at(dir.path(), port, peer_port, &[], Stdio::null()).up();
    assert_eq!(after.client().words("GET n"), Value::Bulk(b"6".to_vec()));
}
