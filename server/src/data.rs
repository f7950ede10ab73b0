//! The one place that names the store behind the engine, and the details of the engine's interface that the
//! rest of the server need not know.

use std::path::Path;
use std::sync::Arc;

use lattis_engine::causal::Millis;
use lattis_engine::store::{RocksOptions, RocksStore, Store};
use lattis_engine::{EngineConfig, OpenError};

use crate::behind::WriteFn;
use crate::config::Config;
use crate::sync::SyncFn;

pub use lattis_engine::{Fresh, OpError, Ttl};

/// The engine of a node.
pub type Engine = lattis_engine::Engine<RocksStore>;
/// One tick of it.
pub type Tick<'e> = lattis_engine::Tick<'e, RocksStore>;
/// One command or transaction in the making.
pub type Txn<'t> = lattis_engine::Txn<'t, RocksStore>;
/// The log, for any thread.
pub type LogReader = lattis_engine::LogReader<RocksStore>;
/// A snapshot's state, chunk by chunk.
pub type StateReader = lattis_engine::StateReader<lattis_engine::store::RocksSnapshot>;

/// Opens the data of a directory. The error is a line for the user.
pub fn open(
    directory: &Path,
    config: &Config,
    fresh: Fresh,
    now: Millis,
) -> Result<Engine, String> {
    let shown = directory.display();
    let store = RocksStore::open(directory, &RocksOptions::default())
        .map_err(|error| format!("opening {shown} failed: {error}"))?;
    let settings = EngineConfig {
        cache_bytes: config.cache_bytes,
        log_max_bytes: config.log_max_bytes,
        max_bytes: config.transaction_max_bytes,
        ..EngineConfig::default()
    };
    Engine::open(store, settings, fresh, now).map_err(|error| match error {
        OpenError::Store(error) => format!("opening {shown} failed: {error}"),
        OpenError::Damaged(why) => format!("{shown} is damaged and was not opened: {why}"),
    })
}

/// The handle that syncs the store from another thread.
pub fn syncer(engine: &Engine) -> SyncFn {
    let store = engine.store().clone();
    Arc::new(move || store.sync())
}

/// The handle that writes rows from another thread.
pub fn writer(engine: &Engine) -> WriteFn {
    let store = engine.store().clone();
    Box::new(move |generation| generation.write(&store))
}
