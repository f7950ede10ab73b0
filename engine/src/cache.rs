//! A bounded cache of decoded rows, in which what the store does not have yet is pinned.
//!
//! Rows are changed where they lie, so that a read-modify-write costs one hash lookup. What was changed
//! belongs to the current *generation*, stays until that is written, and is listed for its run and for
//! ordered scans. What is clean may go at any time between ticks, by CLOCK (Corbató, "A Paging Experiment
//! with the Multics System", 1968): the hand passes over the entries and spares once what was used since
//! it last came by.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::slots::Slots;

/// What a cached value occupies beyond its own size.
pub(crate) trait Weigh {
    /// Heap bytes.
    fn heap_bytes(&self) -> usize;

    /// Whether it says no more than that the store has nothing.
    fn is_blank(&self) -> bool;
}

impl Weigh for u64 {
    fn heap_bytes(&self) -> usize {
        0
    }

    fn is_blank(&self) -> bool {
        *self == 0
    }
}

/// Most keys lie in their entry.
type Key = SmallVec<[u8; 40]>;

struct Entry<V> {
    key: Key,
    value: V,
    /// The generation of the last change, 0 if there was none since the value was read.
    generation: u64,
    /// Bytes accounted for this entry.
    bytes: u32,
    used: bool,
    /// Unwritten, and passed over by ordered scans: it was blank when one came by.
    unlisted: bool,
}

/// The place of an entry; valid until the next eviction, which only happens between ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Place {
    /// A number that no other entry of the cache has.
    pub(crate) fn number(self) -> usize {
        self.0
    }
}

/// Half of a key's hash, so that a lookup that meets another key need not look at it, and its place.
#[derive(Clone, Copy)]
struct Found {
    hash: u32,
    place: u32,
}

pub(crate) struct Cache<V> {
    index: HashTable<Found>,
    entries: Slots<Entry<V>>,
    hasher: SeedableRandomState,
    bytes: usize,
    hand: usize,
    /// Entries inserted since the last eviction.
    inserted: usize,
    /// The generation that changes belong to now.
    generation: u64,
    /// The newest generation that the store has.
    written: u64,
    /// Entries that the store does not have, by generation; those of a failed one may repeat.
    unwritten: Vec<usize>,
    /// How many of them are being written.
    frozen: usize,
    /// Entries that may have become blank.
    blank: Vec<usize>,
    /// The keys of `unwritten[..ordered_to]`, in order, without those that are blank: over what was removed
    /// an ordered scan goes once.
    ordered: BTreeSet<Key>,
    ordered_to: usize,
    /// Entries that were passed over and may not be blank any more.
    again: Vec<usize>,
}

/// Bytes of an entry beside its key and its value's heap: the table's own cost, roughly.
const OVERHEAD: usize = 16;
/// Entries that the hand passes at most in one eviction, beside four for each one that came.
const STEPS: usize = 4096;
/// Places for which room is kept.
const KEPT: usize = 4096;

/// Both ends of the hash are used by the table.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

impl<V: Weigh> Cache<V> {
    /// An empty cache. The seed keeps clients from choosing keys that collide.
    pub(crate) fn new(seed: u64) -> Cache<V> {
        Cache {
            index: HashTable::new(),
            entries: Slots::new(),
            hasher: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
            bytes: 0,
            hand: 0,
            inserted: 0,
            generation: 1,
            written: 0,
            unwritten: Vec::new(),
            frozen: 0,
            blank: Vec::new(),
            ordered: BTreeSet::new(),
            ordered_to: 0,
            again: Vec::new(),
        }
    }

    fn hash(&self, key: &[u8]) -> u32 {
        (self.hasher.hash_one(key) >> 32) as u32
    }

    fn lookup(&self, key: &[u8], hash: u32) -> Option<usize> {
        let found = self.index.find(spread(hash), |found| {
            found.hash == hash && *self.entries[found.place as usize].key == *key
        })?;
        Some(found.place as usize)
    }

    /// Where the key's entry lies, if it is cached.
    pub(crate) fn find(&mut self, key: &[u8]) -> Option<Place> {
        let place = self.lookup(key, self.hash(key))?;
        self.entries[place].used = true;
        Some(Place(place))
    }

    /// The value of a key, if it is cached; does not count as a use.
    pub(crate) fn peek(&self, key: &[u8]) -> Option<&V> {
        let place = self.lookup(key, self.hash(key))?;
        Some(&self.entries[place].value)
    }

    /// Adds a clean entry for a key that has none.
    pub(crate) fn insert(&mut self, key: &[u8], value: V) -> Place {
        let hash = self.hash(key);
        let bytes = weigh(key, &value);
        let key = Key::from_slice(key);
        let entry = Entry { key, value, generation: 0, bytes, used: true, unlisted: false };
        let place = self.entries.insert(entry);
        self.bytes += bytes as usize;
        self.inserted += 1;
        // No machine holds 2^32 entries of more than a hundred bytes.
        let found = Found { hash, place: place as u32 };
        self.index.insert_unique(spread(hash), found, |found| spread(found.hash));
        Place(place)
    }

    /// Pins an entry until its generation is written. To be called before it is changed.
    pub(crate) fn pin(&mut self, place: Place) {
        let entry = &mut self.entries[place.0];
        if entry.generation != self.generation {
            entry.generation = self.generation;
            self.unwritten.push(place.0);
        }
    }

    /// The stored key of an entry.
    pub(crate) fn key(&self, place: Place) -> &[u8] {
        &self.entries[place.0].key
    }

    /// Entries that the store does not have.
    pub(crate) fn unwritten(&self) -> usize {
        self.unwritten.len()
    }

    /// Puts in order what has changed since the last time. Cost: each change once.
    pub(crate) fn order(&mut self) {
        let Cache { entries, unwritten, ordered, again, .. } = self;
        for place in unwritten[self.ordered_to..].iter().copied().chain(again.drain(..)) {
            let Some(entry) = entries.get_mut(place) else { continue };
            entry.unlisted = entry.value.is_blank();
            if !entry.unlisted {
                ordered.insert(entry.key.clone());
            }
        }
        self.ordered_to = unwritten.len();
    }

    /// Keys with `from <= key < to` of entries that the store does not have and that are not blank, in the
    /// order that was made last; an empty `to` is no bound. Others may be among them.
    pub(crate) fn unwritten_range(&self, from: &[u8], to: &[u8]) -> impl Iterator<Item = &Key> {
        let from = self.ordered.range(Key::from_slice(from)..);
        from.take_while(move |key| to.is_empty() || &***key < to)
    }

    /// Keys that were found blank are passed over until they are not.
    pub(crate) fn unlist(&mut self, blank: &[Key]) {
        for key in blank {
            let Some(place) = self.lookup(key, self.hash(key)) else { continue };
            self.entries[place].unlisted = true;
            self.ordered.remove(key);
        }
    }

    /// Closes the generation: visits all that the store does not have, for a run. Until that is written,
    /// or has failed, no other may be closed.
    pub(crate) fn freeze(&mut self, mut visit: impl FnMut(&[u8], &V)) {
        for place in &self.unwritten {
            let entry = &mut self.entries[*place];
            visit(&entry.key, &entry.value);
            let bytes = weigh(&entry.key, &entry.value);
            self.bytes = self.bytes + bytes as usize - entry.bytes as usize;
            entry.bytes = bytes;
        }
        self.frozen = self.unwritten.len();
        self.generation += 1;
    }

    /// The frozen generation is in the store, or could not be written.
    pub(crate) fn thaw(&mut self, written: bool) {
        if written {
            self.written = self.generation - 1;
            let Cache { entries, unwritten, blank, .. } = self;
            let written = unwritten.drain(..self.frozen);
            blank.extend(written.filter(|place| entries[*place].value.is_blank()));
            unwritten.shrink_to(2 * unwritten.len() + KEPT);
            self.ordered.clear();
            self.ordered_to = 0;
            self.again = Vec::new();
        }
        self.frozen = 0;
    }

    /// Evicts entries that say no more than that there is nothing any more: so many steps at most. Then gives
    /// back what a table has room for and does not need. True if there is more to do.
    pub(crate) fn sweep(&mut self, steps: usize) -> bool {
        for place in self.blank.split_off(self.blank.len().saturating_sub(steps)) {
            let written = self.written;
            let goes = |it: &mut Entry<V>| it.generation <= written && it.value.is_blank();
            if self.entries.get_mut(place).is_some_and(goes) {
                self.remove(place);
            }
        }
        if !self.blank.is_empty() {
            return true;
        }
        self.blank = Vec::new();
        if self.index.capacity() > 4 * self.index.len() + KEPT {
            self.index.shrink_to(2 * self.index.len(), |found| spread(found.hash));
        }
        false
    }

    /// Evicts what is clean until no more than `limit` bytes are held, or for so many steps.
    pub(crate) fn evict(&mut self, limit: usize, mut gone: impl FnMut(&[u8], &V)) {
        let mut steps = STEPS + 4 * std::mem::take(&mut self.inserted);
        while self.bytes > limit && steps > 0 {
            steps -= 1;
            if self.hand >= self.entries.end() {
                self.hand = 0;
            }
            let place = self.hand;
            self.hand += 1;
            match self.entries.get_mut(place) {
                Some(entry) if entry.generation > self.written => {}
                Some(entry) if entry.used => entry.used = false,
                _ => {
                    if let Some(entry) = self.remove(place) {
                        gone(&entry.key, &entry.value);
                    }
                }
            }
        }
    }

    fn remove(&mut self, place: usize) -> Option<Entry<V>> {
        let entry = self.entries.remove(place)?;
        self.bytes -= entry.bytes as usize;
        let hash = self.hash(&entry.key);
        let found = self.index.find_entry(spread(hash), |found| found.place as usize == place);
        if let Ok(found) = found {
            found.remove();
        }
        Some(entry)
    }

    /// Bytes of what the store does not have. Cost: that.
    pub(crate) fn pinned_bytes(&self) -> usize {
        let entries = self.unwritten.iter().map(|place| &self.entries[*place]);
        entries.map(|entry| weigh(&entry.key, &entry.value) as usize).sum()
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn weigh<V: Weigh>(key: &[u8], value: &V) -> u32 {
    u32::try_from(entry_bytes(key.len(), value)).unwrap_or(u32::MAX)
}

/// What an entry takes whose key has that length.
pub(crate) fn entry_bytes<V: Weigh>(key: usize, value: &V) -> usize {
    let spilled = if key > Key::new().inline_size() { key } else { 0 };
    size_of::<Entry<V>>() + OVERHEAD + spilled + value.heap_bytes()
}

impl<V> Index<Place> for Cache<V> {
    type Output = V;

    fn index(&self, place: Place) -> &V {
        &self.entries[place.0].value
    }
}

impl<V> IndexMut<Place> for Cache<V> {
    fn index_mut(&mut self, place: Place) -> &mut V {
        let entry = &mut self.entries[place.0];
        if std::mem::take(&mut entry.unlisted) {
            self.again.push(place.0);
        }
        &mut entry.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(cache: &mut Cache<u64>, key: &[u8], value: u64) {
        let place = cache.find(key).unwrap_or_else(|| cache.insert(key, 0));
        cache.pin(place);
        cache[place] = value;
    }

    fn frozen(cache: &mut Cache<u64>) -> Vec<(Vec<u8>, u64)> {
        let mut run = Vec::new();
        cache.freeze(|key, value| run.push((key.to_vec(), *value)));
        run
    }

    fn listed(cache: &mut Cache<u64>, from: &[u8], to: &[u8]) -> Vec<Vec<u8>> {
        cache.order();
        cache.unwritten_range(from, to).map(|key| key.to_vec()).collect()
    }

    #[test]
    fn scans_meet_what_was_removed_once() {
        let mut cache: Cache<u64> = Cache::new(1);
        for key in [b"a", b"b", b"c"] {
            changed(&mut cache, key, 1);
        }
        assert_eq!(listed(&mut cache, b"", b"").len(), 3);
        changed(&mut cache, b"b", 0);
        cache.unlist(&[Key::from_slice(b"b")]);
        changed(&mut cache, b"d", 0);
        for _ in 0..2 {
            assert_eq!(listed(&mut cache, b"", b""), [b"a", b"c"]);
        }
        // It is there again, without a new generation and in one.
        changed(&mut cache, b"b", 2);
        assert_eq!(listed(&mut cache, b"", b""), [b"a", b"b", b"c"]);
        changed(&mut cache, b"b", 0);
        cache.unlist(&[Key::from_slice(b"b")]);
        assert_eq!(frozen(&mut cache).len(), 4);
        changed(&mut cache, b"d", 2);
        assert_eq!(listed(&mut cache, b"", b""), [b"a", b"c", b"d"]);
        changed(&mut cache, b"b", 2);
        cache.thaw(true);
        assert_eq!(listed(&mut cache, b"", b""), [b"b", b"d"]);
    }

    #[test]
    fn evicts_what_is_clean_and_unused_first() {
        let mut cache: Cache<u64> = Cache::new(1);
        for n in 0..100u64 {
            cache.insert(&n.to_be_bytes(), n);
        }
        let each = cache.bytes() / 100;
        cache.evict(each * 50, |_, _| {});
        assert!(cache.index.len() == 50 && cache.bytes() == each * 50);
        let left: Vec<u64> =
            (0..100u64).filter(|n| cache.peek(&n.to_be_bytes()) == Some(n)).collect();
        assert_eq!(left.len(), 50);
    }

    #[test]
    fn what_the_store_does_not_have_stays() {
        let mut cache: Cache<u64> = Cache::new(1);
        changed(&mut cache, b"b", 2);
        changed(&mut cache, b"a", 3);
        cache.insert(b"c", 4);
        assert_eq!(listed(&mut cache, b"a", b"c"), [b"a", b"b"]);
        cache.evict(0, |_, _| {});
        assert_eq!((cache.peek(b"a"), cache.peek(b"c")), (Some(&3), None));
        // What changes while its generation is being written belongs to the next.
        assert_eq!(frozen(&mut cache), [(b"b".to_vec(), 2), (b"a".to_vec(), 3)]);
        changed(&mut cache, b"a", 5);
        cache.evict(0, |_, _| {});
        assert_eq!(cache.peek(b"b"), Some(&2));
        cache.thaw(true);
        cache.evict(0, |_, _| {});
        assert_eq!((cache.peek(b"a"), cache.peek(b"b")), (Some(&5), None));
        assert_eq!(listed(&mut cache, b"", b""), [b"a"]);
        // A generation that could not be written goes with the next one.
        assert_eq!(frozen(&mut cache), [(b"a".to_vec(), 5)]);
        changed(&mut cache, b"d", 6);
        cache.thaw(false);
        cache.evict(0, |_, _| {});
        assert_eq!(frozen(&mut cache), [(b"a".to_vec(), 5), (b"d".to_vec(), 6)]);
        cache.thaw(true);
        cache.evict(0, |_, _| {});
        assert_eq!((cache.index.len(), cache.bytes()), (0, 0));
    }
}
