//! The record of one key: its single rows, and what is derived from all of its rows.
//!
//! EXISTS, TYPE, SCARD and HLEN are answered from here in O(1). Births, deadline and string are rows
//! that replicate; counts, hiding and the derived mark are functions of the rows, of time and of the
//! bindings, kept so that nobody has to compute them twice.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::causal::{Hlc, Millis, Origin};
use crate::codec::{CodecError, Reader, Writer};
use crate::crdt::deadline::{self, Decision};
use crate::crdt::{Slot, birth};
use crate::row::{Origins, Row};

const FORMAT: u8 = 2;
/// The first one, in which `hidden` is a stamp of the hybrid clock.
const BY_STAMP: u8 = 1;

/// A collection slot of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotState {
    pub(crate) slot: Slot,
    /// The birth row.
    pub(crate) birth: Row,
    /// Rows that are visible as far as the slot itself goes.
    pub(crate) rows: u64,
    /// Rows that lie in the store, residue included: 0 says that there is nothing to look for.
    pub(crate) stored: u64,
    /// At least so many of them lie in the cache: if all do, what is not there is nowhere. Not stored.
    pub(crate) cached: u64,
}

/// The deadline row and what counts of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Deadline {
    row: Row,
    decision: Option<Decision>,
}

static NO_ROW: LazyLock<Row> = LazyLock::new(Row::default);

/// The record of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) string: Row,
    /// In a box, since most keys have none.
    deadline: Option<Box<Deadline>>,
    /// Collections that have rows or a birth, by slot.
    pub(crate) slots: Vec<SlotState>,
    /// What was written at this time or before is hidden: a deadline was reached. 0: nothing is.
    pub(crate) hidden: Millis,
    /// The number of elements, while the key is the target of an active binding.
    pub(crate) derived: Option<u64>,
}

impl Header {
    /// Whether there is nothing to store.
    pub(crate) fn is_blank(&self) -> bool {
        self.string.is_empty()
            && self.deadline.is_none()
            && self.slots.is_empty()
            && self.derived.is_none()
    }

    /// The slot that clients see: the one that is not empty and was born last. A derived key shows its
    /// elements and nothing else.
    pub(crate) fn visible(&self) -> Option<Slot> {
        if let Some(elements) = self.derived {
            return (elements > 0).then_some(Slot::Set);
        }
        let string_shown = self.string.is_visible(self.hidden);
        match (self.slots.as_slice(), string_shown) {
            ([], shown) => return shown.then_some(Slot::String),
            ([only], false) => return (only.rows > 0).then_some(only.slot),
            _ => {}
        }
        let string = string_shown.then(|| (self.string.born(self.hidden), Slot::String));
        self.slots
            .iter()
            .filter(|state| state.rows > 0)
            .map(|state| (birth::of_row(&state.birth).unwrap_or_default(), state.slot))
            .chain(string)
            .max()
            .map(|(_, slot)| slot)
    }

    /// When a slot was born.
    pub(crate) fn born(&self, slot: Slot) -> Option<(Hlc, Origin)> {
        match slot {
            Slot::String => {
                self.string.is_visible(self.hidden).then(|| self.string.born(self.hidden))
            }
            _ => self.slot(slot).and_then(|state| birth::of_row(&state.birth)),
        }
    }

    pub(crate) fn slot(&self, slot: Slot) -> Option<&SlotState> {
        self.slots.iter().find(|state| state.slot == slot)
    }

    /// Visible rows of a collection slot.
    pub(crate) fn rows(&self, slot: Slot) -> u64 {
        self.slot(slot).map_or(0, |state| state.rows)
    }

    /// The slot's state, made if there is none.
    pub(crate) fn slot_mut(&mut self, slot: Slot) -> &mut SlotState {
        let index = match self.slots.binary_search_by_key(&slot, |state| state.slot) {
            Ok(index) => index,
            Err(index) => {
                let state =
                    SlotState { slot, birth: Row::default(), rows: 0, stored: 0, cached: 0 };
                self.slots.insert(index, state);
                index
            }
        };
        &mut self.slots[index]
    }

    /// Forgets collections of which nothing is left.
    pub(crate) fn prune(&mut self) {
        self.slots.retain(|state| state.stored > 0 || !state.birth.is_empty());
    }

    pub(crate) fn deadline(&self) -> &Row {
        self.deadline.as_ref().map_or(&NO_ROW, |deadline| &deadline.row)
    }

    /// Replaces the deadline row and returns the old one.
    pub(crate) fn set_deadline(&mut self, row: Row) -> Row {
        let new = (!row.is_empty())
            .then(|| Box::new(Deadline { decision: deadline::effective(&row), row }));
        std::mem::replace(&mut self.deadline, new).map_or_else(Row::default, |old| old.row)
    }

    /// The decision that counts, "never" included.
    pub(crate) fn decision(&self) -> Option<&Decision> {
        self.deadline.as_ref()?.decision.as_ref()
    }

    /// The finite deadline that counts.
    pub(crate) fn expires(&self) -> Option<Millis> {
        self.decision()?.time
    }

    /// What a deadline hides at a wall time: everything up to it once it has passed. What it has hidden stays
    /// hidden, also if the clock steps back, until something else is decided.
    pub(crate) fn hidden_at(&self, now: Millis) -> Millis {
        match self.expires() {
            Some(time) if time < now || time == self.hidden => time,
            _ => Millis(0),
        }
    }

    pub(crate) fn encode(&self, out: &mut Writer, origins: &mut Origins) {
        out.u8(FORMAT);
        self.string.encode(out, origins);
        self.deadline().encode(out, origins);
        out.varint(self.slots.len() as u64);
        for state in &self.slots {
            out.u8(state.slot as u8);
            state.birth.encode(out, origins);
            out.varint(state.rows);
            out.varint(state.stored);
        }
        out.varint(self.hidden.0);
        out.varint(self.derived.map_or(0, |elements| elements + 1));
    }

    pub(crate) fn decode(mut input: Reader<'_>, origins: &Origins) -> Result<Header, CodecError> {
        let format = input.one_of(BY_STAMP..=FORMAT)?;
        let mut header = Header { string: Row::decode(&mut input, origins)?, ..Header::default() };
        header.set_deadline(Row::decode(&mut input, origins)?);
        for _ in 0..input.count(5)? {
            let slot = Slot::from_u8(input.u8()?).ok_or(CodecError::Invalid("type slot"))?;
            let birth = Row::decode(&mut input, origins)?;
            let (rows, stored) = (input.varint()?, input.varint()?);
            let state = SlotState { slot, birth, rows, stored, cached: 0 };
            header.slots.push(state);
        }
        header.hidden = match format {
            BY_STAMP => Hlc(input.varint()?).millis(),
            _ => Millis(input.varint()?),
        };
        header.derived = input.varint()?.checked_sub(1);
        input.end()?;
        Ok(header)
    }

    /// The single rows of the record with their slots and subkeys.
    pub(crate) fn into_rows(self) -> impl Iterator<Item = (Slot, Bytes, Row)> {
        let births =
            self.slots.into_iter().map(|state| (Slot::Birth, state.slot.as_subkey(), state.birth));
        let deadline = self.deadline.map_or_else(Row::default, |deadline| deadline.row);
        [(Slot::String, Bytes::new(), self.string), (Slot::Deadline, Bytes::new(), deadline)]
            .into_iter()
            .chain(births)
            .filter(|(_, _, row)| !row.is_empty())
    }
}

impl crate::cache::Weigh for Header {
    fn heap_bytes(&self) -> usize {
        let births: usize = self.slots.iter().map(|state| state.birth.heap_bytes()).sum();
        self.string.heap_bytes()
            + self.deadline.as_ref().map_or(0, |it| size_of::<Deadline>() + it.row.heap_bytes())
            + births
            + self.slots.capacity() * size_of::<SlotState>()
    }

    fn is_blank(&self) -> bool {
        Header::is_blank(self)
    }
}

impl crate::cache::Weigh for Row {
    fn heap_bytes(&self) -> usize {
        Row::heap_bytes(self)
    }

    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}
