//! Strings and numbers: a multi-value register read as last-writer-wins, plus increments.
//!
//! A SET supersedes what its node had seen; concurrent ones stay side by side until the next write, and
//! the greatest (stamp, dot) is shown. An INCR adds to its own node's entry, so concurrent ones add up;
//! the number is base plus increments (MODEL M2).

use std::borrow::Cow;

use bytes::Bytes;

use super::{Kind, Slot, TypeRecord};
use crate::causal::Millis;
use crate::commit::RowKey;
use crate::row::{Shown, parse_integer};
use crate::store::Store;
use crate::txn::{OpError, OpResult, SiblingInfo, Ttl, Txn};

pub(super) static TYPE: TypeRecord = TypeRecord {
    slot: Slot::String,
    name: "string",
    kind: Some(Kind::String),
    single: true,
    counts: true,
    validate: |_| Ok(()),
    sample: |seed| seed.to_string().into_bytes(),
};

/// Adds to a shown value; `not_integer` is what a value that is no number gives.
pub(super) fn added(shown: Option<Shown<'_>>, by: i64, not_integer: OpError) -> OpResult<i64> {
    let current = match shown {
        None => 0,
        Some(Shown::Number(number)) => number,
        Some(Shown::Payload(text)) => parse_integer(text).ok_or(not_integer)?,
    };
    current.checked_add(by).ok_or(OpError::Overflow)
}

impl<S: Store> Txn<'_, S> {
    /// The string or number of a key.
    pub fn get(&mut self, db: u16, key: &[u8]) -> OpResult<Option<Bytes>> {
        Ok(self.shown(db, key)?.map(Shown::into_bytes))
    }

    /// The string or number of a key, to look at where it lies.
    pub fn view(&mut self, db: u16, key: &[u8]) -> OpResult<Option<Cow<'_, [u8]>>> {
        Ok(self.shown(db, key)?.map(Shown::text))
    }

    fn shown(&mut self, db: u16, key: &[u8]) -> OpResult<Option<Shown<'_>>> {
        let Some(place) = self.open_as(db, key, Slot::String)? else { return Ok(None) };
        let header = self.at(place);
        Ok(header.string.shown(header.hidden))
    }

    /// Overwrites a key of any type.
    pub fn set(&mut self, db: u16, key: &[u8], value: Bytes, ttl: Ttl) -> OpResult<()> {
        self.replacing(db, Some(key), |txn| txn.set_read(db, key, value.clone(), ttl)).map(drop)
    }

    fn set_read(&mut self, db: u16, key: &[u8], value: Bytes, ttl: Ttl) -> OpResult<()> {
        let place = self.open_for_write(db, key)?;
        let header = self.at(place);
        let ttl = match ttl {
            Ttl::Keep if header.visible().is_none() => Ttl::Clear,
            ttl => ttl,
        };
        let decision = header.decision().filter(|decision| decision.time.is_some()).cloned();
        let seen = self.decisions(place);
        if !self.at(place).slots.is_empty() {
            self.remove_key(db, key)?;
        }
        let row = RowKey::single(db, Bytes::copy_from_slice(key), Slot::String);
        self.put(row, value)?;
        match (ttl, decision) {
            (Ttl::At(time), _) => self.decide(db, key, Some(time), &seen),
            (Ttl::Keep, Some(decision)) => {
                let row = RowKey::single(db, Bytes::copy_from_slice(key), Slot::Deadline);
                self.put(row, decision.copy())
            }
            // "None" is a decision as well, or a concurrent copy of the old one would bring it back.
            (Ttl::Clear, Some(_)) => self.decide(db, key, None, &seen),
            (Ttl::Keep | Ttl::Clear, None) => Ok(()),
        }
    }

    /// Adds to a number; an absent key counts as 0. Returns the sum.
    pub fn increment(&mut self, db: u16, key: &[u8], by: i64) -> OpResult<i64> {
        let place = self.open_for_write_as(db, key, Slot::String)?;
        let header = self.at(place);
        let sum = added(header.string.shown(header.hidden), by, OpError::NotInteger)?;
        let row = RowKey::single(db, Bytes::copy_from_slice(key), Slot::String);
        self.change(row, |row, dot, hlc| row.increment(dot, hlc, i128::from(by)))?;
        self.stamp_deadline(db, key)?;
        Ok(sum)
    }

    /// Appends to a string; an absent key counts as empty. Returns the length.
    pub fn append(&mut self, db: u16, key: &[u8], tail: &[u8]) -> OpResult<usize> {
        let place = self.open_for_write_as(db, key, Slot::String)?;
        let header = self.at(place);
        let shown = header.string.shown(header.hidden).map(Shown::text).unwrap_or_default();
        let mut value = Vec::with_capacity(shown.len() + tail.len());
        value.extend_from_slice(&shown);
        value.extend_from_slice(tail);
        let len = value.len();
        let row = RowKey::single(db, Bytes::copy_from_slice(key), Slot::String);
        self.put(row, Bytes::from(value))?;
        self.stamp_deadline(db, key)?;
        Ok(len)
    }

    /// All writes of a string that none has superseded, winner first.
    pub fn siblings(&mut self, db: u16, key: &[u8]) -> OpResult<Vec<SiblingInfo>> {
        let Some(place) = self.open_as(db, key, Slot::String)? else { return Ok(Vec::new()) };
        let header = self.at(place);
        let hidden: Millis = header.hidden;
        let visible = header.string.siblings().iter().filter(|sibling| sibling.is_after(hidden));
        Ok(visible
            .map(|sibling| SiblingInfo {
                value: sibling.payload.clone(),
                dot: sibling.dot,
                hlc: sibling.stamp.hlc,
            })
            .collect())
    }
}
