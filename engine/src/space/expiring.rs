//! How many keys of each db are there and have a deadline, and when these are on average.
//!
//! Kept change by change like the number of keys, and stored with each generation in a record of its own,
//! which says what log position it belongs to: where there is none of the right one (a directory of a
//! version that did not have it), the keys on the list of deadlines are counted.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::whole::at;
use super::{Outcome, Space};
use crate::causal::{LogPosition, Millis};
use crate::codec::{CodecError, Reader, Writer};
use crate::header::Header;
use crate::name::Slot;
use crate::store::{Family, Store, StoreError, keys};

const FORMAT: u8 = 1;

/// What a db counts of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// What clients see of it.
    pub(crate) visible: Option<Slot>,
    /// When that goes.
    pub(crate) expires: Option<Millis>,
}

impl Counted {
    #[inline]
    pub(crate) fn of(header: &Header) -> Counted {
        let visible = header.visible();
        // A passed deadline says nothing of what was written after it, nor that of client data of a view.
        let applies = || visible.is_some() && header.hidden.0 == 0 && header.derived.is_none();
        Counted { visible, expires: header.expires().filter(|_| applies()) }
    }
}

/// Keys with a deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expiring {
    pub(crate) keys: u64,
    /// All their deadlines added up, in milliseconds since 1970.
    pub(crate) sum: u128,
}

impl Expiring {
    fn change(&mut self, before: Option<Millis>, after: Option<Millis>) {
        self.keys =
            (self.keys + u64::from(after.is_some())).saturating_sub(u64::from(before.is_some()));
        let ms = |time: Option<Millis>| u128::from(time.map_or(0, |time| time.0));
        self.sum = (self.sum + ms(after)).saturating_sub(ms(before));
    }
}

impl<S: Store> Space<S> {
    /// Keys of a db with a deadline, and the mean of what is left of their time at `now`. O(1).
    pub(crate) fn expires(&self, db: u16, now: Millis) -> (u64, Millis) {
        let all = self.expiring.get(usize::from(db)).copied().unwrap_or_default();
        let mean = all.sum.checked_div(u128::from(all.keys)).unwrap_or(0);
        let left = mean.saturating_sub(u128::from(now.0));
        (all.keys, Millis(u64::try_from(left).unwrap_or(u64::MAX)))
    }

    /// Keeps what the db counts of its keys.
    #[inline]
    pub(super) fn recount(&mut self, db: u16, before: Counted, after: Counted) {
        let (was, is) = (before.visible.is_some(), after.visible.is_some());
        if was != is {
            let count = at(&mut self.counts, db);
            // Of a record that was given up it is not known whether it was counted.
            *count = (*count + u64::from(is)).saturating_sub(u64::from(was));
        }
        if before.expires != after.expires {
            at(&mut self.expiring, db).change(before.expires, after.expires);
        }
    }

    /// The record, for a generation that ends at that position.
    pub(super) fn expiring_record(&self, position: LogPosition) -> Writer {
        let mut out = Writer::with_format(FORMAT);
        out.varint(position.0);
        out.varint(self.expiring.len() as u64);
        for Expiring { keys, sum } in &self.expiring {
            out.varint(*keys);
            out.u64((sum >> 64) as u64);
            out.u64(*sum as u64);
        }
        out
    }

    /// Reads the record of that position, or counts.
    pub(super) fn load_expiring(&mut self, position: LogPosition) -> Outcome<()> {
        let record = self.resident.store.get(Family::System, keys::EXPIRING)?;
        let kept = record.and_then(|record| decode(&record, position).ok().flatten());
        match kept {
            Some(kept) => self.expiring = kept,
            None => self.count_expiring()?,
        }
        Ok(())
    }

    /// Cost: the list of deadlines, and the records of its keys.
    fn count_expiring(&mut self) -> Outcome<()> {
        let mut listed = Vec::new();
        self.visit_all_deadlines(&mut |key| {
            if let Some((time, db, name)) = keys::split_deadline(key) {
                listed.push((time, db, Bytes::copy_from_slice(name)));
            }
            ControlFlow::Continue(())
        })?;
        for (time, db, key) in listed {
            let place = match self.header(db, &key) {
                Err(StoreError::Corrupt(_)) => continue,
                found => found?,
            };
            let after = Counted::of(&self.headers[place]);
            // One key may be listed with a deadline that it does not have any more.
            if after.expires == Some(time) {
                self.recount(db, Counted { expires: None, ..after }, after);
            }
        }
        Ok(())
    }
}

/// `None`: it is the record of another position.
fn decode(record: &[u8], position: LogPosition) -> Result<Option<Vec<Expiring>>, CodecError> {
    let mut input = Reader::with_format(record, FORMAT)?;
    if input.varint()? != position.0 {
        return Ok(None);
    }
    let mut kept = Vec::new();
    for _ in 0..input.count(17)? {
        let keys = input.varint()?;
        let sum = u128::from(input.u64()?) << 64 | u128::from(input.u64()?);
        kept.push(Expiring { keys, sum });
    }
    input.end()?;
    Ok(Some(kept))
}
