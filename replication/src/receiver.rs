//! The stream in: one link's queue, worked strictly in order.
//!
//! The queue is the peer's delivery order, less what this node told to have. An item leaves it only when
//! the submitted vector covers it, so the processed prefix of the peer's log is always contained in what
//! this node has; the prefix is causally closed; hence whatever stands at the head has all its causes.
//! A marker or a barrier that is not covered makes this link wait, and no other. Commits that a graft
//! brought are parked until their marker is at the head.

use std::collections::{BTreeMap, VecDeque};

use lattis_engine::causal::{Millis, NodeId, Origin, VersionVector};
use lattis_engine::commit::EncodedCommit;

use crate::LinkId;
use crate::wire::Item;

/// Commits handed to the engine and not yet sealed: bounds the engine's queue.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    commits: VecDeque<(Origin, u64, usize, LinkId)>,
    bytes: usize,
}

impl InFlight {
    fn add(&mut self, commit: &EncodedCommit, link: LinkId) {
        let bytes = commit.body.len() + 64;
        self.bytes += bytes;
        self.commits.push_back((commit.origin, commit.last, bytes, link));
    }

    fn full(&self, limit: usize) -> bool {
        self.bytes >= limit
    }

    /// Forgets what the sealed vector covers.
    pub fn retire(&mut self, sealed: &VersionVector) {
        while let Some((origin, last, bytes, _)) = self.commits.front().copied() {
            if sealed.get(&origin) < last {
                break;
            }
            self.bytes = self.bytes.saturating_sub(bytes);
            self.commits.pop_front();
        }
    }

    /// The links that the commits came from.
    pub fn links(&self) -> Vec<LinkId> {
        self.commits.iter().map(|(_, _, _, link)| *link).collect()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = InFlight::default();
    }
}

/// What the receivers of a node work on together.
pub(crate) struct Work<'a> {
    pub link: LinkId,
    /// Sealed, and handed to the engine.
    pub submitted: &'a mut VersionVector,
    pub in_flight: &'a mut InFlight,
    pub in_flight_limit: usize,
    pub now: Millis,
    /// Planted fault: markers and barriers are stepped over.
    pub ignore_markers: bool,
}

/// What one pass over a queue gave.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// For the engine, in this order.
    pub commits: Vec<EncodedCommit>,
    /// Whether any item left the queue.
    pub progressed: bool,
    /// Origins whose commits came although they were here, and not from their own node.
    pub prunes: Vec<Origin>,
    /// Origins whose own node sent commits that were here already: another link sends them too.
    pub doubled: Vec<Origin>,
}

/// Why the head of the queue waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    Marker(Origin),
    Barrier,
}

/// A graft under way: commits of one origin from the first seq missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Graft {
    pub origin: Origin,
    pub from: u64,
    pub to: u64,
}

#[derive(Debug)]
struct Queued {
    item: Item,
    arrived: Millis,
}

#[derive(Debug)]
pub(crate) struct Receiver {
    queue: VecDeque<Queued>,
    window: u64,
    /// Window bytes received and not acked.
    unacked: u64,
    /// Window bytes that left the queue and are not acked.
    pub consumed: u64,
    parked: BTreeMap<(Origin, u64), EncodedCommit>,
    parked_bytes: usize,
    parked_limit: usize,
    /// true: grafted on this link; false: pruned.
    asked: BTreeMap<Origin, bool>,
    pub graft: Option<Graft>,
    /// Since when the head waits.
    waits_since: Option<Millis>,
    /// A timer for the head is under way.
    pub timer: bool,
}

impl Receiver {
    pub fn new(window: u64, parked_limit: usize) -> Receiver {
        Receiver {
            queue: VecDeque::new(),
            window,
            unacked: 0,
            consumed: 0,
            parked: BTreeMap::new(),
            parked_bytes: 0,
            parked_limit,
            asked: BTreeMap::new(),
            graft: None,
            waits_since: None,
            timer: false,
        }
    }

    /// Queues an item; false if the peer overruns the window.
    pub fn push(&mut self, item: Item, now: Millis) -> bool {
        let cost = item.cost();
        if self.unacked > 0 && self.unacked + cost > self.window {
            return false;
        }
        self.unacked += cost;
        self.queue.push_back(Queued { item, arrived: now });
        true
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes the window bytes to be acked.
    pub fn take_consumed(&mut self) -> u64 {
        self.unacked = self.unacked.saturating_sub(self.consumed);
        std::mem::take(&mut self.consumed)
    }

    /// Why, and since when, the head waits.
    pub fn head(&self) -> Option<(Head, Millis)> {
        let head = match &self.queue.front()?.item {
            Item::Marker { origin, .. } => Head::Marker(*origin),
            Item::Barrier(_) => Head::Barrier,
            Item::Commit(_) => return None,
        };
        Some((head, self.waits_since?))
    }

    /// When the head arrived.
    pub fn head_arrived(&self) -> Option<Millis> {
        self.queue.front().map(|queued| queued.arrived)
    }

    /// Works the queue as far as it goes. With an error the peer broke the order and the link is to be
    /// reset; what was done before still holds.
    pub fn work(&mut self, peer: NodeId, work: &mut Work<'_>) -> (Done, Option<&'static str>) {
        let mut done = Done::default();
        let error = self.run(peer, work, &mut done).err();
        if !self.queue.is_empty() && self.waits_since.is_none() {
            self.waits_since = Some(work.now);
        }
        (done, error)
    }

    fn run(
        &mut self,
        peer: NodeId,
        work: &mut Work<'_>,
        done: &mut Done,
    ) -> Result<(), &'static str> {
        while let Some(queued) = self.queue.front() {
            let cost = queued.item.cost();
            match &queued.item {
                Item::Commit(commit) => {
                    let have = work.submitted.get(&commit.origin);
                    if commit.last <= have {
                        let origin = commit.origin;
                        if origin.node == peer {
                            done.doubled.push(origin);
                        } else if self.asked.insert(origin, false) != Some(false) {
                            done.prunes.push(origin);
                        }
                    } else if commit.first == have + 1 {
                        if work.in_flight.full(work.in_flight_limit) {
                            break;
                        }
                        work.submitted.advance(commit.origin, commit.last);
                        work.in_flight.add(commit, work.link);
                        done.commits.push(commit.clone());
                    } else {
                        return Err("commit does not follow its predecessor");
                    }
                }
                Item::Marker { origin, first, last } => {
                    let (origin, first, last) = (*origin, *first, *last);
                    if first > work.submitted.get(&origin) + 1 {
                        return Err("marker does not follow its predecessor");
                    }
                    while work.submitted.get(&origin) < last
                        && !work.in_flight.full(work.in_flight_limit)
                    {
                        let next = work.submitted.get(&origin) + 1;
                        let Some(commit) = self.parked.remove(&(origin, next)) else { break };
                        self.parked_bytes = self.parked_bytes.saturating_sub(commit.body.len());
                        if commit.last > last {
                            return Err("marker ends inside a commit");
                        }
                        work.submitted.advance(origin, commit.last);
                        work.in_flight.add(&commit, work.link);
                        done.commits.push(commit);
                    }
                    if work.submitted.get(&origin) < last && !work.ignore_markers {
                        break;
                    }
                    self.forget_parked(origin, last);
                }
                Item::Barrier(vector) => {
                    if !work.submitted.covers(vector) && !work.ignore_markers {
                        break;
                    }
                }
            }
            self.consumed += cost;
            self.queue.pop_front();
            self.waits_since = None;
            done.progressed = true;
        }
        Ok(())
    }

    fn forget_parked(&mut self, origin: Origin, last: u64) {
        while let Some((key, _)) = self.parked.range((origin, 0)..=(origin, last)).next() {
            let key = *key;
            if let Some(commit) = self.parked.remove(&key) {
                self.parked_bytes = self.parked_bytes.saturating_sub(commit.body.len());
            }
        }
    }

    /// The graft for the head, which is a marker that waits: every marker of its origin in this queue,
    /// and no more (MODEL M5).
    pub fn start_graft(&mut self, submitted: &VersionVector) -> Option<Graft> {
        let Some(Queued { item: Item::Marker { origin, .. }, .. }) = self.queue.front() else {
            return None;
        };
        let origin = *origin;
        let to = self.queue.iter().filter_map(|queued| match &queued.item {
            Item::Marker { origin: of, last, .. } if *of == origin => Some(*last),
            _ => None,
        });
        let graft = Graft { origin, from: submitted.get(&origin) + 1, to: to.max()? };
        self.asked.insert(origin, true);
        self.graft = Some(graft);
        Some(graft)
    }

    /// Whether a graft on this link asked for commits of the origin, and nothing pruned it since. If so
    /// it counts as pruned from now on.
    pub fn unask(&mut self, origin: &Origin) -> bool {
        match self.asked.get_mut(origin) {
            Some(asked) => std::mem::replace(asked, false),
            None => false,
        }
    }

    /// Parks the answer to the graft. Error: it is not what was asked for.
    pub fn park(&mut self, commits: Vec<EncodedCommit>) -> Result<(), &'static str> {
        let graft = self.graft.take().ok_or("answer without a graft")?;
        let mut next = graft.from;
        for commit in &commits {
            if commit.origin != graft.origin || commit.first != next || commit.last > graft.to {
                return Err("answer does not fit the graft");
            }
            next = commit.last + 1;
        }
        let bytes: usize = commits.iter().map(|commit| commit.body.len()).sum();
        if self.parked_bytes + bytes > self.parked_limit {
            self.parked.clear();
            self.parked_bytes = 0;
        }
        for commit in commits {
            self.parked_bytes += commit.body.len();
            if let Some(old) = self.parked.insert((commit.origin, commit.first), commit) {
                self.parked_bytes = self.parked_bytes.saturating_sub(old.body.len());
            }
        }
        Ok(())
    }
}
