//! The rows of a small collection, which lie in the record of their key.
//!
//! A tree of its own costs a key more than a few fields do, and another look at memory; so, as Redis does
//! with its listpacks, rows lie packed behind each other as long as they are few and small. The rows of one
//! commit have its stamp in common, and that is much of what a small row takes: a table has each stamp once,
//! with an origin and a seq to reckon from, and a row has its number there.
//!
//! First comes the length of the table, then the table, then the rows in the order of their places: name,
//! tag, payload. The tag is the number of the stamp and the seq less that of the table: two bits for numbers
//! up to 2, or 3 and then the number, and above them the seq. A row that is more than one write has tag 0,
//! and itself as [`Row::encode`] writes it.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::causal::{Dot, Millis, Stamp};
use crate::codec::{CodecError, Reader, Writer};
use crate::name::hash;
use crate::row::{Origins, Row, Shown, Sibling};

/// Rows of a small collection at most.
pub(crate) const MAX_ROWS: u64 = 64;
/// Bytes that they take at most, so that a record still lies in a page.
pub(crate) const MAX_BYTES: usize = 960;
/// Bytes of the name and the value of one of them at most.
const MAX_ROW: usize = 256;

/// The number of a row that is more than one write.
const WHOLE: u64 = 0;
/// No seq is as far from that of its stamp.
const FAR: u64 = 1 << 60;
/// In a tag: the number follows.
const MORE: u64 = 3;

fn write_tag(number: u64, seq: i64, out: &mut Writer) {
    out.varint(zigzag(seq) << 2 | number.min(MORE));
    if number >= MORE {
        out.varint(number);
    }
}

/// A number and a seq.
#[inline]
fn read_tag(input: &mut Reader<'_>) -> Result<(u64, i64), CodecError> {
    let tag = input.varint()?;
    let number = if tag & MORE == MORE { input.varint()? } else { tag & MORE };
    Ok((number, unzigzag(tag >> 2)))
}

/// Whether a row may be one of a small collection.
pub(crate) fn is_small(name: &[u8], row: &Row) -> bool {
    name.len() + row.heap_bytes() <= MAX_ROW
}

/// What rows of one commit have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Common {
    stamp: Stamp,
    /// By number, in the node's table.
    origin: u64,
    /// What their seqs are reckoned from.
    seq: u64,
}

impl Common {
    fn read(input: &mut Reader<'_>) -> Result<Common, CodecError> {
        Ok(Common { stamp: input.stamp()?, origin: input.varint()?, seq: input.varint()? })
    }

    fn write(&self, out: &mut Writer) {
        out.stamp(self.stamp);
        out.varint(self.origin);
        out.varint(self.seq);
    }

    /// Whether a write can be told by it: how far its seq is from here then.
    fn covers(&self, stamp: Stamp, origin: u64, seq: u64) -> Option<i64> {
        let away = seq.wrapping_sub(self.seq) as i64;
        (self.stamp == stamp && self.origin == origin && away.unsigned_abs() < FAR).then_some(away)
    }
}

type Table = SmallVec<[Common; 4]>;

/// The rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Small {
    bytes: Vec<u8>,
}

/// The same, where they lie.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'s> {
    table: &'s [u8],
    rows: &'s [u8],
}

/// One of them.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'s> {
    table: &'s [u8],
    /// Its place in the table, 0 for none.
    number: u64,
    seq: i64,
    /// Its payload; without a place in the table all of it.
    rest: &'s [u8],
}

/// A write by the number of its stamp in the table, and its seq less that of there.
#[derive(Clone, Copy)]
pub(crate) struct Reference {
    number: u64,
    seq: i64,
}

impl Reference {
    pub(crate) fn write(self, out: &mut Writer) {
        write_tag(self.number, self.seq, out);
    }

    pub(crate) fn read(input: &mut Reader<'_>) -> Result<Reference, CodecError> {
        let (number, seq) = read_tag(input)?;
        Ok(Reference { number, seq })
    }
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn unzigzag(bits: u64) -> i64 {
    (bits >> 1) as i64 ^ -((bits & 1) as i64)
}

impl<'s> Rows<'s> {
    /// Splits what is stored.
    pub(crate) fn of(bytes: &'s [u8]) -> Result<Rows<'s>, CodecError> {
        if bytes.is_empty() {
            return Ok(Rows { table: &[], rows: &[] });
        }
        let mut input = Reader::new(bytes);
        let table = input.bytes()?;
        Ok(Rows { table, rows: input.rest() })
    }

    /// Reads the row that comes next: its name, and the rest.
    #[inline]
    fn next(table: &'s [u8], input: &mut Reader<'s>) -> Result<(&'s [u8], Seen<'s>), CodecError> {
        let name = input.bytes()?;
        let (number, seq) = read_tag(input)?;
        Ok((name, Seen { table, number, seq, rest: input.bytes()? }))
    }

    /// All rows with their names, in the order of their places.
    #[inline]
    pub(crate) fn iter(self) -> impl Iterator<Item = (&'s [u8], Seen<'s>)> {
        let mut input = Reader::new(self.rows);
        std::iter::from_fn(move || {
            if input.is_empty() { None } else { Rows::next(self.table, &mut input).ok() }
        })
    }

    /// Those from a place on.
    pub(crate) fn from(self, place: u64) -> impl Iterator<Item = (&'s [u8], Seen<'s>)> {
        self.iter().skip_while(move |(name, _)| place > 0 && hash(name) < place)
    }

    /// A row by its name. O(rows).
    #[inline]
    pub(crate) fn find(self, name: &[u8]) -> Option<Seen<'s>> {
        self.iter().find(|(it, _)| *it == name).map(|(_, row)| row)
    }

    /// Where a row lies that is one write, or that there is none; otherwise it has to be decoded. O(rows).
    #[inline]
    pub(crate) fn glance(self, name: &[u8]) -> Option<Option<usize>> {
        let mut input = Reader::new(self.rows);
        while !input.is_empty() {
            let at = self.rows.len() - input.rest().len();
            let (it, row) = Rows::next(self.table, &mut input).ok()?;
            if it == name {
                return (row.number != WHOLE).then_some(Some(at));
            }
        }
        Some(None)
    }

    /// The row that lies there.
    pub(crate) fn at(self, at: usize) -> Option<Seen<'s>> {
        Some(Rows::next(self.table, &mut Reader::new(self.rows.get(at..)?)).ok()?.1)
    }

    /// Reads all that there is, to know that it can be read.
    fn check(self, origins: &Origins) -> Result<(), CodecError> {
        let mut table = Reader::new(self.table);
        let mut commons = Table::new();
        while !table.is_empty() {
            let common = Common::read(&mut table)?;
            origins.get(common.origin)?;
            commons.push(common);
        }
        let mut input = Reader::new(self.rows);
        while !input.is_empty() {
            let (_, row) = Rows::next(self.table, &mut input)?;
            if row.number == WHOLE {
                row.row(origins)?;
                continue;
            }
            let common = usize::try_from(row.number - 1).ok().and_then(|at| commons.get(at));
            let seq = common.and_then(|common| common.seq.checked_add_signed(row.seq));
            seq.ok_or(CodecError::Invalid("stamp"))?;
        }
        Ok(())
    }

    fn commons(self) -> Table {
        let mut input = Reader::new(self.table);
        std::iter::from_fn(|| Common::read(&mut input).ok()).collect()
    }
}

impl<'s> Seen<'s> {
    fn common(&self) -> Result<Common, CodecError> {
        let mut input = Reader::new(self.table);
        for _ in 1..self.number {
            Common::read(&mut input)?;
        }
        Common::read(&mut input)
    }

    /// What clients read of it, of what was written after `hidden`, if it is one write; otherwise it has to
    /// be decoded.
    #[inline]
    pub(crate) fn shown(&self, hidden: Millis) -> Option<Option<Shown<'s>>> {
        if self.number == WHOLE {
            return None;
        }
        let visible =
            hidden == Millis(0) || self.common().is_ok_and(|common| common.stamp.written > hidden);
        Some(visible.then_some(Shown::Packed(self.rest)))
    }

    /// The dot and the stamp of one that is one write.
    fn write(&self, origins: &Origins) -> Result<(Dot, Stamp), CodecError> {
        let Common { stamp, origin, seq } = self.common()?;
        let seq = seq.checked_add_signed(self.seq).ok_or(CodecError::Invalid("seq"))?;
        Ok((Dot { origin: origins.get(origin)?, seq }, stamp))
    }

    /// The row.
    pub(crate) fn row(&self, origins: &Origins) -> Result<Row, CodecError> {
        if self.number == WHOLE {
            let mut input = Reader::new(self.rest);
            let row = Row::decode(&mut input, origins)?;
            input.end()?;
            return Ok(row);
        }
        let (dot, stamp) = self.write(origins)?;
        Ok(Row::of(Sibling { dot, stamp, payload: Bytes::copy_from_slice(self.rest) }))
    }
}

impl Small {
    /// Reads what [`as_slice`](Small::as_slice) gave: all of it, so that nothing of it fails later.
    pub(crate) fn decode(bytes: &[u8], origins: &Origins) -> Result<Small, CodecError> {
        Rows::of(bytes)?.check(origins)?;
        Ok(Small { bytes: bytes.to_vec() })
    }

    /// What is stored.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes that the rows take.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows::of(&self.bytes).unwrap_or(Rows { table: &[], rows: &[] })
    }

    /// Puts a row in place of the one of that name, or of none. O(rows).
    pub(crate) fn set(&mut self, name: &[u8], row: &Row, origins: &mut Origins) {
        let rows = self.rows();
        let is_there = rows.find(name).is_some();
        if !is_there && row.is_empty() {
            return;
        }
        let mut next = Repacked {
            old: rows.commons(),
            moved: SmallVec::new(),
            table: Table::new(),
            rows: Writer::over(Vec::with_capacity(self.bytes.len() + 32)),
        };
        next.moved.resize(next.old.len(), 0);
        let place = if is_there { 0 } else { hash(name) };
        let mut left = (!row.is_empty()).then_some(row);
        for (old, seen) in rows.iter() {
            let is_here = |_: &mut &Row| match is_there {
                true => old == name,
                false => (hash(old), old) > (place, name),
            };
            if let Some(row) = left.take_if(is_here) {
                next.put(name, row, origins);
            }
            if old != name {
                next.keep(old, &seen);
            }
        }
        if let Some(row) = left {
            next.put(name, row, origins);
        }
        self.bytes = next.finish();
    }

    /// The number in the table of what covers a write, and how far its seq is from there.
    pub(crate) fn refer(&self, write: &Sibling, origins: &mut Origins) -> Option<Reference> {
        let origin = origins.intern(&write.dot.origin);
        let mut commons = self.rows().commons().into_iter().zip(1..);
        commons.find_map(|(it, number)| {
            let seq = it.covers(write.stamp, origin, write.dot.seq)?;
            Some(Reference { number, seq })
        })
    }

    /// The dot and the stamp that [`refer`](Small::refer) referred to.
    pub(crate) fn referred(
        &self,
        Reference { number, seq }: Reference,
        origins: &Origins,
    ) -> Result<(Dot, Stamp), CodecError> {
        Seen { table: self.rows().table, number, seq, rest: &[] }.write(origins)
    }
}

/// Rows on their way from one state to the next: stamps that nobody has any more stay behind.
struct Repacked {
    old: Table,
    /// Numbers of the old table in the new one.
    moved: SmallVec<[u64; 4]>,
    table: Table,
    rows: Writer,
}

impl Repacked {
    fn keep(&mut self, name: &[u8], row: &Seen<'_>) {
        self.rows.bytes(name);
        let number = match row.number {
            WHOLE => WHOLE,
            number => self.number_of(number as usize - 1),
        };
        write_tag(number, row.seq, &mut self.rows);
        self.rows.bytes(row.rest);
    }

    fn number_of(&mut self, old: usize) -> u64 {
        if self.moved[old] == 0 {
            self.table.push(self.old[old]);
            self.moved[old] = self.table.len() as u64;
        }
        self.moved[old]
    }

    fn put(&mut self, name: &[u8], row: &Row, origins: &mut Origins) {
        self.rows.bytes(name);
        let Some(Sibling { dot, stamp, payload }) = row.plain() else {
            write_tag(WHOLE, 0, &mut self.rows);
            let mut out = Writer::new();
            row.encode(&mut out, origins);
            return self.rows.bytes(out.as_slice());
        };
        let origin = origins.intern(&dot.origin);
        let mut old = self.old.iter().enumerate();
        let covered = old.find_map(|(at, it)| Some((at, it.covers(*stamp, origin, dot.seq)?)));
        let (number, seq) = match covered {
            Some((old, seq)) => (self.number_of(old), seq),
            None => {
                self.table.push(Common { stamp: *stamp, origin, seq: dot.seq });
                (self.table.len() as u64, 0)
            }
        };
        write_tag(number, seq, &mut self.rows);
        self.rows.bytes(payload);
    }

    fn finish(self) -> Vec<u8> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let mut table = Writer::new();
        self.table.iter().for_each(|common| common.write(&mut table));
        let mut out = Writer::over(Vec::with_capacity(table.len() + self.rows.len() + 2));
        out.bytes(table.as_slice());
        out.raw(self.rows.as_slice());
        out.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::causal::{Hlc, NodeId, Origin};

    fn row(number: u64) -> Row {
        let origin = Origin { node: NodeId(1 + number % 3), incarnation: 1, nonce: 7 };
        let dot = Dot { origin, seq: 1 + number % 40 };
        let stamp = Stamp::from(Hlc((1 + number % 11) << 20));
        let mut row = Row::default();
        match number % 7 {
            0 => row.increment(dot, stamp, i128::from(number)),
            _ => row.put(dot, stamp, Bytes::from(vec![b'v'; number as usize % 9])),
        }
        row
    }

    /// Rows are an ordered map, and take their stamps with them when they go.
    #[test]
    fn rows_are_an_ordered_map() {
        let mut origins = Origins::default();
        let (mut small, mut rows) = (Small::default(), BTreeMap::new());
        let mut random = 1u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = random >> 33;
            let name = (number % 50).to_string().into_bytes();
            let new = if number % 5 < 2 { Row::default() } else { row(number / 5) };
            small.set(&name, &new, &mut origins);
            match new.is_empty() {
                true => rows.remove(&(hash(&name), name.clone())),
                false => rows.insert((hash(&name), name.clone()), new.clone()),
            };
            let read = |seen: Seen<'_>| seen.row(&origins).unwrap();
            assert_eq!(small.rows().find(&name).map(read).unwrap_or_default(), new);
            let again = Small::decode(small.as_slice(), &origins).unwrap();
            let place = hash(&name);
            let found: Vec<_> =
                again.rows().from(place).map(|(name, seen)| (name.to_vec(), read(seen))).collect();
            let expected: Vec<_> = rows
                .range((place, Vec::new())..)
                .map(|((_, name), row)| (name.clone(), row.clone()))
                .collect();
            assert_eq!(found, expected);
        }
        for (_, name) in rows.into_keys() {
            small.set(&name, &Row::default(), &mut origins);
        }
        assert!(small.as_slice().is_empty());
    }

    #[test]
    fn what_is_damaged_is_refused_or_can_be_read() {
        let mut origins = Origins::default();
        let mut small = Small::default();
        for number in 0..30 {
            small.set(number.to_string().as_bytes(), &row(number), &mut origins);
        }
        for at in 0..small.len() {
            for bit in 0..8 {
                let mut bytes = small.as_slice().to_vec();
                bytes[at] ^= 1 << bit;
                if let Ok(small) = Small::decode(&bytes, &origins) {
                    small.rows().iter().for_each(|(_, seen)| drop(seen.row(&origins)));
                }
            }
        }
    }
}
