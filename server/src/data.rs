//! The one place that names the store behind the engine.

pub use store::{RocksStore, open};

/// The engine of a node.
pub type Engine = lattis_engine::engine::Engine<RocksStore>;
/// One tick of it.
pub type Tick<'e> = lattis_engine::engine::Tick<'e, RocksStore>;
/// One command or transaction in the making.
pub type Txn<'t> = lattis_engine::txn::Txn<'t, RocksStore>;

mod store {
    //! (until `lattis_engine::store` has it)
    use std::path::Path;

    use lattis_engine::store::{Store, StoreError};

    /// RocksDB.
    #[derive(Debug)]
    pub struct RocksStore;

    impl Store for RocksStore {}

    /// Opens the database in a directory.
    pub fn open(_directory: &Path, _cache_bytes: u64) -> Result<RocksStore, StoreError> {
        Ok(RocksStore)
    }
}

/// The handle that syncs the store from another thread, once the engine gives one.
pub fn syncer(_engine: &Engine) -> Option<crate::sync::SyncFn> {
    None
}

/// Opens a new incarnation after a write of unknown outcome, once the engine can. True: writes may go on.
pub fn recover(_engine: &mut Engine, _now: lattis_engine::causal::Millis) -> bool {
    false
}
