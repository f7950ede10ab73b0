//! Messages as bytes.
//!
//! On the socket a frame is a big-endian u32 length and that many bytes; [`Framer`] cuts them. A frame
//! is CRC32C (4 bytes, over all that follows), format number, kind, payload. Decoding never allocates by
//! a claimed count, and what one frame can make a node hold is a small multiple of its length.
//!
//! A direction of a connection has two *lanes*. The order lane carries the positions of the sender's log,
//! acks, heartbeats and all that is small; the payload lane carries commits and parts of a state, cut into
//! pieces of at most [`PIECE`] bytes. Frames of one lane keep their order; between the lanes there is none,
//! so that the order lane may always go first, and what is big makes nothing wait but what is big.
//!
//! Inside a lane, origins are written once and named by index afterwards ([`Table`]), and a run of seqs
//! that continues the origin's last one is not written: a position takes two bytes, a commit of one effect
//! two bytes and its body's length. Both ends begin with empty tables for each connection.
//!
//! Version 1 has one lane: commits travel at their place in the order ([`Message::Stream`]), and what is
//! longer than the frame limit in fragments.
//!
//! The checksum guards against faults, not against an attacker on the path: that takes TLS, or later a
//! MAC and a counter for each frame in the checksum's place.

use bytes::Bytes;
use lattis_engine::causal::{Origin, VersionVector};
use lattis_engine::codec::{CodecError, Reader, Writer};
use lattis_engine::commit::{EncodedCommit, MAX_EFFECTS};
use std::collections::{BTreeMap, VecDeque};

/// The longest frame, in bytes, before the handshake is through: the first two frames of a connection.
pub const HELLO_MAX: usize = 1024;

/// The longest frame, in bytes, that any configuration can allow.
pub const FRAME_LIMIT: usize = 64 << 20;

/// The longest frame of either lane from version 2 on, in bytes: what a heartbeat may have to wait for.
pub const PIECE: usize = 64 << 10;

const FORMAT: u8 = 1;
const HEAD: usize = 6;
/// What the first piece of a message says beside its part of it, at most.
const PIECE_HEAD: usize = 48;
/// Bodies up to that length are copied into their message; longer ones are shared until they are cut.
const SHARED: usize = 4 << 10;
/// Origins that one connection may name in one direction.
const MAX_ORIGINS: usize = 1 << 16;
/// What an item costs of the window beside its body: about what it takes in a queue.
const ITEM_COST: u64 = 48;

mod kind {
    pub const HELLO: u8 = 1;
    pub const AUTH: u8 = 2;
    pub const WELCOME: u8 = 3;
    pub const STREAM: u8 = 4;
    pub const ACK: u8 = 5;
    pub const PRUNE: u8 = 6;
    pub const GRAFT: u8 = 7;
    pub const GRAFTED: u8 = 8;
    pub const STATE_REQUEST: u8 = 9;
    pub const STATE: u8 = 10;
    pub const STATE_NEXT: u8 = 11;
    pub const PING: u8 = 12;
    pub const PONG: u8 = 13;
    pub const BYE: u8 = 14;
    pub const FRAGMENT: u8 = 15;
    pub const ORDER: u8 = 16;
    pub const PAYLOAD: u8 = 17;
    pub const PIECE: u8 = 18;
    pub const ACKS: u8 = 19;
    pub const BEAT: u8 = 20;
    pub const FETCH: u8 = 21;
    pub const RESUME: u8 = 22;
    pub const PART: u8 = 23;
}

/// Which of a connection's two streams of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Positions, acks, heartbeats: goes first.
    Order,
    /// Commits and parts of a state.
    Payload,
}

/// Why a frame could not be read. The link is reset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The checksum does not fit.
    #[error("checksum of a frame does not fit")]
    Checksum,
    /// The frame, or the message made of fragments, is longer than allowed.
    #[error("frame of {0} bytes is too long")]
    TooLong(usize),
    /// The payload cannot be read.
    #[error("bad frame: {0}")]
    Codec(#[from] CodecError),
}

/// A position of the sender's log that the receiver is not known to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// Commits of one origin, adjacent in the log.
    Commits {
        /// Whose commits.
        origin: Origin,
        /// The first seq.
        first: u64,
        /// The last seq, the end of a commit.
        last: u64,
        /// Whether the payload lane of this connection brings them; otherwise another one should.
        eager: bool,
    },
    /// "Before this, all of that": a state transfer, or the place where the log was trimmed.
    Barrier(VersionVector),
}

/// What a payload takes of the window of its lane. A payload may be larger than the window: it then takes
/// half of it, so that it can be sent, and others behind it. Both ends compute it alike.
pub fn payload_cost(length: usize, window: u64) -> u64 {
    (ITEM_COST + length as u64).min((window / 2).max(1))
}

/// One item of a stream of version 1: a position, and its commit if it is eager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The commit itself (eager push).
    Commit(EncodedCommit),
    /// "I have it, you should get it elsewhere" (lazy): commits of one origin, adjacent in the log.
    Marker {
        /// Whose commits.
        origin: Origin,
        /// The first seq.
        first: u64,
        /// The last seq, the end of a commit.
        last: u64,
    },
    /// "Before this, all of that": a state transfer, or the place where the log was trimmed.
    Barrier(VersionVector),
}

impl Item {
    /// Bytes of the window that the item takes. Both ends compute it alike from the item.
    pub fn cost(&self) -> u64 {
        ITEM_COST
            + match self {
                Item::Commit(commit) => commit.body.len() as u64,
                Item::Marker { .. } => 0,
                Item::Barrier(vector) => vector.len() as u64 * (Origin::LEN as u64 + 12),
            }
    }
}

/// The greeting: all that is parsed before authentication. Fixed size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest protocol version that the sender speaks.
    pub version_min: u16,
    /// The highest.
    pub version_max: u16,
    /// SHA-256 of the cluster id.
    pub cluster: [u8; 32],
    /// The sender's current origin: node id, incarnation, nonce of the incarnation.
    pub origin: Origin,
    /// Drawn for this connection.
    pub challenge: [u8; 32],
    /// The longest frame that the sender accepts after the handshake, in bytes.
    pub max_frame: u32,
    /// Whether the sender has a cluster secret: only for a clear error, the MAC decides.
    pub secured: bool,
}

/// The first message after authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The node's name.
    pub name: String,
    /// Where the node listens, "host:port"; may be empty.
    pub address: String,
    /// The sealed vector at the time of sending.
    pub vector: VersionVector,
    /// Un-acked stream bytes that the sender of this message accepts.
    pub window: u64,
    /// Whether the other end shall send everything eagerly until it has reached its log's end.
    pub catch_up: bool,
}

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// See [`Hello`].
    Hello(Hello),
    /// The MAC over both greetings.
    Auth([u8; 32]),
    /// See [`Welcome`].
    Welcome(Welcome),
    /// Items of the sender's log, in its order (version 1).
    Stream(Vec<Item>),
    /// Positions of the sender's log, in its order.
    Order(Vec<Position>),
    /// Commits, in no order but that of each origin.
    Payload(Vec<EncodedCommit>),
    /// What was consumed since the last ack, and what the sender's sealed vector gained.
    Ack {
        /// Bytes of the window that are given back.
        consumed: u64,
        /// Positions that are given back; always 0 in version 1, where they take of the window.
        positions: u64,
        /// Entries of the sealed vector that the other end was not told yet.
        vector: VersionVector,
    },
    /// Send markers instead of commits of this origin.
    Prune(Origin),
    /// Send these commits, and commits of this origin from now on.
    Graft {
        /// Whose commits.
        origin: Origin,
        /// The first seq wanted.
        from: u64,
        /// The last seq wanted.
        to: u64,
        /// Only these: the origin's commits come by another link (from version 2 on).
        once: bool,
    },
    /// Answer to a graft: commits from the seq asked for, without a gap; perhaps not all.
    Grafted {
        /// The commits.
        commits: Vec<EncodedCommit>,
        /// Whether some were trimmed from the log: only a state transfer can help.
        truncated: bool,
    },
    /// Send your state.
    StateRequest {
        /// A snapshot that was being sent, and how many of its parts have been staged: go on there. From
        /// version 2 on.
        resume: Option<(u64, u64)>,
    },
    /// A part of a snapshot.
    State {
        /// Which snapshot, and which part of it; (0, 0) in version 1.
        number: (u64, u64),
        /// Opaque to replication.
        part: Bytes,
        /// Whether it is the last.
        last: bool,
    },
    /// One part was staged: send one more.
    StateNext,
    /// Heartbeat.
    Ping {
        /// The sender's own time in ms, for the answer.
        sent: u64,
        /// The sender's wall clock in ms; 0 in version 1, which does not tell it.
        wall: u64,
    },
    /// Answer to a heartbeat, with its time.
    Pong {
        /// As received.
        sent: u64,
    },
    /// The sender is about to close: a code of `CloseReason`.
    Bye(u8),
}

#[derive(Clone, Debug)]
struct Named {
    origin: Origin,
    last: u64,
}

/// Origins that one connection named in one direction, and the last seq streamed of each.
#[derive(Clone, Debug, Default)]
pub struct Table {
    named: Vec<Named>,
    index: BTreeMap<Origin, usize>,
}

impl Table {
    fn write(&mut self, origin: &Origin, low: u64, bits: u32, out: &mut Writer) -> usize {
        let known = self.index.get(origin).copied();
        let index = known.unwrap_or(self.named.len());
        out.varint((index as u64) << bits | low);
        if known.is_none() {
            out.origin(origin);
            self.add(*origin);
        }
        index
    }

    fn read(&mut self, index: u64, input: &mut Reader<'_>) -> Result<usize, CodecError> {
        let index = usize::try_from(index).map_err(|_| CodecError::Invalid("origin"))?;
        if index == self.named.len() && index < MAX_ORIGINS {
            let origin = input.origin()?;
            if self.index.contains_key(&origin) {
                return Err(CodecError::Invalid("origin"));
            }
            self.add(origin);
        }
        if index < self.named.len() { Ok(index) } else { Err(CodecError::Invalid("origin")) }
    }

    fn add(&mut self, origin: Origin) {
        self.index.insert(origin, self.named.len());
        self.named.push(Named { origin, last: 0 });
    }

    /// Origin, first and last seq behind the head of a position.
    fn read_run(
        &mut self,
        head: u64,
        input: &mut Reader<'_>,
    ) -> Result<(Origin, u64, u64), CodecError> {
        let index = self.read(head >> 3, input)?;
        let named = self.named.get_mut(index).ok_or(CodecError::Invalid("origin"))?;
        let first = if head & 2 != 0 { input.varint()? } else { named.last + 1 };
        named.last = read_run(first, input.varint()?)?;
        Ok((named.origin, first, named.last))
    }

    fn write_run(
        &mut self,
        commit: bool,
        origin: &Origin,
        first: u64,
        last: u64,
        out: &mut Writer,
    ) {
        let known = self.index.get(origin).and_then(|i| self.named.get(*i)).map_or(0, |n| n.last);
        let explicit = known.checked_add(1) != Some(first);
        let index = self.write(origin, u64::from(!commit) | u64::from(explicit) << 1, 3, out);
        if explicit {
            out.varint(first);
        }
        out.varint(last - first);
        if let Some(named) = self.named.get_mut(index) {
            named.last = last;
        }
    }
}

const BARRIER: u64 = 4;

fn read_run(first: u64, more: u64) -> Result<u64, CodecError> {
    let last = first.checked_add(more).ok_or(CodecError::Invalid("run of seqs"))?;
    if first == 0 || last == u64::MAX {
        return Err(CodecError::Invalid("run of seqs"));
    }
    Ok(last)
}

fn read_item(frame: &Bytes, input: &mut Reader<'_>, table: &mut Table) -> Result<Item, CodecError> {
    let head = input.varint()?;
    if head & 7 == BARRIER {
        return Ok(Item::Barrier(VersionVector::decode(input)?));
    }
    if head & 7 > 3 {
        return Err(CodecError::Invalid("item"));
    }
    let (origin, first, last) = table.read_run(head, input)?;
    if head & 1 != 0 {
        return Ok(Item::Marker { origin, first, last });
    }
    if last - first >= MAX_EFFECTS as u64 {
        return Err(CodecError::Invalid("run of seqs"));
    }
    Ok(Item::Commit(EncodedCommit { origin, first, last, body: frame.slice_ref(input.bytes()?) }))
}

fn read_position(input: &mut Reader<'_>, table: &mut Table) -> Result<Position, CodecError> {
    let head = input.varint()?;
    if head & 7 == BARRIER {
        return Ok(Position::Barrier(VersionVector::decode(input)?));
    }
    if head & 7 > 3 {
        return Err(CodecError::Invalid("position"));
    }
    let (origin, first, last) = table.read_run(head, input)?;
    Ok(Position::Commits { origin, first, last, eager: head & 1 == 0 })
}

fn text(input: &mut Reader<'_>, limit: usize) -> Result<String, CodecError> {
    let bytes = input.bytes()?;
    if bytes.len() > limit {
        return Err(CodecError::Invalid("text"));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| CodecError::Invalid("text"))
}

fn array<const N: usize>(input: &mut Reader<'_>) -> Result<[u8; N], CodecError> {
    input.raw(N)?.try_into().map_err(|_| CodecError::Truncated)
}

fn flag(input: &mut Reader<'_>) -> Result<bool, CodecError> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CodecError::Invalid("flag")),
    }
}

const MAGIC: &[u8; 4] = b"LTTS";

/// Longest name and address, in bytes.
pub(crate) const TEXT_MAX: usize = 255;

impl Hello {
    fn encode(&self, out: &mut Writer) {
        out.raw(MAGIC);
        out.u16(self.version_min);
        out.u16(self.version_max);
        out.raw(&self.cluster);
        out.origin(&self.origin);
        out.raw(&self.challenge);
        out.u32(self.max_frame);
        out.u8(u8::from(self.secured));
    }

    fn decode(input: &mut Reader<'_>) -> Result<Hello, CodecError> {
        if input.raw(MAGIC.len())? != MAGIC {
            return Err(CodecError::Invalid("magic"));
        }
        Ok(Hello {
            version_min: input.u16()?,
            version_max: input.u16()?,
            cluster: array(input)?,
            origin: input.origin()?,
            challenge: array(input)?,
            max_frame: input.u32()?,
            secured: flag(input)?,
        })
    }
}

impl Message {
    /// The lane that the message takes from version 2 on.
    pub fn lane(&self) -> Lane {
        match self {
            Message::Payload(_) | Message::Grafted { .. } | Message::State { .. } => Lane::Payload,
            _ => Lane::Order,
        }
    }

    /// The commit that the message begins with.
    fn first_commit(&self) -> Option<&EncodedCommit> {
        match self {
            Message::Payload(commits) | Message::Grafted { commits, .. } => commits.first(),
            _ => None,
        }
    }

    /// Appends kind and payload.
    fn encode(&self, version: u16, table: &mut Table, to: &mut Segments) {
        let out = &mut to.open;
        match self {
            Message::Hello(hello) => {
                out.u8(kind::HELLO);
                hello.encode(out);
            }
            Message::Auth(mac) => {
                out.u8(kind::AUTH);
                out.raw(mac);
            }
            Message::Welcome(welcome) => {
                out.u8(kind::WELCOME);
                out.bytes(welcome.name.as_bytes());
                out.bytes(welcome.address.as_bytes());
                welcome.vector.encode(out);
                out.varint(welcome.window);
                out.u8(u8::from(welcome.catch_up));
            }
            Message::Stream(items) => {
                out.u8(kind::STREAM);
                for item in items {
                    match item {
                        Item::Commit(commit) => {
                            let (first, last) = (commit.first, commit.last);
                            table.write_run(true, &commit.origin, first, last, &mut to.open);
                            to.bytes(&commit.body);
                        }
                        Item::Marker { origin, first, last } => {
                            table.write_run(false, origin, *first, *last, &mut to.open);
                        }
                        Item::Barrier(vector) => {
                            to.open.varint(BARRIER);
                            vector.encode(&mut to.open);
                        }
                    }
                }
            }
            Message::Order(positions) => {
                out.u8(kind::ORDER);
                for position in positions {
                    match position {
                        Position::Commits { origin, first, last, eager } => {
                            table.write_run(*eager, origin, *first, *last, out);
                        }
                        Position::Barrier(vector) => {
                            out.varint(BARRIER);
                            vector.encode(out);
                        }
                    }
                }
            }
            Message::Payload(commits) => {
                out.u8(kind::PAYLOAD);
                for commit in commits {
                    let (first, last) = (commit.first, commit.last);
                    table.write_run(true, &commit.origin, first, last, &mut to.open);
                    to.bytes(&commit.body);
                }
            }
            Message::Ack { consumed, positions, vector } => {
                out.u8(if version > 1 { kind::ACKS } else { kind::ACK });
                out.varint(*consumed);
                if version > 1 {
                    out.varint(*positions);
                }
                for (origin, seq) in vector.iter() {
                    table.write(origin, 0, 0, out);
                    out.varint(seq);
                }
            }
            Message::Prune(origin) => {
                out.u8(kind::PRUNE);
                out.origin(origin);
            }
            Message::Graft { origin, from, to, once } => {
                out.u8(if *once && version > 1 { kind::FETCH } else { kind::GRAFT });
                out.origin(origin);
                out.varint(*from);
                out.varint(to - from);
            }
            Message::Grafted { commits, truncated } => {
                out.u8(kind::GRAFTED);
                out.u8(u8::from(*truncated));
                for commit in commits {
                    to.open.origin(&commit.origin);
                    to.open.varint(commit.first);
                    to.open.varint(commit.last - commit.first);
                    to.bytes(&commit.body);
                }
            }
            Message::StateRequest { resume } => match resume {
                Some((snapshot, parts)) if version > 1 => {
                    out.u8(kind::RESUME);
                    out.u64(*snapshot);
                    out.varint(*parts);
                }
                _ => out.u8(kind::STATE_REQUEST),
            },
            Message::State { number, part, last } => {
                if version > 1 {
                    out.u8(kind::PART);
                    out.u64(number.0);
                    out.varint(number.1);
                } else {
                    out.u8(kind::STATE);
                }
                out.u8(u8::from(*last));
                to.raw(part);
            }
            Message::StateNext => out.u8(kind::STATE_NEXT),
            Message::Ping { sent, wall } => {
                out.u8(if version > 1 { kind::BEAT } else { kind::PING });
                out.varint(*sent);
                out.varint(if version > 1 { *wall } else { 0 });
            }
            Message::Pong { sent } => {
                out.u8(kind::PONG);
                out.varint(*sent);
            }
            Message::Bye(code) => {
                out.u8(kind::BYE);
                out.u8(*code);
            }
        }
    }

    /// Reads kind and payload, which lie at the end of `frame`.
    fn decode(frame: &Bytes, body: &[u8], table: &mut Table) -> Result<Message, CodecError> {
        let input = &mut Reader::new(body);
        let message = match input.u8()? {
            kind::HELLO => Message::Hello(Hello::decode(input)?),
            kind::AUTH => Message::Auth(array(input)?),
            kind::WELCOME => Message::Welcome(Welcome {
                name: text(input, TEXT_MAX)?,
                address: text(input, TEXT_MAX)?,
                vector: VersionVector::decode(input)?,
                window: input.varint()?,
                catch_up: flag(input)?,
            }),
            kind::STREAM => {
                let mut items = Vec::new();
                while !input.is_empty() {
                    items.push(read_item(frame, input, table)?);
                }
                Message::Stream(items)
            }
            kind::ORDER => {
                let mut positions = Vec::new();
                while !input.is_empty() {
                    positions.push(read_position(input, table)?);
                }
                Message::Order(positions)
            }
            kind::PAYLOAD => {
                let mut commits = Vec::new();
                while !input.is_empty() {
                    match read_item(frame, input, table)? {
                        Item::Commit(commit) => commits.push(commit),
                        _ => return Err(CodecError::Invalid("payload")),
                    }
                }
                Message::Payload(commits)
            }
            kind @ (kind::ACK | kind::ACKS) => {
                let consumed = input.varint()?;
                let positions = if kind == kind::ACKS { input.varint()? } else { 0 };
                let mut vector = VersionVector::new();
                while !input.is_empty() {
                    let index = input.varint()?;
                    let index = table.read(index, input)?;
                    let named = table.named.get(index).ok_or(CodecError::Invalid("origin"))?;
                    vector.advance(named.origin, input.varint()?);
                }
                Message::Ack { consumed, positions, vector }
            }
            kind::PRUNE => Message::Prune(input.origin()?),
            kind @ (kind::GRAFT | kind::FETCH) => {
                let origin = input.origin()?;
                let from = input.varint()?;
                let to = read_run(from, input.varint()?)?;
                Message::Graft { origin, from, to, once: kind == kind::FETCH }
            }
            kind::GRAFTED => {
                let truncated = flag(input)?;
                let mut commits = Vec::new();
                while !input.is_empty() {
                    let origin = input.origin()?;
                    let first = input.varint()?;
                    let last = read_run(first, input.varint()?)?;
                    if last - first >= MAX_EFFECTS as u64 {
                        return Err(CodecError::Invalid("run of seqs"));
                    }
                    let body = frame.slice_ref(input.bytes()?);
                    commits.push(EncodedCommit { origin, first, last, body });
                }
                Message::Grafted { commits, truncated }
            }
            kind::STATE_REQUEST => Message::StateRequest { resume: None },
            kind::RESUME => Message::StateRequest { resume: Some((input.u64()?, input.varint()?)) },
            kind @ (kind::STATE | kind::PART) => {
                let number = match kind {
                    kind::PART => (input.u64()?, input.varint()?),
                    _ => (0, 0),
                };
                let last = flag(input)?;
                let part = frame.slice_ref(input.raw(input.rest().len())?);
                Message::State { number, part, last }
            }
            kind::STATE_NEXT => Message::StateNext,
            kind::PING => {
                let sent = input.varint()?;
                input.varint()?;
                Message::Ping { sent, wall: 0 }
            }
            kind::BEAT => Message::Ping { sent: input.varint()?, wall: input.varint()? },
            kind::PONG => Message::Pong { sent: input.varint()? },
            kind::BYE => Message::Bye(input.u8()?),
            _ => return Err(CodecError::Invalid("kind of frame")),
        };
        input.end()?;
        Ok(message)
    }
}

/// A message in the making: what is small is copied together, what is big is shared.
#[derive(Default)]
struct Segments {
    done: VecDeque<Bytes>,
    open: Writer,
}

impl Segments {
    fn raw(&mut self, bytes: &Bytes) {
        if bytes.len() <= SHARED {
            return self.open.raw(bytes);
        }
        self.done.push_back(std::mem::take(&mut self.open).finish());
        self.done.push_back(bytes.clone());
    }

    fn bytes(&mut self, bytes: &Bytes) {
        self.open.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    fn finish(mut self, commit: Option<(Origin, u64)>) -> Pieces {
        self.done.push_back(self.open.finish());
        let left = self.done.iter().map(Bytes::len).sum();
        Pieces { parts: self.done, left, begun: false, commit }
    }
}

/// A message on its way out, piece by piece. It shares the bytes of what is big in it.
#[derive(Debug)]
pub struct Pieces {
    parts: VecDeque<Bytes>,
    left: usize,
    begun: bool,
    /// The commit that it begins with.
    commit: Option<(Origin, u64)>,
}

impl Pieces {
    fn take(&mut self, mut length: usize, out: &mut Writer) {
        self.left -= length;
        while length > 0
            && let Some(part) = self.parts.front_mut()
        {
            let piece = part.split_to(length.min(part.len()));
            length -= piece.len();
            out.raw(&piece);
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
    }
}

/// A buffer with room for the checksum, and the format number.
fn begin(capacity: usize) -> Writer {
    let mut bytes = Vec::with_capacity(capacity + HEAD);
    bytes.extend_from_slice(&[0, 0, 0, 0, FORMAT]);
    Writer::over(bytes)
}

/// Puts the checksum in its place.
fn seal(frame: Writer) -> Bytes {
    let mut bytes = frame.into_vec();
    if let Some((sum, rest)) = bytes.split_first_chunk_mut::<4>() {
        *sum = crc32c::crc32c(rest).to_be_bytes();
    }
    Bytes::from(bytes)
}

/// Whether the frame is of a kind that may be read before authentication.
pub(crate) fn before_auth(frame: &[u8]) -> bool {
    matches!(frame.get(HEAD - 1), Some(&kind::HELLO | &kind::AUTH))
}

/// The lane of a frame from version 2 on.
pub(crate) fn lane_of(frame: &[u8]) -> Lane {
    match frame.get(HEAD - 1) {
        Some(&kind::PAYLOAD | &kind::PIECE | &kind::GRAFTED | &kind::PART) => Lane::Payload,
        _ => Lane::Order,
    }
}

/// The sending end of a connection: messages to frames.
#[derive(Debug)]
pub struct FrameWriter {
    version: u16,
    order: Table,
    payload: Table,
    max_frame: usize,
}

impl FrameWriter {
    /// An end that writes no frame longer than `max_frame` bytes (at least [`HELLO_MAX`]).
    pub fn new(max_frame: usize) -> FrameWriter {
        FrameWriter {
            version: 1,
            order: Table::default(),
            payload: Table::default(),
            max_frame: max_frame.clamp(HELLO_MAX, FRAME_LIMIT),
        }
    }

    /// Takes what the handshake has agreed on: version, and the longest frame.
    pub fn agree(&mut self, version: u16, max_frame: usize) {
        self.version = version;
        let most = if version > 1 { PIECE } else { FRAME_LIMIT };
        self.max_frame = max_frame.clamp(HELLO_MAX, most);
    }

    /// The version that is spoken; 1 before the handshake.
    pub fn version(&self) -> u16 {
        self.version
    }

    fn encode(&mut self, message: &Message) -> Pieces {
        let mut segments = Segments::default();
        let table = match message.lane() {
            Lane::Payload if self.version > 1 => &mut self.payload,
            _ => &mut self.order,
        };
        message.encode(self.version, table, &mut segments);
        let commit = message.first_commit().map(|commit| (commit.origin, commit.first));
        segments.finish(commit)
    }

    /// The frames of one message of the order lane (in version 1 of any message), without length prefixes,
    /// to be sent in this order at once.
    pub fn write(&mut self, message: &Message) -> Vec<Bytes> {
        let mut pieces = self.encode(message);
        let mut frames = Vec::new();
        let whole = pieces.left + HEAD <= self.max_frame;
        while pieces.left > 0 {
            let length =
                if whole { pieces.left } else { pieces.left.min(self.max_frame - HEAD - 1) };
            let mut frame = begin(length + 1);
            if !whole {
                frame.u8(kind::FRAGMENT);
                frame.u8(u8::from(pieces.left == length));
            }
            pieces.take(length, &mut frame);
            frames.push(seal(frame));
        }
        frames
    }

    /// Begins a message of the payload lane. Nothing else may be begun on that lane before its last piece is
    /// cut.
    pub fn begin(&mut self, message: &Message) -> Pieces {
        self.encode(message)
    }

    /// Cuts the next frame of the payload lane; `None` when the message is through.
    pub fn cut(&self, pieces: &mut Pieces) -> Option<Bytes> {
        if pieces.left == 0 {
            return None;
        }
        let mut frame = begin(pieces.left.min(self.max_frame));
        let begins = !std::mem::replace(&mut pieces.begun, true);
        let room = self.max_frame - HEAD;
        if begins && pieces.left <= room {
            pieces.take(pieces.left, &mut frame);
            return Some(seal(frame));
        }
        let length = pieces.left.min(room - PIECE_HEAD);
        frame.u8(kind::PIECE);
        let commit = pieces.commit.filter(|_| begins);
        frame.u8(u8::from(begins)
            | u8::from(pieces.left == length) << 1
            | u8::from(commit.is_some()) << 2);
        if begins {
            frame.varint(pieces.left as u64);
        }
        if let Some((origin, first)) = commit {
            frame.origin(&origin);
            frame.varint(first);
        }
        pieces.take(length, &mut frame);
        Some(seal(frame))
    }
}

/// A message of several frames, as far as it has come.
#[derive(Debug, Default)]
struct Parts {
    bytes: Vec<u8>,
    /// How long it will be, if that was told.
    total: usize,
    commit: Option<(Origin, u64)>,
}

impl Parts {
    fn add(&mut self, bytes: &[u8], max_message: usize) -> Result<(), WireError> {
        let length = self.bytes.len() + bytes.len();
        if length > max_message || (self.total > 0 && length > self.total) {
            return Err(WireError::TooLong(length));
        }
        if length > self.bytes.capacity() && self.total > 0 {
            // Grows by what has come, never beyond what was told: the buffer is never twice the message.
            let more = self.bytes.len().max(bytes.len()).min(self.total - self.bytes.len());
            self.bytes.reserve_exact(more);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// The receiving end of a connection: frames to messages.
#[derive(Debug)]
pub struct FrameReader {
    order: Table,
    payload: Table,
    fragments: Parts,
    pieces: Option<Parts>,
    max_message: usize,
}

impl FrameReader {
    /// An end that puts pieces together up to `max_message` bytes.
    pub fn new(max_message: usize) -> FrameReader {
        FrameReader {
            order: Table::default(),
            payload: Table::default(),
            fragments: Parts::default(),
            pieces: None,
            max_message,
        }
    }

    /// The commit of which pieces have come, and not yet the last.
    pub fn arriving(&self) -> Option<(Origin, u64)> {
        self.pieces.as_ref()?.commit
    }

    /// Reads one frame: `None` when it is a part of a message that is not complete yet.
    /// After an error the connection is of no use.
    pub fn read(&mut self, frame: &Bytes) -> Result<Option<Message>, WireError> {
        let (sum, rest) = frame.split_first_chunk::<4>().ok_or(CodecError::Truncated)?;
        if crc32c::crc32c(rest) != u32::from_be_bytes(*sum) {
            return Err(WireError::Checksum);
        }
        let body = Reader::with_format(rest, FORMAT)?.rest();
        let (kind, rest) = body.split_first().ok_or(CodecError::Truncated)?;
        match *kind {
            kind::FRAGMENT => self.fragment(rest),
            kind::PIECE => self.piece(rest),
            kind::PAYLOAD | kind::GRAFTED | kind::PART if self.pieces.is_some() => {
                Err(CodecError::Invalid("piece").into())
            }
            kind::PAYLOAD => Ok(Some(Message::decode(frame, body, &mut self.payload)?)),
            _ if !self.fragments.bytes.is_empty() && lane_of(frame) == Lane::Order => {
                Err(CodecError::Invalid("fragment").into())
            }
            _ => Ok(Some(Message::decode(frame, body, &mut self.order)?)),
        }
    }

    fn fragment(&mut self, rest: &[u8]) -> Result<Option<Message>, WireError> {
        let mut input = Reader::new(rest);
        let last = flag(&mut input)?;
        self.fragments.add(input.rest(), self.max_message)?;
        if !last {
            return Ok(None);
        }
        let whole = Bytes::from(std::mem::take(&mut self.fragments).bytes);
        Ok(Some(Message::decode(&whole, &whole, &mut self.order)?))
    }

    fn piece(&mut self, rest: &[u8]) -> Result<Option<Message>, WireError> {
        let mut input = Reader::new(rest);
        let flags = input.u8()?;
        if flags > 7 || (flags & 1 != 0) != self.pieces.is_none() {
            return Err(CodecError::Invalid("piece").into());
        }
        let mut parts = self.pieces.take().unwrap_or_default();
        if flags & 1 != 0 {
            parts.total = usize::try_from(input.varint()?).map_err(|_| CodecError::Truncated)?;
        }
        if flags & 4 != 0 {
            parts.commit = Some((input.origin()?, input.varint()?));
        }
        parts.add(input.rest(), self.max_message)?;
        if flags & 2 == 0 {
            self.pieces = Some(parts);
            return Ok(None);
        }
        if parts.bytes.len() != parts.total {
            return Err(CodecError::Invalid("piece").into());
        }
        let whole = Bytes::from(parts.bytes);
        let table = match whole.first() {
            Some(&kind::PAYLOAD) => &mut self.payload,
            Some(&kind::GRAFTED | &kind::PART) => &mut self.order,
            _ => return Err(CodecError::Invalid("piece").into()),
        };
        Ok(Some(Message::decode(&whole, &whole, table)?))
    }
}

/// Cuts a byte stream into frames by their length prefix. Pure; one for each connection.
///
/// The first two frames of a connection (hello, MAC) are limited to [`HELLO_MAX`] bytes, so that who
/// has not been let in cannot make a node hold more. Buffered are at most one frame and what was pushed.
#[derive(Debug)]
pub struct Framer {
    chunks: VecDeque<Bytes>,
    buffered: usize,
    max_frame: usize,
    small: u8,
}

impl Framer {
    /// A framer for a new connection that accepts frames of up to `max_frame` bytes.
    pub fn new(max_frame: usize) -> Framer {
        Framer {
            chunks: VecDeque::new(),
            buffered: 0,
            max_frame: max_frame.clamp(HELLO_MAX, FRAME_LIMIT),
            small: 2,
        }
    }

    /// Takes bytes from the socket. Call [`next_frame`](Framer::next_frame) until it gives `None` before
    /// pushing more.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.buffered += bytes.len();
            self.chunks.push_back(bytes);
        }
    }

    /// The next whole frame, without its length. Errors: the peer announces a frame that is too long;
    /// the connection is to be closed.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, WireError> {
        if self.buffered < 4 {
            return Ok(None);
        }
        let mut prefix = [0u8; 4];
        let bytes = self.chunks.iter().flat_map(|chunk| chunk.iter());
        for (to, from) in prefix.iter_mut().zip(bytes) {
            *to = *from;
        }
        let length = u32::from_be_bytes(prefix) as usize;
        let limit = if self.small > 0 { HELLO_MAX } else { self.max_frame };
        if length > limit {
            return Err(WireError::TooLong(length));
        }
        if self.buffered < 4 + length {
            return Ok(None);
        }
        self.take(4);
        self.small = self.small.saturating_sub(1);
        Ok(Some(self.take(length)))
    }

    /// A frame with its length before it, as it goes to the socket.
    pub fn prefix(frame: &Bytes) -> [u8; 4] {
        u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes()
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.buffered -= length;
        match self.chunks.front_mut() {
            Some(front) if front.len() > length => return front.split_to(length),
            _ => {}
        }
        let mut whole = Vec::with_capacity(length);
        while let Some(mut front) = self.chunks.pop_front() {
            let missing = length - whole.len();
            if front.len() > missing {
                whole.extend_from_slice(&front.split_to(missing));
                self.chunks.push_front(front);
                break;
            }
            if whole.is_empty() && front.len() == length {
                return front;
            }
            whole.extend_from_slice(&front);
            if whole.len() == length {
                break;
            }
        }
        Bytes::from(whole)
    }
}
