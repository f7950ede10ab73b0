//! The record of one key: its single rows, and what is derived from all of its rows.
//!
//! EXISTS, TYPE, SCARD and HLEN are answered from here in O(1). Births, deadline and single rows (strings)
//! replicate; counts, hiding and the derived mark are functions of the rows, of time and of the
//! bindings, kept so that nobody has to compute them twice.

use std::sync::LazyLock;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::causal::{Hlc, Millis, Origin};
use crate::codec::{CodecError, Reader, Writer};
use crate::crdt::birth;
use crate::crdt::deadline::{self, Decision};
use crate::crdt::set::SET;
use crate::crdt::string::STRING;
use crate::name::Slot;
use crate::row::{Origins, Plain, Row, Sibling};
use crate::small::{Reference, Rows, Small};

const FORMAT: u8 = 6;
/// One small collection and nothing else: its rows, and its birth.
const SMALL: u8 = 7;
/// Up to this one all rows of collections lie apart.
const APART: u8 = 5;
/// Up to this one nothing is told of what the digest has of a collection.
const WITHOUT_SUMS: u8 = 3;
/// One single row that is one write, and nothing else: what most strings are.
const PLAIN: u8 = 4;
/// The first one, in which `hidden` is a stamp of the hybrid clock.
const BY_STAMP: u8 = 1;
/// Up to this one a record has one single row, that of a string.
const ONE_SINGLE: u8 = 2;

/// What is kept of many rows, so that they can go together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// The sum of their hashes, modulo 2^128.
    pub(crate) digest: u128,
    /// Rows that have counter entries, residue included.
    pub(crate) counters: u64,
}

impl Sums {
    /// A row was replaced by another one, which have these hashes and may have counters.
    pub(crate) fn change(&mut self, (old, had): (u128, bool), (new, has): (u128, bool)) {
        self.digest = self.digest.wrapping_sub(old).wrapping_add(new);
        self.counters = (self.counters + u64::from(has)).saturating_sub(u64::from(had));
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.u64((self.digest >> 64) as u64);
        out.u64(self.digest as u64);
        out.varint(self.counters);
    }

    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Sums, CodecError> {
        let digest = u128::from(input.u64()?) << 64 | u128::from(input.u64()?);
        Ok(Sums { digest, counters: input.varint()? })
    }
}

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
    /// Where they lie.
    pub(crate) lie: Lie,
}

/// Where the rows of a collection lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// In the record, while they are few and small.
    Here(Small),
    /// Each by itself, and what is kept of them; `None` for those of a version that did not.
    Apart(Option<Sums>),
}

impl Default for Lie {
    fn default() -> Lie {
        Lie::Here(Small::default())
    }
}

impl SlotState {
    /// Its rows, if they lie in the record.
    pub(crate) fn small(&self) -> Option<&Small> {
        if let Lie::Here(small) = &self.lie { Some(small) } else { None }
    }

    /// Whether there are rows that lie by themselves.
    pub(crate) fn is_apart(&self) -> bool {
        self.stored > 0 && self.small().is_none()
    }

    /// What is kept of rows that lie by themselves, if it is known.
    pub(crate) fn sums(&self) -> Option<Sums> {
        if let Lie::Apart(sums) = self.lie { sums } else { None }
    }
}

/// The deadline row and what counts of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Deadline {
    row: Row,
    decision: Option<Decision>,
}

/// How the place of a collection's rows is told: what is kept of them is not known, it is, they follow.
const UNKNOWN: u8 = 0;
const KNOWN: u8 = 1;
const HERE: u8 = 2;

/// How the birth of a small collection is told: as a row, by the stamp of one of its rows, by that and what
/// it is a copy of.
const BY_ITSELF: u8 = 0;
const NEW: u8 = 1;
const COPY: u8 = 2;

static NO_ROW: LazyLock<Row> = LazyLock::new(Row::default);

/// The record of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// Rows of the slots that have one, by slot; most keys have one of them.
    singles: SmallVec<[(Slot, Row); 1]>,
    /// In a box, since most keys have none.
    deadline: Option<Box<Deadline>>,
    /// Collections that have rows or a birth, by slot.
    pub(crate) slots: SmallVec<[SlotState; 1]>,
    /// What was written at this time or before is hidden: a deadline was reached. 0: nothing is.
    pub(crate) hidden: Millis,
    /// The number of elements, while the key is the target of an active binding.
    pub(crate) derived: Option<u64>,
}

impl Header {
    /// Whether there is nothing to store.
    pub(crate) fn is_blank(&self) -> bool {
        self.singles.is_empty()
            && self.deadline.is_none()
            && self.slots.is_empty()
            && self.derived.is_none()
    }

    /// The slot that clients see: the one that is not empty and was born last. A derived key shows its
    /// elements and nothing else.
    pub(crate) fn visible(&self) -> Option<Slot> {
        if let Some(elements) = self.derived {
            return (elements > 0).then_some(SET);
        }
        match (self.singles.as_slice(), self.slots.as_slice()) {
            ([], []) => return None,
            ([(slot, row)], []) => return row.is_visible(self.hidden).then_some(*slot),
            ([], [only]) => return (only.rows > 0).then_some(only.slot),
            _ => {}
        }
        let born = |slot| (self.born(slot).unwrap_or_default(), slot);
        self.visible_slots().map(born).max().map(|(_, slot)| slot)
    }

    /// All slots that have something to see.
    pub(crate) fn visible_slots(&self) -> impl Iterator<Item = Slot> {
        let single = |(slot, row): &(Slot, Row)| row.is_visible(self.hidden).then_some(*slot);
        let singles = self.singles.iter().filter_map(single);
        singles.chain(self.slots.iter().filter(|it| it.rows > 0).map(|it| it.slot))
    }

    /// When a slot was born, if that is known: one of a single row by what is visible of that.
    pub(crate) fn born(&self, slot: Slot) -> Option<(Hlc, Origin)> {
        match self.slot(slot) {
            Some(state) => birth::of_row(&state.birth),
            None => {
                let row = self.single(slot);
                row.is_visible(self.hidden).then(|| row.born(self.hidden))
            }
        }
    }

    /// The row of a slot that has one.
    pub(crate) fn single(&self, slot: Slot) -> &Row {
        self.singles.iter().find(|(of, _)| *of == slot).map_or(&NO_ROW, |(_, row)| row)
    }

    /// Replaces the row of a slot that has one, and returns the old one.
    pub(crate) fn set_single(&mut self, slot: Slot, new: Row) -> Row {
        match self.singles.binary_search_by_key(&slot, |(of, _)| *of) {
            Ok(at) if new.is_empty() => self.singles.remove(at).1,
            Ok(at) => std::mem::replace(&mut self.singles[at].1, new),
            Err(_) if new.is_empty() => new,
            Err(at) => {
                self.singles.insert(at, (slot, new));
                Row::default()
            }
        }
    }

    /// The slots of one row that have it, the deadline last.
    pub(crate) fn single_slots(&self) -> impl Iterator<Item = Slot> {
        let deadline = self.deadline.as_ref().map(|_| Slot::DEADLINE);
        self.singles.iter().map(|(slot, _)| *slot).chain(deadline)
    }

    /// Whether the key has rows of a collection, and nothing else but a deadline.
    pub(crate) fn is_just(&self, slot: Slot) -> bool {
        self.singles.is_empty() && self.slots.iter().all(|state| state.slot == slot)
    }

    /// Whether the key has rows of other types.
    pub(crate) fn holds_beside(&self, slot: Slot) -> bool {
        !self.slots.is_empty() || self.singles.iter().any(|(of, _)| *of != slot)
    }

    pub(crate) fn slot(&self, slot: Slot) -> Option<&SlotState> {
        self.slots.iter().find(|state| state.slot == slot)
    }

    /// Visible rows of a slot.
    pub(crate) fn rows(&self, slot: Slot) -> u64 {
        match self.slot(slot) {
            Some(state) => state.rows,
            None => u64::from(self.single(slot).is_visible(self.hidden)),
        }
    }

    /// The slot's state, if there is one.
    pub(crate) fn find_slot_mut(&mut self, slot: Slot) -> Option<&mut SlotState> {
        self.slots.iter_mut().find(|state| state.slot == slot)
    }

    /// The slot's state, made if there is none.
    pub(crate) fn slot_mut(&mut self, slot: Slot) -> &mut SlotState {
        let index = match self.slots.binary_search_by_key(&slot, |state| state.slot) {
            Ok(index) => index,
            Err(index) => {
                let birth = Row::default();
                let state = SlotState { slot, birth, rows: 0, stored: 0, lie: Lie::default() };
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

    /// If the key is one write and nothing else: that.
    fn plain(&self) -> Option<(Slot, &Sibling)> {
        match self.singles.as_slice() {
            [(slot, row)] if self.slots.is_empty() && self.is_bare() => Some((*slot, row.plain()?)),
            _ => None,
        }
    }

    /// Whether there is nothing to tell beside its rows.
    fn is_bare(&self) -> bool {
        self.deadline.is_none() && self.hidden == Millis(0) && self.derived.is_none()
    }

    /// If the key is one small collection and nothing else: that.
    fn only_small(&self) -> Option<&SlotState> {
        match self.slots.as_slice() {
            [state] if self.singles.is_empty() && self.is_bare() => state.small().map(|_| state),
            _ => None,
        }
    }

    /// A stored record, if it is one small collection and nothing else: its slot, how many rows are visible,
    /// and all that there are.
    #[inline]
    pub(crate) fn glance_small(stored: &[u8]) -> Option<(Slot, u64, Rows<'_>)> {
        let mut input = Reader::new(stored);
        let slot = (input.u8() == Ok(SMALL)).then(|| input.u8().ok())??;
        let rows = input.varint().ok()?;
        input.varint().ok()?;
        Some((Slot(slot), rows, Rows::of(input.bytes().ok()?).ok()?))
    }

    /// The slot that clients see of a stored record, if that is one write or one small collection and nothing
    /// else.
    #[inline]
    pub(crate) fn glance_slot(stored: &[u8]) -> Option<Option<Slot>> {
        match Header::glance(stored) {
            Some((slot, _)) => Some(Some(slot)),
            None => Header::glance_small(stored).map(|(slot, rows, _)| (rows > 0).then_some(slot)),
        }
    }

    /// A stored record, if it is one write and nothing else: its slot, and that.
    #[inline]
    pub(crate) fn glance(stored: &[u8]) -> Option<(Slot, Plain<'_>)> {
        let mut input = Reader::new(stored);
        let slot = (input.u8() == Ok(PLAIN)).then(|| input.u8().ok())??;
        Some((Slot(slot), Plain::read(input).ok()?))
    }

    pub(crate) fn encode(&self, out: &mut Writer, origins: &mut Origins) {
        if let Some((slot, sibling)) = self.plain() {
            out.u8(PLAIN);
            out.u8(slot.0);
            return Row::encode_plain(sibling, out, origins);
        }
        if let Some(state) = self.only_small() {
            return encode_small(state, out, origins);
        }
        out.u8(FORMAT);
        out.varint(self.singles.len() as u64);
        for (slot, row) in &self.singles {
            out.u8(slot.0);
            row.encode(out, origins);
        }
        self.deadline().encode(out, origins);
        out.varint(self.slots.len() as u64);
        for state in &self.slots {
            out.u8(state.slot.0);
            state.birth.encode(out, origins);
            out.varint(state.rows);
            out.varint(state.stored);
            match &state.lie {
                Lie::Apart(None) => out.u8(UNKNOWN),
                Lie::Apart(Some(sums)) => {
                    out.u8(KNOWN);
                    sums.encode(out);
                }
                Lie::Here(small) => {
                    out.u8(HERE);
                    out.bytes(small.as_slice());
                }
            }
        }
        out.varint(self.hidden.0);
        out.varint(self.derived.map_or(0, |elements| elements + 1));
    }

    pub(crate) fn decode(mut input: Reader<'_>, origins: &Origins) -> Result<Header, CodecError> {
        let format = input.one_of(BY_STAMP..=SMALL)?;
        let mut header = Header::default();
        if format == PLAIN {
            let slot = Slot(input.u8()?);
            header.singles.push((slot, Row::decode_plain(&mut input, origins)?));
            return Ok(header);
        }
        if format == SMALL {
            header.slots.push(decode_small(&mut input, origins)?);
            return Ok(header);
        }
        if format <= ONE_SINGLE {
            header.set_single(STRING, Row::decode(&mut input, origins)?);
        } else {
            for _ in 0..input.count(3)? {
                let slot = Slot(input.u8()?);
                header.set_single(slot, Row::decode(&mut input, origins)?);
            }
        }
        header.set_deadline(Row::decode(&mut input, origins)?);
        for _ in 0..input.count(5)? {
            let slot = Slot(input.u8()?);
            let birth = Row::decode(&mut input, origins)?;
            let (rows, stored) = (input.varint()?, input.varint()?);
            let lie = match if format <= WITHOUT_SUMS { UNKNOWN } else { input.u8()? } {
                UNKNOWN => Lie::Apart(None),
                KNOWN => Lie::Apart(Some(Sums::decode(&mut input)?)),
                HERE if format > APART => Lie::Here(Small::decode(input.bytes()?, origins)?),
                _ => return Err(CodecError::Invalid("place of rows")),
            };
            header.slots.push(SlotState { slot, birth, rows, stored, lie });
        }
        header.hidden = match format {
            BY_STAMP => Hlc(input.varint()?).millis(),
            _ => Millis(input.varint()?),
        };
        header.derived = input.varint()?.checked_sub(1);
        input.end()?;
        Ok(header)
    }

    /// The rows that lie in the record with their slots and subkeys.
    pub(crate) fn into_rows(
        self,
        origins: &Origins,
    ) -> Result<Vec<(Slot, Bytes, Row)>, CodecError> {
        let deadline = self.deadline.map_or_else(Row::default, |deadline| deadline.row);
        let singles = self.singles.into_iter().chain([(Slot::DEADLINE, deadline)]);
        let mut rows: Vec<_> = singles.map(|(slot, row)| (slot, Bytes::new(), row)).collect();
        for state in self.slots {
            rows.push((Slot::BIRTH, state.slot.as_subkey(), state.birth));
            if let Lie::Here(small) = &state.lie {
                for (name, row) in small.rows().iter() {
                    rows.push((state.slot, Bytes::copy_from_slice(name), row.row(origins)?));
                }
            }
        }
        rows.retain(|(_, _, row)| !row.is_empty());
        Ok(rows)
    }
}

/// A record that is one small collection. Its birth was written together with some of its rows, as a rule.
fn encode_small(state: &SlotState, out: &mut Writer, origins: &mut Origins) {
    let Lie::Here(small) = &state.lie else { return };
    out.u8(SMALL);
    out.u8(state.slot.0);
    out.varint(state.rows);
    out.varint(state.stored);
    out.bytes(small.as_slice());
    let birth = state.birth.plain().and_then(|birth| {
        let copied = birth::decode(&birth.payload).ok();
        let known = copied.is_some() || birth.payload.is_empty();
        Some((small.refer(birth, origins).filter(|_| known)?, copied))
    });
    let Some((reference, copied)) = birth else {
        out.u8(BY_ITSELF);
        return state.birth.encode(out, origins);
    };
    out.u8(if copied.is_some() { COPY } else { NEW });
    reference.write(out);
    if let Some((born, origin)) = copied {
        out.u64(born.0);
        out.varint(origins.intern(&origin));
    }
}

fn decode_small(input: &mut Reader<'_>, origins: &Origins) -> Result<SlotState, CodecError> {
    let slot = Slot(input.u8()?);
    let (rows, stored) = (input.varint()?, input.varint()?);
    let small = Small::decode(input.bytes()?, origins)?;
    let birth = match input.u8()? {
        BY_ITSELF => Row::decode(input, origins)?,
        how @ (NEW | COPY) => {
            let (dot, stamp) = small.referred(Reference::read(input)?, origins)?;
            let payload = match how {
                COPY => {
                    let born = input.hlc()?;
                    birth::encode(born, &origins.get(input.varint()?)?)
                }
                _ => Bytes::new(),
            };
            Row::of(Sibling { dot, stamp, payload })
        }
        _ => return Err(CodecError::Invalid("birth")),
    };
    input.end()?;
    Ok(SlotState { slot, birth, rows, stored, lie: Lie::Here(small) })
}
