//! A deterministic world for nodes: engines that are a log and a vector, connections that delay, stall,
//! break and deliver every message as bytes, crashes that lose a log's suffix, trimmed logs. Causality is
//! checked by a shadow: what each commit's writer had seen, kept apart from everything that replicates.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use lattis_engine::causal::{Hlc, LogPosition, Millis, NodeId, Origin, VersionVector};
use lattis_engine::codec::{Reader, Writer};
use lattis_engine::commit::{Commit, Delta, Effect, EncodedCommit, LogEntry, RowEffect};
use lattis_engine::crdt::string::STRING;
use lattis_engine::name::RowKey;
use lattis_replication::wire::{FrameReader, Item, Message, Position};
use lattis_replication::{
    CloseReason, Config, Framer, Input, Lane, LinkId, Node, Output, PeerEvent, Ticket, Timer,
};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

pub struct Rng(ChaCha8Rng);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(ChaCha8Rng::seed_from_u64(seed))
    }
    pub fn below(&mut self, n: u64) -> u64 {
        u64::from(self.0.next_u32()) % n.max(1)
    }
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a commit's writer had seen, and its length: known to the checker only.
#[derive(Default)]
pub struct Shadow {
    causes: BTreeMap<(Origin, u64), (EncodedCommit, VersionVector)>,
}

#[derive(Default)]
struct Engine {
    vector: VersionVector,
    /// Position before the first entry.
    base: u64,
    log: Vec<LogEntry>,
    synced: u64,
    staging: Option<(Ticket, Vec<u8>)>,
    refused: Option<u64>,
}

/// A commit that the real engine could apply, of about that length.
fn commit_of(origin: Origin, first: u64, effects: u64, length: usize, now: u64) -> EncodedCommit {
    let fill = (origin.node.0 ^ u64::from(origin.incarnation) << 3 ^ first) as u8;
    let effect = |index| {
        let row = RowKey::single(0, Bytes::from_static(b"k"), STRING);
        let put = (index == 0).then(|| Bytes::from(vec![fill; length]));
        Effect::Row(RowEffect { row, delta: Delta { put, ..Delta::default() } })
    };
    let effects = (0..effects).map(effect).collect();
    Commit { origin, first, hlc: Hlc::at(Millis(now)), lead: 0, effects }.encode()
}

impl Engine {
    fn position(&self) -> u64 {
        self.base + self.log.len() as u64
    }

    fn recompute(&mut self) {
        self.vector = VersionVector::new();
        for entry in &self.log {
            entry.advance(&mut self.vector);
        }
    }

    fn write(&mut self, commit: EncodedCommit, shadow: &mut Shadow) {
        let name = (commit.origin, commit.first);
        shadow.causes.insert(name, (commit.clone(), self.vector.clone()));
        self.vector.advance(commit.origin, commit.last);
        self.log.push(LogEntry::Commit(commit));
    }

    fn apply(&mut self, commit: &EncodedCommit, shadow: &Shadow) -> Result<(), String> {
        let have = self.vector.get(&commit.origin);
        if commit.last <= have {
            return Ok(());
        }
        if commit.first != have + 1 {
            return Err(format!("gap: {}:{} over {have}", commit.origin, commit.first));
        }
        let (written, causes) = &shadow.causes[&(commit.origin, commit.first)];
        if written != commit {
            return Err("content".to_owned());
        }
        if !self.vector.covers(causes) {
            return Err(format!("causality: {}:{}", commit.origin, commit.first));
        }
        self.vector.advance(commit.origin, commit.last);
        self.log.push(LogEntry::Commit(commit.clone()));
        Ok(())
    }

    fn trim(&mut self, to: u64) {
        let count = to.saturating_sub(self.base) as usize;
        if count == 0 || to > self.synced {
            return;
        }
        let mut floor = VersionVector::new();
        for entry in &self.log[..count] {
            entry.advance(&mut floor);
        }
        self.log.splice(..count, [LogEntry::Barrier(floor)]);
        self.base = to - 1;
    }

    fn read(&self, after: u64, limit: usize) -> (u64, Vec<LogEntry>) {
        let from = after.max(self.base);
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.log.iter().skip((from - self.base) as usize) {
            if bytes > limit {
                break;
            }
            bytes += match entry {
                LogEntry::Commit(commit) => 30 + commit.body.len(),
                LogEntry::Barrier(_) => 100,
            };
            entries.push(entry.clone());
        }
        if entries.is_empty() { (after, entries) } else { (from + entries.len() as u64, entries) }
    }

    fn commits(
        &self,
        origin: Origin,
        from: u64,
        to: u64,
        limit: usize,
    ) -> (Vec<EncodedCommit>, bool) {
        let mut next = from;
        let mut found = Vec::new();
        let mut bytes = 0;
        for entry in &self.log {
            if let LogEntry::Commit(commit) = entry
                && commit.origin == origin
                && commit.first == next
                && next <= to
            {
                if bytes > limit {
                    return (found, false);
                }
                bytes += commit.body.len() + 30;
                next = commit.last + 1;
                found.push(commit.clone());
            }
        }
        (found, next <= to)
    }
}

/// Parts of a state that has more than its vector.
const STATE_PARTS: usize = 40;

enum Job {
    Apply { ticket: Ticket, commits: Vec<EncodedCommit> },
    Join { ticket: Ticket, part: Bytes, last: bool },
    ReadLog { link: LinkId, after: u64, limit: usize },
    ReadCommits { link: LinkId, ticket: u64, origin: Origin, from: u64, to: u64, limit: usize },
    ReadState { link: LinkId, snapshot: u64, part: u64 },
}

struct Site {
    id: u64,
    up: bool,
    /// Counts lives, so that events of earlier ones are ignored.
    life: u64,
    origin: Origin,
    engine: Engine,
    node: Option<Node>,
    jobs: VecDeque<Job>,
    /// Inputs from the engine, in order.
    inbox: VecDeque<Input>,
    links: BTreeMap<LinkId, (usize, usize)>,
    snapshots: BTreeMap<u64, Vec<Bytes>>,
    /// The log is kept from here on.
    hold: Option<u64>,
    /// Its clock, less the true time.
    skew: i64,
    full: bool,
    clean: bool,
}

struct Conn {
    sites: [usize; 2],
    /// Bytes a second in either direction, 0 for any.
    rate: u64,
    /// What the wire to a side has sent beyond a whole ms, in thousandths of a byte.
    rest: [u64; 2],
    /// What waits to be sent to a side: the order lane, the payload lane.
    lanes: [[VecDeque<Bytes>; 2]; 2],
    /// Something is on its way onto the wire.
    sending: [bool; 2],
    links: [Option<LinkId>; 2],
    ids: [LinkId; 2],
    /// When bytes were delivered last to each side.
    heard: [u64; 2],
    /// No delivery towards that side before this time.
    after: [u64; 2],
    framers: [Framer; 2],
    tap: [FrameReader; 2],
    open: bool,
    held: [VecDeque<Packet>; 2],
}

#[derive(Debug)]
enum Packet {
    Bytes(Bytes),
    End,
}

enum Event {
    Timer {
        site: usize,
        life: u64,
        timer: Timer,
    },
    Dial {
        site: usize,
        life: u64,
        address: String,
    },
    Packet {
        conn: usize,
        to: usize,
        packet: Packet,
    },
    /// The wire towards a side takes more.
    Free {
        conn: usize,
        to: usize,
        written: u64,
    },
    Engine {
        site: usize,
        life: u64,
    },
    Inbox {
        site: usize,
        life: u64,
    },
    Start {
        site: usize,
    },
}

pub struct World {
    pub rng: Rng,
    node_rng: ChaCha8Rng,
    pub now: u64,
    events: BTreeMap<(u64, u64), Event>,
    counter: u64,
    sites: Vec<Site>,
    conns: Vec<Conn>,
    /// Pairs that can talk at all.
    pub edges: BTreeSet<(usize, usize)>,
    /// Pairs that cannot talk now.
    pub cut: BTreeSet<(usize, usize)>,
    pub shadow: Shadow,
    configs: Vec<Config>,
    pub max_delay: u64,
    /// Delay of each pair of nodes beside the random part.
    pub delays: BTreeMap<(usize, usize), u64>,
    /// Bytes a second of new connections, 0 for any.
    pub rate: u64,
    /// When each commit was written, and how long it took to each other node, ms.
    written: BTreeMap<(Origin, u64), u64>,
    pub latencies: Vec<u64>,
    pub violation: Option<String>,
    pub payloads: u64,
    pub markers: u64,
    pub bytes: u64,
    pub transfers: u64,
    pub state_parts: u64,
    /// What a state has beside its vector.
    pub state_bytes: usize,
    pub resets: u64,
    pub grafts: u64,
    pub refusals: u64,
    pub drop_sealed: u64,
    /// Packets of ten thousand that have a bit flipped.
    pub corrupt: u64,
    corrupted: bool,
    next_link: u64,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl World {
    pub fn new(seed: u64, count: usize, base: Config, edges: BTreeSet<(usize, usize)>) -> World {
        let mut rng = Rng::new(seed);
        let mut configs = Vec::new();
        for site in 0..count {
            let mut config = base.clone();
            config.node_name = format!("n{site}");
            config.address = format!("{site}");
            for (a, b) in &edges {
                let both = rng.chance(50);
                if *a == site && (both || (a + b) % 2 == 0)
                    || *b == site && (both || (a + b) % 2 == 1)
                {
                    config.peers.push(format!("{}", a + b - site));
                }
            }
            configs.push(config);
        }
        // An edge that neither end would dial.
        for (a, b) in &edges {
            let (x, y) = (format!("{a}"), format!("{b}"));
            if !configs[*a].peers.contains(&y) && !configs[*b].peers.contains(&x) {
                configs[*a].peers.push(y);
            }
        }
        let ids: Vec<u64> = (0..count).map(|_| rng.below(1 << 30) + 1).collect();
        let mut world = World {
            node_rng: ChaCha8Rng::seed_from_u64(seed ^ 0x5eed),
            rng,
            now: 1000,
            events: BTreeMap::new(),
            counter: 0,
            sites: Vec::new(),
            conns: Vec::new(),
            edges,
            cut: BTreeSet::new(),
            shadow: Shadow::default(),
            configs,
            max_delay: 5,
            delays: BTreeMap::new(),
            rate: 0,
            written: BTreeMap::new(),
            latencies: Vec::new(),
            violation: None,
            payloads: 0,
            markers: 0,
            bytes: 0,
            transfers: 0,
            state_parts: 0,
            state_bytes: 0,
            resets: 0,
            grafts: 0,
            refusals: 0,
            drop_sealed: 0,
            corrupt: 0,
            corrupted: false,
            next_link: 0,
        };
        for (site, id) in ids.into_iter().enumerate() {
            world.sites.push(Site {
                id,
                up: false,
                life: 0,
                origin: Origin::default(),
                engine: Engine::default(),
                node: None,
                jobs: VecDeque::new(),
                inbox: VecDeque::new(),
                links: BTreeMap::new(),
                snapshots: BTreeMap::new(),
                hold: None,
                skew: 0,
                full: false,
                clean: false,
            });
            world.at(0, Event::Start { site });
        }
        world
    }

    fn at(&mut self, after: u64, event: Event) {
        self.counter += 1;
        self.events.insert((self.now + after, self.counter), event);
    }

    fn start(&mut self, site: usize) {
        let nonce = self.rng.below(1 << 30);
        let config = self.configs[site].clone();
        let it = &mut self.sites[site];
        it.up = true;
        if !it.clean {
            let incarnation = it.origin.incarnation + 1;
            it.origin = Origin { node: NodeId(it.id), incarnation, nonce };
        }
        let position = LogPosition(it.engine.position());
        it.node = Some(Node::new(config, it.origin, it.engine.vector.clone(), position));
        self.input(site, Input::Start);
    }

    /// Ends a process: cleanly, so that it goes on with its incarnation, or losing what was not synced, in
    /// part.
    pub fn crash(&mut self, site: usize) {
        let clean = self.rng.chance(25);
        if !self.sites[site].up {
            return;
        }
        let links: Vec<(usize, usize)> = self.sites[site].links.values().copied().collect();
        let it = &mut self.sites[site];
        it.up = false;
        it.life += 1;
        it.node = None;
        it.jobs.clear();
        it.inbox.clear();
        it.links.clear();
        it.snapshots.clear();
        it.hold = None;
        it.clean = clean;
        let unsynced = if clean { 0 } else { it.engine.position() - it.engine.synced };
        let lost = self.rng.below(unsynced + 1);
        let keep = it.engine.log.len() - lost as usize;
        it.engine.log.truncate(keep);
        it.engine.staging = None;
        it.engine.refused = None;
        it.engine.recompute();
        it.engine.synced = it.engine.position();
        for (conn, side) in links {
            self.conns[conn].links[side] = None;
            self.packet(conn, 1 - side, Packet::End);
        }
        let after = self.rng.below(200);
        self.at(after, Event::Start { site });
    }

    pub fn input(&mut self, site: usize, input: Input) {
        let mut out = Vec::new();
        let wall = self.now.saturating_add_signed(self.sites[site].skew);
        let Some(node) = &mut self.sites[site].node else { return };
        node.handle(Millis(wall), input, &mut self.node_rng, &mut out);
        for output in out {
            self.output(site, output);
        }
    }

    fn packet(&mut self, conn: usize, to: usize, mut packet: Packet) {
        if let Packet::Bytes(bytes) = &mut packet
            && self.rng.below(10_000) < self.corrupt
            && !bytes.is_empty()
        {
            let mut flipped = bytes.to_vec();
            let at = self.rng.below(flipped.len() as u64) as usize;
            flipped[at] ^= 1 << self.rng.below(8);
            *bytes = Bytes::from(flipped);
            self.corrupted = true;
        }
        let sites = self.conns[conn].sites;
        let fixed = self.delays.get(&pair(sites[0], sites[1])).copied().unwrap_or(0);
        let delay = fixed + self.rng.below(self.max_delay.max(fixed)) + 1;
        let link = &mut self.conns[conn];
        let at = (self.now + delay).max(link.after[to]);
        link.after[to] = at;
        self.at(at - self.now, Event::Packet { conn, to, packet });
    }

    fn output(&mut self, site: usize, output: Output) {
        let life = self.sites[site].life;
        match output {
            Output::Send { link, lane, frame } => {
                let Some((conn, side)) = self.sites[site].links.get(&link).copied() else { return };
                self.bytes += frame.len() as u64 + 4;
                let mut bytes = Framer::prefix(&frame).to_vec();
                bytes.extend_from_slice(&frame);
                match self.conns[conn].tap[side].read(&frame) {
                    Ok(Some(message)) => self.count_message(message),
                    Ok(None) => {}
                    Err(error) => self.violation = Some(format!("unreadable: {error}")),
                }
                let lane = usize::from(lane == Lane::Payload);
                self.conns[conn].lanes[1 - side][lane].push_back(Bytes::from(bytes));
                if !self.conns[conn].sending[1 - side] {
                    self.onto_wire(conn, 1 - side);
                }
            }
            Output::Close { link, .. } => {
                self.resets += 1;
                if let Some((conn, side)) = self.sites[site].links.remove(&link) {
                    self.conns[conn].links[side] = None;
                    self.conns[conn].lanes[1 - side].iter_mut().for_each(VecDeque::clear);
                    self.packet(conn, 1 - side, Packet::End);
                }
            }
            Output::Dial { address } => {
                let after = self.rng.below(self.max_delay);
                self.at(after, Event::Dial { site, life, address });
            }
            Output::Arm { after, timer } => self.at(after.0, Event::Timer { site, life, timer }),
            Output::Apply { ticket, commits, .. } => {
                self.job(site, Job::Apply { ticket, commits });
            }
            Output::Join { ticket, part, last, .. } => {
                self.job(site, Job::Join { ticket, part, last });
            }
            Output::ReadLog { link, after, limit_bytes, .. } => {
                self.job(site, Job::ReadLog { link, after: after.0, limit: limit_bytes });
            }
            Output::ReadCommits { link, ticket, origin, from, to, limit_bytes } => {
                let limit = limit_bytes;
                self.job(site, Job::ReadCommits { link, ticket, origin, from, to, limit });
            }
            Output::ReadState { link, snapshot, part, .. } => {
                self.job(site, Job::ReadState { link, snapshot, part });
            }
            Output::DropState { snapshot } => drop(self.sites[site].snapshots.remove(&snapshot)),
            Output::HoldLog { from } => self.sites[site].hold = from.map(|from| from.0),
            Output::Report(event) => {
                if let PeerEvent::Fenced { .. } | PeerEvent::Clone { .. } = event {
                    self.violation.get_or_insert(format!("{event:?}"));
                }
                if let PeerEvent::Down { link, why: CloseReason::Dead, .. } = event {
                    self.not_heard(site, link);
                }
                if std::env::var_os("TRACE").is_some() {
                    println!("{} n{site} {event:?}", self.now);
                }
            }
        }
    }

    /// A link was declared dead: no byte may have arrived on it for as long as that takes.
    fn not_heard(&mut self, site: usize, link: LinkId) {
        let dead_after = self.configs[site].dead_after.0;
        let heard = self.conns.iter().find_map(|conn| {
            let side = conn.ids.iter().position(|id| *id == link)?;
            Some(conn.heard[side])
        });
        if heard.is_some_and(|heard| self.now < heard + dead_after) {
            self.violation.get_or_insert(format!("n{site} {link} is dead, though it was heard"));
        }
    }

    fn count_message(&mut self, message: Message) {
        match message {
            Message::Stream(items) => {
                for item in items {
                    match item {
                        Item::Commit(_) => self.payloads += 1,
                        Item::Marker { .. } => self.markers += 1,
                        Item::Barrier(_) => {}
                    }
                }
            }
            Message::Order(positions) => {
                let runs = positions.iter().filter(|it| matches!(it, Position::Commits { .. }));
                self.markers += runs.count() as u64;
            }
            Message::Payload(commits) => self.payloads += commits.len() as u64,
            Message::Grafted { commits, .. } => {
                self.grafts += 1;
                self.payloads += commits.len() as u64;
            }
            Message::State { .. } => self.state_parts += 1,
            _ => {}
        }
    }

    /// Puts the next frame towards a side onto the wire, the order lane first. With a rate it takes its time.
    fn onto_wire(&mut self, conn: usize, to: usize) {
        loop {
            let link = &mut self.conns[conn];
            let order = link.lanes[to][0].pop_front();
            let payload = order.is_none();
            let Some(mut bytes) = order.or_else(|| link.lanes[to][1].pop_front()) else {
                link.sending[to] = false;
                return;
            };
            link.sending[to] = true;
            let rate = link.rate;
            let length = bytes.len() as u64;
            if self.rng.chance(10) {
                let at = self.rng.below(bytes.len() as u64) as usize;
                let head = bytes.split_to(at);
                self.packet(conn, to, Packet::Bytes(head));
            }
            let written = if payload { length } else { 0 };
            if rate == 0 {
                self.packet(conn, to, Packet::Bytes(bytes));
                if written > 0 {
                    self.at(0, Event::Free { conn, to, written });
                }
                continue;
            }
            // Pieces of it arrive while it is on its way.
            let (mut after, mut sent) = (0, self.conns[conn].rest[to]);
            while !bytes.is_empty() {
                let piece = bytes.split_to(bytes.len().min(1400));
                sent += piece.len() as u64 * 1000;
                after = sent / rate;
                let link = &mut self.conns[conn];
                let packet = Packet::Bytes(piece);
                let at = (self.now + after + 1).max(link.after[to]);
                link.after[to] = at;
                self.at(at - self.now, Event::Packet { conn, to, packet });
            }
            self.conns[conn].rest[to] = sent % rate;
            return self.at(after, Event::Free { conn, to, written });
        }
    }

    fn written(&mut self, conn: usize, to: usize, bytes: u64) {
        let (site, id) = (self.conns[conn].sites[1 - to], self.conns[conn].links[1 - to]);
        if let (Some(link), true) = (id, bytes > 0) {
            self.input(site, Input::Written { link, bytes });
        }
    }

    fn job(&mut self, site: usize, job: Job) {
        let life = self.sites[site].life;
        self.sites[site].jobs.push_back(job);
        let after = self.rng.below(3);
        self.at(after, Event::Engine { site, life });
    }

    fn reply(&mut self, site: usize, input: Input) {
        let life = self.sites[site].life;
        self.sites[site].inbox.push_back(input);
        let after = self.rng.below(3);
        self.at(after, Event::Inbox { site, life });
    }

    fn seal(&mut self, site: usize, from: u64) {
        let engine = &self.sites[site].engine;
        let position = engine.position();
        if position == from {
            return;
        }
        let mut entries = engine.log[(from - engine.base) as usize..].to_vec();
        let vector = engine.vector.clone();
        if self.rng.chance(self.drop_sealed) {
            entries.clear();
        }
        self.reply(site, Input::Sealed { position: LogPosition(position), vector, entries });
    }

    fn engine(&mut self, site: usize) {
        let full = self.sites[site].full && self.rng.chance(30);
        let it = &mut self.sites[site];
        let Some(job) = it.jobs.pop_front() else { return };
        let before = it.engine.position();
        match job {
            Job::Apply { ticket, .. } | Job::Join { ticket, .. }
                if it.engine.refused == Some(ticket.epoch) => {}
            Job::Apply { ticket, .. } | Job::Join { ticket, .. } if full => {
                it.engine.refused = Some(ticket.epoch);
                self.refusals += 1;
                let why = "full".to_owned();
                self.reply(site, Input::Refused { ticket, culprit: None, why });
            }
            Job::Apply { commits, .. } => {
                for commit in commits {
                    let name = (commit.origin, commit.first);
                    if it.engine.vector.get(&commit.origin) < commit.last
                        && let Some(at) = self.written.get(&name)
                    {
                        self.latencies.push(self.now - at);
                    }
                    if let Err(why) = it.engine.apply(&commit, &self.shadow) {
                        self.violation.get_or_insert(why);
                        return;
                    }
                }
                self.seal(site, before);
            }
            Job::Join { ticket, part, last } => {
                let staged = match it.engine.staging.take() {
                    Some((of, staged)) if of == ticket => staged,
                    _ => Vec::new(),
                };
                let part = part.slice(2..2 + usize::from(part[1]));
                let whole: Vec<u8> = staged.into_iter().chain(part).collect();
                if last {
                    let other = VersionVector::decode(&mut Reader::new(&whole)).unwrap();
                    it.engine.vector.join(&other);
                    let barrier = LogEntry::Barrier(it.engine.vector.clone());
                    it.engine.log.push(barrier);
                    self.transfers += 1;
                    self.seal(site, before);
                } else {
                    it.engine.staging = Some((ticket, whole));
                    self.reply(site, Input::Staged { ticket });
                }
            }
            Job::ReadLog { link, after, limit } => {
                let (upto, entries) = it.engine.read(after, limit);
                self.reply(site, Input::LogChunk { link, upto: LogPosition(upto), entries });
            }
            Job::ReadCommits { link, ticket, origin, from, to, limit } => {
                let (commits, truncated) = it.engine.commits(origin, from, to, limit);
                self.reply(site, Input::Grafted { link, ticket, commits, truncated });
            }
            Job::ReadState { link, snapshot, part } => {
                if !it.snapshots.contains_key(&snapshot) {
                    let mut out = Writer::new();
                    it.engine.vector.encode(&mut out);
                    let whole = out.finish();
                    // The vector in small pieces, and behind each a part of all that a state has besides. No
                    // format that the engine has: nothing is read out of it here.
                    let filling = self.state_bytes / STATE_PARTS;
                    let mut chunks = whole.chunks(16);
                    let count = STATE_PARTS.max(whole.len().div_ceil(16));
                    let parts = (0..if filling > 0 { count } else { whole.len().div_ceil(16) })
                        .map(|_| {
                            let chunk = chunks.next().unwrap_or_default();
                            let mut part = vec![0xff, chunk.len() as u8];
                            part.extend_from_slice(chunk);
                            part.resize(part.len() + filling, 0);
                            Bytes::from(part)
                        });
                    it.snapshots.insert(snapshot, parts.collect());
                }
                let parts = &it.snapshots[&snapshot];
                let bytes = parts.get(part as usize).cloned().unwrap_or_default();
                let last = part as usize + 1 >= parts.len();
                self.reply(site, Input::StateChunk { link, snapshot, part, bytes, last });
            }
        }
    }

    fn dial(&mut self, site: usize, address: String) {
        let to: usize = address.parse().unwrap();
        let edge = pair(site, to);
        if !self.edges.contains(&edge) || self.cut.contains(&edge) || !self.sites[to].up {
            let why = "unreachable".to_owned();
            return self.input(site, Input::DialFailed { address, why });
        }
        let mut link = || {
            self.next_link += 1;
            LinkId(self.next_link)
        };
        let (mine, theirs) = (link(), link());
        let conn = self.conns.len();
        let max = self.configs[site].max_frame;
        self.conns.push(Conn {
            sites: [site, to],
            rate: self.rate,
            rest: [0; 2],
            lanes: Default::default(),
            sending: [false; 2],
            links: [Some(mine), Some(theirs)],
            ids: [mine, theirs],
            heard: [self.now; 2],
            after: [self.now; 2],
            framers: [Framer::new(max), Framer::new(max)],
            tap: [FrameReader::new(1 << 30), FrameReader::new(1 << 30)],
            open: true,
            held: [VecDeque::new(), VecDeque::new()],
        });
        self.sites[site].links.insert(mine, (conn, 0));
        self.sites[to].links.insert(theirs, (conn, 1));
        let from = site.to_string();
        self.input(to, Input::LinkUp { link: theirs, dialled: None, from });
        let from = address.clone();
        self.input(site, Input::LinkUp { link: mine, dialled: Some(address), from });
    }

    fn deliver(&mut self, conn: usize, to: usize, packet: Packet) {
        let link = &mut self.conns[conn];
        if self.cut.contains(&pair(link.sites[0], link.sites[1])) {
            link.held[to].push_back(packet);
            return;
        }
        let site = link.sites[to];
        let Some(id) = link.links[to] else { return };
        match packet {
            Packet::End => {
                link.links[to] = None;
                self.sites[site].links.remove(&id);
                self.input(site, Input::LinkDown { link: id, why: "reset".to_owned() });
            }
            Packet::Bytes(bytes) => {
                link.framers[to].push(bytes);
                link.heard[to] = self.now;
                let mut whole = false;
                while self.conns[conn].links[to].is_some() {
                    match self.conns[conn].framers[to].next_frame() {
                        Ok(Some(bytes)) => {
                            whole = true;
                            self.input(site, Input::Frame { link: id, bytes });
                        }
                        Ok(None) if whole => break,
                        Ok(None) => {
                            self.input(site, Input::Received { link: id });
                            break;
                        }
                        Err(error) => {
                            assert!(self.corrupted, "{error}");
                            self.conns[conn].links[to] = None;
                            self.sites[site].links.remove(&id);
                            let why = error.to_string();
                            self.input(site, Input::LinkDown { link: id, why });
                            self.packet(conn, 1 - to, Packet::End);
                        }
                    }
                }
            }
        }
    }

    /// Breaks one connection at both ends.
    pub fn reset(&mut self, conn: usize) {
        for to in 0..2 {
            self.packet(conn, to, Packet::End);
        }
    }

    pub fn conn_count(&self) -> usize {
        self.conns.len()
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        for conn in 0..self.conns.len() {
            for to in 0..2 {
                for packet in std::mem::take(&mut self.conns[conn].held[to]) {
                    self.deliver(conn, to, packet);
                }
            }
        }
    }

    pub fn write(&mut self, site: usize, commits: u64) {
        if !self.sites[site].up {
            return;
        }
        let before = self.sites[site].engine.position();
        for _ in 0..commits {
            let effects = 1 + self.rng.below(3);
            let length = if self.rng.chance(2) { 3000 } else { self.rng.below(40) };
            self.write_one(site, effects, length as usize);
        }
        self.seal(site, before);
    }

    fn write_one(&mut self, site: usize, effects: u64, length: usize) {
        let it = &mut self.sites[site];
        let first = it.engine.vector.get(&it.origin) + 1;
        self.written.insert((it.origin, first), self.now);
        let wall = self.now.saturating_add_signed(it.skew);
        let commit = commit_of(it.origin, first, effects, length, wall);
        it.engine.write(commit, &mut self.shadow);
    }

    /// Writes one commit of that length.
    pub fn write_bytes(&mut self, site: usize, length: usize) {
        let before = self.sites[site].engine.position();
        self.write_one(site, 1, length);
        self.seal(site, before);
    }

    /// Makes a node speak a protocol version, from its next start on.
    pub fn speaks(&mut self, site: usize, version: u16) {
        self.configs[site].version = version;
    }

    /// Whether any node keeps its log for a peer.
    pub fn holds(&self) -> bool {
        self.sites.iter().any(|site| site.hold.is_some())
    }

    /// Commits that one node has and another has not.
    pub fn lag(&self, of: usize, behind: usize) -> u64 {
        self.vector(of).missing_from(self.vector(behind))
    }

    /// Sets a node's clock wrong by that many ms.
    pub fn set_skew(&mut self, site: usize, skew: i64) {
        self.sites[site].skew = skew;
    }

    pub fn sync(&mut self, site: usize) {
        let engine = &mut self.sites[site].engine;
        engine.synced = engine.position();
    }

    pub fn trim(&mut self, site: usize) {
        let engine = &self.sites[site].engine;
        let count = self.rng.below(engine.synced.saturating_sub(engine.base) + 1);
        let to = (engine.base + count).min(self.sites[site].hold.unwrap_or(u64::MAX));
        self.sites[site].engine.trim(to);
    }

    pub fn trim_all(&mut self, site: usize) {
        let held = self.sites[site].hold.unwrap_or(u64::MAX);
        let to = self.sites[site].engine.synced.min(held);
        self.sites[site].engine.trim(to);
    }

    pub fn set_full(&mut self, site: usize, full: bool) {
        self.sites[site].full = full;
    }

    pub fn heal_engines(&mut self) {
        for site in &mut self.sites {
            site.full = false;
        }
    }

    /// Runs the events of the next `span` ms.
    pub fn run(&mut self, span: u64) {
        let until = self.now + span;
        while self.violation.is_none() {
            let Some(entry) = self.events.first_entry() else { break };
            if entry.key().0 > until {
                break;
            }
            self.now = entry.key().0;
            match entry.remove() {
                Event::Start { site } => self.start(site),
                Event::Timer { site, life, timer } if self.lives(site, life) => {
                    self.input(site, Input::Timer(timer));
                }
                Event::Dial { site, life, address } if self.lives(site, life) => {
                    self.dial(site, address);
                }
                Event::Engine { site, life } if self.lives(site, life) => self.engine(site),
                Event::Inbox { site, life } if self.lives(site, life) => {
                    if let Some(input) = self.sites[site].inbox.pop_front() {
                        self.input(site, input);
                    }
                }
                Event::Packet { conn, to, packet } => self.deliver(conn, to, packet),
                Event::Free { conn, to, written } => {
                    self.written(conn, to, written);
                    self.onto_wire(conn, to);
                }
                _ => {}
            }
        }
        self.now = until;
    }

    fn lives(&self, site: usize, life: u64) -> bool {
        self.sites[site].up && self.sites[site].life == life
    }

    pub fn converged(&self) -> bool {
        let first = &self.sites[0].engine.vector;
        self.sites.iter().all(|site| site.up && site.engine.vector == *first)
    }

    pub fn node(&self, site: usize) -> &Node {
        self.sites[site].node.as_ref().unwrap()
    }

    pub fn vector(&self, site: usize) -> &VersionVector {
        &self.sites[site].engine.vector
    }

    pub fn count(&self) -> usize {
        self.sites.len()
    }

    pub fn commits(&self) -> u64 {
        self.shadow.causes.len() as u64
    }
}
