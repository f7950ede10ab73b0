//! An open key: the only way in which a type's operations write.
//!
//! It is opened for one type, and closed by [`Txn::write`] itself: then the birth of the slot is stamped
//! (MODEL M8), the key's deadline copied (MODEL M7), and a key that has been emptied goes.

use bytes::Bytes;

use super::deadline::Ttl;
use super::{OpError, OpResult, Txn};
use crate::causal::Millis;
use crate::crdt::birth;
use crate::engine::Engine;
use crate::name::{RowKey, Slot};
use crate::open::Place;
use crate::row::Shown;
use crate::space::Spot;
use crate::store::Store;

/// A key that is open to be written to.
pub struct Key<'k, 't, S: Store> {
    txn: &'k mut Txn<'t, S>,
    db: u16,
    key: &'k [u8],
    /// The same, for the names of many rows.
    shared: Option<Bytes>,
    slot: Slot,
    place: Place,
    /// Rows that were visible when it was opened.
    before: u64,
    /// Whether a row was written; to remove one is something else.
    wrote: bool,
}

impl<'t, S: Store> Txn<'t, S> {
    /// Opens a key that is absent or of one type, lets it be changed, and closes it. Derived keys refuse.
    /// After an error of the change the key is as that has left it, to be rolled back.
    pub fn write<T>(
        &mut self,
        db: u16,
        key: &[u8],
        slot: Slot,
        change: impl FnOnce(&mut Key<'_, 't, S>) -> OpResult<T>,
    ) -> OpResult<T> {
        let place = self.open_for_write_as(db, key, slot)?;
        let before = self.at(place).rows(slot);
        let mut open = Key { txn: self, db, key, shared: None, slot, place, before, wrote: false };
        let result = change(&mut open)?;
        open.close()?;
        Ok(result)
    }

    /// Puts a payload into the one row of a slot, in place of all that the key holds, whatever that is and
    /// whether or not it can be read.
    pub(crate) fn overwrite(
        &mut self,
        db: u16,
        key: &[u8],
        slot: Slot,
        payload: Bytes,
        ttl: Ttl,
    ) -> OpResult<()> {
        let put = |txn: &mut Self| txn.overwrite_read(db, key, slot, payload.clone(), ttl);
        self.replacing(db, Some(key), put).map(drop)
    }

    fn overwrite_read(
        &mut self,
        db: u16,
        key: &[u8],
        slot: Slot,
        payload: Bytes,
        ttl: Ttl,
    ) -> OpResult<()> {
        let place = self.open_for_write(db, key)?;
        let header = self.at(place);
        let ttl = match ttl {
            Ttl::Keep if header.visible().is_none() => Ttl::Clear,
            ttl => ttl,
        };
        let decision = header.decision().filter(|decision| decision.time.is_some()).cloned();
        let seen = self.decisions(place);
        if self.at(place).holds_beside(slot) {
            self.remove_key(db, key)?;
        }
        self.put(RowKey::single(db, Bytes::copy_from_slice(key), slot), payload)?;
        match (ttl, decision) {
            (Ttl::At(time), _) => self.decide(db, key, Some(time), &seen),
            (Ttl::Keep, Some(decision)) => {
                let row = RowKey::single(db, Bytes::copy_from_slice(key), Slot::DEADLINE);
                self.put(row, decision.copy())
            }
            // "None" is a decision as well, or a concurrent copy of the old one would bring it back.
            (Ttl::Clear, Some(_)) => self.decide(db, key, None, &seen),
            (Ttl::Keep | Ttl::Clear, None) => Ok(()),
        }
    }

    /// Opens a key to write to: derived keys refuse, and what a passed deadline hides is removed in the
    /// same commit (MODEL M7).
    pub(super) fn open_for_write(&mut self, db: u16, key: &[u8]) -> OpResult<Place> {
        let place = self.open(db, key)?;
        if self.at(place).derived.is_some() {
            return Err(OpError::Derived(self.operator_of(db, key)));
        }
        if self.at(place).hidden != Millis(0) {
            self.remove_expired(db, key)?;
        }
        Ok(place)
    }

    /// The same for a write that needs the key to be absent or of one type.
    fn open_for_write_as(&mut self, db: u16, key: &[u8], slot: Slot) -> OpResult<Place> {
        let place = self.open(db, key)?;
        if self.at(place).derived.is_none()
            && self.at(place).visible().is_some_and(|visible| visible != slot)
        {
            return Err(OpError::WrongType);
        }
        let place = self.open_for_write(db, key)?;
        let header = self.at(place);
        if header.visible().is_none() && !header.deadline().is_empty() {
            // Left by a key that was removed elsewhere at the same time: not of the key to be.
            self.remove(RowKey::single(db, Bytes::copy_from_slice(key), Slot::DEADLINE))?;
        }
        Ok(place)
    }
}

impl<S: Store> Key<'_, '_, S> {
    fn is_single(&self) -> bool {
        self.txn.engine.config.types.is_single(self.slot)
    }

    fn name(&mut self, subkey: &Bytes) -> RowKey {
        let (db, slot) = (self.db, self.slot);
        // Bytes that are never cloned are an allocation less.
        let key = match self.is_single() {
            true => Bytes::copy_from_slice(self.key),
            false => self.shared.get_or_insert_with(|| Bytes::copy_from_slice(self.key)).clone(),
        };
        RowKey { db, key, slot, subkey: subkey.clone() }
    }

    /// Visible rows.
    pub fn rows(&self) -> u64 {
        self.txn.at(self.place).rows(self.slot)
    }

    /// Visible rows when the key was opened.
    pub fn before(&self) -> u64 {
        self.before
    }

    /// What clients read of a row; that of a slot which has only one has an empty subkey.
    pub fn shown(&mut self, subkey: &Bytes) -> OpResult<Option<Shown<'_>>> {
        if self.is_single() {
            return Ok(self.txn.read_single(self.place, self.slot));
        }
        self.txn.read_at((self.db, self.key), self.place, self.slot, subkey)
    }

    /// Leaves one payload in a row, superseding what is there.
    pub fn put(&mut self, subkey: &Bytes, payload: Bytes) -> OpResult<()> {
        self.wrote = true;
        let name = self.name(subkey);
        #[cfg(feature = "planted")]
        if self.txn.takes_no_dot(&name)? {
            return Ok(());
        }
        self.txn.put(name, payload)
    }

    /// Adds to the number in a row.
    pub fn increment(&mut self, subkey: &Bytes, by: i128) -> OpResult<()> {
        self.wrote = true;
        let name = self.name(subkey);
        self.txn.change(name, |row, dot, stamp| row.increment(dot, stamp, by))
    }

    /// Removes what is seen of a row, if there is anything.
    pub fn remove(&mut self, subkey: &Bytes) -> OpResult<()> {
        let name = self.name(subkey);
        self.txn.remove(name)
    }

    /// Removes rows; returns how many were there.
    pub fn remove_all(&mut self, subkeys: &[Bytes]) -> OpResult<u64> {
        if self.before > 0 {
            subkeys.iter().try_for_each(|subkey| self.remove(subkey))?;
        }
        Ok(self.before - self.rows())
    }

    fn close(mut self) -> OpResult<()> {
        if self.wrote {
            self.stamp_birth()?;
            return self.txn.stamp_deadline(self.db, self.key, self.place);
        }
        match self.before > 0 && self.rows() == 0 {
            true => self.txn.remove_key(self.db, self.key),
            false => Ok(()),
        }
    }

    /// Stamps the birth of a collection slot; a single row is born with its winning write.
    fn stamp_birth(&mut self) -> OpResult<()> {
        let (slot, place, lived) = (self.slot, self.place, self.before > 0);
        let Engine { space, draft, config, .. } = &mut *self.txn.engine;
        if config.types.is_single(slot) {
            return Ok(());
        }
        #[cfg(feature = "planted")]
        if lived && config.planted == crate::planted::Planted::BirthByCreatorOnly {
            return Ok(());
        }
        let spot = Spot::Birth(place, slot);
        let dot = draft.dot(spot);
        if lived && space.look(spot).siblings().iter().any(|birth| birth.dot == dot) {
            // This commit has stamped it already.
            return Ok(());
        }
        let birth = match space.at(place).born(slot).filter(|_| lived) {
            Some((born, origin)) => birth::encode(born, &origin),
            None => Bytes::new(),
        };
        let name = RowKey { slot: Slot::BIRTH, ..self.name(&slot.as_subkey()) };
        self.txn.put(name, birth)
    }
}
