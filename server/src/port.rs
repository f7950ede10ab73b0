//! The port between the engine's thread and the peers' thread: bounded queues both ways.
//!
//! The engine's thread never waits for the other one. What it has sealed goes to an outbox that is bounded
//! in bytes: if the peers' thread does not keep up, the oldest entries are dropped; replication sees by the
//! positions that some are missing, and goes back to reading the log. What peers send waits in a queue of
//! fixed length: when it is full the peers' thread stops reading its sockets, which is the back-pressure.
//!
//! Every question has an answer, as neither thread ends without the other ([`crate::process`]). What lies
//! between the threads, and what happens when it is full or the other side is gone, is a table of
//! docs/ARCHITECTURE.md.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use lattis_engine::causal::{LogPosition, Origin, VersionVector};
use lattis_engine::commit::{EncodedCommit, LogEntry};
use lattis_replication::{PeerInfo, Ticket};

use crate::data::Engine;

/// Entries of each queue.
const QUEUE: usize = 4096;
/// Bytes of sealed entries that wait for the peers' thread.
pub const OUTBOX_BYTES: usize = 64 << 20;

/// What a client asks of the peers' thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerRequest {
    /// Connect to a node and keep connecting.
    Meet {
        /// Host name or address.
        host: String,
        /// Its peer port.
        port: u16,
    },
    /// Who is there.
    List,
    /// Stop exchanging data with a peer, or with all.
    Pause(Option<String>),
    /// Go on.
    Resume(Option<String>),
    /// Take what a peer has stamped too far ahead.
    AcceptClock(String),
}

/// A reply in the making on another thread.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// `+OK`
    Ok,
    /// An error, with its code.
    Error(String),
    /// A number.
    Integer(i64),
    /// A string.
    Text(String),
    /// A list.
    Array(Vec<Answer>),
    /// Named values.
    Map(Vec<(&'static str, Answer)>),
}

/// Something to do with the engine between two ticks.
pub type Inspect = Box<dyn FnOnce(&mut Engine) + Send>;

/// From the peers' thread to the engine's.
pub enum FromPeers {
    /// Commits of a link, in order. Answered by what is sealed, or by `Refused`.
    Apply {
        /// Named in a refusal.
        ticket: Ticket,
        /// Each one follows its predecessors.
        commits: Vec<EncodedCommit>,
    },
    /// A part of a whole state, to be staged; the last one makes it visible.
    Join {
        /// Named in the answer.
        ticket: Ticket,
        /// Opaque here.
        part: Bytes,
        /// Whether the state is complete.
        last: bool,
    },
    /// The reply to a client's request.
    Answer {
        /// The client's id.
        client: u64,
        /// The reply.
        answer: Answer,
    },
    /// This node must not write under its name any more.
    Fenced {
        /// For the clients whose writes are refused.
        why: String,
    },
    /// This node's clock is wrong, as most of its peers see it: clients' writes are refused until that is
    /// over.
    ClockFenced {
        /// For the clients whose writes are refused; `None`: it is over.
        why: Option<String>,
    },
    /// Keep the log from a position on, or as usual.
    HoldLog {
        /// What lies before it may be trimmed.
        from: Option<LogPosition>,
    },
    /// Something to do with the engine between two ticks: taking a snapshot, reading the vector.
    Inspect(Inspect),
}

impl fmt::Debug for FromPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FromPeers::Apply { .. } => "Apply",
            FromPeers::Join { .. } => "Join",
            FromPeers::Answer { .. } => "Answer",
            FromPeers::Fenced { .. } => "Fenced",
            FromPeers::ClockFenced { .. } => "ClockFenced",
            FromPeers::HoldLog { .. } => "HoldLog",
            FromPeers::Inspect(_) => "Inspect",
        })
    }
}

/// From the engine's thread to the peers': what happened, in order.
#[derive(Debug)]
pub enum ToPeers {
    /// A part of a state was staged.
    Staged(Ticket),
    /// Commits or a state were not applied, and nothing of the same epoch will be.
    Refused {
        /// As in the request.
        ticket: Ticket,
        /// The commit that cannot be applied, if it is one's fault.
        culprit: Option<(Origin, u64)>,
        /// Why.
        why: String,
    },
    /// A client's request; its answer is awaited.
    Asked {
        /// The client's id.
        client: u64,
        /// What it asks.
        request: PeerRequest,
    },
}

/// What a tick has written.
#[derive(Debug)]
pub struct SealedEntries {
    /// Position of the last entry.
    pub position: LogPosition,
    /// The vector behind it.
    pub vector: VersionVector,
    /// The entries in log order.
    pub entries: Vec<LogEntry>,
    size: usize,
}

/// What is kept instead of a queue while there are no links.
#[derive(Debug, Default)]
struct Idle {
    links: usize,
    /// Without entries.
    latest: Option<SealedEntries>,
}

/// The queues and what wakes either side.
pub struct Port {
    inbox: ArrayQueue<FromPeers>,
    events: ArrayQueue<ToPeers>,
    sealed: ArrayQueue<SealedEntries>,
    sealed_bytes: AtomicUsize,
    idle: Mutex<Idle>,
    /// The peers as of the last heartbeat.
    peers: Mutex<Arc<Vec<PeerInfo>>>,
    listening: AtomicBool,
    wake_engine: mio::Waker,
    wake_peers: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("sealed_bytes", &self.sealed_bytes).finish_non_exhaustive()
    }
}

impl Port {
    /// Empty queues; `wake_engine` interrupts the engine's poll.
    pub fn new(wake_engine: mio::Waker) -> Port {
        Port {
            inbox: ArrayQueue::new(QUEUE),
            events: ArrayQueue::new(QUEUE),
            sealed: ArrayQueue::new(QUEUE),
            sealed_bytes: AtomicUsize::new(0),
            idle: Mutex::default(),
            peers: Mutex::default(),
            listening: AtomicBool::new(false),
            wake_engine,
            wake_peers: OnceLock::new(),
        }
    }

    // ---- the peers' side

    /// Says how the peers' thread is woken. From now on it is told what is sealed.
    pub fn listen(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let _ = self.wake_peers.set(wake);
        self.listening.store(true, Ordering::Release);
    }

    /// Hands something to the engine's thread. Given back when the queue is full: stop reading, try later.
    pub fn submit(&self, message: FromPeers) -> Result<(), FromPeers> {
        self.inbox.push(message)?;
        // A wake-up that fails is made good by the loop's own clock.
        let _ = self.wake_engine.wake();
        Ok(())
    }

    /// The next thing that happened.
    pub fn next_event(&self) -> Option<ToPeers> {
        self.events.pop()
    }

    /// Says how many links there are: with none, entries are not handed over one by one.
    pub fn set_links(&self, links: usize) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.links = links;
        if links > 0
            && let Some(latest) = idle.latest.take()
            && let Err(latest) = self.sealed.push(latest)
        {
            self.drop_oldest();
            // Nobody else pushes: entries are published under this lock while there are no links.
            let _ = self.sealed.push(latest);
        }
    }

    /// Says how the peers are.
    pub fn set_peers(&self, peers: Vec<PeerInfo>) {
        *self.peers.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(peers);
    }

    /// The next tick's entries, or the newest position if there were no links.
    pub fn next_sealed(&self) -> Option<SealedEntries> {
        let Some(sealed) = self.sealed.pop() else {
            return self.idle.lock().unwrap_or_else(PoisonError::into_inner).latest.take();
        };
        self.sealed_bytes.fetch_sub(sealed.size, Ordering::AcqRel);
        Some(sealed)
    }

    // ---- the engine's side

    /// The peers as they were at the last heartbeat.
    pub fn peers(&self) -> Arc<Vec<PeerInfo>> {
        Arc::clone(&self.peers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next message of the peers.
    pub fn next_message(&self) -> Option<FromPeers> {
        self.inbox.pop()
    }

    /// Messages that wait.
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Tells the peers' thread. Given back when there is none, or when its queue is full.
    pub fn tell(&self, event: ToPeers) -> Result<(), ToPeers> {
        if !self.listening.load(Ordering::Acquire) {
            return Err(event);
        }
        let accepted = self.events.push(event);
        self.wake();
        accepted
    }

    /// Hands over what a tick has written; drops the oldest entries that nobody fetched. Without links nobody
    /// is woken: the peers' thread finds the newest position when it has something to do.
    pub fn publish(&self, position: LogPosition, vector: VersionVector, entries: Vec<LogEntry>) {
        if !self.listening.load(Ordering::Acquire) || entries.is_empty() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.links == 0 {
            idle.latest = Some(SealedEntries { position, vector, entries: Vec::new(), size: 0 });
            return;
        }
        drop(idle);
        let size = entries.iter().map(entry_size).sum();
        let mut bytes = self.sealed_bytes.fetch_add(size, Ordering::AcqRel) + size;
        let mut sealed = SealedEntries { position, vector, entries, size };
        loop {
            if bytes > OUTBOX_BYTES && !self.sealed.is_empty() {
                bytes = bytes.saturating_sub(self.drop_oldest());
                continue;
            }
            match self.sealed.push(sealed) {
                Ok(()) => break,
                Err(returned) => {
                    sealed = returned;
                    bytes = bytes.saturating_sub(self.drop_oldest());
                }
            }
        }
        self.wake();
    }

    /// Bytes of entries that wait for the peers' thread.
    pub fn outbox_bytes(&self) -> usize {
        self.sealed_bytes.load(Ordering::Acquire)
    }

    fn drop_oldest(&self) -> usize {
        let Some(oldest) = self.sealed.pop() else { return 0 };
        self.sealed_bytes.fetch_sub(oldest.size, Ordering::AcqRel);
        oldest.size
    }

    fn wake(&self) {
        if let Some(wake) = self.wake_peers.get() {
            wake();
        }
    }
}

fn entry_size(entry: &LogEntry) -> usize {
    match entry {
        LogEntry::Commit(commit) => commit.body.len() + 64,
        LogEntry::Barrier(vector) => vector.len() * 32 + 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(bytes: usize) -> Vec<LogEntry> {
        vec![LogEntry::Commit(EncodedCommit {
            origin: Default::default(),
            first: 1,
            last: 1,
            body: vec![0; bytes].into(),
        })]
    }

    #[test]
    fn the_outbox_is_bounded_and_keeps_the_newest() {
        let poll = mio::Poll::new().unwrap();
        let port = Port::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        port.publish(LogPosition(1), VersionVector::new(), entries(10));
        assert!(port.next_sealed().is_none(), "nobody listens");
        assert!(port.tell(ToPeers::Staged(Ticket { epoch: 1, number: 1 })).is_err());
        port.listen(Box::new(|| ()));
        port.publish(LogPosition(1), VersionVector::new(), entries(10));
        port.publish(LogPosition(2), VersionVector::new(), entries(10));
        let newest = port.next_sealed().unwrap();
        assert_eq!((newest.position, newest.entries.len()), (LogPosition(2), 0), "no links");
        port.set_links(1);
        for position in 1..=10 {
            port.publish(LogPosition(position), VersionVector::new(), entries(OUTBOX_BYTES / 4));
        }
        let rest: Vec<u64> =
            std::iter::from_fn(|| port.next_sealed()).map(|s| s.position.0).collect();
        assert_eq!(rest, [8, 9, 10]);
        assert_eq!(port.sealed_bytes.load(Ordering::Relaxed), 0);
        for position in 0..2 * QUEUE as u64 {
            port.publish(LogPosition(position), VersionVector::new(), entries(1));
        }
        assert_eq!(std::iter::from_fn(|| port.next_sealed()).count(), QUEUE);
    }
}
