//! The plug for storage backends: ordered families of byte rows, atomic changes, snapshots.
//!
//! There are two sides. The *journal* (delivery log, identity) is written in small batches, one per tick,
//! into a write-ahead log that is synced when its owner says so. *Rows* are written behind it in sorted
//! [`Run`]s, each of them whole or not at all, and never ahead of the journal.
//!
//! [`RocksStore`] keeps them on disk; [`MemStore`] is its twin in memory that can lose what was not
//! synced, for the simulator. All other code sees only the traits.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::Parts;

pub mod keys;
mod mem;
#[cfg(feature = "rocks")]
mod pieces;
#[cfg(feature = "rocks")]
mod rocks;
mod run;
#[cfg(feature = "rocks")]
mod wal;

pub use mem::{MemSnapshot, MemStore};
#[cfg(feature = "rocks")]
pub use rocks::{RocksMemory, RocksOptions, RocksSnapshot, RocksStore};
pub use run::Run;

/// A family of rows with its own order and its own tuning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// Rows of collections: (db, key, slot, hash, subkey) -> dotted row.
    Data = 16,
    /// One record per key, by (db, hash, key): its single rows, births, deadline and counts.
    Keys = 17,
    /// Elements of derived keys: (db, key, hash, element) -> weight.
    Derived = 18,
    /// Vector, digest and counts; origins, bindings, deadlines due.
    System = 4,
    /// Journal. Delivery log: last position of a tick -> its entries.
    Log = 5,
    /// Journal. Who this node is, and where the log begins.
    Node = 6,
    /// What was [`Data`](Family::Data) before rows were in the order of a hash; emptied by a start.
    FirstData = 0,
    /// What was [`Keys`](Family::Keys).
    FirstKeys = 1,
    /// What was [`Derived`](Family::Derived).
    FirstDerived = 2,
}

impl Family {
    /// All families, in the order of their numbers, which are stored.
    pub const ALL: [Family; 9] = [
        Family::FirstData,
        Family::FirstKeys,
        Family::FirstDerived,
        Family::System,
        Family::Log,
        Family::Node,
        Family::Data,
        Family::Keys,
        Family::Derived,
    ];

    /// Whether the family is written in batches, and not in runs.
    pub fn is_journal(self) -> bool {
        matches!(self, Family::Log | Family::Node)
    }
}

/// Why the store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, or cannot be written for now: nothing was written.
    #[error("the disk cannot be written: {0}")]
    Full(String),
    /// It is not known whether the batch reached the disk.
    #[error("write failed: {0}")]
    Unknown(String),
    /// What was read cannot be what was written. Nothing was changed.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// The store could not be opened. Nothing was changed.
    #[error("{0}")]
    Unopened(String),
}

impl StoreError {
    /// A row that does not decode.
    pub fn corrupt(what: &str, error: crate::codec::CodecError) -> StoreError {
        StoreError::Corrupt(format!("{what}: {error}"))
    }
}

/// What a scan calls for each row: key, value.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// Reading, from the newest state or from a snapshot.
pub trait Read {
    /// The value of one row.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the rows with `from <= key < to` in byte order until told to stop. An empty `to` is the
    /// family's end.
    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;

    /// After a scan that met what cannot be read: where reading can go on, which is the end of a *hole* that
    /// begins with `from`. `None`: nowhere before `to`.
    fn skip(&self, family: Family, from: &[u8], to: &[u8]) -> Option<Vec<u8>>;
}

/// Keys `from <= key < to` of a family, which cannot be read. An empty `to` is the family's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Of which family.
    pub family: Family,
    /// The first key that may lie in it.
    pub from: Vec<u8>,
    /// The first key behind it.
    pub to: Vec<u8>,
    /// What the store says of it; empty where only one value does not decode.
    pub why: String,
}

impl Hole {
    /// One key.
    pub fn of(family: Family, key: &[u8]) -> Hole {
        let mut to = key.to_vec();
        to.push(0);
        Hole { family, from: key.to_vec(), to, why: String::new() }
    }

    /// Whether a key lies in it.
    pub fn holds(&self, family: Family, key: &[u8]) -> bool {
        self.family == family && *self.from <= *key && (self.to.is_empty() || *key < *self.to)
    }
}

/// [`Read::scan`] that goes on behind what cannot be read, and lists that. Fails if reading fails otherwise.
pub fn scan_on<R: Read + ?Sized>(
    store: &R,
    family: Family,
    from: &[u8],
    to: &[u8],
    holes: &mut Vec<Hole>,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    let mut from = from.to_vec();
    loop {
        let mut last = Vec::new();
        let scanned = store.scan(family, &from, to, &mut |key, value| {
            last.clear();
            last.extend_from_slice(key);
            visit(key, value)
        });
        let why = match scanned {
            Err(StoreError::Corrupt(why)) => why,
            other => return other,
        };
        if !last.is_empty() {
            last.push(0);
            from = last;
        }
        let end = store.skip(family, &from, to);
        let ends = end.is_none();
        let end = end.unwrap_or_else(|| to.to_vec());
        holes.push(Hole { family, from: std::mem::replace(&mut from, end.clone()), to: end, why });
        if ends {
            return Ok(());
        }
    }
}

/// Whether any of these families has a row.
pub fn has_rows<R: Read + ?Sized>(
    store: &R,
    families: impl IntoIterator<Item = Family>,
) -> Result<bool, StoreError> {
    for family in families {
        if has_rows_in(store, family, &[], &[])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a family has a row with `from <= key < to`.
pub(crate) fn has_rows_in<R: Read + ?Sized>(
    store: &R,
    family: Family,
    from: &[u8],
    to: &[u8],
) -> Result<bool, StoreError> {
    let mut found = false;
    store.scan(family, from, to, &mut |_, _| {
        found = true;
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// Changes of the journal that reach the store together or not at all.
pub trait Batch {
    /// Writes a row. A value begins with its format number, or is short.
    fn put(&mut self, family: Family, key: &[u8], value: &[u8]);
    /// Writes a row that comes in parts.
    fn put_parts(&mut self, family: Family, key: &[u8], value: Parts<'_>) {
        self.put(family, key, &value.whole());
    }
    /// Removes a row.
    fn delete(&mut self, family: Family, key: &[u8]);
}

/// A storage backend. Handles are cheap to clone and name the same store.
pub trait Store: Read + Clone {
    /// Changes of the journal in the making.
    type Batch: Batch;
    /// A consistent view that outlives later writes and can go to another thread.
    type Snapshot: Read + Send + 'static;

    /// An empty batch.
    fn batch(&self) -> Self::Batch;

    /// Writes a batch; durable when it returns if `sync`. After `Full` nothing was written; after `Unknown`
    /// it may have been.
    fn write(&self, batch: Self::Batch, sync: bool) -> Result<(), StoreError>;

    /// Puts a run in order and writes it; durable when it returns. What was written to the journal before
    /// is made durable first: rows are never ahead of it. May go on beside `write`, but not beside itself.
    /// Errors as for `write`.
    fn write_run(&self, run: &mut Run) -> Result<(), StoreError>;

    /// Rows of a journal family with keys below `to` are not needed any more. They may stay for as long as it
    /// suits the store. What made them dispensable has to be durable.
    fn forget(&self, family: Family, to: &[u8]) -> Result<(), StoreError>;

    /// Makes everything written so far durable. After an error the process has to end: what the kernel
    /// dropped cannot be known.
    fn sync(&self) -> Result<(), StoreError>;

    /// The state as it is now.
    fn snapshot(&self) -> Self::Snapshot;
}
