//! A run: the changes of rows that reach the store together, as one sorted file.

use super::{Family, Hole, keys};
use crate::codec::{Between, Parts};
use crate::pages::Value;

/// Changes of rows, one for each key. They reach the store together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Run {
    bytes: Vec<u8>,
    /// Large payloads, which are shared with the rows.
    between: Between,
    changes: Vec<Change>,
    /// What is removed before the changes are made.
    erased: Vec<Hole>,
}

/// Memory of a run that is kept for the next one at most. Bytes.
const KEPT: usize = 64 << 20;
/// Memory that is kept in any case.
const LITTLE: usize = 1 << 20;

/// Where a change lies in the bytes: the stored key, and behind it the value.
#[derive(Clone, Copy, Debug)]
struct Change {
    start: usize,
    key: u32,
    /// Without what is shared; `None` removes the row.
    value: Option<u32>,
    /// What of that belongs to the value: the first of it, and how many.
    between: (u32, u32),
}

impl Run {
    /// Takes everything out and keeps the memory: most runs are as large as the one before.
    pub fn clear(&mut self) {
        let room = |bytes: usize, changes: usize| bytes + changes * size_of::<Change>();
        let (has, used) = (
            room(self.bytes.capacity(), self.changes.capacity()),
            room(self.bytes.len(), self.changes.len()),
        );
        if has > KEPT || has > 4 * used + LITTLE {
            *self = Run::default();
        }
        self.bytes.clear();
        self.changes.clear();
        self.between.clear();
        self.erased.clear();
    }

    /// Removes all rows of a range that cannot be read. Rows of the run that lie in it stay.
    pub fn erase(&mut self, hole: Hole) {
        self.erased.push(hole);
    }

    /// The ranges to be removed first.
    pub(super) fn erased(&self) -> &[Hole] {
        &self.erased
    }

    /// Writes a row.
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.push(family, key, Some(value));
    }

    /// Removes a row.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.push(family, key, None);
    }

    fn push(&mut self, family: Family, key: &[u8], value: Option<&[u8]>) {
        let start = self.bytes.len();
        self.bytes.push(family as u8);
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        // The parts of a row are smaller than a request, and that than 4 GiB.
        self.changes.push(Change {
            start,
            key: key.len() as u32 + 1,
            value: value.map(|value| value.len() as u32),
            between: (0, 0),
        });
    }

    /// Writes a row whose stored key is a common start, the hash of its name and the name, or removes it.
    pub(crate) fn row(
        &mut self,
        family: Family,
        prefix: &[u8],
        name: &[u8],
        value: Option<Value<'_>>,
    ) {
        let start = self.bytes.len();
        self.bytes.push(family as u8);
        self.bytes.extend_from_slice(prefix);
        keys::subkey(&mut self.bytes, name);
        let (first, end) = (self.between.len(), self.bytes.len());
        match value {
            Some(Value::Packed(value)) => self.bytes.extend_from_slice(value),
            Some(Value::Beside(first, rest)) => {
                self.bytes.extend_from_slice(first);
                self.between.push((self.bytes.len(), rest.clone()));
            }
            None => {}
        }
        // The parts of a row are smaller than a request, and that than 4 GiB.
        self.changes.push(Change {
            start,
            key: (end - start) as u32,
            value: value.map(|_| (self.bytes.len() - end) as u32),
            between: (first as u32, (self.between.len() - first) as u32),
        });
    }

    /// Takes the first half of the changes out.
    #[cfg(feature = "planted")]
    pub(crate) fn take_half(&mut self) -> Run {
        let rest = self.changes.split_off(self.changes.len() / 2);
        let changes = std::mem::replace(&mut self.changes, rest);
        let (bytes, between) = (self.bytes.clone(), self.between.clone());
        Run { bytes, between, changes, erased: Vec::new() }
    }

    /// Puts the changes in the order of their stored keys. Of those of one key any stays: they are the same,
    /// as a generation is taken at one moment.
    pub(super) fn sort(&mut self) {
        let bytes = &self.bytes;
        let key = |change: &Change| &bytes[change.start..change.start + change.key as usize];
        self.changes.sort_unstable_by(|one, other| key(one).cmp(key(other)));
        self.changes.dedup_by(|one, other| key(one) == key(other));
    }

    /// The changes: stored key, which is the family's number and then the key, and value.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (&[u8], Option<Parts<'_>>)> {
        self.changes.iter().map(|change| {
            let end = change.start + change.key as usize;
            let (first, count) = (change.between.0 as usize, change.between.1 as usize);
            let value = change.value.map(|len| {
                let own = &self.bytes[end..end + len as usize];
                Parts::new(own, end, &self.between[first..first + count])
            });
            (&self.bytes[change.start..end], value)
        })
    }
}
