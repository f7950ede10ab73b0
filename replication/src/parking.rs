//! Commits that have arrived and wait for their place, and those that the engine has not sealed yet.
//!
//! Payloads come in any order and by any link; what may be applied is decided by positions alone. So a commit
//! is *parked* under its name until a position at the head of some link names it, goes to the engine, and is
//! remembered until a seal covers it: if the engine refuses, it is parked again.

use std::collections::{BTreeMap, VecDeque};

use lattis_engine::causal::{Origin, VersionVector};
use lattis_engine::commit::EncodedCommit;

use crate::LinkId;

/// A commit, and by which link it came.
#[derive(Clone, Debug)]
pub(crate) struct Parked {
    pub commit: EncodedCommit,
    /// `None` once the link is gone.
    pub link: Option<LinkId>,
    /// What it takes of that link's window, until it is given back.
    pub cost: u64,
}

/// Commits by origin and first seq. Bounded by the windows of the links, and by `limit` for what was fetched.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    commits: BTreeMap<(Origin, u64), Parked>,
    fetched_bytes: usize,
}

impl Parking {
    /// Whether the commit is here.
    pub fn has(&self, origin: Origin, first: u64) -> bool {
        self.commits.contains_key(&(origin, first))
    }

    /// The commit that begins at a seq.
    pub fn get(&self, origin: Origin, first: u64) -> Option<&Parked> {
        self.commits.get(&(origin, first))
    }

    /// Takes a commit in; one that is here already stays, and false is returned.
    pub fn put(&mut self, parked: Parked) -> bool {
        let key = (parked.commit.origin, parked.commit.first);
        if self.commits.contains_key(&key) {
            return false;
        }
        if parked.cost == 0 {
            self.fetched_bytes += parked.commit.body.len();
        }
        self.commits.insert(key, parked);
        true
    }

    /// Takes a commit out.
    pub fn take(&mut self, origin: Origin, first: u64) -> Option<Parked> {
        let parked = self.commits.remove(&(origin, first))?;
        if parked.cost == 0 {
            self.fetched_bytes = self.fetched_bytes.saturating_sub(parked.commit.body.len());
        }
        Some(parked)
    }

    /// Takes out what is covered: nobody will ask for it. With `origin`, of that one only.
    pub fn covered(&mut self, vector: &VersionVector, origin: Option<Origin>) -> Vec<Parked> {
        let names: Vec<(Origin, u64)> = match origin {
            Some(it) => {
                let range = self.commits.range((it, 0)..=(it, vector.get(&it)));
                range.map(|(name, _)| *name).collect()
            }
            None => {
                let names = self.commits.keys();
                names.filter(|(origin, first)| *first <= vector.get(origin)).copied().collect()
            }
        };
        names.into_iter().filter_map(|(origin, first)| self.take(origin, first)).collect()
    }

    /// A link is gone: what it brought stays, its window does not.
    pub fn orphan(&mut self, link: LinkId) {
        for parked in self.commits.values_mut().filter(|parked| parked.link == Some(link)) {
            parked.link = None;
            if parked.cost > 0 {
                parked.cost = 0;
                self.fetched_bytes += parked.commit.body.len();
            }
        }
    }

    /// Makes room for what is about to be fetched: what no window pays for is dropped, if both together are
    /// more than the limit. It can be fetched again.
    pub fn make_room(&mut self, bytes: usize, limit: usize) {
        if self.fetched_bytes + bytes > limit {
            self.commits.retain(|_, parked| parked.cost > 0);
            self.fetched_bytes = 0;
        }
    }
}

/// Commits handed to the engine and not yet sealed, in that order: bounds the engine's queue.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    commits: VecDeque<Parked>,
    bytes: usize,
}

impl InFlight {
    pub fn add(&mut self, parked: Parked) {
        self.bytes += parked.commit.body.len() + 64;
        self.commits.push_back(parked);
    }

    pub fn full(&self, limit: usize) -> bool {
        self.bytes >= limit
    }

    /// Forgets what the sealed vector covers.
    pub fn retire(&mut self, sealed: &VersionVector) {
        while let Some(front) = self.commits.front()
            && sealed.get(&front.commit.origin) >= front.commit.last
        {
            self.bytes = self.bytes.saturating_sub(front.commit.body.len() + 64);
            self.commits.pop_front();
        }
    }

    /// A link is gone.
    pub fn orphan(&mut self, link: LinkId) {
        let of = self.commits.iter_mut().filter(|parked| parked.link == Some(link));
        of.for_each(|parked| parked.link = None);
    }

    /// Takes all of it back.
    pub fn take(&mut self) -> VecDeque<Parked> {
        std::mem::take(self).commits
    }
}
