//! Hashes: fields set, incremented, removed and read.

use bytes::Bytes;

use super::string::added;
use crate::crdt::hash::HASH;
use crate::name::Cursor;
use crate::row::Shown;
use crate::store::{Store, Visit};
use crate::txn::{OpError, OpResult, Txn};

impl<S: Store> Txn<'_, S> {
    /// Sets fields; returns how many were not there.
    pub fn hash_set(&mut self, db: u16, key: &[u8], fields: &[(Bytes, Bytes)]) -> OpResult<u64> {
        self.write(db, key, HASH, |key| {
            fields.iter().try_for_each(|(field, value)| key.put(field, value.clone()))?;
            Ok(key.rows() - key.before())
        })
    }

    /// The value of a field.
    pub fn hash_get(&mut self, db: u16, key: &[u8], field: &[u8]) -> OpResult<Option<Bytes>> {
        Ok(self.read(db, key, HASH, field)?.map(Shown::into_bytes))
    }

    /// Removes fields; returns how many were there. The last one takes the key with it.
    pub fn hash_remove(&mut self, db: u16, key: &[u8], fields: &[Bytes]) -> OpResult<u64> {
        self.write(db, key, HASH, |key| key.remove_all(fields))
    }

    /// Adds to a field's number; an absent field counts as 0. Returns the sum.
    pub fn hash_increment(&mut self, db: u16, key: &[u8], field: &[u8], by: i64) -> OpResult<i64> {
        let field = Bytes::copy_from_slice(field);
        self.write(db, key, HASH, |key| {
            let sum = added(key.shown(&field)?, by, OpError::HashNotInteger)?;
            key.increment(&field, i128::from(by))?;
            Ok(sum)
        })
    }

    /// Fields of a hash, counted. O(1).
    pub fn hash_len(&mut self, db: u16, key: &[u8]) -> OpResult<u64> {
        let Some(place) = self.open_as(db, key, HASH)? else { return Ok(0) };
        Ok(self.at(place).rows(HASH))
    }

    /// Visits the fields of a hash with their values, in the order of their places.
    pub fn hash_fields(&mut self, db: u16, key: &[u8], visit: &mut Visit<'_>) -> OpResult<()> {
        self.hash_fields_from(db, key, Cursor::START, visit)
    }

    /// The same from one place on.
    pub fn hash_fields_from(
        &mut self,
        db: u16,
        key: &[u8],
        from: Cursor,
        visit: &mut Visit<'_>,
    ) -> OpResult<()> {
        let Some(place) = self.open_as(db, key, HASH)? else { return Ok(()) };
        self.visit_shown((db, key), HASH, from, place, &mut |field, shown| {
            visit(field, &shown.text())
        })
    }
}
