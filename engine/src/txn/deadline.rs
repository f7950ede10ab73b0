//! The time to live of keys (MODEL M7).

use bytes::Bytes;

use super::clear::MAX_SINGLE_REMOVALS;
use super::{OpResult, Txn};
use crate::causal::{Millis, VersionVector};
use crate::crdt::deadline;
use crate::name::{RowKey, Scope, Slot};
use crate::open::Place;
use crate::space::Spot;
use crate::store::Store;

/// What a SET does to the key's time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Removes it.
    Clear,
    /// Keeps it (KEEPTTL).
    Keep,
    /// Sets an absolute deadline.
    At(Millis),
}

impl<S: Store> Txn<'_, S> {
    /// The deadline of a key: `None` if the key is absent, `Some(None)` if it has no deadline.
    pub fn deadline(&mut self, db: u16, key: &[u8]) -> OpResult<Option<Option<Millis>>> {
        let place = self.open(db, key)?;
        let header = self.at(place);
        // A passed deadline says nothing of what was written after it, and that of client data nothing of
        // the view that hides it.
        let applies = header.hidden == Millis(0) && header.derived.is_none();
        let expires = header.expires().filter(|_| applies);
        Ok(header.visible().map(|_| expires))
    }

    /// The deadline that hides at this node what was written at it or before, if one has passed and what it
    /// hides was not removed yet.
    pub fn hidden_by(&mut self, db: u16, key: &[u8]) -> OpResult<Option<Millis>> {
        let place = self.open(db, key)?;
        Ok(Some(self.at(place).hidden).filter(|hidden| *hidden != Millis(0)))
    }

    /// Sets a deadline, or removes it if `time` is `None`. A time that has passed removes the key. False
    /// if the key is absent, or if there was no deadline to remove.
    pub fn expire(&mut self, db: u16, key: &[u8], time: Option<Millis>) -> OpResult<bool> {
        let place = self.open(db, key)?;
        if self.at(place).visible().is_none() {
            return Ok(false);
        }
        let place = self.open_for_write(db, key)?;
        match time {
            Some(time) if time < self.now() => self.remove_key(db, key)?,
            // "Never" was decided before.
            None if self.at(place).decision().is_some_and(|it| it.time.is_none()) => {
                return Ok(false);
            }
            time => {
                // Without a deadline to remove it is a decision all the same: it outlasts a concurrent one.
                let changes = time.is_some() || self.at(place).expires().is_some();
                let seen = self.decisions(place);
                self.decide(db, key, time, &seen)?;
                return Ok(changes);
            }
        }
        Ok(true)
    }

    /// Removes what a passed deadline hides, and the deadline.
    pub(crate) fn remove_expired(&mut self, db: u16, key: &[u8]) -> OpResult<()> {
        let place = self.open(db, key)?;
        let end = self.at(place).hidden;
        #[cfg(feature = "planted")]
        let end = if end == Millis(0) { end } else { self.engine.config.planted.end(end) };
        if end == Millis(0) {
            return Ok(());
        }
        let scope = Scope::Key(db, Bytes::copy_from_slice(key));
        let header = self.at(place);
        let stored: u64 = header.slots.iter().map(|state| state.stored).sum();
        if stored > MAX_SINGLE_REMOVALS && header.visible_slots().next().is_none() {
            // All that is there was written by then.
            return self.clear(scope, false);
        }
        let names = self.engine.space.rows_in(&scope);
        let names = self.guard(names)?;
        let of_slot = |name: &&RowKey| !matches!(name.slot, Slot::DEADLINE | Slot::BIRTH);
        for name in names.iter().filter(of_slot) {
            let row = self.row(name)?;
            let old = row.siblings().iter().any(|sibling| !sibling.is_after(end))
                || row.counters().iter().any(|entry| entry.is_live() && !entry.is_after(end));
            if old && row.is_live() {
                self.change(name.clone(), |row, dot, _| row.supersede_until(end, dot))?;
            }
        }
        // A birth goes with the last row of its slot, whenever it was written: one by a slow clock may stand
        // for rows that are newer.
        for name in names.into_iter().filter(|name| name.slot == Slot::BIRTH) {
            let slot = Slot::of_subkey(&name.subkey);
            if slot.is_some_and(|slot| self.at(place).rows(slot) == 0) {
                self.remove(name)?;
            }
        }
        self.remove(RowKey::single(db, Bytes::copy_from_slice(key), Slot::DEADLINE))
    }

    /// Copies the key's deadline, if it has one, under a dot of this commit (MODEL M7).
    pub(super) fn stamp_deadline(&mut self, db: u16, key: &[u8], place: Place) -> OpResult<()> {
        match self.at(place).decision() {
            Some(decision) if decision.time.is_some() => {
                let decision = decision.clone();
                let name = RowKey::single(db, Bytes::copy_from_slice(key), Slot::DEADLINE);
                // Records of other decisions stay: if this one is replaced by a node that has not seen them,
                // the longest of them counts again.
                self.change(name, |row, dot, stamp| {
                    row.put_beside(dot, stamp, decision.copy(), |old| decision.covers(old));
                })
            }
            _ => Ok(()),
        }
    }

    /// All decisions about the key's time to live but those of this commit: of them only the last is left.
    pub(super) fn decisions(&self, place: Place) -> VersionVector {
        let own = self.engine.draft.dot(Spot::Deadline(place));
        deadline::observed(self.at(place).deadline(), &own)
    }

    /// Decides about the key's time to live. `replaces` is what the command saw of earlier decisions,
    /// also if it has removed them itself: copies of them may still come from elsewhere.
    pub(super) fn decide(
        &mut self,
        db: u16,
        key: &[u8],
        time: Option<Millis>,
        replaces: &VersionVector,
    ) -> OpResult<()> {
        let payload = deadline::encode(time, None, replaces);
        if time.is_some() {
            self.engine.space.note_change(db, key);
        }
        self.put(RowKey::single(db, Bytes::copy_from_slice(key), Slot::DEADLINE), payload)
    }
}
