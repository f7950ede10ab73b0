//! A bounded cache of decoded rows, in which the rows of the open tick are pinned.
//!
//! Rows are changed where they lie, so that a read-modify-write costs one hash lookup. What was changed
//! since the last seal is *dirty*: it stays, and is listed for the batch and for ordered scans. What is
//! clean may go at any time between ticks, by CLOCK (Corbató, "A Paging Experiment with the Multics
//! System", 1968): the hand passes over entries in their order of insertion and spares once what was
//! used since it last came by.

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use indexmap::IndexMap;

/// What a cached value occupies beyond its own size.
pub(crate) trait Weigh {
    /// Heap bytes.
    fn heap_bytes(&self) -> usize;
}

impl Weigh for u64 {
    fn heap_bytes(&self) -> usize {
        0
    }
}

struct Entry<V> {
    value: V,
    /// Bytes accounted for this entry.
    bytes: u32,
    dirty: bool,
    used: bool,
}

/// The place of an entry; valid until the next eviction, which only happens between ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

pub(crate) struct Cache<V> {
    entries: IndexMap<Box<[u8]>, Entry<V>, SeedableRandomState>,
    bytes: usize,
    hand: usize,
    dirty: Vec<usize>,
    /// The keys of `dirty[..ordered_to]`, in order.
    ordered: BTreeSet<Box<[u8]>>,
    ordered_to: usize,
}

/// Bytes of an entry beside its key and its value's heap: the map's own cost, roughly.
const OVERHEAD: usize = 24;

impl<V: Weigh> Cache<V> {
    /// An empty cache. The seed keeps clients from choosing keys that collide.
    pub(crate) fn new(seed: u64) -> Cache<V> {
        Cache {
            entries: IndexMap::with_hasher(SeedableRandomState::with_seed(
                seed,
                SharedSeed::global_fixed(),
            )),
            bytes: 0,
            hand: 0,
            dirty: Vec::new(),
            ordered: BTreeSet::new(),
            ordered_to: 0,
        }
    }

    /// Where the key's entry lies, if it is cached.
    pub(crate) fn find(&mut self, key: &[u8]) -> Option<Place> {
        let (index, _, entry) = self.entries.get_full_mut(key)?;
        entry.used = true;
        Some(Place(index))
    }

    /// The value of a key, if it is cached; does not count as a use.
    pub(crate) fn peek(&self, key: &[u8]) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Adds a clean entry for a key that has none.
    pub(crate) fn insert(&mut self, key: &[u8], value: V) -> Place {
        let mut entry = Entry { value, bytes: 0, dirty: false, used: true };
        entry.bytes = weigh(key, &entry.value);
        self.bytes += entry.bytes as usize;
        let (index, _) = self.entries.insert_full(Box::from(key), entry);
        Place(index)
    }

    /// Pins an entry until the tick is sealed. To be called before it is changed.
    pub(crate) fn pin(&mut self, place: Place) {
        let entry = &mut self.entries[place.0];
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(place.0);
        }
    }

    /// The stored key of an entry.
    pub(crate) fn key(&self, place: Place) -> &[u8] {
        self.entries.get_index(place.0).map_or(&[], |(key, _)| key)
    }

    /// Whether any entry was changed in this tick.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Changed entries with their keys, in the order of the keys: a sorted batch goes into a sorted
    /// memtable along paths that are still in the processor's cache.
    pub(crate) fn dirty(&mut self) -> impl Iterator<Item = (&[u8], &V)> {
        let mut changed: Vec<(&[u8], &V)> = self
            .dirty
            .iter()
            .filter_map(|index| self.entries.get_index(*index))
            .map(|(key, entry)| (&**key, &entry.value))
            .collect();
        changed.sort_unstable_by_key(|(key, _)| *key);
        changed.into_iter()
    }

    /// Keys of changed entries with `from <= key < to`, in order; an empty `to` is no bound.
    pub(crate) fn dirty_range(&mut self, from: &[u8], to: &[u8]) -> Vec<Box<[u8]>> {
        for index in &self.dirty[self.ordered_to..] {
            if let Some((key, _)) = self.entries.get_index(*index) {
                self.ordered.insert(key.clone());
            }
        }
        self.ordered_to = self.dirty.len();
        let from: Box<[u8]> = Box::from(from);
        self.ordered
            .range(from..)
            .take_while(|key| to.is_empty() || &***key < to)
            .cloned()
            .collect()
    }

    /// The tick is written: its entries are clean. Then evicts down to `limit` bytes.
    pub(crate) fn settle(&mut self, limit: usize) {
        for index in self.dirty.drain(..) {
            if let Some((key, entry)) = self.entries.get_index_mut(index) {
                entry.dirty = false;
                let bytes = weigh(key, &entry.value);
                self.bytes = self.bytes + bytes as usize - entry.bytes as usize;
                entry.bytes = bytes;
            }
        }
        self.ordered.clear();
        self.ordered_to = 0;
        self.evict(limit);
    }

    /// The tick has not happened: its entries go, to be read again.
    pub(crate) fn revert(&mut self) {
        self.dirty.sort_unstable();
        // From the back, so that a swap never moves an entry that is still to go.
        while let Some(index) = self.dirty.pop() {
            if let Some((_, entry)) = self.entries.swap_remove_index(index) {
                self.bytes -= entry.bytes as usize;
            }
        }
        self.ordered.clear();
        self.ordered_to = 0;
    }

    fn evict(&mut self, limit: usize) {
        while self.bytes > limit && !self.entries.is_empty() {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let entry = &mut self.entries[self.hand];
            if entry.used {
                entry.used = false;
                self.hand += 1;
            } else {
                self.bytes -= entry.bytes as usize;
                self.entries.swap_remove_index(self.hand);
            }
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn weigh<V: Weigh>(key: &[u8], value: &V) -> u32 {
    let bytes =
        size_of::<(usize, Box<[u8]>, Entry<V>)>() + OVERHEAD + key.len() + value.heap_bytes();
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl<V> Index<Place> for Cache<V> {
    type Output = V;

    fn index(&self, place: Place) -> &V {
        &self.entries[place.0].value
    }
}

impl<V> IndexMut<Place> for Cache<V> {
    fn index_mut(&mut self, place: Place) -> &mut V {
        &mut self.entries[place.0].value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evicts_what_is_clean_and_unused_first() {
        let mut cache: Cache<u64> = Cache::new(1);
        for n in 0..100u64 {
            cache.insert(&n.to_be_bytes(), n);
        }
        let each = cache.bytes() / 100;
        cache.settle(each * 50);
        assert!(cache.entries.len() <= 50 && cache.bytes() <= each * 50);
    }

    #[test]
    fn pinned_entries_stay_until_settled_and_go_when_reverted() {
        let mut cache: Cache<u64> = Cache::new(1);
        let place = cache.insert(b"b", 1);
        cache.pin(place);
        cache[place] = 2;
        let place = cache.insert(b"a", 3);
        cache.pin(place);
        cache.insert(b"c", 4);
        let keys = cache.dirty_range(b"a", b"");
        assert_eq!(keys, [Box::from(&b"a"[..]), Box::from(&b"b"[..])]);
        cache.revert();
        assert_eq!(cache.entries.len(), 1);
        assert_eq!(cache.peek(b"c"), Some(&4));
    }
}
