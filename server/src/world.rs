//! What commands may know and change besides the data: the rest of the server.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use lattis_engine::causal::{Millis, Origin, VersionVector};

use crate::config::Config;
use crate::health::Health;
use crate::net::conn::Conn;
use crate::port::Port;
use crate::session::Session;
use crate::stats::{Rates, Stats};
use crate::watch::WatchTable;

/// The server around the data, as commands see it.
#[derive(Debug)]
pub struct World {
    /// Options.
    pub config: Config,
    /// Counters.
    pub stats: Stats,
    /// The same per second.
    pub rates: Rates,
    /// Memory of the process before it had opened its data, 0 if that is not known.
    pub memory_startup: u64,
    /// The most memory that was accounted for.
    pub memory_peak: u64,
    /// The engine as of the last seal.
    pub facts: Facts,
    /// WATCH.
    pub watch: WatchTable,
    /// The way to the peers' thread.
    pub port: Arc<Port>,
    /// Clients by the slots of their connections.
    pub clients: Vec<Option<Client>>,
    /// Forty hexadecimal digits, new at each start.
    pub run_id: String,
    /// When the process started.
    pub started: Instant,
    /// The wall clock of this tick.
    pub now: Millis,
    /// The monotonic clock of this tick.
    pub instant: Instant,
    /// Why writes are refused, if they are.
    pub refuse_writes: Option<String>,
    /// Why clients' writes are refused, since this node's clock is wrong.
    pub clock_fenced: Option<String>,
    /// What is unwell on the disk.
    pub health: Health,
    /// SHUTDOWN was called.
    pub shutdown: bool,
    /// Clients that wait for the peers' thread.
    pub blocked_clients: usize,
}

/// What is known of the engine between ticks.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Who this node writes as.
    pub origin: Origin,
    /// What was applied.
    pub vector: VersionVector,
    /// What the digest has of the rows.
    pub rows_digest: u128,
    /// Position of the last log entry.
    pub position: u64,
}

impl Facts {
    /// The digest of vector and rows. Cost: the origins.
    pub fn digest(&self) -> u128 {
        lattis_engine::digest(&self.vector, self.rows_digest)
    }
}

/// A client, as CLIENT LIST shows it.
#[derive(Clone, Debug)]
pub struct Client {
    /// Number of the connection.
    pub id: u64,
    /// File descriptor.
    pub fd: i32,
    /// Its address, and the one that it connected to.
    pub names: (String, String),
    /// Its name.
    pub name: Bytes,
    /// Its library.
    pub library_name: Bytes,
    /// Its library's version.
    pub library_version: Bytes,
    /// When it connected.
    pub since: Instant,
    /// When it last sent something.
    pub active: Instant,
    /// The selected database.
    pub db: u16,
    /// Whether it speaks RESP3.
    pub resp3: bool,
    /// Queued commands, if in MULTI.
    pub multi: Option<usize>,
    /// Bytes of the queue.
    pub multi_bytes: usize,
    /// Number of watched keys.
    pub watched: usize,
    /// Whether it waits.
    pub blocked: bool,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// Bytes received and not yet executed.
    pub input: usize,
    /// Bytes of replies not yet sent.
    pub output: usize,
    /// Pieces that these replies lie in.
    pub chunks: usize,
    /// Room for requests that has nothing in it.
    pub input_free: usize,
    /// Bytes of its buffers and its queue.
    pub memory: usize,
    /// The last command.
    pub command: &'static str,
}

impl Client {
    /// The client of a new connection.
    pub fn new(session: &Session, fd: i32, now: Instant) -> Client {
        let mut client = Client {
            id: session.id,
            fd,
            names: session.names.clone(),
            name: Bytes::new(),
            library_name: Bytes::new(),
            library_version: Bytes::new(),
            since: now,
            active: now,
            db: 0,
            resp3: false,
            multi: None,
            multi_bytes: 0,
            watched: 0,
            blocked: false,
            no_evict: false,
            input: 0,
            output: 0,
            chunks: 0,
            input_free: 0,
            memory: 0,
            command: "NULL",
        };
        client.update(session, now);
        client
    }

    /// Brings the sizes of buffers up to date.
    pub fn measure(&mut self, conn: &Conn) {
        self.input = conn.input.pending();
        self.output = conn.unsent();
        self.chunks = conn.out.chunks();
        self.input_free = conn.input.memory().saturating_sub(self.input);
        self.memory = conn.memory();
    }

    /// Brings the view up to date after some commands.
    pub fn update(&mut self, session: &Session, now: Instant) {
        if self.name != session.name {
            self.name = session.name.clone();
        }
        if self.library_name != session.library_name {
            self.library_name = session.library_name.clone();
        }
        if self.library_version != session.library_version {
            self.library_version = session.library_version.clone();
        }
        self.active = now;
        self.db = session.db;
        self.resp3 = session.resp3;
        self.multi = session.multi.as_ref().map(crate::session::Queue::len);
        self.multi_bytes = session.multi.as_ref().map_or(0, crate::session::Queue::size);
        self.watched = session.watched.len();
        self.blocked = session.blocked;
        self.no_evict = session.no_evict;
        self.command = session.last_command;
    }
}

impl World {
    /// Why a client's write is refused, if it is.
    pub fn refuses(&self) -> Option<&str> {
        self.refuse_writes.as_deref().or(self.clock_fenced.as_deref())
    }
}
