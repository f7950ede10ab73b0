//! The one place that names the store behind the engine.

use std::path::Path;
use std::sync::Arc;

use lattis_engine::store::{RocksOptions, RocksStore, Store, StoreError};

use crate::sync::SyncFn;

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

/// Opens the database in a directory.
pub fn open(directory: &Path) -> Result<RocksStore, StoreError> {
    RocksStore::open(directory, &RocksOptions::default())
}

/// The handle that syncs the store from another thread.
pub fn syncer(engine: &Engine) -> SyncFn {
    let store = engine.store().clone();
    Arc::new(move || store.sync())
}
