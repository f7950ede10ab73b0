//! The stream in: one link's order lane, worked strictly in order.
//!
//! The queue is the peer's delivery order, less what this node told to have. A position leaves it only when
//! the submitted vector covers it, so the processed prefix of the peer's log is always contained in what
//! this node has; the prefix is causally closed; hence whatever stands at the head has all its causes, and
//! is handed to the engine if its payload is parked, by whichever link it came. A position whose payload
//! is not there, a barrier that is not covered, and a commit from a clock far ahead make this link wait, and
//! no other.
//!
//! What was passed by the submitted vector is kept until a seal covers it: if the engine refuses, it stands
//! at the head again, and no link has to be reset.

use std::collections::{BTreeMap, VecDeque};

use lattis_engine::causal::{Hlc, Millis, Origin, VersionVector};
use lattis_engine::commit::EncodedCommit;

use crate::LinkId;
use crate::parking::{InFlight, Parked, Parking};
use crate::wire::Position;

/// What the receivers of a node work on together.
pub(crate) struct Work<'a> {
    /// Sealed, and handed to the engine.
    pub submitted: &'a mut VersionVector,
    pub parking: &'a mut Parking,
    pub in_flight: &'a mut InFlight,
    pub in_flight_limit: usize,
    pub now: Millis,
    /// A commit stamped after this waits.
    pub clock_bound: Hlc,
    /// Planted fault: positions and barriers are stepped over.
    pub ignore_order: bool,
}

/// What one pass over a queue gave.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// For the engine, in this order.
    pub commits: Vec<EncodedCommit>,
    /// Parts of links' windows that are free again.
    pub freed: Vec<(LinkId, u64)>,
    /// Whether any position left the queue.
    pub progressed: bool,
}

/// Why the head of the queue waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// For a payload: whose, from which seq, and whether this link brings it.
    Payload { origin: Origin, first: u64, eager: bool },
    /// For a vector.
    Barrier,
    /// For the wall clock: the commit is stamped that far ahead.
    Clock(Hlc),
}

/// A graft under way: commits of one origin from the first seq missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Graft {
    pub origin: Origin,
    pub from: u64,
    pub to: u64,
}

#[derive(Clone, Debug)]
struct Queued {
    position: Position,
    /// What the queue's window gets back for it, once.
    cost: u64,
    arrived: Millis,
}

#[derive(Debug)]
pub(crate) struct Receiver {
    queue: VecDeque<Queued>,
    /// Passed, but not sealed.
    passed: VecDeque<Queued>,
    /// Cost that may be under way: positions, or bytes in version 1.
    limit: u64,
    /// Of that, received and not given back.
    unacked: u64,
    /// Of that, done and not given back.
    pub consumed: u64,
    /// Bytes of the payload lane's window received and not given back.
    pub payload_unacked: u64,
    /// Of that, free again.
    pub payload_consumed: u64,
    /// Fetches of an origin in a row without a copy by its own way.
    fetches: BTreeMap<Origin, u32>,
    pub graft: Option<Graft>,
    /// Why and since when the head waits.
    waits: Option<(Head, Millis)>,
    /// The head was asked for, or what stood before it was.
    asked: bool,
    /// A timer for the head is under way.
    pub timer: bool,
    /// How long heads have waited that got their payload by themselves, ms: a maximum that fades.
    usual_wait: u64,
}

impl Receiver {
    pub fn new(limit: u64) -> Receiver {
        Receiver {
            queue: VecDeque::new(),
            passed: VecDeque::new(),
            limit,
            unacked: 0,
            consumed: 0,
            payload_unacked: 0,
            payload_consumed: 0,
            fetches: BTreeMap::new(),
            graft: None,
            waits: None,
            asked: false,
            timer: false,
            usual_wait: 0,
        }
    }

    /// Queues a position; false if the peer overruns the window.
    pub fn push(&mut self, position: Position, cost: u64, now: Millis) -> bool {
        if self.unacked > 0 && self.unacked + cost > self.limit {
            return false;
        }
        self.unacked += cost;
        self.queue.push_back(Queued { position, cost, arrived: now });
        true
    }

    /// What is here and what is waited for, for people.
    pub fn explain(&self) -> String {
        let head = self.waits.map(|(head, since)| format!("{head:?} since {}", since.0));
        format!(
            "in {} passed {} waits {head:?} graft {:?} timer {}, unacked {} and {} payload",
            self.queue.len(),
            self.passed.len(),
            self.graft,
            self.timer,
            self.unacked,
            self.payload_unacked,
        )
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes what is to be given back: payload bytes and positions (or bytes of version 1, and 0).
    pub fn take_consumed(&mut self) -> (u64, u64) {
        self.unacked = self.unacked.saturating_sub(self.consumed);
        self.payload_unacked = self.payload_unacked.saturating_sub(self.payload_consumed);
        (std::mem::take(&mut self.payload_consumed), std::mem::take(&mut self.consumed))
    }

    /// Why, and since when, the head waits.
    pub fn head(&self) -> Option<(Head, Millis)> {
        self.waits
    }

    /// When the head arrived.
    pub fn head_arrived(&self) -> Option<Millis> {
        self.queue.front().map(|queued| queued.arrived)
    }

    /// How long a head usually waits for its payload.
    pub fn usual_wait(&self) -> u64 {
        self.usual_wait
    }

    /// Works the queue as far as it goes. With an error the peer broke the order and the link is to be
    /// reset; what was done before still holds.
    pub fn work(&mut self, work: &mut Work<'_>) -> (Done, Option<&'static str>) {
        let mut done = Done::default();
        let before = self.waits.take();
        let outcome = self.run(work, &mut done);
        let (head, error) = match outcome {
            Ok(head) => (head, None),
            Err(error) => (None, Some(error)),
        };
        let same = |(old, _): &(Head, Millis)| Some(*old) == head;
        match before.filter(same) {
            Some(waits) => self.waits = Some(waits),
            None => {
                if let (Some((Head::Payload { .. }, since)), false) = (before, self.asked) {
                    let waited = work.now.0.saturating_sub(since.0);
                    self.usual_wait = waited.max(self.usual_wait - self.usual_wait / 64);
                }
                self.asked = self.graft.is_some();
                self.waits = head.map(|head| (head, work.now));
            }
        }
        (done, error)
    }

    fn run(&mut self, work: &mut Work<'_>, done: &mut Done) -> Result<Option<Head>, &'static str> {
        while let Some(queued) = self.queue.front() {
            match &queued.position {
                Position::Commits { origin, first, last, eager } => {
                    let (origin, first, last, eager) = (*origin, *first, *last, *eager);
                    if first > work.submitted.get(&origin) + 1 {
                        return Err("position does not follow its predecessor");
                    }
                    loop {
                        let have = work.submitted.get(&origin);
                        if have >= last {
                            break;
                        }
                        if work.in_flight.full(work.in_flight_limit) {
                            return Ok(None);
                        }
                        let first = have + 1;
                        let Some(parked) = work.parking.get(origin, first) else {
                            if work.ignore_order {
                                break;
                            }
                            return Ok(Some(Head::Payload { origin, first, eager }));
                        };
                        if parked.commit.last > last {
                            return Err("position ends inside a commit");
                        }
                        // What cannot be read is for the engine to refuse.
                        let stamp = parked.commit.hlc().unwrap_or_default();
                        if stamp > work.clock_bound {
                            return Ok(Some(Head::Clock(stamp)));
                        }
                        if let Some(parked) = work.parking.take(origin, first) {
                            work.submitted.advance(origin, parked.commit.last);
                            done.commits.push(parked.commit.clone());
                            done.freed.extend(parked.link.map(|link| (link, parked.cost)));
                            work.in_flight.add(Parked { cost: 0, ..parked });
                        }
                    }
                    let covered = work.parking.covered(work.submitted, Some(origin));
                    done.freed.extend(covered.iter().filter_map(|it| Some((it.link?, it.cost))));
                }
                Position::Barrier(vector) => {
                    if !work.submitted.covers(vector) && !work.ignore_order {
                        return Ok(Some(Head::Barrier));
                    }
                }
            }
            if let Some(mut queued) = self.queue.pop_front() {
                self.consumed += std::mem::take(&mut queued.cost);
                self.passed.push_back(queued);
            }
            done.progressed = true;
        }
        Ok(None)
    }

    /// Forgets what was passed and is sealed now.
    pub fn retire(&mut self, sealed: &VersionVector) {
        let covered = |position: &Position| match position {
            Position::Commits { origin, last, .. } => sealed.get(origin) >= *last,
            Position::Barrier(vector) => sealed.covers(vector),
        };
        while self.passed.pop_front_if(|front| covered(&front.position)).is_some() {}
    }

    /// The engine has refused something: what was passed and is not sealed stands at the head again.
    pub fn restore(&mut self) {
        self.passed.append(&mut self.queue);
        self.queue = std::mem::take(&mut self.passed);
        self.waits = None;
    }

    /// A fetch for the head, which is a position that waits: of the positions of its origin in this queue up
    /// to the first one that this link brings by itself, and no more (MODEL M5).
    pub fn start_graft(&mut self, submitted: &VersionVector) -> Option<Graft> {
        let Position::Commits { origin, last, .. } = self.queue.front()?.position else {
            return None;
        };
        let of_origin = self.queue.iter().skip(1).filter_map(|queued| match &queued.position {
            Position::Commits { origin: of, last, eager, .. } if *of == origin => {
                Some((*last, *eager))
            }
            _ => None,
        });
        let to = of_origin.take_while(|(_, eager)| !eager).last().map_or(last, |(last, _)| last);
        let graft = Graft { origin, from: submitted.get(&origin) + 1, to };
        *self.fetches.entry(origin).or_insert(0) += 1;
        self.graft = Some(graft);
        self.asked = true;
        Some(graft)
    }

    /// How often an origin was fetched by this link since a copy came by its own way.
    pub fn fetches(&self, origin: &Origin) -> u32 {
        self.fetches.get(origin).copied().unwrap_or(0)
    }

    /// A copy came by its own way.
    pub fn came(&mut self, origin: &Origin) {
        self.fetches.remove(origin);
    }

    /// The peer was told not to send the origin: what it promised of it is not to be waited for.
    pub fn pruned(&mut self, pruned: &Origin) {
        for queued in &mut self.queue {
            if let Position::Commits { origin, eager, .. } = &mut queued.position
                && origin == pruned
            {
                *eager = false;
            }
        }
    }

    /// The answer to the graft. Error: it is not what was asked for.
    pub fn grafted(&mut self, commits: &[EncodedCommit]) -> Result<(), &'static str> {
        let graft = self.graft.take().ok_or("answer without a graft")?;
        let mut next = graft.from;
        for commit in commits {
            if commit.origin != graft.origin || commit.first != next || commit.last > graft.to {
                return Err("answer does not fit the graft");
            }
            next = commit.last + 1;
        }
        Ok(())
    }
}
