//! How much of a write-ahead log of RocksDB is whole: what its recovery leaves out, it tells nobody.
//!
//! A log is a row of blocks of 32 KiB, a block a row of fragments: masked CRC32C (4 bytes, little-endian,
//! over all that follows the length), length (2), type (1), for recycled logs the log's number (4), payload.
//! A record is one fragment, or a first one, middle ones and a last one. What is left of a block that has no
//! room for a head is zero (RocksDB, `db/log_format.h`).

/// Bytes of a block.
pub(super) const BLOCK: usize = 32 << 10;

const HEAD: usize = 7;
const RECYCLED_HEAD: usize = 11;

/// Reads a log block by block.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// Where the last whole record ends, bytes from the log's beginning.
    pub(super) end: u64,
    seen: u64,
}

impl Whole {
    /// Takes the next block, shorter than others only if it is the last. False: nothing after this is read.
    pub(super) fn block(&mut self, block: &[u8]) -> bool {
        let mut at = 0;
        while let Some(fragment) = block.get(at..).filter(|rest| rest.len() >= HEAD) {
            let Some((length, ends)) = fragment_of(fragment) else {
                return false;
            };
            at += length;
            if ends {
                self.end = self.seen + at as u64;
            }
        }
        if block.get(at..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
            return false;
        }
        // The rest of a full block belongs to what stands before it.
        if block.len() == BLOCK && self.end == self.seen + at as u64 {
            self.end = self.seen + BLOCK as u64;
        }
        self.seen += block.len() as u64;
        block.len() == BLOCK
    }
}

/// The length of the fragment that bytes begin with, and whether a record ends with it. `None` if it is not
/// whole.
fn fragment_of(bytes: &[u8]) -> Option<(usize, bool)> {
    let (crc, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let kind = *rest.first()?;
    let head = match kind {
        5..=8 | 11 | 131 => RECYCLED_HEAD,
        1..=4 | 9 | 10 | 130 => HEAD,
        _ => return None,
    };
    let length = head + usize::from(u16::from_le_bytes(*length));
    let covered = bytes.get(6..length)?;
    let masked = crc32c::crc32c(covered).rotate_right(15).wrapping_add(0xa282_ead8);
    let ends = !matches!(kind, 2 | 3 | 6 | 7);
    (masked == u32::from_le_bytes(*crc)).then_some((length, ends))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut covered = vec![kind];
        covered.extend_from_slice(payload);
        let masked = crc32c::crc32c(&covered).rotate_right(15).wrapping_add(0xa282_ead8);
        let mut out = masked.to_le_bytes().to_vec();
        out.extend_from_slice(&(payload.len() as u16).to_le_bytes());
        out.extend_from_slice(&covered);
        out
    }

    fn end(log: &[u8]) -> u64 {
        let mut whole = Whole::default();
        for block in log.chunks(BLOCK) {
            if !whole.block(block) {
                break;
            }
        }
        whole.end
    }

    #[test]
    fn a_log_is_whole_up_to_its_last_whole_record() {
        let mut log = fragment(1, b"one");
        let first = log.len();
        log.extend(fragment(1, b"two"));
        assert_eq!(end(&log), log.len() as u64);
        // Cut, and changed, in the second record.
        assert_eq!(end(&log[..log.len() - 1]), first as u64);
        log[first + HEAD] ^= 1;
        assert_eq!(end(&log), first as u64);
        assert_eq!(end(&[]), 0);
        assert_eq!(end(&[0; 100]), 0);
    }

    #[test]
    fn a_record_of_several_fragments_is_whole_with_its_last() {
        let mut log = fragment(1, b"one");
        let first = log.len();
        log.extend(fragment(2, &vec![7; BLOCK - first - HEAD]));
        assert_eq!(log.len(), BLOCK);
        let second = fragment(4, b"rest");
        assert_eq!(end(&log), first as u64);
        log.extend(&second);
        assert_eq!(end(&log), log.len() as u64);
        // No room for a head at the end of a block.
        let mut log = fragment(1, &vec![7; BLOCK - HEAD - 3]);
        log.extend([0; 3]);
        assert_eq!(end(&log), BLOCK as u64);
        log.extend(&second);
        assert_eq!(end(&log), log.len() as u64);
    }
}
