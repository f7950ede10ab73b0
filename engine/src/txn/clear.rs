//! Removing keys as a whole, and all keys of a db.

use bytes::Bytes;
use smallvec::SmallVec;

use super::{OpError, OpResult, Txn};
use crate::causal::Dot;
use crate::commit::{Clear, CounterReset};
use crate::engine::Engine;
use crate::name::{RowKey, Scope, Slot};
use crate::row::Row;
use crate::space::is_unreadable;
use crate::store::{Store, StoreError};

/// Rows of a key that are removed one by one; a key with more is cleared by scope, O(1) on the wire.
pub(super) const MAX_SINGLE_REMOVALS: u64 = 64;

impl<S: Store> Txn<'_, S> {
    /// Removes a key, hidden types included; false if it was absent. Derived keys refuse.
    pub fn delete(&mut self, db: u16, key: &[u8]) -> OpResult<bool> {
        let deleted = self.replacing(db, Some(key), |txn| txn.delete_read(db, key))?;
        Ok(deleted.0 || deleted.1)
    }

    fn delete_read(&mut self, db: u16, key: &[u8]) -> OpResult<bool> {
        let place = self.open_for_write(db, key)?;
        let visible = self.at(place).visible().is_some();
        if visible {
            self.remove_key(db, key)?;
        }
        Ok(visible)
    }

    /// Removes everything of a db, its bindings too. Cost: its rows; O(1) on the wire.
    pub fn flush(&mut self, db: u16) -> OpResult<()> {
        self.replacing(db, None, |txn| txn.clear(Scope::Db(db), false)).map(drop)
    }

    /// Removes all that is seen of a key, hidden slots, births and deadline included.
    pub(super) fn remove_key(&mut self, db: u16, key: &[u8]) -> OpResult<()> {
        let key = Bytes::copy_from_slice(key);
        let place = self.open(db, &key)?;
        let header = self.at(place);
        let stored: u64 = header.slots.iter().map(|state| state.stored).sum();
        if stored > MAX_SINGLE_REMOVALS {
            return self.clear(Scope::Key(db, key), false);
        }
        if header.slots.is_empty() {
            let singles: SmallVec<[Slot; 2]> = header.single_slots().collect();
            let row = |slot| RowKey::single(db, key.clone(), slot);
            return singles.into_iter().try_for_each(|slot| self.remove(row(slot)));
        }
        let scope = Scope::Key(db, key);
        let names = match self.engine.draft.since_clear(&scope) {
            Some(names) => names,
            None => {
                let names = self.engine.space.rows_in(&scope);
                self.guard(names)?
            }
        };
        for name in names {
            self.remove(name)?;
        }
        self.engine.draft.cleared_again(&scope);
        Ok(())
    }

    /// Does what replaces a key, or all of a db, whatever was there: what cannot be read is given up for it.
    /// Tells with the result whether anything was.
    pub(super) fn replacing<T>(
        &mut self,
        db: u16,
        key: Option<&[u8]>,
        replace: impl Fn(&mut Self) -> OpResult<T>,
    ) -> OpResult<(T, bool)> {
        let before = self.savepoint();
        match replace(self) {
            Err(OpError::Store(StoreError::Corrupt(_))) => {
                self.rollback(before);
                let scope = match key {
                    None => Scope::Db(db),
                    Some(key) => Scope::Key(db, Bytes::copy_from_slice(key)),
                };
                if let Scope::Key(db, key) = &scope
                    && is_unreadable(&self.engine.space.header(*db, key))
                {
                    if self.engine.space.graph().node(&(*db, key.clone())).is_some() {
                        return Err(OpError::Derived(self.operator_of(*db, key)));
                    }
                    let given_up = self.engine.space.give_up_record(*db, key);
                    self.guard(given_up)?;
                }
                self.clear(scope, true)?;
                Ok((replace(self)?, true))
            }
            done => Ok((done?, false)),
        }
    }

    /// Takes the large collections of a key away as a whole. Tells whether there were any.
    fn clear_large(&mut self, db: u16, key: &Bytes) -> OpResult<bool> {
        let slots = self.engine.space.separable_slots(db, key);
        let slots = self.guard(slots)?;
        for slot in &slots {
            self.check_room()?;
            let Engine { space, draft, .. } = &mut *self.engine;
            let cleared = space.clear_slot(db, key, *slot);
            let cleared = cleared.and_then(|cleared| draft.change_whole(cleared, space));
            if let Err(error) = cleared {
                *self.failed = Some(error.clone());
                return Err(OpError::Store(error));
            }
        }
        Ok(!slots.is_empty())
    }

    /// Removes all rows of a db together, but for residue of counters.
    fn clear_whole(&mut self, db: u16, mut clear: Clear) -> OpResult<()> {
        if !self.engine.space.has_any(db) {
            return Ok(());
        }
        self.check_room()?;
        let counters = self.engine.space.rows_with_counters(db);
        let counters = self.guard(counters)?;
        let Engine { space, draft, .. } = &mut *self.engine;
        let dot = draft.next();
        let cleared = space.clear_db(db);
        if let Err(error) = draft.change_whole(cleared, space) {
            *self.failed = Some(error.clone());
            return Err(OpError::Store(error));
        }
        for (name, mut row) in counters {
            if row.is_live() {
                clear.resets.extend(observed(&row, dot).map(|reset| (name.clone(), reset)));
                row.supersede(dot);
            }
            if row.is_empty() {
                continue;
            }
            let spot = self.spot(&name)?;
            let replaced = self.engine.space.replace(&name, spot, row);
            let old = self.guard(replaced)?;
            self.engine.draft.change(name, old);
        }
        self.engine.draft.clear(clear);
        Ok(())
    }

    /// Removes by scope, if anything is there: one effect with the vector before this commit as context
    /// (MODEL M3), and the observed sums of other origins' counters (MODEL M2); the first clear of a commit
    /// has all of that, later ones of the scope undo what the commit itself has done since. With `give_up`
    /// what cannot be read counts as there; else it fails.
    pub(super) fn clear(&mut self, scope: Scope, give_up: bool) -> OpResult<()> {
        let mut clear = Clear { scope, context: self.engine.vector.clone(), resets: Vec::new() };
        let since = match give_up {
            true => None,
            false => self.engine.draft.since_clear(&clear.scope),
        };
        if let Scope::Db(db) = clear.scope
            && since.is_none()
            && !give_up
            && self.engine.space.is_separable()
        {
            return self.clear_whole(db, clear);
        }
        let mut live = give_up;
        if let Scope::Key(db, key) = &clear.scope
            && since.is_none()
            && !give_up
        {
            live |= self.clear_large(*db, key)?;
        }
        let again = since.is_some();
        let names = match since {
            Some(names) => Ok((names, Vec::new())),
            None if give_up => self.engine.space.readable_in(&clear.scope),
            None => self.engine.space.rows_in(&clear.scope).map(|names| (names, Vec::new())),
        };
        let (names, holes) = self.guard(names)?;
        let dot = self.engine.draft.next();
        for name in names {
            let spot = self.spot(&name)?;
            let row = self.engine.space.look(spot);
            if !row.is_live() {
                continue;
            }
            self.check_room()?;
            live = true;
            clear.resets.extend(observed(row, dot).map(|reset| (name.clone(), reset)));
            let mut new = row.clone();
            new.supersede(dot);
            let replaced = self.engine.space.replace(&name, spot, new);
            let old = self.guard(replaced)?;
            self.engine.draft.change(name, old);
        }
        if give_up {
            self.engine.space.erase(holes);
            let recounted = self.engine.space.recount_scope(&clear.scope);
            self.guard(recounted)?;
        }
        if again {
            self.engine.draft.cleared_again(&clear.scope);
        } else if live {
            self.engine.draft.clear(clear);
        }
        Ok(())
    }
}

/// What a clear under that dot has observed of the counters of others.
fn observed(row: &Row, dot: Dot) -> impl Iterator<Item = CounterReset> {
    let foreign = row.counters().iter().filter(move |it| it.is_live() && it.origin != dot.origin);
    foreign.map(|entry| CounterReset {
        origin: entry.origin,
        generation: entry.generation,
        last: entry.last,
        sum: entry.sum,
    })
}
