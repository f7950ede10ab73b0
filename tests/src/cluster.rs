//! Real nodes joined by links that a test can cut.
//!
//! Every node dials its peers through a small TCP proxy of its own, a [`Link`], which forwards, stalls or
//! refuses, at any rate or at a slow one. [`Cluster::isolate`] cuts all links of a node,
//! [`Cluster::heal`] opens them again.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{NodeConfig, PATIENCE, Server, free_port};
use crate::resp::{Client, Value};

const OPEN: u8 = 0;
const STALLED: u8 = 1;
const CUT: u8 = 2;
const GONE: u8 = 3;

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    /// Bytes a second in each direction, 0 for any.
    rate: AtomicU64,
    /// Bytes that were forwarded.
    bytes: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

/// A port that leads to another port, as long as nobody cuts it.
#[derive(Debug)]
pub struct Link {
    port: u16,
    shared: Arc<Shared>,
}

impl Link {
    /// A link to a port on this machine.
    pub fn to(target: u16) -> Link {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port for the link");
        let shared = Arc::new(Shared {
            state: AtomicU8::new(OPEN),
            rate: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            streams: Mutex::new(Vec::new()),
        });
        let ours = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                match ours.state.load(Ordering::SeqCst) {
                    GONE => break,
                    CUT => continue, // closes it
                    _ => {}
                }
                if let Ok(server) = TcpStream::connect(("127.0.0.1", target)) {
                    ours.forward(&client, &server);
                    ours.forward(&server, &client);
                    ours.streams.lock().unwrap().extend([client, server]);
                    if ours.state.load(Ordering::SeqCst) >= CUT {
                        ours.close(); // it was cut meanwhile
                    }
                }
            }
        });
        Link { port, shared }
    }

    /// What to dial.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Forwards again.
    pub fn open(&self) {
        self.shared.state.store(OPEN, Ordering::SeqCst);
    }

    /// Forwards so many bytes a second in each direction, 0 for any.
    pub fn rate(&self, rate: u64) {
        self.shared.rate.store(rate, Ordering::SeqCst);
    }

    /// Bytes that were forwarded so far, both ways.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    /// Keeps connections and forwards nothing: a cable pulled.
    pub fn stall(&self) {
        self.shared.state.store(STALLED, Ordering::SeqCst);
    }

    /// Closes all connections and refuses new ones.
    pub fn cut(&self) {
        self.shared.state.store(CUT, Ordering::SeqCst);
        self.shared.close();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.state.store(GONE, Ordering::SeqCst);
        self.shared.close();
        let _ = TcpStream::connect(("127.0.0.1", self.port)); // wakes the listener
    }
}

impl Shared {
    fn close(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn forward(self: &Arc<Self>, from: &TcpStream, to: &TcpStream) {
        let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
        let shared = self.clone();
        let _ = to.set_nodelay(true);
        thread::spawn(move || {
            let mut chunk = [0; 16 * 1024];
            // When what was forwarded has passed at the link's rate.
            let mut passed = Instant::now();
            loop {
                let rate = shared.rate.load(Ordering::SeqCst);
                let most = if rate > 0 { (rate / 50).clamp(256, 16 * 1024) } else { 16 * 1024 };
                let Ok(length @ 1..) = from.read(&mut chunk[..most as usize]) else { break };
                if let Some(micros) = (length as u64 * 1_000_000).checked_div(rate) {
                    passed = passed.max(Instant::now()) + Duration::from_micros(micros);
                    thread::sleep(passed.saturating_duration_since(Instant::now()));
                }
                shared.bytes.fetch_add(length as u64, Ordering::SeqCst);
                while shared.state.load(Ordering::SeqCst) == STALLED {
                    thread::sleep(Duration::from_millis(2));
                }
                if to.write_all(&chunk[..length]).is_err() {
                    break;
                }
            }
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

/// Lattis nodes, each of which dials all others.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, in the order of their names.
    pub nodes: Vec<Server>,
    /// From, to, and what is between.
    links: Vec<(usize, usize, Link)>,
}

impl Cluster {
    /// Starts a node for each name; `adjust` may change how.
    pub fn start(names: &[&str], adjust: impl Fn(&mut NodeConfig)) -> Cluster {
        let mut configs: Vec<NodeConfig> = names.iter().map(|name| NodeConfig::new(name)).collect();
        let ports: Vec<u16> = configs.iter().map(|config| config.peer_port).collect();
        let mut links = Vec::new();
        for (from, config) in configs.iter_mut().enumerate() {
            for (to, port) in ports.iter().enumerate().filter(|(to, _)| *to != from) {
                let link = Link::to(*port);
                config.peers.push(link.address());
                links.push((from, to, link));
            }
            adjust(config);
        }
        Cluster { nodes: configs.iter().map(Server::lattis).collect(), links }
    }

    /// The links of a node, both ways.
    pub fn links(&self, node: usize) -> impl Iterator<Item = &Link> {
        let its = self.links.iter().filter(move |(from, to, _)| *from == node || *to == node);
        its.map(|(_, _, link)| link)
    }

    /// Cuts a node off from all others. It is told to pause too: a node that has lost a peer also dials the
    /// address that the peer has told it, past the link.
    pub fn isolate(&self, node: usize) {
        let reply = self.nodes[node].client().words("PEER.PAUSE ALL");
        assert!(reply.is_ok(), "{reply:?}");
        self.links(node).for_each(Link::cut);
    }

    /// Opens all links.
    pub fn heal(&self) {
        self.links.iter().for_each(|(_, _, link)| link.open());
        for node in &self.nodes {
            // One that does not run has nothing to resume.
            if let Ok(mut client) = Client::connect(node.port()) {
                let _ = client.try_call(&["PEER.RESUME", "ALL"]);
            }
        }
    }

    /// Asks a node until its reply satisfies; panics with the last reply after [`PATIENCE`].
    pub fn wait_for(&self, node: usize, line: &str, satisfies: impl Fn(&Value) -> bool) -> Value {
        let mut client = self.nodes[node].client();
        let start = Instant::now();
        loop {
            let reply = client.words(line);
            if satisfies(&reply) {
                return reply;
            }
            let name = self.nodes[node].name();
            assert!(start.elapsed() < PATIENCE, "{name} still answers {reply:?} to {line}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_forwards_stalls_and_breaks() {
        let redis = Server::redis(&[]);
        let link = Link::to(redis.port());
        let connect = || Client::connect(link.port).unwrap();
        let ping = |client: &mut Client| client.try_call(&["PING"]);
        let mut first = connect();
        assert!(ping(&mut first).is_ok());
        link.stall();
        first.set_read_timeout(Duration::from_millis(50)).unwrap();
        assert!(ping(&mut first).is_err());
        link.open();
        first.set_read_timeout(Duration::from_secs(10)).unwrap();
        assert!(first.read().is_ok());
        link.cut();
        assert!(ping(&mut first).is_err());
        assert!(ping(&mut connect()).is_err());
        link.open();
        assert!(ping(&mut connect()).is_ok());
    }
}
