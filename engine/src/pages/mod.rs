//! The rows that are in memory, packed in pages in the order that they have in the store.
//!
//! A *tree* holds the rows of one prefix: the keys of a db, the members of a set, the fields of a hash. Its
//! pages lie in the order of the hash of a row's name, as the rows of the store do, so that a whole read
//! walks over them and a cursor is a place among them. A page that is *whole* has all rows of its interval:
//! what it does not have is nowhere, and nobody asks the store. One that is not has some of them, and what is
//! looked up joins them, row by row; so memory holds what is used, and not what lies beside that.
//!
//! What was changed and the store does not have is *owed*, and stays until the generation that it belongs
//! to is written. What is not may go at any time, by CLOCK (Corbató, "A Paging Experiment with the Multics
//! System", 1968): the hand passes over the pages and spares once the rows that were looked up since.
//!
//! Pages: Litwin, "Linear Hashing", 1980, and Fagin et al., "Extendible Hashing", 1979, split by the bits of
//! a hash; here they split in the middle, as the leaves of a B+tree (Bayer and McCreight, 1972), so that no
//! choice of names makes a directory grow.

mod page;
#[cfg(test)]
mod tests;
mod tree;

use std::cmp::Ordering;
use std::hash::BuildHasher;
use std::ops::ControlFlow;

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use hashbrown::HashTable;

use page::{Changed, Flags, Page};
pub(crate) use page::{LARGE, Value, row_bytes};
#[cfg(test)]
use tests::hash;
use tree::{At, Tree};

#[cfg(not(test))]
use crate::name::hash;
use crate::slots::Slots;
use crate::store::{Family, Run};

/// The name of a row within its tree, behind its hash: by both, trees are in order.
pub(crate) type Name<'n> = (u64, &'n [u8]);

/// The order of names. A comparison of nothing with nothing is not left to the machine: there it costs as
/// much as that of a hundred names, as it may not touch what an empty slice points to.
#[inline]
fn order(one: Name<'_>, other: Name<'_>) -> Ordering {
    one.0.cmp(&other.0).then_with(|| match (one.1, other.1) {
        ([], []) => Ordering::Equal,
        ([], _) => Ordering::Less,
        (_, []) => Ordering::Greater,
        (one, other) => one.cmp(other),
    })
}

/// A tree. Valid for a tick, as trees are dropped between ticks, and that of the keys of a db until the db is
/// cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TreeId(u32);

/// The trees of a db that belong together: when it is cleared, a new one begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epoch(u32);

impl Epoch {
    /// That of a tree which was taken out of use on its own.
    const NEVER: Epoch = Epoch(u32::MAX);
}

/// What memory says of a row.
pub(crate) enum Lookup {
    /// It lies here.
    Row(Located),
    /// There is none.
    Absent,
    /// There is none any more, which the store has not been told.
    Removed,
    /// The store has to be asked.
    Unknown,
}

/// Where a row lies. Valid until rows change.
#[derive(Clone, Copy)]
pub(crate) struct Located {
    tree: TreeId,
    at: At,
    row: usize,
}

/// How a walk ended.
pub(crate) enum Walk {
    /// With the last row, or by the visitor.
    Done,
    /// At a place from which on rows have to be read from the store, and where that ends (`None`: with the
    /// tree).
    Gap(u64, Box<[u8]>, Option<(u64, Box<[u8]>)>),
}

/// A page by where it begins.
struct Listed {
    tree: TreeId,
    hash: u64,
    low: Box<[u8]>,
}

pub(crate) struct Pages {
    trees: Slots<Tree>,
    table: HashTable<TreeId>,
    hasher: SeedableRandomState,
    /// The tree asked for last.
    recent: Option<TreeId>,
    /// Of each db the epoch whose trees are in use, and the last one that there was.
    epochs: Vec<(Epoch, Epoch)>,
    /// Trees that were taken out of use one by one.
    dead: Vec<TreeId>,
    /// Where to go on with dropping trees of other epochs, if there are any.
    purging: Option<usize>,
    /// Bytes of all trees.
    bytes: usize,
    /// The generation that changes belong to now.
    generation: u64,
    /// The newest generation that the store has.
    written: u64,
    /// Pages with changes of this generation.
    changed: Vec<Listed>,
    /// Those of the one that was closed.
    frozen: Vec<Listed>,
    /// What its rows go into, while not all of them are there.
    run: Option<Run>,
    /// How many of its pages are done.
    encoded: usize,
    #[cfg(feature = "planted")]
    pub(crate) planted: crate::planted::Planted,
    /// Pages that may have rows to forget.
    settling: Vec<Listed>,
    /// Rows that the store does not have.
    unwritten: usize,
    frozen_rows: usize,
    /// Where eviction goes on.
    hand: Hand,
    /// Rows that came from the store since the last eviction.
    filled: usize,
}

#[derive(Default)]
struct Hand {
    tree: usize,
    hash: u64,
    low: Box<[u8]>,
}

/// Rows that the hand passes at most in one eviction, beside four for each one that came.
const STEPS: usize = 4096;
/// Pages whose list keeps its memory.
const KEPT: usize = 4096;

impl Pages {
    /// No rows. The seed keeps clients from choosing keys that collide.
    pub(crate) fn new(seed: u64) -> Pages {
        Pages {
            trees: Slots::new(),
            table: HashTable::new(),
            hasher: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
            recent: None,
            epochs: Vec::new(),
            dead: Vec::new(),
            purging: None,
            bytes: 0,
            generation: 1,
            written: 0,
            changed: Vec::new(),
            frozen: Vec::new(),
            run: None,
            encoded: 0,
            #[cfg(feature = "planted")]
            planted: crate::planted::Planted::None,
            settling: Vec::new(),
            unwritten: 0,
            frozen_rows: 0,
            hand: Hand::default(),
            filled: 0,
        }
    }

    // ---- trees -----------------------------------------------------------------------------------------

    /// The tree of a family's prefix, if it has any rows in memory.
    pub(crate) fn find_tree(&mut self, family: Family, prefix: &[u8]) -> Option<TreeId> {
        let Pages { trees, table, recent, epochs, .. } = self;
        let same = |id: &TreeId| {
            let tree = &trees[id.0 as usize];
            tree.family == family && *tree.prefix == *prefix && is_in_use(epochs, tree)
        };
        if let Some(recent) = recent.filter(same) {
            return Some(recent);
        }
        let hash = self.hasher.hash_one((family, prefix));
        let found = table.find(hash, same).copied();
        *recent = found.or(*recent);
        found
    }

    /// Adds a tree of a prefix that has none; `whole`: the store has no row of it.
    pub(crate) fn add_tree(&mut self, family: Family, prefix: &[u8], whole: bool) -> TreeId {
        let mut tree = Tree::new(family, prefix, whole);
        tree.epoch = self.epochs.get(tree.db()).map_or(Epoch(0), |(epoch, _)| *epoch);
        self.bytes += tree.bytes;
        // No machine holds 2^32 trees of more than a hundred bytes.
        let id = TreeId(self.trees.insert(tree) as u32);
        let Pages { trees, table, hasher, .. } = self;
        let hash = |id: &TreeId| {
            let tree = &trees[id.0 as usize];
            hasher.hash_one((tree.family, &*tree.prefix))
        };
        table.insert_unique(hasher.hash_one((family, prefix)), id, hash);
        self.recent = Some(id);
        // It may stay without rows.
        self.settling.push(Listed { tree: id, hash: 0, low: Box::default() });
        id
    }

    /// The family and the prefix of a tree.
    pub(crate) fn prefix(&self, id: TreeId) -> (Family, &[u8]) {
        let tree = &self.trees[id.0 as usize];
        (tree.family, &tree.prefix)
    }

    /// All trees of a family, with their prefixes.
    pub(crate) fn trees_of(&self, family: Family) -> Vec<(TreeId, Vec<u8>)> {
        let of_family = |id: &TreeId| {
            let tree = &self.trees[id.0 as usize];
            let is_it = tree.family == family && is_in_use(&self.epochs, tree);
            is_it.then(|| (*id, tree.prefix.to_vec()))
        };
        self.table.iter().filter_map(of_family).collect()
    }

    /// Forgets a tree that has no rows, unless it is one of keys: these are few.
    fn drop_if_empty(&mut self, id: TreeId) {
        let Some(tree) = self.trees.get_mut(id.0 as usize) else { return };
        if tree.is_empty(self.written) && tree.family != Family::Keys {
            self.drop_tree(id);
        }
    }

    fn drop_tree(&mut self, id: TreeId) {
        let Some(tree) = self.trees.get_mut(id.0 as usize) else { return };
        let hash = self.hasher.hash_one((tree.family, &*tree.prefix));
        if let Ok(entry) = self.table.find_entry(hash, |it| *it == id) {
            entry.remove();
        }
        if let Some(tree) = self.trees.remove(id.0 as usize) {
            self.bytes -= tree.bytes;
        }
        self.recent = None;
    }

    /// Takes all trees of a db out of use. They are dropped later, by [`purge`](Pages::purge).
    pub(crate) fn detach(&mut self, db: u16) -> Epoch {
        // A generation that is being taken has them.
        self.run = self.encode(usize::MAX);
        let index = usize::from(db);
        if self.epochs.len() <= index {
            self.epochs.resize(index + 1, (Epoch(0), Epoch(0)));
        }
        let (used, last) = &mut self.epochs[index];
        let before = *used;
        *last = Epoch(last.0 + 1);
        *used = *last;
        self.recent = None;
        self.purging = Some(0);
        before
    }

    /// Takes the trees of an epoch into use again.
    pub(crate) fn attach(&mut self, db: u16, epoch: Epoch) {
        if let Some((used, _)) = self.epochs.get_mut(usize::from(db)) {
            *used = epoch;
        }
        self.recent = None;
        self.purging = Some(0);
    }

    /// Takes a tree out of use.
    pub(crate) fn detach_tree(&mut self, id: TreeId) -> Epoch {
        self.run = self.encode(usize::MAX);
        self.recent = None;
        self.dead.push(id);
        std::mem::replace(&mut self.trees[id.0 as usize].epoch, Epoch::NEVER)
    }

    /// Takes it into use again.
    pub(crate) fn attach_tree(&mut self, id: TreeId, epoch: Epoch) {
        self.recent = None;
        self.trees[id.0 as usize].epoch = epoch;
    }

    /// Drops trees that are not in use, of so many pages at most. True if there is more to do. Only between
    /// ticks: until then there is a way back.
    pub(crate) fn purge(&mut self, mut pages: usize) -> bool {
        while let Some(id) = self.dead.pop() {
            let Some(tree) = self.trees.get_mut(id.0 as usize) else { continue };
            if is_in_use(&self.epochs, tree) {
                continue;
            }
            self.changed.retain(|it| it.tree != id);
            if !self.drop_some(id, &mut pages) {
                self.dead.push(id);
            }
            if pages == 0 {
                return true;
            }
        }
        let Some(mut at) = self.purging else { return false };
        let Pages { trees, epochs, changed, .. } = self;
        if at == 0 {
            changed.retain(|it| is_in_use(epochs, &trees[it.tree.0 as usize]));
        }
        while pages > 0 {
            if at >= self.trees.end() {
                self.purging = None;
                return false;
            }
            pages -= 1;
            let Some(tree) = self.trees.get_mut(at) else {
                at += 1;
                continue;
            };
            if is_in_use(&self.epochs, tree) {
                at += 1;
                continue;
            }
            if self.drop_some(TreeId(at as u32), &mut pages) {
                at += 1;
            }
        }
        self.purging = Some(at);
        true
    }

    /// Drops pages of a tree that is not in use, a chunk of them, or with the last ones the tree: then true.
    fn drop_some(&mut self, id: TreeId, pages: &mut usize) -> bool {
        let Some(tree) = self.trees.get_mut(id.0 as usize) else { return true };
        let before = tree.bytes;
        let shed = tree.shed();
        self.bytes = self.bytes + tree.bytes - before;
        *pages = pages.saturating_sub(shed.unwrap_or(1));
        if shed.is_none() {
            self.drop_tree(id);
        }
        shed.is_none()
    }

    // ---- rows ------------------------------------------------------------------------------------------

    /// Looks a row up.
    pub(crate) fn find(&mut self, id: TreeId, name: Name<'_>) -> Lookup {
        let tree = &mut self.trees[id.0 as usize];
        let at = tree.find(name);
        let page = tree.page_mut(at);
        match page.find(name) {
            Err(_) if page.is_whole() => Lookup::Absent,
            Err(_) => Lookup::Unknown,
            Ok(row) => {
                let flags = page.row(row).flags;
                if flags.has(Flags::BLANK) {
                    return Lookup::Removed;
                }
                if !flags.has(Flags::USED) {
                    page.set_flags(row, flags.with(Flags::USED));
                }
                Lookup::Row(Located { tree: id, at, row })
            }
        }
    }

    /// The value of a row that lies there.
    pub(crate) fn value(&self, row: Located) -> Value<'_> {
        self.trees[row.tree.0 as usize].page(row.at).row(row.row).value
    }

    /// Changes a row, or removes it. `absent`: the store is known to have none of that name.
    pub(crate) fn change(
        &mut self,
        id: TreeId,
        name: Name<'_>,
        value: Option<Value<'_>>,
        absent: bool,
    ) {
        let now = (self.generation, self.written);
        self.edit(id, name, |page| page.change(name, value, absent, now));
    }

    fn edit(&mut self, id: TreeId, name: Name<'_>, edit: impl FnOnce(&mut Page) -> Changed) {
        let Pages { trees, changed, generation, run, .. } = self;
        let tree = &mut trees[id.0 as usize];
        let before = tree.bytes;
        let mut list = |page: &Page| list(changed, *generation, id, page);
        let at = tree.find(name);
        #[cfg(feature = "planted")]
        let run = &mut run.as_mut().filter(|_| !self.planted.changes_what_is_taken());
        if let Some(run) = run {
            encode(run, *generation, tree, at);
        }
        let (hash, low) = tree.page(at).start();
        let start = (hash, Box::<[u8]>::from(low));
        let Changed { first, unwritten } = tree.change(at, run.is_none(), edit, &mut list);
        if first {
            changed.push(Listed { tree: id, hash: start.0, low: start.1 });
        }
        self.bytes = self.bytes + tree.bytes - before;
        self.unwritten = self.unwritten.saturating_add_signed(unwritten);
    }

    /// Takes in a row that the store has and memory does not.
    pub(crate) fn fill(&mut self, id: TreeId, name: Name<'_>, value: Value<'_>) {
        self.filled += 1;
        self.edit(id, name, |page| {
            if let Err(at) = page.find(name) {
                page.insert(at, name, value, Flags::USED);
            }
            Changed::default()
        });
    }

    /// Takes in all rows that the store has from a place on up to another one (`None`: to the end), in order.
    /// What memory has of them is newer.
    pub(crate) fn fill_interval<'r>(
        &mut self,
        id: TreeId,
        from: Name<'_>,
        to: Option<Name<'_>>,
        rows: impl Iterator<Item = (Name<'r>, Value<'r>)>,
    ) {
        let Pages { trees, changed, generation, run, .. } = self;
        let tree = &mut trees[id.0 as usize];
        let before = tree.bytes;
        let more = &mut |page: &Page| list(changed, *generation, id, page);
        if let Some(run) = run {
            encode(run, *generation, tree, tree.find(from));
        }
        tree.cut(from, more);
        if let Some(to) = to {
            tree.cut(to, more);
        }
        let at = tree.find(from);
        let mut filled = 0;
        tree.edit(at, |page| {
            for (name, value) in rows {
                if let Err(at) = page.find(name) {
                    page.insert(at, name, value, Flags::CLEAN);
                    filled += 1;
                }
            }
            page.set_whole();
        });
        tree.split(at, more);
        if run.is_none() {
            tree.merge(tree.find(from));
        }
        self.filled += filled;
        self.bytes = self.bytes + tree.bytes - before;
    }

    /// Visits the rows from a place on, in order, as far as memory has all of them.
    pub(crate) fn walk(
        &self,
        id: TreeId,
        from: Name<'_>,
        visit: &mut dyn FnMut(&[u8], Value<'_>) -> ControlFlow<()>,
    ) -> Walk {
        let tree = &self.trees[id.0 as usize];
        let mut next = Some(tree.find(from));
        let mut from = from;
        while let Some(at) = next {
            let page = tree.page(at);
            next = tree.next(at);
            if !page.is_whole() {
                let from = if order(from, page.start()).is_gt() { from } else { page.start() };
                let to = next.map(|at| tree.page(at).start());
                return Walk::Gap(from.0, from.1.into(), to.map(|to| (to.0, to.1.into())));
            }
            let first = match order(from, page.start()) {
                Ordering::Greater => page.find(from).unwrap_or_else(|at| at),
                _ => 0,
            };
            for row in page.rows_from(first) {
                if !row.flags.has(Flags::BLANK) && visit(row.name, row.value).is_break() {
                    return Walk::Done;
                }
            }
            from = (0, &[]);
        }
        Walk::Done
    }

    /// Visits the rows that memory has from a place on up to another one (`None`: to the end), in order.
    pub(crate) fn visit_known(
        &self,
        id: TreeId,
        from: Name<'_>,
        to: Option<Name<'_>>,
        visit: &mut dyn FnMut(&[u8], Value<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let tree = &self.trees[id.0 as usize];
        let mut next = Some(tree.find(from));
        while let Some(at) = next {
            let page = tree.page(at);
            next = tree.next(at);
            let first = match order(from, page.start()) {
                Ordering::Greater => page.find(from).unwrap_or_else(|at| at),
                _ => 0,
            };
            for row in page.rows_from(first) {
                if to.is_some_and(|to| (hash(row.name), row.name) >= to) {
                    return ControlFlow::Continue(());
                }
                if !row.flags.has(Flags::BLANK) {
                    visit(row.name, row.value)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    // ---- generations -----------------------------------------------------------------------------------

    /// Rows that the store does not have.
    pub(crate) fn unwritten(&self) -> usize {
        self.unwritten + self.frozen_rows
    }

    /// Those of the open generation.
    pub(crate) fn gathered(&self) -> usize {
        self.unwritten
    }

    /// Bytes of the pages that have them. Cost: their number.
    pub(crate) fn owed_bytes(&self) -> usize {
        let listed = self.changed.iter().chain(&self.frozen);
        // Of what was closed a tree may be gone: its db was cleared since.
        let size = |it: &Listed| {
            let tree = self.trees.get(it.tree.0 as usize)?;
            Some(tree.page(tree.find((it.hash, &it.low))).heap_bytes())
        };
        listed.filter_map(size).sum()
    }

    /// Closes the generation: all that was changed in it is to go into a run, piece by piece, by
    /// [`encode`](Pages::encode). Until that is written, or has failed, no other may be closed.
    pub(crate) fn close(&mut self, run: Run) {
        let Pages { changed, trees, epochs, .. } = self;
        changed.retain(|it| is_in_use(epochs, &trees[it.tree.0 as usize]));
        self.frozen = std::mem::take(&mut self.changed);
        self.frozen_rows = std::mem::take(&mut self.unwritten);
        (self.run, self.encoded) = (Some(run), 0);
        self.generation += 1;
    }

    /// The run of a closed generation that is not complete.
    pub(crate) fn run(&mut self) -> Option<&mut Run> {
        self.run.as_mut()
    }

    /// Puts so many more rows of the closed generation into its run. All are in it when that is returned.
    pub(crate) fn encode(&mut self, mut rows: usize) -> Option<Run> {
        let mut run = self.run.take()?;
        while let Some(Listed { tree, hash, low }) = self.frozen.get(self.encoded) {
            if rows == 0 {
                self.run = Some(run);
                return None;
            }
            let tree = &mut self.trees[tree.0 as usize];
            let at = tree.find((*hash, low));
            rows = rows.saturating_sub(tree.page(at).rows());
            encode(&mut run, self.generation, tree, at);
            self.encoded += 1;
        }
        Some(run)
    }

    /// The closed generation is in the store.
    pub(crate) fn thaw(&mut self) {
        self.written = self.generation - 1;
        self.frozen_rows = 0;
        self.settling.append(&mut self.frozen);
    }

    /// The closed generation could not be written; then each of its rows is to be [owed again](Pages::owe).
    pub(crate) fn freeze_again(&mut self) {
        self.frozen_rows = 0;
        self.frozen = Vec::new();
    }

    /// A row of the generation that could not be written.
    pub(crate) fn owe(&mut self, id: TreeId, name: Name<'_>) {
        let now = (self.generation, self.written);
        self.edit(id, name, |page| page.owe_again(name, now));
    }

    /// Forgets rows that are gone by now, of so many pages at most. True if there is more to do.
    pub(crate) fn settle(&mut self, pages: usize) -> bool {
        let written = self.written;
        for Listed { tree: id, hash, low } in
            self.settling.split_off(self.settling.len().saturating_sub(pages))
        {
            let Some(tree) = self.trees.get_mut(id.0 as usize) else { continue };
            let before = tree.bytes;
            let at = tree.find((hash, &low));
            let rows = tree.page(at).rows();
            tree.edit(at, |page| page.settle(written));
            if tree.page(at).rows() < rows && self.run.is_none() {
                tree.merge(at);
            }
            self.bytes = self.bytes + tree.bytes - before;
            self.drop_if_empty(id);
        }
        if self.settling.is_empty() && self.settling.capacity() > KEPT {
            self.settling = Vec::new();
        }
        !self.settling.is_empty()
    }

    // ---- memory ------------------------------------------------------------------------------------------

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets go of what is not owed until no more than `limit` bytes are held, or for so many steps. `trees`:
    /// also of trees without rows.
    pub(crate) fn evict(&mut self, limit: usize, trees: bool) {
        let mut steps = STEPS + 4 * std::mem::take(&mut self.filled);
        while self.bytes > limit && steps > 0 {
            if self.hand.tree >= self.trees.end() {
                self.hand = Hand::default();
            }
            let Some(tree) = self.trees.get_mut(self.hand.tree) else {
                self.hand.tree += 1;
                steps = steps.saturating_sub(1);
                continue;
            };
            let at = tree.find((self.hand.hash, &self.hand.low));
            steps = steps.saturating_sub(1 + tree.page(at).rows());
            let before = tree.bytes;
            tree.edit(at, |page| page.sweep(self.written));
            let next = tree.next(at).map(|next| tree.page(next).start());
            let next = next.map(|(hash, low)| (hash, Box::<[u8]>::from(low)));
            if self.run.is_none() {
                tree.merge(at);
            }
            self.bytes = self.bytes + tree.bytes - before;
            match next {
                Some((hash, low)) => (self.hand.hash, self.hand.low) = (hash, low),
                None => {
                    let id = TreeId(self.hand.tree as u32);
                    self.hand = Hand { tree: self.hand.tree + 1, ..Hand::default() };
                    if trees {
                        self.drop_if_empty(id);
                    }
                }
            }
        }
    }
}

/// Puts what a page has of the closed generation into its run. A page that is changed is done before: so it
/// has changes of one generation only that are not in a run.
fn encode(run: &mut Run, generation: u64, tree: &mut Tree, at: At) {
    if tree.page(at).generation() + 1 == generation {
        let (family, prefix) = (tree.family, std::mem::take(&mut tree.prefix));
        tree.page_mut(at).freeze(|name, value| run.row(family, &prefix, name, value));
        tree.prefix = prefix;
    }
}

fn is_in_use(epochs: &[(Epoch, Epoch)], tree: &Tree) -> bool {
    let used = epochs.get(tree.db()).map_or(Epoch(0), |(epoch, _)| *epoch);
    tree.epoch == used
}

/// Lists a page, if it belongs to the generation.
fn list(changed: &mut Vec<Listed>, generation: u64, tree: TreeId, page: &Page) {
    if page.generation() == generation {
        let (hash, low) = page.start();
        changed.push(Listed { tree, hash, low: low.into() });
    }
}
