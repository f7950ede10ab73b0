//! Names: of rows, the unit that CRDT types resolve, of many rows together, and of places among them.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// A type slot of a key: all rows of one CRDT type under it. The numbers are stored and travel; each is
/// given once, by the record of its type ([`crate::crdt::TypeRecord`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u8);

impl Slot {
    /// When each collection slot of the key was born: a row per slot.
    pub const BIRTH: Slot = Slot(1);
    /// The key's time to live.
    pub const DEADLINE: Slot = Slot(2);
    /// The dataflow binding whose target the key is.
    pub const BINDING: Slot = Slot(3);

    /// The slot as the subkey of its birth.
    pub(crate) fn as_subkey(self) -> Bytes {
        static NUMBERS: [u8; 256] = {
            let mut numbers = [0; 256];
            let mut number = 0;
            while number < 256 {
                numbers[number] = number as u8;
                number += 1;
            }
            numbers
        };
        let at = usize::from(self.0);
        Bytes::from_static(&NUMBERS[at..=at])
    }

    /// The slot of which that is the subkey.
    pub(crate) fn of_subkey(subkey: &[u8]) -> Option<Slot> {
        if let [number] = subkey { Some(Slot(*number)) } else { None }
    }
}

/// The name of a row: (db, key, type slot, subkey).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// Number of the database.
    pub db: u16,
    /// The client's key.
    pub key: Bytes,
    /// Which of the key's type slots.
    pub slot: Slot,
    /// The member, field or kind within the slot; empty for slots of one row.
    pub subkey: Bytes,
}

impl RowKey {
    /// A row by all that names it.
    pub fn new(db: u16, key: &[u8], slot: Slot, subkey: &[u8]) -> RowKey {
        let [key, subkey] = [key, subkey].map(Bytes::copy_from_slice);
        RowKey { db, key, slot, subkey }
    }

    /// The row of a slot that has only one.
    pub fn single(db: u16, key: Bytes, slot: Slot) -> RowKey {
        RowKey { db, key, slot, subkey: Bytes::new() }
    }
}

/// Many rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every row of a database, its bindings too.
    Db(u16),
    /// Every row of a key but its binding.
    Key(u16, Bytes),
}

/// The order of names: XXH3 of their bytes, without a key, so that it is the same at every node.
pub fn hash(name: &[u8]) -> u64 {
    xxh3_64(name)
}

/// A place among the keys of a db, or the members or fields of a key: the beginning of the hash that they are
/// ordered by. It needs no memory, and stays where it is whatever is added or removed. As a number it has 52
/// bits, which clients can hold that know numbers as doubles only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(u64);

impl Cursor {
    /// Before everything.
    pub const START: Cursor = Cursor(0);
    const BITS: u32 = 52;

    /// The place of a name. Others may have the same.
    pub fn of(name: &[u8]) -> Cursor {
        Cursor(hash(name) >> (u64::BITS - Cursor::BITS))
    }

    /// The place that a number stands for; one that is too large stands for the end.
    pub fn from_number(number: u64) -> Cursor {
        Cursor(number.min(1 << Cursor::BITS))
    }

    /// The number that stands for the place.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The first hash of the place; the last of all for the end.
    pub(crate) fn hash(self) -> u64 {
        let shifted = self.0.checked_mul(1 << (u64::BITS - Cursor::BITS));
        shifted.unwrap_or(u64::MAX)
    }
}
