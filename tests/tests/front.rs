//! What one client does to another, or to itself, beside a Redis: the same steps on both, and what each
//! connection receives.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use lattis_tests::process::{NodeConfig, Server};
use lattis_tests::resp::{Client, Value};

/// A connection that is silent for so long has nothing to say.
const SILENCE: Duration = Duration::from_millis(150);

/// Connections by letter, made when they are first named.
struct Side {
    server: Server,
    clients: BTreeMap<char, (Client, String)>,
}

impl Side {
    fn new(server: Server) -> Side {
        Side { server, clients: BTreeMap::new() }
    }

    fn client(&mut self, letter: char) -> &mut (Client, String) {
        self.clients.entry(letter).or_insert_with(|| {
            let mut client = self.server.client();
            let id = format!("{:?}", client.words("CLIENT ID"));
            let id = id.chars().filter(char::is_ascii_digit).collect();
            (client, id)
        })
    }

    /// Sends lines, in which `{b}` is the number of a client, and tells what comes back until all is silent.
    fn step(&mut self, letter: char, lines: &str) -> String {
        let mut text = lines.to_owned();
        for other in 'a'..='d' {
            let name = format!("{{{other}}}");
            if lines.contains(&name) {
                let id = self.client(other).1.clone();
                text = text.replace(&name, &id);
            }
        }
        text = text.replace("{port}", &self.server.port().to_string());
        let (client, _) = self.client(letter);
        let mut bytes = text.replace('|', "\r\n").into_bytes();
        if !bytes.is_empty() {
            bytes.extend_from_slice(b"\r\n");
        }
        let mut received = Vec::new();
        let mut end = "";
        if client.send_raw(&bytes).is_err() {
            end = " closed";
        }
        let mut stream = client.stream();
        stream.set_read_timeout(Some(SILENCE)).expect("a timeout");
        let mut chunk = [0; 4096];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => break end = " closed",
                Ok(len) => received.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break end = " closed",
                Err(_) => break,
            }
        }
        if end == " closed" {
            self.clients.remove(&letter);
        }
        format!("{}{end}", received.escape_ascii())
    }
}

/// The same steps on both, each with its client.
fn same(steps: &[(char, &str)]) -> Vec<String> {
    let mut redis = Side::new(Server::redis(&[]));
    let mut lattis = Side::new(Server::lattis(&NodeConfig::new("front")));
    steps
        .iter()
        .map(|(letter, lines)| {
            let (theirs, ours) = (redis.step(*letter, lines), lattis.step(*letter, lines));
            assert_eq!(ours, theirs, "{letter}: {lines}");
            ours
        })
        .collect()
}

#[test]
fn clients_are_killed() {
    let told = same(&[
        ('a', "CLIENT KILL 1.2.3.4:5"),
        ('a', "CLIENT KILL ID"),
        ('a', "CLIENT KILL ID 1 TYPE"),
        ('a', "CLIENT KILL ID 0"),
        ('a', "CLIENT KILL ID x"),
        ('a', "CLIENT KILL TYPE foo"),
        ('a', "CLIENT KILL TYPE replica"),
        ('a', "CLIENT KILL USER nobody"),
        ('a', "CLIENT KILL SKIPME maybe"),
        ('a', "CLIENT KILL COLOUR red"),
        ('a', "CLIENT KILL ID 9999"),
        ('b', "PING"),
        ('a', "CLIENT KILL ID {b}"),
        ('b', ""),
        ('b', "PING"),
        ('b', "CLIENT KILL ID {b}|PING"),
        ('b', "CLIENT KILL ID {b} SKIPME no|PING"),
        ('b', "MULTI|CLIENT KILL ID {b} SKIPME no|SET k v|EXEC|PING"),
        ('a', "GET k"),
        ('b', "PING"),
        ('c', "PING"),
        ('a', "CLIENT KILL USER default TYPE normal LADDR 127.0.0.1:{port}"),
        ('b', ""),
        ('c', ""),
        ('a', "PING"),
        ('a', "CLIENT GETREDIR"),
    ]);
    assert_eq!(told[13], " closed");
}

#[test]
fn replies_are_held_back() {
    same(&[
        ('a', "CLIENT REPLY OFF|PING|NONSENSE|SET k v|CLIENT REPLY ON|PING|GET k"),
        ('a', "CLIENT REPLY SKIP|PING|PING x|CLIENT REPLY maybe"),
        ('a', "CLIENT REPLY SKIP|CLIENT REPLY SKIP|PING 1|PING 2|PING 3"),
        ('a', "CLIENT REPLY OFF|CLIENT REPLY SKIP|PING 1|PING 2|CLIENT REPLY ON"),
        ('a', "CLIENT REPLY SKIP|CLIENT REPLY ON|PING 1|PING 2"),
        ('a', "CLIENT REPLY OFF|RESET|PING 2"),
    ]);
}

#[test]
fn clients_are_paused() {
    same(&[
        ('a', "CLIENT PAUSE x"),
        ('a', "CLIENT PAUSE -1"),
        ('a', "CLIENT PAUSE 1 SOME"),
        ('a', "CLIENT PAUSE 9223372036854775807 WRITE|CLIENT UNPAUSE"),
        ('a', "CLIENT PAUSE 100000 WRITE"),
        ('b', "GET k|MULTI|PING|SET k 1"),
        ('b', ""),
        ('c', "SET k|SET k 2|GET k"),
        ('a', "CLIENT UNPAUSE"),
        ('b', ""),
        ('c', ""),
        ('b', "EXEC"),
        // An EXEC waits for what was queued.
        ('b', "MULTI|INCR k"),
        ('a', "CLIENT PAUSE 100000 WRITE"),
        ('b', "EXEC|PING"),
        // The longest and the strictest of several counts.
        ('a', "CLIENT PAUSE 1 WRITE"),
        ('b', ""),
        // Who waits can be killed.
        ('c', "DEL k"),
        ('a', "CLIENT KILL ID {c}"),
        ('c', ""),
        ('a', "CLIENT UNPAUSE"),
        ('b', ""),
        ('a', "GET k"),
    ]);
}

/// A pause of all ends by itself, also for the one that asked for it; what was sent meanwhile is answered.
#[test]
fn a_pause_ends() {
    for server in [Server::redis(&[]), Server::lattis(&NodeConfig::new("pause"))] {
        let (mut one, mut other) = (server.client(), server.client());
        one.words("SET k v PX 100");
        let start = Instant::now();
        one.words("CLIENT PAUSE 400 ALL");
        one.words("PING");
        assert!(start.elapsed() >= Duration::from_millis(390), "{:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(other.words("GET k"), Value::Null);
    }
}
