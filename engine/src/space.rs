//! The keyspace: all rows of a node, and everything that is derived from them.
//!
//! Every change of a row, whoever makes it (a command, a commit from elsewhere, a state transfer, an
//! expiry, a rollback), passes through [`Space::replace`]. There the counts, the digest, the hiding by
//! deadlines, the views and the list of changed keys follow in the same step. So nothing can be derived
//! twice or forgotten, and putting a row back undoes all of it.
//!
//! A tick works on decoded rows ([`Open`]); between ticks they are packed in pages ([`crate::pages`]), where
//! what has changed stays until it has reached the store: all of it since the last time goes there as one
//! *generation* ([`Space::freeze`]).

mod building;
mod deadlines;
mod due;
mod expiring;
mod follow;
mod lost;
mod resident;
mod smalls;
mod stored;
mod system;
mod views;
mod whole;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::causal::{LogPosition, Millis};
use crate::codec::{CodecError, Parts, Writer};
use crate::crdt::Types;
use crate::crdt::deadline::Decision;
use crate::crdt::set::SET;
use crate::dataflow::graph::{Graph, Target};
use crate::header::{Header, Lie, SlotState, Sums};
use crate::name::{Cursor, RowKey, Scope, Slot};
use crate::open::{Open, Place};
use crate::pages::{Located, Lookup, TreeId, Value, row_bytes};
use crate::row::{Origins, Row, Shown};
use crate::small::Small;
use crate::store::{Family, Hole, Run, Store, StoreError, keys};

use building::{Building, Emptied};
use due::Due;
pub(crate) use expiring::Counted;
use expiring::Expiring;
use follow::{Flip, KeyChange};
pub(crate) use lost::load_lost;
use resident::Resident;
use smalls::{Home, Lying};
use stored::Stored as _;
pub(crate) use stored::{is_unreadable, load_origins, parse_row};
use system::System;
pub(crate) use whole::Cleared;

/// Bytes of room for keys and rows that are kept.
const SCRATCH: usize = 64 << 10;
/// Pages of which rows that are gone are forgotten at the end of a tick, at most.
const SETTLED: usize = 256;
/// Bytes of the prefix of a tree of keys.
const DB: usize = 2;

type Outcome<T> = Result<T, StoreError>;

pub(crate) struct Space<S: Store> {
    types: &'static Types,
    resident: Resident<S>,
    /// What the tick works on: records of keys, rows of collections, weights of derived elements.
    headers: Open<Header>,
    rows: Open<Row, Home>,
    derived: Open<u64>,
    bindings: BTreeMap<Target, Row>,
    graph: Graph,
    /// Views that are built in slices.
    building: Building,
    /// Elements of sources that are read at once for a view.
    at_once: u64,
    /// How many origins the store has, and will have once the frozen generation is written.
    origins_stored: usize,
    origins_frozen: usize,
    /// What is kept of the rows of each db.
    sums: Vec<Sums>,
    /// What the digest has beside that: of a directory of which it is not known what it has of each db.
    undivided: u128,
    /// Visible keys per db.
    counts: Vec<u64>,
    /// Those among them that have a deadline.
    expiring: Vec<Expiring>,
    /// What `system` does not have yet: deadlines and bindings.
    system: System,
    /// The generation that changes belong to now.
    generation: u64,
    /// Deadlines to come.
    due: Due,
    /// Keys that a deadline has hidden since the start.
    expired: u64,
    /// What a change has done to views so far, to be taken back if the rest of it meets what cannot be read.
    steps: Vec<Step>,
    /// Weights of views that were changed in this tick.
    flown: usize,
    /// How many rows and ranges were given up in all.
    lost: u64,
    /// Whether anybody has met what cannot be read.
    unread: bool,
    /// A change could not be taken back: what is derived from the rows may not fit them any more.
    torn: bool,
    /// What deadlines are judged by: a key whose deadline ended before this is hidden.
    now: Millis,
    /// Keys changed since last asked, if anyone asks.
    changed: Option<Vec<Changed>>,
    scratch: Vec<u8>,
    /// The record looked up last: a command comes back to the same key several times.
    recent: Option<Place>,
    /// The same for rows.
    recent_row: Option<Place>,
    #[cfg(feature = "planted")]
    pub(crate) planted: crate::planted::Planted,
}

/// What a change has replaced, of views.
pub(crate) enum Step {
    /// The weight of an element.
    Weight(Place, u64),
    /// How many elements a key of a db shows, by its record.
    Elements(u16, Place, Option<u64>),
    /// All elements of a view.
    Emptied(Emptied),
    /// Nothing: a view that had been emptied is to be built in slices.
    Began(Target),
}

/// Where a row lies in memory. Valid until the tick ends, and different for different rows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spot {
    /// The binding of the key whose record lies there.
    Binding(Place),
    /// The row of a slot that has one, in a key's record.
    Single(Place, Slot),
    /// In a key's record.
    Deadline(Place),
    /// In a key's record, of a collection slot.
    Birth(Place, Slot),
    /// A row of a collection, and the key's record.
    Element {
        /// The key's record.
        record: Place,
        /// The row.
        row: Place,
    },
}

impl Spot {
    /// A number that no other row has.
    pub(crate) fn number(self) -> u64 {
        const ELEMENT: u8 = 0;
        let (place, what) = match self {
            Spot::Element { row, .. } => (row, ELEMENT),
            Spot::Binding(record) => (record, Slot::BINDING.0),
            Spot::Deadline(record) => (record, Slot::DEADLINE.0),
            // Births are of collections, whose own numbers no single row has.
            Spot::Single(record, slot) | Spot::Birth(record, slot) => (record, slot.0),
        };
        (place.number() as u64) << 8 | u64::from(what)
    }
}

/// What has changed, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// A key of a db.
    Key(u16, Bytes),
    /// All keys of a db that were there.
    Db(u16),
}

/// What visits records of keys: names, records, and the origins that these name by number.
type VisitRecord<'v> = dyn FnMut(&[u8], Header, &Origins) -> Outcome<()> + 'v;

fn unreadable(error: CodecError) -> StoreError {
    StoreError::corrupt("record of a key", error)
}

fn corrupt<T>(what: &str) -> Outcome<T> {
    Err(StoreError::Corrupt(format!("{what}: not a key of this family")))
}

impl<S: Store> Space<S> {
    /// The keyspace of a store, with the digest, counts and log position that its state record tells.
    pub(crate) fn open(
        store: S,
        digest: u128,
        counts: Vec<u64>,
        position: LogPosition,
        types: &'static Types,
        (limit, at_once): (usize, u64),
        seed: u64,
    ) -> Outcome<Space<S>> {
        let origins = load_origins(&store)?;
        let mut space = Space {
            types,
            resident: Resident::new(store, origins, limit, seed),
            headers: Open::new(seed),
            rows: Open::new(seed),
            derived: Open::new(seed),
            bindings: BTreeMap::new(),
            graph: Graph::default(),
            building: Building::default(),
            at_once,
            origins_stored: 0,
            origins_frozen: 0,
            sums: Vec::new(),
            undivided: 0,
            counts,
            expiring: Vec::new(),
            system: System::default(),
            generation: 1,
            due: Due::default(),
            expired: 0,
            steps: Vec::new(),
            flown: 0,
            lost: 0,
            unread: false,
            torn: false,
            now: Millis(0),
            changed: None,
            scratch: Vec::new(),
            recent: None,
            recent_row: None,
            #[cfg(feature = "planted")]
            planted: crate::planted::Planted::None,
        };
        space.origins_stored = space.resident.origins.list().len();
        space.lost = load_lost(&space.resident.store)?;
        space.load_bindings()?;
        space.load_sums(position, digest)?;
        space.load_building()?;
        space.load_expiring(position)?;
        space.fill_window()?;
        Ok(space)
    }

    #[cfg(feature = "planted")]
    pub(crate) fn breaking(mut self, planted: crate::planted::Planted) -> Space<S> {
        self.planted = planted;
        self.resident.pages.planted = planted;
        self
    }

    // ---- reading -------------------------------------------------------------------------------------

    /// The place of a key's record, an empty one if there is none.
    pub(crate) fn header(&mut self, db: u16, key: &[u8]) -> Outcome<Place> {
        if let Some(place) = self.recent
            && keys::split_header(self.headers.key(place)) == Some((db, key))
        {
            return Ok(place);
        }
        keys::header(&mut self.scratch, db, key);
        if let Some(place) = self.headers.find(&self.scratch) {
            self.recent = Some(place);
            return Ok(place);
        }
        let tree = self.resident.keys_of(db);
        let (header, absent) = self.resident.get(tree, &self.scratch, DB)?;
        let place = self.headers.insert(&self.scratch, (tree, DB), header, absent);
        self.recent = Some(place);
        Ok(place)
    }

    pub(crate) fn at(&self, place: Place) -> &Header {
        &self.headers[place]
    }

    /// The tree of a slot's rows, of a key that has its record there.
    fn tree(&mut self, db: u16, key: &[u8], slot: Slot, header: Place) -> TreeId {
        let mut prefix = std::mem::take(&mut self.scratch);
        keys::slot_prefix(&mut prefix, db, key, slot);
        let any = self.headers[header].slot(slot).is_some_and(SlotState::is_apart);
        let tree = self.resident.tree(Family::Data, &prefix, !any);
        self.scratch = prefix;
        tree
    }

    /// The place of a collection's row, whose key has its record there.
    fn row_place(&mut self, row: &RowKey, header: Place) -> Outcome<Place> {
        keys::row(&mut self.scratch, row);
        if let Some(place) = self.recent_row
            && self.rows.key(place) == self.scratch
        {
            return Ok(place);
        }
        if let Some(place) = self.rows.find(&self.scratch) {
            self.recent_row = Some(place);
            return Ok(place);
        }
        let prefix = keys::prefix_of(&self.scratch, &row.subkey);
        let (value, absent) = match self.headers[header].slot(row.slot) {
            Some(state) if state.is_apart() => {
                let tree = self.resident.tree(Family::Data, &self.scratch[..prefix], false);
                self.resident.get(tree, &self.scratch, prefix)?
            }
            state => {
                let small = state.and_then(SlotState::small).map(Small::rows);
                let found = small.and_then(|small| small.find(&row.subkey));
                let row = found.map(|it| it.row(&self.resident.origins)).transpose();
                // Of its tree no row is left, or all have been removed.
                (row.map_err(unreadable)?.unwrap_or_default(), true)
            }
        };
        let home = Some((header, row.slot));
        let place = self.rows.insert(&self.scratch, (home, prefix), value, absent);
        self.recent_row = Some(place);
        Ok(place)
    }

    /// Where a row lies, read from the store if it is not in memory.
    pub(crate) fn spot(&mut self, row: &RowKey) -> Outcome<Spot> {
        let record = self.header(row.db, &row.key)?;
        Ok(match row.slot {
            Slot::BINDING => Spot::Binding(record),
            Slot::DEADLINE => Spot::Deadline(record),
            Slot::BIRTH => match Slot::of_subkey(&row.subkey) {
                Some(slot) => Spot::Birth(record, slot),
                None => return corrupt("birth"),
            },
            slot if self.types.is_single(slot) => Spot::Single(record, slot),
            _ => Spot::Element { record, row: self.row_place(row, record)? },
        })
    }

    /// The row that lies there, empty if there is none.
    pub(crate) fn look(&self, spot: Spot) -> &Row {
        static NONE: std::sync::LazyLock<Row> = std::sync::LazyLock::new(Row::default);
        match spot {
            Spot::Binding(record) => keys::split_header(self.headers.key(record))
                .and_then(|(db, key)| self.bindings.get(&(db, Bytes::copy_from_slice(key))))
                .unwrap_or(&NONE),
            Spot::Single(record, slot) => self.headers[record].single(slot),
            Spot::Deadline(record) => self.headers[record].deadline(),
            Spot::Birth(record, slot) => {
                self.headers[record].slot(slot).map_or(&NONE, |state| &state.birth)
            }
            Spot::Element { row, .. } => &self.rows[row],
        }
    }

    /// A row as it is now; empty if there is none.
    pub(crate) fn row(&mut self, row: &RowKey) -> Outcome<&Row> {
        let spot = self.spot(row)?;
        Ok(self.look(spot))
    }

    /// Where a key lies, if it is one write of that slot and nobody works on it. Otherwise its record has to
    /// be asked.
    pub(crate) fn glance(&mut self, db: u16, key: &[u8], slot: Slot) -> Option<Located> {
        let row = self.glance_record(db, key)?;
        match self.resident.pages.value(row) {
            Value::Packed(stored) => {
                Header::glance(stored).filter(|(of, _)| *of == slot).map(|_| row)
            }
            Value::Beside(..) => None,
        }
    }

    /// Where a key's record lies, if it is in memory and nobody works on it.
    fn glance_record(&mut self, db: u16, key: &[u8]) -> Option<Located> {
        keys::header(&mut self.scratch, db, key);
        if self.headers.find(&self.scratch).is_some() {
            return None;
        }
        let tree = self.resident.keys_of(db);
        match self.resident.pages.find(tree, keys::name_at(&self.scratch, DB)) {
            Lookup::Row(row) => Some(row),
            _ => None,
        }
    }

    /// What clients read of a key that lies there.
    pub(crate) fn glanced(&self, key: Located) -> Option<Shown<'_>> {
        Header::glance(self.resident.pages.value(key).packed()?)?.1.shown(Millis(0))
    }

    /// Visits the rows of a collection slot as clients see them, in the order of their places, from one on.
    /// The key has its record there.
    pub(crate) fn visit_shown(
        &mut self,
        key: (u16, &[u8]),
        slot: Slot,
        from: Cursor,
        record: Place,
        visit: &mut dyn FnMut(&[u8], Shown<'_>) -> ControlFlow<()>,
    ) -> Outcome<()> {
        let (types, hidden) = (self.types, self.headers[record].hidden);
        self.visit_slot(key, slot, from, record, |name, row, origins| {
            let decoded;
            let shown = match row.shown(hidden) {
                Some(shown) => shown,
                None => {
                    decoded = row.row(origins)?;
                    types.read(slot, &decoded, hidden)
                }
            };
            Ok(shown.map_or(ControlFlow::Continue(()), |it| visit(name, it)))
        })
    }

    /// Visits the keys of a db that clients see, with the slot that they see, in the order of their places,
    /// from one on; passes over what cannot be read.
    pub(crate) fn visit_keys(
        &mut self,
        db: u16,
        from: Cursor,
        visit: &mut dyn FnMut(&[u8], Slot) -> ControlFlow<()>,
    ) -> Outcome<()> {
        let tree = self.resident.keys_of(db);
        self.pack_records();
        let mut holes = Vec::new();
        let mut undecoded = false;
        let listed = Some(&mut holes);
        self.resident.walk(tree, from.hash(), listed, &mut |key, value, origins| {
            let slot = match value.packed().and_then(Header::glance_slot) {
                Some(slot) => slot,
                None => match Header::load(value.reader(), origins) {
                    Ok(header) => header.visible(),
                    Err(_) => {
                        undecoded = true;
                        None
                    }
                },
            };
            Ok(slot.map_or(ControlFlow::Continue(()), |slot| visit(key, slot)))
        })?;
        self.unread |= undecoded || !holes.is_empty();
        Ok(())
    }

    /// Visits the rows of a collection slot in the order of their places, from one on, residue included.
    pub(crate) fn visit_rows(
        &mut self,
        db: u16,
        key: &[u8],
        slot: Slot,
        from: Cursor,
        visit: &mut dyn FnMut(&[u8], &Row) -> ControlFlow<()>,
    ) -> Outcome<()> {
        let record = self.header(db, key)?;
        self.visit_slot((db, key), slot, from, record, |name, row, origins| {
            Ok(visit(name, &row.row(origins)?))
        })
    }

    /// Visits the elements of a set or derived key as clients see them, in the order of their places, from
    /// one on.
    pub(crate) fn visit_elements(
        &mut self,
        db: u16,
        key: &[u8],
        from: Cursor,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Outcome<()> {
        let place = self.header(db, key)?;
        let header = &self.headers[place];
        if header.visible() != Some(SET) {
            return Ok(());
        }
        if header.derived.is_none() {
            let hidden = header.hidden;
            return self.visit_slot((db, key), SET, from, place, |member, row, origins| {
                let visible = row.is_visible(hidden, origins)?;
                Ok(if visible { visit(member) } else { ControlFlow::Continue(()) })
            });
        }
        let tree = self.derived_tree(db, key, place);
        self.resident.pack(&mut self.derived);
        self.resident.walk(tree, from.hash(), None, &mut |element, _, _| Ok(visit(element)))
    }

    /// Tells for members of a set in turn whether it has them. The key has its record there.
    pub(crate) fn have_elements<'m>(
        &mut self,
        (db, key): (u16, &[u8]),
        record: Place,
        members: impl Iterator<Item = (u64, &'m [u8])>,
        mut tell: impl FnMut((u64, &'m [u8]), bool),
    ) -> Outcome<()> {
        self.pack_rows();
        self.resident.pack(&mut self.derived);
        let Header { derived, hidden, .. } = self.headers[record];
        if derived.is_none()
            && let Some(small) = self.small(record, SET)
        {
            let origins = &self.resident.origins;
            for name in members {
                let found = small.find(name.1);
                let has = found.map(|row| Lying::Small(row).is_visible(hidden, origins));
                tell(name, has.transpose()?.unwrap_or(false));
            }
            return Ok(());
        }
        let tree = match derived {
            Some(_) => self.derived_tree(db, key, record),
            None => self.tree(db, key, SET, record),
        };
        for name in members {
            let mut found = self.resident.pages.find(tree, name);
            if let Lookup::Unknown = found {
                self.resident.fill(tree, name)?;
                found = self.resident.pages.find(tree, name);
            }
            let has = match found {
                Lookup::Row(_) if derived.is_some() => true,
                Lookup::Row(row) => Lying::Packed(self.resident.pages.value(row))
                    .is_visible(hidden, &self.resident.origins)?,
                _ => false,
            };
            tell(name, has);
        }
        Ok(())
    }

    /// The tree of a derived key's elements, whose record lies there.
    fn derived_tree(&mut self, db: u16, key: &[u8], header: Place) -> TreeId {
        let mut prefix = std::mem::take(&mut self.scratch);
        keys::element_prefix(&mut prefix, db, key);
        let whole = self.headers[header].derived.unwrap_or(0) == 0;
        let tree = self.resident.tree(Family::Derived, &prefix, whole);
        self.scratch = prefix;
        tree
    }

    /// The weight of an element of a derived key.
    pub(crate) fn weight(&mut self, db: u16, key: &[u8], element: &[u8]) -> Outcome<u64> {
        let place = self.weight_place(db, key, element)?;
        Ok(self.derived[place])
    }

    fn weight_place(&mut self, db: u16, key: &[u8], element: &[u8]) -> Outcome<Place> {
        let header = self.header(db, key)?;
        keys::element_prefix(&mut self.scratch, db, key);
        let prefix = self.scratch.len();
        keys::subkey(&mut self.scratch, element);
        if let Some(place) = self.derived.find(&self.scratch) {
            return Ok(place);
        }
        let whole = self.headers[header].derived.unwrap_or(0) == 0;
        let tree = self.resident.tree(Family::Derived, &self.scratch[..prefix], whole);
        let (weight, absent) = self.resident.get(tree, &self.scratch, prefix)?;
        Ok(self.derived.insert(&self.scratch, (tree, prefix), weight, absent))
    }

    /// Visits the records of a db's keys in the order of their places, from one on; passes over what cannot
    /// be read.
    pub(crate) fn visit_headers(
        &mut self,
        db: u16,
        from: Cursor,
        visit: &mut dyn FnMut(&[u8], &Header) -> ControlFlow<()>,
    ) -> Outcome<()> {
        let mut holes = Vec::new();
        self.walk_headers(db, from, Some(&mut holes), visit)?;
        self.unread |= !holes.is_empty();
        Ok(())
    }

    /// Visits the records of a db that are more than one write.
    fn walk_records(&mut self, db: u16, visit: &mut VisitRecord<'_>) -> Outcome<()> {
        let tree = self.resident.keys_of(db);
        self.pack_records();
        self.resident.walk(tree, 0, None, &mut |key, value, origins| {
            if value.packed().and_then(Header::glance).is_none() {
                visit(key, Header::load(value.reader(), origins)?, origins)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn walk_headers(
        &mut self,
        db: u16,
        from: Cursor,
        holes: Option<&mut Vec<Hole>>,
        visit: &mut dyn FnMut(&[u8], &Header) -> ControlFlow<()>,
    ) -> Outcome<()> {
        let tree = self.resident.keys_of(db);
        self.pack_records();
        self.resident.walk_rows(tree, from.hash(), holes, visit)
    }

    pub(crate) fn count(&self, db: u16) -> u64 {
        self.counts.get(usize::from(db)).copied().unwrap_or(0)
    }

    pub(crate) fn counts(&self) -> &[u64] {
        &self.counts
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn bindings(&self) -> &BTreeMap<Target, Row> {
        &self.bindings
    }

    /// Bytes that rows in memory take.
    pub(crate) fn cache_bytes(&self) -> usize {
        self.resident.pages.bytes()
    }

    /// Bytes that a key takes when all of it is in memory: of a collection so many rows are looked at (0:
    /// all), and the others are taken to be as large. `None` if there is nothing visible.
    pub(crate) fn key_bytes(
        &mut self,
        db: u16,
        key: &[u8],
        samples: usize,
    ) -> Outcome<Option<u64>> {
        self.pack_rows();
        let place = self.header(db, key)?;
        let header = &self.headers[place];
        if header.visible().is_none() {
            return Ok(None);
        }
        let mut record = Writer::new();
        header.encode(&mut record, &mut self.resident.origins);
        let mut bytes = row_bytes(key.len(), record.len()) as u64;
        let derived = header.derived;
        let apart = header.slots.iter().filter(|state| state.is_apart());
        let slots: Vec<(Slot, u64)> = apart.map(|state| (state.slot, state.stored)).collect();
        self.resident.pack(&mut self.derived);
        for (slot, stored) in slots {
            let tree = self.tree(db, key, slot, place);
            bytes += self.sample(tree, samples, stored)?;
        }
        if let Some(elements) = derived {
            let tree = self.derived_tree(db, key, place);
            bytes += self.sample(tree, samples, elements)?;
        }
        Ok(Some(bytes))
    }

    /// Bytes that so many rows of a tree take, by a sample of them.
    fn sample(&mut self, tree: TreeId, samples: usize, rows: u64) -> Outcome<u64> {
        let mut sampled = Sampled::new(samples);
        self.resident.walk(tree, 0, None, &mut |name, value, _| {
            Ok(sampled.add(row_bytes(name.len(), value.len())))
        })?;
        Ok(sampled.scaled(rows))
    }

    /// Bytes of those that the store does not have.
    pub(crate) fn pinned_bytes(&self) -> usize {
        self.resident.pages.owed_bytes()
    }

    /// Bytes of the changes of `system`.
    pub(crate) fn list_bytes(&self) -> usize {
        self.system.bytes()
    }

    /// Keys that a deadline has hidden since the start.
    pub(crate) fn expired_keys(&self) -> u64 {
        self.expired
    }

    /// Every row of a scope, by name. Memory: the names of the rows.
    pub(crate) fn rows_in(&mut self, scope: &Scope) -> Outcome<Vec<RowKey>> {
        self.list_rows(scope, None)
    }

    /// The same; with `holes` of what can be read.
    fn list_rows(
        &mut self,
        scope: &Scope,
        mut holes: Option<&mut Vec<Hole>>,
    ) -> Outcome<Vec<RowKey>> {
        let mut found = Vec::new();
        let keys: Vec<Bytes> = match scope {
            Scope::Key(_, key) => vec![key.clone()],
            Scope::Db(db) => {
                let mut keys = Vec::new();
                let holes = holes.as_deref_mut();
                self.walk_headers(*db, Cursor::START, holes, &mut |key, _| {
                    keys.push(Bytes::copy_from_slice(key));
                    ControlFlow::Continue(())
                })?;
                keys
            }
        };
        let db = match scope {
            Scope::Key(db, _) | Scope::Db(db) => *db,
        };
        self.pack_rows();
        for key in keys {
            let place = self.header(db, &key)?;
            let header = self.headers[place].clone();
            let apart = header.slots.iter().filter(|state| state.is_apart());
            let slots: Vec<Slot> = apart.map(|state| state.slot).collect();
            let rows = header.into_rows(&self.resident.origins).map_err(unreadable)?;
            for (slot, subkey, _) in rows {
                found.push(RowKey { db, key: key.clone(), slot, subkey });
            }
            for slot in slots {
                let tree = self.tree(db, &key, slot, place);
                let holes = holes.as_deref_mut();
                self.resident.walk_rows(tree, 0, holes, &mut |subkey, _: &Row| {
                    let subkey = Bytes::copy_from_slice(subkey);
                    found.push(RowKey { db, key: key.clone(), slot, subkey });
                    ControlFlow::Continue(())
                })?;
            }
        }
        if let Scope::Db(db) = scope {
            let bound = self.bindings.keys().filter(|target| target.0 == *db);
            let mut bound: Vec<&Target> = bound.collect();
            // Those that feed nobody first: then nothing is computed anew that goes as well.
            bound.sort_by_cached_key(|target| Reverse(self.graph.rank_of(target)));
            let row = |(_, key): &Target| RowKey::single(*db, key.clone(), Slot::BINDING);
            found.extend(bound.into_iter().map(row));
        }
        Ok(found)
    }

    // ---- changing ------------------------------------------------------------------------------------

    /// Puts a row in place of what lies at its spot, which is returned, and lets everything that is derived
    /// from it follow.
    pub(crate) fn replace(&mut self, row: &RowKey, spot: Spot, new: Row) -> Outcome<Row> {
        self.whole(|space| space.replace_row(row, spot, new))
    }

    /// Makes a change that may meet what cannot be read: then what it has done to views is taken back. The
    /// rest is for the change to take back.
    fn whole<T>(&mut self, change: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        self.steps.clear();
        let changed = change(self);
        if changed.is_err() {
            self.step_back();
        }
        changed
    }

    fn replace_row(&mut self, row: &RowKey, spot: Spot, mut new: Row) -> Outcome<Row> {
        let place = match spot {
            Spot::Binding(_) => return self.replace_binding(row, new),
            Spot::Single(place, _) | Spot::Deadline(place) | Spot::Birth(place, _) => place,
            Spot::Element { record, .. } => {
                self.make_room(row, spot, &new);
                record
            }
        };
        self.headers.pin(place);
        let before = Counted::of(&self.headers[place]);
        let hash = self.hash(row, &new);
        new.keep_hash(hash);
        let (is_live, register) = (new.is_live(), self.types.is_register(row.slot));
        let counts = !new.counters().is_empty();
        let finite = |it: &Decision| it.time.map(|_| it.dot);
        let deadline = self.headers[place].decision().and_then(finite);
        let mut flips = Vec::new();
        let mut hiding = None;
        let old = match spot {
            Spot::Deadline(_) => {
                let (old, before) = self.replace_deadline(row, place, new, &mut flips)?;
                hiding = before;
                old
            }
            _ => self.exchange(row, spot, new, &mut flips),
        };
        // Whoever watches the key is told of what clients can see: a member added again is no change.
        let seen = match row.slot {
            Slot::BIRTH => false,
            Slot::DEADLINE => deadline != self.headers[place].decision().and_then(finite),
            _ if register => is_live || old.is_live(),
            _ => !flips.is_empty(),
        };
        let (db, key) = (row.db, row.key.as_ref());
        let change = KeyChange { db, key, record: place, before, flips, seen };
        if let Err(error) = self.follow(change) {
            match spot {
                Spot::Deadline(_) => self.put_deadline_back(row, place, old, hiding),
                _ => drop(self.exchange(row, spot, old, &mut Vec::new())),
            }
            return Err(error);
        }
        let old_hash = self.kept_hash(row, &old);
        let (was, is) = ((old_hash, !old.counters().is_empty()), (hash, counts));
        whole::at(&mut self.sums, row.db).change(was, is);
        if let Spot::Element { record, .. } = spot
            && let Some(state) = self.headers[record].find_slot_mut(row.slot)
            && let Lie::Apart(Some(sums)) = &mut state.lie
        {
            sums.change(was, is);
        }
        Ok(old)
    }

    /// Puts a row in place of what lies at its spot, for which nothing has to be read.
    fn exchange(&mut self, row: &RowKey, spot: Spot, new: Row, flips: &mut Vec<Flip>) -> Row {
        match spot {
            Spot::Binding(_) | Spot::Deadline(_) => new,
            Spot::Single(place, slot) => self.headers[place].set_single(slot, new),
            Spot::Birth(place, slot) => {
                let header = &mut self.headers[place];
                let old = std::mem::replace(&mut header.slot_mut(slot).birth, new);
                header.prune();
                old
            }
            Spot::Element { record, row: at } => self.replace_element(row, record, at, new, flips),
        }
    }

    /// Changes a row of `system`.
    fn note(&mut self, key: Vec<u8>, row: Option<Vec<u8>>) {
        self.system.note(key, row);
    }

    /// Whoever watches the key is to be told.
    pub(crate) fn note_change(&mut self, db: u16, key: &[u8]) {
        if let Some(changed) = &mut self.changed {
            changed.push(Changed::Key(db, Bytes::copy_from_slice(key)));
        }
    }

    /// Whoever watches a key of the db is to be told.
    fn note_clear(&mut self, db: u16) {
        if let Some(changed) = &mut self.changed {
            changed.push(Changed::Db(db));
        }
    }

    fn replace_element(
        &mut self,
        row: &RowKey,
        header: Place,
        place: Place,
        new: Row,
        flips: &mut Vec<Flip>,
    ) -> Row {
        self.rows.pin(place);
        let old = std::mem::replace(&mut self.rows[place], new);
        let new = &self.rows[place];
        let header = &mut self.headers[header];
        let hidden = header.hidden;
        let (was, is) = (old.is_visible(hidden), new.is_visible(hidden));
        let state = header.slot_mut(row.slot);
        let (came, went) = (u64::from(!new.is_empty()), u64::from(!old.is_empty()));
        state.stored = state.stored + came - went;
        state.rows = state.rows + u64::from(is) - u64::from(was);
        header.prune();
        if was != is && self.types.has_elements(row.slot) {
            flips.push((row.subkey.clone(), if is { 1 } else { -1 }));
        }
        #[cfg(feature = "planted")]
        if let (true, Some(weight)) = (row.slot == SET, self.planted.per_dot(&old, new)) {
            *flips = vec![(row.subkey.clone(), weight)];
        }
        old
    }

    /// The hash of a row that lay in a cache.
    fn kept_hash(&mut self, key: &RowKey, row: &Row) -> u128 {
        match row.known_hash() {
            0 => self.hash(key, row),
            hash => hash,
        }
    }

    /// What the digest has of a row: 0 if there is nothing to see.
    pub(crate) fn hash(&mut self, key: &RowKey, row: &Row) -> u128 {
        let mut bytes = std::mem::take(&mut self.scratch);
        keys::canonical(&mut bytes, key);
        let mut out = Writer::over(bytes).sharing(Vec::new());
        let live = row.canonical(&mut out);
        let hash = if live { hash_of(out.parts()) } else { 0 };
        let bytes = out.into_vec();
        // The room for a large row is not kept.
        if bytes.capacity() <= SCRATCH {
            self.scratch = bytes;
        }
        hash
    }

    // ---- changed keys --------------------------------------------------------------------------------

    pub(crate) fn track_changes(&mut self, on: bool) {
        self.changed = on.then(Vec::new);
    }

    pub(crate) fn take_changed(&mut self) -> Vec<Changed> {
        self.changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    // ---- ticks ---------------------------------------------------------------------------------------

    /// Rows that the store does not have.
    pub(crate) fn unwritten(&self) -> usize {
        self.resident.pages.unwritten() + self.system.len()
    }

    /// Those among them that no generation has been closed over.
    pub(crate) fn gathered(&self) -> usize {
        self.resident.pages.gathered() + self.system.gathered()
    }

    /// Whether a change could not be taken back, so that nothing may be written any more.
    pub(crate) fn is_torn(&self) -> bool {
        self.torn
    }

    /// A change cannot be taken back.
    pub(crate) fn tear(&mut self) {
        self.torn = true;
    }

    /// The dbs that have a record of any key, or a binding.
    pub(crate) fn databases(&mut self) -> Outcome<Vec<u16>> {
        let mut found: Vec<u16> = self.bindings.keys().map(|target| target.0).collect();
        self.pack_records();
        found.extend(self.resident.databases()?);
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// A tick begins.
    pub(crate) fn set_now(&mut self, now: Millis) {
        self.now = now;
        self.flown = 0;
    }

    /// Weights of views that the tick has changed.
    pub(crate) fn flown(&self) -> usize {
        self.flown
    }

    /// The wall clock of the tick.
    pub(crate) fn now(&self) -> Millis {
        self.now
    }

    /// Closes the generation, which ends at that position of the log: all that the store does not have goes
    /// into a run, by [`encode`](Space::encode). Until that is written, or has failed, no other may be
    /// closed.
    pub(crate) fn freeze(&mut self, mut run: Run, position: LogPosition) {
        self.pack();
        self.resident.erased.iter().for_each(|(_, hole)| run.erase(hole.clone()));
        self.system.close();
        for (index, origin) in
            self.resident.origins.list().iter().enumerate().skip(self.origins_stored)
        {
            run.put(Family::System, &keys::origin(index), &origin.to_bytes());
        }
        self.origins_frozen = self.resident.origins.list().len();
        run.put(Family::System, keys::SUMS, self.sums_record(position).as_slice());
        if !self.expiring.is_empty() {
            run.put(Family::System, keys::EXPIRING, self.expiring_record(position).as_slice());
        }
        if let Some(record) = self.building_record() {
            run.put(Family::System, keys::BUILDING, record.as_slice());
        }
        self.generation += 1;
        self.resident.pages.close(run);
    }

    /// Puts so many rows more of the closed generation into its run. All are in it when that is returned.
    pub(crate) fn encode(&mut self, rows: usize) -> Option<Run> {
        let run = self.resident.pages.run()?;
        let rows = self.system.encode(run, rows);
        if rows == 0 { None } else { self.resident.pages.encode(rows) }
    }

    /// The closed generation, which was that run, is in the store, or could not be written.
    pub(crate) fn thaw(&mut self, run: &Run, written: bool) {
        self.resident.thaw(run, written);
        self.system.thaw(written);
        if !written {
            self.forget_building_record();
        }
        if written {
            self.origins_stored = self.origins_frozen;
            self.resident.erased.retain(|(generation, _)| *generation == self.generation);
        }
    }

    /// Packs what the tick has changed.
    fn pack(&mut self) {
        self.pack_records();
        self.resident.pack(&mut self.derived);
    }

    /// Packs the records that it has changed, with the rows that lie in them.
    fn pack_records(&mut self) {
        self.pack_rows();
        self.resident.pack(&mut self.headers);
    }

    /// The tick is over: nobody works on its rows any more.
    fn close(&mut self) {
        self.pack();
        (self.recent, self.recent_row) = (None, None);
        self.headers.clear();
        self.rows.clear();
        self.derived.clear();
    }

    /// Between ticks: gives back what is not needed, of so many pages at most. True if there is more.
    pub(crate) fn rest(&mut self, pages: usize) -> bool {
        let Space { resident, system, .. } = self;
        resident.pages.settle(pages) | resident.pages.purge(pages) | system.purge(pages)
    }

    /// Between ticks: keeps no memory for the next one.
    pub(crate) fn shrink(&mut self) {
        self.headers.shrink();
        self.rows.shrink();
        self.derived.shrink();
    }

    /// The tick has happened.
    pub(crate) fn settle(&mut self) {
        self.settle_due();
        self.close();
        self.rest(SETTLED);
        self.resident.evict();
    }

    /// The tick has not happened, and its rows are put back. What time alone has hidden stays so.
    pub(crate) fn unhappen(&mut self) {
        self.put_due_back();
        self.close();
        if let Some(changed) = &mut self.changed {
            changed.clear();
        }
    }
}

/// Sizes of some rows, from which that of all is reckoned.
struct Sampled {
    most: u64,
    seen: u64,
    bytes: u64,
}

impl Sampled {
    fn new(samples: usize) -> Sampled {
        let most = if samples == 0 { u64::MAX } else { samples as u64 };
        Sampled { most, seen: 0, bytes: 0 }
    }

    fn add(&mut self, bytes: usize) -> ControlFlow<()> {
        self.seen += 1;
        self.bytes += bytes as u64;
        if self.seen < self.most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// The size of so many.
    fn scaled(&self, rows: u64) -> u64 {
        (u128::from(self.bytes) * u128::from(rows) / u128::from(self.seen.max(1))) as u64
    }
}

/// The hash of all parts together.
fn hash_of(parts: Parts<'_>) -> u128 {
    if let Some(bytes) = parts.only() {
        return xxhash_rust::xxh3::xxh3_128(bytes);
    }
    let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.digest128()
}
