//! CRDT types: what the rows of each type slot mean.
//!
//! All types are made of the same dotted rows ([`crate::row`]), so that they share one merge. A type is
//! one file here (its operations over [`crate::Txn`], and its record) and one line in [`TYPES`]; the
//! generic law checkers in `engine/tests/laws.rs` run over the table.

use bytes::Bytes;

use crate::codec::CodecError;

pub mod birth;
pub mod deadline;
mod hash;
mod set;
mod string;

/// The kinds of rows that a key can have. The numbers are stored and travel: only ever append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Slot {
    /// When each collection slot of the key was born: a row per slot.
    Birth = 1,
    /// The key's time to live.
    Deadline = 2,
    /// The dataflow binding whose target the key is.
    Binding = 3,
    /// A string or a number.
    String = 16,
    /// Members of an add-wins set: a row per member.
    Set = 17,
    /// Fields of a hash: a row per field.
    Hash = 18,
}

/// The types that clients see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A string or a number.
    String,
    /// An add-wins set.
    Set,
    /// A hash.
    Hash,
}

impl Kind {
    /// The name that TYPE gives.
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Set => "set",
            Kind::Hash => "hash",
        }
    }
}

/// What the engine knows of a type.
#[derive(Debug)]
pub struct TypeRecord {
    /// Its slot.
    pub slot: Slot,
    /// Its name in documents and tests.
    pub name: &'static str,
    /// What clients see, if they see it at all.
    pub kind: Option<Kind>,
    /// Whether the slot has one row per key; such rows lie in the key's record.
    pub single: bool,
    /// Whether rows take increments.
    pub counts: bool,
    /// Whether a payload from elsewhere can be one of this type's.
    pub validate: fn(payload: &[u8]) -> Result<(), CodecError>,
    /// A payload made of a number, for generated histories in tests.
    pub sample: fn(seed: u8) -> Vec<u8>,
}

/// All types, by slot.
pub static TYPES: [&TypeRecord; 6] =
    [&birth::TYPE, &deadline::TYPE, &crate::dataflow::TYPE, &string::TYPE, &set::TYPE, &hash::TYPE];

impl Slot {
    /// The slot with that number.
    pub fn from_u8(number: u8) -> Option<Slot> {
        TYPES.iter().map(|record| record.slot).find(|slot| *slot as u8 == number)
    }

    /// The slot's type.
    pub fn record(self) -> &'static TypeRecord {
        match self {
            Slot::Birth => &birth::TYPE,
            Slot::Deadline => &deadline::TYPE,
            Slot::Binding => &crate::dataflow::TYPE,
            Slot::String => &string::TYPE,
            Slot::Set => &set::TYPE,
            Slot::Hash => &hash::TYPE,
        }
    }

    /// The slot as the subkey of its birth.
    pub(crate) fn as_subkey(self) -> Bytes {
        Bytes::from_static(match self {
            Slot::Birth => &[Slot::Birth as u8],
            Slot::Deadline => &[Slot::Deadline as u8],
            Slot::Binding => &[Slot::Binding as u8],
            Slot::String => &[Slot::String as u8],
            Slot::Set => &[Slot::Set as u8],
            Slot::Hash => &[Slot::Hash as u8],
        })
    }

    /// What clients see in the slot.
    pub fn kind(self) -> Option<Kind> {
        self.record().kind
    }
}
