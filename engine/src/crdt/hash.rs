//! Hashes: a register per field, number-capable like a string; fields are add-wins like members.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::string::added;
use super::{Kind, Slot, TypeRecord};
use crate::commit::RowKey;
use crate::row::Shown;
use crate::store::{Store, Visit};
use crate::txn::{OpError, OpResult, Txn};

pub(super) static TYPE: TypeRecord = TypeRecord {
    slot: Slot::Hash,
    name: "hash",
    kind: Some(Kind::Hash),
    single: false,
    counts: true,
    validate: |_| Ok(()),
    sample: |seed| seed.to_string().into_bytes(),
};

fn field_row(db: u16, key: &Bytes, field: &[u8]) -> RowKey {
    let subkey = Bytes::copy_from_slice(field);
    RowKey { db, key: key.clone(), slot: Slot::Hash, subkey }
}

impl<S: Store> Txn<'_, S> {
    /// Sets fields; returns how many were not there.
    pub fn hash_set(&mut self, db: u16, key: &[u8], fields: &[(Bytes, Bytes)]) -> OpResult<u64> {
        let place = self.open_for_write_as(db, key, Slot::Hash)?;
        let before = self.at(place).rows(Slot::Hash);
        let key = Bytes::copy_from_slice(key);
        for (field, value) in fields {
            self.put(field_row(db, &key, field), value.clone())?;
        }
        self.stamp_birth(db, &key, Slot::Hash, before > 0)?;
        self.stamp_deadline(db, &key)?;
        Ok(self.at(place).rows(Slot::Hash) - before)
    }

    /// The value of a field.
    pub fn hash_get(&mut self, db: u16, key: &[u8], field: &[u8]) -> OpResult<Option<Bytes>> {
        let Some(place) = self.open_as(db, key, Slot::Hash)? else { return Ok(None) };
        let hidden = self.at(place).hidden;
        let row = self.row(&field_row(db, &Bytes::copy_from_slice(key), field))?;
        Ok(row.shown(hidden).map(Shown::into_bytes))
    }

    /// Removes fields; returns how many were there. The last one takes the key with it.
    pub fn hash_remove(&mut self, db: u16, key: &[u8], fields: &[Bytes]) -> OpResult<u64> {
        let place = self.open_for_write_as(db, key, Slot::Hash)?;
        let before = self.at(place).rows(Slot::Hash);
        if before == 0 {
            return Ok(0);
        }
        let key = Bytes::copy_from_slice(key);
        for field in fields {
            self.remove(field_row(db, &key, field))?;
        }
        let after = self.at(place).rows(Slot::Hash);
        if after == 0 {
            self.remove_key(db, &key)?;
        }
        Ok(before - after)
    }

    /// Adds to a field's number; an absent field counts as 0. Returns the sum.
    pub fn hash_increment(&mut self, db: u16, key: &[u8], field: &[u8], by: i64) -> OpResult<i64> {
        let place = self.open_for_write_as(db, key, Slot::Hash)?;
        let hidden = self.at(place).hidden;
        let lived = self.at(place).rows(Slot::Hash) > 0;
        let key = Bytes::copy_from_slice(key);
        let name = field_row(db, &key, field);
        let sum = added(self.row(&name)?.shown(hidden), by, OpError::HashNotInteger)?;
        self.change(name, |row, dot, hlc| row.increment(dot, hlc, i128::from(by)))?;
        self.stamp_birth(db, &key, Slot::Hash, lived)?;
        self.stamp_deadline(db, &key)?;
        Ok(sum)
    }

    /// Fields of a hash, counted. O(1).
    pub fn hash_len(&mut self, db: u16, key: &[u8]) -> OpResult<u64> {
        let Some(place) = self.open_as(db, key, Slot::Hash)? else { return Ok(0) };
        Ok(self.at(place).rows(Slot::Hash))
    }

    /// Visits the fields of a hash with their values, in byte order.
    pub fn hash_fields(&mut self, db: u16, key: &[u8], visit: &mut Visit<'_>) -> OpResult<()> {
        let Some(place) = self.open_as(db, key, Slot::Hash)? else { return Ok(()) };
        let hidden = self.at(place).hidden;
        self.visit_rows(db, key, Slot::Hash, &mut |field, row| match row.shown(hidden) {
            Some(shown) => visit(field, &shown.text()),
            None => ControlFlow::Continue(()),
        })
    }
}
