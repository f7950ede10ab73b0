//! Entries in pieces of fixed size: growing copies nothing, and a place stays what it is.

use std::ops::{Index, IndexMut};

/// Entries in a piece.
const PIECE: usize = 1024;

/// A growing list of places, some of which are free.
pub(crate) struct Slots<T> {
    pieces: Vec<Vec<Option<T>>>,
    free: Vec<usize>,
    end: usize,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots { pieces: Vec::new(), free: Vec::new(), end: 0 }
    }

    /// Puts an entry into a free place, which is returned.
    pub(crate) fn insert(&mut self, entry: T) -> usize {
        if let Some(place) = self.free.pop() {
            self.pieces[place / PIECE][place % PIECE] = Some(entry);
            return place;
        }
        if self.end.is_multiple_of(PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        self.pieces[self.end / PIECE].push(Some(entry));
        self.end += 1;
        self.end - 1
    }

    /// Takes an entry out, if its place is not free.
    pub(crate) fn remove(&mut self, place: usize) -> Option<T> {
        let entry = self.pieces.get_mut(place / PIECE)?.get_mut(place % PIECE)?.take()?;
        self.free.push(place);
        Some(entry)
    }

    /// The entry of a place, if that is not free.
    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.pieces.get_mut(place / PIECE)?.get_mut(place % PIECE)?.as_mut()
    }

    /// All places lie before this.
    pub(crate) fn end(&self) -> usize {
        self.end
    }
}

/// The place must not be free.
impl<T> Index<usize> for Slots<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        #[allow(clippy::expect_used, reason = "an index out of range, as for any list")]
        self.pieces[place / PIECE][place % PIECE].as_ref().expect("a place in use")
    }
}

impl<T> IndexMut<usize> for Slots<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        #[allow(clippy::expect_used, reason = "an index out of range, as for any list")]
        self.pieces[place / PIECE][place % PIECE].as_mut().expect("a place in use")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_and_free_ones_are_used_again() {
        let mut slots = Slots::new();
        let places: Vec<usize> = (0..3_000).map(|n| slots.insert(n)).collect();
        assert_eq!((slots.end(), slots[places[2_999]]), (3_000, 2_999));
        assert_eq!((slots.remove(places[7]), slots.remove(places[7])), (Some(7), None));
        assert!(slots.get_mut(places[7]).is_none() && slots.get_mut(9_999).is_none());
        assert_eq!((slots.insert(-1), slots.end()), (places[7], 3_000));
        slots[places[7]] += 1;
        assert_eq!((slots[places[7]], slots[places[8]]), (0, 8));
    }
}
