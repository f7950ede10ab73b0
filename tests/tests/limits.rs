//! What happens at the limits: more data than cache, a full disk, clients that send nonsense.
//!
//! The full disk is a small tmpfs, so that test needs the right to mount; without it, it says that it
//! was skipped.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lattis_tests::process::{NodeConfig, PATIENCE, Server, TempDir};
use lattis_tests::resp::{Client, Value, encode};

// ---- more data than cache

const STRINGS: usize = 10_000;
const COLLECTIONS: usize = 20;
const MEMBERS: usize = 1_500;

fn filler(seed: usize, length: usize) -> String {
    let word = format!("{:016x}", (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word.chars().cycle().take(length).collect()
}

fn member(set: usize, number: usize) -> String {
    format!("{set}-{number}-{}", filler(number, 80))
}

/// Sends commands in pipelines and gives the replies.
fn pipeline(client: &mut Client, commands: &[Vec<String>]) -> Vec<Value> {
    let mut replies = Vec::new();
    for chunk in commands.chunks(200) {
        let mut bytes = Vec::new();
        chunk.iter().for_each(|command| encode(command, &mut bytes));
        client.send_raw(&bytes).expect("a pipeline");
        replies.extend(chunk.iter().map(|_| client.read().expect("a reply")));
    }
    replies
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn check_all(client: &mut Client) {
    let gets: Vec<_> = (0..STRINGS).map(|at| words(&["GET", &format!("string:{at}")])).collect();
    for (at, value) in pipeline(client, &gets).into_iter().enumerate() {
        assert_eq!(value.text(), Some(filler(at, 600)), "string:{at}");
    }
    for set in 0..COLLECTIONS {
        assert_eq!(client.words(&format!("SCARD set:{set}")), Value::Int(MEMBERS as i64));
        let mut want: Vec<String> = (0..MEMBERS).map(|number| member(set, number)).collect();
        want.sort();
        assert_eq!(client.words(&format!("SMEMBERS set:{set}")).sorted_texts(), want);
        assert_eq!(client.words(&format!("HLEN hash:{set}")), Value::Int(MEMBERS as i64));
        let gets: Vec<_> = (0..MEMBERS)
            .map(|number| words(&["HGET", &format!("hash:{set}"), &format!("f{number}")]))
            .collect();
        for (number, value) in pipeline(client, &gets).into_iter().enumerate() {
            assert_eq!(value.text(), Some(member(set, number)), "hash:{set} f{number}");
        }
    }
    assert_eq!(client.words("DBSIZE"), Value::Int((STRINGS + 2 * COLLECTIONS) as i64));
}

/// Ten times the cache in strings, sets and hashes: all of it reads back right, then and after kill -9.
#[test]
fn more_data_than_cache() {
    let mut config = NodeConfig::new("small");
    config.cache_bytes = Some(1 << 20);
    let mut server = Server::lattis(&config);
    let mut client = server.client();
    let mut commands = Vec::new();
    for at in 0..STRINGS {
        commands.push(words(&["SET", &format!("string:{at}"), &filler(at, 600)]));
    }
    for number in 0..MEMBERS {
        for set in 0..COLLECTIONS {
            let value = member(set, number);
            commands.push(words(&["SADD", &format!("set:{set}"), &value]));
            commands.push(words(&["HSET", &format!("hash:{set}"), &format!("f{number}"), &value]));
        }
    }
    let bytes: usize = commands.iter().flatten().map(String::len).sum();
    assert!(bytes > 10 << 20, "{bytes} bytes are too few");
    for reply in pipeline(&mut client, &commands) {
        assert!(reply.error().is_none(), "{reply:?}");
    }
    check_all(&mut client);
    server.kill();
    server.restart();
    check_all(&mut server.client());
}

// ---- a full disk

/// A file system of a few megabytes; unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// None: mounting is not permitted.
    fn mount(megabytes: u32) -> Option<SmallDisk> {
        let dir = TempDir::new("disk");
        let size = format!("size={megabytes}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output()
            .ok()?;
        mount.status.success().then_some(SmallDisk(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all that is left.
    fn fill(&self) {
        let mut file = fs::File::create(self.path().join("filler")).expect("a filler");
        let zeros = vec![0; 64 << 10];
        while file.write_all(&zeros).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.path().join("filler")).expect("the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Sets new keys with a large value each until one is refused; gives the number of those acknowledged.
fn write_until_refused(client: &mut Client, prefix: &str, value: &str) -> usize {
    for number in 0..20_000 {
        let reply = client.call(&["SET", &format!("{prefix}:{number}"), value]);
        if let Some(error) = reply.error() {
            assert!(error.starts_with("MISCONF "), "{error}");
            assert!(error.contains("No space left on device"), "{error}");
            return number;
        }
    }
    panic!("the disk does not get full");
}

fn check_written(client: &mut Client, prefix: &str, count: usize, value: &str) {
    for number in 0..count {
        let reply = client.call(&["GET", &format!("{prefix}:{number}")]);
        assert_eq!(reply.text().as_deref(), Some(value), "{prefix}:{number}");
    }
    assert_eq!(client.call(&["GET", &format!("{prefix}:{count}")]), Value::Null, "refused");
}

/// On a full disk writes are refused and reads go on; when there is room again, writes work without a
/// restart. What was acknowledged is there, what was refused is not, also after kill -9.
fn full_disk(appendfsync: &str) {
    let Some(disk) = SmallDisk::mount(224) else {
        println!("SKIPPED: full_disk ({appendfsync}): mounting a tmpfs is not permitted");
        return;
    };
    let mut config = NodeConfig::new("full");
    config.appendfsync = Some(appendfsync.to_string());
    config.more = words(&["--dir", &disk.path().join("data").display().to_string()]);
    let mut server = Server::lattis(&config);
    let mut client = server.client();
    let value = filler(7, 64 << 10);
    assert!(client.words("SET first 1").is_ok());
    assert!(client.words("PEXPIRE first 600000").int().is_some());
    assert!(client.words("SET due 1 PX 1500").is_ok());
    for round in 0..2 {
        let prefix = format!("round{round}");
        let (incr, get) = (format!("INCR n{round}"), format!("GET n{round}"));
        disk.fill();
        let written = write_until_refused(&mut client, &prefix, &value);
        println!(
            "{appendfsync}: {written} large writes were acknowledged before the disk was full"
        );
        // For longer than a sync and a deadline take: all kinds of writes are refused, reads answered.
        let refusing = Instant::now();
        while refusing.elapsed() < Duration::from_millis(2500) {
            for line in ["SET x 1", &incr, "SADD s a", "HSET h f v", "DEL first", "FLUSHALL"] {
                let reply = client.words(line);
                let refused = reply.error().is_some_and(|error| error.starts_with("MISCONF "));
                assert!(refused, "{line}: {reply:?}");
            }
            for line in ["GET x", &get] {
                assert_eq!(client.words(line), Value::Null, "{line}");
            }
            assert_eq!(client.words("SCARD s"), Value::Int(0));
            assert!(client.words("MULTI").is_ok());
            client.words("SET y 1");
            let error = client.words("EXEC").error().unwrap_or_default().to_string();
            assert!(error.starts_with("EXECABORT ") || error.starts_with("MISCONF "), "{error}");
            assert_eq!(client.words("GET first").text().as_deref(), Some("1"));
            thread::sleep(Duration::from_millis(50));
        }
        let info = client.words("INFO persistence").text().unwrap_or_default();
        assert!(info.contains("aof_last_write_status:err"), "{info}");
        check_written(&mut client, &prefix, written, &value);
        disk.free();
        let freed = Instant::now();
        while !client.words("SET second 2").is_ok() {
            assert!(freed.elapsed() < PATIENCE, "writes are still refused\n{}", server.log());
            thread::sleep(Duration::from_millis(50));
        }
        println!("{appendfsync}: writing again {:?} after there was room", freed.elapsed());
        assert_eq!(client.words(&incr).int(), Some(1));
        check_written(&mut client, &prefix, written, &value);
        assert_eq!(client.words("GET due"), Value::Null, "its deadline has passed");
        let info = client.words("INFO persistence").text().unwrap_or_default();
        assert!(info.contains("aof_last_write_status:ok"), "{info}");
        server.kill();
        server.restart();
        client = server.client();
        check_written(&mut client, &prefix, written, &value);
        assert_eq!(client.words(&get).text().as_deref(), Some("1"));
        assert_eq!(client.words("GET second").text().as_deref(), Some("2"));
        assert_eq!(client.words("EXISTS x y s h").int(), Some(0));
        let deletes: Vec<_> =
            (0..written).map(|number| words(&["DEL", &format!("{prefix}:{number}")])).collect();
        pipeline(&mut client, &deletes);
    }
    // It can be stopped while the disk is full, and started when there is room.
    disk.fill();
    let written = write_until_refused(&mut client, "last", &value);
    assert!(server.terminate().success(), "{}", server.log());
    disk.free();
    server.restart();
    check_written(&mut server.client(), "last", written, &value);
}

#[test]
fn full_disk_everysec() {
    full_disk("everysec");
}

#[test]
fn full_disk_always() {
    full_disk("always");
}

// ---- nonsense at the client port

/// Sends bytes on a new connection; gives what comes back until the server closes or nothing comes.
fn throw(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let _ = stream.write_all(bytes);
    let mut reply = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        reply.extend_from_slice(&chunk[..length]);
    }
    reply
}

fn memory(server: &Server) -> u64 {
    let info = server.client().words("INFO memory").text().unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory_rss:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).expect("used_memory_rss")
}

/// Huge counts, huge announcements, nested garbage, half commands: the server closes those
/// connections or waits for them, keeps its memory, and serves everyone else.
#[test]
fn nonsense_hurts_nobody() {
    let server = Server::lattis(&NodeConfig::new("calm"));
    let mut witness = server.client();
    assert!(witness.words("SET k v").is_ok());
    let before = memory(&server);
    let errors: &[&[u8]] = &[
        b"*2147483648\r\n",
        b"*9223372036854775807\r\n",
        b"*99999999999999999999999\r\n",
        b"*1\r\n$9223372036854775807\r\n",
        b"*1\r\n$-5\r\n",
        b"*1\r\n*1\r\n$4\r\nPING\r\n",
        b"*2\r\n$3\r\nGET\r\n:1\r\n",
        b"*1\r\n$99999999999\r\n",
        b"*x\r\n",
        b"*1\r\n+PING\r\n",
    ];
    for bytes in errors {
        let reply = throw(&server, bytes);
        let text = String::from_utf8_lossy(&reply);
        assert!(text.starts_with("-ERR Protocol error"), "{}: {text}", bytes.escape_ascii());
        assert!(witness.words("PING").bytes().is_some());
    }
    let quiet: &[&[u8]] = &[
        b"",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nhalf",
        b"*1048576\r\n$4\r\nPING\r\n",
        b"*-1\r\n",
        b"*0\r\n\r\n\r\n",
        b"$",
        b"SET k",
    ];
    for bytes in quiet {
        let reply = throw(&server, bytes);
        assert!(reply.is_empty(), "{}: {}", bytes.escape_ascii(), reply.escape_ascii());
    }
    // Garbage from a fixed seed, some of it beginning like a command.
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    for round in 0..200 {
        let alphabet = b"*$\r\n0123456789:+-GETSK \0\xff\"'";
        let garbage: Vec<u8> =
            (0..random() % 300).map(|_| alphabet[random() % alphabet.len()]).collect();
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("a connection");
        let _ = stream.write_all(&garbage);
        if round % 2 == 0 {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
    // A line without an end: closed before it takes memory.
    let reply = throw(&server, &vec![b'a'; 1 << 20]);
    assert!(reply.starts_with(b"-ERR Protocol error: too big inline request"));
    // Fifty announcements of half a gigabyte each: memory is taken for what arrives.
    let mut announced: Vec<TcpStream> = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("a connection");
        let head = b"*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$536870912\r\n";
        stream.write_all(head).and_then(|()| stream.write_all(&[b'x'; 10_000])).expect("room");
        announced.push(stream);
    }
    assert_eq!(witness.words("GET k").text().as_deref(), Some("v"));
    let after = memory(&server);
    assert!(after < before + (200 << 20), "memory grew from {before} to {after}");
    drop(announced);
    assert_eq!(witness.words("EXISTS b").int(), Some(0));
}

/// A command of 512 MB is not more than the limit, one byte more is.
#[test]
fn large_values_come_back() {
    let server = Server::lattis(&NodeConfig::new("large"));
    let mut client = server.client();
    let value = filler(3, 32 << 20);
    assert!(client.call(&["SET", "large", &value]).is_ok());
    assert_eq!(client.words("STRLEN large").int(), Some(32 << 20));
    assert_eq!(client.words("GET large").text(), Some(value));
}

/// Bytes of replies that wait for clients, as CLIENT LIST has them.
fn waiting(client: &mut Client) -> usize {
    let list = client.words("CLIENT LIST").text().unwrap_or_default();
    let sizes = list.split_whitespace().filter_map(|word| word.strip_prefix("omem="));
    sizes.filter_map(|size| size.parse::<usize>().ok()).sum()
}

/// Replies that nobody reads yet are sent from where the value lies, and what is sent is given back.
#[test]
fn unread_replies_of_one_value_take_no_memory() {
    const BYTES: usize = 48 << 20;
    let server = Server::lattis(&NodeConfig::new("unread"));
    let (mut client, mut witness) = (server.client(), server.client());
    let value = filler(3, BYTES);
    assert!(client.call(&["SET", "large", &value]).is_ok());
    // What writing has taken is given back when rows are written.
    let start = Instant::now();
    loop {
        let info = witness.words("INFO memory").text().unwrap_or_default();
        if info.contains("lattis_mem_pinned:0\r\n") || start.elapsed() > PATIENCE {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let before = memory(&server);
    for _ in 0..8 {
        client.send_raw(b"*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n").expect("a request");
    }
    while waiting(&mut witness) < 7 * BYTES {
        assert!(start.elapsed() < 2 * PATIENCE, "{}", waiting(&mut witness));
        thread::sleep(Duration::from_millis(20));
    }
    let unread = memory(&server);
    assert!(unread < before + 2 * BYTES as u64, "memory grew from {before} to {unread}");
    for _ in 0..8 {
        assert_eq!(client.read().expect("a reply").text().as_deref(), Some(&*value));
    }
    assert_eq!(waiting(&mut witness), 0);
}

/// What is more than one commit may be is refused whole, with a reason, and others go on.
#[test]
fn a_transaction_that_is_too_large_changes_nothing() {
    let mut config = NodeConfig::new("huge");
    config.more = words(&["--transaction-max-bytes", "1mb"]);
    let mut server = Server::lattis(&config);
    let mut client = server.client();
    let value = filler(1, 600_000);
    assert!(client.call(&["SET", "first", &value]).is_ok());
    let why = "more than 1048576 bytes of changes in one transaction";
    let reply = client.call(&["MSET", "a", &value, "b", &value]);
    assert_eq!(reply.error(), Some(&*format!("ERR {why}")));
    for round in 0..2 {
        assert!(client.words("WATCH first").is_ok());
        assert!(client.words("MULTI").is_ok());
        client.words("INCR n");
        client.call(&["SET", "a", &value]);
        // A small request that writes much.
        client.words("APPEND first !");
        let reply = client.words("EXEC");
        let text = format!("EXECABORT Transaction discarded because of: {why}");
        assert_eq!(reply.error(), Some(&*text), "round {round}");
        assert_eq!(client.words("EXISTS n a b").int(), Some(0));
        assert_eq!(client.words("STRLEN first").int(), Some(600_000));
    }
    // One after the other they are no transaction, also in one tick.
    let sets: Vec<_> = (0..40).map(|at| words(&["SET", &format!("s{at}"), &value])).collect();
    assert!(pipeline(&mut client, &sets).iter().all(Value::is_ok));
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.words("DBSIZE").int(), Some(41));
    assert_eq!(client.words("EXISTS n a b").int(), Some(0));
}

/// A row of the log has what one tick writes: small requests that write much end the tick as large ones do,
/// and so does a queue.
#[test]
fn a_tick_does_not_write_without_bound() {
    let server = Server::lattis(&NodeConfig::new("ticks"));
    let mut client = server.client();
    let value = filler(1, 4 << 20);
    let sets: Vec<_> = (0..8).map(|at| words(&["SET", &format!("k{at}"), &value])).collect();
    assert!(pipeline(&mut client, &sets).iter().all(Value::is_ok));
    let ticks = |client: &mut Client| -> i64 {
        let info = client.words("INFO stats").text().unwrap_or_default();
        let line = info.lines().find_map(|line| line.strip_prefix("lattis_ticks:"));
        line.and_then(|count| count.parse().ok()).expect("lattis_ticks")
    };
    let before = ticks(&mut client);
    // Each of these writes four megabytes, and a tick takes eight.
    let appends: Vec<_> = (0..8).map(|at| words(&["APPEND", &format!("k{at}"), "!"])).collect();
    for reply in pipeline(&mut client, &appends) {
        assert_eq!(reply.int(), Some((4 << 20) + 1));
    }
    let after = ticks(&mut client);
    assert!(after - before >= 4, "{} ticks", after - before);
}

/// Whether TCP will ask the client at that port whether it is there.
fn is_kept_alive(server: &Server, client: &TcpStream) -> bool {
    const ESTABLISHED: &str = "01";
    const KEEP_ALIVE: &str = "02:";
    let port = client.local_addr().expect("an address").port();
    let (ours, theirs) = (format!(":{:04X}", server.port()), format!(":{port:04X}"));
    let table = fs::read_to_string("/proc/net/tcp").expect("connections");
    table.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words[..], [_, local, remote, ESTABLISHED, _, timer, ..]
            if local.ends_with(&ours) && remote.ends_with(&theirs) && timer.starts_with(KEEP_ALIVE))
    })
}

/// `tcp-keepalive` is what it says, and follows CONFIG SET.
#[test]
fn silent_clients_are_asked() {
    let server = Server::lattis(&NodeConfig::new("alive"));
    let mut client = server.client();
    let connect = || {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("a connection");
        stream.write_all(b"PING\r\n").expect("a request");
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).expect("a reply");
        stream
    };
    assert!(is_kept_alive(&server, &connect()));
    assert!(client.words("CONFIG SET tcp-keepalive 0").is_ok());
    assert!(!is_kept_alive(&server, &connect()));
    assert!(client.words("CONFIG SET tcp-keepalive 60").is_ok());
    assert!(is_kept_alive(&server, &connect()));
    assert!(client.words("CONFIG SET tcp-keepalive -1").error().is_some());
}

/// A thousand idle connections, and the commands of another one are as fast as ever.
#[test]
fn idle_connections_cost_nothing() {
    let server = Server::lattis(&NodeConfig::new("patient"));
    let mut idle: Vec<Client> = (0..1000).map(|_| server.client()).collect();
    for client in idle.iter_mut().step_by(2) {
        assert!(client.words("PING").bytes().is_some());
    }
    let mut client = server.client();
    let start = Instant::now();
    for number in 0..2000 {
        assert_eq!(client.words("INCR n").int(), Some(number + 1));
    }
    let took = start.elapsed();
    println!("2000 INCRs beside 1000 idle connections: {took:?}");
    assert!(took < Duration::from_secs(10));
    let info = client.words("INFO clients").text().unwrap_or_default();
    assert!(info.contains("connected_clients:1001"), "{info}");
    for client in &mut idle {
        assert!(client.words("PING").bytes().is_some());
    }
    // Half of them go without a word, in the middle of a command.
    for client in idle.iter_mut().step_by(2) {
        client.send_raw(b"*2\r\n$3\r\nGET\r\n$1\r\n").expect("half a command");
    }
    idle.truncate(500);
    assert_eq!(client.words("GET n").text().as_deref(), Some("2000"));
    let start = Instant::now();
    loop {
        let info = client.words("INFO clients").text().unwrap_or_default();
        if info.contains("connected_clients:501") {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{info}");
        thread::sleep(Duration::from_millis(20));
    }
}
