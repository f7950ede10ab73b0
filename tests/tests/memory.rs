//! Memory: what comes back when it is not needed any more, and what a large value takes at its peak.

use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use lattis_tests::process::{NodeConfig, Server};
use lattis_tests::resp::{Client, Value, encode};

const MB: u64 = 1 << 20;
/// What a process may hold beyond what it can account for, beside a fifth of that.
const CONSTANT: u64 = 32 * MB;

/// A number of kilobytes that the kernel tells of a server, in bytes.
fn kernel(server: &Server, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
    line.trim_matches([':', '\t', ' ']).split(' ').next().unwrap().parse::<u64>().unwrap() * 1024
}

fn resident(server: &Server) -> u64 {
    kernel(server, "VmRSS")
}

fn used(client: &mut Client) -> u64 {
    let info = client.words("INFO memory").text().unwrap();
    let value = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    value.trim().parse().unwrap()
}

/// Waits until the server holds little more than it can account for; nobody talks to it meanwhile.
fn expect_ebb(server: &Server, client: &mut Client, what: &str) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        thread::sleep(Duration::from_secs(2));
        let (used, resident) = (used(client), resident(server));
        if resident <= used + used / 5 + CONSTANT {
            eprintln!("{what}: {} MB resident, {} MB in use", resident / MB, used / MB);
            return;
        }
        let info = client.words("INFO memory").text().unwrap();
        assert!(
            Instant::now() < end,
            "{what}: {} MB resident, {} MB in use\n{info}",
            resident / MB,
            used / MB
        );
    }
}

fn fill(client: &mut Client, keys: usize, size: usize) {
    let value = "x".repeat(size);
    for first in (0..keys).step_by(1000) {
        let mut bytes = Vec::new();
        for key in first..first + 1000 {
            encode(&["SET", &format!("key:{key}"), &value], &mut bytes);
        }
        client.send_raw(&bytes).unwrap();
        (0..1000).for_each(|_| assert_eq!(client.read().unwrap(), Value::Simple("OK".into())));
    }
}

#[test]
fn many_keys_that_are_gone() {
    let server = Server::lattis(&NodeConfig::new("flush"));
    let mut client = server.client();
    fill(&mut client, 600_000, 64);
    let full = resident(&server);
    assert!(full > 110 * MB, "{full} is no peak");
    assert_eq!(client.words("FLUSHALL"), Value::Simple("OK".into()));
    expect_ebb(&server, &mut client, "after FLUSHALL");
    let left = used(&mut client);
    assert!(left < 60 * MB, "{left} bytes are in use for nothing");
}

#[test]
fn a_slow_reader_that_is_gone() {
    let server = Server::lattis(&NodeConfig::new("reader"));
    let mut client = server.client();
    fill(&mut client, 1_000, 50_000);
    let slow = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let mut bytes = Vec::new();
    (0..16_000).for_each(|n| encode(&["GET", &format!("key:{}", n % 1_000)], &mut bytes));
    std::io::Write::write_all(&mut &slow, &bytes).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while resident(&server) < 700 * MB {
        assert!(Instant::now() < end, "{} bytes are no peak", resident(&server));
        thread::sleep(Duration::from_millis(100));
    }
    slow.shutdown(Shutdown::Both).unwrap();
    expect_ebb(&server, &mut client, "after a slow reader");
}

/// A value of `size` bytes, as a request that is never whole in this process's memory.
fn set_large(server: &Server, size: usize) {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let piece = vec![b'v'; MB as usize];
    write!(stream, "*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n${size}\r\n").unwrap();
    (0..size / piece.len()).for_each(|_| stream.write_all(&piece).unwrap());
    stream.write_all(b"\r\n").unwrap();
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+OK\r\n");
}

/// Reads it, and the number of bytes of the reply.
fn get_large(server: &Server, size: usize) {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream.write_all(b"GET large\r\n").unwrap();
    let want = size + format!("${size}\r\n\r\n").len();
    let mut piece = vec![0; MB as usize];
    let mut got = 0;
    while got < want {
        let len = stream.read(&mut piece).unwrap();
        assert!(len > 0, "{got} of {want} bytes");
        got += len;
    }
}

#[test]
fn a_large_value() {
    let size = 256 << 20;
    let mut server = Server::lattis(&NodeConfig::new("large"));
    let mut client = server.client();
    let before = kernel(&server, "VmHWM");
    let bound = before + size as u64 / 10 * 27;
    set_large(&server, size);
    // What was set is still to be written behind the log.
    thread::sleep(Duration::from_secs(3));
    get_large(&server, size);
    let peak = kernel(&server, "VmHWM");
    eprintln!("SET and GET of {} MB: {} MB", size >> 20, (peak - before) / MB);
    assert!(peak < bound, "{} MB for a value of {} MB", (peak - before) / MB, size >> 20);
    server.kill();
    server.restart();
    let mut client_again = server.client();
    get_large(&server, size);
    let peak = kernel(&server, "VmHWM");
    eprintln!("start and GET of {} MB: {} MB", size >> 20, (peak - before) / MB);
    assert!(peak < bound, "{} MB for a value of {} MB", (peak - before) / MB, size >> 20);
    assert_eq!(client_again.words("DEL large"), Value::Int(1));
    expect_ebb(&server, &mut client_again, "after a large value");
    drop(client.read());
}
