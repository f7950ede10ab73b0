//! Sets: add-wins (observed-remove), a row per member.
//!
//! A member is there while any dot in its row is: a removal takes the dots that its node had seen, so a
//! concurrent addition stays (Shapiro, Preguiça, Baquero, Zawirski: "Conflict-free Replicated Data
//! Types", 2011, without tombstones as in Bieniusa et al., 2012). Adding a member that is there takes a
//! new dot, or a concurrent removal would win over it. Never one blob per set: SADD is O(1) at any size.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Kind, Slot, TypeRecord};
use crate::codec::CodecError;
use crate::commit::RowKey;
use crate::store::Store;
use crate::txn::{OpResult, Txn};

pub(super) static TYPE: TypeRecord = TypeRecord {
    slot: Slot::Set,
    name: "set",
    kind: Some(Kind::Set),
    single: false,
    counts: false,
    validate: |payload| {
        if payload.is_empty() { Ok(()) } else { Err(CodecError::Invalid("member")) }
    },
    sample: |_| Vec::new(),
};

fn member_row(db: u16, key: &Bytes, member: &Bytes) -> RowKey {
    RowKey { db, key: key.clone(), slot: Slot::Set, subkey: member.clone() }
}

impl<S: Store> Txn<'_, S> {
    /// Adds members; returns how many were not there.
    pub fn set_add(&mut self, db: u16, key: &[u8], members: &[Bytes]) -> OpResult<u64> {
        let place = self.open_for_write_as(db, key, Slot::Set)?;
        let before = self.at(place).rows(Slot::Set);
        let key = Bytes::copy_from_slice(key);
        for member in members {
            #[cfg(feature = "planted")]
            if self.takes_no_dot(&member_row(db, &key, member))? {
                continue;
            }
            self.put(member_row(db, &key, member), Bytes::new())?;
        }
        self.stamp_birth(db, &key, Slot::Set, before > 0)?;
        self.stamp_deadline(db, &key)?;
        Ok(self.at(place).rows(Slot::Set) - before)
    }

    /// Removes members; returns how many were there. The last one takes the key with it.
    pub fn set_remove(&mut self, db: u16, key: &[u8], members: &[Bytes]) -> OpResult<u64> {
        let place = self.open_for_write_as(db, key, Slot::Set)?;
        let before = self.at(place).rows(Slot::Set);
        if before == 0 {
            return Ok(0);
        }
        let key = Bytes::copy_from_slice(key);
        for member in members {
            self.remove(member_row(db, &key, member))?;
        }
        let after = self.at(place).rows(Slot::Set);
        if after == 0 {
            self.remove_key(db, &key)?;
        }
        Ok(before - after)
    }

    /// Whether a set or derived key has a member.
    pub fn set_contains(&mut self, db: u16, key: &[u8], member: &[u8]) -> OpResult<bool> {
        let Some(place) = self.open_as(db, key, Slot::Set)? else { return Ok(false) };
        if self.at(place).derived.is_some() {
            return Ok(self.weight(db, key, member)? > 0);
        }
        let hidden = self.at(place).hidden;
        let key = Bytes::copy_from_slice(key);
        let row = self.row(&member_row(db, &key, &Bytes::copy_from_slice(member)))?;
        Ok(row.is_visible(hidden))
    }

    /// Members of a set or derived key, counted. O(1).
    pub fn set_len(&mut self, db: u16, key: &[u8]) -> OpResult<u64> {
        let Some(place) = self.open_as(db, key, Slot::Set)? else { return Ok(0) };
        let header = self.at(place);
        Ok(header.derived.unwrap_or_else(|| header.rows(Slot::Set)))
    }

    /// Visits the members of a set or derived key in byte order.
    pub fn set_members(
        &mut self,
        db: u16,
        key: &[u8],
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> OpResult<()> {
        match self.open_as(db, key, Slot::Set)? {
            Some(_) => self.visit_elements(db, key, visit),
            None => Ok(()),
        }
    }
}
