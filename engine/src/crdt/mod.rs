//! CRDT types.

/// The kinds of rows that a key can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Slot {
    /// When each collection slot of the key was born.
    Birth = 1,
    /// The key's time to live.
    Deadline = 2,
    /// The dataflow binding whose target the key is.
    Binding = 3,
    /// A string or a number.
    String = 16,
    /// Members of an add-wins set.
    Set = 17,
    /// Fields of a hash.
    Hash = 18,
}

impl Slot {
    /// The slot with that number.
    pub fn from_u8(number: u8) -> Option<Slot> {
        [Slot::Birth, Slot::Deadline, Slot::Binding, Slot::String, Slot::Set, Slot::Hash]
            .into_iter()
            .find(|slot| *slot as u8 == number)
    }
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
