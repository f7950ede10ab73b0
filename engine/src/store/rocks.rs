//! The store on two RocksDBs: one for the journal, with a write-ahead log, and one for the rows beside it.
//!
//! The only file of the engine that does I/O. The choices that matter:
//! * a run is built as a sorted file beside the store and added to it whole (`IngestExternalFile`): the
//!   engine's cache is the memtable of the rows and the log their write-ahead log, so RocksDB needs neither;
//!   all rows lie in one column family, since a file is added to one; they have a RocksDB of their own,
//!   since adding a file stops all writes until the disk has noted it;
//! * large values lie in pieces, since a value is copied several times on its way (`pieces.rs`);
//! * the log is trimmed by dropping whole files: its keys only grow, so its files never overlap and move down
//!   the levels unread, as long as no range of deletions spans them;
//! * files of rows carry Bloom filters, since most new keys are looked up once in vain; filters and indexes
//!   are cut into blocks, as one of a large file would not fit into the cache, and be read at every look;
//! * recovery stops at the first damage of the write-ahead log (`PointInTime`), and the engine then checks
//!   that vector and log agree; its syncs are ours to order, so no `wal_bytes_per_sync`;
//! * on a full disk RocksDB refuses writes, looks every five seconds whether there is room for its memtables,
//!   then writes them to files, begins a new WAL and takes writes again. A WAL in which a write has failed
//!   must not be synced through RocksDB, which takes the refusal for a fatal error: until a write succeeds
//!   the files are synced beside it.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB,
    DBCompressionType, DBRecoveryMode, ErrorKind, IngestExternalFileOptions, Options, ReadOptions,
    Snapshot, SstFileWriter, WriteBatch, WriteOptions,
};
use self_cell::self_cell;

use super::pieces::{self, Head, Key, Owners, PIECE};
use super::{Batch, Family, Read, Run, Store, StoreError, Visit};
use crate::codec::Parts;

/// What can be tuned. Bytes.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// Cache of uncompressed blocks, shared by all families.
    pub block_cache_bytes: usize,
    /// Write-ahead logs kept before memtables are flushed to free them.
    pub wal_bytes: u64,
}

impl Default for RocksOptions {
    fn default() -> RocksOptions {
        RocksOptions { block_cache_bytes: 64 << 20, wal_bytes: 128 << 20 }
    }
}

/// The journal's column families.
const LOG: &str = "log";
const NODE: &str = "node";

/// Runs that are merged together, and how many may lie unmerged: then the next one has to wait, but not for
/// ever, since merging may have to wait for room on the disk.
const MERGED_RUNS: i32 = 8;
const MAX_LOOSE_RUNS: u64 = 24;
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const LOOKS: usize = 500;
/// A large value that is replaced while it is read is read again, so often at most.
const READS: usize = 16;

/// A key as it is stored: rows bear the number of their family.
fn stored(family: Family, key: &[u8]) -> Key {
    let mut stored = Key::new();
    if !family.is_journal() {
        stored.push(family as u8);
    }
    stored.extend_from_slice(key);
    stored
}

struct Handles<'d> {
    log: &'d ColumnFamily,
    node: &'d ColumnFamily,
}

impl<'d> Handles<'d> {
    fn of(&self, family: Family) -> &'d ColumnFamily {
        debug_assert!(family.is_journal(), "{family:?} is written in runs");
        if family == Family::Node { self.node } else { self.log }
    }
}

self_cell!(
    struct Journal {
        owner: DB,
        #[not_covariant]
        dependent: Handles,
    }
);

self_cell!(
    struct Held {
        owner: RocksStore,
        #[not_covariant]
        dependent: Taken,
    }
);

struct Taken<'s> {
    rows: Snapshot<'s>,
    journal: Snapshot<'s>,
}

impl Taken<'_> {
    /// How to read what was there.
    fn options(&self, family: Family) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(if family.is_journal() { &self.journal } else { &self.rows });
        options
    }
}

/// A store in a directory. Clones name the same store; the last one closes it.
#[derive(Clone)]
pub struct RocksStore {
    rows: Arc<DB>,
    journal: Arc<Journal>,
    disk: Arc<Disk>,
}

/// Where the store lies, and how the last write to the journal went.
struct Disk {
    path: PathBuf,
    /// Where the rows lie.
    rows: PathBuf,
    /// How files of rows are written.
    run_options: Options,
    full: AtomicBool,
    /// The large values among the rows.
    owners: Mutex<Owners>,
}

/// How long a sync that fails waits for a write that fails beside it to say why.
const WRITE_MAY_TAKE: Duration = Duration::from_millis(100);

fn failure(error: rocksdb::Error) -> StoreError {
    let kind = error.kind();
    let text = error.into_string();
    if text.contains("No space left") || text.contains("space limit") {
        StoreError::Full(text)
    } else if kind == ErrorKind::Corruption {
        StoreError::Corrupt(text)
    } else {
        StoreError::Unknown(text)
    }
}

/// Why a directory cannot be opened; never that a write has failed.
fn unopened(error: rocksdb::Error) -> StoreError {
    match failure(error) {
        StoreError::Unknown(text) if text.contains("lock ") => {
            StoreError::Unopened("another server has this directory open".into())
        }
        StoreError::Unknown(text) => StoreError::Unopened(text),
        other => other,
    }
}

/// Memory of RocksDB by purpose, in bytes, as it keeps account of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RocksMemory {
    /// What is not in files yet, of the journal.
    pub memtables: u64,
    /// Blocks of files, their indexes and filters included.
    pub blocks: u64,
    /// Of open files, what does not lie among the blocks.
    pub tables: u64,
}

impl RocksStore {
    /// Opens or creates the store of a directory. Refused if another process has it open or if files are
    /// damaged; never opened as empty then.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<RocksStore, StoreError> {
        let mut db = Options::default();
        db.create_if_missing(true);
        db.create_missing_column_families(true);
        db.set_paranoid_checks(true);
        db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        db.set_track_and_verify_wals_in_manifest(true);
        db.set_max_total_wal_size(options.wal_bytes);
        db.set_max_background_jobs(2);
        db.set_max_open_files(1024);
        db.set_keep_log_file_num(4);
        db.set_max_log_file_size(4 << 20);
        db.set_allow_concurrent_memtable_write(false);
        db.set_enable_write_thread_adaptive_yield(false);
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let columns = [LOG, NODE]
            .map(|name| ColumnFamilyDescriptor::new(name, column_options(false, &cache)));
        let journal = DB::open_cf_descriptors(&db, path, columns).map_err(unopened)?;
        let journal = Journal::try_new(journal, |db| {
            let missing = |name| StoreError::Corrupt(format!("no column family {name}"));
            let handle = |name| db.cf_handle(name).ok_or_else(|| missing(name));
            Ok::<_, StoreError>(Handles { log: handle(LOG)?, node: handle(NODE)? })
        })?;
        let run_options = column_options(true, &cache);
        let rows_at = path.join("rows");
        let columns = [ColumnFamilyDescriptor::new("default", column_options(true, &cache))];
        let rows = DB::open_cf_descriptors(&db, &rows_at, columns).map_err(unopened)?;
        let (path, full) = (path.to_owned(), AtomicBool::new(false));
        let owners = Mutex::new(load_owners(&rows)?);
        let disk = Disk { path, rows: rows_at, run_options, full, owners };
        Ok(RocksStore { rows: Arc::new(rows), journal: Arc::new(journal), disk: Arc::new(disk) })
    }

    /// A property of RocksDB for INFO and tests, summed over the families.
    pub fn property(&self, name: &str) -> u64 {
        let rows = self.rows.property_int_value(name).ok().flatten();
        self.journal.with_dependent(|db, handles| {
            let columns = [handles.log, handles.node];
            let journal = columns.map(|column| db.property_int_value_cf(column, name));
            journal.into_iter().flatten().flatten().chain(rows).sum()
        })
    }

    /// Pieces of large values among the rows. Cost: reads them; for tests.
    pub fn pieces(&self) -> Result<usize, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound([pieces::PIECES]);
        options.set_iterate_upper_bound([pieces::PIECES + 1]);
        let mut found = self.rows.raw_iterator_opt(options);
        found.seek_to_first();
        let mut count = 0;
        while found.valid() {
            count += 1;
            found.next();
        }
        found.status().map_err(failure).map(|()| count)
    }

    /// What RocksDB holds in memory.
    pub fn memory(&self) -> RocksMemory {
        let shared = self.rows.property_int_value("rocksdb.block-cache-usage");
        RocksMemory {
            memtables: self.property("rocksdb.size-all-mem-tables"),
            blocks: shared.ok().flatten().unwrap_or(0),
            tables: self.property("rocksdb.estimate-table-readers-mem"),
        }
    }

    /// Writes the memtables of the journal to files.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.journal.with_dependent(|db, handles| {
            let columns = [handles.log, handles.node];
            columns.iter().try_for_each(|column| db.flush_cf(column)).map_err(failure)
        })
    }

    /// [`Read::get`], with options.
    fn get_as(
        &self,
        options: &ReadOptions,
        family: Family,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        let key = stored(family, key);
        for _ in 0..READS {
            let found = self.look(options, family, &key, Bytes::copy_from_slice)?;
            let Some(head) = found.as_deref().and_then(Head::decode) else { return Ok(found) };
            if let Some(value) = self.assemble(options, family, &key, head)? {
                return Ok(Some(value.into()));
            }
            // The value was replaced since its head was read.
        }
        Err(StoreError::Corrupt("a value without its pieces".into()))
    }

    /// Puts a large value together. `None`: not all is there.
    fn assemble(
        &self,
        options: &ReadOptions,
        family: Family,
        key: &[u8],
        head: Head,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        head.assemble(|number, value| {
            let key = match family.is_journal() {
                true => pieces::log_piece(key, number),
                false => pieces::row_piece(head.number, number),
            };
            let found = self.look(options, family, &key, |it| value.extend_from_slice(it))?;
            Ok(found.is_some())
        })
    }

    /// Looks up a stored key.
    fn look<T>(
        &self,
        options: &ReadOptions,
        family: Family,
        key: &[u8],
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, StoreError> {
        if !family.is_journal() {
            let found = self.rows.get_pinned_opt(key, options).map_err(failure)?;
            return Ok(found.map(|value| take(&value)));
        }
        self.journal.with_dependent(|db, handles| {
            let found = db.get_pinned_cf_opt(handles.of(family), key, options).map_err(failure)?;
            Ok(found.map(|value| take(&value)))
        })
    }

    /// [`Read::scan`], with options.
    fn scan_as(
        &self,
        options: impl Fn() -> ReadOptions,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        if !to.is_empty() && from >= to {
            return Ok(());
        }
        let mut bounded = options();
        bound(&mut bounded, family, from, to);
        if !family.is_journal() {
            // A value that is replaced beside the scan is read as it is then.
            let get = |key: &[u8]| self.get_as(&options(), family, key);
            return drive_rows(self.rows.raw_iterator_opt(bounded), get, visit);
        }
        self.journal.with_dependent(|db, handles| {
            drive_journal(db.raw_iterator_cf_opt(handles.of(family), bounded), visit)
        })
    }

    /// Files of rows that have not been merged with others.
    fn loose_runs(&self) -> u64 {
        let property = "rocksdb.num-files-at-level0";
        let text = self.rows.property_value(property).ok().flatten();
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Writes a run to a new file. What has that name may be a file of the store as well: a process that was
    /// killed while it handed a run over has left it under two names.
    fn build(&self, run: &Run, file: &Path, owners: &mut Owners) -> Result<(), StoreError> {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Unknown(format!("{}: {error}", file.display())))
            }
            _ => self.fill(run, file, owners).map_err(failure),
        }
    }

    /// Rows first, then the pieces of those that go and of those that come, then whose they are.
    fn fill(&self, run: &Run, file: &Path, owners: &mut Owners) -> Result<(), rocksdb::Error> {
        let mut writer = SstFileWriter::create(&self.disk.run_options);
        writer.open(file)?;
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        for (key, value) in run.changes() {
            gone.extend(owners.remove(key));
            match value {
                Some(value) if value.len() > PIECE => {
                    let head = owners.insert(key, value.len());
                    new.push((head, key, value));
                    writer.put(key, head.encode())?;
                }
                Some(value) => writer.put(key, value.whole())?,
                None => writer.delete(key)?,
            }
        }
        gone.sort_unstable_by_key(|head| head.number);
        for head in &gone {
            for number in 0..head.pieces() {
                writer.delete(pieces::row_piece(head.number, number))?;
            }
        }
        for (head, _, value) in &new {
            pieces::cut(&value.kept(), |number, piece| {
                writer.put(pieces::row_piece(head.number, number), piece)
            })?;
        }
        for head in &gone {
            writer.delete(pieces::owner(head.number))?;
        }
        for (head, key, _) in &new {
            writer.put(pieces::owner(head.number), Owners::record(key, *head))?;
        }
        writer.finish()
    }

    /// Writes the pieces of a large row of the log. Without the row itself they are nothing.
    fn write_pieces(&self, large: &Large) -> Result<(), rocksdb::Error> {
        pieces::cut(&large.parts, |number, piece| {
            let mut changes = WriteBatch::default();
            self.journal.with_dependent(|db, handles| {
                let key = pieces::log_piece(&large.key, number);
                changes.put_cf(handles.of(large.family), key, piece);
                db.write(changes)
            })
        })
    }
}

/// Syncs the files of the WAL, by handles of their own: the kernel keeps dirty pages by file.
fn sync_logs(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "log") {
            match File::open(&file) {
                Ok(file) => file.sync_data()?,
                // Removed meanwhile: what it held is in other files.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    File::open(path)?.sync_all()
}

fn column_options(rows: bool, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut tuned = Options::default();
    // The first two levels are rewritten soon: compressing them costs more than it saves.
    tuned.set_compression_per_level(&[
        DBCompressionType::None,
        DBCompressionType::None,
        DBCompressionType::Lz4,
        DBCompressionType::Lz4,
        DBCompressionType::Lz4,
        DBCompressionType::Lz4,
        DBCompressionType::Lz4,
    ]);
    if rows {
        blocks.set_bloom_filter(10.0, false);
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
        tuned.set_level_zero_file_num_compaction_trigger(MERGED_RUNS);
    } else {
        tuned.set_write_buffer_size(16 << 20);
        tuned.set_max_write_buffer_number(4);
    }
    tuned.set_block_based_table_factory(&blocks);
    tuned
}

/// Bounds a scan. An empty `to` is the family's end.
fn bound(options: &mut ReadOptions, family: Family, from: &[u8], to: &[u8]) {
    options.set_iterate_lower_bound(&stored(family, from)[..]);
    match (to.is_empty(), family.is_journal()) {
        (true, true) => {}
        (true, false) => options.set_iterate_upper_bound([family as u8 + 1]),
        (false, _) => options.set_iterate_upper_bound(&stored(family, to)[..]),
    }
}

/// Whose the large values are.
fn load_owners(rows: &DB) -> Result<Owners, StoreError> {
    let mut owners = Owners::default();
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound([pieces::OWNERS]);
    options.set_iterate_upper_bound([pieces::OWNERS + 1]);
    let mut found = rows.raw_iterator_opt(options);
    found.seek_to_first();
    while let Some((key, value)) = found.item() {
        owners
            .load(key.get(1..).unwrap_or_default(), value)
            .ok_or_else(|| StoreError::Corrupt("owner of a large value".into()))?;
        found.next();
    }
    found.status().map_err(failure)?;
    Ok(owners)
}

fn drive_rows(
    mut rows: rocksdb::DBRawIterator<'_>,
    get: impl Fn(&[u8]) -> Result<Option<Bytes>, StoreError>,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    rows.seek_to_first();
    while let Some((key, value)) = rows.item() {
        let key = key.get(1..).unwrap_or_default();
        let flow = match Head::decode(value) {
            None => visit(key, value),
            Some(_) => match get(key)? {
                Some(value) => visit(key, &value),
                // Removed beside the scan.
                None => ControlFlow::Continue(()),
            },
        };
        if flow.is_break() {
            return Ok(());
        }
        rows.next();
    }
    rows.status().map_err(failure)
}

/// Pieces come right behind their heads. Those without one are left over from what could not be written.
fn drive_journal(
    mut rows: rocksdb::DBRawIterator<'_>,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    rows.seek_to_first();
    while let Some((key, value)) = rows.item() {
        let flow = match Head::decode(value) {
            _ if pieces::is_log_piece(key) => ControlFlow::Continue(()),
            None => visit(key, value),
            Some(head) => {
                let key = Key::from_slice(key);
                let value = head.assemble(|number, value| {
                    rows.next();
                    let piece =
                        rows.item().filter(|(it, _)| **it == *pieces::log_piece(&key, number));
                    piece.inspect(|(_, piece)| value.extend_from_slice(piece));
                    Ok(piece.is_some())
                })?;
                match value {
                    Some(value) => visit(&key, &value),
                    None => {
                        rows.status().map_err(failure)?;
                        return Err(StoreError::Corrupt("a value without its pieces".into()));
                    }
                }
            }
        };
        if flow.is_break() {
            return Ok(());
        }
        rows.next();
    }
    rows.status().map_err(failure)
}

impl Read for RocksStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.get_as(&ReadOptions::default(), family, key)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.scan_as(ReadOptions::default, family, from, to, visit)
    }
}

impl Store for RocksStore {
    type Batch = RocksBatch;
    type Snapshot = RocksSnapshot;

    fn batch(&self) -> RocksBatch {
        RocksBatch { store: self.clone(), changes: WriteBatch::default(), large: Vec::new() }
    }

    fn write(&self, batch: RocksBatch, sync: bool) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        let pieces = batch.large.iter().try_for_each(|large| self.write_pieces(large));
        let journal = self.journal.borrow_owner();
        let written = pieces.and_then(|()| journal.write_opt(batch.changes, &options));
        let written = written.map_err(failure);
        self.disk.full.store(matches!(written, Err(StoreError::Full(_))), Ordering::Release);
        written
    }

    fn write_run(&self, run: &mut Run) -> Result<(), StoreError> {
        run.sort();
        self.sync()?;
        for _ in 0..LOOKS {
            if self.loose_runs() < MAX_LOOSE_RUNS {
                break;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        let file = self.disk.rows.join("run.sst");
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        // Runs are written one at a time: nobody else changes the owners meanwhile.
        let lock = || self.disk.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let mut owners = lock().clone();
        let written = self.build(run, &file, &mut owners).and_then(|()| {
            self.rows.ingest_external_file_opts(&options, vec![&file]).map_err(failure)
        });
        match &written {
            Ok(()) => *lock() = owners,
            // What is left of it takes room on a disk that may be full.
            Err(_) => drop(fs::remove_file(&file)),
        }
        written
    }

    fn forget(&self, family: Family, to: &[u8]) -> Result<(), StoreError> {
        self.journal
            .with_dependent(|db, handles| {
                let column = handles.of(family);
                db.delete_file_in_range_cf(column, stored(family, &[]), stored(family, to))
            })
            .map_err(failure)
    }

    fn sync(&self) -> Result<(), StoreError> {
        if !self.disk.full.load(Ordering::Acquire) {
            match self.journal.borrow_owner().flush_wal(true) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    std::thread::sleep(WRITE_MAY_TAKE);
                    if !self.disk.full.load(Ordering::Acquire) {
                        return Err(failure(error));
                    }
                }
            }
        }
        let synced = sync_logs(&self.disk.path);
        synced.map_err(|error| StoreError::Unknown(format!("syncing the WAL: {error}")))
    }

    fn snapshot(&self) -> RocksSnapshot {
        let held = Held::new(self.clone(), |store| Taken {
            rows: store.rows.snapshot(),
            journal: store.journal.borrow_owner().snapshot(),
        });
        RocksSnapshot { held }
    }
}

/// A snapshot that keeps its store open.
pub struct RocksSnapshot {
    held: Held,
}

impl Read for RocksSnapshot {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.held.with_dependent(|store, taken| store.get_as(&taken.options(family), family, key))
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.held.with_dependent(|store, taken| {
            store.scan_as(|| taken.options(family), family, from, to, visit)
        })
    }
}

/// Changes in the making, already in RocksDB's own encoding.
pub struct RocksBatch {
    store: RocksStore,
    changes: WriteBatch,
    /// What is written before, in pieces; its heads are among the changes.
    large: Vec<Large>,
}

/// A large row of the log.
struct Large {
    family: Family,
    key: Key,
    parts: Vec<Bytes>,
}

impl Batch for RocksBatch {
    fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        let (changes, key) = (&mut self.changes, stored(family, key));
        self.store
            .journal
            .with_dependent(|_, handles| changes.put_cf(handles.of(family), key, value));
    }

    fn put_parts(&mut self, family: Family, key: &[u8], value: Parts<'_>) {
        if family != Family::Log || value.len() <= PIECE {
            return self.put(family, key, &value.whole());
        }
        self.put(family, key, &Head { number: 0, len: value.len() as u64 }.encode());
        self.large.push(Large { family, key: Key::from_slice(key), parts: value.kept() });
    }

    fn delete(&mut self, family: Family, key: &[u8]) {
        let (changes, key) = (&mut self.changes, stored(family, key));
        self.store.journal.with_dependent(|_, handles| changes.delete_cf(handles.of(family), key));
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;
    use crate::causal::LogPosition;

    /// A large row of the log whose end did not reach the disk is not there, and what is left of it is in
    /// nobody's way.
    #[test]
    fn pieces_without_a_head_are_nothing() {
        let path = std::env::temp_dir().join(format!("lattis-pieces-{}", std::process::id()));
        let store = RocksStore::open(&path, &RocksOptions::default()).unwrap();
        let key = |position| keys::log(LogPosition(position));
        let put = |position, len: usize, whole: bool| {
            let value = vec![1; len];
            let mut batch = store.batch();
            batch.put_parts(Family::Log, &key(position), Parts::from(&value[..]));
            match whole {
                true => store.write(batch, false).unwrap(),
                false => batch.large.iter().for_each(|it| store.write_pieces(it).unwrap()),
            }
        };
        let found = || {
            let mut found = Vec::new();
            let visit = &mut |_: &[u8], value: &[u8]| {
                found.push(value.len());
                ControlFlow::Continue(())
            };
            store.scan(Family::Log, &[], &[], visit).unwrap();
            found
        };
        put(1, 10, true);
        put(2, 5 << 20, false);
        assert_eq!((found(), store.get(Family::Log, &key(2)).unwrap()), (vec![10], None));
        put(2, 3 << 20, true);
        put(3, 20, true);
        assert_eq!(found(), [10, 3 << 20, 20]);
        put(2, 30, true);
        assert_eq!(found(), [10, 30, 20]);
        drop(store);
        fs::remove_dir_all(&path).unwrap();
    }
}
