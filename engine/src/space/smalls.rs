//! Small collections: rows that lie in the record of their key, and their way out of it.
//!
//! A collection begins in the record. When it has more rows than that takes, or larger ones, it moves into a
//! tree of its own, and stays there until it has no rows any more.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::stored::{Stored as _, plain};
use super::{Outcome, Space, Spot, unreadable};
use crate::causal::Millis;
use crate::header::{Header, Lie, SlotState, Sums};
use crate::name::{Cursor, RowKey, Slot, hash};
use crate::open::Place;
use crate::pages::{Located, Lookup, Value};
use crate::row::{Origins, Row, Shown};
use crate::small::{self, Rows, Seen, Small};
use crate::store::{Family, Store, keys};

/// Where a row of a collection goes: into the record of its key that lies there, if that has the rows of that
/// slot, else into their tree, as it does where nobody knows the record.
pub(super) type Home = Option<(Place, Slot)>;

impl<S: Store> Space<S> {
    /// Packs the rows that were changed, in trees or in the records of their keys, which are open.
    pub(super) fn pack_rows(&mut self) {
        let mut outgrown = Vec::new();
        let Space { rows, headers, resident, .. } = self;
        let gone = Row::default();
        rows.pack(|home, changed, row, absent| {
            let state = home.and_then(|(record, slot)| headers[record].find_slot_mut(slot));
            let row = match state.map(|state| &mut state.lie) {
                Some(Lie::Here(small)) => {
                    small.set(changed.name().1, row, &mut resident.origins);
                    if small.len() > small::MAX_BYTES {
                        outgrown.extend(home);
                    }
                    // A tree that the slot had before it was emptied.
                    &gone
                }
                _ => row,
            };
            let absent = std::mem::replace(absent, *absent && row.is_empty());
            let tree = match absent && row.is_empty() {
                // What was moved out in this tick, and is gone again.
                true => resident.pages.find_tree(Family::Data, changed.prefix()),
                false => Some(resident.tree(Family::Data, changed.prefix(), false)),
            };
            if let Some(tree) = tree {
                resident.put(tree, changed.name(), row, absent);
            }
        });
        for (record, slot) in outgrown {
            self.move_out(record, slot);
        }
    }

    /// Makes room for what a row is to be: moves the rows of its slot into a tree, if they lie in the record
    /// and it does not take that.
    pub(super) fn make_room(&mut self, name: &RowKey, spot: Spot, row: &Row) {
        let Spot::Element { record, row: place } = spot else { return };
        let state = self.headers[record].slot(name.slot);
        if row.is_empty() || state.is_some_and(|state| state.small().is_none()) {
            return;
        }
        let is_full = state.is_some_and(|state| state.stored >= small::MAX_ROWS);
        let comes = self.rows[place].is_empty();
        if is_full && comes || !small::is_small(&name.subkey, row) {
            self.pack_rows();
            self.move_out(record, name.slot);
        }
    }

    /// Moves the rows of a slot from the record into a tree. None of them may be open and changed.
    fn move_out(&mut self, record: Place, slot: Slot) {
        let Some((db, key)) = keys::split_header(self.headers.key(record)) else { return };
        let mut name = RowKey::new(db, key, slot, &[]);
        self.headers.pin(record);
        let Lie::Here(small) = &mut self.headers[record].slot_mut(slot).lie else { return };
        let small = std::mem::take(small);
        let mut prefix = Vec::new();
        keys::slot_prefix(&mut prefix, db, &name.key, slot);
        let tree = self.resident.tree(Family::Data, &prefix, true);
        let mut sums = Sums::default();
        for (subkey, row) in small.rows().iter() {
            // All of it was read when the record was.
            let Ok(row) = row.row(&self.resident.origins) else { continue };
            name.subkey = Bytes::copy_from_slice(subkey);
            sums.change((0, false), (self.hash(&name, &row), !row.counters().is_empty()));
            self.resident.put(tree, (hash(subkey), subkey), &row, true);
        }
        self.headers[record].slot_mut(slot).lie = Lie::Apart(Some(sums));
    }

    /// The rows of a slot of a key whose record lies there, if they lie in it. None may be open and changed.
    pub(super) fn small(&self, record: Place, slot: Slot) -> Option<Rows<'_>> {
        self.headers[record].slot(slot).and_then(SlotState::small).map(Small::rows)
    }

    /// Visits the rows of a collection slot of a key whose record lies there, in the order of their places,
    /// from one on.
    pub(super) fn visit_slot(
        &mut self,
        (db, key): (u16, &[u8]),
        slot: Slot,
        from: Cursor,
        record: Place,
        mut visit: impl FnMut(&[u8], Lying<'_>, &Origins) -> Outcome<ControlFlow<()>>,
    ) -> Outcome<()> {
        self.pack_rows();
        if let Some(small) = self.small(record, slot) {
            for (name, row) in small.from(from.hash()) {
                if visit(name, Lying::Small(row), &self.resident.origins)?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        let tree = self.tree(db, key, slot, record);
        self.resident.walk(tree, from.hash(), None, &mut |name, value, origins| {
            visit(name, Lying::Packed(value), origins)
        })
    }

    // ---- reading where it lies -------------------------------------------------------------------------

    /// Where a row of a small collection lies, or that there is none, if nobody works on its key and that is
    /// nothing else; otherwise the key's record has to be asked.
    pub(crate) fn glance_small(
        &mut self,
        db: u16,
        key: &[u8],
        slot: Slot,
        subkey: &[u8],
    ) -> Option<Option<Glanced>> {
        let record = self.glance_record(db, key)?;
        let stored = self.resident.pages.value(record).packed()?;
        let (of, visible, rows) = Header::glance_small(stored)?;
        if of != slot || visible == 0 {
            return None;
        }
        Some(rows.glance(subkey)?.map(|at| Glanced::Stored(record, at)))
    }

    /// Where a row of a collection lies whose key has its record there, if it is one write and nobody works
    /// on it, or that there is none. Otherwise it has to be asked.
    pub(crate) fn glance_row(
        &mut self,
        (db, key): (u16, &[u8]),
        slot: Slot,
        subkey: &[u8],
        record: Place,
    ) -> Option<Option<Glanced>> {
        keys::slot_prefix(&mut self.scratch, db, key, slot);
        let prefix = self.scratch.len();
        keys::subkey(&mut self.scratch, subkey);
        if self.rows.find(&self.scratch).is_some() {
            return None;
        }
        if let Some(rows) = self.small(record, slot) {
            return Some(rows.glance(subkey)?.map(|at| Glanced::Record(record, slot, at)));
        }
        let any = self.headers[record].slot(slot).is_some_and(SlotState::is_apart);
        let tree = self.resident.tree(Family::Data, &self.scratch[..prefix], !any);
        match self.resident.pages.find(tree, keys::name_at(&self.scratch, prefix)) {
            Lookup::Absent | Lookup::Removed => Some(None),
            Lookup::Unknown => None,
            Lookup::Row(row) => match self.resident.pages.value(row) {
                Value::Packed(stored) => plain(stored).map(|_| Some(Glanced::Page(row))),
                Value::Beside(..) => None,
            },
        }
    }

    /// What clients read of a row that lies there, of what was written after `hidden`.
    pub(crate) fn glanced_row(&self, row: Glanced, hidden: Millis) -> Option<Shown<'_>> {
        let seen = match row {
            Glanced::Page(row) => {
                return plain(self.resident.pages.value(row).packed()?)?.shown(hidden);
            }
            Glanced::Record(record, slot, at) => self.small(record, slot)?.at(at)?,
            Glanced::Stored(record, at) => {
                Header::glance_small(self.resident.pages.value(record).packed()?)?.2.at(at)?
            }
        };
        seen.shown(hidden)?
    }
}

/// A row that is one write, where it lies. Valid until rows change.
#[derive(Clone, Copy)]
pub(crate) enum Glanced {
    /// In a page.
    Page(Located),
    /// In the record of a key that is open, among the rows of that slot.
    Record(Place, Slot, usize),
    /// In the record of a key, which lies there.
    Stored(Located, usize),
}

/// A row of a collection, where it lies.
#[derive(Clone, Copy)]
pub(super) enum Lying<'l> {
    Packed(Value<'l>),
    Small(Seen<'l>),
}

impl<'l> Lying<'l> {
    /// What clients read of it, of what was written after `hidden`, if it is one write; otherwise it has to
    /// be decoded.
    #[inline]
    pub(super) fn shown(self, hidden: Millis) -> Option<Option<Shown<'l>>> {
        match self {
            Lying::Packed(value) => Some(value.packed().and_then(plain)?.shown(hidden)),
            Lying::Small(seen) => seen.shown(hidden),
        }
    }

    pub(super) fn row(self, origins: &Origins) -> Outcome<Row> {
        match self {
            Lying::Packed(value) => Row::load(value.reader(), origins),
            Lying::Small(seen) => seen.row(origins).map_err(unreadable),
        }
    }

    /// Whether clients see it, of what was written after `hidden`.
    #[inline]
    pub(super) fn is_visible(self, hidden: Millis, origins: &Origins) -> Outcome<bool> {
        let plain = match self {
            Lying::Packed(value) => value.packed().and_then(plain).map(|it| it.is_visible(hidden)),
            Lying::Small(seen) => seen.shown(hidden).map(|shown| shown.is_some()),
        };
        plain.map_or_else(|| Ok(self.row(origins)?.is_visible(hidden)), Ok)
    }
}
