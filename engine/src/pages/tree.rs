//! A tree: the rows of one prefix, in pages that follow each other.
//!
//! A small one is a page. A large one has chunks of pages, so that a page that is added moves few others;
//! both levels are searched by bisection. Together the pages cover all hashes, whether their rows are in
//! memory or not. A page begins at a hash; only where more rows have one hash than a page takes, which
//! somebody has then looked for, it begins at a name among them.

use super::page::{Changed, Page};
use super::{Epoch, Name, order};
use crate::store::Family;

/// Pages of a chunk at most.
const PAGES: usize = 256;

struct Chunk {
    /// Where its first page begins.
    first: u64,
    starts: Vec<u64>,
    pages: Vec<Page>,
}

#[allow(clippy::large_enum_variant, reason = "most trees are one page")]
enum Body {
    One(Page),
    Many(Vec<Chunk>),
}

/// Which page. Valid until the tree changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(u32, u32);

pub(super) struct Tree {
    pub(super) family: Family,
    pub(super) epoch: Epoch,
    /// The common start of the rows' stored keys.
    pub(super) prefix: Box<[u8]>,
    body: Body,
    /// Bytes that it holds, itself included.
    pub(super) bytes: usize,
}

impl Tree {
    /// A tree without rows; `whole`: there are none elsewhere.
    pub(super) fn new(family: Family, prefix: &[u8], whole: bool) -> Tree {
        let page = Page::new((0, &[]), u64::MAX, whole);
        // Beside the prefix: the entry of the table that finds the tree.
        let bytes = size_of::<Tree>() + prefix.len() + 8;
        Tree {
            family,
            epoch: Epoch::default(),
            prefix: prefix.into(),
            body: Body::One(page),
            bytes,
        }
    }

    /// The db that its rows are of.
    pub(super) fn db(&self) -> usize {
        let db = self.prefix.first_chunk().copied().unwrap_or_default();
        usize::from(u16::from_be_bytes(db))
    }

    /// Drops some pages of a tree that nobody needs any more, and tells how many; `None` if it is to be
    /// dropped as it is.
    pub(super) fn shed(&mut self) -> Option<usize> {
        let Body::Many(chunks) = &mut self.body else { return None };
        let chunk = if chunks.len() > 1 { chunks.pop() } else { None }?;
        let bytes: usize = chunk.pages.iter().map(Page::heap_bytes).sum();
        self.bytes -= bytes + chunk.pages.len() * (size_of::<Page>() + size_of::<u64>());
        Some(chunk.pages.len())
    }

    /// The page in whose interval a place lies.
    pub(super) fn find(&self, place: Name<'_>) -> At {
        let Body::Many(chunks) = &self.body else { return At(0, 0) };
        let is_before = |first: u64, page: Option<&Page>| match first == place.0 {
            true => page.is_none_or(|page| order(page.start(), place).is_le()),
            false => first < place.0,
        };
        let chunk = chunks.partition_point(|it| is_before(it.first, it.pages.first()));
        let chunk = chunk.saturating_sub(1);
        let Chunk { starts, pages, .. } = &chunks[chunk];
        let (mut low, mut high) = (0, starts.len());
        while high - low > 1 {
            let middle = (low + high) / 2;
            if is_before(starts[middle], pages.get(middle)) { low = middle } else { high = middle }
        }
        At(chunk as u32, low as u32)
    }

    pub(super) fn page(&self, at: At) -> &Page {
        match &self.body {
            Body::One(page) => page,
            Body::Many(chunks) => &chunks[at.0 as usize].pages[at.1 as usize],
        }
    }

    pub(super) fn page_mut(&mut self, at: At) -> &mut Page {
        match &mut self.body {
            Body::One(page) => page,
            Body::Many(chunks) => &mut chunks[at.0 as usize].pages[at.1 as usize],
        }
    }

    /// The page behind it.
    pub(super) fn next(&self, at: At) -> Option<At> {
        let Body::Many(chunks) = &self.body else { return None };
        let At(chunk, page) = at;
        if page as usize + 1 < chunks[chunk as usize].pages.len() {
            return Some(At(chunk, page + 1));
        }
        (chunk as usize + 1 < chunks.len()).then_some(At(chunk + 1, 0))
    }

    /// The page before it.
    fn previous(&self, at: At) -> Option<At> {
        let Body::Many(chunks) = &self.body else { return None };
        match at {
            At(0, 0) => None,
            At(chunk, 0) => Some(At(chunk - 1, chunks[chunk as usize - 1].pages.len() as u32 - 1)),
            At(chunk, page) => Some(At(chunk, page - 1)),
        }
    }

    /// The hash that its interval does not go beyond.
    fn end(&self, at: At) -> u64 {
        self.next(at).map_or(u64::MAX, |next| self.page(next).start().0)
    }

    /// Whether it is a page without rows, of which nothing is owed.
    pub(super) fn is_empty(&self, written: u64) -> bool {
        match &self.body {
            Body::One(page) => page.rows() == 0 && page.generation() <= written,
            Body::Many(_) => false,
        }
    }

    /// Changes a page, and keeps account of its size.
    pub(super) fn edit<T>(&mut self, at: At, edit: impl FnOnce(&mut Page) -> T) -> T {
        let page = self.page_mut(at);
        let before = page.heap_bytes();
        let done = edit(page);
        let after = page.heap_bytes();
        self.bytes = self.bytes + after - before;
        done
    }

    /// Changes a row, as [`Page::change`]; joins pages that have become small if it `may`; `more` is told of
    /// the pages that it was split into.
    pub(super) fn change(
        &mut self,
        at: At,
        may: bool,
        change: impl FnOnce(&mut Page) -> Changed,
        more: &mut dyn FnMut(&Page),
    ) -> Changed {
        let rows = self.page(at).rows();
        let changed = self.edit(at, change);
        let page = self.page(at);
        if page.is_too_large() {
            self.split(at, more);
        } else if may && page.rows() < rows {
            self.merge(at);
        }
        changed
    }

    /// Splits a page until no part of it is too large.
    pub(super) fn split(&mut self, at: At, more: &mut dyn FnMut(&Page)) {
        let owned = |(hash, low): Name<'_>| (hash, Box::<[u8]>::from(low));
        let mut next = owned(self.page(at).start());
        let stop = self.next(at).map(|at| owned(self.page(at).start()));
        loop {
            let at = self.find((next.0, &next.1));
            if self.page(at).is_too_large() {
                let end = self.end(at);
                let right = self.edit(at, |page| page.split(end));
                more(self.page(at));
                more(&right);
                self.insert(at, right);
                continue;
            }
            let Some(at) = self.next(at) else { return };
            next = owned(self.page(at).start());
            if stop.as_ref() == Some(&next) {
                return;
            }
        }
    }

    /// Makes a page begin at a place, unless one does.
    pub(super) fn cut(&mut self, place: Name<'_>, more: &mut dyn FnMut(&Page)) {
        let at = self.find(place);
        if self.page(at).start() == place {
            return;
        }
        let end = self.end(at);
        let right = self.edit(at, |page| page.cut(place, end));
        more(self.page(at));
        more(&right);
        self.insert(at, right);
    }

    /// Adds a page behind one.
    fn insert(&mut self, at: At, page: Page) {
        self.bytes += page.heap_bytes() + size_of::<Page>() + size_of::<u64>();
        if let Body::One(first) = &mut self.body {
            let first = std::mem::replace(first, Page::new((0, &[]), 0, false));
            let starts = vec![first.start().0];
            self.body = Body::Many(vec![Chunk { first: 0, starts, pages: vec![first] }]);
        }
        let Body::Many(chunks) = &mut self.body else { return };
        let number = at.0 as usize;
        let Chunk { starts, pages, .. } = &mut chunks[number];
        let behind = at.1 as usize + 1;
        starts.insert(behind, page.start().0);
        if pages.len() == pages.capacity() {
            pages.reserve_exact(pages.len() / 4 + 1);
        }
        pages.insert(behind, page);
        if pages.len() > PAGES {
            let half = PAGES / 2;
            let (starts, pages) = (starts.split_off(half), pages.split_off(half));
            chunks[number].starts.shrink_to_fit();
            chunks[number].pages.shrink_to_fit();
            chunks.insert(number + 1, Chunk { first: starts[0], starts, pages });
        }
    }

    /// Joins a page with a neighbour, if both have little.
    pub(super) fn merge(&mut self, at: At) {
        let may = |left: At, right: At| self.page(left).may_join(self.page(right));
        let left = match (self.previous(at), self.next(at)) {
            (Some(before), _) if may(before, at) => before,
            (_, Some(next)) if may(at, next) => at,
            _ => return,
        };
        let Some(right) = self.next(left) else { return };
        let end = self.end(right);
        let Some(page) = self.remove(right) else { return };
        self.edit(left, |it| it.absorb(page, end));
        if let Body::Many(chunks) = &mut self.body
            && let [Chunk { pages, .. }] = chunks.as_mut_slice()
            && pages.len() == 1
            && let Some(page) = pages.pop()
        {
            self.body = Body::One(page);
        }
    }

    /// Takes a page out that is not the first one.
    fn remove(&mut self, at: At) -> Option<Page> {
        let Body::Many(chunks) = &mut self.body else { return None };
        let number = at.0 as usize;
        let chunk = &mut chunks[number];
        chunk.starts.remove(at.1 as usize);
        let page = chunk.pages.remove(at.1 as usize);
        match chunk.starts.first() {
            Some(first) => chunk.first = *first,
            None => drop(chunks.remove(number)),
        }
        self.bytes -= page.heap_bytes() + size_of::<Page>() + size_of::<u64>();
        Some(page)
    }
}
