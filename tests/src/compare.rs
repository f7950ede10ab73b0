//! The same random commands to two servers, and the replies compared byte for byte.
//!
//! A seed decides the whole stream: few keys, few values, wrong types, wrong arities, bad numbers,
//! clashing options, two connections (so that WATCH has something to watch), transactions. What may
//! differ between two correct servers is listed, with reasons, in [`DIFFERENT`] and [`NOT_SENT`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::resp::{Client, encode, parse};

/// A command: the words that are sent.
pub type Words = Vec<Vec<u8>>;

/// How a reply is compared where bytes alone cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Elements are sorted first.
    Sorted,
    /// Pairs of elements are sorted first.
    SortedPairs,
    /// Integers may differ by that much.
    Within(i64),
    /// The iteration is run to its end, and all that it returned is sorted.
    ScannedToTheEnd,
}

/// Replies that two correct servers may give differently: the command, how it is compared, and why.
pub const DIFFERENT: &[(&str, How, &str)] = &[
    ("SMEMBERS", How::Sorted, "a set has no order"),
    ("SINTER", How::Sorted, "a set has no order"),
    ("SUNION", How::Sorted, "a set has no order"),
    ("SDIFF", How::Sorted, "a set has no order"),
    ("KEYS", How::Sorted, "keys have no order"),
    ("HKEYS", How::Sorted, "fields have no order"),
    ("HVALS", How::Sorted, "fields have no order"),
    ("HGETALL", How::SortedPairs, "fields have no order"),
    ("TTL", How::Within(1), "the two servers are asked one after the other"),
    ("PTTL", How::Within(1000), "the two servers are asked one after the other"),
    ("SCAN", How::ScannedToTheEnd, "cursors are a server's own"),
    ("SSCAN", How::ScannedToTheEnd, "cursors are a server's own"),
    ("HSCAN", How::ScannedToTheEnd, "cursors are a server's own"),
];

/// What is never sent, and why.
pub const NOT_SENT: &[(&str, &str)] = &[
    ("SCAN, SSCAN, HSCAN within MULTI", "their cursors cannot be followed"),
    ("SCAN, SSCAN, HSCAN from a cursor other than 0", "cursors are a server's own"),
    ("a time to live of less than 1,000 s but not below 1", "it could end between two replies"),
    ("two equal times to live", "GT and LT would depend on the millisecond of arrival"),
    ("HELLO", "its reply names the server; it is used to choose the protocol"),
];

/// The stream: weight and form of each command. A word in small letters stands for an argument.
const GRAMMAR: &[(u32, &str)] = &[
    (30, "SET key value set-options"),
    (20, "GET key"),
    (8, "DEL keys"),
    (4, "EXISTS keys"),
    (4, "TYPE key"),
    (5, "EXPIRE key seconds expire-options"),
    (5, "PEXPIRE key milliseconds expire-options"),
    (5, "TTL key"),
    (5, "PTTL key"),
    (4, "PERSIST key"),
    (3, "KEYS pattern"),
    (3, "SCAN scan-options"),
    (3, "DBSIZE"),
    (1, "FLUSHDB flush-option"),
    (1, "FLUSHALL flush-option"),
    (8, "INCR key"),
    (8, "INCRBY key integer"),
    (5, "DECR key"),
    (5, "DECRBY key integer"),
    (6, "APPEND key value"),
    (4, "STRLEN key"),
    (5, "MGET keys"),
    (5, "MSET pairs"),
    (4, "SETNX key value"),
    (14, "SADD key members"),
    (8, "SREM key members"),
    (6, "SMEMBERS key"),
    (4, "SISMEMBER key member"),
    (4, "SCARD key"),
    (3, "SSCAN key scan-options"),
    (3, "SINTER keys"),
    (3, "SUNION keys"),
    (3, "SDIFF keys"),
    (14, "HSET key fields-and-values"),
    (6, "HGET key field"),
    (4, "HMGET key fields"),
    (5, "HGETALL key"),
    (7, "HDEL key fields"),
    (4, "HEXISTS key field"),
    (3, "HKEYS key"),
    (3, "HVALS key"),
    (7, "HINCRBY key field integer"),
    (4, "HLEN key"),
    (3, "HSCAN key scan-options"),
    (5, "MULTI"),
    (2, "EXEC"),
    (1, "DISCARD"),
    (4, "WATCH keys"),
    (1, "UNWATCH"),
    (2, "PING message"),
    (2, "ECHO value"),
    (3, "SELECT database"),
    (1, "NOSUCH key value"),
];

const KEYS: &[&[u8]] = &[b"a", b"b", b"c", b"d", b"e", b"k:1", b"k:2", b"", b"\x00\xff\r\n"];
const VALUES: &[&[u8]] = &[
    b"",
    b"a",
    b"b",
    b"hello",
    b"1",
    b"10",
    b"-5",
    b"007",
    b"1.5",
    b" 1",
    b"\x00\xff\r\n",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"a longer value that fills some more bytes",
];
const MEMBERS: &[&[u8]] = &[b"x", b"y", b"z", b"1", b"2", b"300", b"-4", b"", b"\x00\xff"];
const INTEGERS: &[&[u8]] = &[
    b"1",
    b"2",
    b"10",
    b"-1",
    b"-7",
    b"100",
    b"0",
    b"1000000",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"abc",
    b"1.5",
    b"",
    b"01",
    b"+1",
    b" 1",
    b"-0",
];
const BAD_TIMES: &[&[u8]] =
    &[b"0", b"-1", b"-100", b"abc", b"1.5", b"", b"9223372036854775807", b"-9223372036854775808"];
const PATTERNS: &[&[u8]] =
    &[b"*", b"k:*", b"?", b"[a-c]", b"[^a]", b"a*", b"nothing", b"", b"k\\:1", b"*1", b"[a"];
const DATABASES: &[&[u8]] =
    &[b"0", b"0", b"0", b"1", b"2", b"15", b"16", b"-1", b"abc", b"01", b"9223372036854775808"];

/// Random commands, all decided by a seed.
pub struct Generator {
    rng: ChaCha8Rng,
    total: u32,
}

impl Generator {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Generator {
        let total = GRAMMAR.iter().map(|(weight, _)| weight).sum();
        Generator { rng: ChaCha8Rng::seed_from_u64(seed), total }
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.rng.next_u32() % bound
    }

    fn pick(&mut self, from: &[&[u8]]) -> Vec<u8> {
        from[self.below(from.len() as u32) as usize].to_vec()
    }

    /// On which of the two connections the next command goes.
    pub fn connection(&mut self) -> usize {
        usize::from(self.below(5) == 0)
    }

    /// The next command. Within a transaction EXEC comes soon.
    pub fn command(&mut self, in_multi: bool) -> Words {
        if in_multi && self.below(6) == 0 {
            let last: [&[u8]; 4] = [b"EXEC", b"EXEC", b"exec", b"DISCARD"];
            return vec![self.pick(&last)];
        }
        let mut at = self.below(self.total);
        let form = GRAMMAR.iter().find(|(weight, _)| {
            let found = at < *weight;
            at = at.wrapping_sub(*weight);
            found
        });
        let mut form = form.map_or("PING", |(_, form)| *form).split(' ');
        let name = form.next().unwrap_or_default();
        if in_multi && name.ends_with("SCAN") {
            return self.command(in_multi);
        }
        let mut words = vec![match self.below(10) {
            0 => name.to_lowercase().into_bytes(),
            _ => name.as_bytes().to_vec(),
        }];
        for argument in form {
            self.argument(argument, &mut words);
        }
        // Iterations are the harness's own, and a dropped word must not make a short time to live.
        if !name.ends_with("SCAN") {
            match self.below(40) {
                0 if words.len() > 1 => {
                    let last = words.len() - 1;
                    words.remove(1 + self.below(last as u32) as usize);
                }
                1 => words.push(self.pick(VALUES)),
                _ => {}
            }
        }
        words
    }

    fn repeat(&mut self, pools: &[&[&[u8]]], words: &mut Words) {
        for _ in 0..1 + self.below(3) {
            for pool in pools {
                words.push(self.pick(pool));
            }
        }
    }

    /// A time to live of its own: see [`NOT_SENT`].
    fn time(&mut self, unit: u64) -> Vec<u8> {
        match self.below(8) {
            0 => self.pick(BAD_TIMES),
            _ => (unit * 1000 * u64::from(1 + self.below(1 << 20))).to_string().into_bytes(),
        }
    }

    fn argument(&mut self, argument: &str, words: &mut Words) {
        match argument {
            "key" => words.push(self.pick(KEYS)),
            "keys" => self.repeat(&[KEYS], words),
            "value" => words.push(self.pick(VALUES)),
            "pairs" => self.repeat(&[KEYS, VALUES], words),
            "member" | "field" => words.push(self.pick(MEMBERS)),
            "members" | "fields" => self.repeat(&[MEMBERS], words),
            "fields-and-values" => self.repeat(&[MEMBERS, VALUES], words),
            "integer" => words.push(self.pick(INTEGERS)),
            "seconds" => words.push(self.time(1)),
            "milliseconds" => words.push(self.time(1000)),
            "pattern" => words.push(self.pick(PATTERNS)),
            "database" => words.push(self.pick(DATABASES)),
            "message" => {
                if self.below(2) == 0 {
                    words.push(self.pick(VALUES));
                }
            }
            "flush-option" => match self.below(6) {
                0 => words.push(b"ASYNC".to_vec()),
                1 => words.push(b"sync".to_vec()),
                2 => words.push(b"NOW".to_vec()),
                _ => {}
            },
            "expire-options" => {
                for _ in 0..self.below(8).saturating_sub(5) {
                    words.push(self.pick(&[b"NX", b"XX", b"GT", b"LT", b"gt", b"AT"]));
                }
            }
            "set-options" => {
                for _ in 0..self.below(8).saturating_sub(4) {
                    match self.below(7) {
                        0 => words.push(b"NX".to_vec()),
                        1 => words.push(b"xx".to_vec()),
                        2 => words.push(b"KEEPTTL".to_vec()),
                        3 => words.push(b"GET".to_vec()),
                        4 => words.extend([b"EX".to_vec(), self.time(1)]),
                        5 => words.extend([b"px".to_vec(), self.time(1000)]),
                        _ => words.push(self.pick(&[b"EX", b"NOPE", b"GET"])),
                    }
                }
            }
            "scan-options" => {
                words.push(b"0".to_vec());
                for _ in 0..self.below(3) {
                    match self.below(4) {
                        0 => words.extend([b"MATCH".to_vec(), self.pick(PATTERNS)]),
                        1 => {
                            words.extend([b"COUNT".to_vec(), self.pick(&[b"1", b"3", b"0", b"x"])]);
                        }
                        2 => {
                            let kind = self.pick(&[b"string", b"set", b"hash", b"list", b"SET"]);
                            words.extend([b"TYPE".to_vec(), kind]);
                        }
                        _ => words.push(b"NOPE".to_vec()),
                    }
                }
            }
            other => panic!("the grammar names no argument {other}"),
        }
    }
}

/// Where commands are sent.
pub trait Endpoint {
    /// Sends a command and returns the reply's bytes.
    fn ask(&mut self, words: &Words) -> io::Result<Vec<u8>>;

    /// Sends commands together and returns the replies' bytes.
    fn ask_all(&mut self, batch: &[&Words]) -> io::Result<Vec<Vec<u8>>> {
        batch.iter().map(|words| self.ask(words)).collect()
    }
}

impl Endpoint for Client {
    fn ask(&mut self, words: &Words) -> io::Result<Vec<u8>> {
        Ok(self.call_raw(words)?.1)
    }

    fn ask_all(&mut self, batch: &[&Words]) -> io::Result<Vec<Vec<u8>>> {
        let mut requests = Vec::new();
        batch.iter().for_each(|words| encode(words, &mut requests));
        self.send_raw(&requests)?;
        batch.iter().map(|_| Ok(self.read_raw()?.1)).collect()
    }
}

/// The elements of an aggregate reply, each with its bytes; nothing for other replies.
fn elements(reply: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let header = reply.windows(2).position(|two| two == b"\r\n")? + 2;
    if !b"*~%>".contains(&reply[0]) || reply[1] == b'-' {
        return None;
    }
    let mut rest = &reply[header..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (_, length) = parse(rest).ok()??;
        let (element, after) = rest.split_at(length);
        found.push(element);
        rest = after;
    }
    Some((&reply[..header], found))
}

fn sorted(reply: &[u8], together: usize) -> Vec<u8> {
    let Some((header, elements)) = elements(reply) else { return reply.to_vec() };
    let mut groups: Vec<Vec<u8>> = elements.chunks(together).map(<[_]>::concat).collect();
    groups.sort();
    [header.to_vec(), groups.concat()].concat()
}

fn how(words: &Words) -> Option<How> {
    let name = words.first()?.to_ascii_uppercase();
    DIFFERENT.iter().find(|(command, _, _)| command.as_bytes() == name).map(|(_, how, _)| *how)
}

/// Whether two replies to a command say the same.
fn same(words: &Words, queued: &[Words], left: &[u8], right: &[u8]) -> bool {
    if left == right {
        return true;
    }
    let integer = |reply: &[u8]| {
        parse(reply).ok().flatten().and_then(|(value, _)| value.int()).filter(|n| *n >= 0)
    };
    match how(words) {
        Some(How::Sorted) => sorted(left, 1) == sorted(right, 1),
        Some(How::SortedPairs) => sorted(left, 2) == sorted(right, 2),
        Some(How::Within(bound)) => match (integer(left), integer(right)) {
            (Some(left), Some(right)) => left.abs_diff(right) <= bound.unsigned_abs(),
            _ => false,
        },
        Some(How::ScannedToTheEnd) => false, // was sorted when it was collected
        None if words[0].eq_ignore_ascii_case(b"EXEC") => match (elements(left), elements(right)) {
            (Some((header_left, left)), Some((header_right, right))) => {
                header_left == header_right
                    && left.len() == queued.len()
                    && queued
                        .iter()
                        .zip(left.iter().zip(right))
                        .all(|(words, (left, right))| same(words, &[], left, right))
            }
            _ => false,
        },
        None => false,
    }
}

/// A scan to its end: the first reply that is an error, or all that was found, sorted, as one array.
fn scan(endpoint: &mut dyn Endpoint, words: &Words) -> io::Result<Vec<u8>> {
    let mut words = words.clone();
    let is = |name: &[u8]| words[0].eq_ignore_ascii_case(name);
    let (at, parts_each) = (if is(b"SCAN") { 1 } else { 2 }, if is(b"HSCAN") { 2 } else { 1 });
    let mut found: Vec<Vec<u8>> = Vec::new();
    for _ in 0..10_000 {
        let reply = endpoint.ask(&words)?;
        let Some((header, parts)) = elements(&reply) else { return Ok(reply) };
        let (b"*2\r\n", [cursor, keys]) = (header, &parts[..]) else { return Ok(reply.clone()) };
        let Some((_, keys)) = elements(keys) else { return Ok(reply.clone()) };
        found.extend(keys.chunks(parts_each).map(<[&[u8]]>::concat));
        let cursor = parse(cursor)?.and_then(|(value, _)| value.bytes().map(<[u8]>::to_vec));
        words[at] = cursor.unwrap_or_default();
        if words[at] == b"0" {
            found.sort();
            found.dedup(); // an element may be returned more than once
            return Ok([format!("*{}\r\n", found.len()).into_bytes(), found.concat()].concat());
        }
    }
    Err(io::Error::other("a scan does not end"))
}

/// One command of a run, with what the first server answered.
struct Past {
    connection: usize,
    words: Words,
    reply: Vec<u8>,
}

fn print(words: &Words) -> String {
    let quoted: Vec<String> = words
        .iter()
        .map(|word| match word.iter().all(|byte| byte.is_ascii_graphic()) && !word.is_empty() {
            true => String::from_utf8_lossy(word).into_owned(),
            false => format!("\"{}\"", word.escape_ascii()),
        })
        .collect();
    quoted.join(" ")
}

impl fmt::Display for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Past { connection, words, reply } = self;
        write!(f, "[{connection}] {}  ->  {}", print(words), reply.escape_ascii())
    }
}

/// The first reply in which the two servers differ.
pub struct Difference {
    /// Seed of the stream.
    pub seed: u64,
    /// RESP version.
    pub protocol: u8,
    /// Which command of the stream.
    pub index: usize,
    /// The command.
    pub words: Words,
    /// What the first server answered.
    pub left: Vec<u8>,
    /// What the second server answered.
    pub right: Vec<u8>,
    /// The last commands that had to do with the same keys, and commands on all keys; where the command
    /// names no key, the last commands of all.
    pub before: Vec<String>,
}

impl fmt::Debug for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { seed, protocol, index, words, left, right, before } = self;
        writeln!(f, "seed {seed}, RESP{protocol}, command {index}: {}", print(words))?;
        writeln!(f, "  first:  {}", left.escape_ascii())?;
        writeln!(f, "  second: {}", right.escape_ascii())?;
        writeln!(f, "  before it, on the same keys ([connection] command -> first's reply):")?;
        before.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

fn related(past: &[Past], words: &Words) -> Vec<String> {
    let on_all = [&b"FLUSHALL"[..], b"FLUSHDB", b"SELECT", b"MULTI", b"EXEC", b"DISCARD"];
    let keys: Vec<&Vec<u8>> = words[1..].iter().filter(|w| KEYS.contains(&&w[..])).collect();
    let mut lines: Vec<String> = past
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, past)| {
            on_all.contains(&&past.words[0].to_ascii_uppercase()[..])
                || keys.is_empty()
                || past.words[1..].iter().any(|word| keys.contains(&word))
        })
        .take(if keys.is_empty() { 40 } else { 10 }) // an EXEC has no keys of its own
        .map(|(index, past)| format!("{index} {past}"))
        .collect();
    lines.reverse();
    lines
}

/// What a run without a difference has covered: for each command, replies and, of them, errors.
#[derive(Debug, Default)]
pub struct Covered(pub BTreeMap<String, (usize, usize)>);

/// A command that the second server has answered.
struct Sent {
    words: Words,
    /// What an EXEC runs.
    queued: Vec<Words>,
    answer: Vec<u8>,
}

/// Sends `count` commands of a seed to two servers, over two connections each, and compares. The first server
/// gets up to `pipeline` of them at once. The servers are emptied first.
pub fn compare(
    seed: u64,
    protocol: u8,
    count: usize,
    pipeline: u32,
    left: &mut [Box<dyn Endpoint>; 2],
    right: &mut [Box<dyn Endpoint>; 2],
) -> Result<Covered, Box<Difference>> {
    let mut generator = Generator::new(seed);
    let mut past: Vec<Past> = Vec::new();
    let mut covered = Covered::default();
    let mut queued: [Option<Vec<Words>>; 2] = [None, None];
    let lost = |error: io::Error| format!("no reply: {error}").into_bytes();
    for endpoint in left.iter_mut().chain(right.iter_mut()) {
        let hello = vec![b"HELLO".to_vec(), protocol.to_string().into_bytes()];
        let _ = endpoint.ask_all(&[&hello, &vec![b"FLUSHALL".to_vec()]]);
    }
    while past.len() < count {
        let connection = generator.connection();
        let length = 1 + generator.below(pipeline);
        let mut batch: Vec<Sent> = Vec::new();
        while batch.len() < length as usize {
            let words = generator.command(queued[connection].is_some());
            let scans = how(&words) == Some(How::ScannedToTheEnd);
            let endpoint = &mut *right[connection];
            let answer = if scans { scan(endpoint, &words) } else { endpoint.ask(&words) };
            let answer = answer.unwrap_or_else(lost);
            let before = queued[connection].clone().unwrap_or_default();
            let name = words[0].to_ascii_uppercase();
            match (&name[..], &mut queued[connection]) {
                (b"MULTI", none @ None) if answer.starts_with(b"+OK") => *none = Some(Vec::new()),
                (b"EXEC", some) if !answer.starts_with(b"-ERR wrong number") => *some = None,
                (b"DISCARD", some) if answer.starts_with(b"+OK") => *some = None,
                (_, Some(queue)) if answer.starts_with(b"+QUEUED") => queue.push(words.clone()),
                _ => {}
            }
            batch.push(Sent { words, queued: before, answer });
            if scans {
                break;
            }
        }
        // A scan goes on by what it is answered.
        let scans = batch.pop_if(|sent| how(&sent.words) == Some(How::ScannedToTheEnd));
        let together: Vec<&Words> = batch.iter().map(|sent| &sent.words).collect();
        let mut answers = match left[connection].ask_all(&together) {
            Ok(answers) => answers,
            Err(error) => vec![lost(error); batch.len()],
        };
        if let Some(sent) = scans {
            answers.push(scan(&mut *left[connection], &sent.words).unwrap_or_else(lost));
            batch.push(sent);
        }
        for (Sent { words, queued, answer }, ours) in batch.into_iter().zip(answers) {
            if !same(&words, &queued, &ours, &answer) {
                let (index, before) = (past.len(), related(&past, &words));
                let (left, right) = (ours, answer);
                let difference = Difference { seed, protocol, index, words, left, right, before };
                return Err(Box::new(difference));
            }
            let name = String::from_utf8_lossy(&words[0]).to_uppercase();
            let (replies, errors) = covered.0.entry(name).or_default();
            *replies += 1;
            *errors += usize::from(ours.starts_with(b"-"));
            past.push(Past { connection, words, reply: ours });
        }
    }
    Ok(covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Words {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    /// Order is forgiven where there is none, and nothing else is.
    #[test]
    fn forgives_what_is_listed_and_nothing_else() {
        let ab = b"~2\r\n$1\r\na\r\n$1\r\nb\r\n";
        let ba = b"~2\r\n$1\r\nb\r\n$1\r\na\r\n";
        assert!(same(&words("smembers k"), &[], ab, ba));
        assert!(!same(&words("MGET a b"), &[], ab, ba));
        assert!(!same(&words("SMEMBERS k"), &[], ab, b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"));
        assert!(same(&words("TTL k"), &[], b":100\r\n", b":99\r\n"));
        assert!(!same(&words("TTL k"), &[], b":100\r\n", b":98\r\n"));
        assert!(!same(&words("TTL k"), &[], b":-1\r\n", b":-2\r\n"));
        let pairs = b"*4\r\n+f\r\n+1\r\n+g\r\n+2\r\n";
        assert!(same(&words("HGETALL k"), &[], pairs, b"*4\r\n+g\r\n+2\r\n+f\r\n+1\r\n"));
        assert!(!same(&words("HGETALL k"), &[], pairs, b"*4\r\n+g\r\n+1\r\n+f\r\n+2\r\n"));
        let queued = [words("GET a"), words("SMEMBERS k")];
        let exec = |get: &[u8], set: &[u8]| [b"*2\r\n", get, set].concat();
        let left = exec(b"$-1\r\n", ab);
        assert!(same(&words("EXEC"), &queued, &left, &exec(b"$-1\r\n", ba)));
        assert!(!same(&words("EXEC"), &queued, &left, &exec(b"_\r\n", ba)));
    }

    /// Equal seeds are equal streams; no time to live can end while a stream runs.
    #[test]
    fn a_seed_decides_the_stream() {
        let stream = |seed| {
            let mut generator = Generator::new(seed);
            (0..2000).map(|_| generator.command(false)).collect::<Vec<_>>()
        };
        assert_eq!(stream(7), stream(7));
        assert_ne!(stream(7), stream(8));
        for words in stream(7) {
            let name = words[0].to_ascii_uppercase();
            let at = match &name[..] {
                b"EXPIRE" | b"PEXPIRE" => Some(2),
                b"SET" => words
                    .iter()
                    .position(|w| w.eq_ignore_ascii_case(b"EX") || w.eq_ignore_ascii_case(b"PX"))
                    .map(|at| at + 1),
                _ => None,
            };
            let time = at.and_then(|at| words.get(at)).map(|w| String::from_utf8_lossy(w));
            let time = time.and_then(|text| text.parse::<i64>().ok());
            assert!(time.is_none_or(|t| !(1..1000).contains(&t)), "{}", print(&words));
        }
    }
}
