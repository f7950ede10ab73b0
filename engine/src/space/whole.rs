//! All rows of a db at once: what is kept of them, so that a clear need not look at each.
//!
//! A clear of a db detaches its rows in memory, gives up its ranges of the store, and takes from the digest
//! what the db has of it: O(1), however many there are. What it cannot take together are rows with counters,
//! of which it leaves residue (MODEL M2): if there are any they are looked for, and cleared one by one.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::expiring::Expiring;
use super::{Outcome, Space};
use crate::causal::LogPosition;
use crate::codec::{CodecError, Reader, Writer};
use crate::header::Header;
use crate::name::{Cursor, RowKey};
use crate::pages::Epoch;
use crate::row::Row;
use crate::store::{Family, Hole, Store, keys};

const FORMAT: u8 = 1;

/// What is kept of the rows of a db.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// The sum of their hashes, modulo 2^128.
    pub(crate) digest: u128,
    /// Rows that have counter entries, residue included.
    pub(crate) counters: u64,
}

/// A db as it was, to go back to.
pub(crate) struct ClearedDb {
    db: u16,
    epoch: Epoch,
    sums: Sums,
    count: u64,
    expiring: Expiring,
}

/// An entry of a list by db.
pub(super) fn at<T: Default + Clone>(list: &mut Vec<T>, db: u16) -> &mut T {
    let index = usize::from(db);
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    &mut list[index]
}

impl<S: Store> Space<S> {
    /// A row was replaced by another one, which have these hashes.
    pub(super) fn resum(
        &mut self,
        db: u16,
        (old, old_hash): (&Row, u128),
        (new, hash): (bool, u128),
    ) {
        let sums = at(&mut self.sums, db);
        sums.digest = sums.digest.wrapping_sub(old_hash).wrapping_add(hash);
        let (was, is) = (!old.counters().is_empty(), new);
        sums.counters = (sums.counters + u64::from(is)).saturating_sub(u64::from(was));
    }

    /// The sum of the hashes of all rows.
    pub(crate) fn digest(&self) -> u128 {
        self.sums.iter().fold(self.undivided, |sum, of| sum.wrapping_add(of.digest))
    }

    /// What is kept of a db, but for what only all dbs together have.
    pub(crate) fn sums(&self, db: u16) -> Option<Sums> {
        let sums = self.sums.get(usize::from(db)).copied().unwrap_or_default();
        (self.undivided == 0).then_some(sums)
    }

    /// Whether anything of a db counts. Only where it can be cleared as a whole.
    pub(crate) fn has_any(&self, db: u16) -> bool {
        self.sums.get(usize::from(db)).is_some_and(|sums| sums.digest != 0)
    }

    /// Whether a db can be cleared as a whole: what is kept of it is known, nothing is derived in it, and
    /// nothing was given up.
    pub(crate) fn is_separable(&self, db: u16) -> bool {
        let bound = self.bindings.range((db, Bytes::new())..).next();
        let bound = bound.is_some_and(|((of, _), _)| *of == db);
        self.undivided == 0 && self.lost == 0 && self.erased_is_empty() && !bound
    }

    fn erased_is_empty(&self) -> bool {
        // Ranges of whole dbs are no damage.
        self.resident.erased.iter().all(|(_, hole)| hole.why.is_empty() && hole.from.len() == 2)
    }

    /// The rows of a db that have counter entries. Cost: all rows of the db, if there is one.
    pub(crate) fn rows_with_counters(&mut self, db: u16) -> Outcome<Vec<(RowKey, Row)>> {
        let mut found = Vec::new();
        #[cfg(feature = "planted")]
        if self.planted == crate::planted::Planted::WholeClearDropsResidue {
            return Ok(found);
        }
        let mut left = self.sums.get(usize::from(db)).map_or(0, |sums| sums.counters) as usize;
        if left == 0 {
            return Ok(found);
        }
        let mut collections = Vec::new();
        let types = self.types;
        self.walk_records(db, &mut |key, header: Header| {
            let key = Bytes::copy_from_slice(key);
            for state in header.slots.iter().filter(|state| state.stored > 0) {
                if types.counts(state.slot) {
                    collections.push((key.clone(), state.slot));
                }
            }
            for (slot, subkey, row) in header.into_rows() {
                if !row.counters().is_empty() {
                    found.push((RowKey { db, key: key.clone(), slot, subkey }, row));
                }
            }
        })?;
        left = left.saturating_sub(found.len());
        for (key, slot) in collections {
            if left == 0 {
                break;
            }
            let before = found.len();
            self.visit_rows(db, &key, slot, Cursor::START, &mut |subkey, row| {
                if !row.counters().is_empty() {
                    found.push((RowKey::new(db, &key, slot, subkey), row.clone()));
                }
                ControlFlow::Continue(())
            })?;
            left = left.saturating_sub(found.len() - before);
        }
        Ok(found)
    }

    /// Takes all rows of a db away, from memory and store. Whoever holds places of rows has to look for them
    /// again. O(rows that the tick has open).
    pub(crate) fn clear_db(&mut self, db: u16) -> ClearedDb {
        self.close();
        let epoch = self.resident.detach(db, self.generation);
        self.note_clear(db);
        ClearedDb {
            db,
            epoch,
            sums: std::mem::take(at(&mut self.sums, db)),
            count: std::mem::take(at(&mut self.counts, db)),
            expiring: std::mem::take(at(&mut self.expiring, db)),
        }
    }

    /// Undoes [`clear_db`](Space::clear_db), after what came later was undone. Places are to be looked for
    /// again.
    pub(crate) fn restore_db(&mut self, cleared: ClearedDb) {
        self.close();
        let ClearedDb { db, epoch, sums, count, expiring } = cleared;
        self.resident.attach(db, epoch);
        self.note_clear(db);
        *at(&mut self.sums, db) = sums;
        *at(&mut self.counts, db) = count;
        *at(&mut self.expiring, db) = expiring;
    }

    /// The record, for a generation that ends at that position.
    pub(super) fn sums_record(&self, position: LogPosition) -> Writer {
        let mut out = Writer::with_format(FORMAT);
        out.varint(position.0);
        out.varint(self.sums.len() as u64);
        for Sums { digest, counters } in &self.sums {
            out.u64((digest >> 64) as u64);
            out.u64(*digest as u64);
            out.varint(*counters);
        }
        out
    }

    /// Reads the record of that position. Where there is none, all that is known is the digest of all dbs
    /// together.
    pub(super) fn load_sums(&mut self, position: LogPosition, digest: u128) -> Outcome<()> {
        let record = self.resident.store.get(Family::System, keys::SUMS)?;
        let kept = record.and_then(|record| decode(&record, position).ok().flatten());
        match kept {
            Some(kept) => {
                self.sums = kept;
                self.undivided = digest.wrapping_sub(self.digest());
            }
            None => self.undivided = digest,
        }
        Ok(())
    }
}

/// `None`: it is the record of another position.
fn decode(record: &[u8], position: LogPosition) -> Result<Option<Vec<Sums>>, CodecError> {
    let mut input = Reader::with_format(record, FORMAT)?;
    if input.varint()? != position.0 {
        return Ok(None);
    }
    let mut kept = Vec::new();
    for _ in 0..input.count(17)? {
        let digest = u128::from(input.u64()?) << 64 | u128::from(input.u64()?);
        kept.push(Sums { digest, counters: input.varint()? });
    }
    input.end()?;
    Ok(Some(kept))
}

/// The ranges of the store in which a db's rows lie.
pub(super) fn ranges(db: u16) -> impl Iterator<Item = Hole> {
    let from = db.to_be_bytes();
    [Family::Keys, Family::Data, Family::Derived].into_iter().map(move |family| Hole {
        family,
        from: from.to_vec(),
        to: keys::prefix_end(&from),
        why: String::new(),
    })
}
