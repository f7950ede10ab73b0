//! Large values lie in pieces.
//!
//! RocksDB copies a value whenever it moves: into a batch, a memtable, a block, a compressed block, again at
//! each compaction and each read. For a value of hundreds of megabytes that is several times its size at
//! one moment. So what is larger than a piece is cut: under its key lies a *head*, which says of what length
//! it is and where the pieces are, and only pieces are ever copied.
//!
//! * In the log the pieces lie right behind the head, under its key and their number, and are written before
//!   it, each by itself: without a head they are nothing, and a row that could not be written whole has not
//!   been written.
//! * Of rows they lie in ranges of their own, under a number that each value is given: [`PIECES`] holds
//!   them, [`OWNERS`] the key that each number belongs to. A run that replaces or removes the key removes
//!   the pieces.

use std::collections::BTreeMap;

use bytes::Bytes;
use smallvec::SmallVec;

use super::StoreError;

/// Bytes of a piece; what is not larger than one is stored as it is.
pub(super) const PIECE: usize = 1 << 20;

/// The first byte of the stored keys of pieces, beside the families of rows.
pub(super) const PIECES: u8 = 0x50;
/// The same for the keys that own them.
pub(super) const OWNERS: u8 = 0x51;

/// A head's first byte: no value begins with it, as each begins with its format number.
const MARK: u8 = 0xff;
const HEAD: usize = 17;
/// No value is as long.
const MOST: u64 = 1 << 40;

/// A stored key.
pub(super) type Key = SmallVec<[u8; 128]>;

/// What lies under the key of a large value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The number of the value among the rows; 0 in the log.
    pub(super) number: u64,
    /// Bytes of the value.
    pub(super) len: u64,
}

impl Head {
    pub(super) fn encode(self) -> [u8; HEAD] {
        let mut bytes = [MARK; HEAD];
        bytes[1..9].copy_from_slice(&self.number.to_be_bytes());
        bytes[9..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }

    /// The head that a stored value is, if it is one.
    pub(super) fn decode(value: &[u8]) -> Option<Head> {
        let [MARK, rest @ ..] = <&[u8; HEAD]>::try_from(value).ok()? else { return None };
        let (number, len) = rest.split_first_chunk::<8>()?;
        let len = u64::from_be_bytes(len.try_into().ok()?);
        let large = len > PIECE as u64 && len < MOST;
        large.then_some(Head { number: u64::from_be_bytes(*number), len })
    }

    pub(super) fn pieces(self) -> u32 {
        u32::try_from(self.len.div_ceil(PIECE as u64)).unwrap_or(u32::MAX)
    }

    /// Puts the value together from its pieces.
    pub(super) fn assemble(
        self,
        mut piece: impl FnMut(u32, &mut Vec<u8>) -> Result<bool, StoreError>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut value = Vec::new();
        for number in 0..self.pieces() {
            if number == 1 {
                // Only now does it say so itself that there is as much.
                value.reserve_exact(
                    usize::try_from(self.len).unwrap_or(0).saturating_sub(value.len()),
                );
            }
            if !piece(number, &mut value)? {
                return Ok(None);
            }
        }
        let whole = value.len() as u64 == self.len;
        whole.then_some(Some(value)).ok_or_else(|| StoreError::Corrupt("pieces of a value".into()))
    }
}

/// The key of a piece of a row in the log.
pub(super) fn log_piece(key: &[u8], number: u32) -> Key {
    let mut piece = Key::from_slice(key);
    piece.extend_from_slice(&number.to_be_bytes());
    piece
}

/// Whether a stored key of the log is a piece's.
pub(super) fn is_log_piece(key: &[u8]) -> bool {
    key.len() == size_of::<u64>() + size_of::<u32>()
}

/// The key of a piece of a row's value.
pub(super) fn row_piece(value: u64, number: u32) -> Key {
    let mut piece = owner(value);
    piece[0] = PIECES;
    piece.extend_from_slice(&number.to_be_bytes());
    piece
}

/// The key under which the owner of a value is told.
pub(super) fn owner(value: u64) -> Key {
    let mut key = Key::new();
    key.push(OWNERS);
    key.extend_from_slice(&value.to_be_bytes());
    key
}

/// Cuts a value that comes in parts into pieces.
pub(super) fn cut<E>(
    parts: &[Bytes],
    mut piece: impl FnMut(u32, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = Vec::with_capacity(PIECE);
    let mut number = 0;
    for part in parts {
        let mut rest = &part[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PIECE - buffer.len()));
            buffer.extend_from_slice(now);
            rest = later;
            if buffer.len() == PIECE {
                piece(number, &buffer)?;
                number += 1;
                buffer.clear();
            }
        }
    }
    if buffer.is_empty() { Ok(()) } else { piece(number, &buffer) }
}

/// The large values of the rows that the store has: which key has which.
#[derive(Clone, Debug, Default)]
pub(super) struct Owners {
    heads: BTreeMap<Vec<u8>, Head>,
    last: u64,
}

impl Owners {
    /// Takes note of a stored owner: the rest of its key, and its value.
    pub(super) fn load(&mut self, number: &[u8], value: &[u8]) -> Option<()> {
        let number = u64::from_be_bytes(number.try_into().ok()?);
        let (len, key) = value.split_first_chunk()?;
        self.last = self.last.max(number);
        self.heads.insert(key.to_vec(), Head { number, len: u64::from_be_bytes(*len) });
        Some(())
    }

    /// The key has no large value any more, but perhaps another one: the head of the one that goes.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Head> {
        // Most stores have none.
        if self.heads.is_empty() { None } else { self.heads.remove(key) }
    }

    /// The same for all keys of a range.
    pub(super) fn remove_all(&mut self, from: &[u8], to: &[u8]) -> Vec<Head> {
        let within = self.heads.range(from.to_vec()..to.to_vec());
        let keys: Vec<Vec<u8>> = within.map(|(key, _)| key.clone()).collect();
        keys.iter().filter_map(|key| self.heads.remove(key)).collect()
    }

    /// Numbers up to that one, as it is stored, are taken.
    pub(super) fn skip_to(&mut self, number: &[u8]) {
        if let Ok(number) = number.try_into() {
            self.last = self.last.max(u64::from_be_bytes(number));
        }
    }

    /// A key gets a large value.
    pub(super) fn insert(&mut self, key: &[u8], len: usize) -> Head {
        self.last += 1;
        let head = Head { number: self.last, len: len as u64 };
        self.heads.insert(key.to_vec(), head);
        head
    }

    /// What is stored of an owner.
    pub(super) fn record(key: &[u8], head: Head) -> Vec<u8> {
        [&head.len.to_be_bytes()[..], key].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_its_pieces() {
        for len in [PIECE + 1, 3 * PIECE - 1, 3 * PIECE] {
            let value: Vec<u8> = (0..len).map(|n| (n / 1000) as u8).collect();
            let (first, rest) = value.split_at(len / 3);
            let mut pieces = Vec::new();
            let parts = [first, rest].map(Bytes::copy_from_slice);
            cut(&parts, |number, piece| {
                assert_eq!(number as usize, pieces.len());
                pieces.push(piece.to_vec());
                Ok::<_, ()>(())
            })
            .unwrap();
            let head = Head { number: 7, len: len as u64 };
            assert_eq!(head.pieces() as usize, pieces.len());
            assert_eq!(Head::decode(&head.encode()), Some(head));
            let add = |number: u32, value: &mut Vec<u8>| {
                let piece = pieces.get(number as usize);
                piece.inspect(|piece| value.extend_from_slice(piece));
                Ok(piece.is_some())
            };
            assert_eq!(head.assemble(add), Ok(Some(value)));
            assert_eq!(Head { len: head.len + (4 << 20), ..head }.assemble(add), Ok(None));
        }
    }

    #[test]
    fn no_other_value_is_a_head() {
        assert_eq!(Head::decode(&[MARK; HEAD - 1]), None);
        assert_eq!(Head::decode(&[2; HEAD]), None);
        assert_eq!(Head::decode(&[MARK; HEAD]), None);
    }

    #[test]
    fn owners_are_what_was_stored() {
        let mut owners = Owners::default();
        let head = owners.insert(b"key", 5 << 20);
        let mut again = Owners::default();
        again.load(&owner(head.number)[1..], &Owners::record(b"key", head)).unwrap();
        assert_eq!((again.remove(b"key"), again.remove(b"key")), (Some(head), None));
        assert_eq!(again.insert(b"key", 1).number, head.number + 1);
    }
}
