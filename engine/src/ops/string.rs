//! Strings and numbers: SET, INCR, APPEND, and the writes that none has superseded.

use std::borrow::Cow;

use bytes::Bytes;

use crate::crdt::string::STRING;
use crate::row::{Shown, parse_integer};
use crate::store::Store;
use crate::txn::{OpError, OpResult, SiblingInfo, Ttl, Txn};

/// The subkey of the one row.
const ONLY: Bytes = Bytes::new();

/// Adds to a shown value; `not_integer` is what a value that is no number gives.
pub(super) fn added(shown: Option<Shown<'_>>, by: i64, not_integer: OpError) -> OpResult<i64> {
    let current = match shown {
        None => 0,
        Some(Shown::Number(number)) => number,
        Some(shown) => parse_integer(&shown.text()).ok_or(not_integer)?,
    };
    current.checked_add(by).ok_or(OpError::Overflow)
}

impl<S: Store> Txn<'_, S> {
    /// The string or number of a key.
    pub fn get(&mut self, db: u16, key: &[u8]) -> OpResult<Option<Bytes>> {
        Ok(self.read(db, key, STRING, &ONLY)?.map(Shown::into_bytes))
    }

    /// The string or number of a key, to look at where it lies.
    pub fn view(&mut self, db: u16, key: &[u8]) -> OpResult<Option<Cow<'_, [u8]>>> {
        Ok(self.read(db, key, STRING, &ONLY)?.map(Shown::text))
    }

    /// Overwrites a key of any type.
    pub fn set(&mut self, db: u16, key: &[u8], value: Bytes, ttl: Ttl) -> OpResult<()> {
        self.overwrite(db, key, STRING, value, ttl)
    }

    /// Adds to a number; an absent key counts as 0. Returns the sum.
    pub fn increment(&mut self, db: u16, key: &[u8], by: i64) -> OpResult<i64> {
        self.write(db, key, STRING, |key| {
            let sum = added(key.shown(&ONLY)?, by, OpError::NotInteger)?;
            key.increment(&ONLY, i128::from(by))?;
            Ok(sum)
        })
    }

    /// Appends to a string; an absent key counts as empty. Returns the length.
    pub fn append(&mut self, db: u16, key: &[u8], tail: &[u8]) -> OpResult<usize> {
        self.write(db, key, STRING, |key| {
            let shown = key.shown(&ONLY)?.map(Shown::text).unwrap_or_default();
            let value = [&*shown, tail].concat();
            let len = value.len();
            key.put(&ONLY, Bytes::from(value))?;
            Ok(len)
        })
    }

    /// All writes of a string that none has superseded, winner first.
    pub fn siblings(&mut self, db: u16, key: &[u8]) -> OpResult<Vec<SiblingInfo>> {
        let Some(place) = self.open_as(db, key, STRING)? else { return Ok(Vec::new()) };
        let header = self.at(place);
        let siblings = header.single(STRING).siblings().iter();
        let visible = siblings.filter(|sibling| sibling.is_after(header.hidden));
        Ok(visible
            .map(|sibling| SiblingInfo {
                value: sibling.payload.clone(),
                dot: sibling.dot,
                hlc: sibling.stamp.hlc,
            })
            .collect())
    }
}
