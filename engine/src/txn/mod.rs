//! Transactions: one mechanism for plain commands, MULTI and scripts.
//!
//! A transaction changes rows where they lie, so that it reads its own writes, and tells the tick's
//! [`Draft`](crate::draft::Draft) what they were before: from that come the effects, which are net (MODEL
//! M1), and the way back to a [`Savepoint`].
//!
//! This file has what all of it stands on: rows, the opening of keys to read, savepoints. A type's operations
//! stand in `ops/`, and write through the handle of an open key (`key.rs`); what concerns keys as a whole is
//! beside it.

mod bind;
mod clear;
mod deadline;
mod inspect;
mod key;

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::causal::{Dot, Millis, Stamp};
use crate::draft::Point;
use crate::engine::Engine;
use crate::header::Header;
use crate::name::{Cursor, RowKey, Slot};
use crate::open::Place;
use crate::row::{Row, Shown};
use crate::space::Spot;
use crate::store::{Store, StoreError};

pub use bind::BindingInfo;
pub use deadline::Ttl;
pub use inspect::{KeyInfo, SiblingInfo, SlotInfo};
pub use key::Key;

/// Why an operation was refused. What the transaction has changed before is still there: to be committed, or
/// taken back. After `Store` with anything but a row that cannot be read, the whole tick cannot be sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// The key holds another type.
    #[error("the key holds another type")]
    WrongType,
    /// The string is not an integer of 64 bits.
    #[error("the value is not an integer or out of range")]
    NotInteger,
    /// The hash field is not an integer of 64 bits.
    #[error("the hash value is not an integer")]
    HashNotInteger,
    /// The result would pass the range of 64 bits.
    #[error("increment or decrement would overflow")]
    Overflow,
    /// The key is derived by a binding: the name of its operator.
    #[error("derived by {0}.BIND")]
    Derived(&'static str),
    /// A key with visible data cannot become the target of a binding.
    #[error("the target key holds data")]
    Busy,
    /// A binding that cannot be: the whole message, with the position or the path.
    #[error("{0}")]
    Binding(String),
    /// One transaction has more effects than that.
    #[error("more than {0} changes in one transaction")]
    TooLarge(usize),
    /// One transaction writes more than that.
    #[error("more than {0} bytes of changes in one transaction")]
    TooManyBytes(usize),
    /// A view that is not complete: how much of its sources was read, in percent.
    #[error("view is being built ({0} %)")]
    Building(u64),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The result of an operation on the data.
pub type OpResult<T> = Result<T, OpError>;

/// A point inside a transaction to go back to.
#[derive(Clone, Copy, Debug)]
pub struct Savepoint(Point);

/// One command, transaction or script in the making. Dropped without [`commit`](Txn::commit), it has not
/// happened.
pub struct Txn<'t, S: Store> {
    engine: &'t mut Engine<S>,
    failed: &'t mut Option<StoreError>,
    begin: Point,
}

impl<'t, S: Store> Txn<'t, S> {
    pub(crate) fn new(engine: &'t mut Engine<S>, failed: &'t mut Option<StoreError>) -> Txn<'t, S> {
        let begin = engine.draft.point();
        Txn { engine, failed, begin }
    }

    /// The wall clock of the tick, by which deadlines are judged.
    pub fn now(&self) -> Millis {
        self.engine.space.now()
    }

    /// The engine, to look at, with what this tick has changed so far.
    pub fn engine(&self) -> &Engine<S> {
        self.engine
    }

    /// A row that cannot be read fails the operation, which has changed nothing by it; any other failure of
    /// the store the whole tick.
    pub(crate) fn guard<T>(&mut self, result: Result<T, StoreError>) -> OpResult<T> {
        result.map_err(|error| {
            match error {
                StoreError::Corrupt(_) => self.engine.space.meet_damage(),
                _ => *self.failed = Some(error.clone()),
            }
            OpError::Store(error)
        })
    }

    // ---- touching rows -------------------------------------------------------------------------------

    fn spot(&mut self, row: &RowKey) -> OpResult<Spot> {
        let spot = self.engine.space.spot(row);
        self.guard(spot)
    }

    /// Changes a row under the dot that the commit has for it.
    fn change(&mut self, row: RowKey, change: impl FnOnce(&mut Row, Dot, Stamp)) -> OpResult<()> {
        let spot = self.spot(&row)?;
        let Engine { space, draft, .. } = &mut *self.engine;
        let mut new = space.look(spot).clone();
        change(&mut new, draft.dot(spot), draft.stamp());
        self.replace(row, spot, new, 0)
    }

    /// Leaves one payload in a row, superseding what is there.
    fn put(&mut self, row: RowKey, payload: Bytes) -> OpResult<()> {
        let spot = self.spot(&row)?;
        let Engine { space, draft, .. } = &mut *self.engine;
        let (old, dot, len) = (space.look(spot), draft.dot(spot), payload.len());
        if old.is_just(&dot, &payload) {
            // A register that is overwritten with its value counts as changed, as in Redis.
            if self.engine.config.types.is_register(row.slot) {
                self.engine.space.note_change(row.db, &row.key);
            }
            return Ok(());
        }
        let mut new = old.without_siblings();
        new.put(dot, draft.stamp(), payload);
        self.replace(row, spot, new, len)
    }

    fn replace(&mut self, row: RowKey, spot: Spot, new: Row, payload: usize) -> OpResult<()> {
        self.check_room()?;
        self.check_bytes(row.key.len() + row.subkey.len() + payload)?;
        let replaced = self.engine.space.replace(&row, spot, new);
        let old = self.guard(replaced)?;
        self.engine.draft.touch(row, spot, old, payload);
        Ok(())
    }

    /// Whether the commit may have one more effect.
    fn check_room(&self) -> OpResult<()> {
        let most = self.engine.config.max_effects;
        if self.engine.draft.effects() < most { Ok(()) } else { Err(OpError::TooLarge(most)) }
    }

    /// Whether the transaction may write so many bytes more.
    fn check_bytes(&self, more: usize) -> OpResult<()> {
        let most = self.engine.config.max_bytes;
        let fits = self.engine.draft.bytes_since(self.begin).saturating_add(more) <= most;
        if fits { Ok(()) } else { Err(OpError::TooManyBytes(most)) }
    }

    /// Supersedes what is in a row, if there is anything.
    fn remove(&mut self, row: RowKey) -> OpResult<()> {
        let live = self.row(&row)?.is_live();
        if live { self.change(row, |row, dot, _| row.supersede(dot)) } else { Ok(()) }
    }

    /// A row as this transaction sees it.
    fn row(&mut self, row: &RowKey) -> OpResult<&Row> {
        let spot = self.spot(row)?;
        Ok(self.engine.space.look(spot))
    }

    #[cfg(feature = "planted")]
    fn takes_no_dot(&mut self, row: &RowKey) -> OpResult<bool> {
        let fault = crate::planted::Planted::PresentMemberTakesNoDot;
        let is_member = self.engine.config.types.has_elements(row.slot);
        Ok(is_member && self.engine.config.planted == fault && self.row(row)?.is_live())
    }

    // ---- keys ----------------------------------------------------------------------------------------

    /// A key's record, with what its deadline hides by now hidden.
    pub(crate) fn open(&mut self, db: u16, key: &[u8]) -> OpResult<Place> {
        let place = self.engine.space.hide_due(db, key);
        self.guard(place)
    }

    pub(crate) fn at(&self, place: Place) -> &Header {
        self.engine.space.at(place)
    }

    /// Opens a key to read a type: false if the key is absent.
    pub(crate) fn open_as(&mut self, db: u16, key: &[u8], slot: Slot) -> OpResult<Option<Place>> {
        let place = self.open(db, key)?;
        if self.at(place).derived.is_some() {
            let building = self.engine.space.building(&(db, Bytes::copy_from_slice(key)));
            if let Some(percent) = self.guard(building)? {
                return Err(OpError::Building(percent));
            }
        }
        match self.at(place).visible() {
            None => Ok(None),
            Some(visible) if visible == slot => Ok(Some(place)),
            Some(_) => Err(OpError::WrongType),
        }
    }

    /// The name of the type of a key, `None` if it is absent.
    pub fn kind(&mut self, db: u16, key: &[u8]) -> OpResult<Option<&'static str>> {
        let place = self.open(db, key)?;
        Ok(self.at(place).visible().and_then(|slot| self.engine.config.types.kind(slot)))
    }

    /// What clients read of a row of a key: `None` if there is nothing to read. The row of a slot that has
    /// only one has an empty subkey. A key of another type is an error. O(1).
    pub fn read(
        &mut self,
        db: u16,
        key: &[u8],
        slot: Slot,
        subkey: &[u8],
    ) -> OpResult<Option<Shown<'_>>> {
        let single = self.engine.config.types.is_single(slot);
        if single && let Some(row) = self.engine.space.glance(db, key, slot) {
            return Ok(self.engine.space.glanced(row));
        }
        if !single && let Some(row) = self.engine.space.glance_small(db, key, slot, subkey) {
            return Ok(row.and_then(|row| self.engine.space.glanced_row(row, Millis(0))));
        }
        let Some(place) = self.open_as(db, key, slot)? else { return Ok(None) };
        match single {
            true => Ok(self.read_single(place, slot)),
            false => self.read_at((db, key), place, slot, subkey),
        }
    }

    /// What clients read of the one row of a slot of a key that is open.
    fn read_single(&self, key: Place, slot: Slot) -> Option<Shown<'_>> {
        let header = self.at(key);
        self.engine.config.types.read(slot, header.single(slot), header.hidden)
    }

    /// What clients read of a row of a key that is open.
    pub(crate) fn read_at(
        &mut self,
        (db, key): (u16, &[u8]),
        place: Place,
        slot: Slot,
        subkey: &[u8],
    ) -> OpResult<Option<Shown<'_>>> {
        let (types, hidden) = (self.engine.config.types, self.at(place).hidden);
        if let Some(row) = self.engine.space.glance_row((db, key), slot, subkey, place) {
            return Ok(row.and_then(|row| self.engine.space.glanced_row(row, hidden)));
        }
        Ok(types.read(slot, self.row(&RowKey::new(db, key, slot, subkey))?, hidden))
    }

    /// Visible keys of a db. O(1).
    pub fn db_size(&mut self, db: u16) -> OpResult<u64> {
        Ok(self.engine.space.count(db))
    }

    /// Visits the visible keys of a db in the order of their places, from one on, with the names of their
    /// types.
    pub fn keys(
        &mut self,
        db: u16,
        from: Cursor,
        visit: &mut dyn FnMut(&[u8], &'static str) -> ControlFlow<()>,
    ) -> OpResult<()> {
        let types = self.engine.config.types;
        let visited = self.engine.space.visit_keys(db, from, &mut |key, slot| {
            types.kind(slot).map_or(ControlFlow::Continue(()), |kind| visit(key, kind))
        });
        self.guard(visited)
    }

    // ---- rows for the types ------------------------------------------------------------------------------

    pub(crate) fn visit_shown(
        &mut self,
        name: (u16, &[u8]),
        slot: Slot,
        from: Cursor,
        place: Place,
        visit: &mut dyn FnMut(&[u8], Shown<'_>) -> ControlFlow<()>,
    ) -> OpResult<()> {
        let visited = self.engine.space.visit_shown(name, slot, from, place, visit);
        self.guard(visited)
    }

    pub(crate) fn visit_elements(
        &mut self,
        db: u16,
        key: &[u8],
        from: Cursor,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> OpResult<()> {
        let visited = self.engine.space.visit_elements(db, key, from, visit);
        self.guard(visited)
    }

    pub(crate) fn have_elements<'m>(
        &mut self,
        name: (u16, &[u8]),
        place: Place,
        members: impl Iterator<Item = (u64, &'m [u8])>,
        tell: impl FnMut((u64, &'m [u8]), bool),
    ) -> OpResult<()> {
        let told = self.engine.space.have_elements(name, place, members, tell);
        self.guard(told)
    }

    pub(crate) fn weight(&mut self, db: u16, key: &[u8], element: &[u8]) -> OpResult<u64> {
        let weight = self.engine.space.weight(db, key, element);
        self.guard(weight)
    }

    // ---- the transaction -----------------------------------------------------------------------------

    /// A point to go back to.
    pub fn savepoint(&mut self) -> Savepoint {
        Savepoint(self.engine.draft.point())
    }

    /// Puts back everything that was changed since the savepoint, derived values included. A savepoint of
    /// another transaction goes back to the beginning of this one.
    pub fn rollback(&mut self, to: Savepoint) {
        let Engine { draft, space, .. } = &mut *self.engine;
        if let Err(error) = draft.undo(to.0.max(self.begin), space) {
            space.tear();
            *self.failed = Some(error);
        }
    }

    /// Makes what was done part of the tick's commit, which has this dot as its last for now: once that is
    /// sealed, a vector that covers it covers the transaction. `None` if nothing was changed. If others of
    /// the tick take back all that was done, there is no commit and the dot is not given.
    pub fn commit(mut self) -> Option<Dot> {
        let draft = &mut self.engine.draft;
        if self.failed.is_some() || !draft.changed_since(self.begin) {
            return None;
        }
        draft.release(self.begin);
        self.begin = draft.point();
        Some(draft.last())
    }
}

impl<S: Store> Drop for Txn<'_, S> {
    fn drop(&mut self) {
        self.rollback(Savepoint(self.begin));
    }
}
