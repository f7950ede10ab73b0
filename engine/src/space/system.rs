//! What `system` does not have yet: entries of the list of deadlines, bindings, counts.
//!
//! Changes belong to the generation that is open. When it is closed they are put aside as they are, and go
//! into its run piece by piece; what is put aside is seen through what has changed since.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

use crate::store::{Family, Run};

/// The row, or `None` for its removal.
struct Change {
    row: Option<Vec<u8>>,
    /// The store has no such row: if this one goes as well, there is nothing to write.
    fresh: bool,
}

type Changes = BTreeMap<Vec<u8>, Change>;

#[derive(Default)]
pub(super) struct System {
    open: Changes,
    /// Those of the generation that was closed.
    closed: Changes,
    /// Up to where these are in its run; `None`: all are.
    encoded: Option<Bound<Vec<u8>>>,
    /// Those of the last one, which the store has by now.
    old: btree_map::IntoIter<Vec<u8>, Change>,
}

impl System {
    /// Changes a row.
    pub(super) fn note(&mut self, key: Vec<u8>, row: Option<Vec<u8>>) {
        self.open.insert(key, Change { row, fresh: false });
    }

    /// Adds an empty row. If the store has it all the same, left there by what was replaced, it says nothing.
    pub(super) fn add(&mut self, key: Vec<u8>) {
        let fresh = !self.open.contains_key(&key) && !self.closed.contains_key(&key);
        self.open.insert(key, Change { row: Some(Vec::new()), fresh });
    }

    /// Removes a row.
    pub(super) fn remove(&mut self, key: Vec<u8>) {
        match self.open.get(&key).is_some_and(|change| change.fresh) {
            true => drop(self.open.remove(&key)),
            false => self.note(key, None),
        }
    }

    /// Changes with `from <= key < to`, in order: whether the row is there.
    pub(super) fn changes<'s>(
        &'s self,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = (&'s [u8], bool)> + use<'s> {
        let range = (Bound::Included(from.to_vec()), Bound::Excluded(to.to_vec()));
        let mut closed = self.closed.range(range.clone()).peekable();
        let mut open = self.open.range(range).peekable();
        std::iter::from_fn(move || {
            let next = match (open.peek(), closed.peek()) {
                (Some((ours, _)), Some((theirs, _))) if ours > theirs => closed.next(),
                (Some((ours, _)), Some((theirs, _))) => {
                    if ours == theirs {
                        closed.next();
                    }
                    open.next()
                }
                (Some(_), None) => open.next(),
                (None, _) => closed.next(),
            };
            next.map(|(key, change)| (key.as_slice(), change.row.is_some()))
        })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.open.len() + self.closed.len()
    }

    /// Those of the open generation.
    pub(super) fn gathered(&self) -> usize {
        self.open.len()
    }

    /// Bytes that they take. Cost: their number.
    pub(super) fn bytes(&self) -> usize {
        let size = |(key, change): (&Vec<u8>, &Change)| {
            key.len() + change.row.as_ref().map_or(0, Vec::len) + size_of::<(Vec<u8>, Change)>()
        };
        self.open.iter().chain(&self.closed).map(size).sum()
    }

    /// Closes the generation.
    pub(super) fn close(&mut self) {
        self.closed = std::mem::take(&mut self.open);
        self.encoded = Some(Bound::Unbounded);
    }

    /// Puts so many more of the closed generation into its run; returns how many it might have been more.
    pub(super) fn encode(&mut self, run: &mut Run, rows: usize) -> usize {
        let Some(from) = self.encoded.clone() else { return rows };
        let mut left = rows;
        let mut last = None;
        for (key, Change { row, .. }) in self.closed.range((from, Bound::Unbounded)) {
            if left == 0 {
                break;
            }
            left -= 1;
            last = Some(key);
            match row {
                Some(row) => run.put(Family::System, key, row),
                None => run.delete(Family::System, key),
            }
        }
        match (left, last) {
            (1.., _) => self.encoded = None,
            // One more look will find that nothing is left.
            (0, Some(last)) => self.encoded = Some(Bound::Excluded(last.clone())),
            (0, None) => {}
        }
        left
    }

    /// The closed generation is in the store, or could not be written.
    pub(super) fn thaw(&mut self, written: bool) {
        let closed = std::mem::take(&mut self.closed);
        if written {
            self.old = closed.into_iter();
            return;
        }
        for (key, Change { row, .. }) in closed {
            self.open.entry(key).or_insert(Change { row, fresh: false });
        }
    }

    /// Drops so many of those that the store has. True if there is more.
    pub(super) fn purge(&mut self, rows: usize) -> bool {
        self.old.by_ref().take(rows).for_each(drop);
        self.old.len() > 0
    }
}
