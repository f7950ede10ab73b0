//! Where things lie: the one place that makes and takes apart stored keys.
//!
//! Numbers are big-endian, so that byte order is number order. Keys of clients, and the rows of one key, are
//! in the order of a *hash* of their name that is the same at every node and in every version: so a place
//! among them is a number, which stays where it is whatever comes and goes, and which two nodes can compare.
//! A client's key is preceded by its length in `data` and `derived`, so that the rows of one key are a
//! contiguous range. docs/storage.md shows every layout.

use crate::causal::{LogPosition, Millis};
use crate::name::{Cursor, RowKey, Slot, hash};

use super::Family;

/// Bytes that a hash takes.
const HASH: usize = 8;

/// `keys`: (db, hash, key).
pub fn header(out: &mut Vec<u8>, db: u16, key: &[u8]) {
    out.clear();
    out.extend_from_slice(&db.to_be_bytes());
    subkey(out, key);
}

/// Of what begins with a prefix and goes on with a hash: from a place on, to the end.
pub fn range(prefix: &[u8], from: Cursor) -> (Vec<u8>, Vec<u8>) {
    ([prefix, &from.hash().to_be_bytes()].concat(), prefix_end(prefix))
}

/// Takes a key of `keys` apart: db, key.
pub fn split_header(stored: &[u8]) -> Option<(u16, &[u8])> {
    let (db, rest) = split_name(stored)?;
    Some((db, rest.get(HASH..)?))
}

/// Takes the name of a client's key apart: db, key.
pub fn split_name(stored: &[u8]) -> Option<(u16, &[u8])> {
    let (db, key) = stored.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*db), key))
}

/// `data`: (db, key length, key, slot, hash, subkey).
pub fn row(out: &mut Vec<u8>, row: &RowKey) {
    slot_prefix(out, row.db, &row.key, row.slot);
    subkey(out, &row.subkey);
}

/// What the digest has of a row's name: (db, key length, key, slot, subkey), whatever the order on disk.
pub fn canonical(out: &mut Vec<u8>, row: &RowKey) {
    slot_prefix(out, row.db, &row.key, row.slot);
    out.extend_from_slice(&row.subkey);
}

/// The common start of the rows of one slot.
pub fn slot_prefix(out: &mut Vec<u8>, db: u16, key: &[u8], slot: Slot) {
    element_prefix(out, db, key);
    out.push(slot.0);
}

/// Completes the common start of rows or elements: one of them.
pub fn subkey(out: &mut Vec<u8>, subkey: &[u8]) {
    out.extend_from_slice(&hash(subkey).to_be_bytes());
    out.extend_from_slice(subkey);
}

/// What follows the common start of rows or elements, which is so long: the subkey. Empty if there is none.
pub fn subkey_of(stored: &[u8], prefix: usize) -> &[u8] {
    stored.get(prefix + HASH..).unwrap_or_default()
}

/// The same with its hash.
pub(crate) fn name_at(stored: &[u8], prefix: usize) -> (u64, &[u8]) {
    let rest = stored.get(prefix..).unwrap_or_default();
    match rest.split_first_chunk::<HASH>() {
        Some((hash, name)) => (u64::from_be_bytes(*hash), name),
        None => (0, &[]),
    }
}

/// Bytes of the common start of a row's stored key, which ends with that name.
pub(crate) fn prefix_of(stored: &[u8], name: &[u8]) -> usize {
    stored.len() - HASH - name.len()
}

/// Bytes of the common start of a row's stored key, of a family of rows.
pub(crate) fn prefix_len(family: Family, stored: &[u8]) -> Option<usize> {
    let of_key = |more| {
        let (_, key, _) = split_element(stored)?;
        Some(2 + 4 + key.len() + more)
    };
    match family {
        Family::Keys => Some(2),
        Family::Data => of_key(1),
        Family::Derived => of_key(0),
        _ => None,
    }
}

/// Takes a key of `data` apart: db, key, slot, subkey.
pub fn split_slot(stored: &[u8]) -> Option<(u16, &[u8], Slot, &[u8])> {
    let (db, key, rest) = split_element(stored)?;
    let (slot, rest) = rest.split_first()?;
    Some((db, key, Slot(*slot), rest.get(HASH..)?))
}

/// Takes a key of `data` apart, as the name of its row.
pub fn split_row(stored: &[u8]) -> Option<RowKey> {
    let (db, key, slot, subkey) = split_slot(stored)?;
    Some(RowKey::new(db, key, slot, subkey))
}

/// `derived`: (db, key length, key), to be followed by the hash and the element.
pub fn element_prefix(out: &mut Vec<u8>, db: u16, key: &[u8]) {
    out.clear();
    out.extend_from_slice(&db.to_be_bytes());
    out.extend_from_slice(&(key.len() as u32).to_be_bytes());
    out.extend_from_slice(key);
}

/// Takes a key of `data` or `derived` apart behind its client's key.
fn split_element(stored: &[u8]) -> Option<(u16, &[u8], &[u8])> {
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
/// `system`: of each db, what the digest has of it, and its rows with counters. In every run.
pub const SUMS: &[u8] = b"sums";
/// Key in `system` of the list of views that are building.
pub const BUILDING: &[u8] = b"views";
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
    let (db, key) = split_name(rest)?;
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

/// Where a row of the first order lies in this one: that was the order of the names' bytes.
pub fn reordered(family: Family, stored: &[u8]) -> Option<(Family, Vec<u8>)> {
    let mut out = Vec::with_capacity(stored.len() + HASH);
    Some(match family {
        Family::FirstKeys => {
            let (db, key) = split_name(stored)?;
            header(&mut out, db, key);
            (Family::Keys, out)
        }
        Family::FirstData | Family::FirstDerived => {
            let (_, _, rest) = split_element(stored)?;
            let (family, slot) = match family {
                Family::FirstData => (Family::Data, 1),
                _ => (Family::Derived, 0),
            };
            let name = rest.get(slot..)?;
            out.extend_from_slice(&stored[..stored.len() - name.len()]);
            subkey(&mut out, name);
            (family, out)
        }
        _ => return None,
    })
}
