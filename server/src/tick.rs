//! The thread that owns the engine and the client sockets.
//!
//! One turn of its loop is a tick: read every ready socket once, execute every complete command, apply
//! what peers have sent, hide what has expired, write all of it to the log, and only then send the
//! replies. A tick that cannot be written has not happened: its writers are told so, its readers are run
//! again. Work is capped, so that no client makes the others wait for long.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lattis_engine::causal::Millis;
use lattis_engine::store::StoreError;
use mio::{Events, Interest, Poll, Token};

use crate::allocator::{self, Ebb};
use crate::behind::{Behind, Written};
use crate::clients::Pause;
use crate::commands;
use crate::config::AppendFsync;
use crate::data::Engine;
use crate::dispatch::{Turn, note_changes};
use crate::front::{CLIENTS, Front, Work};
use crate::net::stream::Listener;
use crate::port::Inspect;
use crate::process::Signals;
use crate::stats::Counter;
use crate::sync::{self, Syncer};
use crate::usage::{self, Memory};
use crate::world::World;

/// What wakes the loop besides clients and listeners.
pub const WAKER: Token = Token(0);
/// The pipe that signals write to.
pub const SIGNALS: Token = Token(1);
const LISTENERS: usize = 2;

/// The loop looks around at least that often.
pub const CRON: Duration = Duration::from_millis(100);
/// Connections accepted in one tick.
const ACCEPTS_PER_TICK: usize = 1000;
/// Keys expired in one tick.
const EXPIRED_PER_TICK: usize = 250;
/// Rows that are taken between two ticks, to be written behind: a third of a millisecond.
const FROZEN: usize = 4096;
/// Elements that are read for views between two ticks: a millisecond.
const BUILT: usize = 256;
/// When to look again whether rows are written that keys to be expired wait for.
const WRITTEN_SOON: Duration = Duration::from_millis(5);
/// How far the hybrid clock may be ahead of the wall clock, in ms, before it is told.
const CLOCK_LEAD: u64 = 1000;
/// How often a tick that fails is tried again, and told of in the log.
const RETRY: Duration = Duration::from_secs(1);

/// The thread's own state.
pub struct Loop {
    engine: Engine,
    poll: Poll,
    listeners: Vec<Listener>,
    signals: Signals,
    syncer: Syncer,
    /// While the disk is full: when the next tick may try to write.
    retry_at: Instant,
    /// After a failed tick: nothing expires and no further failure is logged until then.
    quiet_until: Instant,
    /// The hybrid clock is ahead of the wall clock, and that was told.
    clock_led: bool,
    /// What memory is held in vain.
    ebb: Ebb,
    /// Connections may wait in the backlog.
    accept_again: bool,
    /// Views are being built.
    building: bool,
    front: Front,
}

/// What the loop is made of.
pub struct Parts {
    /// The data.
    pub engine: Engine,
    /// With waker and signal pipe registered.
    pub poll: Poll,
    /// Listening sockets.
    pub listeners: Vec<Listener>,
    /// What asks to stop from outside.
    pub signals: Signals,
    /// The thread of `everysec`.
    pub syncer: Syncer,
    /// The thread that writes rows.
    pub behind: Behind,
    /// The rest.
    pub world: World,
}

impl Loop {
    /// A loop that is ready to run.
    pub fn new(mut parts: Parts) -> io::Result<Loop> {
        for (index, listener) in parts.listeners.iter_mut().enumerate() {
            parts.poll.registry().register(
                listener,
                Token(LISTENERS + index),
                Interest::READABLE,
            )?;
        }
        parts.poll.registry().register(&mut parts.signals.pipe, SIGNALS, Interest::READABLE)?;
        Ok(Loop {
            engine: parts.engine,
            poll: parts.poll,
            listeners: parts.listeners,
            signals: parts.signals,
            syncer: parts.syncer,
            retry_at: Instant::now(),
            quiet_until: Instant::now(),
            clock_led: false,
            ebb: Ebb::default(),
            accept_again: false,
            building: false,
            front: Front::new(parts.world, parts.behind),
        })
    }

    /// Serves until SHUTDOWN or a signal, then syncs and closes the engine.
    pub fn run(mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        let (mut cron, mut rested) = (Instant::now(), Instant::now());
        self.refresh_facts();
        while !self.front.world.shutdown {
            match self.poll.poll(&mut events, Some(self.timeout())) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("waiting for clients failed: {error}")),
            }
            self.front.world.now = wall_clock();
            self.front.world.instant = Instant::now();
            self.front.world.clients.unpause(Some(self.front.world.instant));
            self.take_events(&events);
            let inspections = self.tick();
            if !inspections.is_empty() {
                // They may read the whole state, for which all rows have to be written.
                self.finish_writing();
            }
            for inspect in inspections {
                inspect(&mut self.engine);
            }
            if let Some(from) = self.front.remote.hold.take() {
                self.engine.hold_log(from);
            }
            self.write_behind();
            self.build_views();
            let World { rates, stats, instant, .. } = &mut self.front.world;
            rates.sample(stats, *instant, CRON);
            let now = self.front.world.instant;
            if now.duration_since(rested) >= CRON {
                rested = now;
                self.engine.rest();
            }
            if now.duration_since(cron) >= Duration::from_secs(1) {
                cron = now;
                self.every_second();
            }
        }
        self.front.flush_everyone();
        self.finish_writing();
        drop(self.syncer);
        self.engine.close().map_err(|error| format!("closing the store failed: {error}"))
    }

    fn timeout(&self) -> Duration {
        let pause = self.front.world.clients.pause;
        let left = |pause: Pause| pause.until.saturating_duration_since(Instant::now());
        self.work_waits().min(pause.map_or(CRON, left))
    }

    /// How long until there is something to do that no event tells of.
    fn work_waits(&self) -> Duration {
        let front = &self.front;
        let works = self.engine.is_freezing() || self.accept_again || self.may_build();
        if works || front.has_work() {
            return Duration::ZERO;
        }
        match self.engine.next_deadline() {
            Some(deadline) if self.may_expire() => {
                // It has passed with the next millisecond.
                let passed = deadline.0.saturating_add(1);
                CRON.min(Duration::from_millis(passed.saturating_sub(wall_clock().0)))
            }
            Some(_) if self.front.behind.is_writing() => WRITTEN_SOON,
            _ => CRON,
        }
    }

    /// Whether the time of some key has passed.
    fn is_due(&self) -> bool {
        self.engine.next_deadline().is_some_and(|at| at < self.front.world.now)
    }

    /// Whether keys that are due can be expired now.
    fn may_expire(&self) -> bool {
        let world = &self.front.world;
        // A clock that is wrong must not say that a deadline has passed.
        world.refuse_writes.is_none()
            && world.clock_fenced.is_none()
            && world.clients.pause.is_none()
            && world.instant >= self.quiet_until
            // Clients would have to wait for what is written behind.
            && (self.engine.has_room() || !self.front.behind.is_writing())
    }

    fn take_events(&mut self, events: &Events) {
        let mut accept = std::mem::take(&mut self.accept_again);
        for event in events {
            match event.token() {
                WAKER => {}
                SIGNALS => self.front.world.shutdown |= self.signals.take(),
                Token(token) if token < CLIENTS => accept = true,
                Token(token) => {
                    let slot = token - CLIENTS;
                    let clients = &mut self.front.world.clients;
                    let Some(conn) = clients.at(slot) else { continue };
                    conn.readable |= event.is_readable();
                    conn.half_closed |= event.is_read_closed();
                    if event.is_readable() {
                        clients.enqueue(slot);
                    }
                    if event.is_writable() {
                        clients.touch(slot);
                    }
                }
            }
        }
        if accept {
            self.accept();
        }
    }

    fn accept(&mut self) {
        for listener in &self.listeners {
            for _ in 0..ACCEPTS_PER_TICK {
                let accepted = listener.accept();
                match accepted {
                    Ok(stream) => {
                        self.front.admit(stream, self.poll.registry());
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // Out of descriptors: connections wait in the backlog, the cron tries again.
                    Err(_) => break,
                }
            }
        }
    }

    /// One tick. What the peers' thread wants to do with the engine comes back, to be done after it.
    fn tick(&mut self) -> Vec<Inspect> {
        let mut inspections = Vec::new();
        // While the disk is full, a tick that writes nothing goes by; one per second may try.
        let refused = match self.front.world.instant >= self.retry_at && !self.front.remote.fenced {
            true => self.front.world.refuse_writes.take(),
            false => None,
        };
        let (may_expire, is_due) = (self.may_expire(), self.is_due());
        let front = &mut self.front;
        let due = may_expire && is_due;
        if !front.has_work() && !due {
            front.world.refuse_writes = refused.or(front.world.refuse_writes.take());
            front.tell_peers();
            front.send_replies();
            return inspections;
        }
        let tracking = front.turn.wants_tracking || !front.world.watch.is_empty();
        (front.turn, front.work) = (Turn { tracking, ..Turn::default() }, Work::default());
        self.engine.track_changes(tracking);
        let sync = front.world.config.appendfsync == AppendFsync::Always;
        self.syncer.wait_if_late();
        let mut tick = self.engine.tick(front.world.now);
        front.serve_clients(&mut tick);
        front.serve_peers(&mut tick, &mut inspections);
        if may_expire {
            // What fails here fails the seal.
            let _ = tick.expire_due(EXPIRED_PER_TICK);
        }
        note_changes(&mut front.world, &front.turn, &mut tick);
        match tick.seal(sync) {
            Ok(None) => {
                front.world.refuse_writes = refused.or(front.world.refuse_writes.take());
                front.settle(None);
            }
            Ok(Some(sealed)) => {
                if refused.is_some() {
                    tracing::info!("the disk takes writes again");
                }
                front.world.stats.add(Counter::Ticks, 1);
                self.syncer.wrote(front.world.config.appendfsync == AppendFsync::EverySec);
                front.world.port.publish(sealed.position, sealed.vector, sealed.entries);
                front.world.facts.position = sealed.position.0;
                front.settle(None);
            }
            Err(error) => self.unhappen(&error, refused.is_some()),
        }
        self.refresh_facts();
        self.front.send_replies();
        inspections
    }

    /// The tick has not happened: its writers get an error, its readers read again.
    fn unhappen(&mut self, error: &StoreError, again: bool) {
        let front = &mut self.front;
        front.world.stats.add(Counter::FailedTicks, 1);
        if !again && front.world.instant >= self.quiet_until {
            tracing::warn!("a tick has failed: {error}");
        }
        self.quiet_until = front.world.instant + RETRY;
        let why = commands::store_refusal(error);
        match error {
            StoreError::Full(_) => {
                let text = String::from_utf8_lossy(why.line()).into_owned();
                front.world.refuse_writes = Some(text);
                self.retry_at = self.quiet_until;
            }
            // A row that cannot be read fails who asks for it; a tick fails by one that all need.
            StoreError::Corrupt(_) => {}
            // Dots of the lost batch may be on the disk: nothing may be written before a new incarnation
            // is synced, which is what a start does.
            StoreError::Unknown(_) | StoreError::Unopened(_) => sync::fail(error),
        }
        for slot in front.world.clients.touched() {
            // A tick for each, so that what cannot be read fails for those who read it only.
            let mut tick = self.engine.tick(front.world.now);
            front.redo(&mut tick, slot, &why);
        }
        front.settle(Some(error));
    }

    /// Hands over what has gathered, if it is time to.
    fn write_behind(&mut self) {
        if let Some(written) = self.front.behind.poll() {
            self.written(written);
        }
        let now = self.front.world.instant;
        if !self.engine.is_freezing() {
            let much = self.engine.is_behind();
            let waits = self.is_due() && !self.engine.has_room();
            if !self.front.behind.is_due(now, much || (waits && !self.front.behind.is_writing())) {
                return;
            }
            if much {
                self.finish_writing();
            }
        }
        if let Some(generation) = self.engine.freeze_some(FROZEN) {
            self.front.behind.write(generation, now);
        }
    }

    /// Whether views are being built that can go on.
    fn may_build(&self) -> bool {
        let waits = !self.engine.has_room() && self.front.behind.is_writing();
        self.building && !waits && self.front.world.instant >= self.quiet_until
    }

    /// Builds views a little further.
    fn build_views(&mut self) {
        self.building = self.engine.views_building() > 0;
        if self.may_build() {
            match self.engine.build_views(BUILT) {
                Ok(more) => self.building = more,
                Err(error) => {
                    tracing::warn!("a view could not be built further: {error}");
                    self.quiet_until = self.front.world.instant + RETRY;
                }
            }
        }
    }

    fn finish_writing(&mut self) {
        if let Some(written) = self.front.behind.finish() {
            self.written(written);
        }
    }

    fn written(&mut self, (generation, result): Written) {
        self.engine.written(generation, &result);
    }

    fn refresh_facts(&mut self) {
        let facts = &mut self.front.world.facts;
        facts.origin = self.engine.origin();
        facts.vector = self.engine.vector().clone();
        facts.rows_digest = self.engine.rows_digest();
    }

    fn every_second(&mut self) {
        self.give_back();
        self.front.close_idle();
        self.accept_again = true;
        self.watch_clock();
        self.front.world.health.look(&self.engine);
        // A log that is held for a peer takes half of what is free, so that writes go on.
        if let Some(free) = usage::free_on_disk(&self.front.world.config.dir) {
            self.engine.set_log_room(self.engine.log_bytes().saturating_add(free / 2));
        }
    }

    /// Looks at the memory, and gives back what is held in vain.
    fn give_back(&mut self) {
        let world = &mut self.front.world;
        let used = Memory::measure(&self.engine, world).used();
        world.memory_peak = world.memory_peak.max(used);
        let resident = || usage::resident().unwrap_or(0);
        let before = resident();
        if self.ebb.is_due(before, used) {
            let began = Instant::now();
            allocator::give_back();
            let (took, after) = (began.elapsed(), resident());
            self.ebb.gave(after, used);
            let back = before.saturating_sub(after) >> 10;
            tracing::debug!("{back} kB of memory went back in {took:?}");
        }
    }

    /// Tells when this node's wall clock falls behind its hybrid clock, and when it no longer is: it was set
    /// back, or took over stamps of a clock that was ahead. Only the order of writes is reckoned by the one.
    fn watch_clock(&mut self) {
        let lead = self.engine.clock().millis().0.saturating_sub(self.front.world.now.0);
        let led = lead > CLOCK_LEAD;
        if led != std::mem::replace(&mut self.clock_led, led) {
            match led {
                true => tracing::warn!(
                    "this node's clock is {lead} ms behind stamps that it has made or seen: writes are \
                     stamped after those; times to live run by this clock"
                ),
                false => tracing::info!("this node's clock has caught up with its stamps"),
            }
        }
    }
}

/// The wall clock, in milliseconds since 1970.
pub fn wall_clock() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
