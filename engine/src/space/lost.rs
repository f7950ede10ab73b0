//! What cannot be read: passed over, and given up where something new takes its place.
//!
//! A command that meets a damaged row fails and has changed nothing. But what has to be applied (a commit
//! that is in a log) and what replaces a key whatever it was (SET, DEL, FLUSHALL) takes such a row for
//! empty: the row is *given up*. Its hash stays in the digest, since nobody knows it, and the vector goes on
//! covering its dots. So a node that has given up rows must not send its state to others, who would read
//! them as removed.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::follow::KeyChange;
use super::stored::{Kept, is_unreadable};
use super::{Counted, DB, Outcome, Space};
use crate::codec::{Reader, Writer};
use crate::crdt::string::STRING;
use crate::header::Header;
use crate::name::{Cursor, RowKey, Scope, Slot};
use crate::row::Row;
use crate::store::{Family, Hole, Read, Store, StoreError, keys, scan_on};

const FORMAT: u8 = 1;

/// How many rows were given up, as a store tells.
pub(crate) fn load_lost<R: Read>(store: &R) -> Outcome<u64> {
    let Some(record) = store.get(Family::System, keys::LOST)? else { return Ok(0) };
    let count = Reader::with_format(&record, FORMAT).and_then(|mut input| input.varint());
    count.map_err(|error| StoreError::corrupt("count of lost rows", error))
}

impl<S: Store> Space<S> {
    /// Rows and ranges of rows that were given up, since the directory was made.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether anybody has met what cannot be read.
    pub(crate) fn has_unread(&self) -> bool {
        self.unread
    }

    /// Somebody has met what cannot be read.
    pub(crate) fn meet_damage(&mut self) {
        self.unread = true;
    }

    /// So many more were lost.
    pub(crate) fn note_lost(&mut self, more: u64) {
        if more > 0 {
            self.lost += more;
            let mut record = Writer::with_format(FORMAT);
            record.varint(self.lost);
            self.note(keys::LOST.to_vec(), Some(record.into_vec()));
        }
    }

    /// Gives up ranges of the store: whatever is in them is removed with this generation.
    pub(crate) fn erase(&mut self, holes: Vec<Hole>) {
        // What is derived is computed anew.
        let lost = holes.iter().filter(|hole| hole.family != Family::Derived).count();
        self.note_lost(lost as u64);
        for hole in holes {
            self.resident.erase(self.generation, hole);
        }
    }

    /// The store without what was given up.
    pub(super) fn kept(&self) -> Kept<'_, S> {
        self.resident.kept()
    }

    /// Takes a row for empty that cannot be read. One that can be read stays.
    pub(crate) fn give_up(&mut self, row: &RowKey) -> Outcome<()> {
        let found = self.header(row.db, &row.key);
        if is_unreadable(&found) {
            self.give_up_record(row.db, &row.key)?;
        } else {
            found?;
        }
        if is_unreadable(&self.spot(row)) {
            let record = self.header(row.db, &row.key)?;
            let mut name = Vec::new();
            keys::row(&mut name, row);
            self.open_blank(&name);
            self.headers.pin(record);
            let before = Counted::of(&self.headers[record]);
            let shown = self.headers[record].hidden.0 == 0;
            let state = self.headers[record].slot_mut(row.slot);
            state.stored = state.stored.saturating_sub(1);
            if shown {
                state.rows = state.rows.saturating_sub(1);
            }
            self.erase(vec![Hole::of(Family::Data, &name)]);
            let flips = match self.types.has_elements(row.slot) && shown {
                true => vec![(row.subkey.clone(), -1)],
                false => Vec::new(),
            };
            // A view that does not have the element either has nothing to take back.
            let (db, key) = (row.db, row.key.as_ref());
            let change = KeyChange { db, key, record, before, flips, seen: false };
            let followed = self.whole(|space| space.follow(change));
            if !is_unreadable(&followed) {
                followed?;
            }
        }
        Ok(())
    }

    /// Takes the record of a key for empty, and with it all rows that belong to it.
    pub(crate) fn give_up_record(&mut self, db: u16, key: &[u8]) -> Outcome<()> {
        let mut name = Vec::new();
        keys::header(&mut name, db, key);
        let tree = self.resident.keys_of(db);
        let place = self.headers.insert(&name, (tree, DB), Header::default(), false);
        self.headers.pin(place);
        let mut holes = vec![Hole::of(Family::Keys, &name)];
        let mut prefix = Vec::new();
        keys::element_prefix(&mut prefix, db, key);
        self.give_up_rows(&prefix, &keys::prefix_end(&prefix), &mut holes, |_, _| true)?;
        let target = (db, Bytes::copy_from_slice(key));
        if self.graph.node(&target).is_some() {
            let mut elements = 0;
            let tree = self.resident.tree(Family::Derived, &prefix, false);
            self.resident.pack(&mut self.derived);
            self.resident.walk_rows(tree, 0, Some(&mut holes), &mut |_, weight: &u64| {
                elements += u64::from(*weight > 0);
                ControlFlow::Continue(())
            })?;
            self.headers[place].derived = Some(elements);
        }
        self.erase(holes);
        // Most records show something.
        let shown = Counted { visible: Some(STRING), expires: None };
        let after = Counted::of(&self.headers[place]);
        self.recount(db, shown, after);
        Ok(())
    }

    /// Removes stored rows of collections of which `gone` says so, by db and key, whatever they hold.
    fn give_up_rows(
        &mut self,
        from: &[u8],
        to: &[u8],
        holes: &mut Vec<Hole>,
        mut gone: impl FnMut(u16, &[u8]) -> bool,
    ) -> Outcome<()> {
        let mut names = Vec::new();
        scan_on(&self.kept(), Family::Data, from, to, holes, &mut |name, _| {
            if keys::split_slot(name).is_none_or(|(db, key, ..)| gone(db, key)) {
                names.push(name.to_vec());
            }
            ControlFlow::Continue(())
        })?;
        names.iter().for_each(|name| self.open_blank(name));
        Ok(())
    }

    /// Takes the row of a stored key for empty, whatever it holds.
    fn open_blank(&mut self, stored: &[u8]) {
        let Some(prefix) = keys::prefix_len(Family::Data, stored) else { return };
        let place = match self.rows.find(stored) {
            Some(place) => place,
            None => self.rows.insert(stored, (None, prefix), Row::default(), false),
        };
        self.rows.pin(place);
        self.rows[place] = Row::default();
    }

    /// [`rows_in`](Space::rows_in) of what can be read; the rest is listed.
    pub(crate) fn readable_in(&mut self, scope: &Scope) -> Outcome<(Vec<RowKey>, Vec<Hole>)> {
        let mut holes = Vec::new();
        let names = self.list_rows(scope, Some(&mut holes))?;
        Ok((names, holes))
    }

    /// Counts anew what is left in a scope of which ranges were given up.
    pub(crate) fn recount_scope(&mut self, scope: &Scope) -> Outcome<()> {
        match scope {
            Scope::Key(db, key) => {
                self.recount_key(*db, key)?;
                self.refeed(&(*db, key.clone()))
            }
            Scope::Db(db) => {
                let mut shown = Vec::new();
                let (from, to) = (db.to_be_bytes(), keys::prefix_end(&db.to_be_bytes()));
                let holes = Some(&mut Vec::new());
                self.walk_headers(*db, Cursor::START, holes, &mut |key, _| {
                    shown.push(key.to_vec());
                    ControlFlow::Continue(())
                })?;
                shown.iter().try_for_each(|key| self.recount_key(*db, key))?;
                let listed: std::collections::BTreeSet<Vec<u8>> = shown.into_iter().collect();
                let mut holes = Vec::new();
                self.give_up_rows(&from, &to, &mut holes, |_, key| !listed.contains(key))?;
                self.erase(holes);
                let mut visible = 0;
                for key in listed {
                    let place = self.header(*db, &key)?;
                    visible += u64::from(self.headers[place].visible().is_some());
                }
                if let Some(count) = self.counts.get_mut(usize::from(*db)) {
                    *count = visible;
                }
                Ok(())
            }
        }
    }

    fn recount_key(&mut self, db: u16, key: &[u8]) -> Outcome<()> {
        let place = self.header(db, key)?;
        let hidden = self.headers[place].hidden;
        let apart = self.headers[place].slots.iter().filter(|state| state.is_apart());
        let slots: Vec<Slot> = apart.map(|state| state.slot).collect();
        for slot in slots {
            let (mut stored, mut shown) = (0, 0);
            let tree = self.tree(db, key, slot, place);
            self.pack_rows();
            let holes = Some(&mut Vec::new());
            self.resident.walk_rows(tree, 0, holes, &mut |_, row: &Row| {
                stored += u64::from(!row.is_empty());
                shown += u64::from(row.is_visible(hidden));
                ControlFlow::Continue(())
            })?;
            self.headers.pin(place);
            let before = Counted::of(&self.headers[place]);
            let state = self.headers[place].slot_mut(slot);
            (state.stored, state.rows) = (stored, shown);
            self.headers[place].prune();
            let after = Counted::of(&self.headers[place]);
            self.recount(db, before, after);
        }
        Ok(())
    }
}
