//! All rows of a db or of a collection at once: what is kept of them, so that a clear need not look at each.
//!
//! A clear of a db detaches its rows in memory, gives up its ranges of the store, and takes from the digest
//! what the db has of it: O(1), however many there are. So does one of a large collection. What cannot be
//! taken together are rows with counters, of which a clear leaves residue (MODEL M2): in a db they are looked
//! for, if there are any, and cleared one by one. Views go with what they are derived from, if that is all
//! that they are derived from.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::building::{Emptied, Progress};
use super::expiring::Expiring;
use super::{Counted, Outcome, Space, unreadable};
use crate::causal::LogPosition;
use crate::codec::{CodecError, Reader, Writer};
use crate::crdt::set::SET;
use crate::dataflow::graph::Target;
use crate::header::{Header, Lie, Sums};
use crate::name::{Cursor, RowKey, Slot};
use crate::open::Place;
use crate::pages::{Epoch, TreeId};
use crate::row::Row;
use crate::store::{Family, Hole, Store, keys};

const FORMAT: u8 = 1;
/// A collection that has no more rows is cleared row by row.
const FEW: u64 = 1_024;

/// What was taken away as a whole, to go back to.
pub(crate) enum Cleared {
    Db(ClearedDb),
    Slot(ClearedSlot),
}

/// A collection of a key as it was.
pub(crate) struct ClearedSlot {
    db: u16,
    key: Bytes,
    slot: Slot,
    /// Its rows in memory.
    tree: Option<(TreeId, Epoch)>,
    of_record: OfRecord,
    /// What is derived from it and from nothing else.
    views: Vec<Emptied>,
}

/// What a key's record says of the rows of a collection that lie apart.
#[derive(Clone, Copy, Default)]
struct OfRecord {
    rows: u64,
    stored: u64,
    sums: Sums,
}

/// A db as it was.
pub(crate) struct ClearedDb {
    db: u16,
    epoch: Epoch,
    sums: Sums,
    count: u64,
    expiring: Expiring,
    bindings: Vec<(Target, Row)>,
    /// Views that were building.
    building: Vec<(Target, Progress)>,
}

/// An entry of a list by db.
pub(super) fn at<T: Default + Clone>(list: &mut Vec<T>, db: u16) -> &mut T {
    let index = usize::from(db);
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    &mut list[index]
}

impl<S: Store> Space<S> {
    /// The sum of the hashes of all rows.
    pub(crate) fn digest(&self) -> u128 {
        self.sums.iter().fold(self.undivided, |sum, of| sum.wrapping_add(of.digest))
    }

    /// What is kept of a db, but for what only all dbs together have.
    pub(crate) fn sums(&self, db: u16) -> Option<Sums> {
        let sums = self.sums.get(usize::from(db)).copied().unwrap_or_default();
        (self.undivided == 0).then_some(sums)
    }

    /// Whether anything of a db counts. Only where it can be cleared as a whole.
    pub(crate) fn has_any(&self, db: u16) -> bool {
        self.sums.get(usize::from(db)).is_some_and(|sums| sums.digest != 0)
    }

    /// Whether a db can be cleared as a whole: what is kept of it is known, and nothing was given up.
    pub(crate) fn is_separable(&self) -> bool {
        self.undivided == 0 && self.lost == 0
    }

    /// The rows of a db that have counter entries. Cost: all rows of the db, if there is one.
    pub(crate) fn rows_with_counters(&mut self, db: u16) -> Outcome<Vec<(RowKey, Row)>> {
        let mut found = Vec::new();
        #[cfg(feature = "planted")]
        if self.planted == crate::planted::Planted::WholeClearDropsResidue {
            return Ok(found);
        }
        let mut left = self.sums.get(usize::from(db)).map_or(0, |sums| sums.counters) as usize;
        if left == 0 {
            return Ok(found);
        }
        let mut collections = Vec::new();
        let types = self.types;
        self.walk_records(db, &mut |key, header: Header, origins| {
            let key = Bytes::copy_from_slice(key);
            for state in header.slots.iter().filter(|state| state.is_apart()) {
                if types.counts(state.slot) {
                    collections.push((key.clone(), state.slot));
                }
            }
            for (slot, subkey, row) in header.into_rows(origins).map_err(unreadable)? {
                if !row.counters().is_empty() {
                    found.push((RowKey { db, key: key.clone(), slot, subkey }, row));
                }
            }
            Ok(())
        })?;
        left = left.saturating_sub(found.len());
        for (key, slot) in collections {
            if left == 0 {
                break;
            }
            let before = found.len();
            self.visit_rows(db, &key, slot, Cursor::START, &mut |subkey, row| {
                if !row.counters().is_empty() {
                    found.push((RowKey::new(db, &key, slot, subkey), row.clone()));
                }
                ControlFlow::Continue(())
            })?;
            left = left.saturating_sub(found.len() - before);
        }
        Ok(found)
    }

    /// Takes all rows of a db away, its bindings too, from memory and store. Whoever holds places of rows has
    /// to look for them again. O(rows that the tick has open, bindings).
    pub(crate) fn clear_db(&mut self, db: u16) -> Cleared {
        self.close();
        let bound = self.bindings.range((db, Bytes::new())..).take_while(|(it, _)| it.0 == db);
        let bindings: Vec<(Target, Row)> =
            bound.map(|(it, row)| (it.clone(), row.clone())).collect();
        let mut building = Vec::new();
        for (target, _) in &bindings {
            self.put_binding(target, Row::default());
            if let Some(progress) = self.building.of(target) {
                self.set_building(target, None);
                building.push((target.clone(), progress));
            }
        }
        self.graph.clear(db);
        let epoch = self.resident.detach(db, self.generation);
        self.note_clear(db);
        Cleared::Db(ClearedDb {
            db,
            epoch,
            sums: std::mem::take(at(&mut self.sums, db)),
            count: std::mem::take(at(&mut self.counts, db)),
            expiring: std::mem::take(at(&mut self.expiring, db)),
            bindings,
            building,
        })
    }

    /// The collections of a key that are large and can be taken away as a whole: what is kept of them is
    /// known, they have no counters, and what is derived from them goes with them, or nothing is.
    pub(crate) fn separable_slots(&mut self, db: u16, key: &Bytes) -> Outcome<Vec<Slot>> {
        let place = self.header(db, key)?;
        let source = (db, key.clone());
        if self.lost > 0
            || self.graph.is_source(&source)
                && !(self.headers[place].is_just(SET) && self.graph.feeds_alone(&source))
        {
            return Ok(Vec::new());
        }
        let large = self.headers[place].slots.iter().filter(|state| {
            state.stored > FEW && state.sums().is_some_and(|sums| sums.counters == 0)
        });
        Ok(large.map(|state| state.slot).collect())
    }

    /// Takes all rows of a collection of a key away, from memory and store. Whoever holds places of rows has
    /// to look for them again. O(rows that the tick has open).
    pub(crate) fn clear_slot(&mut self, db: u16, key: &Bytes, slot: Slot) -> Outcome<Cleared> {
        self.close();
        let place = self.header(db, key)?;
        let tree = self.take_away(Family::Data, &slot_prefix(db, key, slot));
        let of_record = self.exchange_slot(place, (db, key), slot, OfRecord::default());
        let mut views = Vec::new();
        for target in self.graph.fed_by(&(db, key.clone())) {
            self.note_change(target.0, &target.1);
            views.push(self.take_view(&target, Some(0))?);
        }
        Ok(Cleared::Slot(ClearedSlot { db, key: key.clone(), slot, tree, of_record, views }))
    }

    /// Takes the rows of a prefix away, from memory, and from the store with this generation.
    pub(super) fn take_away(&mut self, family: Family, prefix: &[u8]) -> Option<(TreeId, Epoch)> {
        let (tree, range) = self.resident.detach_tree(family, prefix);
        self.resident.erased.push((self.generation, range));
        tree
    }

    /// Undoes that.
    pub(super) fn take_back(
        &mut self,
        family: Family,
        prefix: &[u8],
        tree: Option<(TreeId, Epoch)>,
    ) {
        let (_, range) = self.resident.detach_tree(family, prefix);
        self.resident.take_back(&range);
        if let Some((tree, epoch)) = tree {
            self.resident.pages.attach_tree(tree, epoch);
        }
    }

    /// Puts what a key's record says of a collection in place of what it said, which is returned.
    fn exchange_slot(
        &mut self,
        place: Place,
        (db, key): (u16, &Bytes),
        slot: Slot,
        new: OfRecord,
    ) -> OfRecord {
        self.headers.pin(place);
        let before = Counted::of(&self.headers[place]);
        let state = self.headers[place].slot_mut(slot);
        let sums = state.sums().unwrap_or_default();
        let old = OfRecord { rows: state.rows, stored: state.stored, sums };
        (state.rows, state.stored) = (new.rows, new.stored);
        state.lie = if new.stored > 0 { Lie::Apart(Some(new.sums)) } else { Lie::default() };
        self.headers[place].prune();
        let of_db = at(&mut self.sums, db);
        of_db.digest = of_db.digest.wrapping_sub(old.sums.digest).wrapping_add(new.sums.digest);
        let after = Counted::of(&self.headers[place]);
        self.recount(db, before, after);
        self.note_change(db, key);
        old
    }

    /// Undoes [`clear_slot`](Space::clear_slot) or [`clear_db`](Space::clear_db), after what came later was
    /// undone. Places are to be looked for again.
    pub(crate) fn restore(&mut self, cleared: Cleared) -> Outcome<()> {
        match cleared {
            Cleared::Db(cleared) => self.restore_db(cleared),
            Cleared::Slot(ClearedSlot { db, key, slot, tree, of_record, views }) => {
                self.close();
                for view in views {
                    self.fill_view(view)?;
                }
                self.take_back(Family::Data, &slot_prefix(db, &key, slot), tree);
                let place = self.header(db, &key)?;
                self.exchange_slot(place, (db, &key), slot, of_record);
            }
        }
        Ok(())
    }

    fn restore_db(&mut self, cleared: ClearedDb) {
        self.close();
        let ClearedDb { db, epoch, sums, count, expiring, bindings, building } = cleared;
        self.resident.attach(db, epoch);
        for (target, row) in bindings {
            self.graph.change(&target, &row);
            self.put_binding(&target, row);
        }
        for (target, progress) in building {
            self.set_building(&target, Some(progress));
        }
        self.note_clear(db);
        *at(&mut self.sums, db) = sums;
        *at(&mut self.counts, db) = count;
        *at(&mut self.expiring, db) = expiring;
    }

    /// The record, for a generation that ends at that position.
    pub(super) fn sums_record(&self, position: LogPosition) -> Writer {
        let mut out = Writer::with_format(FORMAT);
        out.varint(position.0);
        out.varint(self.sums.len() as u64);
        self.sums.iter().for_each(|sums| sums.encode(&mut out));
        out
    }

    /// Reads the record of that position. Where there is none, all that is known is the digest of all dbs
    /// together.
    pub(super) fn load_sums(&mut self, position: LogPosition, digest: u128) -> Outcome<()> {
        let record = self.resident.store.get(Family::System, keys::SUMS)?;
        let kept = record.and_then(|record| decode(&record, position).ok().flatten());
        match kept {
            Some(kept) => {
                self.sums = kept;
                self.undivided = digest.wrapping_sub(self.digest());
            }
            None => self.undivided = digest,
        }
        Ok(())
    }
}

/// `None`: it is the record of another position.
fn decode(record: &[u8], position: LogPosition) -> Result<Option<Vec<Sums>>, CodecError> {
    let mut input = Reader::with_format(record, FORMAT)?;
    if input.varint()? != position.0 {
        return Ok(None);
    }
    let mut kept = Vec::new();
    for _ in 0..input.count(17)? {
        kept.push(Sums::decode(&mut input)?);
    }
    input.end()?;
    Ok(Some(kept))
}

fn slot_prefix(db: u16, key: &[u8], slot: Slot) -> Vec<u8> {
    let mut prefix = Vec::new();
    keys::slot_prefix(&mut prefix, db, key, slot);
    prefix
}

/// The ranges of the store in which a db's rows lie.
pub(super) fn ranges(db: u16) -> impl Iterator<Item = Hole> {
    let from = db.to_be_bytes();
    [Family::Keys, Family::Data, Family::Derived].into_iter().map(move |family| Hole {
        family,
        from: from.to_vec(),
        to: keys::prefix_end(&from),
        why: String::new(),
    })
}
