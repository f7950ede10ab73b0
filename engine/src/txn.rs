//! (stub of the typed API; bodies follow)
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::causal::{Dot, Hlc, Millis, Origin};
use crate::crdt::Kind;
use crate::store::{Store, StoreError};

/// Why an operation on the data was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The key holds another type.
    #[error("the key holds another type")]
    WrongType,
    /// The string is not an integer of 64 bits.
    #[error("value is not an integer")]
    NotInteger,
    /// The hash field is not an integer of 64 bits.
    #[error("hash value is not an integer")]
    HashNotInteger,
    /// The result would pass the range of 64 bits.
    #[error("increment or decrement would overflow")]
    Overflow,
    /// The key is the target of a binding; the operator's name.
    #[error("derived by {0}")]
    Derived(&'static str),
    /// A key with visible data cannot become the target of a binding.
    #[error("the target key holds data")]
    Busy,
    /// A binding that cannot be: the whole message, with the position or the path.
    #[error("{0}")]
    Binding(String),
    /// The store failed: the whole tick will.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a SET does to the key's time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Removes it.
    Clear,
    /// Keeps it (KEEPTTL).
    Keep,
    /// Sets the absolute deadline.
    At(Millis),
}

/// One surviving write of a register, for `GET.CRDT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiblingInfo {
    pub value: Bytes,
    pub dot: Dot,
    pub hlc: Hlc,
}

/// One type slot of a key, for `META.CRDT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    pub kind: Kind,
    pub visible: bool,
    pub born: Hlc,
    pub live: u64,
    pub dots: Vec<Dot>,
    pub increments: Vec<(Origin, i128)>,
}

/// All that is known of a key, for `META.CRDT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyInfo {
    pub slots: Vec<SlotInfo>,
    pub deadline: Option<Millis>,
}

/// One binding, for `BIND.LIST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingInfo {
    pub db: u16,
    pub target: Bytes,
    pub operator: &'static str,
    pub sources: Vec<Bytes>,
    pub expression: String,
    /// `active`, or `suspended: ...` and why
    pub state: String,
}

/// A point inside a transaction to go back to.
#[derive(Clone, Copy, Debug)]
pub struct Savepoint(usize);

/// One command, transaction or script in the making: reads see its own writes.
pub struct Txn<'t, S: Store> {
    marker: std::marker::PhantomData<&'t mut S>,
}

type R<T> = Result<T, OpError>;

#[allow(unused_variables, missing_docs)]
impl<S: Store> Txn<'_, S> {
    /// now = max(wall clock of the tick, HLC): what expiry is judged by
    pub fn now(&self) -> Millis {
        unimplemented!()
    }
    // ---- keys
    pub fn kind(&mut self, db: u16, key: &[u8]) -> R<Option<Kind>> {
        unimplemented!()
    }
    /// Also deletes hidden slots. False if nothing visible was there. Derived keys: Err(Derived)
    pub fn delete(&mut self, db: u16, key: &[u8]) -> R<bool> {
        unimplemented!()
    }
    /// Outer None: no such key. Inner None: no deadline.
    pub fn deadline(&mut self, db: u16, key: &[u8]) -> R<Option<Option<Millis>>> {
        unimplemented!()
    }
    /// At(..) in the past deletes. None = PERSIST. False: no such key (or PERSIST without a deadline).
    pub fn expire(&mut self, db: u16, key: &[u8], deadline: Option<Millis>) -> R<bool> {
        unimplemented!()
    }
    pub fn db_size(&mut self, db: u16) -> R<u64> {
        unimplemented!()
    }
    pub fn flush(&mut self, db: u16) -> R<()> {
        unimplemented!()
    }
    /// Visible keys of db in byte order, from the first key > after.
    pub fn keys(
        &mut self,
        db: u16,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Kind) -> ControlFlow<()>,
    ) -> R<()> {
        unimplemented!()
    }
    // ---- strings
    pub fn get(&mut self, db: u16, key: &[u8]) -> R<Option<Bytes>> {
        unimplemented!()
    }
    /// Overwrites a key of any type, as SET does.
    pub fn set(&mut self, db: u16, key: &[u8], value: Bytes, ttl: Ttl) -> R<()> {
        unimplemented!()
    }
    pub fn increment(&mut self, db: u16, key: &[u8], by: i64) -> R<i64> {
        unimplemented!()
    }
    pub fn append(&mut self, db: u16, key: &[u8], tail: &[u8]) -> R<usize> {
        unimplemented!()
    }
    // ---- sets (members: also of derived keys)
    pub fn set_add(&mut self, db: u16, key: &[u8], members: &[Bytes]) -> R<u64> {
        unimplemented!()
    }
    pub fn set_remove(&mut self, db: u16, key: &[u8], members: &[Bytes]) -> R<u64> {
        unimplemented!()
    }
    pub fn set_contains(&mut self, db: u16, key: &[u8], member: &[u8]) -> R<bool> {
        unimplemented!()
    }
    pub fn set_len(&mut self, db: u16, key: &[u8]) -> R<u64> {
        unimplemented!()
    }
    pub fn set_members(
        &mut self,
        db: u16,
        key: &[u8],
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> R<()> {
        unimplemented!()
    }
    // ---- hashes
    /// The number of fields that are new.
    pub fn hash_set(&mut self, db: u16, key: &[u8], fields: &[(Bytes, Bytes)]) -> R<u64> {
        unimplemented!()
    }
    pub fn hash_get(&mut self, db: u16, key: &[u8], field: &[u8]) -> R<Option<Bytes>> {
        unimplemented!()
    }
    pub fn hash_remove(&mut self, db: u16, key: &[u8], fields: &[Bytes]) -> R<u64> {
        unimplemented!()
    }
    pub fn hash_increment(&mut self, db: u16, key: &[u8], field: &[u8], by: i64) -> R<i64> {
        unimplemented!()
    }
    pub fn hash_len(&mut self, db: u16, key: &[u8]) -> R<u64> {
        unimplemented!()
    }
    pub fn hash_fields(
        &mut self,
        db: u16,
        key: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> R<()> {
        unimplemented!()
    }
    // ---- CRDT inspection
    /// Surviving siblings, winner first, then by descending (HLC, origin).
    pub fn siblings(&mut self, db: u16, key: &[u8]) -> R<Vec<SiblingInfo>> {
        unimplemented!()
    }
    pub fn inspect(&mut self, db: u16, key: &[u8]) -> R<Option<KeyInfo>> {
        unimplemented!()
    }
    // ---- dataflow; operator is a name of OPERATORS: "MAP", "FILTER", "UNION"
    pub fn bind(
        &mut self,
        db: u16,
        target: &[u8],
        operator: &str,
        sources: &[Bytes],
        expression: &str,
    ) -> R<()> {
        unimplemented!()
    }
    pub fn unbind(&mut self, db: u16, target: &[u8]) -> R<bool> {
        unimplemented!()
    }
    pub fn bindings(&mut self, db: u16) -> Vec<BindingInfo> {
        unimplemented!()
    }
    // ---- the transaction
    pub fn savepoint(&mut self) -> Savepoint {
        unimplemented!()
    }
    pub fn rollback(&mut self, to: Savepoint) {
        unimplemented!()
    }
    /// Closes the commit; None if nothing was changed. (Dropping a Txn without commit rolls it back.)
    pub fn commit(self) -> Option<Dot> {
        unimplemented!()
    }
}
