//! The in-memory twin of the store, with the crashes of a real disk.
//!
//! What was written to the journal but not synced is kept apart as a list of batches. A crash keeps a prefix
//! of it, as a torn write-ahead log does; failures of writes can be ordered. Handles share one store, so that
//! a simulated node can be dropped and opened again over what survived.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Batch, Family, Hole, Read, Run, Store, StoreError, Visit};

type Rows = BTreeMap<(Family, Vec<u8>), Bytes>;

/// A store in memory. Clones name the same store.
#[derive(Clone, Default)]
pub struct MemStore {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// What survives any crash.
    synced: Rows,
    /// What was written since, in order.
    unsynced: Vec<MemBatch>,
    /// Both together.
    current: Rows,
    failure: Option<StoreError>,
    /// How many runs are still written, and how the next one fails.
    runs_left: Option<(usize, StoreError)>,
    /// Rows that scans have visited.
    scanned: u64,
    /// Rows that cannot be read.
    damaged: BTreeSet<(Family, Vec<u8>)>,
}

impl Shared {
    /// The first row of a range that cannot be read.
    fn damage(&self, family: Family, from: &[u8], to: &[u8]) -> Option<&[u8]> {
        let mut behind = self.damaged.range((family, from.to_vec())..);
        let first = behind.next().filter(|(of, _)| *of == family)?.1.as_slice();
        (to.is_empty() || first < to).then_some(first)
    }

    /// What was written anew, or removed, can be read.
    fn mend(&mut self, batch: &MemBatch) {
        for op in &batch.ops {
            let (Op::Put(family, key, _) | Op::Delete(family, key)) = op;
            self.damaged.remove(&(*family, key.clone()));
        }
    }

    fn sync(&mut self) {
        for batch in self.unsynced.drain(..) {
            batch.apply(&mut self.synced);
        }
    }
}

impl MemStore {
    /// An empty store.
    pub fn new() -> MemStore {
        MemStore::default()
    }

    /// Loses all that was not synced but its first `keep` batches.
    pub fn crash(&self, keep: usize) {
        let mut shared = self.lock();
        let survivors = keep.min(shared.unsynced.len());
        let batches: Vec<MemBatch> = shared.unsynced.drain(..).take(survivors).collect();
        for batch in &batches {
            batch.apply(&mut shared.synced);
        }
        shared.current = shared.synced.clone();
        shared.failure = None;
    }

    /// Batches written and not synced: what a crash can lose.
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// Makes every write fail with `failure` until it is taken back with `None`. `Unknown` writes the
    /// batch all the same.
    pub fn fail_writes(&self, failure: Option<StoreError>) {
        self.lock().failure = failure;
    }

    /// So many runs are written from now on, and those after them fail.
    pub fn fail_runs_after(&self, runs: usize, failure: StoreError) {
        self.lock().runs_left = Some((runs, failure));
    }

    /// Makes a row unreadable, until it is written anew: a damaged block.
    pub fn damage(&self, family: Family, key: &[u8]) {
        self.lock().damaged.insert((family, key.to_vec()));
    }

    /// How many rows scans have visited so far.
    pub fn scanned(&self) -> u64 {
        self.lock().scanned
    }

    /// The stored keys of a family.
    pub fn keys(&self, family: Family) -> Vec<Vec<u8>> {
        let shared = self.lock();
        shared.current.keys().filter(|(of, _)| *of == family).map(|(_, key)| key.clone()).collect()
    }

    /// A store of its own with what this one holds: a copied directory.
    pub fn copy(&self) -> MemStore {
        let current = self.lock().current.clone();
        let shared = Shared { synced: current.clone(), current, ..Shared::default() };
        MemStore { shared: Arc::new(Mutex::new(shared)) }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing panics while the lock is held, so a poisoned lock has whole data behind it.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn get(rows: &Rows, family: Family, key: &[u8]) -> Option<Bytes> {
    rows.get(&(family, key.to_vec())).cloned()
}

fn scan(rows: &Rows, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) {
    let start = Bound::Included((family, from.to_vec()));
    for ((at, key), value) in rows.range((start, Bound::Unbounded)) {
        if *at != family || (!to.is_empty() && key.as_slice() >= to) {
            return;
        }
        if let ControlFlow::Break(()) = visit(key, value) {
            return;
        }
    }
}

impl Read for MemStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let shared = self.lock();
        match shared.damaged.contains(&(family, key.to_vec())) {
            true => Err(StoreError::Corrupt("a damaged row".into())),
            false => Ok(get(&shared.current, family, key)),
        }
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let mut shared = self.lock();
        let mut scanned = 0;
        let visit = &mut |key: &[u8], value: &[u8]| {
            scanned += 1;
            visit(key, value)
        };
        let Some(damage) = shared.damage(family, from, to) else {
            scan(&shared.current, family, from, to, visit);
            shared.scanned += scanned;
            return Ok(());
        };
        let mut stopped = false;
        if from < damage {
            scan(&shared.current, family, from, damage, &mut |key, value| {
                let flow = visit(key, value);
                stopped = flow.is_break();
                flow
            });
        }
        if stopped { Ok(()) } else { Err(StoreError::Corrupt("a damaged row".into())) }
    }

    fn skip(&self, family: Family, from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
        let mut behind = self.lock().damage(family, from, to)?.to_vec();
        behind.push(0);
        (to.is_empty() || behind.as_slice() < to).then_some(behind)
    }
}

impl Store for MemStore {
    type Batch = MemBatch;
    type Snapshot = MemSnapshot;

    fn batch(&self) -> MemBatch {
        MemBatch::default()
    }

    fn write(&self, batch: MemBatch, sync: bool) -> Result<(), StoreError> {
        let mut shared = self.lock();
        match shared.failure.clone() {
            Some(failure @ StoreError::Unknown(_)) => {
                batch.apply(&mut shared.current);
                shared.unsynced.push(batch);
                return Err(failure);
            }
            Some(failure) => return Err(failure),
            None => {}
        }
        batch.apply(&mut shared.current);
        shared.unsynced.push(batch);
        drop(shared);
        if sync { self.sync() } else { Ok(()) }
    }

    fn write_run(&self, run: &mut Run) -> Result<(), StoreError> {
        run.sort();
        let mut shared = self.lock();
        let failure = match &mut shared.runs_left {
            Some((0, failure)) => Some(failure.clone()),
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => shared.failure.clone(),
        };
        if let Some(failure @ (StoreError::Full(_) | StoreError::Corrupt(_))) = failure {
            return Err(failure);
        }
        shared.sync();
        let mut rows = MemBatch::default();
        for Hole { family, from, to, .. } in run.erased() {
            let within = |(of, key): &(Family, Vec<u8>)| {
                of == family && key >= from && (to.is_empty() || key < to)
            };
            shared.damaged.retain(|row| !within(row));
            let gone: Vec<_> = shared.current.keys().filter(|row| within(row)).cloned().collect();
            gone.into_iter().for_each(|(family, key)| rows.delete(family, &key));
        }
        for (stored, value) in run.changes() {
            let Some((number, key)) = stored.split_first() else { continue };
            let family = Family::ALL.iter().find(|family| **family as u8 == *number);
            let Some(family) = family else { continue };
            match value {
                Some(value) => rows.put_parts(*family, key, value),
                None => rows.delete(*family, key),
            }
        }
        rows.apply(&mut shared.current);
        rows.apply(&mut shared.synced);
        shared.mend(&rows);
        failure.map_or(Ok(()), Err)
    }

    fn forget(&self, family: Family, to: &[u8]) -> Result<(), StoreError> {
        let mut shared = self.lock();
        let forgotten = |(of, key): &(Family, Vec<u8>)| *of == family && key.as_slice() < to;
        shared.current.retain(|row, _| !forgotten(row));
        shared.synced.retain(|row, _| !forgotten(row));
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.lock().sync();
        Ok(())
    }

    fn snapshot(&self) -> MemSnapshot {
        MemSnapshot { rows: self.lock().current.clone() }
    }
}

/// A copy of the store's rows at one moment.
pub struct MemSnapshot {
    rows: Rows,
}

impl Read for MemSnapshot {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(get(&self.rows, family, key))
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        scan(&self.rows, family, from, to, visit);
        Ok(())
    }

    fn skip(&self, _: Family, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

enum Op {
    Put(Family, Vec<u8>, Bytes),
    Delete(Family, Vec<u8>),
}

/// Changes in the making.
#[derive(Default)]
pub struct MemBatch {
    ops: Vec<Op>,
}

impl MemBatch {
    fn apply(&self, rows: &mut Rows) {
        for op in &self.ops {
            match op {
                Op::Put(family, key, value) => {
                    rows.insert((*family, key.clone()), value.clone());
                }
                Op::Delete(family, key) => {
                    rows.remove(&(*family, key.clone()));
                }
            }
        }
    }
}

impl Batch for MemBatch {
    fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.ops.push(Op::Put(family, key.to_vec(), Bytes::copy_from_slice(value)));
    }

    fn delete(&mut self, family: Family, key: &[u8]) {
        self.ops.push(Op::Delete(family, key.to_vec()));
    }
}
