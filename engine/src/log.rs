//! The delivery log: every commit that this node has applied, in the order in which it did.
//!
//! One row per tick, under the position of its last entry. A prefix of the log is causally closed, which
//! is what replication stands on. Trimming replaces the prefix by a *floor*: the vector that it led to,
//! read back as a barrier. What is kept in memory is small and rebuilt at open: sizes by bucket, to know
//! where to trim, and for each origin the position of every 1,024th seq, to find a commit.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::causal::{LogPosition, Origin, VersionVector};
use crate::codec::{CodecError, Reader, Writer};
use crate::commit::{EncodedCommit, LogEntry};
use crate::store::{Batch, Family, Read, StoreError, keys};

const FORMAT: u8 = 1;

/// Seqs of one origin between two marks of the sparse index.
const STRIDE: u64 = 1024;

/// How many times the limit a log may grow while a peer that receives a state needs it.
const HELD: u64 = 4;

/// Log bytes that are trimmed together: this part of the limit, but not less than that many bytes, unless the
/// limit itself is small.
const BUCKETS: u64 = 64;
const BUCKET_BYTES: u64 = 64 << 10;

/// What is kept in memory to find a place in the log, shared with its readers.
#[derive(Default)]
struct Index {
    /// The last position that was trimmed. What lies there may still be in the store.
    floor: LogPosition,
    /// (origin, seq) -> a position before the one where that seq lies.
    marks: BTreeMap<(Origin, u64), LogPosition>,
    /// Pieces of the log, in order.
    buckets: VecDeque<Bucket>,
}

type SharedIndex = Arc<Mutex<Index>>;

fn lock(index: &SharedIndex) -> MutexGuard<'_, Index> {
    // Nothing panics while the lock is held, so a poisoned lock has whole data behind it.
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Bucket {
    /// Where the bucket ends.
    last: LogPosition,
    bytes: u64,
    /// What the log up to there leads to.
    vector: VersionVector,
}

/// The writer's side of the log.
pub(crate) struct Log {
    position: LogPosition,
    bytes: u64,
    limit: u64,
    /// What lies beyond this is kept, though the log is over its limit, up to [`HELD`] times that.
    hold: Option<LogPosition>,
    /// How large the disk lets it grow while it is held, bytes.
    room: u64,
    index: SharedIndex,
    /// The last seq of each origin that has a mark.
    marked: BTreeMap<Origin, u64>,
}

/// The encoded row of one tick.
pub(crate) fn encode_row(entries: &[LogEntry]) -> Writer {
    let size = entries.iter().map(LogEntry::size_hint).sum::<usize>() + 16;
    let mut out = Writer::over(Vec::with_capacity(size)).sharing(Vec::new());
    out.u8(FORMAT);
    out.varint(entries.len() as u64);
    for entry in entries {
        entry.encode(&mut out);
    }
    out
}

pub(crate) fn decode_row(bytes: &[u8]) -> Result<Vec<LogEntry>, CodecError> {
    let mut input = Reader::with_format(bytes, FORMAT)?;
    let count = input.count(1)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(LogEntry::decode(&mut input)?);
    }
    input.end()?;
    Ok(entries)
}

/// A log that was read through.
pub(crate) struct Opened {
    pub(crate) log: Log,
    /// What it leads to at the position that was asked for, if that is in it.
    pub(crate) vector: Option<VersionVector>,
    /// The row beyond that position that holds a barrier, if there is one.
    pub(crate) barrier: Option<LogPosition>,
}

/// Adds to the batch what removes the last row.
pub(crate) fn cut<B: Batch>(batch: &mut B, row: LogPosition) {
    batch.delete(Family::Log, &keys::log(row));
}

/// Entries of a vector that are copied where one changes.
const SHARED: usize = 32;

impl Log {
    /// Bytes of memory that the index takes, roughly.
    pub(crate) fn index_bytes(&self) -> usize {
        let index = lock(&self.index);
        let mark = size_of::<((Origin, u64), LogPosition)>();
        // A bucket's vector shares with the one before all but what is about the origins that moved.
        let mut before = VersionVector::new();
        let mut origins = 0;
        for bucket in &index.buckets {
            let moved = bucket.vector.news_for(&before).len();
            origins += bucket.vector.len().min(moved * SHARED);
            before.clone_from(&bucket.vector);
        }
        let bucket = size_of::<Bucket>();
        index.marks.len() * mark
            + index.buckets.len() * bucket
            + origins * size_of::<(Origin, u64)>()
    }

    /// Reads the log through once. Returns it and the vector that it leads to at `at`.
    pub(crate) fn open<R: Read>(
        store: &R,
        limit: u64,
        at: LogPosition,
    ) -> Result<Opened, StoreError> {
        let (floor, mut vector) = read_floor(store)?;
        let mut log = Log {
            position: floor,
            bytes: 0,
            limit,
            hold: None,
            room: u64::MAX,
            index: Arc::new(Mutex::new(Index { floor, ..Index::default() })),
            marked: BTreeMap::new(),
        };
        let mut found = (floor == at).then(|| vector.clone());
        let (mut barrier, mut failed) = (None, None);
        store.scan(Family::Log, &keys::log(floor.next()), &[], &mut |key, value| {
            let entries = decode_row(value).map_err(|error| StoreError::corrupt("log row", error));
            match (keys::split_log(key), entries) {
                (Some(last), Ok(entries)) if last.0 == log.position.0 + entries.len() as u64 => {
                    for entry in &entries {
                        if last > at && matches!(entry, LogEntry::Barrier(_)) {
                            barrier.get_or_insert(last);
                        }
                        entry.advance(&mut vector);
                    }
                    log.appended(&entries, value.len(), &vector);
                    if last == at {
                        found = Some(vector.clone());
                    }
                    ControlFlow::Continue(())
                }
                (_, entries) => {
                    let gap = StoreError::Corrupt("the log has a gap".into());
                    failed = Some(entries.err().unwrap_or(gap));
                    ControlFlow::Break(())
                }
            }
        })?;
        match failed {
            Some(error) => Err(error),
            None => Ok(Opened { log, vector: found, barrier }),
        }
    }

    /// The position of the last entry.
    pub(crate) fn position(&self) -> LogPosition {
        self.position
    }

    /// The last position that was trimmed.
    pub(crate) fn floor(&self) -> LogPosition {
        lock(&self.index).floor
    }

    /// Keeps what lies beyond a position though the log is over its limit, or no longer so.
    pub(crate) fn hold(&mut self, from: Option<LogPosition>) {
        self.hold = from;
    }

    /// How large the disk lets a log grow that is held, in bytes.
    pub(crate) fn set_room(&mut self, bytes: u64) {
        self.room = bytes;
    }

    /// The size of a log that is held, in bytes, beyond which it is trimmed all the same.
    fn held_limit(&self) -> u64 {
        self.limit.saturating_mul(HELD).min(self.room).max(self.limit)
    }

    /// Whether what was to be kept had to be trimmed all the same.
    pub(crate) fn let_go(&self) -> bool {
        self.hold.is_some_and(|hold| hold < self.floor())
    }

    /// Bytes of all rows.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes note of a row that was written. `vector` is what the log now leads to.
    pub(crate) fn appended(&mut self, entries: &[LogEntry], bytes: usize, vector: &VersionVector) {
        let before = self.position;
        let mut index = lock(&self.index);
        for (offset, entry) in entries.iter().enumerate() {
            let LogEntry::Commit(commit) = entry else { continue };
            let marked = self.marked.entry(commit.origin).or_insert(0);
            if *marked == 0 || commit.last / STRIDE > *marked / STRIDE {
                *marked = commit.last;
                let at = LogPosition(before.0 + offset as u64);
                index.marks.insert((commit.origin, commit.first), at);
            }
        }
        self.position = LogPosition(before.0 + entries.len() as u64);
        self.bytes += bytes as u64;
        let bucket_bytes = BUCKET_BYTES.max(self.limit / BUCKETS).min(self.limit / 8);
        match index.buckets.back_mut() {
            Some(bucket) if bucket.bytes < bucket_bytes => {
                bucket.last = self.position;
                bucket.bytes += bytes as u64;
                bucket.vector.clone_from(vector);
            }
            _ => index.buckets.push_back(Bucket {
                last: self.position,
                bytes: bytes as u64,
                vector: vector.clone(),
            }),
        }
    }

    /// If the log is over its limit, adds to the batch what trims it, and returns the new floor for
    /// [`trimmed`](Log::trimmed). The last bucket always stays, and what the store's rows lack. Rows below
    /// the floor are not read any more; the store may forget them once the floor is durable.
    pub(crate) fn trim<B: Batch>(
        &self,
        batch: &mut B,
        watermark: LogPosition,
    ) -> Option<LogPosition> {
        let mut left = self.bytes;
        let mut floor = None;
        let index = lock(&self.index);
        for bucket in index.buckets.iter().take(index.buckets.len().saturating_sub(1)) {
            let held = self.hold.is_some_and(|hold| bucket.last > hold);
            let limit = if held { self.held_limit() } else { self.limit };
            if left <= limit || bucket.last > watermark {
                break;
            }
            left -= bucket.bytes;
            floor = Some(bucket);
        }
        let floor = floor?;
        let mut record = Writer::with_format(FORMAT);
        record.varint(floor.last.0);
        floor.vector.encode(&mut record);
        batch.put(Family::Node, keys::FLOOR, record.as_slice());
        Some(floor.last)
    }

    /// The trim is written.
    pub(crate) fn trimmed(&mut self, floor: LogPosition) {
        let mut index = lock(&self.index);
        index.floor = floor;
        while let Some(bucket) = index.buckets.pop_front_if(|bucket| bucket.last <= floor) {
            self.bytes -= bucket.bytes;
        }
        index.marks.retain(|_, position| *position >= floor);
    }

    /// A reader for any thread.
    pub(crate) fn reader<R: Read + Clone>(&self, store: &R) -> LogReader<R> {
        LogReader { store: store.clone(), index: self.index.clone() }
    }
}

pub(crate) fn read_floor<R: Read>(store: &R) -> Result<(LogPosition, VersionVector), StoreError> {
    let Some(record) = store.get(Family::Node, keys::FLOOR)? else {
        return Ok(Default::default());
    };
    let decode = || {
        let mut input = Reader::with_format(&record, FORMAT)?;
        Ok((LogPosition(input.varint()?), VersionVector::decode(&mut input)?))
    };
    decode().map_err(|error| StoreError::corrupt("log floor", error))
}

/// Reads the log beside its writer.
#[derive(Clone)]
pub struct LogReader<R> {
    store: R,
    index: SharedIndex,
}

/// A piece of the log in delivery order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogChunk {
    /// Entries; the first is a barrier if the log before it was trimmed.
    pub entries: Vec<LogEntry>,
    /// The position of the last entry, where reading goes on.
    pub next: LogPosition,
    /// Whether that was the log's end when it was read.
    pub at_end: bool,
}

/// The answer to a graft.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grafted {
    /// Commits of the origin, contiguous from the first one asked for.
    pub commits: Vec<EncodedCommit>,
    /// Whether some of what was asked for is no longer in the log.
    pub truncated: bool,
}

impl<R: Read> LogReader<R> {
    /// Entries after a position, up to about `limit` bytes and at least one row of them. What lies at the
    /// front and is covered by `known` may be skipped.
    pub fn read(
        &self,
        after: LogPosition,
        limit: usize,
        known: Option<&VersionVector>,
    ) -> Result<LogChunk, StoreError> {
        let after = match known {
            Some(known) => after.max(self.covered(known)),
            None => after,
        };
        let mut chunk = LogChunk { entries: Vec::new(), next: after, at_end: true };
        let mut bytes = 0;
        let mut first = after;
        self.visit(after, &mut |last, entries, size| {
            if bytes >= limit {
                chunk.at_end = false;
                return ControlFlow::Break(());
            }
            let start = last.0 - entries.len() as u64;
            if chunk.entries.is_empty() {
                first = LogPosition(start.max(after.0));
            }
            // The row that holds `after` may begin before it.
            let skip = after.0.saturating_sub(start) as usize;
            chunk.entries.extend(entries.into_iter().skip(skip));
            chunk.next = last;
            bytes += size;
            ControlFlow::Continue(())
        })?;
        // Read after the rows: if the log was trimmed meanwhile, the newer floor stands for them.
        let (floor, vector) = read_floor(&self.store)?;
        if after < floor {
            let trimmed = floor.0.saturating_sub(first.0) as usize;
            chunk.entries.drain(..trimmed.min(chunk.entries.len()));
            chunk.entries.insert(0, LogEntry::Barrier(vector));
            chunk.next = chunk.next.max(floor);
        }
        Ok(chunk)
    }

    /// The commits of one origin that hold the seqs `from..=to`, up to about `limit` bytes.
    pub fn commits(
        &self,
        origin: Origin,
        from: u64,
        to: u64,
        limit: usize,
    ) -> Result<Grafted, StoreError> {
        let index = lock(&self.index);
        let start = index.marks.range((origin, 0)..=(origin, from)).next_back().map(|(_, at)| *at);
        drop(index);
        let mut found = Grafted::default();
        let mut wanted = from;
        let mut bytes = 0;
        self.visit(start.unwrap_or_default(), &mut |_, entries, _| {
            for entry in entries {
                let LogEntry::Commit(commit) = entry else { continue };
                if commit.origin != origin || commit.last < wanted {
                    continue;
                }
                if commit.first > wanted || wanted > to || bytes >= limit {
                    return ControlFlow::Break(());
                }
                wanted = commit.last + 1;
                bytes += commit.body.len();
                found.commits.push(commit);
            }
            ControlFlow::Continue(())
        })?;
        found.truncated = found.commits.is_empty();
        Ok(found)
    }

    /// The end of the longest prefix of whole buckets that a vector covers.
    fn covered(&self, known: &VersionVector) -> LogPosition {
        let index = lock(&self.index);
        let covered = index.buckets.partition_point(|bucket| known.covers(&bucket.vector));
        match covered.checked_sub(1).and_then(|last| index.buckets.get(last)) {
            Some(bucket) => bucket.last,
            None => LogPosition(0),
        }
    }

    fn visit(
        &self,
        after: LogPosition,
        row: &mut dyn FnMut(LogPosition, Vec<LogEntry>, usize) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut failed = None;
        let after = after.max(lock(&self.index).floor);
        self.store.scan(Family::Log, &keys::log(after.next()), &[], &mut |key, value| match (
            keys::split_log(key),
            decode_row(value),
        ) {
            (Some(last), Ok(entries)) => row(last, entries, value.len()),
            (_, entries) => {
                let error = entries.err().unwrap_or(CodecError::Invalid("log key"));
                failed = Some(StoreError::corrupt("log row", error));
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(()), Err)
    }
}
