//! SCAN's cursors: numbers that stand for the last key that a scan has seen.
//!
//! Keys are iterated in byte order, so a scan continues behind its last key whatever was added or removed
//! meanwhile. Clients expect a decimal number, so the table remembers the keys behind the latest numbers. A
//! number that has been forgotten starts its scan again, which SCAN's guarantees allow.

/// Scans that can be remembered.
pub const CURSORS: u64 = 16_384;

/// Numbers and the keys they stand for.
#[derive(Debug, Default)]
pub struct Cursors {
    last: u64,
    slots: Vec<(u64, u16, Box<[u8]>)>,
}

impl Cursors {
    /// A new cursor, never 0.
    pub fn remember(&mut self, db: u16, key: &[u8]) -> u64 {
        self.last += 1;
        let entry = (self.last, db, Box::from(key));
        match usize::try_from(self.last % CURSORS).ok().and_then(|i| self.slots.get_mut(i)) {
            Some(slot) => *slot = entry,
            // Slots fill up in order, from 1: the one at 0 is filled last.
            None => {
                if self.slots.is_empty() {
                    self.slots.push((0, 0, Box::default()));
                }
                if (self.slots.len() as u64) < CURSORS {
                    self.slots.push(entry);
                }
            }
        }
        self.last
    }

    /// The key behind which the scan goes on; `None`: from the beginning.
    pub fn recall(&self, cursor: u64, db: u16) -> Option<&[u8]> {
        let slot = usize::try_from(cursor % CURSORS).ok().and_then(|i| self.slots.get(i))?;
        (cursor != 0 && slot.0 == cursor && slot.1 == db).then_some(&*slot.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered() {
        let mut cursors = Cursors::default();
        let first = cursors.remember(0, b"a");
        assert_eq!(cursors.recall(first, 0), Some(&b"a"[..]));
        assert_eq!(cursors.recall(first, 1), None);
        assert_eq!(cursors.recall(0, 0), None);
        assert_eq!(cursors.recall(77, 0), None);
        for _ in 1..CURSORS {
            let cursor = cursors.remember(0, b"b");
            assert_eq!(cursors.recall(cursor, 0), Some(&b"b"[..]));
        }
        assert_eq!(cursors.recall(first, 0), Some(&b"a"[..]));
        let cursor = cursors.remember(0, b"c");
        assert_eq!(cursors.recall(cursor, 0), Some(&b"c"[..]));
        assert_eq!(cursors.recall(first, 0), None);
        assert_eq!(cursors.slots.len() as u64, CURSORS);
    }
}
