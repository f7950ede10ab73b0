//! One node that is killed, stopped, started twice and damaged: nothing acknowledged is ever lost, and
//! what cannot be read is never taken for nothing.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lattis_tests::process::{NodeConfig, PATIENCE, Server, free_port, lattis_server};
use lattis_tests::resp::{Client, Value, encode};

/// Stops of one loop, every fourth of them by SIGTERM; there is a loop for each mode.
const KILLS: u64 = 10;
/// Clients that write meanwhile.
const WRITERS: usize = 3;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

// ---- kill -9 and SIGTERM under load

/// What one client has written, and what of it was acknowledged.
#[derive(Clone, Copy, Default)]
struct Written {
    /// All up to here were acknowledged.
    acknowledged: u64,
    /// None above was sent.
    sent: u64,
}

/// Each step of a client leaves a trace in every type: step n sets `last`, counts one, adds a member,
/// sets a field, and does all that in one transaction at each fifth step.
fn step(writer: usize, number: u64) -> Vec<Vec<String>> {
    let commands = [
        format!("SET last{writer} {number}"),
        format!("INCR count{writer}"),
        format!("SADD set{writer} {number}"),
        format!("HSET hash{writer} f{} {number}", number % 10),
        format!("HINCRBY sums n{writer} {number}"),
    ];
    let commands =
        commands.iter().map(|line| line.split_whitespace().map(str::to_string).collect());
    if !number.is_multiple_of(5) {
        return commands.collect();
    }
    let word = |word: &str| vec![word.to_string()];
    std::iter::once(word("MULTI")).chain(commands).chain([word("EXEC")]).collect()
}

/// Writes steps in pipelines until the connection breaks.
fn write(port: u16, writer: usize, mut written: Written) -> Written {
    let Ok(mut client) = Client::connect(port) else { return written };
    loop {
        let mut bytes = Vec::new();
        let steps = 1 + written.sent % 4;
        let mut replies = Vec::new();
        for number in written.sent + 1..=written.sent + steps {
            let commands = step(writer, number);
            commands.iter().for_each(|command| encode(command, &mut bytes));
            replies.push((number, commands.len()));
        }
        written.sent += steps;
        if client.send_raw(&bytes).is_err() {
            return written;
        }
        for (number, count) in replies {
            for _ in 0..count {
                match client.read() {
                    Ok(reply) => assert!(reply.error().is_none(), "step {number}: {reply:?}"),
                    Err(_) => return written,
                }
            }
            written.acknowledged = number;
        }
    }
}

/// Reads the traces: all of them agree on one step, which is not below what was acknowledged. Only the last
/// step may be there in part, as far as it is no transaction.
fn check(client: &mut Client, writer: usize, written: Written) -> Written {
    let number = |value: Value| value.text().map_or(0, |text| text.parse().expect("a number"));
    let last: u64 = number(client.words(&format!("GET last{writer}")));
    let Written { acknowledged, sent } = written;
    assert!((acknowledged..=sent).contains(&last), "step {last} of {acknowledged}..={sent}");
    let done = |count: u64| count == last || (count + 1 == last && !last.is_multiple_of(5));
    let count: u64 = number(client.words(&format!("GET count{writer}")));
    assert!(done(count) && count >= acknowledged, "count {count} after step {last}");
    let members = client.words(&format!("SMEMBERS set{writer}")).sorted_texts();
    let mut members: Vec<u64> =
        members.iter().map(|text| text.parse().expect("a number")).collect();
    members.sort();
    let added = members.len() as u64;
    assert!(done(added) && added >= acknowledged, "{added} members after step {last}");
    assert!(members.iter().copied().eq(1..=added), "a member is missing");
    assert_eq!(client.words(&format!("SCARD set{writer}")), Value::Int(added as i64));
    let field = number(client.words(&format!("HGET hash{writer} f{}", acknowledged % 10)));
    assert!(field >= acknowledged && field <= sent, "field {field}, acknowledged {acknowledged}");
    let sum: u64 = number(client.words(&format!("HGET sums n{writer}")));
    let upto = |n: u64| n * (n + 1) / 2;
    assert!(
        sum == upto(last) || (!last.is_multiple_of(5) && sum == upto(last - 1)),
        "sum {sum} at {last}"
    );
    // A step that is there in part is finished by hand, so that the next round begins on a whole one.
    for (there, line) in [
        (count == last, format!("INCR count{writer}")),
        (added == last, format!("SADD set{writer} {last}")),
        (sum == upto(last), format!("HINCRBY sums n{writer} {last}")),
    ] {
        if !there {
            assert!(client.words(&line).int().is_some());
        }
    }
    client.words(&format!("HSET hash{writer} f{} {last}", last % 10));
    Written { acknowledged: last, sent: last }
}

fn info(client: &mut Client, name: &str) -> String {
    let text = client.words("INFO server").text().expect("INFO");
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")).map(str::to_string));
    line.unwrap_or_else(|| panic!("INFO has no {name}"))
}

/// Lets clients write for a while and ends the server.
fn load(
    server: &mut Server,
    written: &mut [Written],
    time: Duration,
    end: impl FnOnce(&mut Server),
) {
    let port = server.port();
    thread::scope(|scope| {
        let writers: Vec<_> = written
            .iter()
            .enumerate()
            .map(|(writer, written)| {
                let written = *written;
                scope.spawn(move || write(port, writer, written))
            })
            .collect();
        thread::sleep(time);
        end(server);
        for (writer, written) in writers.into_iter().zip(written) {
            *written = writer.join().expect("a writer");
        }
    });
}

fn killed_again_and_again(appendfsync: &str) {
    let mut config = NodeConfig::new("crashing");
    config.appendfsync = Some(appendfsync.to_string());
    // A small log, so that it is trimmed meanwhile.
    config.log_max_bytes = Some(100_000);
    let mut server = Server::lattis(&config);
    let mut written = [Written::default(); WRITERS];
    let node = info(&mut server.client(), "node_id");
    let mut acknowledged = 0;
    for kill in 1..=setting("KILLS", KILLS) {
        let before: u64 = info(&mut server.client(), "incarnation").parse().expect("a number");
        assert_eq!(before, kill, "incarnation");
        let time = Duration::from_millis(20 + 37 * (kill % 7));
        if kill % 4 == 0 {
            load(&mut server, &mut written, time, |server| assert!(server.terminate().success()));
        } else {
            load(&mut server, &mut written, time, Server::kill);
        }
        server.restart();
        let mut client = server.client();
        assert_eq!(info(&mut client, "node_id"), node);
        for (writer, written) in written.iter_mut().enumerate() {
            *written = check(&mut client, writer, *written);
        }
        acknowledged = written.iter().map(|written| written.acknowledged).sum();
    }
    println!("{appendfsync}: {acknowledged} steps of 5 commands");
    assert!(acknowledged > 100);
}

#[test]
fn nothing_is_lost_with_appendfsync_always() {
    killed_again_and_again("always");
}

#[test]
fn nothing_is_lost_with_appendfsync_everysec() {
    killed_again_and_again("everysec");
}

#[test]
fn nothing_is_lost_with_appendfsync_no() {
    killed_again_and_again("no");
}

/// A log that ends anywhere, as after a power cut, opens as a prefix of what was written.
#[test]
fn a_torn_log_is_a_prefix() {
    let mut server = Server::lattis(&NodeConfig::new("torn"));
    let mut client = server.client();
    for number in 1..=300 {
        for command in step(0, number) {
            assert!(client.call(&command).error().is_none());
        }
    }
    server.kill();
    let newest = files(server.data(), "log").pop().expect("a log");
    let mut length = fs::metadata(&newest).expect("a log").len();
    let mut last = 300;
    for cut in [1, 100, 5_000, 20_000] {
        length -= cut;
        fs::File::options()
            .write(true)
            .open(&newest)
            .expect("a log")
            .set_len(length)
            .expect("a cut");
        // Looked at in a copy: a start writes to the directory.
        let copy = server.data().with_extension(format!("cut{cut}"));
        copy_files(server.data(), &copy);
        let mut config = NodeConfig::new("copy");
        config.more = vec!["--dir".into(), copy.display().to_string()];
        let opened = Server::lattis(&config);
        let found = check(&mut opened.client(), 0, Written { acknowledged: 0, sent: last });
        assert!(found.sent <= last);
        last = found.sent;
    }
    assert!(last < 290 && last > 1, "{last} steps are left");
}

// ---- directories that must not be opened

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    paths.sort();
    paths
}

fn named(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").flatten();
    let found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    found.map(|entry| entry.path()).collect()
}

fn copy_files(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        match entry.path().is_dir() {
            true => copy_files(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy")),
        }
    }
}

/// Kills what it holds.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server on a directory. The text if it refuses; otherwise it runs, and answers on the port.
fn start(dir: &Path) -> Result<(Started, u16), String> {
    let (port, peer_port) = (free_port(), free_port());
    let child = Command::new(lattis_server())
        .args(["--port", &port.to_string(), "--peer-port", &peer_port.to_string()])
        .arg("--dir")
        .arg(dir)
        .stderr(Stdio::piped())
        .spawn()
        .expect("a server");
    let mut started = Started(child);
    let start = Instant::now();
    loop {
        if let Some(status) = started.0.try_wait().expect("a status") {
            assert_eq!(status.code(), Some(1), "{status}");
            let mut text = String::new();
            let mut stderr = started.0.stderr.take().expect("its stderr");
            stderr.read_to_string(&mut text).expect("its text");
            return Err(text);
        }
        // The port is open before the directory is.
        let pong = Client::connect(port).and_then(|mut client| client.try_call(&["PING"]));
        if pong.is_ok() {
            return Ok((started, port));
        }
        assert!(start.elapsed() < PATIENCE, "neither started nor refused");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A second server on a directory is refused in one clear line, and the first goes on.
#[test]
fn a_directory_has_one_server() {
    let server = Server::lattis(&NodeConfig::new("first"));
    let mut client = server.client();
    assert!(client.words("SET k v").is_ok());
    let text = start(server.data()).err().expect("refused");
    println!("refused: {}", text.trim());
    assert!(text.contains("another") && text.contains("data"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(client.words("GET k").text().as_deref(), Some("v"));
}

const KEYS: usize = 3000;

/// The directories of a node: its journal's, and its rows'.
const PLACES: [&str; 2] = ["", "rows"];

/// A directory with keys, some of them in files of rows, some in the log only, and that partly in files and
/// partly in the write-ahead log.
fn filled() -> Server {
    let mut server = Server::lattis(&NodeConfig::new("filled"));
    for part in 0..3 {
        let mut client = server.client();
        for number in part * KEYS / 3..(part + 1) * KEYS / 3 {
            assert!(client.words(&format!("SET k{number} v{number}")).is_ok());
            client.words(&format!("SADD s{} {number}", number % 10));
        }
        match part {
            // All rows are written.
            0 => assert!(server.terminate().success(), "{}", server.log()),
            _ => server.kill(),
        }
        if part < 2 {
            // A start writes what the write-ahead log holds to files.
            server.restart();
        }
    }
    server
}

/// What a damaged directory says: refused, or every read gives the right value or an error.
fn damaged(what: &str, dir: &Path) -> bool {
    let (_running, port) = match start(dir) {
        Err(text) => {
            println!("{what}: {}", text.trim());
            assert!(text.starts_with("lattis-server: "), "{what}: {text}");
            let clear = ["damaged", "orrupt", "missing", "No such file", "failed"];
            assert!(clear.iter().any(|word| text.contains(word)), "{what}: {text}");
            return true;
        }
        Ok(running) => running,
    };
    let mut client = Client::connect(port).expect("a connection");
    let mut errors = 0;
    for number in 0..KEYS {
        let reply = client.words(&format!("GET k{number}"));
        match reply.error() {
            Some(_) => errors += 1,
            None => assert_eq!(reply.text(), Some(format!("v{number}")), "{what}: k{number}"),
        }
    }
    for set in 0..10 {
        let reply = client.words(&format!("SMEMBERS s{set}"));
        match reply.error() {
            Some(_) => errors += 1,
            None => {
                assert_eq!(reply.items().map(<[Value]>::len), Some(KEYS / 10), "{what}: s{set}")
            }
        }
    }
    println!("{what}: opened, {errors} reads gave an error");
    false
}

/// Damage of any file is refused or shown by the reads it touches; nothing is opened as empty, nothing
/// wrong is read.
#[test]
fn a_damaged_directory_is_never_taken_for_an_empty_one() {
    let server = filled();
    let dir = server.data().with_extension("damaged");
    let damage = |what: &str, change: &dyn Fn()| {
        copy_files(server.data(), &dir);
        change();
        damaged(what, &dir)
    };
    assert!(!damage("unchanged", &|| ()));
    let cut = |path: PathBuf, length: u64| {
        let file = fs::File::options().write(true).open(path).expect("a file");
        file.set_len(length).expect("a cut");
    };
    let halve = |path: PathBuf| {
        let length = fs::metadata(&path).expect("it").len();
        cut(path, length / 2);
    };
    let mut refused = 0;
    for place in PLACES {
        let dir = dir.join(place);
        let damage = |what: &str, change: &dyn Fn()| damage(&format!("{place}: {what}"), change);
        let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).expect("a file");
        assert!(damage("CURRENT is empty", &|| write("CURRENT", b"")));
        assert!(damage("CURRENT names nothing", &|| write("CURRENT", b"MANIFEST-999999\n")));
        let current = || fs::remove_file(dir.join("CURRENT")).expect("it");
        assert!(damage("CURRENT is missing", &current));
        let manifest = || named(&dir, "MANIFEST-").pop().expect("a manifest");
        assert!(damage("the manifest is missing", &|| fs::remove_file(manifest()).expect("it")));
        assert!(damage("the manifest is empty", &|| cut(manifest(), 0)));
        assert!(damage("the manifest is cut", &|| halve(manifest())));
        let tables = files(&server.data().join(place), "sst");
        assert!(!tables.is_empty(), "{place}");
        for table in &tables {
            let name = table.file_name().expect("a name").to_string_lossy().into_owned();
            let path = || dir.join(&name);
            let remove = || fs::remove_file(path()).expect("it");
            assert!(damage(&format!("{name} is missing"), &remove));
            assert!(damage(&format!("{name} is cut"), &|| halve(path())));
            for part in [10, 50, 90] {
                refused += usize::from(damage(&format!("{name} is changed at {part} %"), &|| {
                    let mut bytes = fs::read(path()).expect("it");
                    let at = bytes.len() * part / 100;
                    bytes[at..].iter_mut().take(8).for_each(|byte| *byte ^= 0x55);
                    fs::write(path(), bytes).expect("it");
                }));
            }
        }
    }
    // Rows that are gone are made anew, as long as the log has everything; without it they are nothing.
    let rows = || fs::remove_dir_all(dir.join("rows")).expect("it");
    assert!(!damage("no rows", &rows));
    assert!(damage("rows alone", &|| {
        for entry in fs::read_dir(&dir).expect("it").flatten().filter(|it| it.path().is_file()) {
            fs::remove_file(entry.path()).expect("it");
        }
    }));
    assert!(refused > 0, "no changed file was noticed at the start");
}

// ---- values that lie in pieces

/// A node that is killed while large values are written has what it has acknowledged, and each value is one
/// that was sent, whole.
#[test]
fn a_large_value_is_whole_or_not_there() {
    const LEN: usize = 8 << 20;
    let mut server = Server::lattis(&NodeConfig::new("pieces"));
    let value = |round: u64| vec![round as u8; LEN + round as usize];
    let mut acknowledged = None;
    for round in 1..=setting("KILLS", KILLS) {
        let mut client = server.client();
        let writer = thread::spawn(move || {
            let mut done = None;
            // Until the server is gone.
            for number in 0.. {
                let this = value(round * 20 + number % 20);
                match client.try_call(&["SET".as_bytes(), b"large", &this]) {
                    Ok(_) => done = Some(this),
                    Err(_) => return (done, this),
                }
            }
            unreachable!()
        });
        thread::sleep(Duration::from_millis(50 + round * 97 % 700));
        server.kill();
        let (done, sent) = writer.join().expect("the writer");
        acknowledged = done.or(acknowledged);
        server.restart();
        let found = server.client().words("GET large");
        let found = found.bytes().map(<[u8]>::to_vec);
        assert!(found == acknowledged || found == Some(sent), "round {round}");
        acknowledged = found;
    }
}
