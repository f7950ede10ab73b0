//! Rows as the store has them.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Outcome, corrupt};
use crate::codec::{CodecError, Reader, Writer};
use crate::header::Header;
use crate::row::{Origins, Plain, Row};
use crate::store::{Family, Hole, Read, StoreError, Visit, keys};

/// Values of a family of the store.
pub(super) trait Stored: Default {
    /// Whether it says no more than that there is nothing.
    fn is_blank(&self) -> bool;
    /// Appends the stored form.
    fn save(&self, out: &mut Writer, origins: &mut Origins);
    /// Reads it.
    fn load(input: Reader<'_>, origins: &Origins) -> Outcome<Self>;
}

/// Stamps may have a lead; in the first format none has.
const ROW_FORMAT: u8 = 2;
/// One write and nothing else.
const PLAIN: u8 = 3;

/// Reads a stored row.
pub(crate) fn parse_row(mut input: Reader<'_>, origins: &Origins) -> Result<Row, CodecError> {
    if input.one_of(1..=PLAIN)? == PLAIN {
        return Row::decode_plain(&mut input, origins);
    }
    let row = Row::decode(&mut input, origins)?;
    input.end()?;
    Ok(row)
}

/// A stored row, if it is plain.
#[inline]
pub(super) fn plain(stored: &[u8]) -> Option<Plain<'_>> {
    let mut input = Reader::new(stored);
    (input.u8() == Ok(PLAIN)).then(|| Plain::read(input).ok())?
}

impl Stored for Row {
    fn is_blank(&self) -> bool {
        self.is_empty()
    }

    fn save(&self, out: &mut Writer, origins: &mut Origins) {
        match self.plain() {
            Some(sibling) => {
                out.u8(PLAIN);
                Row::encode_plain(sibling, out, origins);
            }
            None => {
                out.u8(ROW_FORMAT);
                self.encode(out, origins);
            }
        }
    }

    fn load(input: Reader<'_>, origins: &Origins) -> Outcome<Row> {
        parse_row(input, origins).map_err(|error| StoreError::corrupt("row", error))
    }
}

impl Stored for Header {
    fn is_blank(&self) -> bool {
        Header::is_blank(self)
    }

    fn save(&self, out: &mut Writer, origins: &mut Origins) {
        self.encode(out, origins);
    }

    fn load(input: Reader<'_>, origins: &Origins) -> Outcome<Header> {
        Header::decode(input, origins)
            .map_err(|error| StoreError::corrupt("record of a key", error))
    }
}

const WEIGHT_FORMAT: u8 = 1;

impl Stored for u64 {
    fn is_blank(&self) -> bool {
        *self == 0
    }

    fn save(&self, out: &mut Writer, _origins: &mut Origins) {
        out.u8(WEIGHT_FORMAT);
        out.varint(*self);
    }

    fn load(input: Reader<'_>, _origins: &Origins) -> Outcome<u64> {
        input
            .format(WEIGHT_FORMAT)
            .and_then(|mut input| input.varint())
            .map_err(|error| StoreError::corrupt("weight", error))
    }
}

/// A store without what was given up and still lies there.
pub(super) struct Kept<'s, S> {
    pub(super) store: &'s S,
    pub(super) erased: &'s [(u64, Hole)],
}

impl<S: Read> Read for Kept<'_, S> {
    fn get(&self, family: Family, key: &[u8]) -> Outcome<Option<Bytes>> {
        let within = |(_, hole): &(u64, Hole)| hole.holds(family, key);
        if self.erased.iter().any(within) { Ok(None) } else { self.store.get(family, key) }
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Outcome<()> {
        if self.erased.is_empty() {
            return self.store.scan(family, from, to, visit);
        }
        let mut from = from.to_vec();
        loop {
            let behind =
                |hole: &&Hole| hole.family == family && (hole.to.is_empty() || from < hole.to);
            let holes = self.erased.iter().map(|(_, hole)| hole).filter(behind);
            let Some(next) = holes.min_by(|one, other| one.from.cmp(&other.from)) else {
                return self.store.scan(family, &from, to, visit);
            };
            if !to.is_empty() && *next.from >= *to {
                return self.store.scan(family, &from, to, visit);
            }
            if from < next.from {
                let mut stopped = false;
                let mut seen = from.clone();
                let scanned = self.store.scan(family, &from, &next.from, &mut |key, value| {
                    seen = key.to_vec();
                    seen.push(0);
                    let flow = visit(key, value);
                    stopped = flow.is_break();
                    flow
                });
                if stopped {
                    return Ok(());
                }
                // To find that nothing is left before it, the store may look into what was given up.
                let ends = || self.store.skip(family, &seen, &next.from).is_none();
                if !(is_unreadable(&scanned) && ends()) {
                    scanned?;
                }
            }
            if next.to.is_empty() || (!to.is_empty() && *next.to >= *to) {
                return Ok(());
            }
            from.clone_from(&next.to);
        }
    }

    fn skip(&self, family: Family, from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
        self.store.skip(family, from, to)
    }
}

/// Whether what was tried has met what cannot be read.
pub(crate) fn is_unreadable<T>(outcome: &Outcome<T>) -> bool {
    matches!(outcome, Err(StoreError::Corrupt(_)))
}

pub(crate) fn load_origins<R: Read>(store: &R) -> Outcome<Origins> {
    let mut origins = Origins::default();
    let mut damaged = false;
    let from = [keys::ORIGIN];
    store.scan(Family::System, &from, &keys::prefix_end(&from), &mut |_, value| {
        match value.try_into() {
            Ok(bytes) => origins.push(crate::causal::Origin::from_bytes(bytes)),
            Err(_) => damaged = true,
        }
        ControlFlow::Continue(())
    })?;
    if damaged { corrupt("origin") } else { Ok(origins) }
}
