//! SCAN's cursors: numbers that stand for the last key that a scan has seen.
//!
//! Keys are iterated in byte order, so a scan continues behind its last key whatever was added or removed
//! meanwhile. Clients expect a decimal number, so the table remembers the keys behind the latest numbers. A
//! number that has been forgotten starts its scan again, which SCAN's guarantees allow.

use std::collections::VecDeque;

/// Scans that can be remembered.
pub const CURSORS: usize = 16_384;
/// Bytes of keys that are remembered, but the latest in any case: a scan always gets on.
const BYTES: usize = 64 << 20;
/// What an entry takes beside its key, roughly.
const ENTRY: usize = 32;

/// Numbers and the keys they stand for.
#[derive(Debug, Default)]
pub struct Cursors {
    /// The number of the last one; those before it are one less each.
    last: u64,
    kept: VecDeque<(u16, Box<[u8]>)>,
    bytes: usize,
}

impl Cursors {
    /// A new cursor, never 0.
    pub fn remember(&mut self, db: u16, key: &[u8]) -> u64 {
        self.last += 1;
        self.bytes += key.len() + ENTRY;
        self.kept.push_back((db, Box::from(key)));
        while self.kept.len() > CURSORS || (self.bytes > BYTES && self.kept.len() > 1) {
            let Some((_, oldest)) = self.kept.pop_front() else { break };
            self.bytes -= oldest.len() + ENTRY;
        }
        self.last
    }

    /// The key behind which the scan goes on; `None`: from the beginning.
    pub fn recall(&self, cursor: u64, db: u16) -> Option<&[u8]> {
        let age = usize::try_from(self.last.checked_sub(cursor)?).ok()?;
        let (of, key) = self.kept.get(self.kept.len().checked_sub(age + 1)?)?;
        (*of == db).then_some(key)
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered() {
        let mut cursors = Cursors::default();
        assert_eq!(cursors.recall(0, 0), None);
        let first = cursors.remember(0, b"a");
        assert_eq!(cursors.recall(first, 0), Some(&b"a"[..]));
        assert_eq!(cursors.recall(first, 1), None);
        for unknown in [0, 2, 77, u64::MAX] {
            assert_eq!(cursors.recall(unknown, 0), None);
        }
        for _ in 1..CURSORS {
            let cursor = cursors.remember(0, b"b");
            assert_eq!(cursors.recall(cursor, 0), Some(&b"b"[..]));
        }
        assert_eq!(cursors.recall(first, 0), Some(&b"a"[..]));
        let cursor = cursors.remember(0, b"c");
        assert_eq!(cursors.recall(cursor, 0), Some(&b"c"[..]));
        assert_eq!(cursors.recall(first, 0), None);
        assert_eq!(cursors.kept.len(), CURSORS);
    }

    /// Keys may be as long as values.
    #[test]
    fn long_keys_take_no_more_than_their_share() {
        let mut cursors = Cursors::default();
        let key = vec![b'k'; BYTES / 8];
        for _ in 0..100 {
            let cursor = cursors.remember(0, &key);
            assert_eq!(cursors.recall(cursor, 0), Some(&key[..]));
            assert!(cursors.memory() <= BYTES);
        }
        assert_eq!(cursors.kept.len(), 7);
        let longest = vec![b'k'; BYTES + 1];
        let cursor = cursors.remember(0, &longest);
        assert_eq!((cursors.recall(cursor, 0), cursors.kept.len()), (Some(&longest[..]), 1));
    }
}
