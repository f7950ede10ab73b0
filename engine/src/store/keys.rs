//! Where things lie: the one place that makes and takes apart stored keys.
//!
//! Numbers are big-endian, so that byte order is number order. A client's key is preceded by its length
//! in `data` and `derived`, so that the rows of one key are a contiguous range; in `keys` it is bare, so
//! that iteration is in the order of the bytes. docs/storage.md shows every layout.

use bytes::Bytes;

use crate::causal::{LogPosition, Millis};
use crate::name::{RowKey, Slot};

/// `keys`: (db, key).
pub fn header(out: &mut Vec<u8>, db: u16, key: &[u8]) {
    out.clear();
    out.extend_from_slice(&db.to_be_bytes());
    out.extend_from_slice(key);
}

/// Takes a key of `keys` or of the bindings apart.
pub fn split_header(stored: &[u8]) -> Option<(u16, &[u8])> {
    let (db, key) = stored.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*db), key))
}

/// `data`: (db, key length, key, slot, subkey).
pub fn row(out: &mut Vec<u8>, row: &RowKey) {
    slot_prefix(out, row.db, &row.key, row.slot);
    out.extend_from_slice(&row.subkey);
}

/// The common start of the rows of one slot.
pub fn slot_prefix(out: &mut Vec<u8>, db: u16, key: &[u8], slot: Slot) {
    element_prefix(out, db, key);
    out.push(slot.0);
}

/// Takes a key of `data` apart: db, key, slot, subkey.
pub fn split_slot(stored: &[u8]) -> Option<(u16, &[u8], Slot, &[u8])> {
    let (db, key, rest) = split_element(stored)?;
    let (slot, subkey) = rest.split_first()?;
    Some((db, key, Slot(*slot), subkey))
}

/// Takes a key of `data` apart, as the name of its row.
pub fn split_row(stored: &[u8]) -> Option<RowKey> {
    let (db, key, slot, subkey) = split_slot(stored)?;
    let [key, subkey] = [key, subkey].map(Bytes::copy_from_slice);
    Some(RowKey { db, key, slot, subkey })
}

/// `derived`: (db, key length, key), to be followed by the element.
pub fn element_prefix(out: &mut Vec<u8>, db: u16, key: &[u8]) {
    out.clear();
    out.extend_from_slice(&db.to_be_bytes());
    out.extend_from_slice(&(key.len() as u32).to_be_bytes());
    out.extend_from_slice(key);
}

/// Takes a key of `derived` apart: db, key, element.
pub fn split_element(stored: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (db, rest) = stored.split_first_chunk::<2>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
    Some((u16::from_be_bytes(*db), key, rest))
}

/// `log`: the position of a row's last entry.
pub fn log(position: LogPosition) -> [u8; 8] {
    position.0.to_be_bytes()
}

/// Takes a key of `log` apart.
pub fn split_log(stored: &[u8]) -> Option<LogPosition> {
    Some(LogPosition(u64::from_be_bytes(stored.try_into().ok()?)))
}

/// `node`: who this node is.
pub const IDENTITY: &[u8] = b"identity";
/// `node`: what the trimmed part of the log led to.
pub const FLOOR: &[u8] = b"floor";
/// `system`: what the rows are the state of: log position, vector, digest, clock, counts. In every run.
pub const STATE: &[u8] = b"state";
/// `system`: how many keys have a deadline, and the sum of these. In every run once there is one.
pub const EXPIRING: &[u8] = b"expiring";
/// `system`: how many rows were given up, since they could not be read.
pub const LOST: &[u8] = b"lost";
/// `system`: prefix of the origins, by number.
pub const ORIGIN: u8 = b'o';
/// `system`: prefix of the binding rows, by (db, key).
pub const BINDING: u8 = b'b';
/// `system`: prefix of the deadlines, by (time, db, key).
pub const DEADLINE: u8 = b'd';

/// `system`: the origin with that number.
pub fn origin(index: usize) -> [u8; 5] {
    let mut out = [ORIGIN; 5];
    out[1..].copy_from_slice(&(index as u32).to_be_bytes());
    out
}

/// `system`: the binding row of a target.
pub fn binding(db: u16, key: &[u8]) -> Vec<u8> {
    let mut out = vec![BINDING];
    out.extend_from_slice(&db.to_be_bytes());
    out.extend_from_slice(key);
    out
}

/// `system`: a key and its deadline.
pub fn deadline(time: Millis, db: u16, key: &[u8]) -> Vec<u8> {
    let mut out = vec![DEADLINE];
    out.extend_from_slice(&time.0.to_be_bytes());
    out.extend_from_slice(&db.to_be_bytes());
    out.extend_from_slice(key);
    out
}

/// Takes a deadline apart: time, db, key.
pub fn split_deadline(stored: &[u8]) -> Option<(Millis, u16, &[u8])> {
    let (time, rest) = stored.get(1..)?.split_first_chunk::<8>()?;
    let (db, key) = split_header(rest)?;
    Some((Millis(u64::from_be_bytes(*time)), db, key))
}

/// The end of the range of keys that begin with `prefix`: empty if that is the family's end.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    end
}
