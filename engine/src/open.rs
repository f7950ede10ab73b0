//! The rows that a tick works on, decoded.
//!
//! Between ticks rows are packed in pages. A command that changes one decodes it, and finds it here for the
//! rest of the tick, as do the commands that follow it; what was changed is packed again at the end, or
//! before somebody walks over the pages.

use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::pages::{Name, TreeId};
use crate::store::keys;

/// The place of a row. Valid until the tick ends, and different for different rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u32);

impl Place {
    /// A number that no other row of its kind has.
    pub(crate) fn number(self) -> usize {
        self.0 as usize
    }
}

/// The stored key of a row that was changed.
#[derive(Clone, Copy)]
pub(crate) struct Changed<'c> {
    key: &'c [u8],
    prefix: usize,
}

impl<'c> Changed<'c> {
    /// The prefix of its tree.
    pub(crate) fn prefix(self) -> &'c [u8] {
        &self.key[..self.prefix]
    }

    /// Its name there.
    pub(crate) fn name(self) -> Name<'c> {
        keys::name_at(self.key, self.prefix)
    }
}

struct Entry<V, H> {
    hash: u64,
    /// The stored key.
    key: SmallVec<[u8; 40]>,
    home: H,
    /// Bytes of the key that are the tree's prefix.
    prefix: u32,
    value: V,
    /// It was changed since it was packed last.
    changed: bool,
    /// Neither its tree nor the store has such a row.
    absent: bool,
}

/// Rows of a kind, each with what says where it goes when it is packed.
pub(crate) struct Open<V, H = TreeId> {
    index: HashTable<u32>,
    entries: Vec<Entry<V, H>>,
    changed: Vec<u32>,
    hasher: SeedableRandomState,
}

/// Rows for which memory is kept from tick to tick.
const KEPT: usize = 4 << 10;

impl<V, H: Copy> Open<V, H> {
    /// The seed keeps clients from choosing keys that collide.
    pub(crate) fn new(seed: u64) -> Open<V, H> {
        Open {
            index: HashTable::new(),
            entries: Vec::new(),
            changed: Vec::new(),
            hasher: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
        }
    }

    /// Where the row of a stored key lies, if it is open.
    pub(crate) fn find(&self, key: &[u8]) -> Option<Place> {
        if self.entries.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let same = |at: &u32| {
            let entry = &self.entries[*at as usize];
            entry.hash == hash && *entry.key == *key
        };
        self.index.find(hash, same).map(|at| Place(*at))
    }

    /// Opens a row that is not open; `absent`: neither its tree nor the store has it.
    pub(crate) fn insert(
        &mut self,
        key: &[u8],
        (home, prefix): (H, usize),
        value: V,
        absent: bool,
    ) -> Place {
        let hash = self.hasher.hash_one(key);
        // A tick meets no more rows than memory holds.
        let at = self.entries.len() as u32;
        let (key, prefix) = (SmallVec::from_slice(key), prefix as u32);
        self.entries.push(Entry { hash, key, home, prefix, value, changed: false, absent });
        let Open { index, entries, .. } = self;
        index.insert_unique(hash, at, |at| entries[*at as usize].hash);
        Place(at)
    }

    /// The row will be changed: it is to be packed again. To be called before each change.
    pub(crate) fn pin(&mut self, place: Place) {
        let entry = &mut self.entries[place.number()];
        if !std::mem::replace(&mut entry.changed, true) {
            self.changed.push(place.0);
        }
    }

    /// The stored key of a row.
    pub(crate) fn key(&self, place: Place) -> &[u8] {
        &self.entries[place.number()].key
    }

    /// Takes note that what was changed is packed. `visit` is told of each row, and whether neither its tree
    /// nor the store has it, which it may change.
    pub(crate) fn pack(&mut self, mut visit: impl FnMut(H, Changed<'_>, &V, &mut bool)) {
        for at in self.changed.drain(..) {
            let Entry { key, prefix, home, value, changed, absent, .. } =
                &mut self.entries[at as usize];
            *changed = false;
            visit(*home, Changed { key, prefix: *prefix as usize }, value, absent);
        }
    }

    /// The tick is over; nothing may be left to pack.
    pub(crate) fn clear(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        self.entries.clear();
        self.index.clear();
        if self.entries.capacity() > KEPT {
            self.shrink();
        }
    }

    /// Between ticks: keeps no memory for the next one.
    pub(crate) fn shrink(&mut self) {
        self.entries = Vec::new();
        self.changed = Vec::new();
        self.index = HashTable::new();
    }
}

impl<V, H> Index<Place> for Open<V, H> {
    type Output = V;

    fn index(&self, place: Place) -> &V {
        &self.entries[place.number()].value
    }
}

impl<V, H> IndexMut<Place> for Open<V, H> {
    fn index_mut(&mut self, place: Place) -> &mut V {
        &mut self.entries[place.number()].value
    }
}
