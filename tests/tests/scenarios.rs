//! What concurrent commands mean, on real nodes: the scenarios of docs/semantics.md as a table.
//!
//! Each [`Scenario`] is run four times: with A's commands before B's in time and after them, and with
//! either node in the part of A. All scenarios of a run share one partition, on keys of their own. What
//! needs a deadline, a third node or an empty database has a test of its own below the table.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lattis_tests::process::{NodeConfig, PATIENCE, Server, wait};
use lattis_tests::resp::{Client, Value};

/// One row of the table. In all commands `@` stands for a prefix that is the scenario's own.
struct Scenario {
    name: &'static str,
    /// Run at A, then at B, before the partition; seen by both.
    setup: [&'static [&'static str]; 2],
    /// Run at A during the partition.
    a: &'static [&'static str],
    /// Run at B during the partition.
    b: &'static [&'static str],
    /// What both nodes answer afterwards: the command, the reply if A's commands came first in time, and
    /// the reply if B's did.
    reads: &'static [(&'static str, &'static str, &'static str)],
}

/// A reply that does not depend on who was first.
const fn both(
    line: &'static str,
    reply: &'static str,
) -> (&'static str, &'static str, &'static str) {
    (line, reply, reply)
}

const SCENARIOS: &[Scenario] = &[
    // ---- strings
    Scenario {
        name: "SET || SET: the later one, both as siblings",
        setup: [&[], &[]],
        a: &["SET @k a"],
        b: &["SET @k b"],
        reads: &[("GET @k", "b", "a"), both("SIBLINGS @k", "a b")],
    },
    Scenario {
        name: "a write that has seen both siblings replaces both",
        setup: [&["SET @k a"], &["SET @k b"]],
        a: &[],
        b: &[],
        reads: &[both("GET @k", "b"), both("SIBLINGS @k", "b")],
    },
    Scenario {
        name: "SET || DEL: the SET",
        setup: [&["SET @k a"], &[]],
        a: &["SET @k b"],
        b: &["DEL @k"],
        reads: &[both("GET @k", "b")],
    },
    Scenario {
        name: "SETNX || SETNX: both succeed, the later one is shown",
        setup: [&[], &[]],
        a: &["SETNX @k a"],
        b: &["SETNX @k b"],
        reads: &[("GET @k", "b", "a"), both("SIBLINGS @k", "a b")],
    },
    Scenario {
        name: "APPEND || APPEND: registers, the later one",
        setup: [&["SET @k x"], &[]],
        a: &["APPEND @k a"],
        b: &["APPEND @k b"],
        reads: &[("GET @k", "xb", "xa")],
    },
    // ---- counters
    Scenario {
        name: "INCRBY || INCRBY adds up",
        setup: [&[], &[]],
        a: &["INCRBY @k 7"],
        b: &["INCRBY @k 3"],
        reads: &[both("GET @k", "10")],
    },
    Scenario {
        name: "k=5 by SET: INCR || INCR",
        setup: [&["SET @k 5"], &[]],
        a: &["INCR @k"],
        b: &["INCR @k"],
        reads: &[both("GET @k", "7")],
    },
    Scenario {
        name: "k=5: DEL || INCR leaves the unseen increment",
        setup: [&["SET @k 5"], &[]],
        a: &["DEL @k"],
        b: &["INCR @k"],
        reads: &[both("GET @k", "1")],
    },
    Scenario {
        name: "k=5: DEL || DEL, INCR",
        setup: [&["SET @k 5"], &[]],
        a: &["DEL @k"],
        b: &["DEL @k", "INCR @k"],
        reads: &[both("GET @k", "1")],
    },
    Scenario {
        name: "k=7 by increments of both: DEL || DEL is absent, never negative",
        setup: [&["INCRBY @k 4"], &["INCRBY @k 3"]],
        a: &["DEL @k"],
        b: &["DEL @k"],
        reads: &[both("EXISTS @k", "0"), both("GET @k", "nil")],
    },
    Scenario {
        name: "SET resets what it has seen, the unseen increment is added",
        setup: [&["SET @k 5"], &["INCRBY @k 2"]],
        a: &["SET @k 100"],
        b: &["INCR @k"],
        reads: &[both("GET @k", "101")],
    },
    Scenario {
        name: "DECRBY || INCRBY",
        setup: [&["INCRBY @k 10"], &[]],
        a: &["DECRBY @k 4"],
        b: &["INCRBY @k 5"],
        reads: &[both("GET @k", "11")],
    },
    Scenario {
        name: "SET of a word || INCR: the increment is kept and not shown",
        setup: [&["SET @k 5"], &[]],
        a: &["SET @k word"],
        b: &["INCR @k"],
        reads: &[both("GET @k", "word")],
    },
    // ---- deadlines
    Scenario {
        name: "EXPIREAT || EXPIREAT: the longer one",
        setup: [&["SET @k v"], &[]],
        a: &["EXPIREAT @k 4000000010"],
        b: &["EXPIREAT @k 4000000050"],
        reads: &[both("EXPIRETIME @k", "4000000050"), both("GET @k", "v")],
    },
    Scenario {
        name: "EXPIREAT || PERSIST: no deadline",
        setup: [&["SET @k v", "EXPIREAT @k 4000000000"], &[]],
        a: &["EXPIREAT @k 4000000010"],
        b: &["PERSIST @k"],
        reads: &[both("TTL @k", "-1"), both("GET @k", "v")],
    },
    Scenario {
        name: "a later EXPIREAT replaces the one it has seen, shorter or not",
        setup: [&["SET @k v", "EXPIREAT @k 4000000090"], &["EXPIREAT @k 4000000020"]],
        a: &[],
        b: &[],
        reads: &[both("EXPIRETIME @k", "4000000020")],
    },
    Scenario {
        name: "EXPIREAT || SET without EX: no deadline",
        setup: [&["SET @k v", "EXPIREAT @k 4000000000"], &[]],
        a: &["EXPIREAT @k 4000000010"],
        b: &["SET @k w"],
        reads: &[both("TTL @k", "-1"), both("GET @k", "w")],
    },
    Scenario {
        name: "DEL || HSET of a key with a deadline: the field lives, and with the deadline",
        setup: [&["HSET @h f 1", "EXPIREAT @h 4000000000"], &[]],
        a: &["DEL @h"],
        b: &["HSET @h g 2"],
        reads: &[both("HGETALL @h", "g=2"), both("EXPIRETIME @h", "4000000000")],
    },
    // ---- sets
    Scenario {
        name: "SADD || SADD of different members",
        setup: [&[], &[]],
        a: &["SADD @s a"],
        b: &["SADD @s b"],
        reads: &[both("SMEMBERS @s", "a b"), both("SCARD @s", "2")],
    },
    Scenario {
        name: "SADD || SADD of the same member",
        setup: [&[], &[]],
        a: &["SADD @s a"],
        b: &["SADD @s a"],
        reads: &[both("SMEMBERS @s", "a"), both("SCARD @s", "1")],
    },
    Scenario {
        name: "s={a}: SREM || SADD of a member: the add",
        setup: [&["SADD @s a"], &[]],
        a: &["SREM @s a"],
        b: &["SADD @s a"],
        reads: &[both("SMEMBERS @s", "a")],
    },
    Scenario {
        name: "s={a,b}: SREM a c || SADD c",
        setup: [&["SADD @s a b"], &[]],
        a: &["SREM @s a c"],
        b: &["SADD @s c"],
        reads: &[both("SMEMBERS @s", "b c")],
    },
    Scenario {
        name: "s={e1}: DEL || SADD e2",
        setup: [&["SADD @s e1"], &[]],
        a: &["DEL @s"],
        b: &["SADD @s e2"],
        reads: &[both("SMEMBERS @s", "e2")],
    },
    Scenario {
        name: "SREM || SREM",
        setup: [&["SADD @s a b"], &[]],
        a: &["SREM @s a"],
        b: &["SREM @s a"],
        reads: &[both("SMEMBERS @s", "b")],
    },
    // ---- hashes
    Scenario {
        name: "HSET || HSET of different fields",
        setup: [&[], &[]],
        a: &["HSET @h f a"],
        b: &["HSET @h g b"],
        reads: &[both("HGETALL @h", "f=a g=b"), both("HLEN @h", "2")],
    },
    Scenario {
        name: "HSET || HSET of one field: the later one",
        setup: [&[], &[]],
        a: &["HSET @h f a"],
        b: &["HSET @h f b"],
        reads: &[("HGETALL @h", "f=b", "f=a")],
    },
    Scenario {
        name: "h={f:a}: HDEL || HSET",
        setup: [&["HSET @h f a"], &[]],
        a: &["HDEL @h f"],
        b: &["HSET @h f v"],
        reads: &[both("HGETALL @h", "f=v")],
    },
    Scenario {
        name: "HINCRBY || HINCRBY",
        setup: [&[], &[]],
        a: &["HINCRBY @h c 1"],
        b: &["HINCRBY @h c 2"],
        reads: &[both("HGETALL @h", "c=3")],
    },
    Scenario {
        name: "HDEL || HINCRBY leaves the unseen increment",
        setup: [&["HSET @h c 40"], &[]],
        a: &["HDEL @h c"],
        b: &["HINCRBY @h c 2"],
        reads: &[both("HGETALL @h", "c=2")],
    },
    Scenario {
        name: "HSET || HINCRBY: the new base and the unseen increment",
        setup: [&["HSET @h c 5"], &[]],
        a: &["HSET @h c 10"],
        b: &["HINCRBY @h c 1"],
        reads: &[both("HGETALL @h", "c=11")],
    },
    // ---- several types under one key
    Scenario {
        name: "SET || SADD: the one born last is visible, both are reported",
        setup: [&[], &[]],
        a: &["SET @k v"],
        b: &["SADD @k m"],
        reads: &[("TYPE @k", "set", "string"), both("SLOTS @k", "set string")],
    },
    Scenario {
        name: "SADD || HSET of a key that both have deleted",
        setup: [&["SET @k v"], &[]],
        a: &["DEL @k", "SADD @k m"],
        b: &["DEL @k", "HSET @k f v"],
        reads: &[("TYPE @k", "hash", "set"), both("SLOTS @k", "hash set")],
    },
    // ---- transactions
    Scenario {
        name: "EXEC || EXEC",
        setup: [&["SET @x 0"], &[]],
        a: &["MULTI", "SADD @s a", "INCRBY @c 2", "SET @x 1", "EXEC"],
        b: &["MULTI", "SADD @s b", "INCRBY @c 3", "SET @x 2", "EXEC"],
        reads: &[
            both("SMEMBERS @s", "a b"),
            both("GET @c", "5"),
            ("GET @x", "2", "1"),
            both("SIBLINGS @x", "1 2"),
        ],
    },
    // ---- bindings
    Scenario {
        name: "MAP.BIND || SADD to its source",
        setup: [&["SADD @s 1"], &[]],
        a: &["MAP.BIND @d @s x*2"],
        b: &["SADD @s 5"],
        reads: &[both("SMEMBERS @d", "10 2"), both("TYPE @d", "set")],
    },
    Scenario {
        name: "MAP.BIND || MAP.BIND of one target: the later one",
        setup: [&["SADD @s 3"], &[]],
        a: &["MAP.BIND @d @s x*2"],
        b: &["MAP.BIND @d @s x*3"],
        reads: &[("SMEMBERS @d", "9", "6")],
    },
    Scenario {
        name: "MAP.BIND || SADD to its target: the derived value is shown",
        setup: [&["SADD @s 3"], &[]],
        a: &["MAP.BIND @d @s x*2"],
        b: &["SADD @d 100"],
        reads: &[both("SMEMBERS @d", "6")],
    },
    Scenario {
        name: "sources changed at both sides of a chain",
        setup: [&["UNION.BIND @u @s @t", "FILTER.BIND @f @u x>2"], &[]],
        a: &["SADD @s 1 2 3"],
        b: &["SADD @t 3 4", "SADD @s 0"],
        reads: &[both("SMEMBERS @u", "0 1 2 3 4"), both("SMEMBERS @f", "3 4")],
    },
    Scenario {
        name: "DEL of the source || SADD to it: a binding outlives its source",
        setup: [&["SADD @s 1", "MAP.BIND @d @s x+1"], &[]],
        a: &["DEL @s"],
        b: &["SADD @s 2"],
        reads: &[both("SMEMBERS @d", "3")],
    },
    Scenario {
        name: "BIND.DEL || SADD to its source: the target is gone",
        setup: [&["SADD @s 1", "MAP.BIND @d @s x+1"], &[]],
        a: &["BIND.DEL @d"],
        b: &["SADD @s 2"],
        reads: &[both("EXISTS @d", "0"), both("SMEMBERS @s", "1 2")],
    },
    Scenario {
        name: "a cycle made by two: the later binding is suspended",
        setup: [&["SADD @s 1"], &[]],
        a: &["UNION.BIND @p @q @s"],
        b: &["UNION.BIND @q @p @s"],
        reads: &[("STATE @p", "active", "suspended"), ("STATE @q", "suspended", "active")],
    },
];

/// Rows of the semantics that are not run here, each with its reason.
const SKIPPED: &[(&str, &str)] = &[
    ("INCRBYFLOAT || INCRBYFLOAT", "the command does not exist yet"),
    ("ZADD || ZADD, ZINCRBY || ZINCRBY, ZREM || ZINCRBY", "the type does not exist yet"),
    ("LPUSH || LPUSH, LPUSH || DEL, RPOP || RPOP", "the type does not exist yet"),
    ("PFADD || PFADD, DEL || PFADD", "the type does not exist yet"),
    ("SPOP || SPOP", "the command does not exist yet"),
];

/// Nodes of which each dials all others.
fn nodes(names: &[&str]) -> Vec<Server> {
    NodeConfig::mesh(names).iter().map(Server::lattis).collect()
}

fn connect(server: &Server) -> Client {
    let mut client = server.client();
    assert!(client.words("HELLO 3").error().is_none());
    client
}

/// Waits until all nodes have one digest, and gives it.
fn wait_equal(clients: &mut [Client]) -> String {
    let start = Instant::now();
    loop {
        let digests: BTreeSet<String> =
            clients.iter_mut().filter_map(|client| client.words("DIGEST.CRDT").text()).collect();
        if let (1, Some(digest)) = (digests.len(), digests.first()) {
            return digest.clone();
        }
        if start.elapsed() > PATIENCE {
            let peers: Vec<Value> = clients.iter_mut().map(|c| c.words("PEER.LIST")).collect();
            panic!("digests stay different: {digests:?}\n{peers:#?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn everywhere(clients: &mut [Client], line: &str) {
    for client in clients {
        let reply = client.words(line);
        assert!(reply.error().is_none(), "{line}: {reply:?}");
    }
}

/// A reply as one line; unordered elements sorted.
fn plain(reply: &Value) -> String {
    match reply {
        Value::Int(number) => number.to_string(),
        Value::Null => "nil".to_string(),
        Value::Map(pairs) => {
            let mut pairs: Vec<String> =
                pairs.iter().map(|(k, v)| format!("{}={}", plain(k), plain(v))).collect();
            pairs.sort();
            pairs.join(" ")
        }
        Value::Error(text) => text.clone(),
        _ => reply.text().unwrap_or_else(|| {
            let mut items: Vec<String> =
                reply.items().unwrap_or_default().iter().map(plain).collect();
            items.sort();
            items.join(" ")
        }),
    }
}

fn field<'v>(map: &'v Value, name: &str) -> Option<&'v Value> {
    let Value::Map(pairs) = map else { return None };
    pairs.iter().find(|(key, _)| key.text().as_deref() == Some(name)).map(|(_, value)| value)
}

/// Asks; three words that are no commands read the values of siblings, the types of slots and the
/// state of a binding.
fn read(client: &mut Client, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let of = |value: &Value, index: usize| {
        value.items().and_then(|items| items.get(index)).map(plain).unwrap_or_default()
    };
    let mut found: Vec<String> = match words[0] {
        "SIBLINGS" => {
            let reply = client.call(&["GET.CRDT", words[1]]);
            reply.items().unwrap_or_default().iter().map(|sibling| of(sibling, 0)).collect()
        }
        "SLOTS" => {
            let reply = client.call(&["META.CRDT", words[1]]);
            let slots = field(&reply, "slots").and_then(Value::items).unwrap_or_default();
            slots.iter().filter_map(|slot| field(slot, "type")).map(plain).collect()
        }
        "STATE" => {
            let reply = client.call(&["BIND.LIST"]);
            let bindings = reply.items().unwrap_or_default().iter();
            let state = |it| of(it, 4).split(':').next().unwrap_or_default().to_string();
            bindings.filter(|it| of(it, 0) == words[1]).map(state).collect()
        }
        _ => return plain(&client.call(&words)),
    };
    found.sort();
    found.join(" ")
}

/// Runs the whole table once: `a` is the index of the node that plays A.
fn run(clients: &mut [Client], a: usize, a_first: bool, failures: &mut Vec<String>) {
    let b = 1 - a;
    let prefix = |index: usize| format!("{index}-{a}-{a_first}-");
    let run_all = |client: &mut Client, lines: fn(&Scenario) -> &'static [&'static str]| {
        for (index, scenario) in SCENARIOS.iter().enumerate() {
            for line in lines(scenario) {
                let reply = client.words(&line.replace('@', &prefix(index)));
                assert!(reply.error().is_none(), "{}: {line}: {reply:?}", scenario.name);
            }
        }
    };
    run_all(&mut clients[a], |scenario| scenario.setup[0]);
    wait_equal(clients);
    run_all(&mut clients[b], |scenario| scenario.setup[1]);
    wait_equal(clients);
    everywhere(clients, "PEER.PAUSE ALL");
    let order = if a_first { [a, b] } else { [b, a] };
    for node in order {
        match node == a {
            true => run_all(&mut clients[node], |scenario| scenario.a),
            false => run_all(&mut clients[node], |scenario| scenario.b),
        }
        // The other side's stamps are later, then.
        thread::sleep(Duration::from_millis(20));
    }
    everywhere(clients, "PEER.RESUME ALL");
    wait_equal(clients);
    for (index, scenario) in SCENARIOS.iter().enumerate() {
        for (line, after_a, after_b) in scenario.reads {
            let line = line.replace('@', &prefix(index));
            let want = if a_first { after_a } else { after_b };
            for node in [a, b] {
                let got = read(&mut clients[node], &line);
                if got != *want {
                    let name = scenario.name;
                    let who = if node == a { "A" } else { "B" };
                    failures.push(format!("{name}: {line} at {who}: {got}, not {want}"));
                }
            }
        }
    }
}

#[test]
fn the_table() {
    let servers = nodes(&["north", "south"]);
    let mut clients: Vec<Client> = servers.iter().map(connect).collect();
    let mut failures = Vec::new();
    for (a, a_first) in [(0, true), (0, false), (1, true), (1, false)] {
        run(&mut clients, a, a_first, &mut failures);
    }
    println!("{} scenarios, each in 4 orders", SCENARIOS.len());
    for (name, why) in SKIPPED {
        println!("SKIPPED: {name}: {why}");
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    since.as_millis() as u64
}

/// A causally later write wins, whatever the clocks say: B's is an hour slow, or an hour fast.
#[test]
fn clocks_do_not_undo_causality() {
    for clock in ["-1h", "+1h"] {
        let mut configs = NodeConfig::mesh(&["north", "south"]);
        configs[1].clock = Some(clock.to_string());
        for config in &mut configs {
            config.more.extend(["--clock-max-drift".into(), "7200".into()]);
        }
        let servers: Vec<Server> = configs.iter().map(Server::lattis).collect();
        let mut clients: Vec<Client> = servers.iter().map(connect).collect();
        let seconds = |reply: Value| plain(&reply.items().unwrap_or_default()[0]).parse::<i64>();
        let [one, other] = [0, 1].map(|at| seconds(clients[at].words("TIME")).expect("seconds"));
        assert!(one.abs_diff(other) > 3_000, "the clocks are the same");
        for (key, first, second) in [("k", 0, 1), ("l", 1, 0)] {
            clients[first].words(&format!("SET {key} first"));
            wait_equal(&mut clients);
            assert_eq!(read(&mut clients[second], &format!("GET {key}")), "first");
            clients[second].words(&format!("SET {key} second"));
            wait_equal(&mut clients);
            for client in &mut clients {
                assert_eq!(read(client, &format!("GET {key}")), "second", "{clock}");
                assert_eq!(read(client, &format!("SIBLINGS {key}")), "second", "{clock}");
            }
        }
    }
}

/// What a node two hours ahead writes waits at the others, who say so and go on; an operator may take it. The
/// node itself sees that its clock is not that of its peers, and refuses writes.
#[test]
fn a_clock_far_ahead_is_held_and_fenced() {
    let mut configs = NodeConfig::mesh(&["north", "south", "ahead"]);
    configs[2].clock = Some("+2h".to_string());
    let servers: Vec<Server> = configs.iter().map(Server::lattis).collect();
    let mut clients: Vec<Client> = servers.iter().map(connect).collect();
    // Before its peers have told it the time it may write.
    let early = clients[2].words("SET ahead 1").is_ok();
    let fenced = |client: &mut Client| {
        client
            .words("SET late 1")
            .error()
            .is_some_and(|it| it.starts_with("MISCONF this node's clock"))
    };
    wait("the node ahead to refuse writes", || fenced(&mut clients[2]));
    assert_eq!(read(&mut clients[2], "PING"), "PONG");
    let [north, south, ahead] = &mut clients[..] else { panic!("three clients") };
    assert!(north.words("SET k v").is_ok());
    wait("the others to go on", || read(south, "GET k") == "v");
    wait("the node ahead to follow", || read(ahead, "GET k") == "v");
    if early {
        wait("the others to wait for it", || read(north, "PEER.LIST").contains("clock"));
        assert_eq!(north.words("EXISTS ahead"), Value::Int(0));
        let info = read(north, "INFO replication");
        assert!(info.contains("lattis_peers_held_by_clock:1"), "{info}");
        for client in [north, south] {
            assert!(client.words("PEER.ACCEPT-CLOCK ahead").is_ok());
            wait("what was written ahead", || client.words("EXISTS ahead") == Value::Int(1));
        }
    }
    assert!(clients[0].words("PEER.ACCEPT-CLOCK nobody").error().is_some());
}

/// Times to live run by the clock of the node that is asked, whatever another node's clock says, also where
/// operators take what a clock far ahead has written: sessions stay, a lock lasts as long as it was to last,
/// and its end is told right. Once the clocks agree all nodes are equal.
#[test]
fn times_to_live_run_by_the_clock_of_the_node_that_is_asked() {
    for clock in ["+2h", "-1d"] {
        let mut configs = NodeConfig::mesh(&["north", "south", "wrong"]);
        configs[2].clock = Some(clock.to_string());
        for config in &mut configs {
            config.more.extend(["--clock-max-drift".into(), "1000000".into()]);
        }
        let servers: Vec<Server> = configs.iter().map(Server::lattis).collect();
        let mut clients: Vec<Client> = servers.iter().map(connect).collect();
        for number in 0..20 {
            assert!(clients[0].words(&format!("SET session:{number} s EX 3600")).is_ok());
        }
        wait_equal(&mut clients[..2]);
        // The wrong clock writes, and everybody takes it.
        assert!(clients[2].words("SET wrong 1").is_ok());
        for client in &mut clients[..2] {
            wait("what the wrong clock wrote", || client.words("EXISTS wrong") == Value::Int(1));
        }
        for (at, client) in clients.iter_mut().take(2).enumerate() {
            assert!(client.words(&format!("SET lock{at} held NX PX 2000")).is_ok());
            let (now, end) = (millis(), client.words(&format!("PEXPIRETIME lock{at}")));
            let Value::Int(end) = end else { panic!("{end:?}") };
            assert!((end as u64).abs_diff(now + 2000) < 500, "{clock}: ends at {end}, it is {now}");
        }
        wait_equal(&mut clients[..2]);
        thread::sleep(Duration::from_millis(1000));
        for client in &mut clients[..2] {
            assert_eq!(client.words("EXISTS lock0 lock1"), Value::Int(2), "{clock}: too early");
        }
        thread::sleep(Duration::from_millis(1200));
        for client in &mut clients[..2] {
            assert_eq!(client.words("EXISTS lock0 lock1"), Value::Int(0), "{clock}: too late");
            assert_eq!(client.words("DBSIZE"), Value::Int(21), "{clock}: sessions are gone");
        }
        // The clock is set right while the node runs: ahead or back.
        servers[2].set_clock("+0");
        let seconds = |client: &mut Client| plain(&client.words("TIME").items().unwrap()[0]);
        wait("the right time", || {
            let shown: u64 = seconds(&mut clients[2]).parse().unwrap();
            shown.abs_diff(millis() / 1000) < 5
        });
        assert!(clients[2].words("SET lock2 held NX PX 1000").is_ok());
        thread::sleep(Duration::from_millis(1200));
        assert_eq!(clients[2].words("EXISTS lock2"), Value::Int(0), "{clock}: after the step");
        wait_equal(&mut clients);
        // What it had hidden while it was ahead stays hidden there, and is no fact of anybody else's.
        let shown = if clock == "+2h" { 1 } else { 21 };
        assert_eq!(clients[2].words("DBSIZE"), Value::Int(shown), "{clock}");
    }
}

/// A hash expires at A while B, cut off, writes to it just before: nothing of it is visible after the
/// deadline at either node, before they meet again and after. What is written after it is a new life.
#[test]
fn a_deadline_hides_what_was_written_before_it() {
    let servers = nodes(&["north", "south"]);
    let mut clients: Vec<Client> = servers.iter().map(connect).collect();
    for (a, b) in [(0, 1), (1, 0)] {
        let deadline = millis() + 700;
        for key in ["h", "new"] {
            clients[a].words(&format!("HSET {key} f 1"));
            clients[a].words(&format!("PEXPIREAT {key} {deadline}"));
        }
        wait_equal(&mut clients);
        everywhere(&mut clients, "PEER.PAUSE ALL");
        thread::sleep(Duration::from_millis(300));
        assert!(millis() < deadline, "this machine is too slow for the test");
        assert_eq!(clients[b].words("HSET h last 9"), Value::Int(1));
        while millis() <= deadline {
            thread::sleep(Duration::from_millis(5));
        }
        for client in &mut clients {
            assert_eq!(client.words("HGETALL h"), Value::Map(Vec::new()));
            assert_eq!(client.words("EXISTS h new"), Value::Int(0));
        }
        assert_eq!(clients[b].words("HSET new g 2"), Value::Int(1));
        everywhere(&mut clients, "PEER.RESUME ALL");
        wait_equal(&mut clients);
        for client in &mut clients {
            assert_eq!(client.words("HGETALL h"), Value::Map(Vec::new()));
            assert_eq!(read(client, "HGETALL new"), "g=2");
            assert_eq!(client.words("TTL new"), Value::Int(-1));
            assert_eq!(client.words("DBSIZE"), Value::Int(1));
        }
        clients[a].words("DEL new");
        wait_equal(&mut clients);
    }
}

/// FLUSHALL removes what its node had seen, bindings too; a key written beside it stays.
#[test]
fn flushall_keeps_what_it_has_not_seen() {
    let servers = nodes(&["north", "south"]);
    let mut clients: Vec<Client> = servers.iter().map(connect).collect();
    for (a, b, a_first) in [(0, 1, true), (1, 0, true), (0, 1, false), (1, 0, false)] {
        for number in 0..200 {
            clients[a].words(&format!("SET k{number} v"));
            clients[b].words(&format!("SADD s{} m{number}", number % 10));
            clients[b].words(&format!("HINCRBY h n {number}"));
        }
        clients[b].words("MAP.BIND d s1 x");
        wait_equal(&mut clients);
        everywhere(&mut clients, "PEER.PAUSE ALL");
        let mut flush = |first: bool| {
            if first == a_first {
                assert!(clients[a].words("FLUSHALL").is_ok());
                assert_eq!(clients[a].words("DBSIZE"), Value::Int(0));
            } else {
                assert!(clients[b].words("SET new 1").is_ok());
                assert_eq!(clients[b].words("HINCRBY h n 7"), Value::Int(19900 + 7));
            }
            thread::sleep(Duration::from_millis(10));
        };
        flush(true);
        flush(false);
        everywhere(&mut clients, "PEER.RESUME ALL");
        wait_equal(&mut clients);
        for client in &mut clients {
            assert_eq!(read(client, "KEYS *"), "h new");
            assert_eq!(read(client, "GET new"), "1");
            assert_eq!(read(client, "HGETALL h"), "n=7");
            assert_eq!(read(client, "BIND.LIST"), "");
        }
        clients[a].words("FLUSHALL");
        wait_equal(&mut clients);
    }
}

/// A remote commit to a watched key fails the EXEC; one to another key does not.
#[test]
fn a_remote_commit_breaks_a_watch() {
    let servers = nodes(&["north", "south"]);
    let mut clients: Vec<Client> = servers.iter().map(connect).collect();
    for (a, b) in [(0, 1), (1, 0)] {
        for (key, kept) in [("watched", false), ("other", true)] {
            wait_equal(&mut clients);
            assert!(clients[b].words("WATCH watched").is_ok());
            assert!(clients[a].words(&format!("SET {key} {a}")).is_ok());
            wait_equal(&mut clients);
            assert!(clients[b].words("MULTI").is_ok());
            clients[b].words("SET result 1");
            let reply = clients[b].words("EXEC");
            assert_eq!(reply != Value::Null, kept, "{key}: {reply:?}");
        }
    }
}

/// A key of which two types were written keeps both, and DEL removes both.
#[test]
fn a_delete_removes_the_hidden_type_too() {
    let servers = nodes(&["north", "south"]);
    let mut clients: Vec<Client> = servers.iter().map(connect).collect();
    for (a, b) in [(0, 1), (1, 0)] {
        wait_equal(&mut clients);
        everywhere(&mut clients, "PEER.PAUSE ALL");
        clients[0].words("HSET k f v");
        clients[1].words("SADD k m");
        everywhere(&mut clients, "PEER.RESUME ALL");
        wait_equal(&mut clients);
        for client in &mut clients {
            assert_eq!(read(client, "SLOTS k"), "hash set");
        }
        assert_eq!(clients[a].words("DEL k"), Value::Int(1));
        wait_equal(&mut clients);
        for client in &mut clients {
            assert_eq!(read(client, "SLOTS k"), "");
            assert_eq!(client.words("EXISTS k"), Value::Int(0));
        }
        // It is as new for the other types.
        assert_eq!(clients[b].words("INCR k"), Value::Int(1));
        wait_equal(&mut clients);
        assert_eq!(read(&mut clients[a], "TYPE k"), "string");
        clients[a].words("DEL k");
    }
}

/// Derived keys refuse writes at every node.
#[test]
fn derived_keys_are_read_only_everywhere() {
    let servers = nodes(&["north", "south"]);
    let mut clients: Vec<Client> = servers.iter().map(connect).collect();
    clients[0].words("MAP.BIND d s x");
    wait_equal(&mut clients);
    for client in &mut clients {
        for line in ["SADD d 1", "SREM d 1", "DEL d", "SET d 1", "EXPIRE d 10"] {
            let reply = client.words(line);
            let refused = reply.error().is_some_and(|error| error.starts_with("READONLY "));
            // There is nothing to delete or to expire while it is empty.
            assert!(refused || reply == Value::Int(0), "{line}: {reply:?}");
        }
    }
}

/// Three nodes; the link between the first and the last is held apart, so that what they tell each
/// other goes through the one between.
fn relay() -> Vec<Server> {
    let servers = nodes(&["north", "middle", "south"]);
    wait_equal(&mut servers.iter().map(connect).collect::<Vec<_>>());
    for (from, to) in [(0, "south"), (2, "north")] {
        let mut client = servers[from].client();
        let start = Instant::now();
        while !client.words(&format!("PEER.PAUSE {to}")).is_ok() {
            assert!(start.elapsed() < PATIENCE, "{to} is not known");
            thread::sleep(Duration::from_millis(5));
        }
    }
    servers
}

/// A transaction is seen whole or not at all, directly and through a relay, while links come and go.
#[test]
fn a_transaction_is_never_seen_half() {
    for servers in [nodes(&["north", "middle", "south"]), relay()] {
        let mut writer = connect(&servers[0]);
        writer.words("MSET x 0 y 0");
        let stop = AtomicBool::new(false);
        let seen = thread::scope(|scope| {
            let readers: Vec<_> = servers[1..]
                .iter()
                .map(|server| {
                    scope.spawn(|| {
                        let mut client = connect(server);
                        let mut seen = BTreeSet::new();
                        while !stop.load(Ordering::SeqCst) {
                            client.words("MULTI");
                            client.words("GET x");
                            client.words("GET y");
                            let reply = client.words("EXEC");
                            let items = reply.items().expect("two values");
                            assert_eq!(items[0], items[1], "{} saw half", server.name());
                            seen.insert(plain(&items[0]));
                        }
                        seen
                    })
                })
                .collect();
            for number in 1..=300 {
                writer.words("MULTI");
                writer.words(&format!("SET x {number}"));
                writer.words(&format!("SET y {number}"));
                assert!(writer.words("EXEC").items().is_some());
                if number % 60 == 0 {
                    writer.words("PEER.PAUSE middle");
                    thread::sleep(Duration::from_millis(20));
                    writer.words("PEER.RESUME middle");
                }
                thread::sleep(Duration::from_millis(1));
            }
            wait_equal(&mut servers.iter().map(connect).collect::<Vec<_>>());
            stop.store(true, Ordering::SeqCst);
            readers.into_iter().map(|reader| reader.join().expect("a reader")).collect::<Vec<_>>()
        });
        for seen in seen {
            assert!(seen.len() > 20 && seen.contains("300"), "only {} states seen", seen.len());
        }
    }
}

/// A post that was written after seeing a photo is nowhere seen without it, whatever way it took.
#[test]
fn causal_order_holds_over_keys() {
    for servers in [nodes(&["north", "middle", "south"]), relay()] {
        const PHOTOS: i64 = 200;
        let posts = thread::scope(|scope| {
            let poster = scope.spawn(|| {
                let mut client = connect(&servers[1]);
                let (mut last, mut count) = (0, 0);
                while last < PHOTOS {
                    let photo = client.words("GET photo").text().and_then(|text| text.parse().ok());
                    if let Some(photo) = photo.filter(|photo| *photo > last) {
                        client.words(&format!("SET post {photo}"));
                        last = photo;
                        count += 1;
                    }
                }
                count
            });
            let readers: Vec<_> = [&servers[0], &servers[2]]
                .into_iter()
                .map(|server| {
                    scope.spawn(move || {
                        let mut client = connect(server);
                        let start = Instant::now();
                        loop {
                            // The post first: a photo may come between the two reads, never go.
                            let post = client.words("GET post").text();
                            let photo = client.words("GET photo").text();
                            let number = |text: Option<String>| -> i64 {
                                text.map_or(0, |text| text.parse().expect("a number"))
                            };
                            let (post, photo) = (number(post), number(photo));
                            let name = server.name();
                            assert!(post <= photo, "{name} has post {post} and photo {photo}");
                            if post == PHOTOS {
                                return;
                            }
                            assert!(start.elapsed() < PATIENCE, "{name} waits at {post}");
                        }
                    })
                })
                .collect();
            let mut client = connect(&servers[0]);
            for number in 1..=PHOTOS {
                client.words(&format!("SET photo {number}"));
                if number % 50 == 0 {
                    client.words("PEER.PAUSE south");
                    thread::sleep(Duration::from_millis(10));
                    client.words("PEER.RESUME south");
                }
                thread::sleep(Duration::from_millis(1));
            }
            readers.into_iter().for_each(|reader| reader.join().expect("a reader"));
            poster.join().expect("the poster")
        });
        assert!(posts > 20, "only {posts} posts");
    }
}
