//! The one place that names the store behind the engine, and the details of the engine's interface that the
//! rest of the server need not know.

use std::path::Path;

use lattis_engine::causal::{Hlc, Millis};
use lattis_engine::engine::{EngineConfig, OpenError};
use lattis_engine::txn::SlotInfo;

pub use lattis_engine::engine::{Fresh, Refused};
pub use lattis_engine::txn::{OpError, Ttl};

use crate::config::Config;
use crate::port::Refusal;
use crate::sync::SyncFn;
use store::RocksStore;

/// The engine of a node.
pub type Engine = lattis_engine::engine::Engine<RocksStore>;
/// One tick of it.
pub type Tick<'e> = lattis_engine::engine::Tick<'e, RocksStore>;
/// One command or transaction in the making.
pub type Txn<'t> = lattis_engine::txn::Txn<'t, RocksStore>;

/// Opens the data of a directory. The error is a line for the user.
pub fn open(
    directory: &Path,
    config: &Config,
    fresh: Fresh,
    now: Millis,
) -> Result<Engine, String> {
    let shown = directory.display();
    let store = store::open(directory, config.cache_bytes)
        .map_err(|error| format!("opening {shown} failed: {error}"))?;
    let engine_config = EngineConfig {
        databases: config.databases,
        cache_bytes: config.cache_bytes,
        log_max_bytes: config.log_max_bytes,
    };
    Engine::open(store, engine_config, fresh, now).map_err(|error| match error {
        OpenError::Store(error) => format!("opening {shown} failed: {error}"),
        OpenError::Damaged(why) => format!("{shown} is damaged and was not opened: {why}"),
    })
}

/// The handle that syncs the store from another thread, once the engine gives one.
pub fn syncer(_engine: &Engine) -> Option<SyncFn> {
    None
}

/// Opens a new incarnation after a write of unknown outcome, once the engine can. True: writes may go on.
pub fn recover(_engine: &mut Engine, _fresh: Fresh, _now: Millis) -> bool {
    false
}

/// Marks a clean stop and makes everything durable.
pub fn close(engine: Engine) -> Result<(), String> {
    engine.close().map_err(|error| error.to_string())
}

/// Why commits of a peer were not applied.
pub fn refusal(refused: &Refused) -> Refusal {
    match refused {
        Refused::Gap => Refusal::Gap,
        Refused::Invalid(why) => Refusal::Invalid(why.to_string()),
        Refused::Store(error) => Refusal::Store(error.to_string()),
    }
}

/// When a type slot was born.
pub fn born(slot: &SlotInfo) -> Hlc {
    slot.born
}

mod store {
    //! (until `lattis_engine::store` has it)
    use std::path::Path;

    use lattis_engine::store::{Store, StoreError};

    /// RocksDB.
    #[derive(Debug)]
    pub struct RocksStore;

    impl Store for RocksStore {}

    /// Opens the database in a directory.
    pub fn open(_directory: &Path, _cache_bytes: usize) -> Result<RocksStore, StoreError> {
        Ok(RocksStore)
    }
}
