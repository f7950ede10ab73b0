//! One node: joins membership, handshakes and the streams of all links.

use std::collections::BTreeMap;

use bytes::Bytes;
use lattis_engine::causal::{LogPosition, Millis, NodeId, Origin, VersionVector};
use lattis_engine::commit::LogEntry;
use rand_core::RngCore;

use crate::handshake::{self, Phase};
use crate::membership::{MAX_PLACES, Membership};
use crate::peers::{Record, Seals};
use crate::receiver::{Graft, Head, InFlight, Receiver, Work};
use crate::sender::{Sender, StateOut};
use crate::wire::{
    FRAME_LIMIT, FrameReader, FrameWriter, HELLO_MAX, Hello, Item, Message, TEXT_MAX, Welcome,
    before_auth,
};
use crate::{
    CloseReason, Config, Input, LinkId, Output, PeerCommand, PeerEvent, PeerInfo, Ticket, Timer,
};

/// Parts of a snapshot that may be under way to a receiver that has not staged them.
const STATE_AHEAD: u32 = 4;

/// Accepted connections that may be in their handshake at once.
const MAX_STRANGERS: usize = 64;

/// Which rules are broken on purpose: none, but for tests with the feature `planted`.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    from_now: bool,
    drop_from_queue: bool,
    graft_on_arrival: bool,
    no_barrier: bool,
    stale_knowledge: bool,
    markers_ignored: bool,
    refusal_resets_few: bool,
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
            graft_on_arrival: is(Planted::GraftAppliedOnArrival),
            no_barrier: is(Planted::NoBarrier),
            stale_knowledge: is(Planted::StaleKnowledge),
            markers_ignored: is(Planted::MarkerIgnored),
            refusal_resets_few: is(Planted::RefusalResetsFew),
        }
    }
}

struct Link {
    dialled: Option<String>,
    phase: Phase,
    hello: Hello,
    hello_frame: Bytes,
    peer: Option<(Hello, Bytes)>,
    writer: FrameWriter,
    reader: FrameReader,
    sender: Sender,
    receiver: Receiver,
    /// An answer to a graft was parked since the queue was worked last.
    grafted: bool,
    heard: Millis,
    /// When the oldest heartbeat that was not answered was sent.
    pinged: Option<Millis>,
    active_since: Option<Millis>,
    bytes_in: u64,
    bytes_out: u64,
}

impl Link {
    fn send(&mut self, link: LinkId, message: &Message, out: &mut Vec<Output>) {
        for frame in self.writer.write(message) {
            self.bytes_out += frame.len() as u64 + 4;
            out.push(Output::Send { link, frame });
        }
    }

    /// The peer's origin, once it is proven.
    fn verified(&self) -> Option<Origin> {
        match self.phase {
            Phase::Hello | Phase::Auth => None,
            Phase::Welcome | Phase::Active => self.peer.as_ref().map(|(hello, _)| hello.origin),
        }
    }

    fn active(&self) -> Option<Origin> {
        if self.phase == Phase::Active { self.verified() } else { None }
    }
}

struct Transfer {
    link: LinkId,
    ticket: Ticket,
    /// The last part was handed over: waits for the engine.
    joining: bool,
    progress: Millis,
}

/// The replication of one node: give it inputs, do its outputs.
///
/// Every position that an answer (`LogChunk`, `Grafted`, `StateChunk`) contains must have been reported
/// by [`Input::Sealed`] before; entries may be left out there, the position and vector may not.
/// Work per input: proportional to the input and to the number of links.
pub struct Node {
    config: Config,
    faults: Faults,
    origin: Origin,
    sealed: VersionVector,
    submitted: VersionVector,
    position: LogPosition,
    in_flight: InFlight,
    epoch: u64,
    tickets: u64,
    links: BTreeMap<LinkId, Link>,
    records: BTreeMap<NodeId, Record>,
    membership: Membership,
    transfer: Option<Transfer>,
    seals: Seals,
    stale: BTreeMap<NodeId, VersionVector>,
    started: bool,
    fenced: bool,
    redial: bool,
    /// The wall clock at the last input.
    wall: Millis,
    /// What waiting is measured by: the wall clock's steps forward, added up. A clock that is set back
    /// would otherwise stop every timer until it has caught up with itself.
    now: Millis,
}

impl Node {
    /// A node whose engine writes as `origin`, and whose log ends at `position` with `vector`.
    pub fn new(
        mut config: Config,
        origin: Origin,
        vector: VersionVector,
        position: LogPosition,
    ) -> Node {
        config.window_bytes = config.window_bytes.max(1);
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
            in_flight: InFlight::default(),
            epoch: 0,
            tickets: 0,
            links: BTreeMap::new(),
            records: BTreeMap::new(),
            membership,
            transfer: None,
            seals: Seals::default(),
            stale: BTreeMap::new(),
            started: false,
            fenced: false,
            redial: false,
            wall: Millis(0),
            now: Millis(0),
        }
    }

    /// Whether a peer knew more of this node's origin than the node itself (see [`PeerEvent::Fenced`]).
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
            Input::LinkUp { link, dialled } => self.link_up(link, dialled, rng, out),
            Input::LinkDown { link, why } => {
                self.drop_link(link, CloseReason::Lost(why), false, out)
            }
            Input::DialFailed { address, why } => self.dial_failed(address, why, out),
            Input::Frame { link, bytes } => {
                if let Err(why) = self.frame(link, bytes, out) {
                    self.drop_link(link, why, true, out);
                }
            }
            Input::Writable { .. } => {}
            Input::Timer(timer) => {
                tell = timer == Timer::Tick;
                self.timer(timer, out);
            }
            Input::Command(command) => self.command(command, out),
            Input::Sealed { position, vector, entries } => {
                self.sealed(position, &vector, &entries);
                tell = true;
            }
            Input::Refused { ticket, why } => self.refused(ticket, &why, out),
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
                    link.send(id, &Message::Grafted { commits, truncated }, out);
                }
            }
            Input::StateChunk { link, bytes, last } => self.state_chunk(link, bytes, last, out),
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
        rng: &mut dyn RngCore,
        out: &mut Vec<Output>,
    ) {
        if let Some(place) = dialled.as_ref().and_then(|a| self.membership.places.get_mut(a)) {
            place.busy = true;
        }
        let mut challenge = [0; 32];
        rng.fill_bytes(&mut challenge);
        let hello = handshake::hello(&self.config, self.origin, challenge);
        let mut link = Link {
            dialled,
            phase: Phase::Hello,
            hello: hello.clone(),
            hello_frame: Bytes::new(),
            peer: None,
            writer: FrameWriter::new(HELLO_MAX),
            reader: FrameReader::new(self.config.max_message),
            sender: Sender::new(VersionVector::new(), VersionVector::new(), 0),
            receiver: Receiver::new(self.config.window_bytes, 0),
            grafted: false,
            heard: self.now,
            pinged: None,
            active_since: None,
            bytes_in: 0,
            bytes_out: 0,
        };
        let refused = if self.fenced {
            Some(CloseReason::Fenced)
        } else if self.membership.all_paused() {
            Some(CloseReason::Paused)
        } else if link.dialled.is_none()
            && self.links.values().filter(|link| link.verified().is_none()).count() >= MAX_STRANGERS
        {
            Some(CloseReason::Strangers)
        } else {
            None
        };
        if let Some(why) = refused {
            self.links.insert(id, link);
            return self.drop_link(id, why, true, out);
        }
        if let Some(frame) = link.writer.write(&Message::Hello(hello)).pop() {
            link.hello_frame = frame.clone();
            link.bytes_out += frame.len() as u64 + 4;
            out.push(Output::Send { link: id, frame });
        }
        self.links.insert(id, link);
        let after = self.config.handshake_after;
        out.push(Output::Arm { after, timer: Timer::Handshake(id) });
    }

    /// Forgets a link. `close`: the driver does not know yet.
    fn drop_link(&mut self, id: LinkId, why: CloseReason, close: bool, out: &mut Vec<Output>) {
        let Some(mut link) = self.links.remove(&id) else { return };
        let node = link.verified().map(|origin| origin.node);
        if close {
            if node.is_some() {
                link.send(id, &Message::Bye(why.code()), out);
            }
            out.push(Output::Close { link: id, why: why.clone() });
        }
        if let Some(record) = node.and_then(|node| self.records.get_mut(&node)) {
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
            place.error = Some(why.to_string());
            let harmless = matches!(why, CloseReason::Duplicate | CloseReason::Paused);
            place.failures = if lasted || harmless { 0 } else { place.failures.saturating_add(1) };
        }
        if self.transfer.as_ref().is_some_and(|transfer| transfer.link == id && !transfer.joining) {
            self.transfer = None;
        }
        if self.faults.stale_knowledge
            && let Some(node) = node
        {
            self.stale.insert(node, link.sender.known);
        }
        self.redial = true;
        out.push(Output::Report(PeerEvent::Down { link: id, node, why }));
    }

    fn drop_all(&mut self, why: &CloseReason, out: &mut Vec<Output>) {
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.drop_link(link, why.clone(), true, out);
        }
    }

    // ---- membership --------------------------------------------------------------------------------

    fn may_dial(&self, address: &str) -> bool {
        let Some(place) = self.membership.places.get(address) else { return false };
        let linked = |node: &NodeId| {
            self.links.values().any(|link| link.verified().is_some_and(|o| o.node == *node))
        };
        let name = place.node.and_then(|n| self.records.get(&n)).map_or("", |r| r.name.as_str());
        self.started
            && !self.fenced
            && !place.myself
            && !place.busy
            && !place.node.as_ref().is_some_and(linked)
            && !self.membership.is_paused(place.node, &[address, name])
    }

    fn arm_dials(&mut self, rng: &mut dyn RngCore, out: &mut Vec<Output>) {
        self.redial = false;
        let addresses: Vec<String> = self.membership.places.keys().cloned().collect();
        for address in addresses {
            if !self.may_dial(&address) {
                continue;
            }
            let Some(place) = self.membership.places.get_mut(&address) else { continue };
            if std::mem::replace(&mut place.armed, true) {
                continue;
            }
            let failures = place.failures;
            let after = self.membership.delay(failures, rng);
            out.push(Output::Arm { after, timer: Timer::Dial(address) });
        }
    }

    fn dial_failed(&mut self, address: String, why: String, out: &mut Vec<Output>) {
        let Some(place) = self.membership.places.get_mut(&address) else { return };
        place.busy = false;
        place.failures = place.failures.saturating_add(1);
        self.redial = true;
        if place.error.as_deref() != Some(why.as_str()) {
            place.error = Some(why.clone());
            out.push(Output::Report(PeerEvent::DialFailed { address, why }));
        }
    }

    fn command(&mut self, command: PeerCommand, out: &mut Vec<Output>) {
        self.redial = true;
        match command {
            PeerCommand::Meet { address } => {
                if address.len() > TEXT_MAX || !self.membership.add(&address) {
                    out.push(Output::Report(PeerEvent::TooManyAddresses));
                }
                if let Some(place) = self.membership.places.get_mut(&address) {
                    place.failures = 0;
                    place.myself = false;
                    place.armed = false;
                }
            }
            PeerCommand::Pause { name } => {
                let nodes = self.named(name.as_deref());
                self.membership.pause(name.as_deref(), nodes.iter().copied());
                let paused = |link: &Link| match (&name, &link.peer) {
                    (None, _) => true,
                    (Some(_), Some((hello, _))) => nodes.contains(&hello.origin.node),
                    (Some(_), None) => false,
                };
                let links = self.links.iter().filter(|(_, link)| paused(link));
                let links: Vec<LinkId> = links.map(|(id, _)| *id).collect();
                for link in links {
                    self.drop_link(link, CloseReason::Paused, true, out);
                }
            }
            PeerCommand::Resume { name } => {
                let nodes = self.named(name.as_deref());
                self.membership.resume(name.as_deref(), nodes.into_iter());
                for place in self.membership.places.values_mut() {
                    place.failures = 0;
                    place.armed = false;
                }
            }
        }
    }

    /// Ids of the peers that the operator can mean by a name.
    fn named(&self, name: Option<&str>) -> Vec<NodeId> {
        let Some(name) = name else { return Vec::new() };
        let by_place = self.membership.places.get(name).and_then(|place| place.node);
        let by_record = self.records.iter().filter(|(id, record)| {
            record.name == name || record.address == name || id.to_string() == name
        });
        by_record.map(|(id, _)| *id).chain(by_place).collect()
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

    fn hello(
        &mut self,
        id: LinkId,
        hello: Hello,
        frame: Bytes,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let Some(link) = self.links.get(&id) else { return Ok(()) };
        let challenges = self.links.values().map(|link| link.hello.challenge);
        if let Err(why) = handshake::check(&link.hello, &hello, challenges) {
            if why == CloseReason::Myself {
                // The other end is a link of this node too; without it its hello would look like a
                // clone's.
                let other = self.links.iter().find(|(_, l)| l.hello.challenge == hello.challenge);
                if let Some(other) = other.map(|(other, _)| *other) {
                    self.drop_link(other, CloseReason::Myself, true, out);
                }
            }
            if why == CloseReason::Clone {
                out.push(Output::Report(PeerEvent::Clone { node: self.origin.node }));
            }
            return Err(why);
        }
        let node = hello.origin.node;
        let record = self.records.get(&node);
        let names = record.map_or(["", ""], |record| [&record.name, &record.address]);
        let dialled = link.dialled.as_deref().unwrap_or_default();
        if self.membership.is_paused(Some(node), &[names[0], names[1], dialled]) {
            return Err(CloseReason::Paused);
        }
        let secret = self.config.secret.as_deref();
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let (dialler, accepter) = match link.dialled {
            Some(_) => (&link.hello_frame, &frame),
            None => (&frame, &link.hello_frame),
        };
        let mac = handshake::mac(secret, link.dialled.is_some(), dialler, accepter);
        link.peer = Some((hello, frame));
        link.phase = Phase::Auth;
        link.send(id, &Message::Auth(mac), out);
        Ok(())
    }

    fn auth(
        &mut self,
        id: LinkId,
        mac: [u8; 32],
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let secret = self.config.secret.as_deref();
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let Some((hello, frame)) = &link.peer else { return Ok(()) };
        let (dialler, accepter) = match link.dialled {
            Some(_) => (&link.hello_frame, frame),
            None => (frame, &link.hello_frame),
        };
        if !handshake::verify(secret, link.dialled.is_none(), dialler, accepter, &mac) {
            return Err(CloseReason::Auth);
        }
        let origin = hello.origin;
        let max_frame = self.config.max_frame.min(hello.max_frame as usize);
        link.phase = Phase::Welcome;
        link.writer.set_max_frame(max_frame);
        let dialled = link.dialled.clone();
        self.only_link(id, origin, dialled.is_some(), out)?;
        self.remember(origin, dialled.as_deref());
        let alone = !self.links.values().any(|link| link.active().is_some());
        let vector = self.sealed.clone();
        let welcome = Welcome {
            name: short(&self.config.node_name),
            address: short(&self.config.address),
            vector: vector.clone(),
            window: self.config.window_bytes,
            catch_up: alone,
        };
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        link.sender = Sender::new(VersionVector::new(), vector, self.config.buffer_bytes);
        link.receiver = Receiver::new(self.config.window_bytes, self.config.graft_bytes * 4);
        link.send(id, &Message::Welcome(welcome), out);
        Ok(())
    }

    /// Of several verified connections to one node one stays, and both ends choose the same. Error: it is
    /// not this one.
    fn only_link(
        &mut self,
        id: LinkId,
        origin: Origin,
        dialled: bool,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let same = |link: &Link| {
            let other = link.verified().filter(|other| other.node == origin.node);
            other.map(|other| (other, link.dialled.is_some()))
        };
        let others = self.links.iter().filter(|(other, _)| **other != id);
        let others: Vec<_> = others.filter_map(|(id, link)| Some((*id, same(link)?))).collect();
        for (other, (old, old_dialled)) in others {
            if old.incarnation < origin.incarnation {
                let why = CloseReason::Lost("the peer was started again".to_owned());
                self.drop_link(other, why, true, out);
            } else if old != origin {
                out.push(Output::Report(PeerEvent::Clone { node: origin.node }));
                return Err(CloseReason::Clone);
            } else if old_dialled != dialled && (self.origin.node < origin.node) != dialled {
                return Err(CloseReason::Duplicate);
            } else {
                self.drop_link(other, CloseReason::Duplicate, true, out);
            }
        }
        Ok(())
    }

    fn remember(&mut self, origin: Origin, dialled: Option<&str>) {
        if let Some(place) = dialled.and_then(|address| self.membership.places.get_mut(address)) {
            place.node = Some(origin.node);
        }
        if self.records.len() >= MAX_PLACES && !self.records.contains_key(&origin.node) {
            let linked: Vec<NodeId> =
                self.links.values().filter_map(|link| Some(link.verified()?.node)).collect();
            let old = self.records.keys().find(|node| !linked.contains(node)).copied();
            if let Some(old) = old {
                self.records.remove(&old);
            }
        }
        self.records.entry(origin.node).or_default().incarnation = origin.incarnation;
    }

    fn welcome(
        &mut self,
        id: LinkId,
        welcome: Welcome,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let Some((hello, _)) = &link.peer else { return Ok(()) };
        let origin = hello.origin;
        let dialled = link.dialled.clone().unwrap_or_default();
        link.phase = Phase::Active;
        link.active_since = Some(self.now);
        link.sender.known = welcome.vector.clone();
        // What a peer allows does not bind this node to hold that much for a slow socket.
        let window = welcome.window.min(self.config.window_bytes.saturating_mul(4));
        link.sender.open(window, welcome.catch_up);
        if self.faults.from_now {
            link.sender.start_at(self.position);
        }
        if let Some(stale) = self.stale.get(&origin.node) {
            link.sender.known.join(stale);
        }
        if let Some(record) = self.records.get_mut(&origin.node) {
            record.name.clone_from(&welcome.name);
            record.address.clone_from(&welcome.address);
        }
        if !welcome.address.is_empty() && self.config.dial_advertised {
            self.membership.add(&welcome.address);
            if let Some(place) = self.membership.places.get_mut(&welcome.address) {
                place.node = Some(origin.node);
            }
        }
        let names = [welcome.name.as_str(), welcome.address.as_str(), dialled.as_str()];
        if self.membership.is_paused(Some(origin.node), &names) {
            self.membership.pause(Some(&welcome.name), [origin.node].into_iter());
            return Err(CloseReason::Paused);
        }
        self.not_beyond(origin.node, welcome.vector.get(&self.origin), out)?;
        out.push(Output::Report(PeerEvent::Up { link: id, origin, name: welcome.name }));
        Ok(())
    }

    /// A peer that knows more of my own origin than I do: this directory was restored or copied.
    fn not_beyond(
        &mut self,
        peer: NodeId,
        theirs: u64,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let mine = self.sealed.get(&self.origin);
        if theirs <= mine {
            return Ok(());
        }
        self.fenced = true;
        out.push(Output::Report(PeerEvent::Fenced { peer, theirs, mine }));
        self.drop_all(&CloseReason::Fenced, out);
        Err(CloseReason::Fenced)
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
            Message::Stream(items) => {
                let mut mine = 0;
                for item in items {
                    let known = &mut link.sender.known;
                    match &item {
                        Item::Commit(commit) => known.advance(commit.origin, commit.last),
                        Item::Marker { origin, last, .. } => known.advance(*origin, *last),
                        Item::Barrier(vector) => known.join(vector),
                    };
                    mine = mine.max(known.get(&me));
                    if !link.receiver.push(item, self.now) {
                        return Err(CloseReason::Protocol("the window is overrun"));
                    }
                }
                self.not_beyond(peer.node, mine, out)
            }
            Message::Ack { consumed, vector } => {
                link.sender.known.join(&vector);
                if !link.sender.acked(consumed) {
                    return Err(CloseReason::Protocol("more acked than sent"));
                }
                self.not_beyond(peer.node, vector.get(&me), out)
            }
            Message::Prune(origin) => {
                if self.sealed.get(&origin) == 0 {
                    return Err(CloseReason::Protocol("prune of an unknown origin"));
                }
                link.sender.set_mode(origin, false);
                Ok(())
            }
            Message::Graft { origin, from, to } => {
                if self.sealed.get(&origin) < to || link.sender.graft.is_some() {
                    return Err(CloseReason::Protocol("graft out of turn"));
                }
                link.sender.set_mode(origin, true);
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
                if self.faults.graft_on_arrival {
                    let next = |c: &&_| covers_next(&self.submitted, c);
                    let commits: Vec<_> = commits.iter().filter(next).cloned().collect();
                    for commit in commits {
                        self.submitted.advance(commit.origin, commit.last);
                        let ticket = Ticket { epoch: self.epoch, number: 0 };
                        out.push(Output::Apply { link: id, ticket, commits: vec![commit] });
                    }
                }
                link.receiver.park(commits).map_err(CloseReason::Protocol)?;
                link.grafted = !truncated;
                if truncated {
                    self.want_state(id, out);
                }
                Ok(())
            }
            Message::StateRequest => {
                if link.sender.state.is_some() {
                    return Err(CloseReason::Protocol("second request for the state"));
                }
                link.sender.state = Some(StateOut { credit: STATE_AHEAD, asked: true });
                let limit_bytes = self.config.read_bytes;
                out.push(Output::ReadState { link: id, resume: false, limit_bytes });
                out.push(Output::Report(PeerEvent::Transfer { link: id, receives: false }));
                Ok(())
            }
            Message::State { part, last } => {
                let transfer = self.transfer.as_mut().filter(|t| t.link == id && !t.joining);
                let transfer =
                    transfer.ok_or(CloseReason::Protocol("state that was not asked for"))?;
                transfer.joining = last;
                transfer.progress = self.now;
                out.push(Output::Join { link: id, ticket: transfer.ticket, part, last });
                Ok(())
            }
            Message::StateNext => {
                if let Some(state) = &mut link.sender.state {
                    state.credit = (state.credit + 1).min(STATE_AHEAD);
                    if !state.asked {
                        state.asked = true;
                        let limit_bytes = self.config.read_bytes;
                        out.push(Output::ReadState { link: id, resume: true, limit_bytes });
                    }
                }
                Ok(())
            }
            Message::Ping { sent, .. } => {
                link.send(id, &Message::Pong { sent }, out);
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

    // ---- state transfer ----------------------------------------------------------------------------

    /// Asks for the peer's state, unless a transfer is under way: then the timer comes back.
    fn want_state(&mut self, id: LinkId, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if self.transfer.is_some() {
            return;
        }
        self.tickets += 1;
        let ticket = Ticket { epoch: self.epoch, number: self.tickets };
        self.transfer = Some(Transfer { link: id, ticket, joining: false, progress: self.now });
        link.send(id, &Message::StateRequest, out);
        out.push(Output::Report(PeerEvent::Transfer { link: id, receives: true }));
    }

    fn staged(&mut self, ticket: Ticket, out: &mut Vec<Output>) {
        if let Some(transfer) = &mut self.transfer
            && transfer.ticket == ticket
            && !transfer.joining
            && let Some(link) = self.links.get_mut(&transfer.link)
        {
            transfer.progress = self.now;
            link.send(transfer.link, &Message::StateNext, out);
        }
    }

    fn state_chunk(&mut self, id: LinkId, part: Bytes, last: bool, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(state) = &mut link.sender.state else { return };
        if !std::mem::replace(&mut state.asked, false) {
            return;
        }
        state.credit = state.credit.saturating_sub(1);
        let more = !last && state.credit > 0;
        state.asked = more;
        if last {
            link.sender.state = None;
        }
        // Sent before the next part is asked for: a driver may answer at once.
        link.send(id, &Message::State { part, last }, out);
        if more {
            let limit_bytes = self.config.read_bytes;
            out.push(Output::ReadState { link: id, resume: true, limit_bytes });
        }
    }

    // ---- the engine --------------------------------------------------------------------------------

    fn sealed(&mut self, position: LogPosition, vector: &VersionVector, entries: &[LogEntry]) {
        if position < self.position {
            return;
        }
        let gap = position.0.saturating_sub(entries.len() as u64) > self.position.0;
        let barrier = entries.iter().any(|entry| matches!(entry, LogEntry::Barrier(_)));
        if (gap || barrier) && self.transfer.as_ref().is_some_and(|transfer| transfer.joining) {
            self.transfer = None;
        }
        self.position = position;
        self.sealed.join(vector);
        self.submitted.join(vector);
        self.in_flight.retire(&self.sealed);
        self.seals.note(self.now, &self.sealed);
        for link in self.links.values_mut() {
            if link.active().is_some() {
                link.sender.feed(position, entries, self.faults.drop_from_queue);
            }
        }
    }

    fn refused(&mut self, ticket: Ticket, why: &str, out: &mut Vec<Output>) {
        if ticket.epoch != self.epoch {
            return;
        }
        // Other links may have passed items because of what was refused, so none of them is sound.
        self.epoch += 1;
        self.submitted = self.sealed.clone();
        let few = self.in_flight.links();
        self.in_flight.clear();
        self.transfer = None;
        let why = CloseReason::Refused(why.to_owned());
        if self.faults.refusal_resets_few {
            for link in few {
                self.drop_link(link, why.clone(), true, out);
            }
            return;
        }
        self.drop_all(&why, out);
    }

    // ---- time --------------------------------------------------------------------------------------

    fn timer(&mut self, timer: Timer, out: &mut Vec<Output>) {
        match timer {
            Timer::Tick => self.tick(out),
            Timer::Handshake(id) => {
                if self.links.get(&id).is_some_and(|link| link.phase != Phase::Active) {
                    self.drop_link(id, CloseReason::Handshake, true, out);
                }
            }
            Timer::Head(id) => {
                let Some(link) = self.links.get_mut(&id) else { return };
                link.receiver.timer = false;
                let Some((head, since)) = link.receiver.head() else { return };
                let waited = self.now.0.saturating_sub(since.0);
                match head {
                    Head::Marker(_)
                        if link.receiver.graft.is_some()
                            && waited >= self.config.transfer_after.0 =>
                    {
                        self.drop_link(id, CloseReason::Transfer, true, out);
                    }
                    Head::Marker(_) if waited >= self.config.graft_after.0 => self.graft(id, out),
                    Head::Barrier if waited >= self.config.barrier_after.0 => {
                        self.want_state(id, out);
                    }
                    _ => {}
                }
            }
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

    fn tick(&mut self, out: &mut Vec<Output>) {
        out.push(Output::Arm { after: self.config.heartbeat, timer: Timer::Tick });
        self.redial = true;
        let total = self.sealed.iter().map(|(_, seq)| seq).fold(0u64, u64::saturating_add);
        let silent = |since: Millis| self.now.0.saturating_sub(since.0) >= self.config.dead_after.0;
        let mut dead = Vec::new();
        for (id, link) in &mut self.links {
            if link.active().is_none() {
                continue;
            }
            if silent(link.heard) || link.pinged.is_some_and(silent) {
                dead.push((*id, CloseReason::Dead));
                continue;
            }
            link.pinged.get_or_insert(self.now);
            link.send(*id, &Message::Ping { sent: self.now.0, total }, out);
        }
        if let Some(transfer) = &self.transfer
            && !transfer.joining
            && self.now.0.saturating_sub(transfer.progress.0) >= self.config.transfer_after.0
        {
            dead.push((transfer.link, CloseReason::Transfer));
        }
        for (id, why) in dead {
            self.drop_link(id, why, true, out);
        }
        let active = self.links.values().filter(|link| link.active().is_some());
        let known: Vec<&VersionVector> = active.map(|link| &link.sender.known).collect();
        self.seals.forget(|vector| known.iter().all(|known| known.covers(vector)));
    }

    fn graft(&mut self, id: LinkId, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.receiver.graft.is_some() {
            return;
        }
        if let Some(Graft { origin, from, to }) = link.receiver.start_graft(&self.submitted) {
            link.send(id, &Message::Graft { origin, from, to }, out);
        }
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
            loop {
                let items =
                    link.sender.pump(self.origin.node, self.position, !self.faults.no_barrier);
                if items.is_empty() {
                    break;
                }
                link.send(id, &Message::Stream(items), out);
            }
            if let Some(after) = link.sender.wants_read(self.position) {
                link.sender.reading = true;
                let known = (after.0 == 0).then(|| link.sender.known.clone());
                let limit_bytes = self.config.read_bytes;
                out.push(Output::ReadLog { link: id, after, limit_bytes, known });
            }
            let consumed = link.receiver.consumed;
            let due = consumed >= self.config.window_bytes / 4
                || (consumed >= self.config.window_bytes / 16 && link.receiver.is_empty());
            if due || tell {
                let told = &link.sender.told;
                let news = self.sealed.iter().filter(|(origin, seq)| *seq > told.get(origin));
                let vector: VersionVector = news.map(|(origin, seq)| (*origin, seq)).collect();
                if consumed > 0 || !vector.is_empty() {
                    link.sender.told.join(&vector);
                    let consumed = link.receiver.take_consumed();
                    link.send(id, &Message::Ack { consumed, vector }, out);
                }
            }
        }
    }

    /// One pass over all queues; true if anything moved.
    fn work_all(&mut self, out: &mut Vec<Output>) -> bool {
        let mut progressed = false;
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for id in links {
            let Some(link) = self.links.get_mut(&id) else { continue };
            let Some(peer) = link.active() else { continue };
            if link.receiver.is_empty() {
                continue;
            }
            let mut work = Work {
                link: id,
                submitted: &mut self.submitted,
                in_flight: &mut self.in_flight,
                in_flight_limit: self.config.in_flight_bytes,
                now: self.now,
                ignore_markers: self.faults.markers_ignored,
            };
            let (done, error) = link.receiver.work(peer.node, &mut work);
            progressed |= done.progressed;
            for origin in done.prunes {
                link.send(id, &Message::Prune(origin), out);
            }
            if !done.commits.is_empty() {
                progressed = true;
                self.tickets += 1;
                let ticket = Ticket { epoch: self.epoch, number: self.tickets };
                out.push(Output::Apply { link: id, ticket, commits: done.commits });
            }
            for origin in done.doubled {
                for (other, link) in self.links.iter_mut().filter(|(other, _)| **other != id) {
                    if link.receiver.unask(&origin) {
                        link.send(*other, &Message::Prune(origin), out);
                    }
                }
            }
            if let Some(why) = error {
                self.drop_link(id, CloseReason::Protocol(why), true, out);
            }
        }
        progressed
    }

    /// Sees to it that a head that waits is looked at again.
    fn settle_head(&mut self, id: LinkId, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let grafted = std::mem::take(&mut link.grafted);
        let Some((head, since)) = link.receiver.head() else { return };
        let after = match head {
            Head::Marker(_) => self.config.graft_after.0,
            Head::Barrier => self.config.barrier_after.0,
        };
        if !link.receiver.timer {
            link.receiver.timer = true;
            let waited = self.now.0.saturating_sub(since.0);
            let after = if waited >= after { after } else { after - waited };
            out.push(Output::Arm { after: Millis(after.max(1)), timer: Timer::Head(id) });
        }
        // A graft was needed here, so the next one probably is too: no new wait for old markers.
        let old = link.receiver.head_arrived().is_some_and(|a| self.now.0 >= a.0 + after);
        if grafted && old && matches!(head, Head::Marker(_)) {
            self.graft(id, out);
        }
    }

    // ---- the operator ------------------------------------------------------------------------------

    /// How many connected peers are known to have the whole vector (received, not yet durable there).
    pub fn delivered(&self, vector: &VersionVector) -> usize {
        let active = self.links.values().filter(|link| link.active().is_some());
        active.filter(|link| link.sender.known.covers(vector)).count()
    }

    /// One line for each peer and for each address at which nobody was found yet.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let mut list = Vec::new();
        for (node, record) in &self.records {
            let link = self.links.values().find(|l| l.verified().is_some_and(|o| o.node == *node));
            let place = self.membership.places.values().find(|place| place.node == Some(*node));
            let names = [record.name.as_str(), record.address.as_str()];
            let known = link.filter(|link| link.active().is_some()).map(|l| &l.sender.known);
            list.push(PeerInfo {
                name: record.name.clone(),
                address: record.address.clone(),
                state: match (known, link) {
                    (Some(_), _) => "active",
                    (None, Some(_)) => "handshake",
                    _ if self.membership.is_paused(Some(*node), &names) => "paused",
                    _ if place.is_some_and(|place| place.busy) => "dialling",
                    _ if place.is_some() => "waiting",
                    _ => "down",
                },
                node: Some(*node),
                incarnation: record.incarnation,
                lag_commits: known.map_or(0, |known| self.sealed.missing_from(known)),
                lag_ms: known.map_or(0, |known| self.seals.lag(self.now, known)),
                rtt_ms: record.rtt_ms,
                bytes_in: record.bytes_in + link.map_or(0, |link| link.bytes_in),
                bytes_out: record.bytes_out + link.map_or(0, |link| link.bytes_out),
                last_error: record.last_error.clone(),
            });
        }
        for (address, place) in &self.membership.places {
            if place.node.is_none() && !place.myself {
                list.push(PeerInfo {
                    address: address.clone(),
                    state: match place.busy {
                        _ if self.membership.is_paused(None, &[address]) => "paused",
                        true => "dialling",
                        false => "waiting",
                    },
                    last_error: place.error.clone(),
                    ..PeerInfo::default()
                });
            }
        }
        list
    }
}

fn covers_next(submitted: &VersionVector, commit: &lattis_engine::commit::EncodedCommit) -> bool {
    commit.first == submitted.get(&commit.origin) + 1
}

fn short(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
