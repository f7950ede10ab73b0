//! Starting and stopping a node.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::data::Fresh;
use lattis_engine::causal::NodeId;
use mio::{Poll, Waker};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use crate::behind::Behind;
use crate::clients::Clients;
use crate::config::Config;
use crate::data::{self, Engine};
use crate::health::Health;
use crate::logging;
use crate::net::stream::Listener;
use crate::peers;
use crate::port::Port;
use crate::process::Signals;
use crate::stats::{Rates, Stats};
use crate::sync::Syncer;
use crate::tick::{Loop, Parts, WAKER, wall_clock};
use crate::usage;
use crate::watch::WatchTable;
use crate::world::{Facts, World};

/// Descriptors that are not for clients: files of the store, listeners, peers.
const RESERVED_FILES: usize = 160;
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs a node until it is told to stop. The error is a line for the user.
pub fn run(mut config: Config) -> Result<(), String> {
    logging::start(&config.logfile, config.loglevel)?;
    let memory_startup = usage::resident().unwrap_or(0);
    let mut random = ChaCha20Rng::from_os_rng();
    // Everything that may be taken by others comes before the data, of which a start changes who it is.
    let listeners = listen(&config)?;
    let peers_listener = peers::bind(&config)?;
    let _pidfile = Pidfile::write(&config.pidfile)?;
    lower_maxclients(&mut config);
    let engine = open(&config, &mut random)?;
    let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
    let waker = Waker::new(poll.registry(), WAKER).map_err(|error| format!("eventfd: {error}"))?;
    let port = Arc::new(Port::new(waker));
    let signals = Signals::catch().map_err(|error| format!("signals: {error}"))?;
    let syncer =
        Syncer::start(data::syncer(&engine)).map_err(|error| format!("thread: {error}"))?;
    let behind =
        Behind::start(data::writer(&engine)).map_err(|error| format!("thread: {error}"))?;
    peers::start(&config, &engine, Arc::clone(&port), peers_listener)
        .map_err(|error| format!("peers: {error}"))?;
    banner(&config, &engine);
    let now = Instant::now();
    let world = World {
        config,
        stats: Stats::default(),
        rates: Rates::new(now),
        memory_startup,
        memory_peak: 0,
        facts: Facts::default(),
        watch: WatchTable::default(),
        port,
        clients: Clients::default(),
        run_id: (0..5).map(|_| format!("{:08x}", random.next_u32())).collect(),
        started: now,
        now: wall_clock(),
        instant: now,
        refuse_writes: None,
        clock_fenced: None,
        health: Health::default(),
        shutdown: false,
    };
    Loop::new(Parts { engine, poll, listeners, signals, syncer, behind, world })
        .map_err(|error| format!("epoll: {error}"))?
        .run()?;
    tracing::info!("stopped, everything is on the disk");
    Ok(())
}

fn open(config: &Config, random: &mut ChaCha20Rng) -> Result<Engine, String> {
    let directory = config.dir.display();
    if !config.dir.is_dir() {
        std::fs::create_dir_all(&config.dir).map_err(|error| match config.dir.exists() {
            true => format!("{directory} is not a directory"),
            false => format!("{directory}: {error}"),
        })?;
    }
    let fresh = Fresh { node: NodeId(random.next_u64()), nonce: random.next_u64() };
    data::open(&config.dir, config, fresh, wall_clock())
}

/// Listens for clients. An address with a leading `-` may be missing.
fn listen(config: &Config) -> Result<Vec<Listener>, String> {
    let mut listeners = Vec::new();
    for (address, optional) in config.listen_addresses() {
        match Listener::tcp(address, config.tcp_backlog) {
            Ok(listener) => listeners.push(listener),
            Err(error) if optional && error.kind() != io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(format!("cannot listen on {address}: {error}")),
        }
    }
    if listeners.is_empty() && config.port != 0 {
        return Err(format!("cannot listen on any of '{}'", config.bind));
    }
    let path = &config.unixsocket;
    if !path.as_os_str().is_empty() {
        let listener = Listener::unix(path, config.unixsocketperm, config.tcp_backlog);
        let failed = |error| format!("cannot listen on {}: {error}", path.display());
        listeners.push(listener.map_err(failed)?);
    }
    Ok(listeners)
}

/// The file with the number of the process, as long as it runs.
struct Pidfile(PathBuf);

impl Pidfile {
    fn write(path: &Path) -> Result<Option<Pidfile>, String> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|error| format!("pidfile {}: {error}", path.display()))?;
        Ok(Some(Pidfile(path.to_owned())))
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Fewer clients where the system does not allow that many open files.
fn lower_maxclients(config: &mut Config) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok());
    if let Some(files) = files {
        let most = files.saturating_sub(RESERVED_FILES).max(1);
        if config.maxclients > most {
            tracing::warn!(
                "{files} open files are allowed, so maxclients is {most} instead of {}",
                config.maxclients
            );
            config.maxclients = most;
        }
    }
}

fn banner(config: &Config, engine: &Engine) {
    let origin = engine.origin();
    let directory = config.dir.canonicalize().unwrap_or_else(|_| config.dir.clone());
    let fsync = crate::config::find("appendfsync").map(|o| o.get(config)).unwrap_or_default();
    let (name, cluster, port) = (&config.node_name, &config.cluster_id, config.port);
    let (node, incarnation) = (origin.node, origin.incarnation);
    tracing::info!("Lattis {VERSION}: a server of CRDTs that speaks the Redis protocol");
    tracing::info!("data in {}, appendfsync {fsync}", directory.display());
    tracing::info!("node {name} ({node}, incarnation {incarnation}), cluster {cluster}");
    tracing::info!("peers on port {}, told to dial {}", config.peer_port, config.peer_address());
    match port {
        0 => tracing::info!("clients on {}", config.unixsocket.display()),
        _ => tracing::info!("clients on port {port}: redis-cli -p {port}"),
    }
    if !config.passed_over.is_empty() {
        let names = config.passed_over.join(", ");
        tracing::warn!("directives of Redis that mean nothing here and were passed over: {names}");
    }
}
