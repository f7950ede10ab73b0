//! Replication of Lattis: commits from node to node, in causal order, as a sans-IO state machine.
//!
//! **The invariant.** Every node keeps one delivery log: the order in which commits, its own and
//! others', became visible there. A commit enters the log only after all its causes, so every prefix of
//! a log is causally closed. A link tells the sender's whole log, in order, to the receiver, less what
//! the receiver was known, by this very connection, to have already. The receiver works that order and
//! passes a position only when its own vector covers it. So whatever stands behind a processed prefix has
//! all its causes here, and may be applied at once: no dependency vectors travel, nothing is held back
//! globally, and a link that waits holds up no other link. A trimmed prefix and a state transfer are
//! *barriers* over a whole vector, and any doubt about the order (overrun, bad frame) ends the connection,
//! whose successor begins with a handshake of vectors.
//!
//! **Two lanes.** The order travels apart from the payloads (see [`wire`]). Positions of all commits,
//! acks and heartbeats go on the order lane, which waits for nothing. Commits go on the payload lane: by a
//! tree per origin, passed on as soon as they arrive, parked until a position at the head of some link names
//! them. Since the arrival of a payload depends on no order, no two links can wait for each other.
//!
//! **Vectors.** *sealed*: what the engine has written; told to peers. *submitted*: sealed, and what was
//! handed to the engine since. The engine takes [`Output::Apply`] in order, so submitted is what will be
//! there when the next one is applied. If the engine refuses one, everything that was decided by
//! submitted is taken back, and the ticket's epoch ends; only a link that brought what cannot be applied is
//! closed.
//!
//! **Messages.** Hello, Auth (handshake); Welcome (vector, window); Order (positions, barriers); Payload
//! (commits); Ack (what was consumed, sealed vector); Prune, Graft, Grafted; StateRequest, State, StateNext;
//! Ping, Pong; Bye. See [`wire`].
//!
//! **Timers.** [`Timer`] values come back as [`Input::Timer`]; one that is out of date does nothing.
//!
//! **Layers.** `membership` (whom to dial), `handshake` (who may talk), `link` (a connection's lanes),
//! `sender` and `receiver` (the order of a link, out and in), `parking` (payloads that wait), `transfer`
//! (whole states), `clocks` (whose clock is ahead), `peers` (what the operator sees), [`Node`] joins them.
//! Nothing here reads a clock, draws a number by itself, does I/O, or keeps an unbounded queue.

mod clocks;
mod handshake;
mod link;
mod membership;
mod node;
mod parking;
mod peers;
mod receiver;
mod sender;
mod transfer;
pub mod wire;

use std::fmt;

use bytes::Bytes;
pub use handshake::{VERSION, VERSION_MIN};
use lattis_engine::causal::{LogPosition, Millis, NodeId, Origin, VersionVector};
use lattis_engine::commit::{EncodedCommit, LogEntry};
pub use node::Node;
pub use peers::PeerInfo;
pub use wire::{FRAME_LIMIT, Framer, HELLO_MAX, Lane, WireError};

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
    /// The highest protocol version to speak: [`VERSION`], but for tests of peers of the version before.
    pub version: u16,
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
    /// Who is sent commits of an origin that nobody has asked for or refused yet.
    pub broadcast: Broadcast,
    /// How long a position waits at the head of a link for its commit before that is asked for.
    pub graft_after: Millis,
    /// How long a barrier waits at the head of a link before the state is asked for.
    pub barrier_after: Millis,
    /// Time between heartbeats, and the node's own tick.
    pub heartbeat: Millis,
    /// Time without a byte after which a link is dead.
    pub dead_after: Millis,
    /// How long a handshake may take.
    pub handshake_after: Millis,
    /// How long a state transfer or a graft may stand still, without a byte, before its link is reset.
    pub transfer_after: Millis,
    /// How long a state transfer that was cut is kept by its sender, with the log behind it.
    pub keep_after: Millis,
    /// How long nothing is handed to an engine that has refused something without a fault of a peer.
    pub retry_after: Millis,
    /// Whether this version can apply a commit, as far as that can be said without any state; others are not
    /// passed on.
    pub is_sound: fn(&EncodedCommit) -> bool,
    /// How far ahead of this node's wall clock commits may be stamped that are taken from a peer.
    pub clock_max_drift: Millis,
    /// First and longest delay between attempts to dial.
    pub redial: (Millis, Millis),
    /// Un-acked payload bytes that this node accepts on one link.
    pub window_bytes: u64,
    /// Un-acked positions under way on one link, in either direction.
    pub window_positions: u64,
    /// Bytes of the payload lane that the driver may hold of one link and has not written.
    pub payload_ahead: u64,
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
            version: VERSION,
            cluster_id: "lattis".to_owned(),
            secret: None,
            node_name: String::new(),
            address: String::new(),
            peers: Vec::new(),
            dial_advertised: true,
            broadcast: Broadcast::Direct,
            graft_after: Millis(100),
            barrier_after: Millis(500),
            heartbeat: Millis(1000),
            dead_after: Millis(5000),
            handshake_after: Millis(5000),
            transfer_after: Millis(30_000),
            keep_after: Millis(600_000),
            retry_after: Millis(1000),
            is_sound: EncodedCommit::is_well_formed,
            clock_max_drift: Millis(60_000),
            redial: (Millis(100), Millis(5000)),
            window_bytes: 1 << 20,
            window_positions: 1 << 16,
            payload_ahead: 256 << 10,
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

/// Who is sent the commits of an origin of which nothing is known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broadcast {
    /// A node sends its own commits to all its peers, and others' to those who ask: right for a full mesh,
    /// where every payload travels one hop, once.
    #[default]
    Direct,
    /// The first commit of an origin goes everywhere; who gets a second copy refuses one of the ways, and a
    /// tree is left (Leitao, Pereira, Rodrigues: "Epidemic Broadcast Trees", 2007). Right for partial views.
    Tree,
}

/// Faults taken from the counterexamples of the models, each breaking one rule.
#[cfg(feature = "planted")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A link begins at the log's end, whatever the handshake says.
    ActivateFromNow,
    /// When a link's buffer overflows its entries are gone.
    DropFromQueue,
    /// Commits are applied as they arrive.
    AppliedOnArrival,
    /// Barriers are not sent.
    NoBarrier,
    /// What a peer was known to have is kept from its last connection.
    StaleKnowledge,
    /// The receiver does not wait for what a position names.
    OrderIgnored,
    /// After a refusal, what was passed because of what was refused stays passed.
    RefusalRestoresNothing,
    /// A heartbeat that is not answered in time makes a link dead, whatever else arrives.
    DeadByHeartbeat,
    /// A state transfer that is cut begins again.
    TransferForgotten,
    /// The log behind a snapshot is trimmed while the snapshot travels.
    LogNotHeld,
    /// Positions and heartbeats wait behind payloads.
    OneLane,
    /// Commits from a clock far ahead are taken.
    ClockNotHeld,
    /// Waiting is measured by the wall clock itself, which may be set back.
    TimersByWallClock,
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
        /// Where the other end is, for people.
        from: String,
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
    /// Bytes arrived that do not make a whole frame yet: a sign of life. To be told of now and then while a
    /// frame takes long.
    Received {
        /// Which.
        link: LinkId,
    },
    /// Frames of the payload lane were written to the socket.
    Written {
        /// Which.
        link: LinkId,
        /// Their bytes, lengths included.
        bytes: u64,
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
        /// The commit that cannot be applied, by origin and first seq. `None`: it is no fault of what was
        /// sent (a full disk), and the same is tried again later.
        culprit: Option<(Origin, u64)>,
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
        /// As asked for.
        snapshot: u64,
        /// As asked for.
        part: u64,
        /// That part of the snapshot.
        bytes: Bytes,
        /// Whether it is the last.
        last: bool,
    },
}

/// What a node wants done, in this order, and before the node is given its next input: frames of a lane are
/// encoded one after the other.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a frame, with its length before it. Frames of one lane keep their order; those of the order
    /// lane go before those of the payload lane that are not written yet.
    Send {
        /// To whom.
        link: LinkId,
        /// Which of the link's lanes.
        lane: Lane,
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
    /// Give a part of a snapshot; answer with one `StateChunk`. A name that is not known asks for a new
    /// snapshot. The last parts may be asked for again, and every part has to be the same then.
    ReadState {
        /// For whom.
        link: LinkId,
        /// Its name.
        snapshot: u64,
        /// Which part, from 0.
        part: u64,
        /// About how many bytes.
        limit_bytes: usize,
    },
    /// The snapshot is not needed any more.
    DropState {
        /// Its name.
        snapshot: u64,
    },
    /// Keep the log from this position on, though it is over its limit; `None`: as usual.
    HoldLog {
        /// What lies before it may be trimmed.
        from: Option<LogPosition>,
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
    /// The engine may be tried again after a refusal.
    Retry,
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
    /// Take what a peer has stamped too far ahead.
    AcceptClock {
        /// Name, address or node id.
        name: String,
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
    /// Peers know more of this node's origin than the node itself.
    #[error("peers know writes of this node that the node has lost: fenced")]
    Fenced,
    /// One peer claims to.
    #[error("the peer claims to know writes of this node that it did not make")]
    Claim,
    /// The handshake of an earlier life of the node arrived late.
    #[error("an earlier life of the peer: its successor is connected")]
    Older,
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
        /// Where it was dialled, or came from.
        address: String,
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
        /// Whether it goes on where it was cut.
        resumes: bool,
    },
    /// A peer claims to know seqs of this node's current origin that the node does not. Its link is closed.
    Claim {
        /// Who told.
        peer: NodeId,
        /// The seq that the peer claims.
        theirs: u64,
        /// The seq that this node knows.
        mine: u64,
    },
    /// A peer's commits were refused again and again: it is paused until the operator resumes it.
    Suspended {
        /// Who.
        node: NodeId,
        /// Its name.
        name: String,
        /// Why the last one was refused.
        why: String,
    },
    /// A link begins or ends to wait because the peer's commits are stamped too far ahead.
    ClockHeld {
        /// Who.
        node: NodeId,
        /// Its name.
        name: String,
        /// How far ahead of this node's wall clock, ms; `None`: it goes on.
        ahead_ms: Option<u64>,
    },
    /// This node's own wall clock is ahead of the median of its peers by more than half the bound: it must
    /// not write until it is told that this is over.
    OwnClock {
        /// By how much, ms; `None`: it is over.
        ahead_ms: Option<u64>,
    },
    /// Several peers know seqs of this node's current origin that the node does not: its directory was
    /// copied, and both copies run. The node has closed all links; it must not mint with this origin any
    /// more.
    Fenced {
        /// Who told last.
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
