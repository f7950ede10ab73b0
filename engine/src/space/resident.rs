//! Both sides of the keyspace as one: rows in memory, and the store behind them.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::Outcome;
use super::stored::{Kept, Stored};
use super::whole::ranges;
use crate::codec::{Parts, Reader, Writer};
use crate::header::Header;
use crate::name::hash;
use crate::open::Open;
use crate::pages::{Epoch, LARGE, Lookup, Name, Pages, TreeId, Value, Walk};
use crate::row::{Origins, Row};
use crate::store::{Family, Hole, Read as _, Run, Store, StoreError, has_rows_in, keys, scan_on};

/// Rows that are read from the store together, when many are wanted, at most, and their bytes.
const SLICE: usize = 256;
const SLICE_BYTES: usize = 16 << 10;
/// Bytes of room for a row that are kept.
const SCRATCH: usize = 64 << 10;

pub(super) struct Resident<S> {
    pub(super) store: S,
    pub(super) origins: Origins,
    /// Ranges that were given up, with the generation that removes them.
    pub(super) erased: Vec<(u64, Hole)>,
    pub(super) pages: Pages,
    /// The trees of keys by db.
    keys: Vec<Option<TreeId>>,
    scratch: Vec<u8>,
    /// Bytes that pages may take.
    limit: usize,
}

/// What visits rows: names, and values as they are stored, with the origins that they name by number.
type Visit<'v> = dyn FnMut(&[u8], Value<'_>, &Origins) -> Outcome<ControlFlow<()>> + 'v;

/// Rows of the store in the order of their places: their names and values, one behind the other.
#[derive(Default)]
struct Slice {
    bytes: Vec<u8>,
    /// Where each name ends, and each value.
    ends: Vec<(usize, usize)>,
}

impl Slice {
    fn is_full(&self) -> bool {
        self.ends.len() >= SLICE || self.bytes.len() >= SLICE_BYTES
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(name);
        let end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ends.push((end, self.bytes.len()));
    }

    fn rows(&self) -> impl Iterator<Item = (Name<'_>, Value<'_>)> {
        let mut from = 0;
        self.ends.iter().map(move |(middle, end)| {
            let (name, value) = (&self.bytes[from..*middle], &self.bytes[*middle..*end]);
            from = *end;
            ((hash(name), name), Value::Packed(value))
        })
    }
}

impl<S: Store> Resident<S> {
    pub(super) fn new(store: S, origins: Origins, limit: usize, seed: u64) -> Resident<S> {
        let pages = Pages::new(seed);
        let (erased, keys, scratch) = (Vec::new(), Vec::new(), Vec::new());
        Resident { store, origins, erased, pages, keys, scratch, limit }
    }

    /// The store without what was given up.
    pub(super) fn kept(&self) -> Kept<'_, S> {
        Kept { store: &self.store, erased: &self.erased }
    }

    /// The tree of a prefix; `whole`: if it has no row in memory, it has none.
    pub(super) fn tree(&mut self, family: Family, prefix: &[u8], whole: bool) -> TreeId {
        match self.pages.find_tree(family, prefix) {
            Some(tree) => tree,
            None => self.pages.add_tree(family, prefix, whole),
        }
    }

    /// The tree of the keys of a db.
    pub(super) fn keys_of(&mut self, db: u16) -> TreeId {
        let index = usize::from(db);
        if let Some(Some(tree)) = self.keys.get(index) {
            return *tree;
        }
        let prefix = db.to_be_bytes();
        let to = keys::prefix_end(&prefix);
        let whole = has_rows_in(&self.kept(), Family::Keys, &prefix, &to) == Ok(false);
        let tree = self.tree(Family::Keys, &prefix, whole);
        if self.keys.len() <= index {
            self.keys.resize(index + 1, None);
        }
        self.keys[index] = Some(tree);
        tree
    }

    /// The row of a stored key, whose first bytes are the prefix of the tree, and whether the store has none.
    pub(super) fn get<V: Stored>(
        &mut self,
        tree: TreeId,
        stored: &[u8],
        prefix: usize,
    ) -> Outcome<(V, bool)> {
        let name = keys::name_at(stored, prefix);
        match self.pages.find(tree, name) {
            Lookup::Row(row) => {
                let value = self.pages.value(row);
                return Ok((V::load(value.reader(), &self.origins)?, false));
            }
            Lookup::Absent => return Ok((V::default(), true)),
            Lookup::Removed => return Ok((V::default(), false)),
            Lookup::Unknown => {}
        }
        let (family, _) = self.pages.prefix(tree);
        let Some(bytes) = self.kept().get(family, stored)? else { return Ok((V::default(), true)) };
        let row = V::load(Reader::over(&bytes), &self.origins)?;
        let value =
            if bytes.len() > LARGE { Value::Beside(&[], &bytes) } else { Value::Packed(&bytes) };
        self.pages.fill(tree, name, value);
        Ok((row, false))
    }

    /// Takes in a row that the store has, if it has it.
    pub(super) fn fill(&mut self, tree: TreeId, name: Name<'_>) -> Outcome<()> {
        let (family, prefix) = self.pages.prefix(tree);
        let stored = stored(prefix, name.1);
        let Some(bytes) = self.kept().get(family, &stored)? else { return Ok(()) };
        let value =
            if bytes.len() > LARGE { Value::Beside(&[], &bytes) } else { Value::Packed(&bytes) };
        self.pages.fill(tree, name, value);
        Ok(())
    }

    /// Packs what was changed among the rows that are open.
    pub(super) fn pack<V: Stored>(&mut self, open: &mut Open<V>) {
        open.pack(|tree, changed, row, absent| {
            self.put(tree, changed.name(), row, std::mem::take(absent));
        });
    }

    /// Packs a row; `absent`: neither its tree nor the store has it.
    pub(super) fn put<V: Stored>(&mut self, tree: TreeId, name: Name<'_>, row: &V, absent: bool) {
        let Resident { pages, origins, scratch, .. } = self;
        if row.is_blank() {
            pages.change(tree, name, None, absent);
            return;
        }
        scratch.clear();
        // What is large is shared with the row.
        let mut out = Writer::over(std::mem::take(scratch)).sharing(Vec::new());
        row.save(&mut out, origins);
        let large;
        (*scratch, large) = out.into_parts();
        let whole: Bytes;
        let value = match large.as_slice() {
            [] => Value::Packed(scratch),
            [(at, rest)] if *at == scratch.len() => Value::Beside(scratch, rest),
            _ => {
                whole = Parts::new(scratch, 0, &large).whole().into_owned().into();
                Value::Beside(&[], &whole)
            }
        };
        pages.change(tree, name, Some(value), absent);
        if scratch.capacity() > SCRATCH {
            *scratch = Vec::new();
        }
    }

    /// Visits the rows of a tree from a place on, in order. With `holes` it passes over what the store cannot
    /// read, and lists that; without, it fails there.
    pub(super) fn walk(
        &mut self,
        tree: TreeId,
        from: u64,
        mut holes: Option<&mut Vec<Hole>>,
        visit: &mut Visit<'_>,
    ) -> Outcome<()> {
        let mut from: (u64, Box<[u8]>) = (from, Box::default());
        let mut failed = None;
        let mut visit = |name: &[u8], value: Value<'_>, origins: &Origins| {
            visit(name, value, origins).unwrap_or_else(|error| {
                failed = Some(error);
                ControlFlow::Break(())
            })
        };
        loop {
            let Resident { pages, origins, .. } = self;
            let pass = &mut |name: &[u8], value: Value<'_>| visit(name, value, origins);
            let Walk::Gap(hash, low, to) = pages.walk(tree, (from.0, &from.1), pass) else {
                return failed.map_or(Ok(()), Err);
            };
            // Before the slice is read, so that the walk passes over it before it can go.
            self.pages.evict(self.limit, false);
            let to = to.as_ref().map(|(hash, low)| (*hash, &**low));
            let read = self.read_slice(tree, (hash, &low), to);
            match (read, &mut holes) {
                (Err(StoreError::Corrupt(why)), Some(holes)) => {
                    let hole = self.hole(tree, (hash, &low), to, why);
                    let (_, prefix) = self.pages.prefix(tree);
                    let ends = hole.to.starts_with(prefix).then(|| {
                        let (hash, name) = keys::name_at(&hole.to, prefix.len());
                        (hash, Box::<[u8]>::from(name))
                    });
                    holes.push(hole);
                    let end = ends.as_ref().map(|(hash, name)| (*hash, &**name)).or(to);
                    let Resident { pages, origins, .. } = self;
                    let pass = &mut |name: &[u8], value: Value<'_>| visit(name, value, origins);
                    let stopped = pages.visit_known(tree, (hash, &low), end, pass).is_break();
                    match end {
                        Some((hash, name)) if !stopped => from = (hash, name.into()),
                        _ => return failed.map_or(Ok(()), Err),
                    }
                }
                (read, _) => {
                    read?;
                    from = (hash, low);
                }
            }
        }
    }

    /// The same, decoded.
    pub(super) fn walk_rows<V: Stored>(
        &mut self,
        tree: TreeId,
        from: u64,
        mut holes: Option<&mut Vec<Hole>>,
        visit: &mut dyn FnMut(&[u8], &V) -> ControlFlow<()>,
    ) -> Outcome<()> {
        let passes = holes.is_some();
        let mut undecoded = Vec::new();
        self.walk(tree, from, holes.as_deref_mut(), &mut |name, value, origins| {
            match V::load(value.reader(), origins) {
                Err(_) if passes => undecoded.push(name.to_vec()),
                row => return Ok(visit(name, &row?)),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let (family, prefix) = self.pages.prefix(tree);
        if let Some(holes) = holes {
            holes.extend(undecoded.iter().map(|name| Hole::of(family, &stored(prefix, name))));
        }
        Ok(())
    }

    /// Reads rows of an interval of which memory lacks some, as many as fit a slice, so that memory has all
    /// that there are up to the last one.
    fn read_slice(&mut self, tree: TreeId, from: Name<'_>, to: Option<Name<'_>>) -> Outcome<()> {
        let (family, prefix) = self.pages.prefix(tree);
        let prefix = prefix.to_vec();
        let [start, end] = self.range(tree, from, to);
        let mut slice = Slice::default();
        let mut next = None;
        let scanned = self.kept().scan(family, &start, &end, &mut |stored, value| {
            if slice.is_full() {
                next = Some(stored.to_vec());
                return ControlFlow::Break(());
            }
            slice.push(keys::subkey_of(stored, prefix.len()), value);
            ControlFlow::Continue(())
        });
        if let Err(error) = scanned {
            // What came before what cannot be read is there.
            let Some((name, _)) = slice.rows().last() else { return Err(error) };
            let mut stored = stored(&prefix, name.1);
            stored.push(0);
            next = Some(stored);
        }
        let to = next.as_ref().map(|next| keys::name_at(next, prefix.len())).or(to);
        self.pages.fill_interval(tree, from, to, slice.rows());
        Ok(())
    }

    /// The stored keys between which the rows of an interval lie.
    fn range(&self, tree: TreeId, from: Name<'_>, to: Option<Name<'_>>) -> [Vec<u8>; 2] {
        let (_, prefix) = self.pages.prefix(tree);
        let key = |(hash, name): Name<'_>| [prefix, &hash.to_be_bytes(), name].concat();
        [key(from), to.map_or_else(|| keys::prefix_end(prefix), key)]
    }

    /// What cannot be read from a place on.
    fn hole(&self, tree: TreeId, from: Name<'_>, to: Option<Name<'_>>, why: String) -> Hole {
        let (family, _) = self.pages.prefix(tree);
        let [start, end] = self.range(tree, from, to);
        let to = self.store.skip(family, &start, &end).unwrap_or(end);
        Hole { family, from: start, to, why }
    }

    /// Gives up a range of the store, which the generation removes. What memory has of it and can be decoded
    /// stays, and is written.
    pub(super) fn erase(&mut self, generation: u64, hole: Hole) {
        for (tree, prefix) in self.pages.trees_of(hole.family) {
            if hole.from >= keys::prefix_end(&prefix) || (!hole.to.is_empty() && hole.to <= prefix)
            {
                continue;
            }
            let mut names = Vec::new();
            let Resident { pages, origins, .. } = self;
            let _ = pages.visit_known(tree, (0, &[]), None, &mut |name, value| {
                let stored = stored(&prefix, name);
                if hole.holds(hole.family, &stored) {
                    names.push((stored, is_decodable(hole.family, value, origins)));
                }
                ControlFlow::Continue(())
            });
            for (name, is_decodable) in names {
                let name = keys::name_at(&name, prefix.len());
                match is_decodable {
                    true => self.pages.owe(tree, name),
                    false => self.pages.change(tree, name, None, false),
                }
            }
        }
        self.erased.push((generation, hole));
    }

    /// Takes all rows of a db away, from memory, and from the store with this generation.
    pub(super) fn detach(&mut self, db: u16, generation: u64) -> Epoch {
        self.erased.extend(ranges(db).map(|range| (generation, range)));
        if let Some(tree) = self.keys.get_mut(usize::from(db)) {
            *tree = None;
        }
        self.pages.detach(db)
    }

    /// Undoes that.
    pub(super) fn attach(&mut self, db: u16, epoch: Epoch) {
        ranges(db).for_each(|range| self.take_back(&range));
        if let Some(tree) = self.keys.get_mut(usize::from(db)) {
            *tree = None;
        }
        self.pages.attach(db, epoch);
    }

    /// Takes back that a range was given up last.
    pub(super) fn take_back(&mut self, range: &Hole) {
        if let Some(at) = self.erased.iter().rposition(|(_, hole)| hole == range) {
            self.erased.remove(at);
        }
    }

    /// Takes the rows of a prefix out of memory, if any are there, and tells where they lie in the store.
    pub(super) fn detach_tree(
        &mut self,
        family: Family,
        prefix: &[u8],
    ) -> (Option<(TreeId, Epoch)>, Hole) {
        let tree = self.pages.find_tree(family, prefix);
        let detached = tree.map(|tree| (tree, self.pages.detach_tree(tree)));
        let (from, to) = (prefix.to_vec(), keys::prefix_end(prefix));
        (detached, Hole { family, from, to, why: String::new() })
    }

    /// The dbs that may have keys.
    pub(super) fn databases(&self) -> Outcome<Vec<u16>> {
        let trees = self.pages.trees_of(Family::Keys);
        let known = trees.iter().filter_map(|(_, prefix)| keys::split_name(prefix));
        let mut found: Vec<u16> = known.map(|(db, _)| db).collect();
        let mut from = Vec::new();
        loop {
            let mut next = None;
            let holes = &mut Vec::new();
            scan_on(&self.kept(), Family::Keys, &from, &[], holes, &mut |key, _| {
                next = keys::split_header(key).map(|(db, _)| db);
                ControlFlow::Break(())
            })?;
            let Some(db) = next else { return Ok(found) };
            found.push(db);
            from = keys::prefix_end(&db.to_be_bytes());
            if from.is_empty() {
                return Ok(found);
            }
        }
    }

    /// That run is in the store, or could not be written.
    pub(super) fn thaw(&mut self, run: &Run, written: bool) {
        if written {
            self.pages.thaw();
            return;
        }
        self.pages.freeze_again();
        for (key, _) in run.changes() {
            let Some((number, stored)) = key.split_first() else { continue };
            let family = Family::ALL.into_iter().find(|family| *family as u8 == *number);
            let Some(family) = family else { continue };
            let Some(prefix) = keys::prefix_len(family, stored) else { continue };
            let tree = self.tree(family, &stored[..prefix], false);
            self.pages.owe(tree, keys::name_at(stored, prefix));
        }
    }

    /// Lets go of what is more than memory may hold.
    pub(super) fn evict(&mut self) {
        self.pages.evict(self.limit, true);
    }
}

fn is_decodable(family: Family, value: Value<'_>, origins: &Origins) -> bool {
    match family {
        Family::Keys => Header::load(value.reader(), origins).is_ok(),
        Family::Data => Row::load(value.reader(), origins).is_ok(),
        _ => u64::load(value.reader(), origins).is_ok(),
    }
}

/// The stored key of a name under a prefix.
fn stored(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    let mut stored = prefix.to_vec();
    keys::subkey(&mut stored, name);
    stored
}
