//! The cluster: a clock, a heap of events, and the weather.
//!
//! Everything happens in one thread, in the order of (time, a number drawn from the seed). First foul
//! weather: everything that the seed allows goes wrong, and at every step the checkers look. Then fair
//! weather, in which all nodes have to become equal in bounded time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use lattis_engine::causal::{NodeId, VersionVector};
use lattis_engine::store::{MemSnapshot, StoreError};
use lattis_replication::{Input, Node, PeerCommand, Timer};
use rand_core::RngCore;

use super::Fault;
use super::checkers::{History, Shadow, Verdict, convergence, deadlines, durability, show};
use super::network::Conn;
use super::node::{Part, Site};
use super::rng::Rng;
use super::swarm::Swarm;
use super::workload::Script;

/// Something that will happen. What carries a life happens only in that one.
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum Event {
    /// A timer of replication goes off.
    Timer { site: usize, life: u64, timer: Timer },
    /// A node dials.
    Dial { site: usize, life: u64, address: String },
    /// A packet arrives at a side of a connection.
    Deliver { conn: usize, to: usize },
    /// The wire towards a side takes the next frame; so many bytes of the payload lane are written.
    Wire { conn: usize, to: usize, written: u64 },
    /// The engine's loop turns.
    Tick { site: usize, life: u64 },
    /// The peers' side is woken.
    Peers { site: usize, life: u64 },
    /// A snapshot for a link is ready.
    Snapshot { site: usize, life: u64, part: Part, snapshot: MemSnapshot, claim: VersionVector },
    /// The rows that a node has handed over are written.
    Written { site: usize, life: u64 },
    /// A process is started.
    Start { site: usize },
    /// A disk takes writes again.
    Repair { site: usize, life: u64 },
    /// Deadlines are looked for.
    Cron,
}

/// How often each thing happened.
pub type Coverage = BTreeMap<&'static str, u64>;

/// What became of one seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The broken invariant, and how it was seen.
    pub failure: Option<(&'static str, String)>,
    /// A fingerprint of the trace.
    pub trace: u64,
    /// What was exercised.
    pub coverage: Coverage,
}

/// Everything in one world.
pub struct Cluster {
    pub(super) rng: Rng,
    pub(super) node_rng: Rng,
    pub(super) swarm: Swarm,
    #[cfg_attr(not(feature = "planted"), expect(dead_code, reason = "nothing is planted"))]
    pub(super) fault: Fault,
    pub(super) now: u64,
    pub(super) sites: Vec<Site>,
    pub(super) conns: Vec<Conn>,
    /// Addresses that each node is told to dial.
    pub(super) peers_of: Vec<Vec<String>>,
    /// Directions in which nothing passes.
    pub(super) cut: BTreeSet<(usize, usize)>,
    pub(super) next_link: u64,
    /// Whether things still go wrong.
    pub(super) foul: bool,
    /// Whether everything has come to rest.
    pub(super) settled: bool,
    pub(super) history: History,
    pub(super) shadows: Vec<Shadow>,
    events: BTreeMap<(u64, u64, u64), Event>,
    counter: u64,
    serial: u64,
    coverage: Coverage,
    failure: Option<(&'static str, String)>,
    trace: Trace,
}

/// Prints lines, and keeps their fingerprint.
struct Trace {
    hash: u64,
    print: bool,
    line: String,
}

/// Plays one seed.
pub fn run(seed: u64, fault: Fault, print: bool) -> Outcome {
    let mut cluster = Cluster::new(seed, fault, print);
    cluster.play();
    Outcome {
        seed,
        failure: cluster.failure,
        trace: cluster.trace.hash,
        coverage: cluster.coverage,
    }
}

impl Cluster {
    fn new(seed: u64, fault: Fault, print: bool) -> Cluster {
        let mut rng = Rng::new(seed, 1);
        let swarm = Swarm::draw(&mut rng);
        let mut peers_of = vec![Vec::new(); swarm.nodes];
        for (a, b) in &swarm.edges {
            let who = rng.below(3);
            if who != 0 {
                peers_of[*a].push(b.to_string());
            }
            if who != 1 {
                peers_of[*b].push(a.to_string());
            }
        }
        let mut cluster = Cluster {
            node_rng: Rng::new(seed, 2),
            fault,
            now: 1_000_000_000,
            sites: Vec::new(),
            conns: Vec::new(),
            peers_of,
            cut: BTreeSet::new(),
            next_link: 0,
            foul: true,
            settled: false,
            history: History::default(),
            shadows: vec![Shadow::default(); swarm.nodes],
            events: BTreeMap::new(),
            counter: 0,
            serial: 0,
            coverage: Coverage::new(),
            failure: None,
            trace: Trace { hash: 0xcbf2_9ce4_8422_2325, print, line: String::new() },
            rng,
            swarm,
        };
        for shadow in &mut cluster.shadows {
            shadow.states.insert(0, VersionVector::new());
        }
        for site in 0..cluster.swarm.nodes {
            let id = NodeId(cluster.rng.next_u64() >> 44);
            let always = cluster.swarm.always.contains(&site);
            let skew = cluster.rng.below(2 * cluster.swarm.skew + 1) as i64;
            let skew = skew - cluster.swarm.skew as i64;
            cluster.sites.push(Site::new(id, always, skew));
            let after = cluster.rng.below(20);
            cluster.at(after, Event::Start { site });
        }
        cluster.at(10, Event::Cron);
        cluster
    }

    // ---- what everything uses ------------------------------------------------------------------------

    /// Schedules an event.
    pub(super) fn at(&mut self, after: u64, event: Event) {
        self.counter += 1;
        let tie = self.rng.next_u64();
        self.events.insert((self.now + after, tie, self.counter), event);
    }

    /// Counts something for the coverage.
    pub(super) fn count(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_insert(0) += 1;
    }

    /// A line of the trace.
    pub(super) fn note(&mut self, what: fmt::Arguments<'_>) {
        let trace = &mut self.trace;
        trace.line.clear();
        let _ = write!(trace.line, "{} {what}", self.now);
        for byte in trace.line.bytes() {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if trace.print {
            println!("{}", trace.line);
        }
    }

    /// An invariant is broken.
    pub(super) fn fail(&mut self, invariant: &'static str, why: String) {
        if self.failure.is_none() {
            self.note(format_args!("{invariant}: {why}"));
            self.failure = Some((invariant, why));
        }
    }

    /// Takes a checker's verdict on a node.
    pub(super) fn expect(&mut self, invariant: &'static str, at: usize, verdict: Verdict) {
        if let Err(why) = verdict {
            self.fail(invariant, format!("n{at}: {why}"));
        }
    }

    // ---- the play ------------------------------------------------------------------------------------

    fn play(&mut self) {
        let swarm = format!("{:?}", (self.swarm.nodes, &self.swarm.edges, &self.swarm.always));
        self.note(format_args!("nodes, links, always: {swarm}"));
        self.pass(30);
        for _ in 0..self.swarm.steps {
            self.act();
            let span = self.rng.below(self.swarm.span);
            self.pass(span);
            self.moment();
            if self.failure.is_some() {
                return;
            }
        }
        self.clear_up();
        self.converge("the weather is fair");
        // All deadlines pass everywhere, and their removals reach everybody.
        let end = deadlines::last(&self.history);
        self.pass(50);
        for site in &mut self.sites {
            site.skew = end.0.saturating_sub(self.now) as i64 + 10;
        }
        self.pass(50);
        self.converge("all deadlines have passed");
        if self.failure.is_some() {
            return;
        }
        self.settled = true;
        for site in 0..self.sites.len() {
            self.verify(site);
        }
        let dumps: Vec<Vec<String>> = (0..self.sites.len()).map(|site| self.dump(site)).collect();
        let verdict = convergence::finish(&dumps);
        self.expect("convergence", 0, verdict);
    }

    /// Runs the events of the next `span` ms.
    fn pass(&mut self, span: u64) {
        let until = self.now + span;
        while self.failure.is_none() {
            let Some(entry) = self.events.first_entry() else { break };
            if entry.key().0 > until {
                break;
            }
            self.now = entry.key().0;
            let event = entry.remove();
            self.happen(event);
        }
        self.now = until;
    }

    fn lives(&self, site: usize, life: u64) -> bool {
        self.sites[site].engine.is_some() && self.sites[site].life == life
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { conn, to } => self.deliver(conn, to),
            Event::Wire { conn, to, written } => {
                self.written(conn, to, written);
                self.onto_wire(conn, to);
            }
            Event::Start { site } => self.start(site),
            Event::Cron => {
                for site in 0..self.sites.len() {
                    self.poke(site);
                }
                self.at(10, Event::Cron);
            }
            Event::Timer { site, life, timer } if self.lives(site, life) => {
                self.peers(site, Input::Timer(timer));
            }
            Event::Dial { site, life, address } if self.lives(site, life) => {
                self.dial(site, address);
            }
            Event::Repair { site, life } if self.lives(site, life) => {
                self.sites[site].store.fail_writes(None);
            }
            Event::Tick { site, life } if self.lives(site, life) => self.tick(site),
            Event::Written { site, life } if self.lives(site, life) => self.finish_writing(site),
            Event::Peers { site, life } if self.lives(site, life) => self.take_sealed(site),
            Event::Snapshot { site, life, part, snapshot, claim } if self.lives(site, life) => {
                self.take_snapshot(site, part, snapshot, claim);
            }
            _ => {}
        }
    }

    /// Clients write, or something goes wrong.
    fn act(&mut self) {
        let site = self.rng.below(self.swarm.nodes as u64) as usize;
        if self.rng.chance(self.swarm.writes) {
            return self.request(site);
        }
        match self.rng.below(100) {
            0..10 if self.swarm.kills => self.crash(site, true),
            10..20 if self.swarm.losses => self.crash(site, false),
            20..30 if self.swarm.resets && !self.conns.is_empty() => {
                let conn = self.rng.below(self.conns.len() as u64) as usize;
                // The newest are those that live.
                let conn = self.conns.len() - 1 - conn.min(self.rng.below(8) as usize);
                let sites = self.conns[conn].sites;
                self.note(format_args!("connection of {sites:?} breaks"));
                self.count("broken connections");
                self.break_conn(conn);
            }
            30..38 if self.swarm.partitions => self.partition(),
            38..42 if self.swarm.one_way => {
                let to = self.rng.below(self.swarm.nodes as u64) as usize;
                self.note(format_args!("n{site} no longer reaches n{to}"));
                self.count("one-way cuts");
                self.cut.insert((site, to));
            }
            94..100 => {
                self.note(format_args!("the network is healed"));
                self.heal();
            }
            42..54 if self.swarm.full => self.spoil(site, StoreError::Full("full".into())),
            54..56 if self.swarm.unknown => {
                self.spoil(site, StoreError::Unknown("no answer".into()));
            }
            56..60 => self.repair_disks(),
            60..70 => self.sync(site),
            70..75 if self.swarm.pauses => {
                let other = self.rng.below(self.swarm.nodes as u64);
                let name = self.rng.chance(70).then(|| format!("n{other}"));
                let pause = self.rng.chance(50);
                self.note(format_args!("n{site}: pause {pause} {name:?}"));
                self.count(if pause { "pauses" } else { "resumes" });
                let command = match pause {
                    true => PeerCommand::Pause { name },
                    false => PeerCommand::Resume { name },
                };
                self.peers(site, Input::Command(command));
            }
            75..79 if self.swarm.jumps > 0 => {
                let most = self.swarm.jumps;
                let by = self.rng.below(2 * most) as i64 - most as i64;
                self.note(format_args!("n{site}: the clock jumps by {by}"));
                self.count(if by < 0 { "clock jumps back" } else { "clock jumps ahead" });
                // What the clock has done so far is looked at, and what becomes of it.
                self.verify(site);
                self.sites[site].skew += by;
                self.verify(site);
            }
            79..87 if self.swarm.restores => self.back_up_or_restore(site),
            70..72 => self.accept_clocks(),
            87..94 => self.verify(site),
            _ => self.request(site),
        }
    }

    fn request(&mut self, site: usize) {
        let now = self.wall(site);
        for _ in 0..=self.rng.below(4) {
            self.serial += 1;
            let script = Script::draw(&mut self.rng, &self.swarm, now, self.serial);
            if self.sites[site].engine.is_some() {
                self.sites[site].requests.push_back(script);
                self.count("requests");
            }
        }
        self.poke(site);
    }

    /// Sets apart a group, or leaves one node as the only bridge, or cuts one pair.
    fn partition(&mut self) {
        self.count("partitions");
        let nodes = self.swarm.nodes;
        let pairs: Vec<(usize, usize)> = match self.rng.below(3) {
            0 => {
                let group = self.rng.below(1 << nodes);
                let side = |site: usize| group >> site & 1;
                let all = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
                all.filter(|(a, b)| side(*a) != side(*b)).collect()
            }
            1 => {
                let bridge = self.rng.below(nodes as u64) as usize;
                let all = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
                all.filter(|(a, b)| *a != bridge && *b != bridge).collect()
            }
            _ => {
                let a = self.rng.below(nodes as u64) as usize;
                let b = self.rng.below(nodes as u64) as usize;
                vec![(a, b), (b, a)]
            }
        };
        self.note(format_args!("cut {pairs:?}"));
        self.cut.extend(pairs);
    }

    fn spoil(&mut self, site: usize, failure: StoreError) {
        if self.sites[site].engine.is_some() {
            self.note(format_args!("n{site}: {failure}"));
            self.count("spoilt disks");
            self.sites[site].store.fail_writes(Some(failure));
            if self.rng.chance(75) {
                let (life, after) = (self.sites[site].life, 1 + self.rng.below(15));
                self.at(after, Event::Repair { site, life });
            }
        }
    }

    fn repair_disks(&mut self) {
        for site in &self.sites {
            if site.engine.is_some() {
                site.store.fail_writes(None);
            }
        }
    }

    /// What must hold at every moment.
    fn moment(&mut self) {
        let engines = self.sites.iter().enumerate();
        let nodes: Vec<(usize, &VersionVector, u128)> = engines
            .filter_map(|(site, it)| it.engine.as_ref().map(|e| (site, e.vector(), e.digest())))
            .collect();
        let equal = nodes.windows(2).filter(|pair| pair[0].1 == pair[1].1).count();
        if let Err(mut why) = convergence::moment(&nodes) {
            for site in 0..self.sites.len() {
                let dump = self.dump(site).join("\n    ");
                why.push_str(&format!(
                    "\nn{site} {}\n    {dump}",
                    show(&self.shadows[site].vector)
                ));
            }
            return self.fail("convergence", why);
        }
        if equal > 0 {
            self.count("equal moments");
        }
    }

    /// Nothing goes wrong any more.
    fn clear_up(&mut self) {
        self.note(format_args!("fair weather"));
        self.foul = false;
        self.heal();
        for site in 0..self.sites.len() {
            self.sites[site].store.fail_writes(None);
            self.sites[site].skew = 0;
            self.start(site);
            self.peers(site, Input::Command(PeerCommand::Resume { name: None }));
        }
    }

    /// Operators let go on what waits for a clock: everywhere, or once in a while somewhere.
    fn accept_clocks(&mut self) {
        for site in 0..self.sites.len() {
            let peers = self.sites[site].node.as_ref().map(Node::peers).unwrap_or_default();
            for peer in peers.into_iter().filter(|peer| peer.clock_held.is_some()) {
                self.count("clocks accepted");
                let name = peer.name;
                self.note(format_args!("n{site}: the clock of {name} is accepted"));
                self.peers(site, Input::Command(PeerCommand::AcceptClock { name }));
            }
        }
    }

    fn converge(&mut self, when: &str) {
        let mut owed = VersionVector::new();
        for shadow in &self.shadows {
            owed.join(&shadow.vector);
        }
        for _ in 0..300 {
            self.pass(100);
            self.accept_clocks();
            self.moment();
            if self.failure.is_some() {
                return;
            }
            let vectors: Vec<Option<&VersionVector>> =
                self.sites.iter().map(|site| Some(site.engine.as_ref()?.vector())).collect();
            if vectors.iter().all(|vector| vector.is_some() && *vector == vectors[0]) {
                let verdict = durability::finish(&owed, &self.shadows);
                return self.expect("durability", 0, verdict);
            }
        }
        let states: Vec<String> = self
            .sites
            .iter()
            .map(|site| match (&site.engine, &site.node) {
                (Some(engine), Some(node)) => {
                    let peers = node.peers();
                    let peers: Vec<String> =
                        peers.iter().map(|p| format!("{}:{}", p.name, p.state)).collect();
                    format!("{} {peers:?} {}", show(engine.vector()), node.explain())
                }
                _ => "down".to_owned(),
            })
            .collect();
        self.fail("liveness", format!("{when}, but nodes differ: {states:#?}"));
    }
}
