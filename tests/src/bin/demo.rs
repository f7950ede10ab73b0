//! The tour of README.md, on real nodes: three of them, a partition, one state again, a kill -9.
//!
//! The tour is a table of steps with the lines that have to come. The demo runs it and prints it as a
//! shell session; it fails at the first line that differs, and leaves nothing running. README.md shows
//! the same session, which `tests/tests/readme.rs` compares with the table.

use std::io::Write as _;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use lattis_tests::process::{NodeConfig, PATIENCE, Server};
use lattis_tests::resp::{Client, Value};

/// The nodes, by what the steps call them: 0, 1 and 2.
const NAMES: [&str; 3] = ["eu", "us", "ap"];

/// A line that has to be the same wherever it stands, and that no table can know.
const DIGEST: &str = "\"DIGEST\"";

enum Step {
    /// Something to read.
    Note(&'static str),
    /// Starts a node, or starts it again.
    Start(usize),
    /// kill -9.
    Kill(usize),
    /// A command on a node, and what redis-cli prints.
    Call(usize, &'static str, &'static [&'static str]),
}

use Step::{Call, Kill, Note, Start};

const TOUR: &[Step] = &[
    Note("three nodes, each with the addresses of the others"),
    Start(0),
    Start(1),
    Start(2),
    Note("a set written in one place is there in the others"),
    Call(0, "SADD.CRDT numbers 1 2 3", &["(integer) 3"]),
    Call(2, "SMEMBERS numbers", &["1) \"1\"", "2) \"3\"", "3) \"2\""]),
    Note("a set derived from it: computed on every node, never sent"),
    Call(1, "MAP.BIND doubled numbers \"x * 2\"", &["OK"]),
    Call(0, "SMEMBERS doubled", &["1) \"6\"", "2) \"4\"", "3) \"2\""]),
    Note("a counter; the commands of Redis and those with .CRDT write the same data"),
    Call(0, "INCR.CRDT visits", &["(integer) 1"]),
    Call(1, "GET visits", &["\"1\""]),
    Call(1, "INCR visits", &["(integer) 2"]),
    Call(0, "GET visits", &["\"2\""]),
    Call(2, "GET visits", &["\"2\""]),
    Note("ap is cut off, and both sides go on writing"),
    Call(2, "PEER.PAUSE ALL", &["OK"]),
    Call(0, "SREM numbers 2", &["(integer) 1"]),
    Call(0, "INCR visits", &["(integer) 3"]),
    Call(2, "SADD numbers 2 10", &["(integer) 1"]),
    Call(2, "INCRBY visits 5", &["(integer) 7"]),
    Call(1, "SMEMBERS numbers", &["1) \"1\"", "2) \"3\""]),
    Call(1, "GET visits", &["\"3\""]),
    Note("together again: additions win over removals, increments add up, doubled follows"),
    Call(2, "PEER.RESUME ALL", &["OK"]),
    Call(0, "SMEMBERS doubled", &["1) \"6\"", "2) \"4\"", "3) \"20\"", "4) \"2\""]),
    Call(1, "SMEMBERS doubled", &["1) \"6\"", "2) \"4\"", "3) \"20\"", "4) \"2\""]),
    Call(2, "SMEMBERS doubled", &["1) \"6\"", "2) \"4\"", "3) \"20\"", "4) \"2\""]),
    Call(0, "GET visits", &["\"8\""]),
    Call(1, "GET visits", &["\"8\""]),
    Call(2, "GET visits", &["\"8\""]),
    Note("one digest of everything: equal digests, equal nodes"),
    Call(0, "DIGEST.CRDT", &[DIGEST]),
    Call(1, "DIGEST.CRDT", &[DIGEST]),
    Call(2, "DIGEST.CRDT", &[DIGEST]),
    Note("us is killed and started again: what it had is there, what it missed arrives"),
    Kill(1),
    Call(0, "INCR visits", &["(integer) 9"]),
    Start(1),
    Call(1, "GET visits", &["\"9\""]),
    Call(1, "SMEMBERS doubled", &["1) \"6\"", "2) \"4\"", "3) \"20\"", "4) \"2\""]),
];

/// The port that a node has in what is printed; it runs on a free one.
fn port(node: usize) -> usize {
    7001 + node
}

/// What one types for a step.
fn typed(step: &Step) -> String {
    match step {
        Note(text) => format!("# {text}"),
        Start(node) => {
            let others = (0..NAMES.len()).filter(|other| other != node);
            let peers: Vec<String> =
                others.map(|other| format!("127.0.0.1:{}", 10_000 + port(other))).collect();
            format!(
                "$ lattis-server --port {} --dir data/{name} --node-name {name} --peers \"{}\" &",
                port(*node),
                peers.join(" "),
                name = NAMES[*node]
            )
        }
        Kill(node) => format!("$ kill -9 %{}", node + 1),
        Call(node, line, _) => format!("$ redis-cli -p {} {line}", port(*node)),
    }
}

/// The whole session, as the table has it.
#[allow(dead_code, reason = "for tests/tests/readme.rs, which includes this file")]
pub fn session() -> Vec<String> {
    let mut lines = Vec::new();
    for step in TOUR {
        lines.push(typed(step));
        if let Call(_, _, want) = step {
            lines.extend(want.iter().map(|line| (*line).to_string()));
        }
    }
    lines
}

/// The words of a line; quotes keep words together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('"').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_string)),
            _ => words.push(part.to_string()),
        }
    }
    words
}

/// A reply as redis-cli prints it to a terminal.
fn printed(reply: &Value) -> Vec<String> {
    match reply.items() {
        None => vec![format!("{reply:?}")],
        Some([]) => vec!["(empty array)".to_string()],
        Some(items) => {
            let numbered = items.iter().enumerate();
            numbered.map(|(index, item)| format!("{}) {item:?}", index + 1)).collect()
        }
    }
}

#[derive(Default)]
struct Tour {
    nodes: Vec<Server>,
    /// The digest that was seen first.
    digest: Option<String>,
}

impl Tour {
    /// Runs a step and prints what it gives. The error says what differs.
    fn run(&mut self, step: &Step, configs: &[NodeConfig]) -> Result<(), String> {
        say(&typed(step));
        match step {
            Note(_) => {}
            Start(node) if *node < self.nodes.len() => self.nodes[*node].restart(),
            Start(node) => self.nodes.push(Server::lattis(&configs[*node])),
            Kill(node) => self.nodes[*node].kill(),
            Call(node, line, want) => {
                let got = self.ask(&mut self.nodes[*node].client(), line, want);
                got.iter().for_each(|line| say(line));
                if !self.fits(&got, want) {
                    return Err(format!("{} was expected", want.join(", ")));
                }
            }
        }
        Ok(())
    }

    /// A read is repeated until it gives what is wanted, since data takes its time between nodes; a
    /// write is made once.
    fn ask(&self, client: &mut Client, line: &str, want: &[&str]) -> Vec<String> {
        let words = words(line);
        let reads = ["GET", "SMEMBERS", "DIGEST.CRDT"].contains(&words[0].as_str());
        let start = Instant::now();
        loop {
            let got = printed(&client.call(&words));
            if !reads || self.fits(&got, want) || start.elapsed() > PATIENCE {
                return got;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn fits(&self, got: &[String], want: &[&str]) -> bool {
        if want == [DIGEST] {
            return got.len() == 1 && self.digest.as_ref().is_none_or(|digest| *digest == got[0]);
        }
        got == want
    }
}

/// Prints a line; a closed pipe is no reason to stop before the nodes are gone.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn main() -> ExitCode {
    let configs = NodeConfig::mesh(&NAMES);
    let mut tour = Tour::default();
    say("# the tour of README.md; the nodes run on free ports, shown as 7001 to 7003");
    for step in TOUR {
        if let Err(why) = tour.run(step, &configs) {
            say(&format!("demo: FAILED: {why}"));
            return ExitCode::FAILURE;
        }
        if let (Call(node, line, [DIGEST]), None) = (step, &tour.digest) {
            let got = printed(&tour.nodes[*node].client().call(&words(line)));
            tour.digest = got.into_iter().next();
        }
    }
    say("demo: three nodes, one state");
    ExitCode::SUCCESS
}
