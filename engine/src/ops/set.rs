//! Sets: members added and removed, derived keys read.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::crdt::set::SET;
use crate::name::Cursor;
use crate::store::Store;
use crate::txn::{OpResult, Txn};

impl<S: Store> Txn<'_, S> {
    /// Adds members; returns how many were not there.
    pub fn set_add(&mut self, db: u16, key: &[u8], members: &[Bytes]) -> OpResult<u64> {
        self.write(db, key, SET, |key| {
            members.iter().try_for_each(|member| key.put(member, Bytes::new()))?;
            Ok(key.rows() - key.before())
        })
    }

    /// Removes members; returns how many were there. The last one takes the key with it.
    pub fn set_remove(&mut self, db: u16, key: &[u8], members: &[Bytes]) -> OpResult<u64> {
        self.write(db, key, SET, |key| key.remove_all(members))
    }

    /// Whether a set or derived key has a member.
    pub fn set_contains(&mut self, db: u16, key: &[u8], member: &[u8]) -> OpResult<bool> {
        match self.open_as(db, key, SET)? {
            None => Ok(false),
            Some(place) if self.at(place).derived.is_some() => {
                Ok(self.weight(db, key, member)? > 0)
            }
            Some(place) => Ok(self.read_at((db, key), place, SET, member)?.is_some()),
        }
    }

    /// Members of a set or derived key, counted. O(1).
    pub fn set_len(&mut self, db: u16, key: &[u8]) -> OpResult<u64> {
        let Some(place) = self.open_as(db, key, SET)? else { return Ok(0) };
        let header = self.at(place);
        Ok(header.derived.unwrap_or_else(|| header.rows(SET)))
    }

    /// Visits the members of a set or derived key in the order of their places.
    pub fn set_members(
        &mut self,
        db: u16,
        key: &[u8],
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> OpResult<()> {
        self.set_members_from(db, key, Cursor::START, visit)
    }

    /// The same from one place on.
    pub fn set_members_from(
        &mut self,
        db: u16,
        key: &[u8],
        from: Cursor,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> OpResult<()> {
        match self.open_as(db, key, SET)? {
            Some(_) => self.visit_elements(db, key, from, visit),
            None => Ok(()),
        }
    }
}
