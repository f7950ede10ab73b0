//! One node: the real engine and the real replication, driven as the server drives them.
//!
//! Two loops, as in the server: the engine's (ticks: clients, then what the peers' side handed over,
//! then deadlines, then one write) and the peers' (frames, timers, and what was sealed, in order). What
//! lies between them is queues, whose delays and losses the seed decides, as it does when rows are written
//! behind the log, and how far they have come when a node stops.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use lattis_engine::causal::{LogPosition, Millis, NodeId, Origin, VersionVector};
use lattis_engine::commit::{EncodedCommit, LogEntry};
use lattis_engine::store::{MemSnapshot, MemStore, StoreError};
use lattis_engine::{
    Engine, EngineConfig, Fresh, Generation, LogReader, OpenError, Refused, Sealed, Staged,
    StateReader, Tick,
};
use lattis_replication::{CloseReason, Input, LinkId, Node, Output, PeerEvent, Ticket};
use rand_core::RngCore;

use super::checkers::{self, Shadow, Tally, causality, durability};
use super::cluster::{Cluster, Event};
use super::types::TYPES;
use super::workload::{Script, dump};

/// From the peers' side to the engine.
#[derive(Debug)]
pub enum FromPeers {
    /// Commits to apply.
    Apply(Ticket, Vec<EncodedCommit>),
    /// A part of a state; with the last one, what the sender's shadow had.
    Join(Ticket, Bytes, Option<VersionVector>),
    /// A snapshot is wanted: its first part.
    Snapshot(Part),
    /// The log is needed from a position on.
    Hold(Option<LogPosition>),
}

/// A part of a snapshot that replication asks for.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// For whom.
    pub link: LinkId,
    /// Of which snapshot.
    pub snapshot: u64,
    /// Which.
    pub part: u64,
    /// About how many bytes.
    pub limit: usize,
}

/// From the engine to the peers' side.
#[derive(Debug)]
pub enum ToPeers {
    /// A part of a state was staged.
    Staged(Ticket),
    /// A ticket was not applied.
    Refused(Ticket, Option<(Origin, u64)>, String),
}

/// A node's end of a connection.
pub struct Link {
    /// Which connection.
    pub conn: usize,
    /// Which end.
    pub side: usize,
}

/// One node and its machine.
pub struct Site {
    /// What is on its disk.
    pub store: MemStore,
    /// Its data, while it runs.
    pub engine: Option<Engine<MemStore>>,
    /// Its replication, while it runs.
    pub node: Option<Node>,
    /// Counts starts, so that events of earlier lives are ignored.
    pub life: u64,
    /// Syncs every tick before it answers.
    pub always: bool,
    /// Its clock, less the true time.
    pub skew: i64,
    /// Clients that wait.
    pub requests: VecDeque<Script>,
    /// Its clock is ahead of most of its peers': its clients' writes are refused.
    pub clock_fenced: bool,
    /// The latest that its clock has shown.
    pub latest: Millis,
    /// What was seen hidden in this life, by which deadline.
    pub hidden: BTreeMap<&'static str, Millis>,
    /// A tick is under way.
    pub ticking: bool,
    /// Rows on their way to the disk.
    pub generation: Option<Generation>,
    /// The last life's writer.
    pub origin: Origin,
    /// Whether the last stop took nothing.
    pub kept: bool,
    /// An old copy of its disk, and what the checkers knew of it.
    pub backup: Option<(MemStore, Shadow)>,
    /// Its links.
    pub links: BTreeMap<LinkId, Link>,
    /// Snapshots that it sends, and what its shadow had when each was taken.
    pub states: BTreeMap<u64, (StateReader<MemSnapshot>, VersionVector)>,
    id: NodeId,
    inbox: VecDeque<FromPeers>,
    staged: Option<(Ticket, Staged)>,
    refused_epoch: Option<u64>,
    applied: Vec<Ticket>,
    answers: Vec<ToPeers>,
    outbox: VecDeque<Sealed>,
    outbox_bytes: usize,
    events: VecDeque<ToPeers>,
    log: Option<LogReader<MemStore>>,
    reported: LogPosition,
}

/// The longest state that is staged.
const STAGE_BYTES: usize = 1 << 30;

fn size(entries: &[LogEntry]) -> usize {
    let one = |entry: &LogEntry| match entry {
        LogEntry::Commit(commit) => commit.body.len() + 64,
        LogEntry::Barrier(vector) => vector.len() * 32 + 64,
    };
    entries.iter().map(one).sum()
}

impl Site {
    /// A machine with an empty disk.
    pub fn new(id: NodeId, always: bool, skew: i64) -> Site {
        Site {
            store: MemStore::new(),
            engine: None,
            node: None,
            life: 0,
            always,
            skew,
            requests: VecDeque::new(),
            clock_fenced: false,
            latest: Millis(0),
            hidden: BTreeMap::new(),
            ticking: false,
            generation: None,
            origin: Origin::default(),
            kept: true,
            backup: None,
            links: BTreeMap::new(),
            states: BTreeMap::new(),
            id,
            inbox: VecDeque::new(),
            staged: None,
            refused_epoch: None,
            applied: Vec::new(),
            answers: Vec::new(),
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            events: VecDeque::new(),
            log: None,
            reported: LogPosition(0),
        }
    }

    /// Whether a tick has anything to do.
    fn busy(&self, now: Millis) -> bool {
        let due = self.engine.as_ref().and_then(Engine::next_deadline).is_some_and(|at| at <= now);
        due || !self.requests.is_empty() || !self.inbox.is_empty()
    }

    fn refuse(&mut self, ticket: Ticket, why: String) {
        self.refused_epoch = Some(ticket.epoch);
        self.answers.push(ToPeers::Refused(ticket, None, why));
    }
}

/// A tick's verdict on what the peers sent.
type Wrong = Option<(&'static str, String)>;

impl Cluster {
    /// What the node's clock shows.
    pub fn wall(&self, site: usize) -> Millis {
        Millis(self.now.saturating_add_signed(self.sites[site].skew))
    }

    // ---- life and death ------------------------------------------------------------------------------

    /// Starts a node over what its disk holds. A machine in trouble may stop again before it serves.
    pub fn start(&mut self, at: usize) {
        if self.sites[at].engine.is_some() {
            return;
        }
        let trouble = self.foul && self.swarm.double && self.rng.chance(40);
        if trouble {
            self.count("double crashes");
            let failure = match self.rng.below(2) {
                0 => StoreError::Unknown("crash while starting".into()),
                _ => StoreError::Full("crash while starting".into()),
            };
            self.sites[at].store.fail_writes(Some(failure));
        }
        let fresh = Fresh { node: self.sites[at].id, nonce: self.rng.next_u64() };
        let config = EngineConfig {
            cache_bytes: self.swarm.cache_bytes,
            log_max_bytes: self.swarm.log_bytes,
            build_at_once: self.swarm.build_at_once,
            types: &TYPES,
            #[cfg(feature = "planted")]
            planted: self.fault.engine(),
            ..EngineConfig::default()
        };
        let wall = self.wall(at);
        let opened = Engine::open(self.sites[at].store.clone(), config, fresh, wall);
        let engine = match opened {
            Ok(engine) => engine,
            Err(OpenError::Store(StoreError::Full(_) | StoreError::Unknown(_))) => {
                self.note(format_args!("n{at} cannot start"));
                let keep = self.rng.below(self.sites[at].store.unsynced() as u64 + 1);
                self.sites[at].store.crash(keep as usize);
                let after = self.rng.below(100);
                return self.at(after, Event::Start { site: at });
            }
            Err(why) => return self.fail("durability", format!("n{at} refuses to start: {why}")),
        };
        let (origin, position) = (engine.origin(), engine.position());
        self.note(format_args!("n{at} starts as {origin} at {}", position.0));
        let log = engine.log();
        let entries = match log.read(LogPosition(0), usize::MAX, None) {
            Ok(chunk) => chunk.entries,
            Err(why) => return self.fail("durability", format!("n{at}: the log: {why}")),
        };
        let vector = engine.vector().clone();
        let (history, shadow) = (&mut self.history, &mut self.shadows[at]);
        let (lost, kept) = (self.sites[at].origin, self.sites[at].kept);
        let verdict =
            durability::reopened(history, shadow, &lost, &vector, position.0, &entries, kept);
        durability::synced(shadow);
        self.expect("durability", at, verdict);
        let mut config = self.swarm.config.clone();
        config.node_name = format!("n{at}");
        config.address = at.to_string();
        config.peers = self.peers_of[at].clone();
        #[cfg(feature = "planted")]
        {
            config.planted = self.fault.replication();
        }
        let site = &mut self.sites[at];
        site.node = Some(Node::new(config, origin, vector, position));
        site.engine = Some(engine);
        site.origin = origin;
        site.log = Some(log);
        site.reported = position;
        self.verify(at);
        if trouble && self.rng.chance(50) {
            return self.crash(at, false);
        }
        self.peers(at, Input::Start);
        self.poke(at);
    }

    /// Ends a process: with everything that it wrote, or losing some of what it had not synced.
    pub fn crash(&mut self, at: usize, keep: bool) {
        let site = &mut self.sites[at];
        if site.engine.take().is_none() {
            return;
        }
        let unsynced = site.store.unsynced() as u64;
        let kept = if keep { unsynced } else { self.rng.below(unsynced + 1) };
        let site = &mut self.sites[at];
        site.store.crash(kept as usize);
        site.kept = kept == unsynced;
        site.life += 1;
        site.node = None;
        site.log = None;
        let lost = site.generation.take().is_some();
        site.requests.clear();
        site.inbox.clear();
        site.staged = None;
        site.refused_epoch = None;
        site.applied.clear();
        site.answers.clear();
        site.outbox.clear();
        site.outbox_bytes = 0;
        site.events.clear();
        (site.ticking, site.clock_fenced) = (false, false);
        site.states.clear();
        site.hidden.clear();
        let links = std::mem::take(&mut site.links);
        self.note(format_args!("n{at} stops: {kept} of {unsynced} unsynced batches are left"));
        self.count(if keep { "kills" } else { "power cuts" });
        if lost {
            self.count("stops with rows under way");
        }
        if kept < unsynced {
            self.count("power cuts with loss");
        }
        for link in links.into_values() {
            self.close(link.conn, link.side);
        }
        let after = self.rng.below(200);
        self.at(after, Event::Start { site: at });
    }

    /// Copies the disk of a node, or ends it and puts the copy in place of the disk.
    pub fn back_up_or_restore(&mut self, at: usize) {
        let site = &mut self.sites[at];
        if site.engine.is_none() {
            return;
        }
        match site.backup.take() {
            None => {
                let mut shadow = self.shadows[at].clone();
                durability::synced(&mut shadow);
                site.backup = Some((site.store.copy(), shadow));
                self.note(format_args!("n{at} is backed up"));
            }
            Some((store, shadow)) => {
                // The same copy may be put back again.
                let again = self.rng.chance(50);
                self.sites[at].backup = again.then(|| (store.copy(), shadow.clone()));
                self.crash(at, true);
                self.note(format_args!("n{at} is restored"));
                self.count("restored disks");
                self.sites[at].store = store;
                self.shadows[at] = shadow;
            }
        }
    }

    /// Makes all that was written durable.
    pub fn sync(&mut self, at: usize) {
        let Some(engine) = &self.sites[at].engine else { return };
        if engine.sync().is_ok() {
            durability::synced(&mut self.shadows[at]);
        }
    }

    /// Sees to it that a tick comes if there is work.
    pub fn poke(&mut self, at: usize) {
        let wall = self.wall(at);
        let site = &mut self.sites[at];
        if site.ticking || site.engine.is_none() || !site.busy(wall) {
            return;
        }
        site.ticking = true;
        let life = site.life;
        let stall = self.foul && self.swarm.stalls && self.rng.chance(10);
        let after = self.rng.below(if stall { 80 } else { 4 });
        self.at(after, Event::Tick { site: at, life });
    }

    // ---- the engine's side ---------------------------------------------------------------------------

    /// One tick, as the server's.
    pub fn tick(&mut self, at: usize) {
        self.sites[at].ticking = false;
        let wall = self.wall(at);
        self.sites[at].latest = self.sites[at].latest.max(wall);
        let Some(mut engine) = self.sites[at].engine.take() else { return };
        let mut tick = engine.tick(wall);
        let mut tally = Tally::default();
        let (mut snapshots, mut hold) = (Vec::new(), None);
        let mut wrong: Wrong = None;
        let mut lost = false;
        let clients = 1 + self.rng.below(4);
        for _ in 0..clients {
            let Some(script) = self.sites[at].requests.pop_front() else { break };
            if self.sites[at].clock_fenced {
                continue;
            }
            let ran = script.run(&mut tick);
            let mark = ran.as_ref().map_or(0, |ran| ran.dot.seq);
            self.note(format_args!("n{at} {mark} {:?}", script.steps));
            tally.ran.extend(ran);
        }
        if tally.ran.len() > 1 {
            self.count("shared commits");
        }
        let messages = 1 + self.rng.below(6);
        for _ in 0..messages {
            let Some(message) = self.sites[at].inbox.pop_front() else { break };
            let site = &mut self.sites[at];
            match message {
                FromPeers::Apply(ticket, commits) => {
                    apply(site, &mut tick, ticket, &commits, &mut wrong)
                }
                FromPeers::Join(ticket, part, claim) => {
                    if let Some(mut generation) = site.generation.take() {
                        let result = generation.write(&site.store);
                        tick.written(generation, &result);
                        lost |= matches!(result, Err(StoreError::Unknown(_)));
                        if result.is_ok() {
                            durability::synced(&mut self.shadows[at]);
                        }
                    }
                    let site = &mut self.sites[at];
                    if join(site, &mut tick, ticket, &part, claim.is_some()) {
                        tally.claims.extend(claim);
                        self.count("transfers");
                    }
                }
                FromPeers::Snapshot(part) => snapshots.push(part),
                FromPeers::Hold(from) => hold = Some(from),
            }
        }
        let limit = 1 + self.rng.below(10) as usize;
        if !self.sites[at].clock_fenced {
            let _ = tick.expire_due(limit);
        }
        let sealed = match lost {
            false => tick.seal(self.sites[at].always),
            true => {
                drop(tick);
                Err(StoreError::Unknown("rows".into()))
            }
        };
        let mut failed = None;
        match sealed {
            Ok(None) => {}
            Ok(Some(sealed)) => {
                let verdict = checkers::deadlines::told(&sealed.entries, &engine.origin(), wall);
                self.expect("deadlines", at, verdict);
                self.sealed(at, &engine, sealed, &mut tally);
            }
            Err(StoreError::Full(why)) => {
                self.count("undone ticks");
                self.note(format_args!("n{at} undoes a tick"));
                // Readers read again, in a tick of their own.
                let mut tick = engine.tick(wall);
                if self.rng.chance(50) {
                    let _ = dump(&mut tick.txn());
                }
                let _ = tick.seal(false);
                failed = Some(why);
            }
            Err(StoreError::Unknown(_)) => {
                self.shadows[at].doubtful = tally.ran;
                self.shadows[at].claimed = tally.claims;
                self.sites[at].engine = Some(engine);
                self.count("unknown writes");
                return self.crash(at, false);
            }
            Err(error) => wrong = Some(("integrity", error.to_string())),
        }
        self.sites[at].engine = Some(engine);
        if let Some((invariant, why)) = wrong {
            return self.fail(invariant, format!("n{at}: {why}"));
        }
        self.settle(at, failed);
        if let (Some(from), Some(engine)) = (hold, &mut self.sites[at].engine) {
            engine.hold_log(from);
        }
        for part in snapshots {
            self.snapshot(at, part);
        }
        self.write_behind(at);
        self.wake(at);
        self.poke(at);
    }

    /// A tick was written: the checkers look at it, and it goes to the peers' side.
    fn sealed(&mut self, at: usize, engine: &Engine<MemStore>, sealed: Sealed, tally: &mut Tally) {
        let (history, shadow) = (&mut self.history, &mut self.shadows[at]);
        let verdict = causality::sealed(history, shadow, &engine.origin(), &sealed.entries, tally);
        let same = shadow.vector == sealed.vector && shadow.position == sealed.position.0;
        if self.sites[at].always {
            durability::synced(&mut self.shadows[at]);
        }
        self.expect("causality", at, verdict);
        if !same {
            self.fail("causality", format!("n{at}: the vector is not what was delivered"));
        }
        self.note(format_args!("n{at} seals {} at {}", sealed.entries.len(), sealed.position.0));
        if sealed.entries.is_empty() {
            return;
        }
        let site = &mut self.sites[at];
        site.outbox_bytes += size(&sealed.entries);
        let mut dropped = false;
        while site.outbox_bytes > self.swarm.outbox
            && let Some(oldest) = site.outbox.pop_front()
        {
            site.outbox_bytes -= size(&oldest.entries);
            dropped = true;
        }
        site.outbox.push_back(sealed);
        if dropped {
            self.count("outbox drops");
        }
    }

    /// Tells what became of the tick's tickets.
    fn settle(&mut self, at: usize, failed: Option<String>) {
        let site = &mut self.sites[at];
        let applied = std::mem::take(&mut site.applied);
        if let (Some(why), Some(first)) = (failed, applied.first()) {
            site.refuse(*first, why);
        }
        for answer in std::mem::take(&mut site.answers) {
            if matches!(answer, ToPeers::Refused(..)) {
                self.count("refusals");
            }
            self.sites[at].events.push_back(answer);
        }
    }

    /// Hands over rows to be written: now and then, and whenever much has gathered.
    fn write_behind(&mut self, at: usize) {
        let elements = self.rng.below(4) as usize;
        let Some(engine) = &mut self.sites[at].engine else { return };
        if engine.views_building() > 0 && elements > 0 {
            if let Err(why) = engine.build_views(elements) {
                return self.fail("views", format!("n{at}: {why}"));
            }
            self.count("slices of views");
        }
        let Some(engine) = &self.sites[at].engine else { return };
        if !engine.is_freezing() {
            let much = engine.is_behind();
            if !much && !self.rng.chance(30) {
                return;
            }
            if much {
                self.finish_writing(at);
            }
        }
        // In pieces, with ticks between them, or at once.
        let rows = if self.rng.chance(50) { self.rng.below(8) as usize } else { usize::MAX };
        let site = &mut self.sites[at];
        let taken = site.engine.as_mut().and_then(|engine| engine.freeze_some(rows));
        let Some(generation) = taken else { return };
        site.generation = Some(generation);
        let life = site.life;
        let slow = self.foul && self.rng.chance(20);
        let after = self.rng.below(if slow { 300 } else { 10 });
        self.at(after, Event::Written { site: at, life });
    }

    /// The rows that are under way reach the disk, or find that it fails.
    pub fn finish_writing(&mut self, at: usize) {
        let site = &mut self.sites[at];
        let (Some(mut generation), Some(engine)) = (site.generation.take(), &mut site.engine)
        else {
            return;
        };
        let result = generation.write(&site.store);
        engine.written(generation, &result);
        match result {
            Ok(()) => {
                durability::synced(&mut self.shadows[at]);
                self.count("generations");
            }
            Err(StoreError::Full(_)) => self.count("generations that found the disk full"),
            Err(_) => {
                self.count("unknown writes");
                self.crash(at, false);
            }
        }
    }

    fn snapshot(&mut self, at: usize, part: Part) {
        let link = part.link;
        self.finish_writing(at);
        let site = &mut self.sites[at];
        let Some(engine) = &mut site.engine else { return };
        let snapshot = match engine.snapshot() {
            Ok(snapshot) => snapshot,
            Err(StoreError::Unknown(_)) => {
                self.count("unknown writes");
                return self.crash(at, false);
            }
            Err(why) => {
                if let Some(link) = site.links.remove(&link) {
                    self.close(link.conn, link.side);
                }
                let why = format!("reading failed: {why}");
                return self.handle(at, Input::LinkDown { link, why });
            }
        };
        durability::synced(&mut self.shadows[at]);
        let claim = self.shadows[at].vector.clone();
        let (life, after) = (self.sites[at].life, self.rng.below(4));
        self.at(after, Event::Snapshot { site: at, life, part, snapshot, claim });
    }

    fn wake(&mut self, at: usize) {
        let (life, after) = (self.sites[at].life, self.rng.below(4));
        self.at(after, Event::Peers { site: at, life });
    }

    // ---- the peers' side -----------------------------------------------------------------------------

    /// One turn of the peers' loop with an input. What was sealed meanwhile may or may not be known yet.
    pub fn peers(&mut self, at: usize, input: Input) {
        if self.rng.chance(80) {
            self.take_sealed(at);
        }
        self.handle(at, input);
        self.poke(at);
    }

    /// Reports what was sealed, and what became of tickets.
    pub fn take_sealed(&mut self, at: usize) {
        while let Some(sealed) = self.sites[at].outbox.pop_front() {
            let Sealed { position, vector, entries } = sealed;
            self.sites[at].outbox_bytes -= size(&entries);
            self.sites[at].reported = position;
            self.handle(at, Input::Sealed { position, vector, entries });
        }
        while let Some(event) = self.sites[at].events.pop_front() {
            let input = match event {
                ToPeers::Staged(ticket) => Input::Staged { ticket },
                ToPeers::Refused(ticket, culprit, why) => Input::Refused { ticket, culprit, why },
            };
            self.handle(at, input);
        }
        self.poke(at);
    }

    /// A snapshot was taken.
    pub fn take_snapshot(
        &mut self,
        at: usize,
        part: Part,
        snapshot: MemSnapshot,
        claim: VersionVector,
    ) {
        self.take_sealed(at);
        match StateReader::new(snapshot) {
            Ok(reader) => {
                self.sites[at].states.insert(part.snapshot, (reader, claim));
                if let Some(input) = self.send_state(at, part) {
                    self.handle(at, input);
                }
            }
            Err(why) => self.fail("integrity", format!("n{at}: a snapshot: {why}")),
        }
    }

    fn send_state(&mut self, at: usize, part: Part) -> Option<Input> {
        let Part { link, snapshot, part, limit } = part;
        let (reader, claim) = self.sites[at].states.get_mut(&snapshot)?;
        let claim = claim.clone();
        let (bytes, last) = match reader.chunk(part, limit) {
            Ok(Some(chunk)) => chunk,
            outcome => {
                self.fail("integrity", format!("n{at}: part {part} of a snapshot: {outcome:?}"));
                return None;
            }
        };
        if let Some(link) = self.sites[at].links.get(&link) {
            self.conns[link.conn].claims[link.side] = Some(claim);
        }
        Some(Input::StateChunk { link, snapshot, part, bytes, last })
    }

    fn handle(&mut self, at: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let wall = self.wall(at);
            let Some(node) = &mut self.sites[at].node else { return };
            let mut outputs = Vec::new();
            node.handle(wall, input, &mut self.node_rng, &mut outputs);
            for output in outputs {
                inputs.extend(self.perform(at, output));
            }
        }
    }

    fn perform(&mut self, at: usize, output: Output) -> Option<Input> {
        let life = self.sites[at].life;
        match output {
            Output::Send { link, lane, frame } => {
                if let Some(Link { conn, side }) = self.sites[at].links.get(&link) {
                    let (conn, to) = (*conn, 1 - side);
                    self.send(conn, to, lane, &frame);
                }
            }
            Output::Close { link, why } => {
                self.note(format_args!("n{at} closes {link}: {why}"));
                self.count("closed links");
                if let Some(link) = self.sites[at].links.remove(&link) {
                    self.close(link.conn, link.side);
                }
            }
            Output::Dial { address } => {
                let after = 1 + self.rng.below(self.swarm.delay);
                self.at(after, Event::Dial { site: at, life, address });
            }
            Output::Arm { after, timer } => {
                self.at(after.0, Event::Timer { site: at, life, timer })
            }
            Output::Apply { ticket, commits, .. } => {
                self.sites[at].inbox.push_back(FromPeers::Apply(ticket, commits));
            }
            Output::Join { link, ticket, part, last } => {
                let claim = self.sites[at]
                    .links
                    .get(&link)
                    .and_then(|link| self.conns[link.conn].claims[1 - link.side].clone());
                let claim = last.then(|| claim.unwrap_or_default());
                self.sites[at].inbox.push_back(FromPeers::Join(ticket, part, claim));
            }
            Output::ReadLog { link, after, limit_bytes, known } => {
                let site = &self.sites[at];
                let read = site.log.as_ref()?.read(after, limit_bytes, known.as_ref());
                let mut chunk = match read {
                    Ok(chunk) => chunk,
                    Err(why) => {
                        self.fail("integrity", format!("n{at}: the log: {why}"));
                        return None;
                    }
                };
                let beyond = chunk.next.0.saturating_sub(site.reported.0) as usize;
                let kept = chunk.entries.len().saturating_sub(beyond);
                chunk.entries.truncate(kept);
                let upto = chunk.next.min(site.reported).max(after);
                self.count("log reads");
                if matches!(chunk.entries.first(), Some(LogEntry::Barrier(_))) {
                    self.count("log reads below the floor");
                }
                return Some(Input::LogChunk { link, upto, entries: chunk.entries });
            }
            Output::ReadCommits { link, ticket, origin, from, to, limit_bytes } => {
                self.count("grafts");
                match self.sites[at].log.as_ref()?.commits(origin, from, to, limit_bytes) {
                    Ok(found) => {
                        if found.truncated {
                            self.count("truncated grafts");
                        }
                        let (commits, truncated) = (found.commits, found.truncated);
                        return Some(Input::Grafted { link, ticket, commits, truncated });
                    }
                    Err(why) => self.fail("integrity", format!("n{at}: the log: {why}")),
                }
            }
            Output::ReadState { link, snapshot, part, limit_bytes: limit } => {
                let part = Part { link, snapshot, part, limit };
                if self.sites[at].states.contains_key(&snapshot) {
                    return self.send_state(at, part);
                } else if part.part == 0 {
                    self.sites[at].inbox.push_back(FromPeers::Snapshot(part));
                }
            }
            Output::DropState { snapshot } => drop(self.sites[at].states.remove(&snapshot)),
            Output::HoldLog { from } => self.sites[at].inbox.push_back(FromPeers::Hold(from)),
            Output::Report(event) => {
                self.note(format_args!("n{at} {event:?}"));
                match event {
                    // What a node that is gone had sent may arrive after what its next life sent, and an old
                    // copy of a disk brings back an old number. Only that link is refused; a node that lives
                    // must not take it for its own.
                    PeerEvent::Clone { node } if node != self.sites[at].id => {
                        self.count("older lives taken for clones");
                    }
                    PeerEvent::Fenced { .. } | PeerEvent::Clone { .. } => {
                        self.fail("dots", format!("n{at} is fenced: {event:?}"));
                    }
                    PeerEvent::Up { .. } => self.count("links"),
                    PeerEvent::Transfer { resumes: true, receives: true, .. } => {
                        self.count("transfers that go on");
                    }
                    PeerEvent::ClockHeld { ahead_ms: Some(_), .. } => self.count("clocks held"),
                    PeerEvent::OwnClock { ahead_ms } => {
                        self.count("clocks fenced");
                        self.sites[at].clock_fenced = ahead_ms.is_some();
                    }
                    PeerEvent::Down { link, why: CloseReason::Dead, .. } => {
                        self.count("dead links");
                        self.not_heard(at, link);
                    }
                    _ => {}
                }
            }
        }
        None
    }

    // ---- checks --------------------------------------------------------------------------------------

    /// Compares what a node keeps, and what it shows, with what it has delivered.
    pub fn verify(&mut self, at: usize) {
        let wall = self.wall(at);
        let Some(mut engine) = self.sites[at].engine.take() else { return };
        let views = checkers::views::check(&mut engine);
        let mut tick = engine.tick(wall);
        let mut txn = tick.txn();
        let reading = checkers::read(&mut txn);
        let births = checkers::births::check(&mut txn, self.settled);
        let site = &mut self.sites[at];
        site.latest = site.latest.max(wall);
        let (latest, seen) = (site.latest, &mut site.hidden);
        let passes = checkers::deadlines::passes(&mut txn, wall, latest, seen);
        drop(txn);
        drop(tick);
        self.sites[at].engine = Some(engine);
        self.expect("views", at, views);
        self.expect("deadlines", at, passes);
        let (reading, births) = match (reading, births) {
            (Ok(reading), Ok(births)) => (reading, births),
            (reading, births) => {
                let why = reading.err().or(births.err());
                return self.fail("integrity", format!("n{at} cannot read: {why:?}"));
            }
        };
        self.expect("births", at, births);
        let vector = &self.shadows[at].vector;
        let counters = checkers::counters::check(&self.history, vector, &reading);
        let elements = checkers::elements::check(&self.history, vector, &reading);
        let deadlines = checkers::deadlines::check(&self.history, vector, &reading);
        self.expect("counters", at, counters);
        self.expect("elements", at, elements);
        self.expect("deadlines", at, deadlines);
        if self.settled {
            self.finish_writing(at);
            let flushed = self.sites[at].engine.as_mut().map(Engine::flush);
            self.expect("durability", at, flushed.unwrap_or(Ok(())).map_err(|why| why.to_string()));
            let left = checkers::deadlines::finish(&self.sites[at].store, &reading);
            self.expect("deadlines", at, left);
        }
        self.expect("atomicity", at, checkers::atomicity::check(&reading));
        self.count("verifications");
    }

    /// What clients of a node see.
    pub fn dump(&mut self, at: usize) -> Vec<String> {
        let wall = self.wall(at);
        let Some(engine) = &mut self.sites[at].engine else { return Vec::new() };
        // What is compared is complete.
        while engine.build_views(2).unwrap_or(false) {}
        let mut tick = engine.tick(wall);
        match dump(&mut tick.txn()) {
            Ok(lines) => lines,
            Err(why) => vec![why.to_string()],
        }
    }
}

/// Applies commits of a peer. What is refused makes everything refused that may follow from it.
fn apply(
    site: &mut Site,
    tick: &mut Tick<'_, MemStore>,
    ticket: Ticket,
    commits: &[EncodedCommit],
    wrong: &mut Wrong,
) {
    if site.refused_epoch >= Some(ticket.epoch) {
        return;
    }
    site.applied.push(ticket);
    for commit in commits {
        match tick.apply(commit) {
            Ok(_) => {}
            Err(why) => {
                if let Refused::Gap(_) | Refused::Invalid(_) = why {
                    *wrong = Some(("causality", why.to_string()));
                }
                return site.refuse(ticket, why.to_string());
            }
        }
    }
}

/// Stages a part of a peer's state; true if the state was joined.
fn join(
    site: &mut Site,
    tick: &mut Tick<'_, MemStore>,
    ticket: Ticket,
    part: &[u8],
    last: bool,
) -> bool {
    if site.refused_epoch >= Some(ticket.epoch) {
        return false;
    }
    let staged = site.staged.take().filter(|(current, _)| *current == ticket);
    let (_, mut staged) = staged.unwrap_or_else(|| (ticket, Staged::new(&TYPES, STAGE_BYTES)));
    if let Err(why) = staged.add(part) {
        site.refuse(ticket, why.to_string());
        return false;
    }
    if !last {
        site.staged = Some((ticket, staged));
        site.answers.push(ToPeers::Staged(ticket));
        return false;
    }
    site.applied.push(ticket);
    // A store that fails here fails the tick, and the ticket with it.
    tick.join(&staged).is_ok()
}
