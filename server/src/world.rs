//! What commands may know and change besides the data: the rest of the server.

use std::sync::Arc;
use std::time::Instant;

use lattis_engine::causal::{Millis, Origin, VersionVector};

use crate::clients::Clients;
use crate::config::Config;
use crate::health::Health;
use crate::port::Port;
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
    /// The clients.
    pub clients: Clients,
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

impl World {
    /// Why a client's write is refused, if it is.
    pub fn refuses(&self) -> Option<&str> {
        self.refuse_writes.as_deref().or(self.clock_fenced.as_deref())
    }
}
