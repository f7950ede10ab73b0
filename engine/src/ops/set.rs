//! Sets: members added and removed, derived keys read.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::crdt::set::SET;
use crate::name::{Cursor, hash};
use crate::store::Store;
use crate::txn::{OpResult, Txn};

/// Members of a set in the order of their places.
#[derive(Debug, Default)]
pub struct Members {
    bytes: Vec<u8>,
    /// The hash of each, and where it ends.
    ends: Vec<(u64, usize)>,
}

/// So many times as many members are passed over rather than few are looked up.
const PASSED: u64 = 8;

/// What a member takes, roughly; and members for which room is made before they are there.
const MEMBER: usize = 16;
const ROOM: u64 = 1 << 12;

impl Members {
    fn with_room(members: u64) -> Members {
        let members = members.min(ROOM) as usize;
        let bytes = Vec::with_capacity(members * MEMBER);
        Members { bytes, ends: Vec::with_capacity(members) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The members.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.places().map(|(_, member)| member)
    }

    /// The same with their hashes.
    fn places(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut from = 0;
        self.ends
            .iter()
            .map(move |(hash, end)| (*hash, &self.bytes[std::mem::replace(&mut from, *end)..*end]))
    }

    fn push(&mut self, hash: u64, member: &[u8]) {
        self.bytes.extend_from_slice(member);
        self.ends.push((hash, self.bytes.len()));
    }
}

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

    /// Members that all of these sets or derived keys have. Cost: the smallest one, and for each of the
    /// others some times that, or itself if it is smaller.
    pub fn set_inter(&mut self, db: u16, keys: &[&[u8]]) -> OpResult<Members> {
        // Every key's type is checked, also behind an empty one.
        let mut lens = Vec::with_capacity(keys.len());
        for key in keys {
            lens.push(self.set_len(db, key)?);
        }
        let Some(smallest) = (0..keys.len()).min_by_key(|at| lens[*at]) else {
            return Ok(Members::default());
        };
        let mut found = Members::default();
        if lens[smallest] > 0 {
            found = self.all_members(db, keys[smallest], lens[smallest])?;
        }
        for (at, key) in keys.iter().enumerate() {
            if at != smallest && !found.is_empty() {
                found = self.members_in(db, key, lens[at], &found, true)?;
            }
        }
        Ok(found)
    }

    /// Members of the first of these sets or derived keys that none of the others has. Cost: as for
    /// [`set_inter`](Txn::set_inter), beginning with the first one.
    pub fn set_diff(&mut self, db: u16, keys: &[&[u8]]) -> OpResult<Members> {
        let mut lens = Vec::with_capacity(keys.len());
        for key in keys {
            lens.push(self.set_len(db, key)?);
        }
        let [first, others @ ..] = keys else { return Ok(Members::default()) };
        let mut found = self.all_members(db, first, lens[0])?;
        for (key, len) in others.iter().zip(&lens[1..]) {
            if *len > 0 && !found.is_empty() {
                found = self.members_in(db, key, *len, &found, false)?;
            }
        }
        Ok(found)
    }

    fn all_members(&mut self, db: u16, key: &[u8], len: u64) -> OpResult<Members> {
        let mut found = Members::with_room(len);
        self.set_members(db, key, &mut |member| {
            found.push(hash(member), member);
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Those of `members` that a set of so many has, or does not have.
    fn members_in(
        &mut self,
        db: u16,
        key: &[u8],
        len: u64,
        members: &Members,
        has: bool,
    ) -> OpResult<Members> {
        let mut found = Members::with_room(members.len() as u64);
        if len / PASSED > members.len() as u64 {
            let Some(place) = self.open_as(db, key, SET)? else { return Ok(found) };
            let told = self.have_elements((db, key), place, members.places(), |it, its| {
                if its == has {
                    found.push(it.0, it.1);
                }
            });
            return told.map(|()| found);
        }
        // Both are in the same order.
        let mut rest = members.places().peekable();
        self.set_members(db, key, &mut |other| {
            let place = (hash(other), other);
            while let Some((hash, member)) = rest.next_if(|it| *it < place) {
                if !has {
                    found.push(hash, member);
                }
            }
            if let Some((hash, member)) = rest.next_if(|it| *it == place)
                && has
            {
                found.push(hash, member);
            }
            match rest.peek() {
                Some(_) => ControlFlow::Continue(()),
                None => ControlFlow::Break(()),
            }
        })?;
        if !has {
            rest.for_each(|(hash, member)| found.push(hash, member));
        }
        Ok(found)
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
