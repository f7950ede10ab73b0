//! State transfer: a whole node's state as a stream of chunks, for a peer that is below the log's floor.
//!
//! The sender reads one snapshot: its vector and every row with its own dots and counter entries, residue
//! included (MODEL M6). The receiver stages the chunks and joins them in one step, against the rows and
//! the vector that it has at that moment. Never as fresh dots: that would resurrect what was removed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::causal::{Hlc, VersionVector};
use crate::codec::{CodecError, Reader, Writer};
use crate::crdt::Types;
use crate::engine::State;
use crate::header::Header;
use crate::name::{RowKey, Slot};
use crate::row::{Origins, Row};
use crate::store::{Family, Read, StoreError, keys};

/// Without leads, as peers of the version before read it; and with.
const PLAIN: u8 = 1;
const LED: u8 = 2;

/// Reads a node's state from a snapshot, chunk by chunk.
pub struct StateReader<R> {
    snapshot: R,
    origins: Origins,
    vector: VersionVector,
    clock: Hlc,
    /// Where to go on; `None` when all was read.
    cursor: Cursor,
    /// Chunks read so far.
    chunks: u64,
    /// Where each of the last chunks begins.
    starts: VecDeque<Cursor>,
}

/// A place in a snapshot.
type Cursor = Option<(Family, Vec<u8>)>;

/// Chunks that can be read again: more than may be under way to a receiver.
const KEPT: usize = 8;

impl<R: Read> StateReader<R> {
    /// A reader of everything in the snapshot.
    pub fn new(snapshot: R) -> Result<StateReader<R>, StoreError> {
        let origins = crate::space::load_origins(&snapshot)?;
        let state = State::load(&snapshot)?;
        let (vector, clock) = state.map(|state| (state.vector, state.clock)).unwrap_or_default();
        let cursor = Some((Family::Keys, Vec::new()));
        let starts = VecDeque::new();
        Ok(StateReader { snapshot, origins, vector, clock, cursor, chunks: 0, starts })
    }

    /// A chunk of about `limit` bytes by its number, and whether it is the last: the next one, or one of the
    /// last few again, which is then the same. `None` if it is none of them. Nothing is lost by an error.
    pub fn chunk(
        &mut self,
        number: u64,
        limit: usize,
    ) -> Result<Option<(Bytes, bool)>, StoreError> {
        let first = self.chunks - self.starts.len() as u64;
        if let Some(back) = number.checked_sub(first)
            && number < self.chunks
        {
            self.starts.truncate(back as usize + 1);
            self.cursor = self.starts.pop_back().flatten();
            self.chunks = number;
        }
        if number != self.chunks {
            return Ok(None);
        }
        let start = self.cursor.clone();
        match self.next_chunk(limit) {
            Ok(chunk) => {
                self.starts.push_back(start);
                if self.starts.len() > KEPT {
                    self.starts.pop_front();
                }
                Ok(Some(chunk))
            }
            Err(error) => {
                self.cursor = start;
                Err(error)
            }
        }
    }

    /// The next chunk of about `limit` bytes, and whether it is the last.
    pub fn next_chunk(&mut self, limit: usize) -> Result<(Bytes, bool), StoreError> {
        let mut names = Origins::default();
        let mut rows = Writer::new();
        let mut count = 0u64;
        let mut leads = false;
        while let Some((family, from)) = self.cursor.take() {
            let (mut stop, mut failed) = (None, None);
            let to = match family {
                Family::System => keys::prefix_end(&[keys::BINDING]),
                _ => Vec::new(),
            };
            let origins = &self.origins;
            self.snapshot.scan(family, &from, &to, &mut |key, value| {
                if rows.len() >= limit {
                    stop = Some(key.to_vec());
                    return ControlFlow::Break(());
                }
                match decode(family, key, value, origins) {
                    Ok(found) => {
                        for (name, row) in found {
                            leads |= row.has_lead();
                            write_row(&name, &row, &mut rows, &mut names);
                            count += 1;
                        }
                        ControlFlow::Continue(())
                    }
                    Err(error) => {
                        failed = Some(StoreError::corrupt("row", error));
                        ControlFlow::Break(())
                    }
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
            self.cursor = match (stop, family) {
                (Some(key), _) => Some((family, key)),
                (None, Family::Keys) => Some((Family::Data, Vec::new())),
                (None, Family::Data) => Some((Family::System, vec![keys::BINDING])),
                (None, _) => None,
            };
            if rows.len() >= limit {
                break;
            }
        }
        let mut chunk = Writer::with_format(if leads { LED } else { PLAIN });
        chunk.varint(self.chunks);
        self.chunks += 1;
        self.vector.encode(&mut chunk);
        chunk.u64(self.clock.0);
        chunk.varint(names.list().len() as u64);
        names.list().iter().for_each(|origin| chunk.origin(origin));
        chunk.varint(count);
        chunk.raw(rows.as_slice());
        Ok((chunk.finish(), self.cursor.is_none()))
    }
}

/// The rows that a stored row holds.
pub(crate) fn decode(
    family: Family,
    key: &[u8],
    value: &[u8],
    origins: &Origins,
) -> Result<Vec<(RowKey, Row)>, CodecError> {
    let damaged = CodecError::Invalid("key");
    if let Some((family, key)) = keys::reordered(family, key) {
        return decode(family, &key, value, origins);
    }
    match family {
        Family::Keys => {
            let (db, name) = keys::split_header(key).ok_or(damaged)?;
            let name = Bytes::copy_from_slice(name);
            let header = Header::decode(Reader::new(value), origins)?;
            let row_key = |slot, subkey| RowKey { db, key: name.clone(), slot, subkey };
            let rows = header.into_rows(origins)?.into_iter();
            Ok(rows.map(|(slot, sub, row)| (row_key(slot, sub), row)).collect())
        }
        Family::Data => {
            let name = keys::split_row(key).ok_or(damaged)?;
            Ok(vec![(name, crate::space::parse_row(Reader::new(value), origins)?)])
        }
        _ => {
            let (db, name) = key.get(1..).and_then(keys::split_name).ok_or(damaged)?;
            let name = RowKey::single(db, Bytes::copy_from_slice(name), Slot::BINDING);
            Ok(vec![(name, crate::space::parse_row(Reader::new(value), origins)?)])
        }
    }
}

/// The sender's clock, as a chunk tells it.
pub fn state_clock(chunk: &[u8]) -> Result<Hlc, CodecError> {
    let mut input = Reader::new(chunk);
    input.one_of(PLAIN..=LED)?;
    input.varint()?;
    VersionVector::decode(&mut input)?;
    input.hlc()
}

fn write_row(name: &RowKey, row: &Row, out: &mut Writer, names: &mut Origins) {
    out.varint(u64::from(name.db));
    out.bytes(&name.key);
    out.u8(name.slot.0);
    out.bytes(&name.subkey);
    row.encode(out, names);
}

fn read_row(input: &mut Reader<'_>, names: &Origins) -> Result<(RowKey, Row), CodecError> {
    let db = u16::try_from(input.varint()?).map_err(|_| CodecError::Invalid("db"))?;
    let key = Bytes::copy_from_slice(input.bytes()?);
    let slot = Slot(input.u8()?);
    let subkey = Bytes::copy_from_slice(input.bytes()?);
    let name = RowKey { db, key, slot, subkey };
    let row = Row::decode(input, names)?;
    Ok((name, row))
}

/// The state of a peer as far as it has arrived. Bounded by `limit` bytes.
pub struct Staged {
    types: &'static Types,
    pub(crate) vector: VersionVector,
    /// The sender's clock: what it had seen may be stamped later than any row that is left.
    pub(crate) clock: Hlc,
    pub(crate) rows: BTreeMap<RowKey, Row>,
    chunks: u64,
    bytes: usize,
    limit: usize,
}

impl Staged {
    /// Nothing yet; refuses rows of other types, and to grow beyond `limit` bytes of chunks.
    pub fn new(types: &'static Types, limit: usize) -> Staged {
        let (vector, rows) = (VersionVector::new(), BTreeMap::new());
        Staged { types, vector, clock: Hlc(0), rows, chunks: 0, bytes: 0, limit }
    }

    /// Takes a chunk. After an error the whole stage has to be dropped. Chunks are numbered and all bear the
    /// snapshot's vector: a vector that came with a part of its rows only would remove the others here.
    pub fn add(&mut self, chunk: &[u8]) -> Result<(), CodecError> {
        self.bytes += chunk.len();
        if self.bytes > self.limit {
            return Err(CodecError::Invalid("state: larger than the stage"));
        }
        let mut input = Reader::new(chunk);
        input.one_of(PLAIN..=LED)?;
        if input.varint()? != self.chunks {
            return Err(CodecError::Invalid("state: a chunk is missing"));
        }
        let vector = VersionVector::decode(&mut input)?;
        if self.chunks > 0 && vector != self.vector {
            return Err(CodecError::Invalid("state: a chunk of another state"));
        }
        (self.vector, self.chunks) = (vector, self.chunks + 1);
        self.clock = input.hlc()?;
        let mut names = Origins::default();
        for _ in 0..input.count(crate::causal::Origin::LEN)? {
            names.push(input.origin()?);
        }
        for _ in 0..input.count(6)? {
            let (name, row) = read_row(&mut input, &names)?;
            self.types.validate_state(&name, &row)?;
            self.rows.insert(name, row);
        }
        input.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::{Millis, NodeId};
    use crate::crdt::TYPES;
    use crate::store::MemStore;
    use crate::{Engine, EngineConfig, Fresh};

    fn reader(members: usize) -> StateReader<crate::store::MemSnapshot> {
        let fresh = Fresh { node: NodeId(1), nonce: 1 };
        let store = MemStore::new();
        let mut engine =
            Engine::open(store.clone(), EngineConfig::default(), fresh, Millis(1)).unwrap();
        let mut tick = engine.tick(Millis(1));
        let mut txn = tick.txn();
        let members: Vec<Bytes> = (0..members).map(|n| n.to_string().into()).collect();
        txn.set_add(0, b"s", &members).unwrap();
        txn.commit();
        tick.seal(false).unwrap();
        StateReader::new(engine.snapshot().unwrap()).unwrap()
    }

    fn chunks(members: usize) -> Vec<Bytes> {
        let mut reader = reader(members);
        let mut chunks = Vec::new();
        loop {
            let (chunk, last) = reader.next_chunk(100).unwrap();
            chunks.push(chunk);
            if last {
                return chunks;
            }
        }
    }

    /// Chunks can be read again, as they were; what was forgotten cannot.
    #[test]
    fn the_last_chunks_can_be_read_again() {
        let whole = chunks(200);
        let mut reader = reader(200);
        for number in 0..whole.len() as u64 {
            let last = number + 1 == whole.len() as u64;
            let expected = Some((whole[number as usize].clone(), last));
            assert_eq!(reader.chunk(number, 100).unwrap(), expected);
            for again in number.saturating_sub(KEPT as u64 - 1)..=number {
                let (chunk, _) = reader.chunk(again, 100).unwrap().unwrap();
                assert_eq!(chunk, whole[again as usize]);
                for number in again + 1..=number {
                    reader.chunk(number, 100).unwrap().unwrap();
                }
            }
            assert_eq!(reader.chunk(number + 2, 100).unwrap(), None);
        }
        assert!(whole.len() > 2 * KEPT);
        assert_eq!(reader.chunk(0, 100).unwrap(), None);
    }

    /// A state that lacks a chunk, or has chunks out of order or of another state, is not staged.
    #[test]
    fn a_state_is_staged_whole_or_not_at_all() {
        let (chunks, other) = (chunks(100), chunks(120));
        assert!(chunks.len() > 2);
        let mut staged = Staged::new(&TYPES, 1 << 20);
        assert!(chunks.iter().all(|chunk| staged.add(chunk).is_ok()));
        assert!(Staged::new(&TYPES, 1 << 20).add(&chunks[1]).is_err());
        for second in [&chunks[0], &chunks[2], &other[1]] {
            let mut staged = Staged::new(&TYPES, 1 << 20);
            staged.add(&chunks[0]).unwrap();
            assert!(staged.add(second).is_err());
        }
    }
}
