//! Entries in pieces of fixed size: growing copies nothing, and a place stays what it is.

use std::ops::{Index, IndexMut};

/// Entries in a piece.
const PIECE: usize = 1024;

struct Piece<T> {
    /// Has room for all as soon as it has one.
    entries: Vec<Option<T>>,
    /// Free places before the end.
    free: Vec<u16>,
    /// Whether it is among those that have room.
    open: bool,
}

impl<T> Piece<T> {
    const NEW: Piece<T> = Piece { entries: Vec::new(), free: Vec::new(), open: true };

    fn is_full(&self) -> bool {
        self.free.is_empty() && self.entries.len() == PIECE
    }

    /// Must not be full.
    fn insert(&mut self, entry: T) -> usize {
        if let Some(at) = self.free.pop() {
            self.entries[usize::from(at)] = Some(entry);
            return at.into();
        }
        if self.entries.is_empty() {
            self.entries.reserve_exact(PIECE);
        }
        self.entries.push(Some(entry));
        self.entries.len() - 1
    }

    fn remove(&mut self, at: usize) -> Option<T> {
        let entry = self.entries.get_mut(at)?.take()?;
        self.free.push(at as u16);
        if self.free.len() == self.entries.len() {
            // Nothing is left: the memory goes back.
            (self.entries, self.free) = (Vec::new(), Vec::new());
        }
        Some(entry)
    }
}

/// A growing list of places, some of which are free.
pub(crate) struct Slots<T> {
    pieces: Vec<Piece<T>>,
    /// Pieces that may have room; the last one is filled first.
    open: Vec<usize>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots { pieces: Vec::new(), open: Vec::new() }
    }

    /// Puts an entry into a free place, which is returned.
    pub(crate) fn insert(&mut self, entry: T) -> usize {
        while let Some(number) = self.open.last() {
            let piece = &mut self.pieces[*number];
            if !piece.is_full() {
                return number * PIECE + piece.insert(entry);
            }
            piece.open = false;
            self.open.pop();
        }
        let mut piece = Piece::NEW;
        let at = piece.insert(entry);
        self.open.push(self.pieces.len());
        self.pieces.push(piece);
        (self.pieces.len() - 1) * PIECE + at
    }

    /// Takes an entry out, if its place is not free. A piece without entries gives its memory back.
    pub(crate) fn remove(&mut self, place: usize) -> Option<T> {
        let piece = self.pieces.get_mut(place / PIECE)?;
        let entry = piece.remove(place % PIECE)?;
        if !std::mem::replace(&mut piece.open, true) {
            self.open.push(place / PIECE);
        }
        Some(entry)
    }

    /// The entry of a place, if that is not free.
    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.pieces.get_mut(place / PIECE)?.entries.get_mut(place % PIECE)?.as_mut()
    }

    /// All places lie before this.
    pub(crate) fn end(&self) -> usize {
        self.pieces.len() * PIECE
    }
}

/// The place must not be free.
impl<T> Index<usize> for Slots<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        #[allow(clippy::expect_used, reason = "an index out of range, as for any list")]
        self.pieces[place / PIECE].entries[place % PIECE].as_ref().expect("a place in use")
    }
}

impl<T> IndexMut<usize> for Slots<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        #[allow(clippy::expect_used, reason = "an index out of range, as for any list")]
        self.pieces[place / PIECE].entries[place % PIECE].as_mut().expect("a place in use")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_and_free_ones_are_used_again() {
        let mut slots = Slots::new();
        let places: Vec<usize> = (0..3_000).map(|n| slots.insert(n)).collect();
        assert_eq!((slots.end(), slots[places[2_999]]), (3 * PIECE, 2_999));
        assert_eq!((slots.remove(places[7]), slots.remove(places[7])), (Some(7), None));
        assert!(slots.get_mut(places[7]).is_none() && slots.get_mut(9_999).is_none());
        assert_eq!((slots.insert(-1), slots.end()), (places[7], 3 * PIECE));
        slots[places[7]] += 1;
        assert_eq!((slots[places[7]], slots[places[8]]), (0, 8));
    }

    #[test]
    fn a_piece_without_entries_has_no_memory() {
        let mut slots = Slots::new();
        let places: Vec<usize> = (0..10 * PIECE).map(|n| slots.insert(n)).collect();
        for place in &places[..9 * PIECE] {
            slots.remove(*place);
        }
        let room: usize = slots.pieces.iter().map(|piece| piece.entries.capacity()).sum();
        assert_eq!((room, slots[places[9 * PIECE]]), (PIECE, 9 * PIECE));
        let mut again: Vec<usize> = (0..9 * PIECE).map(|n| slots.insert(n)).collect();
        again.sort_unstable();
        assert_eq!((&again[..], slots.end()), (&places[..9 * PIECE], 10 * PIECE));
    }
}
