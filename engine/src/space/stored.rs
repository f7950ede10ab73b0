//! Rows as the store has them, and both sides as one: what lies in the store, and what it does not have yet.

use std::ops::ControlFlow;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Outcome, corrupt};
use crate::cache::{Cache, Weigh};
use crate::codec::{CodecError, Reader, Writer};
use crate::header::Header;
use crate::row::{Origins, Row};
use crate::store::{Family, Hole, Read, Run, StoreError, Visit, keys, scan_on};

/// Values that lie in a cache and in a family of the store.
pub(super) trait Stored: Weigh + Sized {
    /// Appends the stored form; false if there is nothing to store.
    fn save(&self, out: &mut Writer, origins: &mut Origins) -> bool;
    fn load(input: Reader<'_>, origins: &Origins) -> Outcome<Self>;
}

/// Stamps may have a lead; in the first format none has.
const ROW_FORMAT: u8 = 2;

/// Reads a stored row.
pub(crate) fn parse_row(mut input: Reader<'_>, origins: &Origins) -> Result<Row, CodecError> {
    input.one_of(1..=ROW_FORMAT)?;
    let row = Row::decode(&mut input, origins)?;
    input.end()?;
    Ok(row)
}

impl Stored for Row {
    fn save(&self, out: &mut Writer, origins: &mut Origins) -> bool {
        out.u8(ROW_FORMAT);
        self.encode(out, origins);
        !self.is_empty()
    }

    fn load(input: Reader<'_>, origins: &Origins) -> Outcome<Row> {
        parse_row(input, origins).map_err(|error| StoreError::corrupt("row", error))
    }
}

impl Stored for Header {
    fn save(&self, out: &mut Writer, origins: &mut Origins) -> bool {
        self.encode(out, origins);
        !self.is_blank()
    }

    fn load(input: Reader<'_>, origins: &Origins) -> Outcome<Header> {
        Header::decode(input, origins)
            .map_err(|error| StoreError::corrupt("record of a key", error))
    }
}

const WEIGHT_FORMAT: u8 = 1;

impl Stored for u64 {
    fn save(&self, out: &mut Writer, _origins: &mut Origins) -> bool {
        out.u8(WEIGHT_FORMAT);
        out.varint(*self);
        *self > 0
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
    /// By which its rows are read.
    pub(super) origins: &'s Origins,
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

pub(super) fn put_unwritten<V: Stored>(
    run: &mut Run,
    family: Family,
    cache: &mut Cache<V>,
    origins: &mut Origins,
) {
    cache.freeze(|key, value| run.encode(family, key, |out| value.save(out, origins)));
}

/// Visits `from <= key < to` of a family: the store's rows, and in their place or between them those that it
/// does not have yet, but not what is blank. With `holes` it passes over what cannot be read, and lists
/// that; without, it fails there.
pub(super) fn merged<S: Read, V: Stored>(
    store: &Kept<'_, S>,
    family: Family,
    cache: &mut Cache<V>,
    from: &[u8],
    to: &[u8],
    mut holes: Option<&mut Vec<Hole>>,
    mut visit: impl FnMut(&[u8], &V) -> ControlFlow<()>,
) -> Outcome<()> {
    cache.order();
    let mut blank = Vec::new();
    let cached = &*cache;
    let mut ours = cached.unwritten_range(from, to).peekable();
    // Cached or changed: what lies in the cache is never older than the store.
    let mut here = |key: &[u8], value: &V, ours: bool| {
        if !value.is_blank() {
            return visit(key, value);
        }
        if ours {
            blank.push(SmallVec::from_slice(key));
        }
        ControlFlow::Continue(())
    };
    let mut failed = None;
    let mut stopped = false;
    let mut undecoded = Vec::new();
    let passes = holes.is_some();
    let mut pass = |key: &[u8], bytes: &[u8]| {
        while let Some(mine) = ours.next_if(|mine| &***mine < key) {
            if let Some(value) = cached.peek(mine)
                && here(mine, value, true).is_break()
            {
                stopped = true;
                return ControlFlow::Break(());
            }
        }
        let flow = match (ours.next_if(|mine| &***mine == key), cached.peek(key)) {
            (mine, Some(value)) => here(key, value, mine.is_some()),
            (_, None) => match V::load(Reader::new(bytes), store.origins) {
                Ok(value) => here(key, &value, false),
                Err(_) if passes => {
                    undecoded.push(key.to_vec());
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            },
        };
        stopped |= flow.is_break();
        flow
    };
    match &mut holes {
        Some(holes) => scan_on(store, family, from, to, holes, &mut pass)?,
        None => store.scan(family, from, to, &mut pass)?,
    }
    if let Some(holes) = holes {
        holes.extend(undecoded.iter().map(|key| Hole::of(family, key)));
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if !stopped {
        for mine in ours.by_ref() {
            if let Some(value) = cached.peek(mine)
                && here(mine, value, true).is_break()
            {
                break;
            }
        }
    }
    drop(ours);
    cache.unlist(&blank);
    Ok(())
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
