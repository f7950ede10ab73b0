//! One node: joins membership, handshakes, the lanes of all links, transfers and clocks.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lattis_engine::causal::{Hlc, LogPosition, Millis, NodeId, Origin, VersionVector};
use lattis_engine::commit::{EncodedCommit, LogEntry};
use lattis_engine::transfer::state_clock;
use rand_core::RngCore;

use crate::clocks::Clocks;
use crate::handshake::{self, Phase};
use crate::link::Link;
use crate::membership::Membership;
use crate::parking::{InFlight, Parked, Parking};
use crate::peers::{Record, Seals};
use crate::receiver::{Graft, Head, Receiver, Work};
use crate::sender::{Limits, Sender};
use crate::transfer::{Incoming, Outgoing};
use crate::wire::{
    FRAME_LIMIT, FrameReader, FrameWriter, HELLO_MAX, Item, Lane, Message, Position, TEXT_MAX,
    before_auth, lane_of, payload_cost,
};
use crate::{Broadcast, CloseReason, Config, Input, LinkId, Output, PeerEvent, Ticket, Timer};

/// Accepted connections that may be in their handshake at once.
const MAX_STRANGERS: usize = 64;
/// Refusals of one peer's commits in [`REFUSALS_WITHIN`] after which it is paused.
const REFUSALS: usize = 3;
const REFUSALS_WITHIN: u64 = 60_000;
/// Fetches in a row after which the link they went to becomes an origin's way.
const FETCHES: u32 = 4;
/// A copy that comes that much later than the first one came by a worse way.
const LATE: u64 = 50;

/// Which rules are broken on purpose: none, but for tests with the feature `planted`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub from_now: bool,
    pub drop_from_queue: bool,
    pub applied_on_arrival: bool,
    pub no_barrier: bool,
    pub stale_knowledge: bool,
    pub order_ignored: bool,
    pub refusal_restores_nothing: bool,
    pub dead_by_heartbeat: bool,
    pub transfer_forgotten: bool,
    pub log_not_held: bool,
    pub one_lane: bool,
    pub clock_not_held: bool,
    pub timers_by_wall_clock: bool,
}

impl Faults {
    #[cfg(not(feature = "planted"))]
    fn of(_: &Config) -> Faults {
        Faults::default()
    }

    #[cfg(feature = "planted")]
    fn of(config: &Config) -> Faults {
        use crate::Planted;
        let is = |fault| config.planted == Some(fault);
        Faults {
            from_now: is(Planted::ActivateFromNow),
            drop_from_queue: is(Planted::DropFromQueue),
            applied_on_arrival: is(Planted::AppliedOnArrival),
            no_barrier: is(Planted::NoBarrier),
            stale_knowledge: is(Planted::StaleKnowledge),
            order_ignored: is(Planted::OrderIgnored),
            refusal_restores_nothing: is(Planted::RefusalRestoresNothing),
            dead_by_heartbeat: is(Planted::DeadByHeartbeat),
            transfer_forgotten: is(Planted::TransferForgotten),
            log_not_held: is(Planted::LogNotHeld),
            one_lane: is(Planted::OneLane),
            clock_not_held: is(Planted::ClockNotHeld),
            timers_by_wall_clock: is(Planted::TimersByWallClock),
        }
    }
}

/// The way of an origin's commits: one link is enough, and it stays as long as it is no worse than others
/// (Leitao, Pereira, Rodrigues: "Epidemic Broadcast Trees", 2007).
#[derive(Clone, Copy, Debug)]
struct Parent {
    link: LinkId,
    /// When a commit came by it first.
    came: Millis,
    /// Another link that was before it the last time.
    rival: Option<LinkId>,
}

/// The replication of one node: give it inputs, do its outputs.
///
/// Every position that an answer (`LogChunk`, `Grafted`, `StateChunk`) contains must have been reported
/// by [`Input::Sealed`] before; entries may be left out there, the position and vector may not.
/// Work per input: proportional to the input and to the number of links.
pub struct Node {
    pub(crate) config: Config,
    pub(crate) faults: Faults,
    pub(crate) origin: Origin,
    pub(crate) sealed: VersionVector,
    submitted: VersionVector,
    pub(crate) position: LogPosition,
    parking: Parking,
    in_flight: InFlight,
    pub(crate) epoch: u64,
    pub(crate) tickets: u64,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) records: BTreeMap<NodeId, Record>,
    pub(crate) membership: Membership,
    pub(crate) clocks: Clocks,
    /// By which way the commits of an origin come.
    parents: BTreeMap<Origin, Parent>,
    pub(crate) incoming: Option<Incoming>,
    pub(crate) outgoing: BTreeMap<u64, Outgoing>,
    /// From where the driver was told to keep the log.
    pub(crate) held: Option<LogPosition>,
    pub(crate) seals: Seals,
    pub(crate) stale: BTreeMap<NodeId, VersionVector>,
    /// Peers that know more of this node's origin than the node itself.
    pub(crate) claims: BTreeSet<NodeId>,
    pub(crate) started: bool,
    pub(crate) fenced: bool,
    pub(crate) redial: bool,
    /// After a refusal that is nobody's fault: nothing is handed to the engine for a while.
    stalled: bool,
    /// The wall clock at the last input.
    pub(crate) wall: Millis,
    /// What waiting is measured by: the wall clock's steps forward, added up. A clock that is set back
    /// would otherwise stop every timer until it has caught up with itself.
    pub(crate) now: Millis,
}

impl Node {
    /// A node whose engine writes as `origin`, and whose log ends at `position` with `vector`.
    pub fn new(
        mut config: Config,
        origin: Origin,
        vector: VersionVector,
        position: LogPosition,
    ) -> Node {
        config.window_bytes = config.window_bytes.max(2);
        config.window_positions = config.window_positions.max(1);
        config.heartbeat.0 = config.heartbeat.0.max(1);
        config.max_frame = config.max_frame.clamp(HELLO_MAX, FRAME_LIMIT);
        let mut membership = Membership::new(config.redial.0, config.redial.1);
        for address in &config.peers {
            membership.add(address);
        }
        Node {
            faults: Faults::of(&config),
            config,
            origin,
            submitted: vector.clone(),
            sealed: vector,
            position,
            parking: Parking::default(),
            in_flight: InFlight::default(),
            epoch: 0,
            tickets: 0,
            links: BTreeMap::new(),
            records: BTreeMap::new(),
            membership,
            clocks: Clocks::default(),
            parents: BTreeMap::new(),
            incoming: None,
            outgoing: BTreeMap::new(),
            held: None,
            seals: Seals::default(),
            stale: BTreeMap::new(),
            claims: BTreeSet::new(),
            started: false,
            fenced: false,
            redial: false,
            stalled: false,
            wall: Millis(0),
            now: Millis(0),
        }
    }

    /// Whether peers knew more of this node's origin than the node itself (see [`PeerEvent::Fenced`]).
    pub fn fenced(&self) -> bool {
        self.fenced
    }

    /// Takes one input at wall time `now` and appends what is to be done. Randomness serves challenges
    /// (it must be a cryptographic source outside tests) and jitter.
    pub fn handle(
        &mut self,
        now: Millis,
        input: Input,
        rng: &mut dyn RngCore,
        out: &mut Vec<Output>,
    ) {
        let step = now.0.saturating_sub(self.wall.0);
        self.now.0 = self.now.0.saturating_add(step);
        if self.faults.timers_by_wall_clock {
            self.now = now;
        }
        self.wall = now;
        let mut tell = false;
        match input {
            Input::Start => {
                if !self.started {
                    self.started = true;
                    self.redial = true;
                    out.push(Output::Arm { after: self.config.heartbeat, timer: Timer::Tick });
                }
            }
            Input::LinkUp { link, dialled, from } => self.link_up(link, dialled, from, rng, out),
            Input::LinkDown { link, why } => {
                self.drop_link(link, CloseReason::Lost(why), false, out)
            }
            Input::DialFailed { address, why } => self.dial_failed(address, why, out),
            Input::Received { link } => {
                let now = self.now;
                if let Some(link) = self.links.get_mut(&link) {
                    (link.heard, link.moved) = (now, now);
                }
            }
            Input::Frame { link, bytes } => {
                if let Err(why) = self.frame(link, bytes, out) {
                    self.drop_link(link, why, true, out);
                }
            }
            Input::Written { link, bytes } => {
                if let Some(link) = self.links.get_mut(&link) {
                    link.written(bytes);
                }
            }
            Input::Timer(timer) => {
                tell = timer == Timer::Tick;
                self.timer(timer, out);
            }
            Input::Command(command) => self.command(command, out),
            Input::Sealed { position, vector, entries } => {
                self.sealed(position, &vector, &entries);
                tell = true;
            }
            Input::Refused { ticket, culprit, why } => self.refused(ticket, culprit, &why, out),
            Input::Staged { ticket } => self.staged(ticket, out),
            Input::LogChunk { link, upto, entries } => {
                if let Some(link) = self.links.get_mut(&link)
                    && link.sender.reading
                {
                    link.sender.chunk(upto, entries, self.position);
                }
            }
            Input::Grafted { link: id, ticket, commits, truncated } => {
                if let Some(link) = self.links.get_mut(&id)
                    && link.sender.graft == Some(ticket)
                {
                    link.sender.graft = None;
                    link.send(id, Message::Grafted { commits, truncated }, out);
                }
            }
            Input::StateChunk { link, snapshot, part, bytes, last } => {
                self.state_chunk(link, snapshot, part, bytes, last, out);
            }
        }
        self.settle(tell, out);
        if self.redial {
            self.arm_dials(rng, out);
        }
    }

    // ---- links -------------------------------------------------------------------------------------

    fn link_up(
        &mut self,
        id: LinkId,
        dialled: Option<String>,
        from: String,
        rng: &mut dyn RngCore,
        out: &mut Vec<Output>,
    ) {
        if let Some(place) = dialled.as_ref().and_then(|a| self.membership.places.get_mut(a)) {
            place.busy = true;
        }
        let mut challenge = [0; 32];
        rng.fill_bytes(&mut challenge);
        let hello = handshake::hello(&self.config, self.origin, challenge);
        let ends = (FrameWriter::new(HELLO_MAX), FrameReader::new(self.config.max_message));
        let streams = (Sender::new(VersionVector::new(), self.limits()), Receiver::new(0));
        let accepted = dialled.is_none();
        let mut link = Link::new(dialled, from, hello.clone(), ends, streams, self.now);
        link.one_lane = self.faults.one_lane;
        let refused = if self.fenced {
            Some(CloseReason::Fenced)
        } else if self.membership.all_paused() {
            Some(CloseReason::Paused)
        } else {
            None
        };
        if let Some(why) = refused {
            self.links.insert(id, link);
            return self.drop_link(id, why, true, out);
        }
        if accepted {
            self.make_room(out);
        }
        if let Some(frame) = link.writer.write(&Message::Hello(hello)).pop() {
            link.hello_frame = frame.clone();
            link.bytes_out += frame.len() as u64 + 4;
            out.push(Output::Send { link: id, lane: Lane::Order, frame });
        }
        self.links.insert(id, link);
        let after = self.config.handshake_after;
        out.push(Output::Arm { after, timer: Timer::Handshake(id) });
    }

    /// Who has not proven himself gives way to who comes, the oldest first: an honest handshake takes a
    /// round trip, and who holds places for longer has something else in mind.
    fn make_room(&mut self, out: &mut Vec<Output>) {
        let strangers = self
            .links
            .iter()
            .filter(|(_, link)| link.dialled.is_none() && link.verified().is_none());
        let strangers: Vec<LinkId> = strangers.map(|(id, _)| *id).collect();
        if strangers.len() >= MAX_STRANGERS
            && let Some(oldest) = strangers.first()
        {
            self.drop_link(*oldest, CloseReason::Strangers, true, out);
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            buffer: self.config.buffer_bytes,
            positions: self.config.window_positions,
            eager_unheard: self.config.broadcast == Broadcast::Tree,
        }
    }

    /// Forgets a link. `close`: the driver does not know yet.
    pub(crate) fn drop_link(
        &mut self,
        id: LinkId,
        why: CloseReason,
        close: bool,
        out: &mut Vec<Output>,
    ) {
        let Some(mut link) = self.links.remove(&id) else { return };
        let node = link.verified().map(|origin| origin.node);
        if close {
            if node.is_some() {
                link.send(id, Message::Bye(why.code()), out);
            }
            out.push(Output::Close { link: id, why: why.clone() });
        }
        if let Some(record) = node.and_then(|node| self.records.get_mut(&node)) {
            record.known.clone_from(&link.sender.known);
            record.clock_held = None;
            record.bytes_in += link.bytes_in;
            record.bytes_out += link.bytes_out;
            record.last_error = Some(why.to_string());
        }
        let lasted = link
            .active_since
            .is_some_and(|since| self.now.0.saturating_sub(since.0) >= self.config.dead_after.0);
        if let Some(place) = link.dialled.as_ref().and_then(|a| self.membership.places.get_mut(a)) {
            place.busy = false;
            place.myself |= why == CloseReason::Myself;
            place.elsewhere = why == CloseReason::Duplicate;
            place.error = Some(why.to_string());
            let harmless = matches!(why, CloseReason::Duplicate | CloseReason::Paused);
            place.failures = if lasted || harmless { 0 } else { place.failures.saturating_add(1) };
        }
        self.parking.orphan(id);
        self.in_flight.orphan(id);
        self.parents.retain(|_, parent| parent.link != id);
        self.transfer_cut(id);
        if self.faults.stale_knowledge
            && let Some(node) = node
        {
            self.stale.insert(node, link.sender.known);
        }
        self.redial = true;
        let address = link.dialled.unwrap_or(link.from);
        out.push(Output::Report(PeerEvent::Down { link: id, node, address, why }));
    }

    pub(crate) fn drop_all(&mut self, why: &CloseReason, out: &mut Vec<Output>) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.drop_link(link, why.clone(), true, out);
        }
    }

    // ---- frames ------------------------------------------------------------------------------------

    fn frame(
        &mut self,
        id: LinkId,
        bytes: Bytes,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        link.heard = self.now;
        if lane_of(&bytes) == Lane::Payload {
            link.moved = self.now;
        }
        link.bytes_in += bytes.len() as u64 + 4;
        let unproven = matches!(link.phase, Phase::Hello | Phase::Auth);
        if unproven && (bytes.len() > HELLO_MAX || !before_auth(&bytes)) {
            return Err(CloseReason::Protocol("no message is taken before authentication"));
        }
        let Some(message) = link.reader.read(&bytes).map_err(CloseReason::Wire)? else {
            return Ok(());
        };
        match (link.phase, message) {
            (Phase::Hello, Message::Hello(hello)) => self.hello(id, hello, bytes, out),
            (Phase::Auth, Message::Auth(mac)) => self.auth(id, mac, out),
            (Phase::Welcome, Message::Welcome(welcome)) => self.welcome(id, welcome, out),
            (Phase::Welcome | Phase::Active, Message::Bye(code)) => Err(CloseReason::of(code)),
            (Phase::Active, message) => self.message(id, message, out),
            _ => Err(CloseReason::Protocol("message out of turn")),
        }
    }

    fn message(
        &mut self,
        id: LinkId,
        message: Message,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let me = self.origin;
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let Some(peer) = link.active() else { return Ok(()) };
        match message {
            Message::Stream(items) => self.stream(id, items, out),
            Message::Order(positions) => {
                if !link.has_lanes() {
                    return Err(CloseReason::Protocol("message of another version"));
                }
                for position in positions {
                    self.place(id, position, 1)?;
                }
                self.told_of_me(id, out)
            }
            Message::Payload(commits) => {
                for commit in commits {
                    self.arrived(id, commit, out)?;
                }
                Ok(())
            }
            Message::Ack { consumed, positions, vector } => {
                link.sender.known.join(&vector);
                if !link.sender.acked(consumed, positions) {
                    return Err(CloseReason::Protocol("more acked than sent"));
                }
                self.not_beyond(peer.node, vector.get(&me), out)
            }
            Message::Prune(origin) => {
                if self.sealed.get(&origin) == 0 && !self.parents.contains_key(&origin) {
                    return Err(CloseReason::Protocol("prune of an unknown origin"));
                }
                link.sender.set_mode(origin, false);
                Ok(())
            }
            Message::Graft { origin, from, to, once } => {
                if self.sealed.get(&origin) < to || link.sender.graft.is_some() {
                    return Err(CloseReason::Protocol("graft out of turn"));
                }
                if !once {
                    link.sender.set_mode(origin, true);
                }
                self.tickets += 1;
                link.sender.graft = Some(self.tickets);
                out.push(Output::ReadCommits {
                    link: id,
                    ticket: self.tickets,
                    origin,
                    from,
                    to,
                    limit_bytes: self.config.graft_bytes,
                });
                Ok(())
            }
            Message::Grafted { commits, truncated } => {
                if commits.is_empty() && !truncated {
                    return Err(CloseReason::Protocol("empty answer to a graft"));
                }
                link.receiver.grafted(&commits).map_err(CloseReason::Protocol)?;
                link.grafted = !truncated;
                let bytes = commits.iter().map(|commit| commit.body.len()).sum();
                self.parking.make_room(bytes, self.config.graft_bytes.saturating_mul(8));
                for commit in commits {
                    self.fetched(id, commit);
                }
                if truncated {
                    self.want_state(id, out);
                }
                Ok(())
            }
            Message::StateRequest { resume } => self.state_requested(id, peer.node, resume, out),
            Message::State { number, part, last } => self.state(id, number, part, last, out),
            Message::StateNext => {
                self.state_next(id, out);
                Ok(())
            }
            Message::Ping { sent, wall } => {
                if wall > 0 {
                    let ahead = i128::from(wall) - i128::from(self.wall.0);
                    let bound = |ahead: i128| ahead.clamp(i64::MIN.into(), i64::MAX.into());
                    link.clock = i64::try_from(bound(ahead)).ok();
                }
                link.send(id, Message::Pong { sent }, out);
                Ok(())
            }
            Message::Pong { sent } => {
                link.pinged = None;
                if let Some(record) = self.records.get_mut(&peer.node) {
                    record.rtt_ms = Some(self.now.0.saturating_sub(sent));
                }
                Ok(())
            }
            Message::Hello(_) | Message::Auth(_) | Message::Welcome(_) | Message::Bye(_) => {
                Err(CloseReason::Protocol("message out of turn"))
            }
        }
    }

    /// A stream of version 1: a position, and behind it the commit, under one window.
    fn stream(
        &mut self,
        id: LinkId,
        items: Vec<Item>,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        for item in items {
            let cost = item.cost();
            match item {
                Item::Commit(commit) => {
                    let EncodedCommit { origin, first, last, .. } = commit;
                    self.place(id, Position::Commits { origin, first, last, eager: true }, cost)?;
                    self.park(id, commit, 0, out);
                }
                Item::Marker { origin, first, last } => {
                    self.place(id, Position::Commits { origin, first, last, eager: false }, cost)?;
                }
                Item::Barrier(vector) => self.place(id, Position::Barrier(vector), cost)?,
            }
        }
        self.told_of_me(id, out)
    }

    /// A position of the peer's log: what stands there it has.
    fn place(&mut self, id: LinkId, position: Position, cost: u64) -> Result<(), CloseReason> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        match &position {
            Position::Commits { origin, last, .. } => link.sender.known.advance(*origin, *last),
            Position::Barrier(vector) => link.sender.known.join(vector),
        };
        match link.receiver.push(position, cost, self.now) {
            true => Ok(()),
            false => Err(CloseReason::Protocol("the window is overrun")),
        }
    }

    fn told_of_me(&mut self, id: LinkId, out: &mut Vec<Output>) -> Result<(), CloseReason> {
        let Some(link) = self.links.get(&id) else { return Ok(()) };
        let Some(peer) = link.active() else { return Ok(()) };
        let theirs = link.sender.known.get(&self.origin);
        self.not_beyond(peer.node, theirs, out)
    }

    // ---- payloads ----------------------------------------------------------------------------------

    /// A commit came by the payload lane of its link.
    fn arrived(
        &mut self,
        id: LinkId,
        commit: EncodedCommit,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let window = self.config.window_bytes;
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let cost = payload_cost(commit.body.len(), window);
        if link.receiver.payload_unacked > 0 && link.receiver.payload_unacked + cost > window {
            return Err(CloseReason::Protocol("the window is overrun"));
        }
        link.receiver.payload_unacked += cost;
        link.receiver.came(&commit.origin);
        if self.faults.applied_on_arrival && covers_next(&self.submitted, &commit) {
            self.submitted.advance(commit.origin, commit.last);
            let ticket = Ticket { epoch: self.epoch, number: 0 };
            out.push(Output::Apply { link: id, ticket, commits: vec![commit.clone()] });
        }
        self.park(id, commit, cost, out);
        Ok(())
    }

    /// Parks a commit that came by itself, and passes it on. A second copy says that a link is one too many.
    fn park(&mut self, id: LinkId, commit: EncodedCommit, cost: u64, out: &mut Vec<Output>) {
        let (origin, first, last) = (commit.origin, commit.first, commit.last);
        let copy = last <= self.submitted.get(&origin) || self.parking.has(origin, first);
        if copy {
            self.free(id, cost);
            return self.copied(id, origin, out);
        }
        let direct = self.is_direct(id, &origin);
        let new = Parent { link: id, came: self.now, rival: None };
        let parent = self.parents.entry(origin).or_insert(new);
        if parent.link == id {
            parent.came = self.now;
        } else if direct {
            // One hop and before all others: the copies that follow are refused.
            *parent = new;
        } else {
            parent.rival = Some(id);
        }
        self.pass_on(id, &commit);
        self.parking.put(Parked { commit, link: Some(id), cost });
    }

    /// Parks a commit that was fetched.
    fn fetched(&mut self, id: LinkId, commit: EncodedCommit) {
        let known = commit.last <= self.submitted.get(&commit.origin);
        if !known && !self.parking.has(commit.origin, commit.first) {
            self.pass_on(id, &commit);
            self.parking.put(Parked { commit, link: Some(id), cost: 0 });
        }
    }

    /// Gives the links that bring an origin to others a commit that has just arrived, applied or not: its
    /// way depends on no order. A commit that cannot be read, or from a clock far ahead, goes no further.
    fn pass_on(&mut self, from: LinkId, commit: &EncodedCommit) {
        let (wall, drift) = (self.wall, self.config.clock_max_drift);
        let bound = Hlc::end_of(Millis(wall.0.saturating_add(drift.0)));
        let me = self.origin.node;
        if let Some(link) = self.links.get_mut(&from) {
            link.sender.brought(commit.origin, commit.first);
        }
        let mut sound = None;
        for (id, link) in &mut self.links {
            if *id == from || !link.has_lanes() || link.active().is_none() {
                continue;
            }
            if !link.sender.takes(commit, me) {
                continue;
            }
            let sound = sound.get_or_insert_with(|| {
                commit.hlc().is_ok_and(|stamp| stamp <= bound) && (self.config.is_sound)(commit)
            });
            if *sound {
                link.sender.forward(commit);
            }
        }
    }

    /// Whether a link leads to the writer itself.
    fn is_direct(&self, id: LinkId, origin: &Origin) -> bool {
        let peer = self.links.get(&id).and_then(Link::active);
        peer.is_some_and(|peer| peer.node == origin.node)
    }

    /// A copy of a commit that is here: of two ways of an origin one is refused.
    fn copied(&mut self, id: LinkId, origin: Origin, out: &mut Vec<Output>) {
        let direct = self.is_direct(id, &origin);
        let new = Parent { link: id, came: self.now, rival: None };
        let parent = self.parents.entry(origin).or_insert(new);
        let soon = self.now.0.saturating_sub(parent.came.0) <= LATE;
        let refused = if parent.link == id {
            parent.rival.take()
        } else if direct && soon {
            // The writer itself, hardly later than the way around.
            Some(std::mem::replace(parent, new).link)
        } else {
            Some(id)
        };
        if let Some(refused) = refused
            && let Some(link) = self.links.get_mut(&refused)
        {
            link.receiver.pruned(&origin);
            link.send(refused, Message::Prune(origin), out);
        }
    }

    /// A part of a link's window is free again.
    fn free(&mut self, id: LinkId, cost: u64) {
        if let Some(link) = self.links.get_mut(&id) {
            link.receiver.payload_consumed += cost;
        }
    }

    // ---- the engine --------------------------------------------------------------------------------

    fn sealed(&mut self, position: LogPosition, vector: &VersionVector, entries: &[LogEntry]) {
        if position < self.position {
            return;
        }
        let gap = position.0.saturating_sub(entries.len() as u64) > self.position.0;
        let barrier = entries.iter().any(|entry| matches!(entry, LogEntry::Barrier(_)));
        if (gap || barrier) && self.incoming.as_ref().is_some_and(|it| it.joining) {
            self.incoming = None;
        }
        self.position = position;
        self.sealed.join(vector);
        self.submitted.join(vector);
        self.in_flight.retire(&self.sealed);
        if gap || barrier {
            for parked in self.parking.covered(&self.submitted.clone(), None) {
                if let Some(link) = parked.link {
                    self.free(link, parked.cost);
                }
            }
        }
        self.seals.note(self.now, &self.sealed);
        for link in self.links.values_mut() {
            link.receiver.retire(&self.sealed);
            if link.active().is_some() {
                link.sender.feed(position, entries, self.faults.drop_from_queue);
            }
        }
    }

    /// The engine could not take something. All that was decided by what it would have had is undone: commits
    /// are parked again, and positions that were passed stand at the heads again. Only a link that brought
    /// what cannot be applied is closed.
    fn refused(
        &mut self,
        ticket: Ticket,
        culprit: Option<(Origin, u64)>,
        why: &str,
        out: &mut Vec<Output>,
    ) {
        if ticket.epoch != self.epoch {
            return;
        }
        self.epoch += 1;
        self.submitted = self.sealed.clone();
        let mut guilty = None;
        for parked in self.in_flight.take() {
            if culprit == Some((parked.commit.origin, parked.commit.first)) {
                guilty = parked.link;
            } else if parked.commit.last > self.sealed.get(&parked.commit.origin) {
                self.parking.put(parked);
            }
        }
        if !self.faults.refusal_restores_nothing {
            self.links.values_mut().for_each(|link| link.receiver.restore());
        }
        // What was staged belongs to the epoch that has ended.
        if let Some(link) = self.incoming.take().and_then(|incoming| incoming.link) {
            self.drop_link(link, CloseReason::Refused(why.to_owned()), true, out);
        }
        if let Some(link) = guilty {
            self.blame(link, why, out);
        }
        if culprit.is_none() {
            self.stalled = true;
            out.push(Output::Arm { after: self.config.retry_after, timer: Timer::Retry });
        }
    }

    /// Closes the link that brought what the engine refused; a peer that does so again and again is paused.
    fn blame(&mut self, id: LinkId, why: &str, out: &mut Vec<Output>) {
        let node = self.links.get(&id).and_then(Link::verified).map(|origin| origin.node);
        self.drop_link(id, CloseReason::Refused(why.to_owned()), true, out);
        let Some(node) = node else { return };
        let now = self.now.0;
        let Some(record) = self.records.get_mut(&node) else { return };
        record.refusals.retain(|at| now.saturating_sub(*at) < REFUSALS_WITHIN);
        record.refusals.push(now);
        if record.refusals.len() >= REFUSALS {
            record.refusals.clear();
            let name = record.name.clone();
            self.membership.pause(Some(&name), [node].into_iter());
            let why = why.to_owned();
            out.push(Output::Report(PeerEvent::Suspended { node, name, why }));
        }
    }

    // ---- time --------------------------------------------------------------------------------------

    fn timer(&mut self, timer: Timer, out: &mut Vec<Output>) {
        match timer {
            Timer::Tick => self.tick(out),
            Timer::Handshake(id) => self.handshake_late(id, out),
            Timer::Retry => self.stalled = false,
            Timer::Head(id) => self.head_waits(id, out),
            Timer::Dial(address) => {
                self.redial = true;
                let may = self.may_dial(&address);
                if let Some(place) = self.membership.places.get_mut(&address) {
                    place.armed = false;
                    if may {
                        place.busy = true;
                        out.push(Output::Dial { address });
                    }
                }
            }
        }
    }

    /// A handshake may take as long as bytes of it arrive, once the other end is proven.
    fn handshake_late(&mut self, id: LinkId, out: &mut Vec<Output>) {
        let Some(link) = self.links.get(&id) else { return };
        let heard = self.now.0.saturating_sub(link.heard.0) < self.config.handshake_after.0;
        match link.phase {
            Phase::Active => {}
            Phase::Welcome if heard => {
                let after = self.config.handshake_after;
                out.push(Output::Arm { after, timer: Timer::Handshake(id) });
            }
            _ => self.drop_link(id, CloseReason::Handshake, true, out),
        }
    }

    fn head_waits(&mut self, id: LinkId, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.receiver.timer = false;
        let Some((head, since)) = link.receiver.head() else { return };
        let waited = self.now.0.saturating_sub(since.0);
        match head {
            Head::Payload { origin, first, eager } => {
                let still = self.now.0.saturating_sub(link.moved.0);
                if link.receiver.graft.is_some() {
                    if waited.min(still) >= self.config.transfer_after.0 {
                        self.drop_link(id, CloseReason::Transfer, true, out);
                    }
                    return;
                }
                // What this link brings is on its way as long as its lane moves.
                let coming = eager && still < self.config.graft_after.0.saturating_mul(5);
                if waited >= self.graft_after(id) && !coming && !self.arriving(origin, first) {
                    self.graft(id, out);
                }
            }
            Head::Barrier if waited >= self.config.barrier_after.0 => self.want_state(id, out),
            Head::Barrier | Head::Clock(_) => {}
        }
    }

    /// How long a payload is waited for before it is fetched: longer where payloads usually take long.
    fn graft_after(&self, id: LinkId) -> u64 {
        let usual = self.links.get(&id).map_or(0, |link| link.receiver.usual_wait());
        let least = self.config.graft_after.0;
        least.max(usual.saturating_mul(2).min(least.saturating_mul(8)))
    }

    /// Whether pieces of the commit are coming in, by whichever link.
    fn arriving(&self, origin: Origin, first: u64) -> bool {
        self.links.values().any(|link| {
            link.reader.arriving() == Some((origin, first))
                && self.now.0.saturating_sub(link.moved.0) < self.config.dead_after.0
        })
    }

    fn tick(&mut self, out: &mut Vec<Output>) {
        out.push(Output::Arm { after: self.config.heartbeat, timer: Timer::Tick });
        self.redial = true;
        let silent = |since: Millis| self.now.0.saturating_sub(since.0) >= self.config.dead_after.0;
        let mut dead = Vec::new();
        for (id, link) in &mut self.links {
            if link.active().is_none() {
                continue;
            }
            let unanswered = self.faults.dead_by_heartbeat && link.pinged.is_some_and(silent);
            if silent(link.heard) || unanswered {
                dead.push(*id);
                continue;
            }
            link.pinged.get_or_insert(self.now);
            link.sender.tidy();
            link.send(*id, Message::Ping { sent: self.now.0, wall: self.wall.0 }, out);
        }
        for id in dead {
            self.drop_link(id, CloseReason::Dead, true, out);
        }
        self.transfers_tick(out);
        self.judge_clock(out);
        let active = self.links.values().filter(|link| link.active().is_some());
        let known: Vec<&VersionVector> = active.map(|link| &link.sender.known).collect();
        self.seals.forget(|vector| known.iter().all(|known| known.covers(vector)));
    }

    fn judge_clock(&mut self, out: &mut Vec<Output>) {
        let active = self.links.values().filter(|link| link.active().is_some());
        let ahead: Vec<i64> = active.filter_map(|link| link.clock).collect();
        if let Some(lead) = self.clocks.judge(ahead, self.config.clock_max_drift) {
            out.push(Output::Report(PeerEvent::OwnClock { ahead_ms: lead }));
        }
    }

    fn graft(&mut self, id: LinkId, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.receiver.graft.is_some() {
            return;
        }
        let Some(Graft { origin, from, to }) = link.receiver.start_graft(&self.submitted) else {
            return;
        };
        let often = link.receiver.fetches(&origin) >= FETCHES;
        let once = self.parents.get(&origin).is_some_and(|parent| parent.link != id) && !often;
        if !once {
            self.parents.insert(origin, Parent { link: id, came: self.now, rival: None });
        }
        link.send(id, Message::Graft { origin, from, to, once }, out);
    }

    // ---- after every input -------------------------------------------------------------------------

    /// Works all queues until nothing moves, then sends what can be sent. `tell`: acks are due.
    fn settle(&mut self, tell: bool, out: &mut Vec<Output>) {
        while self.work_all(out) {}
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for id in links {
            self.settle_head(id, out);
            let Some(link) = self.links.get_mut(&id) else { continue };
            if link.active().is_none() {
                continue;
            }
            let (me, position) = (self.origin.node, self.position);
            if link.has_lanes() {
                loop {
                    let positions = link.sender.order(me, position, !self.faults.no_barrier);
                    if positions.is_empty() {
                        break;
                    }
                    link.send(id, Message::Order(positions), out);
                }
                link.pump_payload(id, self.config.payload_ahead, position, out);
            } else {
                loop {
                    let items = link.sender.items(me, position);
                    if items.is_empty() {
                        break;
                    }
                    link.send(id, Message::Stream(downgraded(items)), out);
                }
            }
            if let Some(after) = link.sender.wants_read(position) {
                link.sender.reading = true;
                let known = (after.0 == 0).then(|| link.sender.known.clone());
                let limit_bytes = self.config.read_bytes;
                out.push(Output::ReadLog { link: id, after, limit_bytes, known });
            }
            self.ack(id, tell, out);
        }
        self.hold_log(out);
    }

    fn ack(&mut self, id: LinkId, tell: bool, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let receiver = &link.receiver;
        let limit = match link.has_lanes() {
            true => self.config.window_positions,
            false => self.config.window_bytes,
        };
        let part = |part: u64| {
            receiver.consumed >= (limit / part).max(1)
                || receiver.payload_consumed >= (self.config.window_bytes / part).max(1)
        };
        let due = tell || part(4) || (part(16) && receiver.is_empty());
        if !due {
            return;
        }
        let vector = self.sealed.news_for(&link.sender.told);
        if receiver.consumed > 0 || receiver.payload_consumed > 0 || !vector.is_empty() {
            link.sender.told.join(&self.sealed);
            let (payload, order) = link.receiver.take_consumed();
            let (consumed, positions) =
                if link.has_lanes() { (payload, order) } else { (order, 0) };
            link.send(id, Message::Ack { consumed, positions, vector }, out);
        }
    }

    /// One pass over all queues; true if anything moved.
    fn work_all(&mut self, out: &mut Vec<Output>) -> bool {
        if self.stalled {
            return false;
        }
        let mut progressed = false;
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for id in links {
            let Some(link) = self.links.get_mut(&id) else { continue };
            let Some(peer) = link.active() else { continue };
            if link.receiver.is_empty() {
                continue;
            }
            let drift = self.config.clock_max_drift;
            let mut clock_bound = self.clocks.bound(self.wall, drift, peer.node);
            if self.faults.clock_not_held {
                clock_bound = Hlc(u64::MAX);
            }
            let mut work = Work {
                submitted: &mut self.submitted,
                parking: &mut self.parking,
                in_flight: &mut self.in_flight,
                in_flight_limit: self.config.in_flight_bytes,
                now: self.now,
                clock_bound,
                ignore_order: self.faults.order_ignored,
            };
            let (done, error) = link.receiver.work(&mut work);
            progressed |= done.progressed;
            for (link, cost) in done.freed {
                self.free(link, cost);
            }
            if !done.commits.is_empty() {
                progressed = true;
                self.tickets += 1;
                let ticket = Ticket { epoch: self.epoch, number: self.tickets };
                out.push(Output::Apply { link: id, ticket, commits: done.commits });
            }
            if let Some(why) = error {
                self.drop_link(id, CloseReason::Protocol(why), true, out);
            }
        }
        progressed
    }

    /// Sees to it that a head that waits is looked at again, and told of if it waits for a clock.
    fn settle_head(&mut self, id: LinkId, out: &mut Vec<Output>) {
        let graft_after = self.graft_after(id);
        let Some(link) = self.links.get_mut(&id) else { return };
        let grafted = std::mem::take(&mut link.grafted);
        self.tell_held(id, out);
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some((head, since)) = link.receiver.head() else { return };
        let after = match head {
            Head::Payload { .. } => graft_after,
            Head::Barrier => self.config.barrier_after.0,
            Head::Clock(_) => self.config.heartbeat.0,
        };
        if !link.receiver.timer {
            link.receiver.timer = true;
            let waited = self.now.0.saturating_sub(since.0);
            let after = if waited >= after { after } else { after - waited };
            out.push(Output::Arm { after: Millis(after.max(1)), timer: Timer::Head(id) });
        }
        // A graft was needed here, so the next one probably is too: no new wait for old positions.
        let old = link.receiver.head_arrived().is_some_and(|a| self.now.0 >= a.0 + after);
        if grafted && old && matches!(head, Head::Payload { eager: false, .. }) {
            self.graft(id, out);
        }
    }

    /// The stamp for which a peer's commits, or its state, wait here.
    pub(crate) fn held_stamp(&self, node: NodeId) -> Option<Hlc> {
        let links =
            self.links.iter().filter(|(_, link)| link.active().is_some_and(|o| o.node == node));
        let mut stamps = links.filter_map(|(id, link)| {
            let incoming = self.incoming.as_ref().filter(|it| it.link == Some(*id));
            match link.receiver.head() {
                Some((Head::Clock(stamp), _)) => Some(stamp),
                _ => state_clock(&incoming?.held.first()?.0).ok(),
            }
        });
        stamps.next()
    }

    /// Reports when a link begins or ends to wait because of the peer's clock.
    fn tell_held(&mut self, id: LinkId, out: &mut Vec<Output>) {
        let Some(node) = self.links.get(&id).and_then(Link::active).map(|origin| origin.node)
        else {
            return;
        };
        let stamp = self.held_stamp(node);
        let Some(record) = self.records.get_mut(&node) else { return };
        let held = stamp.map(|stamp| stamp.millis().0.saturating_sub(self.wall.0));
        if held.is_some() != record.clock_held.is_some() {
            let name = record.name.clone();
            out.push(Output::Report(PeerEvent::ClockHeld { node, name, ahead_ms: held }));
        }
        record.clock_held = held;
    }

    // ---- the operator ------------------------------------------------------------------------------

    /// How many connected peers are known to have the whole vector (received, not yet durable there).
    pub fn delivered(&self, vector: &VersionVector) -> usize {
        let active = self.links.values().filter(|link| link.active().is_some());
        active.filter(|link| link.sender.known.covers(vector)).count()
    }
}

fn covers_next(submitted: &VersionVector, commit: &EncodedCommit) -> bool {
    commit.first == submitted.get(&commit.origin) + 1
}

/// Items as a peer of version 1 reads them.
fn downgraded(mut items: Vec<Item>) -> Vec<Item> {
    for item in &mut items {
        if let Item::Commit(commit) = item {
            *commit = commit.downgrade();
        }
    }
    items
}

pub(crate) fn short(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
