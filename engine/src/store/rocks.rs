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
use std::io::{self, Read as _};
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
use super::wal::{BLOCK, Whole};
use super::{Batch, Family, Hole, Read, Run, Store, StoreError, Visit, keys, scan_on};
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

/// How often the range is halved in which a damaged block ends.
const HALVES: usize = 256;

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
    /// Merging has met damage and was stopped.
    unmerged: AtomicBool,
    read_only: bool,
    /// Held as long as the store is open; none where the file system takes no file.
    _lock: Option<File>,
}

/// How long a sync that fails waits for a write that fails beside it to say why.
const WRITE_MAY_TAKE: Duration = Duration::from_millis(100);

fn failure(error: rocksdb::Error) -> StoreError {
    let kind = error.kind();
    let text = error.into_string();
    let refused = ["No space left", "space limit", "Read-only file system", "in read only mode"];
    if refused.iter().any(|it| text.contains(it)) {
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

/// Takes the lock of a directory, after a look at what lies in it. `None` if the file system takes no file.
fn guard(path: &Path) -> Result<Option<File>, StoreError> {
    let refuse = |why: String| Err(StoreError::Unopened(why));
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return refuse("it is not a directory".into());
        }
        Err(error) => return refuse(error.to_string()),
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let foreign: Vec<String> = names.filter(|name| !is_ours(name)).collect();
    let is_store = path.join("CURRENT").exists() || path.join(LOCK).exists();
    let of_redis = |name: &&String| {
        name.ends_with(".rdb") || name.ends_with(".aof") || *name == "appendonlydir"
    };
    if !is_store && let Some(name) = foreign.iter().find(of_redis) {
        return refuse(format!(
            "{name} is data of Redis, which is not read: give a directory of its own, and copy the data \
             with a client"
        ));
    }
    if !is_store && let Some(name) = foreign.first() {
        return refuse(format!(
            "it holds other files ({name}): give an empty directory, or a new one"
        ));
    }
    let file = path.join(LOCK);
    let opened = File::options().create(true).truncate(false).write(true).open(&file);
    let Ok(lock) = opened.or_else(|_| File::open(&file)) else { return Ok(None) };
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(fs::TryLockError::WouldBlock) => {
            refuse("another server has this directory open".into())
        }
        Err(fs::TryLockError::Error(error)) => refuse(format!("locking it failed: {error}")),
    }
}

/// The file that is locked as long as a store is open: before anything of RocksDB is touched.
const LOCK: &str = "lattis.lock";

/// Whether a file may lie in the directory of a new store: RocksDB's, the lock, and what file systems and
/// people leave there.
fn is_ours(name: &str) -> bool {
    let exact = ["CURRENT", "IDENTITY", "LOCK", LOCK, "rows", "lost+found"];
    let prefix = ["MANIFEST-", "OPTIONS-", "LOG", "."];
    let number = |stem: &str| stem.bytes().all(|byte| byte.is_ascii_digit());
    exact.contains(&name)
        || prefix.iter().any(|prefix| name.starts_with(prefix))
        || name
            .rsplit_once('.')
            .is_some_and(|(stem, suffix)| number(stem) && ["log", "sst", "dbtmp"].contains(&suffix))
}

/// Files of rows that are missing or cut, before anything reads in them.
fn all_there(rows: &DB, path: &Path) -> Result<(), StoreError> {
    for file in rows.live_files().map_err(unopened)? {
        let name = file.name.trim_start_matches('/');
        let length = fs::metadata(path.join(name)).map(|found| found.len()).unwrap_or(0);
        if length != file.size as u64 {
            return Err(StoreError::Corrupt(format!(
                "rows/{name} has {length} bytes of {}",
                file.size
            )));
        }
    }
    Ok(())
}

/// A store of which nothing that is read is kept in memory.
struct Unkept<'s>(&'s RocksStore);

impl Unkept<'_> {
    fn options() -> ReadOptions {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options
    }
}

impl Read for Unkept<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get_as(&Unkept::options(), family, key)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        self.0.scan_as(Unkept::options, family, from, to, visit)
    }

    fn skip(&self, family: Family, from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
        self.0.skip_as(&Unkept::options, family, from, to)
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
    /// Opens or creates the store of a directory. Refused if another process has it open, if it holds what is
    /// not of a store, or if its files are damaged, but for blocks of rows; never opened as empty then.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<RocksStore, StoreError> {
        if !path.exists() {
            fs::create_dir_all(path).map_err(|error| StoreError::Unopened(error.to_string()))?;
        }
        let lock = guard(path)?;
        RocksStore::open_as(path, options, lock, false)
    }

    /// The same, to be read only: it changes nothing on the disk, and writes are refused as `Full`.
    pub fn open_read_only(path: &Path, options: &RocksOptions) -> Result<RocksStore, StoreError> {
        let lock = guard(path)?;
        RocksStore::open_as(path, options, lock, true)
    }

    fn open_as(
        path: &Path,
        options: &RocksOptions,
        lock: Option<File>,
        read_only: bool,
    ) -> Result<RocksStore, StoreError> {
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
        if read_only {
            // RocksDB's own log has to go somewhere.
            db.set_db_log_dir(std::env::temp_dir());
        }
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let columns = [LOG, NODE]
            .map(|name| ColumnFamilyDescriptor::new(name, column_options(false, &cache)));
        let opened = match read_only {
            true => DB::open_cf_descriptors_read_only(&db, path, columns, false),
            false => DB::open_cf_descriptors(&db, path, columns),
        };
        let journal = opened.map_err(unopened)?;
        let journal = Journal::try_new(journal, |db| {
            let missing = |name| StoreError::Corrupt(format!("no column family {name}"));
            let handle = |name| db.cf_handle(name).ok_or_else(|| missing(name));
            Ok::<_, StoreError>(Handles { log: handle(LOG)?, node: handle(NODE)? })
        })?;
        let run_options = column_options(true, &cache);
        let rows_at = path.join("rows");
        // A block that cannot be read is no reason not to merge others, and not to write.
        db.set_paranoid_checks(false);
        let columns = [ColumnFamilyDescriptor::new("default", column_options(true, &cache))];
        let opened = match read_only {
            true => DB::open_cf_descriptors_read_only(&db, &rows_at, columns, false),
            false => DB::open_cf_descriptors(&db, &rows_at, columns),
        };
        let rows = opened.map_err(unopened)?;
        all_there(&rows, &rows_at)?;
        let owners = Mutex::new(load_owners(&rows)?);
        let disk = Disk {
            path: path.to_owned(),
            rows: rows_at,
            run_options,
            full: AtomicBool::new(false),
            owners,
            unmerged: AtomicBool::new(false),
            read_only,
            _lock: lock,
        };
        Ok(RocksStore { rows: Arc::new(rows), journal: Arc::new(journal), disk: Arc::new(disk) })
    }

    /// What the end of the journal's write-ahead log has that is not whole, and will be dropped by opening:
    /// file and bytes. A crash in the middle of a write leaves such an end, damage may.
    pub fn torn_tails(path: &Path) -> io::Result<Vec<(String, u64)>> {
        let mut torn = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".log") || !is_ours(&name) {
                continue;
            }
            let mut file = File::open(entry.path())?;
            let length = file.metadata()?.len();
            let (mut whole, mut block) = (Whole::default(), Vec::with_capacity(BLOCK));
            loop {
                block.clear();
                io::Read::by_ref(&mut file).take(BLOCK as u64).read_to_end(&mut block)?;
                if !whole.block(&block) {
                    break;
                }
            }
            if whole.end < length {
                torn.push((name, length - whole.end));
            }
        }
        torn.sort();
        Ok(torn)
    }

    /// Whether files of rows are no longer merged since one of them is damaged: found out, and the merging
    /// stopped, by this call.
    pub fn is_unmerged(&self) -> bool {
        let failed = || {
            let errors = self.rows.property_int_value("rocksdb.background-errors");
            errors.ok().flatten().unwrap_or(0) > 0
        };
        if !self.disk.unmerged.load(Ordering::Acquire) && failed() {
            // If this fails it is tried again by the next call.
            let stopped = self.rows.set_options(&[("disable_auto_compactions", "true")]);
            self.disk.unmerged.store(stopped.is_ok(), Ordering::Release);
        }
        self.disk.unmerged.load(Ordering::Acquire)
    }

    /// Reads all rows through, and tells what cannot be read. Cost: the files; they do not enter the cache.
    pub fn scrub(&self) -> Result<Vec<Hole>, StoreError> {
        let mut holes = Vec::new();
        let unkept = Unkept(self);
        for family in Family::ALL.into_iter().filter(|family| !family.is_journal()) {
            let pass = &mut |_: &[u8], _: &[u8]| ControlFlow::Continue(());
            scan_on(&unkept, family, &[], &[], &mut holes, pass)?;
        }
        Ok(holes)
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

    fn writable(&self) -> Result<(), StoreError> {
        match self.disk.read_only {
            true => Err(StoreError::Full("it was opened to be read only".into())),
            false => Ok(()),
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

    /// [`Read::skip`], with options: looks for the nearest key from which reading can go on. What cannot be
    /// read is a block, whose end is not known, so it is felt for: by ever larger steps, then by halves.
    fn skip_as(
        &self,
        options: &dyn Fn() -> ReadOptions,
        family: Family,
        from: &[u8],
        to: &[u8],
    ) -> Option<Vec<u8>> {
        let reads = |key: &[u8]| {
            let first = &mut |_: &[u8], _: &[u8]| ControlFlow::Break(());
            self.scan_as(options, family, key, to, first).is_ok()
        };
        let inside = |key: &Vec<u8>| to.is_empty() || key.as_slice() < to;
        let steps = (1..=from.len()).rev().map(|length| keys::prefix_end(&from[..length]));
        let steps = steps.filter(|key| !key.is_empty()).take_while(inside);
        let mut low = from.to_vec();
        let mut high = None;
        for step in steps {
            if reads(&step) {
                high = Some(step);
                break;
            }
            low = step;
        }
        // Behind the last step there may still be something before the end.
        let mut high =
            high.unwrap_or_else(|| if to.is_empty() { vec![0xff; 8] } else { to.to_vec() });
        for _ in 0..HALVES {
            let Some(middle) = between(&low, &high) else { break };
            if reads(&middle) { high = middle } else { low = middle }
        }
        (inside(&high) && reads(&high)).then_some(high)
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
        for Hole { family, from, to, .. } in run.erased() {
            let from = stored(*family, from);
            let to = match to.is_empty() {
                true => Key::from_slice(&[*family as u8 + 1]),
                false => stored(*family, to),
            };
            gone.extend(owners.remove_all(&from, &to));
            writer.delete_range(from, to)?;
        }
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
    if let Err(StoreError::Corrupt(_)) = found.status().map_err(failure) {
        // Nothing but this: the pieces of some values will stay when these go. Their numbers are not for
        // others.
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound([pieces::PIECES]);
        options.set_iterate_upper_bound([pieces::PIECES + 1]);
        let mut last = rows.raw_iterator_opt(options);
        last.seek_to_last();
        if let Some(key) = last.key() {
            owners.skip_to(key.get(1..9).unwrap_or_default());
        }
        last.status().map_err(failure)?;
    } else {
        found.status().map_err(failure)?;
    }
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

/// Half way between two keys, of which the first is less; `None` if they are as good as neighbours.
fn between(low: &[u8], high: &[u8]) -> Option<Vec<u8>> {
    const DIGITS: usize = 16;
    let common = low.iter().zip(high).take_while(|(low, high)| low == high).count();
    let number = |key: &[u8]| {
        let mut digits = [0; DIGITS];
        let rest = key.get(common..).unwrap_or_default();
        let length = rest.len().min(DIGITS);
        digits[..length].copy_from_slice(&rest[..length]);
        u128::from_be_bytes(digits)
    };
    let (low_number, high_number) = (number(low), number(high));
    let apart = high_number.checked_sub(low_number).filter(|apart| *apart > 1)?;
    let mut middle = low[..common].to_vec();
    middle.extend((low_number + apart / 2).to_be_bytes());
    Some(middle)
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

    fn skip(&self, family: Family, from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
        self.skip_as(&ReadOptions::default, family, from, to)
    }
}

impl Store for RocksStore {
    type Batch = RocksBatch;
    type Snapshot = RocksSnapshot;

    fn batch(&self) -> RocksBatch {
        RocksBatch { store: self.clone(), changes: WriteBatch::default(), large: Vec::new() }
    }

    fn write(&self, batch: RocksBatch, sync: bool) -> Result<(), StoreError> {
        self.writable()?;
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
        self.writable()?;
        run.sort();
        self.sync()?;
        for _ in 0..LOOKS {
            if self.is_unmerged() || self.loose_runs() < MAX_LOOSE_RUNS {
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
        if self.disk.read_only {
            return Ok(());
        }
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

    fn skip(&self, family: Family, from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
        self.held.with_dependent(|store, taken| {
            store.skip_as(&|| taken.options(family), family, from, to)
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
