//! The thread that owns the engine and the client sockets.
//!
//! One turn of its loop is a tick: read every ready socket once, execute every complete command, apply
//! what peers have sent, hide what has expired, write all of it to the log, and only then send the
//! replies. A tick that cannot be written has not happened: its writers are told so, its readers are run
//! again. Work is capped, so that no client makes the others wait for long.

use std::collections::VecDeque;
use std::io;
use std::io::Write as _;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lattis_engine::causal::{LogPosition, Millis, Origin};
use lattis_engine::commit::EncodedCommit;
use lattis_engine::crdt::TYPES;
use lattis_engine::store::StoreError;
use lattis_engine::{Changed, Refused, Staged};
use lattis_replication::Ticket;
use mio::{Events, Interest, Poll, Token};

use crate::allocator::{self, Ebb};
use crate::behind::{Behind, Written};
use crate::commands::{self, Call, Command, CommandError, flag};
use crate::config::AppendFsync;
use crate::data::{Engine, Tick};
use crate::net::conn::{Conn, Done, Effect, Pool};
use crate::net::output::{Output, SHARED};
use crate::net::reply::Reply;
use crate::net::request::{Args, Limits, Scanner};
use crate::net::stream::{Listener, Stream};
use crate::port::{Answer, FromPeers, Inspect, Port, ToPeers};
use crate::process::Signals;
use crate::session::Session;
use crate::stats::Counter;
use crate::sync::{self, Syncer};
use crate::usage::{self, Memory};
use crate::world::{Client, World};

/// What wakes the loop besides clients and listeners.
pub const WAKER: Token = Token(0);
/// The pipe that signals write to.
pub const SIGNALS: Token = Token(1);
const LISTENERS: usize = 2;
const CLIENTS: usize = 16;

/// The loop looks around at least that often.
pub const CRON: Duration = Duration::from_millis(100);
/// Commands of one connection in one tick.
const COMMANDS_PER_CLIENT: usize = 1024;
/// Commands of all connections in one tick.
const COMMANDS_PER_TICK: usize = 8192;
/// Bytes of requests executed and of replies produced in one tick, and of what it writes to the log. The
/// command that passes it is the last one.
const BYTES_PER_TICK: usize = 8 << 20;
/// Connections accepted in one tick.
const ACCEPTS_PER_TICK: usize = 1000;
/// Messages of peers in one tick.
const MESSAGES_PER_TICK: usize = 256;
/// Bytes of a peer's state that are staged at most.
const STAGE_BYTES: usize = 4 << 30;
/// Keys expired in one tick.
const EXPIRED_PER_TICK: usize = 250;
/// Rows that are taken between two ticks, to be written behind: a third of a millisecond.
const FROZEN: usize = 4096;
/// When to look again whether rows are written that keys to be expired wait for.
const WRITTEN_SOON: Duration = Duration::from_millis(5);
/// How far the hybrid clock may be ahead of the wall clock, in ms, before it is told.
const CLOCK_LEAD: u64 = 1000;
/// How often a tick that fails is tried again, and told of in the log.
const RETRY: Duration = Duration::from_secs(1);

/// What a client from elsewhere is told that has to give no password, in Redis's words.
const PROTECTED: &[u8] = b"-DENIED Redis is running in protected mode because protected mode is enabled and \
    no password is set for the default user. In this mode connections are only accepted from the loopback \
    interface. If you want to connect from external computers to Redis you may adopt one of the following \
    solutions: 1) Just disable protected mode sending the command 'CONFIG SET protected-mode no' from the \
    loopback interface by connecting to Redis from the same host the server is running, however MAKE SURE \
    Redis is not publicly accessible from internet if you do so. Use CONFIG REWRITE to make this change \
    permanent. 2) Alternatively you can just disable the protected mode by editing the Redis configuration \
    file, and setting the protected mode option to 'no', and then restarting the server. 3) If you started \
    the server manually just for testing, restart it with the '--protected-mode no' option. 4) Setup a an \
    authentication password for the default user. NOTE: You only need to do one of the above things in order \
    for the server to start accepting connections from the outside.\r\n";

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
    shell: Shell,
}

/// Everything but the engine, so that a tick can borrow that one alone.
struct Shell {
    world: World,
    behind: Behind,
    conns: Vec<Option<Box<Conn>>>,
    free: Vec<usize>,
    count: usize,
    next_id: u64,
    pool: Pool,
    /// Connections to serve, in order.
    ready: VecDeque<usize>,
    /// Connections that were served in this tick.
    touched: Vec<usize>,
    /// Whether the engine reports changed keys in this tick.
    tracking: bool,
    /// A command waits for that.
    wants_tracking: bool,
    work: Work,
    /// What to tell the peers' thread once the tick is sealed.
    answers: Vec<ToPeers>,
    /// Tickets of commits that this tick has applied.
    applied: Vec<Ticket>,
    /// Everything of this epoch and before is refused: it may follow what was refused.
    refused_epoch: Option<u64>,
    /// The state of a peer as far as it has arrived.
    staged: Option<(Ticket, Staged)>,
    /// Another node lives under this one's name: writes are refused for good.
    fenced: bool,
    /// From where peers need the log.
    hold: Option<Option<LogPosition>>,
    accept_again: bool,
}

/// What a tick has done so far.
#[derive(Default)]
struct Work {
    commands: usize,
    /// Of requests and replies.
    bytes: usize,
    /// Of what the tick will write to the log: small requests may make much of it.
    written: usize,
    wrote: bool,
}

impl Work {
    fn is_full(&self) -> bool {
        self.commands >= COMMANDS_PER_TICK || self.bytes.max(self.written) >= BYTES_PER_TICK
    }
}

/// Whether a command was run.
#[derive(PartialEq, Eq)]
enum Ran {
    Yes,
    /// Not in this tick: it comes first in the next one.
    Later,
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
        let shell = Shell {
            world: parts.world,
            behind: parts.behind,
            conns: Vec::new(),
            free: Vec::new(),
            count: 0,
            next_id: 1,
            pool: Pool::default(),
            ready: VecDeque::new(),
            touched: Vec::new(),
            tracking: false,
            wants_tracking: false,
            work: Work::default(),
            answers: Vec::new(),
            applied: Vec::new(),
            refused_epoch: None,
            staged: None,
            fenced: false,
            hold: None,
            accept_again: false,
        };
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
            shell,
        })
    }

    /// Serves until SHUTDOWN or a signal, then syncs and closes the engine.
    pub fn run(mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        let (mut cron, mut rested) = (Instant::now(), Instant::now());
        self.refresh_facts();
        while !self.shell.world.shutdown {
            match self.poll.poll(&mut events, Some(self.timeout())) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("waiting for clients failed: {error}")),
            }
            self.shell.world.now = wall_clock();
            self.shell.world.instant = Instant::now();
            self.take_events(&events);
            let inspections = self.tick();
            if !inspections.is_empty() {
                // They may read the whole state, for which all rows have to be written.
                self.finish_writing();
            }
            for inspect in inspections {
                inspect(&mut self.engine);
            }
            if let Some(from) = self.shell.hold.take() {
                self.engine.hold_log(from);
            }
            self.write_behind();
            let World { rates, stats, instant, .. } = &mut self.shell.world;
            rates.sample(stats, *instant, CRON);
            let now = self.shell.world.instant;
            if now.duration_since(rested) >= CRON {
                rested = now;
                self.engine.rest();
            }
            if now.duration_since(cron) >= Duration::from_secs(1) {
                cron = now;
                self.every_second();
            }
        }
        self.shell.flush_everyone();
        self.finish_writing();
        drop(self.syncer);
        self.engine.close().map_err(|error| format!("closing the store failed: {error}"))
    }

    fn timeout(&self) -> Duration {
        let shell = &self.shell;
        let works = self.engine.is_freezing() || shell.accept_again || !shell.ready.is_empty();
        if works || shell.world.port.waiting() > 0 {
            return Duration::ZERO;
        }
        match self.engine.next_deadline() {
            Some(deadline) if self.may_expire() => {
                // It has passed with the next millisecond.
                let passed = deadline.0.saturating_add(1);
                CRON.min(Duration::from_millis(passed.saturating_sub(wall_clock().0)))
            }
            Some(_) if self.shell.behind.is_writing() => WRITTEN_SOON,
            _ => CRON,
        }
    }

    /// Whether the time of some key has passed.
    fn is_due(&self) -> bool {
        self.engine.next_deadline().is_some_and(|at| at < self.shell.world.now)
    }

    /// Whether keys that are due can be expired now.
    fn may_expire(&self) -> bool {
        let world = &self.shell.world;
        // A clock that is wrong must not say that a deadline has passed.
        world.refuse_writes.is_none()
            && world.clock_fenced.is_none()
            && world.instant >= self.quiet_until
            // Clients would have to wait for what is written behind.
            && (self.engine.has_room() || !self.shell.behind.is_writing())
    }

    fn take_events(&mut self, events: &Events) {
        let mut accept = std::mem::take(&mut self.shell.accept_again);
        for event in events {
            match event.token() {
                WAKER => {}
                SIGNALS => self.shell.world.shutdown |= self.signals.take(),
                Token(token) if token < CLIENTS => accept = true,
                Token(token) => {
                    let slot = token - CLIENTS;
                    let Some(conn) = self.shell.conn(slot) else { continue };
                    conn.readable |= event.is_readable();
                    conn.half_closed |= event.is_read_closed();
                    if event.is_readable() {
                        self.shell.enqueue(slot);
                    }
                    if event.is_writable() {
                        self.shell.touch(slot);
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
                        self.shell.admit(stream, self.poll.registry());
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
        let refused = match self.shell.world.instant >= self.retry_at && !self.shell.fenced {
            true => self.shell.world.refuse_writes.take(),
            false => None,
        };
        let (may_expire, is_due) = (self.may_expire(), self.is_due());
        let shell = &mut self.shell;
        let due = may_expire && is_due;
        if shell.ready.is_empty() && shell.world.port.waiting() == 0 && !due {
            shell.world.refuse_writes = refused.or(shell.world.refuse_writes.take());
            shell.tell_peers();
            shell.send_replies();
            return inspections;
        }
        shell.tracking = std::mem::take(&mut shell.wants_tracking) || !shell.world.watch.is_empty();
        shell.work = Work::default();
        self.engine.track_changes(shell.tracking);
        let sync = shell.world.config.appendfsync == AppendFsync::Always;
        self.syncer.wait_if_late();
        let mut tick = self.engine.tick(shell.world.now);
        shell.serve_clients(&mut tick);
        shell.serve_peers(&mut tick, &mut inspections);
        if may_expire {
            // What fails here fails the seal.
            let _ = tick.expire_due(EXPIRED_PER_TICK);
        }
        shell.note_changes(&mut tick);
        match tick.seal(sync) {
            Ok(None) => {
                shell.world.refuse_writes = refused.or(shell.world.refuse_writes.take());
                shell.settle(None);
            }
            Ok(Some(sealed)) => {
                if refused.is_some() {
                    tracing::info!("the disk takes writes again");
                }
                shell.world.stats.add(Counter::Ticks, 1);
                self.syncer.wrote(shell.world.config.appendfsync == AppendFsync::EverySec);
                shell.world.port.publish(sealed.position, sealed.vector, sealed.entries);
                shell.world.facts.position = sealed.position.0;
                shell.settle(None);
            }
            Err(error) => self.unhappen(&error, refused.is_some()),
        }
        self.refresh_facts();
        self.shell.send_replies();
        inspections
    }

    /// The tick has not happened: its writers get an error, its readers read again.
    fn unhappen(&mut self, error: &StoreError, again: bool) {
        let shell = &mut self.shell;
        shell.world.stats.add(Counter::FailedTicks, 1);
        if !again && shell.world.instant >= self.quiet_until {
            tracing::warn!("a tick has failed: {error}");
        }
        self.quiet_until = shell.world.instant + RETRY;
        let why = commands::store_refusal(error);
        match error {
            StoreError::Full(_) => {
                let text = String::from_utf8_lossy(why.line()).into_owned();
                shell.world.refuse_writes = Some(text);
                self.retry_at = self.quiet_until;
            }
            // A row that cannot be read fails who asks for it; a tick fails by one that all need.
            StoreError::Corrupt(_) => {}
            // Dots of the lost batch may be on the disk: nothing may be written before a new incarnation
            // is synced, which is what a start does.
            StoreError::Unknown(_) | StoreError::Unopened(_) => sync::fail(error),
        }
        for slot in shell.touched.clone() {
            // A tick for each, so that what cannot be read fails for those who read it only.
            let mut tick = self.engine.tick(shell.world.now);
            shell.redo(&mut tick, slot, &why);
        }
        shell.settle(Some(error));
    }

    /// Hands over what has gathered, if it is time to.
    fn write_behind(&mut self) {
        if let Some(written) = self.shell.behind.poll() {
            self.written(written);
        }
        let now = self.shell.world.instant;
        if !self.engine.is_freezing() {
            let much = self.engine.is_behind();
            let waits = self.is_due() && !self.engine.has_room();
            if !self.shell.behind.is_due(now, much || (waits && !self.shell.behind.is_writing())) {
                return;
            }
            if much {
                self.finish_writing();
            }
        }
        if let Some(generation) = self.engine.freeze_some(FROZEN) {
            self.shell.behind.write(generation, now);
        }
    }

    fn finish_writing(&mut self) {
        if let Some(written) = self.shell.behind.finish() {
            self.written(written);
        }
    }

    fn written(&mut self, (generation, result): Written) {
        self.engine.written(generation, &result);
    }

    fn refresh_facts(&mut self) {
        let facts = &mut self.shell.world.facts;
        facts.origin = self.engine.origin();
        facts.vector = self.engine.vector().clone();
        facts.rows_digest = self.engine.rows_digest();
    }

    fn every_second(&mut self) {
        self.give_back();
        self.shell.close_idle();
        self.shell.accept_again = true;
        self.watch_clock();
        self.shell.world.health.look(&self.engine);
        // A log that is held for a peer takes half of what is free, so that writes go on.
        if let Some(free) = usage::free_on_disk(&self.shell.world.config.dir) {
            self.engine.set_log_room(self.engine.log_bytes().saturating_add(free / 2));
        }
    }

    /// Looks at the memory, and gives back what is held in vain.
    fn give_back(&mut self) {
        let world = &mut self.shell.world;
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
        let lead = self.engine.clock().millis().0.saturating_sub(self.shell.world.now.0);
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

impl Shell {
    fn conn(&mut self, slot: usize) -> Option<&mut Conn> {
        self.conns.get_mut(slot).and_then(Option::as_deref_mut)
    }

    /// Puts a connection on the list of those to serve.
    fn enqueue(&mut self, slot: usize) {
        if let Some(conn) = self.conn(slot)
            && !conn.queued
        {
            conn.queued = true;
            self.ready.push_back(slot);
        }
    }

    /// Puts a connection on the list of those that may have something to send.
    fn touch(&mut self, slot: usize) {
        if let Some(conn) = self.conn(slot)
            && !conn.touched
        {
            conn.touched = true;
            self.touched.push(slot);
        }
    }

    // ---- coming and going

    fn admit(&mut self, mut stream: Stream, registry: &mio::Registry) {
        let config = &self.world.config;
        if self.count >= config.maxclients {
            self.world.stats.add(Counter::Rejected, 1);
            let _ = stream.write(b"-ERR max number of clients reached\r\n");
            return;
        }
        if config.protected_mode && config.password.is_empty() && !stream.is_local() {
            self.world.stats.add(Counter::Rejected, 1);
            let _ = stream.write(PROTECTED);
            return;
        }
        stream.tune(config.tcp_keepalive);
        let authenticated = config.password.is_empty();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.conns.push(None);
            self.world.clients.push(None);
            self.conns.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry.register(&mut stream, Token(CLIENTS + slot), interest).is_err() {
            self.free.push(slot);
            return;
        }
        let mut session = Session::new(self.next_id, stream.names());
        (session.local, session.authenticated) = (stream.is_local(), authenticated);
        self.next_id += 1;
        self.count += 1;
        self.world.stats.add(Counter::Connections, 1);
        let client = Client::new(&session, stream.as_fd().as_raw_fd(), self.world.instant);
        if let Some(place) = self.world.clients.get_mut(slot) {
            *place = Some(client);
        }
        if let Some(place) = self.conns.get_mut(slot) {
            *place = Some(Box::new(Conn::new(stream, session)));
        }
    }

    fn close(&mut self, slot: usize) {
        let Some(mut conn) = self.conns.get_mut(slot).and_then(Option::take) else { return };
        self.world.watch.unwatch(&mut conn.session);
        if conn.session.blocked {
            self.world.blocked_clients = self.world.blocked_clients.saturating_sub(1);
        }
        if let Some(client) = self.world.clients.get_mut(slot) {
            *client = None;
        }
        if conn.queued {
            self.ready.retain(|other| *other != slot);
        }
        self.free.push(slot);
        self.count -= 1;
    }

    fn close_idle(&mut self) {
        let timeout = self.world.config.timeout;
        if timeout == 0 {
            return;
        }
        let now = self.world.instant;
        let idle = |client: &Client| {
            !client.blocked && now.saturating_duration_since(client.active).as_secs() > timeout
        };
        let slots: Vec<usize> = self
            .world
            .clients
            .iter()
            .enumerate()
            .filter_map(|(slot, client)| client.as_ref().filter(|c| idle(c)).map(|_| slot))
            .collect();
        for slot in slots {
            self.close(slot);
        }
    }

    // ---- clients

    fn serve_clients(&mut self, tick: &mut Tick<'_>) {
        for _ in 0..self.ready.len() {
            if self.work.is_full() {
                break;
            }
            let Some(slot) = self.ready.pop_front() else { break };
            let Some(mut conn) = self.conns.get_mut(slot).and_then(Option::take) else { continue };
            conn.queued = false;
            if !conn.touched {
                conn.touched = true;
                self.touched.push(slot);
            }
            let again = self.serve(tick, &mut conn);
            if again && !conn.dead {
                conn.queued = true;
                self.ready.push_back(slot);
            }
            if let Some(client) = self.world.clients.get_mut(slot).and_then(Option::as_mut) {
                client.update(&conn.session, self.world.instant);
                client.measure(&conn);
            }
            if let Some(place) = self.conns.get_mut(slot) {
                *place = Some(conn);
            }
        }
    }

    /// Reads once and executes what is complete. True: there is more to do than this tick allows.
    fn serve(&mut self, tick: &mut Tick<'_>, conn: &mut Conn) -> bool {
        if conn.session.blocked || conn.session.closing || conn.dead {
            return false;
        }
        let unread = conn.input.pending() > 0 && conn.scanner.is_idle();
        if conn.readable && !unread {
            self.read(conn);
        }
        match self.execute_all(tick, conn) {
            // Everything complete is executed: go on if the socket has more.
            true => conn.readable && !conn.dead && !conn.session.closing && !conn.session.blocked,
            false => true,
        }
    }

    fn read(&mut self, conn: &mut Conn) {
        match conn.input.read(&mut conn.stream, conn.scanner.needed(), &mut self.pool) {
            Ok((0, _)) => conn.dead = true,
            Ok((len, full)) => {
                // A short read has emptied the socket, unless its end is still to be seen.
                conn.readable = full || conn.half_closed;
                self.world.stats.add(Counter::InputBytes, len as u64);
                let queued = conn.session.multi.as_ref().map_or(0, crate::session::Queue::size);
                if conn.input.pending() + queued > self.world.config.client_query_buffer_limit {
                    self.world.stats.add(Counter::InputDisconnects, 1);
                    conn.dead = true;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => conn.readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => conn.dead = true,
        }
    }

    /// Executes complete requests. False: the tick's share is used up, or a command has to wait for the
    /// next tick.
    fn execute_all(&mut self, tick: &mut Tick<'_>, conn: &mut Conn) -> bool {
        let limits = Limits {
            max_bulk: self.world.config.proto_max_bulk_len,
            authenticated: conn.session.authenticated,
        };
        let mut commands = 0;
        loop {
            if conn.session.blocked || conn.session.closing || conn.dead || self.world.shutdown {
                return true;
            }
            if commands >= COMMANDS_PER_CLIENT || self.work.is_full() {
                return false;
            }
            let start = conn.input.start();
            let request = conn.input.bytes().get(start..).unwrap_or_default();
            let len = match conn.scanner.scan(request, &limits) {
                Ok(Some(len)) => len,
                Ok(None) => return true,
                Err(error) => {
                    let text = format!("ERR {error}");
                    Reply::new(&mut conn.out, conn.session.resp3).error(text.as_bytes());
                    self.world.stats.error(text.as_bytes());
                    conn.session.closing = true;
                    return true;
                }
            };
            if len >= SHARED {
                conn.input.hand_over(len);
            }
            let request = conn.input.bytes().get(start..).unwrap_or_default();
            let args = conn.scanner.args(request).within(conn.input.whole());
            if !args.is_empty() {
                let before = conn.out.len();
                let (db, resp3) = (conn.session.db, conn.session.resp3);
                let (ran, effect) = self.dispatch(tick, &mut conn.session, &mut conn.out, args);
                if ran == Ran::Later {
                    conn.scanner.rewind();
                    return false;
                }
                let reply = before..conn.out.len();
                commands += 1;
                self.work.commands += 1;
                self.work.bytes += len + reply.len();
                if let Effect::Exec(queue) = &effect {
                    self.work.bytes += queue.size();
                }
                self.work.written = tick.bytes();
                conn.done.push(Done { reply, request: start, db, resp3, effect });
                let limit = self.world.config.output_buffer_limit;
                if limit > 0 && conn.unsent() > limit {
                    self.world.stats.add(Counter::OutputDisconnects, 1);
                    conn.dead = true;
                }
            }
            conn.input.consume(len);
        }
    }

    /// Runs, queues or refuses one request.
    fn dispatch(
        &mut self,
        tick: &mut Tick<'_>,
        session: &mut Session,
        out: &mut Output,
        args: Args<'_>,
    ) -> (Ran, Effect) {
        let done = (Ran::Yes, Effect::None);
        let command = match commands::resolve(args) {
            Ok(command) => command,
            Err(error) => {
                let name = args.at(0);
                if name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"HOST:") {
                    // A browser that was talked into posting commands: not a word.
                    session.closing = true;
                    return done;
                }
                if name.eq_ignore_ascii_case(b"EXEC") {
                    self.abort(session, out, &error);
                } else {
                    self.refuse(session, out, &error);
                }
                return done;
            }
        };
        if !session.authenticated && !command.is(flag::NO_AUTH) {
            let error = CommandError::Fixed("NOAUTH Authentication required.");
            match command.name == "exec" {
                true => self.abort(session, out, &error),
                false => self.refuse(session, out, &error),
            }
            return done;
        }
        session.last_command = command.name;
        let mut flags = command.flags;
        if let Some(queue) = &mut session.multi {
            if command.is(flag::NO_MULTI) {
                let error = CommandError::Fixed("ERR Command not allowed inside a transaction");
                self.refuse(session, out, &error);
                return done;
            }
            if !command.is(flag::UNQUEUED) {
                if let (Some(why), true) = (self.world.refuses(), command.is(flag::WRITE)) {
                    let error = CommandError::text(why.to_owned());
                    self.refuse(session, out, &error);
                    return done;
                }
                queue.push(command, args);
                Reply::new(out, session.resp3).simple("QUEUED");
                return done;
            }
            if command.name == "exec" {
                flags |= queue.flags;
            }
        } else if let (Some(why), true) = (self.world.refuses(), command.is(flag::WRITE)) {
            let error = CommandError::text(why.to_owned());
            self.refuse(session, out, &error);
            return done;
        }
        if flags & flag::SEALED != 0 && self.work.wrote {
            return (Ran::Later, Effect::None);
        }
        if flags & flag::TRACKED != 0 && !self.tracking {
            self.wants_tracking = true;
            return (Ran::Later, Effect::None);
        }
        self.run(tick, session, out, command, args);
        let effect = match session.executed.take() {
            Some(queue) => Effect::Exec(Box::new(queue)),
            None if command.is(flag::WRITE) => Effect::Write,
            None if command.is(flag::READONLY) => Effect::Read,
            None => Effect::None,
        };
        (Ran::Yes, effect)
    }

    fn refuse(&mut self, session: &mut Session, out: &mut Output, error: &CommandError) {
        self.world.stats.error(error.line());
        session.fail_transaction();
        Reply::new(out, session.resp3).error(error.line());
    }

    /// Refuses an EXEC that cannot be run: the transaction is over.
    fn abort(&mut self, session: &mut Session, out: &mut Output, error: &CommandError) {
        session.multi = None;
        self.world.watch.unwatch(session);
        self.refuse(session, out, &CommandError::aborted(error));
    }

    /// Runs a command as a transaction of its own. What an error leaves behind is its text.
    fn run(
        &mut self,
        tick: &mut Tick<'_>,
        session: &mut Session,
        out: &mut Output,
        command: &'static Command,
        args: Args<'_>,
    ) {
        self.world.stats.add(Counter::Commands, 1);
        let mark = out.len();
        let mut txn = tick.txn();
        let reply = Reply::new(out, session.resp3);
        let world = &mut self.world;
        let result =
            (command.run)(&mut Call { args, session: &mut *session, txn: &mut txn, reply, world });
        match result {
            Ok(()) => {
                self.work.wrote |= txn.commit().is_some();
                self.note_changes(tick);
            }
            Err(error) => {
                drop(txn);
                out.truncate(mark);
                Reply::new(out, session.resp3).error(error.line());
                self.world.stats.error(error.line());
            }
        }
    }

    /// Breaks the watch of those who watch what has changed.
    fn note_changes(&mut self, tick: &mut Tick<'_>) {
        if self.tracking {
            for changed in tick.take_changed() {
                match changed {
                    Changed::Key(db, key) => self.world.watch.changed(db, &key),
                    Changed::Db(db) => self.world.watch.cleared(db),
                }
            }
        }
    }

    /// Replaces the replies of a tick that has not happened.
    fn redo(&mut self, tick: &mut Tick<'_>, slot: usize, why: &CommandError) {
        let Some(mut conn) = self.conns.get_mut(slot).and_then(Option::take) else { return };
        let done = std::mem::take(&mut conn.done);
        if let Some(first) = done.first() {
            let start = first.reply.start;
            let old = conn.out.split_off(start);
            let mut out = std::mem::take(&mut conn.out);
            let (db, resp3) = (conn.session.db, conn.session.resp3);
            for done in &done {
                (conn.session.db, conn.session.resp3) = (done.db, done.resp3);
                let reply = done.reply.start - start..done.reply.end - start;
                self.redo_one(tick, &mut conn, done, (&old, reply), &mut out, why);
            }
            (conn.session.db, conn.session.resp3) = (db, resp3);
            // Behind the last command there may be a protocol error.
            let last = done.last().map_or(0, |done| done.reply.end - start);
            out.copy(&old, last..old.len());
            conn.out = out;
        }
        if let Some(place) = self.conns.get_mut(slot) {
            *place = Some(conn);
        }
    }

    fn redo_one(
        &mut self,
        tick: &mut Tick<'_>,
        conn: &mut Conn,
        done: &Done,
        (old, range): (&Output, Range<usize>),
        out: &mut Output,
        why: &CommandError,
    ) {
        let mut reply = Reply::new(out, done.resp3);
        match &done.effect {
            Effect::None => {
                reply.raw(old, range);
            }
            Effect::Write => reply.error(why.line()),
            Effect::Exec(queue) if queue.flags & flag::WRITE != 0 => {
                reply.error(CommandError::aborted(why).line());
            }
            Effect::Exec(queue) => {
                reply.array(queue.len());
                for (command, args) in queue.iter() {
                    self.run(tick, &mut conn.session, out, command, args);
                }
            }
            Effect::Read => {
                let mut scanner = Scanner::new();
                let request = conn.input.bytes().get(done.request..).unwrap_or_default();
                let limits = Limits { max_bulk: u64::MAX, authenticated: true };
                if let Ok(Some(_)) = scanner.scan(request, &limits) {
                    let args = scanner.args(request);
                    if let Ok(command) = commands::resolve(args) {
                        self.run(tick, &mut conn.session, out, command, args);
                    }
                }
            }
        }
    }

    // ---- peers

    fn serve_peers(&mut self, tick: &mut Tick<'_>, inspections: &mut Vec<Inspect>) {
        let port: Arc<Port> = Arc::clone(&self.world.port);
        for _ in 0..MESSAGES_PER_TICK {
            if self.work.is_full() {
                break;
            }
            match port.next_message() {
                None => break,
                Some(FromPeers::Apply { ticket, commits }) => self.apply(tick, ticket, &commits),
                Some(FromPeers::Join { ticket, part, last }) => {
                    self.join(tick, ticket, &part, last);
                }
                Some(FromPeers::Answer { client, answer }) => self.answer(client, &answer),
                Some(FromPeers::Inspect(inspect)) => inspections.push(inspect),
                Some(FromPeers::HoldLog { from }) => self.hold = Some(from),
                Some(FromPeers::ClockFenced { why }) => {
                    self.world.clock_fenced = why.map(|why| format!("MISCONF {why}"));
                }
                Some(FromPeers::Fenced { why }) => {
                    self.fenced = true;
                    self.world.refuse_writes = Some(format!("MISCONF {why}"));
                }
            }
        }
    }

    /// Applies commits of a peer. What is refused makes everything refused that may follow from it.
    fn apply(&mut self, tick: &mut Tick<'_>, ticket: Ticket, commits: &[EncodedCommit]) {
        if self.refused_epoch >= Some(ticket.epoch) {
            return;
        }
        if let Some(why) = self.world.refuse_writes.clone() {
            return self.refuse_ticket(ticket, None, why);
        }
        self.applied.push(ticket);
        for commit in commits {
            let applied = tick.apply(commit);
            self.work.written = tick.bytes();
            match applied {
                Ok(applied) => self.world.stats.add(Counter::RemoteCommits, u64::from(applied)),
                Err(why) => {
                    // A store that fails is no fault of what was sent.
                    let fault = !matches!(why, Refused::Store(_));
                    let culprit = fault.then_some((commit.origin, commit.first));
                    return self.refuse_ticket(ticket, culprit, why.to_string());
                }
            }
        }
        self.note_changes(tick);
    }

    /// Stages a part of a peer's state; the last one makes all of it visible in this tick.
    fn join(&mut self, tick: &mut Tick<'_>, ticket: Ticket, part: &[u8], last: bool) {
        if self.refused_epoch >= Some(ticket.epoch) {
            return;
        }
        let (_, mut staged) = self
            .staged
            .take()
            .filter(|(current, _)| *current == ticket)
            .unwrap_or_else(|| (ticket, Staged::new(&TYPES, STAGE_BYTES)));
        self.work.bytes += part.len();
        if let Err(why) = staged.add(part) {
            return self.refuse_ticket(ticket, None, why.to_string());
        }
        if !last {
            self.staged = Some((ticket, staged));
            self.answers.push(ToPeers::Staged(ticket));
            return;
        }
        if let Some(why) = self.world.refuse_writes.clone() {
            return self.refuse_ticket(ticket, None, why);
        }
        self.applied.push(ticket);
        if let Some((generation, result)) = self.behind.finish() {
            tick.written(generation, &result);
        }
        // A store that fails here fails the tick, and the ticket with it.
        let _ = tick.join(&staged);
        self.note_changes(tick);
    }

    fn refuse_ticket(&mut self, ticket: Ticket, culprit: Option<(Origin, u64)>, why: String) {
        self.refused_epoch = Some(ticket.epoch);
        self.answers.push(ToPeers::Refused { ticket, culprit, why });
    }

    /// Gives a blocked client its reply and lets it go on.
    fn answer(&mut self, client: u64, answer: &Answer) {
        let slot =
            self.world.clients.iter().position(|c| c.as_ref().is_some_and(|c| c.id == client));
        let Some(slot) = slot else { return };
        let Some(conn) = self.conn(slot).filter(|conn| conn.session.blocked) else { return };
        conn.session.blocked = false;
        write_answer(&mut Reply::new(&mut conn.out, conn.session.resp3), answer);
        self.world.blocked_clients = self.world.blocked_clients.saturating_sub(1);
        if let Some(client) = self.world.clients.get_mut(slot).and_then(Option::as_mut) {
            client.blocked = false;
        }
        self.touch(slot);
        self.enqueue(slot);
    }

    // ---- after the seal

    /// The tick is over: tells the peers' thread what became of its commits.
    fn settle(&mut self, failed: Option<&StoreError>) {
        let applied = std::mem::take(&mut self.applied);
        if let (Some(error), Some(first)) = (failed, applied.first()) {
            self.refuse_ticket(*first, None, error.to_string());
        }
        self.tell_peers();
    }

    /// Tells what the peers' thread waits for. What has no room in its queue is told after the next tick.
    fn tell_peers(&mut self) {
        let mut answers = std::mem::take(&mut self.answers).into_iter();
        for answer in answers.by_ref() {
            if let Err(answer) = self.world.port.tell(answer) {
                self.answers.push(answer);
                break;
            }
        }
        self.answers.extend(answers);
    }

    /// Sends what the touched connections have to send.
    fn send_replies(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            let Some(conn) = self.conns.get_mut(slot).and_then(Option::as_deref_mut) else {
                continue;
            };
            conn.touched = false;
            conn.done.clear();
            conn.input.settle(&mut self.pool);
            let written = if conn.dead { 0 } else { conn.flush() };
            self.world.stats.add(Counter::OutputBytes, written as u64);
            if let Some(client) = self.world.clients.get_mut(slot).and_then(Option::as_mut) {
                client.measure(conn);
            }
            if conn.dead || (conn.session.closing && conn.unsent() == 0) {
                self.close(slot);
            }
        }
        self.touched = touched;
    }

    fn flush_everyone(&mut self) {
        for conn in self.conns.iter_mut().flatten() {
            conn.flush();
        }
    }
}

fn write_answer(reply: &mut Reply<'_>, answer: &Answer) {
    match answer {
        Answer::Ok => reply.ok(),
        Answer::Error(text) => reply.error(text.as_bytes()),
        Answer::Integer(value) => reply.integer(*value),
        Answer::Text(text) => reply.bulk(text.as_bytes()),
        Answer::Array(items) => {
            reply.array(items.len());
            items.iter().for_each(|item| write_answer(reply, item));
        }
        Answer::Map(fields) => {
            reply.map(fields.len());
            for (name, value) in fields {
                reply.bulk(name.as_bytes());
                write_answer(reply, value);
            }
        }
    }
}

/// The wall clock, in milliseconds since 1970.
pub fn wall_clock() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
