//! Real nodes under random writes, pauses and kills: after each round they agree, and on the right data.
//!
//! Clients of redis-rs and redis-cli processes write to all nodes; links are paused and nodes killed
//! (kill -9) and started again beside them. What was acknowledged is remembered, what lost its reply is
//! remembered as possible; at the end of a round, with all links back, the nodes have to have one digest
//! and one dump, which holds exactly that. `ROUNDS` and `SEED` choose a longer run or another one.
//!
//! In *weather* links are slow or stall and wall clocks are wrong meanwhile, by minutes or a day; and what
//! lies on a disk is damaged between two rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lattis_tests::cluster::Link;
use lattis_tests::process::{NodeConfig, PATIENCE, Server};
use lattis_tests::resp::{Client, Value};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// Redis-rs clients at each node.
const WRITERS: usize = 2;
/// Commands of each in a round.
const COMMANDS: usize = 60;
/// Longer than any deadline that is meant to pass.
const NEAR_DEADLINE: Duration = Duration::from_millis(200);
/// Commands of the redis-cli process at each node in a round.
const CLI_COMMANDS: usize = 20;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

struct Random(ChaCha8Rng);

impl Random {
    fn new(seed: u64) -> Random {
        Random(ChaCha8Rng::seed_from_u64(seed))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end
    }

    fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }
}

// ---- what is written

/// A command whose effect is followed, or only compared between the nodes.
#[derive(Clone, Debug)]
enum Op {
    /// `INCRBY key by`, or `INCR`.
    Count {
        key: String,
        by: i64,
    },
    /// `HINCRBY hash field by`
    CountField {
        field: String,
        by: i64,
    },
    Add {
        set: String,
        member: String,
    },
    Remove {
        set: String,
        member: String,
    },
    Set {
        key: String,
        value: String,
    },
    SetField {
        field: String,
        value: String,
    },
    /// Numbers, from which keys are derived.
    Number {
        add: bool,
        number: u64,
    },
    /// Anything else, on keys that only have to be equal everywhere.
    Noise(String),
    /// MULTI and EXEC around others.
    Exec(Vec<Op>),
}

impl Op {
    fn words(&self) -> Vec<String> {
        let line = match self {
            Op::Count { key, by: 1 } => format!("INCR {key}"),
            Op::Count { key, by } => format!("INCRBY {key} {by}"),
            Op::CountField { field, by } => format!("HINCRBY counts {field} {by}"),
            Op::Add { set, member } => format!("SADD {set} {member}"),
            Op::Remove { set, member } => format!("SREM {set} {member}"),
            Op::Set { key, value } => format!("SET {key} {value}"),
            Op::SetField { field, value } => format!("HSET words {field} {value}"),
            Op::Number { add: true, number } => format!("SADD numbers {number}"),
            Op::Number { add: false, number } => format!("SREM numbers {number}"),
            Op::Noise(line) => line.clone(),
            Op::Exec(_) => "EXEC".to_string(),
        };
        line.split_whitespace().map(str::to_string).collect()
    }
}

/// A random command; `tag` makes what it writes its own.
fn random_op(random: &mut Random, tag: &str, known: &[(String, String)]) -> Op {
    let which = random.below(4);
    match random.below(100) {
        0..20 => {
            let by = if random.one_in(2) { 1 } else { random.below(200) as i64 - 100 };
            Op::Count { key: format!("count{which}"), by }
        }
        20..30 => Op::CountField { field: format!("f{which}"), by: 1 + random.below(9) as i64 },
        30..50 => {
            Op::Add { set: format!("set{which}"), member: format!("{tag}-{}", random.below(1000)) }
        }
        50..58 if !known.is_empty() => {
            let (set, member) = known[random.below(known.len() as u64) as usize].clone();
            Op::Remove { set, member }
        }
        58..68 => {
            Op::Set { key: format!("word{which}"), value: format!("{tag}-{}", random.0.next_u32()) }
        }
        68..76 => Op::SetField {
            field: format!("f{which}"),
            value: format!("{tag}-{}", random.0.next_u32()),
        },
        76..84 => Op::Number { add: random.below(3) > 0, number: random.below(300) },
        84..90 => {
            let ops = (0..2 + random.below(4)).map(|_| {
                loop {
                    match random_op(random, tag, known) {
                        Op::Exec(_) | Op::Noise(_) => {}
                        op => return op,
                    }
                }
            });
            Op::Exec(ops.collect())
        }
        _ => Op::Noise(random_noise(random)),
    }
}

fn random_noise(random: &mut Random) -> String {
    let (key, n) = (format!("noise{}", random.below(6)), random.below(5));
    match random.below(18) {
        0..2 => format!("DEL {key}"),
        2..4 => format!("SET {key} {n}"),
        4..6 => format!("SADD {key} {n} x{n}"),
        6..8 => format!("HSET {key} f{n} {n}"),
        8 => format!("SREM {key} {n}"),
        9 => format!("HDEL {key} f{n}"),
        10 => format!("INCR {key}"),
        11 => format!("HINCRBY {key} f{n} 2"),
        12 => format!("EXPIRE {key} {}", 1000 + n),
        13 => format!("PEXPIRE {key} {}", 20 + 40 * n),
        14 => format!("PERSIST {key}"),
        15 => format!("SET {key} {n} PX {}", 20 + 40 * n),
        16 => format!("MAP.BIND made{} noise{n} x+{n}", n % 2),
        _ => format!("BIND.DEL made{}", n % 2),
    }
}

/// Whether a command's reply has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Acknowledged,
    Lost,
}

type Done = Vec<(Op, Reply)>;

/// One client's round. It connects again when its node is killed.
fn write(port: u16, seed: u64, tag: &str, known: &[(String, String)]) -> Done {
    let mut random = Random::new(seed);
    let mut done = Done::new();
    let protocol = if random.one_in(2) { "" } else { "?protocol=resp3" };
    let client =
        redis::Client::open(format!("redis://127.0.0.1:{port}/{protocol}")).expect("a URL");
    let mut connection: Option<redis::Connection> = None;
    for _ in 0..COMMANDS {
        let op = random_op(&mut random, tag, known);
        let start = Instant::now();
        let current = loop {
            match connection.as_mut() {
                Some(connection) => break connection,
                None => {
                    assert!(start.elapsed() < PATIENCE, "port {port} does not answer");
                    connection = client.get_connection().ok();
                    if connection.is_none() {
                        thread::sleep(Duration::from_millis(5));
                    }
                }
            }
        };
        let result: redis::RedisResult<redis::Value> = match &op {
            Op::Exec(ops) => {
                let mut pipe = redis::pipe();
                pipe.atomic();
                for op in ops {
                    let words = op.words();
                    pipe.cmd(&words[0]).arg(&words[1..]);
                }
                pipe.query(current)
            }
            op => {
                let words = op.words();
                redis::cmd(&words[0]).arg(&words[1..]).query(current)
            }
        };
        match result {
            Ok(_) => done.push((op, Reply::Acknowledged)),
            Err(error) if error.is_io_error() || error.is_connection_dropped() => {
                done.push((op, Reply::Lost));
                connection = None;
            }
            // A node whose clock is ahead of all others takes no writes.
            Err(error) if matches!(error.code(), Some("MISCONF" | "EXECABORT")) => {}
            Err(error) => assert!(matches!(op, Op::Noise(_)), "{op:?}: {error}"),
        }
        if random.one_in(3) {
            thread::sleep(Duration::from_millis(random.below(6)));
        }
    }
    done
}

/// One redis-cli process that gets its commands by a pipe. It repeats a command that has lost its reply, so
/// only without a kill is it known how often each was run.
fn write_by_cli(port: u16, seed: u64, tag: &str, killed: &AtomicBool) -> Done {
    let mut random = Random::new(seed);
    let ops: Vec<Op> = std::iter::repeat_with(|| random_op(&mut random, tag, &[]))
        .filter(|op| !matches!(op, Op::Exec(_) | Op::Noise(_)))
        .take(CLI_COMMANDS)
        .collect();
    let mut child = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-cli");
    let mut input = child.stdin.take().expect("its stdin");
    let lines: String = ops.iter().map(|op| op.words().join(" ") + "\n").collect();
    let _ = input.write_all(lines.as_bytes());
    drop(input);
    let output = child.wait_with_output().expect("redis-cli's end");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let good = |line: &str| line == "OK" || line.parse::<i64>().is_ok();
    if text.lines().count() == ops.len() && text.lines().all(good) && !killed.load(Ordering::SeqCst)
    {
        return ops.into_iter().map(|op| (op, Reply::Acknowledged)).collect();
    }
    assert!(killed.load(Ordering::SeqCst), "redis-cli says {text}");
    ops.into_iter().flat_map(|op| [(op.clone(), Reply::Lost), (op, Reply::Lost)]).collect()
}

// ---- what has to be there

/// What the data has to be, as far as it is known.
#[derive(Default)]
struct Model {
    /// Least and greatest possible sums: by `count0` and `counts f0`.
    counts: BTreeMap<String, (i64, i64)>,
    /// Possible values: by `word0` and `words f0`.
    words: BTreeMap<String, BTreeSet<Option<String>>>,
    /// Members acknowledged that nobody has tried to remove.
    members: BTreeSet<(String, String)>,
    /// Members that may be there.
    possible: BTreeSet<(String, String)>,
}

impl Model {
    fn take(&mut self, rounds: Vec<Done>) {
        let mut words: BTreeMap<String, (bool, BTreeSet<Option<String>>)> = BTreeMap::new();
        for done in rounds {
            // Of one client's writes of a key, the last acknowledged replaces those before it.
            let mut mine: BTreeMap<String, (bool, BTreeSet<Option<String>>)> = BTreeMap::new();
            for (op, reply) in done {
                let ops = if let Op::Exec(ops) = op { ops } else { vec![op] };
                ops.into_iter().for_each(|op| self.take_one(op, reply, &mut mine));
            }
            for (key, (replaced, values)) in mine {
                let all = words.entry(key).or_default();
                all.0 |= replaced;
                all.1.extend(values);
            }
        }
        for (key, (replaced, values)) in words {
            let known = self.words.entry(key).or_insert_with(|| BTreeSet::from([None]));
            if replaced {
                known.clear();
            }
            known.extend(values);
        }
    }

    fn take_one(
        &mut self,
        op: Op,
        reply: Reply,
        words: &mut BTreeMap<String, (bool, BTreeSet<Option<String>>)>,
    ) {
        let acknowledged = reply == Reply::Acknowledged;
        match op {
            Op::Count { .. } | Op::CountField { .. } => {
                let (key, by) = match op {
                    Op::Count { key, by } => (key, by),
                    Op::CountField { field, by } => (format!("counts {field}"), by),
                    _ => return,
                };
                let (low, high) = self.counts.entry(key).or_default();
                *low += if acknowledged { by } else { by.min(0) };
                *high += if acknowledged { by } else { by.max(0) };
            }
            Op::Set { .. } | Op::SetField { .. } => {
                let (key, value) = match op {
                    Op::Set { key, value } => (key, value),
                    Op::SetField { field, value } => (format!("words {field}"), value),
                    _ => return,
                };
                let mine = words.entry(key).or_default();
                if acknowledged {
                    *mine = (true, BTreeSet::new());
                }
                mine.1.insert(Some(value));
            }
            Op::Add { set, member } => {
                let entry = (set, member);
                if acknowledged {
                    self.members.insert(entry.clone());
                }
                self.possible.insert(entry);
            }
            Op::Remove { set, member } => drop(self.members.remove(&(set, member))),
            Op::Number { .. } | Op::Noise(_) | Op::Exec(_) => {}
        }
    }

    /// Compares with a dump, and takes what is there as known.
    fn check(&mut self, dump: &Dump) {
        let nothing = BTreeMap::new();
        let hash = |name: &str| dump.hashes.get(name).unwrap_or(&nothing).clone();
        let find = |key: &str| match key.split_once(' ') {
            Some((name, field)) => hash(name).get(field).cloned(),
            None => dump.strings.get(key).cloned(),
        };
        for (key, (low, high)) in &mut self.counts {
            let count = find(key).map_or(0, |text| text.parse::<i64>().expect("a count"));
            assert!((*low..=*high).contains(&count), "{key} is {count}, not in {low}..={high}");
            (*low, *high) = (count, count);
        }
        for (key, values) in &mut self.words {
            let value = find(key);
            assert!(values.contains(&value), "{key} is {value:?}, not one of {values:?}");
            *values = BTreeSet::from([value]);
        }
        let empty = BTreeSet::new();
        let set = |name: &str| dump.sets.get(name).unwrap_or(&empty);
        for (name, member) in &self.members {
            assert!(set(name).contains(member), "{name} has lost {member}");
        }
        for name in ["set0", "set1", "set2", "set3"] {
            for member in set(name) {
                let entry = (name.to_string(), member.clone());
                assert!(self.possible.contains(&entry), "{name} has {member}, which nobody added");
            }
        }
        check_derived(dump);
    }
}

/// Bindings that are defined before the first round.
const BINDINGS: [&str; 5] = [
    "UNION.BIND joined set0 set1",
    "MAP.BIND doubled numbers x*2",
    "FILTER.BIND large numbers x>=150",
    "MAP.BIND rests large x%7",
    "UNION.BIND everything joined rests",
];

/// Derived keys against their sources, computed here.
fn check_derived(dump: &Dump) {
    let empty = BTreeSet::new();
    let set = |name: &str| dump.sets.get(name).unwrap_or(&empty);
    let numbers: Vec<u64> = set("numbers").iter().map(|n| n.parse().expect("a number")).collect();
    let large: Vec<u64> = numbers.iter().copied().filter(|n| *n >= 150).collect();
    let texts =
        |numbers: Vec<u64>| numbers.iter().map(u64::to_string).collect::<BTreeSet<String>>();
    let joined: BTreeSet<String> = set("set0").union(set("set1")).cloned().collect();
    let rests = texts(large.iter().map(|n| n % 7).collect());
    assert_eq!(*set("everything"), joined.union(&rests).cloned().collect(), "everything");
    assert_eq!(*set("joined"), joined, "joined");
    assert_eq!(*set("rests"), rests, "rests");
    assert_eq!(*set("doubled"), texts(numbers.iter().map(|n| n * 2).collect()), "doubled");
    assert_eq!(*set("large"), texts(large), "large");
}

/// All data of a node as clients see it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Dump {
    strings: BTreeMap<String, String>,
    sets: BTreeMap<String, BTreeSet<String>>,
    hashes: BTreeMap<String, BTreeMap<String, String>>,
    deadlines: BTreeMap<String, i64>,
    bindings: Vec<String>,
}

impl Dump {
    /// Leaves out keys, and what is made of such.
    fn forget(&mut self, keys: &BTreeSet<String>) {
        let gone = |key: &String| keys.contains(key) || key.starts_with("made");
        self.strings.retain(|key, _| !gone(key));
        self.sets.retain(|key, _| !gone(key));
        self.hashes.retain(|key, _| !gone(key));
        self.deadlines.retain(|key, _| !gone(key));
    }
}

fn dump(client: &mut Client) -> Dump {
    let mut dump = Dump::default();
    assert!(client.words("HELLO 3").error().is_none());
    let keys = client.words("KEYS *").sorted_texts();
    assert_eq!(client.words("DBSIZE").int(), Some(keys.len() as i64), "DBSIZE and KEYS");
    for key in keys {
        let deadline = client.words(&format!("PEXPIRETIME {key}")).int().unwrap_or(-3);
        dump.deadlines.insert(key.clone(), deadline);
        match client.words(&format!("TYPE {key}")).text().unwrap_or_default().as_str() {
            "string" => {
                let value = client.words(&format!("GET {key}")).text().expect("a string");
                dump.strings.insert(key, value);
            }
            "set" => {
                let members = client.words(&format!("SMEMBERS {key}")).sorted_texts();
                let count = client.words(&format!("SCARD {key}")).int();
                assert_eq!(count, Some(members.len() as i64), "SCARD {key}");
                dump.sets.insert(key, members.into_iter().collect());
            }
            "hash" => {
                let Value::Map(pairs) = client.words(&format!("HGETALL {key}")) else {
                    panic!("HGETALL {key} is no map")
                };
                let text = |value: &Value| value.text().expect("a text");
                let fields = pairs.iter().map(|(f, v)| (text(f), text(v)));
                dump.hashes.insert(key, fields.collect());
            }
            other => panic!("{key} is a {other}"),
        }
    }
    for binding in client.words("BIND.LIST").items().expect("bindings") {
        let (state, definition) = binding.items().and_then(<[Value]>::split_last).expect("fields");
        // How often an evaluation has failed is a node's own story.
        let state = state.text().expect("a state");
        let state = state.split(", ").next().unwrap_or_default();
        dump.bindings.push(format!("{definition:?} {state}"));
    }
    dump
}

/// The lines in which dumps differ.
fn difference(dumps: &[Dump]) -> String {
    let lines: Vec<BTreeSet<String>> = dumps
        .iter()
        .map(|dump| format!("{dump:#?}").lines().map(str::to_string).collect())
        .collect();
    let all: BTreeSet<String> = lines.iter().flatten().cloned().collect();
    let differs = |line: &&String| lines.iter().any(|lines| !lines.contains(*line));
    let shown = all.iter().filter(differs).map(|line| {
        let at: Vec<bool> = lines.iter().map(|lines| lines.contains(line)).collect();
        format!("{line} at {at:?}")
    });
    shown.collect::<Vec<_>>().join("\n")
}

// ---- the run

fn digests(nodes: &[Server]) -> BTreeSet<String> {
    nodes.iter().filter_map(|node| node.client().words("DIGEST.CRDT").text()).collect()
}

fn wait_equal(nodes: &[Server]) -> Duration {
    let start = Instant::now();
    while digests(nodes).len() > 1 {
        if start.elapsed() > PATIENCE {
            let peers: Vec<Value> = nodes.iter().map(|n| n.client().words("PEER.LIST")).collect();
            panic!("digests stay different: {:?}\n{peers:#?}", digests(nodes));
        }
        thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// The dump of all nodes, taken when all deadlines have passed that are near. A wrong clock has passed
/// others, too, and hides there what elsewhere is not due yet: then keys that have one are left out.
fn equal_dumps(nodes: &[Server], wrong_clocks: bool) -> Dump {
    thread::sleep(NEAR_DEADLINE);
    wait_equal(nodes);
    let mut dumps: Vec<Dump> = nodes.iter().map(|node| dump(&mut node.client())).collect();
    if wrong_clocks {
        let ends = dumps.iter().flat_map(|dump| &dump.deadlines).filter(|(_, at)| **at > 0);
        let ends: BTreeSet<String> = ends.map(|(key, _)| key.clone()).collect();
        dumps.iter_mut().for_each(|dump| dump.forget(&ends));
    }
    let equal = dumps.windows(2).all(|two| two[0] == two[1]);
    assert!(equal, "equal digests of {}", difference(&dumps));
    dumps.remove(0)
}

fn tell(node: &Server, line: &str) {
    let reply = node.client().words(line);
    // A peer that has not been met yet has no name.
    assert!(reply.is_ok() || reply.error() == Some("ERR no such peer"), "{line}: {reply:?}");
}

#[derive(Default)]
struct Totals {
    commands: usize,
    lost: usize,
    kills: usize,
    pauses: usize,
    slowest: Duration,
}

/// Disturbs the nodes until the writers are done.
fn disturb(
    nodes: &mut [Server],
    random: &mut Random,
    killed: &[AtomicBool],
    writing: &dyn Fn() -> bool,
    totals: &mut Totals,
) {
    let mut kills = 0;
    while writing() {
        thread::sleep(Duration::from_millis(5 + random.below(40)));
        let which = random.below(nodes.len() as u64) as usize;
        let other = nodes[random.below(nodes.len() as u64) as usize].name().to_string();
        match random.below(6) {
            0 => tell(&nodes[which], "PEER.PAUSE ALL"),
            1 => tell(&nodes[which], &format!("PEER.PAUSE {other}")),
            2 => tell(&nodes[which], &format!("PEER.RESUME {other}")),
            3 if kills == 0 => {
                kills += 1;
                killed[which].store(true, Ordering::SeqCst);
                nodes[which].kill();
                thread::sleep(Duration::from_millis(random.below(30)));
                nodes[which].restart();
                totals.kills += 1;
                continue;
            }
            _ => {
                tell(&nodes[which], "PEER.RESUME ALL");
                continue;
            }
        }
        totals.pauses += 1;
    }
}

fn round(
    nodes: &mut [Server],
    seed: u64,
    weather: &mut Option<Weather>,
    model: &mut Model,
    totals: &mut Totals,
) {
    let mut random = Random::new(seed);
    let known: Vec<(String, String)> =
        model.members.iter().filter(|_| random.one_in(4)).cloned().collect();
    let killed: Vec<AtomicBool> = nodes.iter().map(|_| AtomicBool::new(false)).collect();
    let ports: Vec<u16> = nodes.iter().map(Server::port).collect();
    if weather.as_mut().is_some_and(|weather| weather.begin(nodes)) {
        // As after a kill it is not known which commands of redis-cli were run.
        killed.iter().for_each(|killed| killed.store(true, Ordering::SeqCst));
    }
    let done: Vec<Done> = thread::scope(|scope| {
        let mut writers = Vec::new();
        for (at, port) in ports.iter().copied().enumerate() {
            for writer in 0..WRITERS {
                let (known, seed) = (&known, random.0.next_u64());
                let tag = format!("{seed:x}");
                writers
                    .push(scope.spawn(move || write(port, seed, &format!("{writer}{tag}"), known)));
            }
            let (seed, killed) = (random.0.next_u64(), &killed[at]);
            writers
                .push(scope.spawn(move || write_by_cli(port, seed, &format!("c{seed:x}"), killed)));
        }
        let writing = || writers.iter().any(|writer| !writer.is_finished());
        thread::scope(|scope| {
            if let Some(weather) = weather.as_mut() {
                scope.spawn(|| weather.blow(&writing));
            }
            disturb(nodes, &mut random, &killed, &writing, totals);
        });
        writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
    });
    totals.commands += done.iter().map(Vec::len).sum::<usize>();
    totals.lost += done.iter().flatten().filter(|(_, reply)| *reply == Reply::Lost).count();
    model.take(done);
    nodes.iter().for_each(|node| tell(node, "PEER.RESUME ALL"));
    if let Some(weather) = weather {
        weather.end(nodes);
    }
    totals.slowest = totals.slowest.max(wait_equal(nodes));
    model.check(&equal_dumps(nodes, weather.is_some()));
}

/// Rounds on nodes; from the middle on with logs so small that who was away gets a whole state.
fn run(
    configs: &[NodeConfig],
    rounds: u64,
    seed: u64,
    mut weather: Option<Weather>,
) -> Vec<Server> {
    let mut nodes: Vec<Server> = configs.iter().map(Server::lattis).collect();
    for line in BINDINGS {
        let reply = nodes[0].client().words(line);
        assert!(reply.is_ok(), "{line}: {reply:?}");
    }
    wait_equal(&nodes);
    let (mut model, mut totals) = (Model::default(), Totals::default());
    let start = Instant::now();
    for number in 0..rounds {
        if number == rounds / 2 {
            for node in &mut nodes {
                node.kill();
                node.add_flag("--log-max-bytes", "8kb");
                node.restart();
            }
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            round(&mut nodes, seed * 1_000_000 + number, &mut weather, &mut model, &mut totals);
        }));
        let result = result.and_then(|()| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match &mut weather {
                Some(weather) if number % 3 == 2 => weather.damage(&mut nodes),
                _ => {}
            }))
        });
        if let Err(panic) = result {
            eprintln!("in round {number} of SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
    let transfers: usize =
        nodes.iter().map(|node| node.log().matches("receiving a whole state").count()).sum();
    println!(
        "{rounds} rounds in {:?}: {} commands ({} without a reply), {} kills, {} pauses, {transfers} whole \
         states, slowest convergence {:?}",
        start.elapsed(),
        totals.commands,
        totals.lost,
        totals.kills,
        totals.pauses,
        totals.slowest,
    );
    assert!(rounds < 20 || transfers > 0, "no state was transferred");
    nodes
}

/// Three nodes that all know each other.
#[test]
fn a_mesh_under_writes_pauses_and_kills() {
    let configs = NodeConfig::mesh(&["north", "middle", "south"]);
    run(&configs, setting("ROUNDS", 50), setting("SEED", 1), None);
}

/// A wrong clock, by which a round may begin: farther than is taken from a peer, less than any deadline that
/// stays; a day behind.
const CLOCKS: [&str; 5] = ["+20", "+600", "-600", "-86400", "+0"];

/// What is in the way of nodes in a round.
struct Weather {
    /// The way to each node.
    links: Vec<Link>,
    /// Random, of the weather alone.
    random: Random,
}

impl Weather {
    /// Sets rates, and the clock of one node; true if that is wrong now.
    fn begin(&mut self, nodes: &[Server]) -> bool {
        for link in &self.links {
            link.rate([0, 0, 30_000, 200_000][self.random.below(4) as usize]);
        }
        let clock = CLOCKS[self.random.below(CLOCKS.len() as u64) as usize];
        let which = self.random.below(nodes.len() as u64) as usize;
        nodes[which].set_clock(clock);
        thread::sleep(CLOCK_SETS);
        clock != "+0"
    }

    /// Changes a byte of a node's rows, which then serves what it can, or refuses to start and says so; what
    /// helps is an empty directory.
    fn damage(&mut self, nodes: &mut [Server]) {
        thread::sleep(ROWS_ARE_WRITTEN);
        let which = self.random.below(nodes.len() as u64) as usize;
        let node = &mut nodes[which];
        node.kill();
        let rows = node.data().join("rows");
        let files = fs::read_dir(&rows).expect("rows").flatten().map(|entry| entry.path());
        let tables = files.filter(|path| path.extension().is_some_and(|it| it == "sst"));
        let size = |path: &PathBuf| fs::metadata(path).map_or(0, |found| found.len());
        let Some(table) = tables.max_by_key(size) else { return node.restart() };
        let mut bytes = fs::read(&table).expect("a table");
        let at = self.random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << self.random.below(8);
        fs::write(&table, bytes).expect("a table");
        if node.starts() {
            let mut client = node.client();
            assert!(client.words("SET alive yes").is_ok());
            assert_eq!(client.words("GET alive").text().as_deref(), Some("yes"));
            assert!(client.words("KEYS *").items().is_some());
            thread::sleep(ROWS_ARE_WRITTEN);
            assert_eq!(client.words("PING").text().as_deref(), Some("PONG"));
            node.kill();
        } else {
            assert!(node.log().contains("--repair"), "{}", node.log());
        }
        fs::remove_dir_all(node.data()).expect("its data");
        node.restart();
        self.settle(nodes);
    }

    /// Links stall while clients write.
    fn blow(&mut self, writing: &dyn Fn() -> bool) {
        while writing() {
            let link = &self.links[self.random.below(self.links.len() as u64) as usize];
            match self.random.below(3) {
                0 => link.stall(),
                _ => self.links.iter().for_each(Link::open),
            }
            thread::sleep(Duration::from_millis(20 + self.random.below(200)));
        }
    }

    /// All is right again. What a wrong clock has stamped is taken.
    fn end(&self, nodes: &[Server]) {
        for link in &self.links {
            link.open();
            link.rate(0);
        }
        nodes.iter().for_each(|node| node.set_clock("+0"));
        thread::sleep(CLOCK_SETS);
        self.settle(nodes);
    }

    /// Waits until all are equal.
    fn settle(&self, nodes: &[Server]) {
        let start = Instant::now();
        while digests(nodes).len() > 1 {
            assert!(start.elapsed() < PATIENCE, "the nodes do not become equal after the weather");
            nodes.iter().for_each(accept_clocks);
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// How long it takes at most until rows are in files.
const ROWS_ARE_WRITTEN: Duration = Duration::from_millis(1500);

/// How long a process goes on with the clock that it had.
const CLOCK_SETS: Duration = Duration::from_millis(1100);

/// Takes what waits since it was stamped by a clock far ahead.
fn accept_clocks(node: &Server) {
    let mut client = node.client();
    for peer in client.words("PEER.LIST").items().unwrap_or_default() {
        let texts: Vec<String> =
            peer.items().unwrap_or_default().iter().filter_map(Value::text).collect();
        if texts.get(2).is_some_and(|state| state == "clock") {
            let _ = client.words(&format!("PEER.ACCEPT-CLOCK {}", texts[0]));
        }
    }
}

/// Three nodes that all know each other, by links of any speed and with clocks of any time.
#[test]
fn a_mesh_in_weather() {
    let mut configs: Vec<NodeConfig> = ["north", "middle", "south"].map(NodeConfig::new).into();
    let links: Vec<Link> = configs.iter().map(|config| Link::to(config.peer_port)).collect();
    for config in &mut configs {
        config.peers = links.iter().map(Link::address).collect();
        config.clock = Some("+0".to_string());
    }
    for (config, link) in configs.iter_mut().zip(&links) {
        // Nobody is dialled but by his link.
        config.more.extend(["--peer-announce".to_string(), link.address()]);
    }
    let seed = setting("SEED", 1) + 2;
    let weather = Weather { links, random: Random::new(seed) };
    run(&configs, setting("ROUNDS", 8), seed, Some(weather));
}

/// Three nodes in a line: what the ends tell each other goes through the middle.
#[test]
fn a_line_under_writes_pauses_and_kills() {
    let mut configs: Vec<NodeConfig> = ["north", "middle", "south"].map(NodeConfig::new).into();
    let middle = format!("127.0.0.1:{}", configs[1].peer_port);
    configs[0].peers = vec![middle.clone()];
    configs[2].peers = vec![middle];
    let nodes = run(&configs, setting("ROUNDS", 20), setting("SEED", 1) + 1, None);
    for (node, far) in [(0, "south"), (2, "north")] {
        let peers = nodes[node].client().words("PEER.LIST");
        let peer =
            |peer: &Value| peer.items().and_then(|items| items.first()).and_then(Value::text);
        let names: Vec<_> = peers.items().unwrap_or_default().iter().map(peer).collect();
        assert!(names.contains(&Some("middle".to_string())), "{peers:?}");
        assert!(!names.contains(&Some(far.to_string())), "{far} was met directly: {peers:?}");
    }
}

/// A state of one part, of two, and so on reaches a node that was away for longer than the log: whole, also
/// when the node is killed in the middle, and what it wrote meanwhile stays.
#[test]
fn a_whole_state_of_many_parts() {
    // A part has 256 KB: each round adds less.
    const KEYS: i64 = 300;
    let mut configs = NodeConfig::mesh(&["north", "south"]);
    configs.iter_mut().for_each(|config| config.log_max_bytes = Some(8 << 10));
    let mut nodes: Vec<Server> = configs.iter().map(Server::lattis).collect();
    let value = "x".repeat(500);
    for round in 0..10 {
        nodes.iter().for_each(|node| tell(node, "PEER.PAUSE ALL"));
        let mut client = nodes[0].client();
        for number in 0..KEYS {
            client.send(&["SET", &format!("k{round}-{number}"), &value]).expect("room");
            client
                .send(&["SADD", &format!("s{}", number % 50), &format!("{round}-{number}")])
                .expect("room");
        }
        (0..2 * KEYS).for_each(|_| assert!(client.read().expect("a reply").error().is_none()));
        let removed = client.words("DEL s7 s8").int();
        assert_eq!(removed, Some(2));
        let reply = nodes[1].client().words(&format!("SADD s7 mine{round}"));
        assert_eq!(reply.int(), Some(1));
        nodes.iter().for_each(|node| tell(node, "PEER.RESUME ALL"));
        if round > 5 {
            let which = round % 2;
            thread::sleep(Duration::from_millis(10 * round as u64));
            nodes[which].kill();
            nodes[which].restart();
        }
        wait_equal(&nodes);
        for node in &nodes {
            let mut client = node.client();
            assert_eq!(client.words("SCARD s1").int(), Some((KEYS / 50) * (round as i64 + 1)));
            assert_eq!(client.words("SMEMBERS s7").sorted_texts(), [format!("mine{round}")]);
            assert_eq!(client.words("EXISTS s8").int(), Some(0));
            assert_eq!(client.words("DBSIZE").int(), Some(KEYS * (round as i64 + 1) + 49));
        }
    }
    assert!(nodes[1].log().matches("receiving a whole state").count() >= 10, "{}", nodes[1].log());
}
