//! What a transaction has touched, in the order of its dots.
//!
//! Nearly all transactions touch one row or a few, for which looking through a list beats any table; those
//! that touch many get a table beside it.

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use crate::commit::RowKey;
use crate::row::Row;

/// What takes a dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Touch {
    /// A row; the value beside it is the row before.
    Row(RowKey),
    /// The n-th clear of the transaction; the value beside it is not used.
    Clear(usize),
}

/// Touches of a list that is looked through.
const FEW: usize = 16;

#[derive(Default)]
pub(crate) struct Touched {
    list: Vec<(Touch, Row)>,
    /// Places in the list, once it is longer than a few.
    table: HashTable<usize>,
}

fn hash(touch: &Touch) -> u64 {
    FixedState::default().hash_one(touch)
}

impl Touched {
    /// The place of a touch, by which its dot is given.
    pub(crate) fn find(&self, touch: &Touch) -> Option<usize> {
        if self.list.len() <= FEW {
            return self.list.iter().position(|(known, _)| known == touch);
        }
        self.table.find(hash(touch), |at| self.list[*at].0 == *touch).copied()
    }

    /// Adds a touch that is not there.
    pub(crate) fn push(&mut self, touch: Touch, before: Row) {
        self.list.push((touch, before));
        if self.list.len() > FEW {
            for at in self.table.len()..self.list.len() {
                let hash_at = |at: &usize| hash(&self.list[*at].0);
                self.table.insert_unique(hash_at(&at), at, hash_at);
            }
        }
    }

    /// Takes the newest touch back.
    pub(crate) fn pop(&mut self) -> Option<(Touch, Row)> {
        let at = self.list.len().checked_sub(1)?;
        if !self.table.is_empty()
            && let Ok(entry) = self.table.find_entry(hash(&self.list[at].0), |other| *other == at)
        {
            entry.remove();
        }
        self.list.pop()
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Takes everything, in order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (Touch, Row)> {
        self.table.clear();
        self.list.drain(..)
    }

    pub(crate) fn clear(&mut self) {
        self.table.clear();
        self.list.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_pushed_and_not_popped() {
        let mut touched = Touched::default();
        for round in 0..3 {
            for n in 0..60 {
                assert_eq!(touched.find(&Touch::Clear(n)), None);
                touched.push(Touch::Clear(n), Row::default());
                assert_eq!(touched.find(&Touch::Clear(n)), Some(n));
            }
            for n in (10 * round..60).rev() {
                assert_eq!(touched.pop().map(|(touch, _)| touch), Some(Touch::Clear(n)));
                assert_eq!(touched.find(&Touch::Clear(n)), None);
                assert!((0..n).all(|n| touched.find(&Touch::Clear(n)) == Some(n)));
            }
            assert_eq!(touched.drain().count(), 10 * round);
        }
    }
}
