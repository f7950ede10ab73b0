//! The one place that names the store behind the engine, and the details of the engine's interface that the
//! rest of the server need not know.

use std::path::Path;
use std::sync::Arc;

use lattis_engine::causal::Millis;
use lattis_engine::store::{RocksOptions, RocksStore, Store, StoreError};
use lattis_engine::{EngineConfig, OpenError, upgrade};

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
    let hint = format!(
        "`lattis-server --check {shown}` tells what can be read, `--repair {shown}` makes a directory of \
         that; a node with peers can start with an empty one"
    );
    let failed = |error: StoreError| match error {
        StoreError::Corrupt(_) => format!("opening {shown} failed: {error}. {hint}"),
        _ => format!("opening {shown} failed: {error}"),
    };
    // A directory that is new, or of somebody else, has none.
    let tails = RocksStore::torn_tails(directory).unwrap_or_default();
    let options = RocksOptions::default();
    let store = match RocksStore::open(directory, &options) {
        Err(StoreError::Full(why)) => {
            tracing::error!("the disk cannot be written, so this node reads only: {why}");
            RocksStore::open_read_only(directory, &options)
        }
        opened => opened,
    };
    let store = store.map_err(failed)?;
    let settings = EngineConfig {
        cache_bytes: config.cache_bytes,
        log_max_bytes: config.log_max_bytes,
        max_bytes: config.transaction_max_bytes,
        ..EngineConfig::default()
    };
    if upgrade::is_due(&store).map_err(failed)? {
        tracing::info!(
            "{shown} is of a version before: its rows are put into the order of this one, which takes a \
             while; a version before will refuse it from now on"
        );
    }
    let engine = Engine::open(store, settings, fresh, now).map_err(|error| match error {
        OpenError::Store(error) => failed(error),
        OpenError::Damaged(why) => {
            format!("{shown} is damaged and was not opened: {why}. {hint}")
        }
    })?;
    for (file, bytes) in tails {
        tracing::warn!(
            "the last {bytes} bytes of {file} were not whole, as a crash leaves them, and were dropped: \
             the log ends at position {}",
            engine.position().0
        );
    }
    Ok(engine)
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
