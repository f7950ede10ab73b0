//! Names: of rows, the unit that CRDT types resolve, and of many rows together.

use bytes::Bytes;

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
