//! CRDT types: what the rows of each type slot are.
//!
//! All types are made of the same dotted rows ([`crate::row`]), so that they share one merge. A type is a
//! record: a file here, and a line in [`TYPES`]. What clients can do with it stands in a file of `ops/`. The
//! generic law checkers in `engine/tests/laws.rs` run over the table.

use crate::causal::Millis;
use crate::codec::CodecError;
use crate::commit::{Commit, Effect, EncodedCommit, RowEffect};
use crate::name::{RowKey, Slot};
use crate::row::{Row, Shown};

pub mod birth;
pub mod deadline;
pub mod hash;
pub mod set;
pub mod string;

/// What the engine knows of a type.
#[derive(Debug)]
pub struct TypeRecord {
    /// Its slot.
    pub slot: Slot,
    /// Its name in documents and tests.
    pub name: &'static str,
    /// The name that TYPE gives, if clients see it at all.
    pub kind: Option<&'static str>,
    /// Whether the slot has one row per key; such rows lie in the key's record.
    pub single: bool,
    /// Whether rows take increments.
    pub counts: bool,
    /// Whether rows are registers: to be overwritten with the same value is a change as well, as in Redis.
    pub register: bool,
    /// Whether rows are elements, of which views can be derived.
    pub elements: bool,
    /// What clients read of a row, of what was written after a deadline (0: of all): how siblings and
    /// increments are resolved. `None` if there is nothing.
    pub read: for<'r> fn(row: &'r Row, hidden: Millis) -> Option<Shown<'r>>,
    /// Whether a payload from elsewhere can be one of this type's.
    pub validate: fn(payload: &[u8]) -> Result<(), CodecError>,
    /// A payload made of a number, for generated histories in tests.
    pub sample: fn(seed: u8) -> Vec<u8>,
}

/// Types by their slots.
#[derive(Clone, Copy, Debug)]
pub struct Types {
    records: [Option<&'static TypeRecord>; 256],
}

/// The types of Lattis.
pub static TYPES: Types = Types::new(&[
    &birth::TYPE,
    &deadline::TYPE,
    &crate::dataflow::TYPE,
    &string::TYPE,
    &set::TYPE,
    &hash::TYPE,
]);

impl Types {
    const fn new(records: &[&'static TypeRecord]) -> Types {
        let mut types = Types { records: [None; 256] };
        let mut at = 0;
        while at < records.len() {
            types = types.with(records[at]);
            at += 1;
        }
        types
    }

    /// These types and one more, whose slot none of them has: what a static is made of does not compile
    /// otherwise.
    pub const fn with(&self, record: &'static TypeRecord) -> Types {
        let mut types = *self;
        assert!(types.records[record.slot.0 as usize].is_none(), "a slot is given once");
        types.records[record.slot.0 as usize] = Some(record);
        types
    }

    /// All types, by slot.
    pub fn iter(&self) -> impl Iterator<Item = &'static TypeRecord> {
        self.records.iter().copied().flatten()
    }

    /// The type of a slot, if it is known here.
    #[inline]
    pub fn of(&self, slot: Slot) -> Option<&'static TypeRecord> {
        self.records[usize::from(slot.0)]
    }

    /// The name that TYPE gives for a slot.
    pub fn kind(&self, slot: Slot) -> Option<&'static str> {
        self.of(slot)?.kind
    }

    /// Whether the slot has one row per key.
    #[inline]
    pub(crate) fn is_single(&self, slot: Slot) -> bool {
        self.of(slot).is_some_and(|record| record.single)
    }

    /// What clients read of a row. One of a type that is not known here is read as a register.
    #[inline]
    pub(crate) fn read<'r>(&self, slot: Slot, row: &'r Row, hidden: Millis) -> Option<Shown<'r>> {
        match self.of(slot) {
            Some(record) => (record.read)(row, hidden),
            None => row.shown(hidden),
        }
    }

    /// Whether rows may have counter entries.
    pub(crate) fn counts(&self, slot: Slot) -> bool {
        self.of(slot).is_none_or(|record| record.counts)
    }

    /// Whether rows are registers.
    #[inline]
    pub(crate) fn is_register(&self, slot: Slot) -> bool {
        self.of(slot).is_some_and(|record| record.register)
    }

    /// Whether rows are elements, of which views can be derived.
    #[inline]
    pub(crate) fn has_elements(&self, slot: Slot) -> bool {
        self.of(slot).is_some_and(|record| record.elements)
    }

    /// Whether a commit as it travels can be applied, as far as that can be said without any state.
    pub fn check(&self, encoded: &EncodedCommit) -> Result<(), CodecError> {
        self.validate(&Commit::decode(encoded)?)
    }

    /// Whether every effect is one that these types understand: known rows, payloads of their types,
    /// increments and resets only where they count.
    pub fn validate(&self, commit: &Commit) -> Result<(), CodecError> {
        for (index, effect) in commit.effects.iter().enumerate() {
            match effect {
                Effect::Row(effect) => self.validate_row(effect, commit.dot(index).seq)?,
                Effect::Clear(clear) => {
                    clear.resets.iter().try_for_each(|(row, _)| counts(self.validate_name(row)?))?
                }
            }
        }
        Ok(())
    }

    /// Whether the name is one that this version can have written: single rows have no subkey, births name
    /// a collection slot.
    pub fn validate_name(&self, row: &RowKey) -> Result<&'static TypeRecord, CodecError> {
        let record = self.of(row.slot).ok_or(CodecError::Invalid("type slot"))?;
        let sound = match row.slot {
            Slot::BIRTH => Slot::of_subkey(&row.subkey)
                .and_then(|slot| self.of(slot))
                .is_some_and(|of| of.kind.is_some() && !of.single),
            _ => !record.single || row.subkey.is_empty(),
        };
        if sound { Ok(record) } else { Err(CodecError::Invalid("row")) }
    }

    /// Whether a row of a state can be one of these types'.
    pub(crate) fn validate_state(&self, name: &RowKey, row: &Row) -> Result<(), CodecError> {
        let record = self.validate_name(name)?;
        if !row.counters().is_empty() {
            counts(record)?;
        }
        row.siblings().iter().try_for_each(|sibling| (record.validate)(&sibling.payload))
    }

    fn validate_row(&self, effect: &RowEffect, seq: u64) -> Result<(), CodecError> {
        let RowEffect { row, delta } = effect;
        let record = self.validate_name(row)?;
        if let Some(payload) = &delta.put {
            (record.validate)(payload)?;
        }
        if delta.add.is_some() || delta.resets_own || !delta.resets.is_empty() {
            counts(record)?;
        }
        // A generation is named by the dot that opened it.
        match &delta.add {
            Some(add) if add.generation == 0 || add.generation > seq => {
                Err(CodecError::Invalid("increment"))
            }
            _ => Ok(()),
        }
    }
}

fn counts(record: &TypeRecord) -> Result<(), CodecError> {
    if record.counts { Ok(()) } else { Err(CodecError::Invalid("increment")) }
}
