//! Entries in pieces of fixed size: growing copies nothing, and a place stays what it is.

use std::ops::{Index, IndexMut};

/// Entries in a piece.
const PIECE: usize = 1024;

/// What is known of a piece, apart from it: most looks need only the entries.
struct Room {
    /// Free places before the end.
    free: Vec<u16>,
    /// Whether the piece is among those that may have room.
    open: bool,
}

/// A growing list of places, some of which are free.
pub(crate) struct Slots<T> {
    /// A piece has memory for all its entries as soon as it has one.
    pieces: Vec<Vec<Option<T>>>,
    rooms: Vec<Room>,
    /// Pieces that may have room; the last one is filled first.
    open: Vec<usize>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots { pieces: Vec::new(), rooms: Vec::new(), open: Vec::new() }
    }

    /// Puts an entry into a free place, which is returned.
    pub(crate) fn insert(&mut self, entry: T) -> usize {
        loop {
            let Some(number) = self.open.last().copied() else {
                self.open.push(self.pieces.len());
                self.pieces.push(Vec::new());
                self.rooms.push(Room { free: Vec::new(), open: true });
                continue;
            };
            let (piece, room) = (&mut self.pieces[number], &mut self.rooms[number]);
            if let Some(at) = room.free.pop().map(usize::from) {
                piece[at] = Some(entry);
                return number * PIECE + at;
            }
            if piece.len() < PIECE {
                if piece.is_empty() {
                    piece.reserve_exact(PIECE);
                }
                piece.push(Some(entry));
                return number * PIECE + piece.len() - 1;
            }
            room.open = false;
            self.open.pop();
        }
    }

    /// Takes an entry out, if its place is not free. A piece without entries gives its memory back.
    pub(crate) fn remove(&mut self, place: usize) -> Option<T> {
        let (number, at) = (place / PIECE, place % PIECE);
        let (piece, room) = (self.pieces.get_mut(number)?, self.rooms.get_mut(number)?);
        let entry = piece.get_mut(at)?.take()?;
        room.free.push(at as u16);
        if room.free.len() == piece.len() {
            (*piece, room.free) = (Vec::new(), Vec::new());
        }
        if !std::mem::replace(&mut room.open, true) {
            self.open.push(number);
        }
        Some(entry)
    }

    /// The entry of a place, if that is not free.
    pub(crate) fn get(&self, place: usize) -> Option<&T> {
        self.pieces.get(place / PIECE)?.get(place % PIECE)?.as_ref()
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.pieces.get_mut(place / PIECE)?.get_mut(place % PIECE)?.as_mut()
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
        let room: usize = slots.pieces.iter().map(Vec::capacity).sum();
        assert_eq!((room, slots[places[9 * PIECE]]), (PIECE, 9 * PIECE));
        let mut again: Vec<usize> = (0..9 * PIECE).map(|n| slots.insert(n)).collect();
        again.sort_unstable();
        assert_eq!((&again[..], slots.end()), (&places[..9 * PIECE], 10 * PIECE));
    }
}
