//! (stub of the API; bodies follow)
#![allow(unused_variables, missing_docs)]
use bytes::Bytes;

use crate::causal::*;
use crate::commit::*;
use crate::store::{Store, StoreError};
use crate::txn::Txn;

pub struct EngineConfig {
    pub databases: u16,
    pub cache_bytes: usize,
    pub log_max_bytes: u64,
}
/// Random numbers for a first start (node id) and for every start (nonce).
pub struct Fresh {
    pub node: NodeId,
    pub nonce: u64,
}
pub struct Engine<S: Store> {
    store: S,
}
pub struct Tick<'e, S: Store> {
    engine: &'e mut Engine<S>,
}
pub enum OpenError {
    Store(StoreError),
    Damaged(String),
}
/// What a tick made visible: entries at positions (position - entries.len(), position].
pub struct Sealed {
    pub position: LogPosition,
    pub vector: VersionVector,
    pub entries: Vec<LogEntry>,
}
pub enum Refused {
    /// its seq is not vector + 1
    Gap,
    Invalid(String),
    Store(StoreError),
}

impl<S: Store> Engine<S> {
    /// Opens the store, checks it, writes and syncs the new incarnation.
    pub fn open(
        store: S,
        config: EngineConfig,
        fresh: Fresh,
        now: Millis,
    ) -> Result<Engine<S>, OpenError> {
        unimplemented!()
    }
    pub fn tick(&mut self, now: Millis) -> Tick<'_, S> {
        unimplemented!()
    }
    pub fn vector(&self) -> &VersionVector {
        unimplemented!()
    }
    pub fn origin(&self) -> Origin {
        unimplemented!()
    }
    pub fn digest(&self) -> u128 {
        unimplemented!()
    }
    pub fn sync(&self) -> Result<(), StoreError> {
        unimplemented!()
    }
    /// Earliest deadline: when the loop should wake up at the latest
    pub fn next_deadline(&self) -> Option<Millis> {
        unimplemented!()
    }
    /// record which keys change (WATCH)
    pub fn track_changes(&mut self, on: bool) {}
    /// SIGTERM: marks a clean shutdown and syncs
    pub fn close(self) -> Result<(), StoreError> {
        unimplemented!()
    }
}
impl<'e, S: Store> Tick<'e, S> {
    pub fn txn(&mut self) -> Txn<'_, S> {
        unimplemented!()
    }
    pub fn apply(&mut self, commit: &EncodedCommit) -> Result<bool, Refused> {
        unimplemented!()
    }
    /// hides what is due, mints removals of this node's own deadlines; returns true if more is due
    pub fn expire_due(&mut self, limit: usize) -> Result<bool, StoreError> {
        unimplemented!()
    }
    /// keys changed since the last call, if tracking is on
    pub fn take_changed(&mut self) -> Vec<(u16, Bytes)> {
        unimplemented!()
    }
    /// One batch. On error everything of the tick is undone. Ok(None): nothing changed.
    pub fn seal(self, sync: bool) -> Result<Option<Sealed>, StoreError> {
        unimplemented!()
    }
}
