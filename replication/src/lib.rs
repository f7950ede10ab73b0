//! Replication of Lattis: commits from node to node, in causal order, as a sans-IO state machine.
//!
//! **The invariant.** Every node keeps one delivery log: the order in which commits, its own and
//! others', became visible there. A commit enters the log only after all its causes, so every prefix of
//! a log is causally closed. A link carries the sender's whole log, in order, to the receiver, less what
//! the receiver was known, by this very connection, to have already. The receiver works that stream in
//! order and passes an item only when its own vector covers it. So whatever stands behind a processed
//! prefix has all its causes here, and may be applied at once: no dependency vectors travel, nothing is
//! held back globally, and a link that waits holds up no other link. All else serves this: positions
//! that need not carry their payload are still there as *markers* (lazy), a payload fetched out of turn
//! (*graft*) is parked until its marker is reached, a trimmed prefix and a state transfer are *barriers*
//! over a whole vector, and any doubt about the order (overrun, refusal, bad frame) ends the connection,
//! whose successor begins with a handshake of vectors.
//!
//! **Vectors.** *sealed*: what the engine has written; told to peers. *submitted*: sealed, and what was
//! handed to the engine since. The engine takes [`Output::Apply`] in order, so submitted is what will be
//! there when the next one is applied. If the engine refuses one, everything that was decided by
//! submitted is void: all links are reset, and the ticket's epoch ends.
//!
//! **Messages.** Hello, Auth (handshake); Welcome (vector, window); Stream (commits, markers, barriers);
//! Ack (window bytes consumed, sealed vector); Prune, Graft, Grafted; StateRequest, State, StateNext;
//! Ping, Pong; Bye. See [`wire`].
//!
//! **Timers.** [`Timer`] values come back as [`Input::Timer`]; one that is out of date does nothing.
//!
//! **Layers.** `membership` (whom to dial), `handshake` (who may talk), `sender` and `receiver` (the
//! streams of a link), `peers` (what the operator sees), [`Node`] joins them. Nothing here reads a
//! clock, draws a number by itself, does I/O, or keeps an unbounded queue.

mod handshake;
mod membership;
mod node;
mod peers;
mod receiver;
mod sender;
pub mod wire;

use std::fmt;

use bytes::Bytes;
pub use handshake::VERSION;
use lattis_engine::causal::{LogPosition, Millis, NodeId, Origin, VersionVector};
use lattis_engine::commit::{EncodedCommit, LogEntry};
pub use node::Node;
pub use peers::PeerInfo;
pub use wire::{FRAME_LIMIT, Framer, HELLO_MAX, WireError};

/// One connection. The driver numbers them and never uses a number twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Names what was handed to the engine.
///
/// When the engine refuses a ticket it must also refuse, without reporting, everything that still comes
/// with the same epoch: later tickets may have causes in the refused one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Counts the refusals that the node has heard of.
    pub epoch: u64,
    /// Counts tickets.
    pub number: u64,
}

/// What a node is told once. It cannot be printed: it holds the secret.
#[derive(Clone)]
pub struct Config {
    /// Nodes of different clusters do not talk.
    pub cluster_id: String,
    /// Shared secret that proves membership; `None` proves the cluster id only.
    pub secret: Option<Vec<u8>>,
    /// The node's name, for people; at most 255 bytes.
    pub node_name: String,
    /// Where peers can dial this node, "host:port"; empty if they cannot.
    pub address: String,
    /// Addresses to dial from the start.
    pub peers: Vec<String>,
    /// Whether addresses that peers advertise are dialled after the connection was lost.
    pub dial_advertised: bool,
    /// How long a marker waits at the head of a link before its commits are asked for.
    pub graft_after: Millis,
    /// How long a barrier waits at the head of a link before the state is asked for.
    pub barrier_after: Millis,
    /// Time between heartbeats, and the node's own tick.
    pub heartbeat: Millis,
    /// Silence, or an unanswered heartbeat, after which a link is dead.
    pub dead_after: Millis,
    /// How long a handshake may take.
    pub handshake_after: Millis,
    /// How long a state transfer or a graft may stand still before its link is reset.
    pub transfer_after: Millis,
    /// First and longest delay between attempts to dial.
    pub redial: (Millis, Millis),
    /// Un-acked stream bytes that this node accepts on one link.
    pub window_bytes: u64,
    /// Log entries, in bytes, buffered for one link before it is served from the log.
    pub buffer_bytes: usize,
    /// Bytes of log entries asked for at once.
    pub read_bytes: usize,
    /// Bytes of commits that one answer to a graft carries, about.
    pub graft_bytes: usize,
    /// Bytes of commits handed to the engine and not yet sealed, about.
    pub in_flight_bytes: usize,
    /// Longest frame in bytes: accepted, and sent if the peer accepts it.
    pub max_frame: usize,
    /// Longest message put together from fragments, in bytes: bounds a commit that can replicate.
    pub max_message: usize,
    /// Which rule of the model to break, for the tests that must notice.
    #[cfg(feature = "planted")]
    pub planted: Option<Planted>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cluster_id: "lattis".to_owned(),
            secret: None,
            node_name: String::new(),
            address: String::new(),
            peers: Vec::new(),
            dial_advertised: true,
            graft_after: Millis(100),
            barrier_after: Millis(500),
            heartbeat: Millis(1000),
            dead_after: Millis(5000),
            handshake_after: Millis(5000),
            transfer_after: Millis(30_000),
            redial: (Millis(100), Millis(5000)),
            window_bytes: 1 << 20,
            buffer_bytes: 1 << 20,
            read_bytes: 256 << 10,
            graft_bytes: 256 << 10,
            in_flight_bytes: 4 << 20,
            max_frame: 4 << 20,
            max_message: 64 << 20,
            #[cfg(feature = "planted")]
            planted: None,
        }
    }
}

/// Faults taken from the counterexamples of MODEL M5, each breaking one rule.
#[cfg(feature = "planted")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A link begins at the log's end, whatever the handshake says.
    ActivateFromNow,
    /// When a link's buffer overflows its entries are gone.
    DropFromQueue,
    /// Commits that a graft brings are applied at once.
    GraftAppliedOnArrival,
    /// Barriers are not sent.
    NoBarrier,
    /// What a peer was known to have is kept from its last connection.
    StaleKnowledge,
    /// The receiver does not wait at markers.
    MarkerIgnored,
    /// After a refusal only links with commits in flight are reset, though others may have passed items
    /// because of what was refused.
    RefusalResetsFew,
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// Begin: dial, tick.
    Start,
    /// A connection is up: dialled by this node, to that address, or accepted.
    LinkUp {
        /// Its number.
        link: LinkId,
        /// The address of [`Output::Dial`]; `None` if the peer dialled.
        dialled: Option<String>,
    },
    /// [`Output::Dial`] did not succeed.
    DialFailed {
        /// The address.
        address: String,
        /// For the operator.
        why: String,
    },
    /// The connection is gone, and not by [`Output::Close`].
    LinkDown {
        /// Which.
        link: LinkId,
        /// For the operator.
        why: String,
    },
    /// A whole frame, without its length.
    Frame {
        /// From where.
        link: LinkId,
        /// As cut by [`Framer`].
        bytes: Bytes,
    },
    /// A hint that the link takes bytes again; nothing depends on it.
    Writable {
        /// Which.
        link: LinkId,
    },
    /// A timer of [`Output::Arm`] went off.
    Timer(Timer),
    /// The operator wants something.
    Command(PeerCommand),
    /// The engine wrote entries at the positions (position - entries.len(), position].
    Sealed {
        /// The log's last position.
        position: LogPosition,
        /// The engine's vector there.
        vector: VersionVector,
        /// In log order; the front may be missing (the driver dropped it): links then read the log.
        entries: Vec<LogEntry>,
    },
    /// The engine could not apply or join: nothing of the ticket was applied.
    Refused {
        /// What was refused.
        ticket: Ticket,
        /// For the operator.
        why: String,
    },
    /// The engine took one part of a state transfer: the next may come.
    Staged {
        /// Of [`Output::Join`].
        ticket: Ticket,
    },
    /// Answer to [`Output::ReadLog`].
    LogChunk {
        /// For whom.
        link: LinkId,
        /// The position of the last entry; what was asked for if there is none.
        upto: LogPosition,
        /// Consecutive entries up to there. If the log is trimmed beyond what was asked for, the first is
        /// the barrier of the floor.
        entries: Vec<LogEntry>,
    },
    /// Answer to [`Output::ReadCommits`].
    Grafted {
        /// For whom.
        link: LinkId,
        /// Of the request.
        ticket: u64,
        /// Consecutive commits from the first asked for; at least one if it is in the log.
        commits: Vec<EncodedCommit>,
        /// The next one asked for is not in the log any more.
        truncated: bool,
    },
    /// Answer to [`Output::ReadState`].
    StateChunk {
        /// For whom.
        link: LinkId,
        /// The next part of the snapshot.
        bytes: Bytes,
        /// Whether it is the last.
        last: bool,
    },
}

/// What a node wants done, in this order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a frame, with its length before it.
    Send {
        /// To whom.
        link: LinkId,
        /// Without length.
        frame: Bytes,
    },
    /// Send what was handed over (for a bounded time), then close. The node has forgotten the link.
    Close {
        /// Which.
        link: LinkId,
        /// Why.
        why: CloseReason,
    },
    /// Connect; answer with `LinkUp` or `DialFailed`.
    Dial {
        /// "host:port".
        address: String,
    },
    /// Give the timer back after that time.
    Arm {
        /// From now.
        after: Millis,
        /// What to give back.
        timer: Timer,
    },
    /// Apply these commits, in order, after everything handed over before. A commit that the engine's
    /// vector covers is a no-op. Answer: `Sealed` that covers them, or `Refused`.
    Apply {
        /// From where.
        link: LinkId,
        /// For a refusal.
        ticket: Ticket,
        /// In order.
        commits: Vec<EncodedCommit>,
    },
    /// Stage a part of a state transfer; at the last, join in one step (MODEL M6) and leave a barrier.
    /// A part with another ticket drops what was staged before.
    Join {
        /// From where.
        link: LinkId,
        /// The same for all parts of a transfer.
        ticket: Ticket,
        /// As the sender's driver gave it.
        part: Bytes,
        /// Whether it is the last.
        last: bool,
    },
    /// Read log entries at positions after `after`; answer with `LogChunk`.
    ReadLog {
        /// For whom.
        link: LinkId,
        /// Where.
        after: LogPosition,
        /// About how many bytes; at least one entry.
        limit_bytes: usize,
        /// On a link's first read: what the peer has. The answer may begin later than asked for if this
        /// covers the log's prefix before it.
        known: Option<VersionVector>,
    },
    /// Read commits of one origin from the log; answer with `Grafted`.
    ReadCommits {
        /// For whom.
        link: LinkId,
        /// For the answer.
        ticket: u64,
        /// Whose.
        origin: Origin,
        /// The first seq.
        from: u64,
        /// The last seq.
        to: u64,
        /// About how many bytes; at least one commit.
        limit_bytes: usize,
    },
    /// Give the next part of a snapshot; answer with one `StateChunk`.
    ReadState {
        /// For whom; the snapshot is dropped with the link.
        link: LinkId,
        /// false: take a new snapshot; true: the next part of it.
        resume: bool,
        /// About how many bytes.
        limit_bytes: usize,
    },
    /// Something to log.
    Report(PeerEvent),
}

/// A point in time that a node waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Heartbeats and dead links.
    Tick,
    /// The handshake of a link is over by now.
    Handshake(LinkId),
    /// The head of a link's queue has waited long enough, perhaps.
    Head(LinkId),
    /// Dial.
    Dial(String),
}

/// What an operator can want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerCommand {
    /// Dial that address now and from now on.
    Meet {
        /// "host:port".
        address: String,
    },
    /// Close and refuse links to one peer (name, address or node id), or to all.
    Pause {
        /// `None`: all.
        name: Option<String>,
    },
    /// Undo a pause.
    Resume {
        /// `None`: all pauses.
        name: Option<String>,
    },
}

/// Why a link was closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// No common protocol version.
    #[error("no common protocol version")]
    Version,
    /// Different cluster ids.
    #[error("the peer belongs to another cluster")]
    Cluster,
    /// One end has a secret and the other has none.
    #[error("one node has a cluster secret and the other has none")]
    Secret,
    /// The MAC is wrong.
    #[error("the peer does not know the cluster secret")]
    Auth,
    /// The other end is this node.
    #[error("the address is this node's own")]
    Myself,
    /// Two live nodes bear one node id.
    #[error("two live nodes bear one node id: a copied or restored data directory")]
    Clone,
    /// A peer knows more of this node's origin than the node itself.
    #[error("a peer knows writes of this node that the node has lost: fenced")]
    Fenced,
    /// There is another connection to the node.
    #[error("another connection to the node stays")]
    Duplicate,
    /// The operator paused the peer.
    #[error("paused")]
    Paused,
    /// Silence.
    #[error("the peer does not answer")]
    Dead,
    /// The handshake took too long.
    #[error("the handshake took too long")]
    Handshake,
    /// The engine refused what was received.
    #[error("the engine refused a commit: {0}")]
    Refused(String),
    /// Too many connections are in their handshake.
    #[error("too many connections in their handshake")]
    Strangers,
    /// A state transfer or a graft stood still.
    #[error("a state transfer or a graft stood still")]
    Transfer,
    /// A frame that cannot be read.
    #[error("{0}")]
    Wire(WireError),
    /// A message that breaks the protocol.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The other end said why it closes.
    #[error("closed by the peer: {0}")]
    Peer(&'static str),
    /// The connection went down.
    #[error("connection lost: {0}")]
    Lost(String),
}

impl CloseReason {
    /// What the other end is told.
    fn code(&self) -> u8 {
        match self {
            CloseReason::Duplicate => 1,
            CloseReason::Paused => 2,
            CloseReason::Clone => 3,
            CloseReason::Fenced => 4,
            CloseReason::Refused(_) => 5,
            CloseReason::Dead => 6,
            CloseReason::Wire(_) | CloseReason::Protocol(_) => 7,
            _ => 0,
        }
    }

    /// What a code of the other end means here.
    fn of(code: u8) -> CloseReason {
        CloseReason::Peer(match code {
            1 => return CloseReason::Duplicate,
            2 => "paused there",
            3 => "two live nodes bear this node's id",
            4 => "the peer is fenced",
            5 => "the peer's engine refused a commit",
            6 => "no answer from here",
            7 => "protocol error seen there",
            _ => "no reason given",
        })
    }
}

/// Something that an operator may want to read in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A link is active.
    Up {
        /// Which.
        link: LinkId,
        /// Who.
        origin: Origin,
        /// The peer's name.
        name: String,
    },
    /// A link is gone.
    Down {
        /// Which.
        link: LinkId,
        /// Who, if it was known.
        node: Option<NodeId>,
        /// Why.
        why: CloseReason,
    },
    /// An address could not be reached.
    DialFailed {
        /// The address.
        address: String,
        /// Why.
        why: String,
    },
    /// A peer asked for, or was asked for, a state transfer.
    Transfer {
        /// On which link.
        link: LinkId,
        /// Whether this node receives it.
        receives: bool,
    },
    /// A peer knows seqs of this node's current origin that the node does not: its directory was
    /// restored or copied. The node has closed all links; it must not mint with this origin any more.
    Fenced {
        /// Who told.
        peer: NodeId,
        /// The seq that the peer knows.
        theirs: u64,
        /// The seq that this node knows.
        mine: u64,
    },
    /// Two live nodes bear one node id.
    Clone {
        /// Which id.
        node: NodeId,
    },
    /// No more addresses are remembered.
    TooManyAddresses,
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}", self.0)
    }
}
