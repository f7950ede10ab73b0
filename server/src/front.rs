//! What clients ask in a tick: their sockets are read, their requests executed, their replies sent.
//!
//! Work is capped, so that no client makes the others wait for long. Replies are sent when the tick is in the
//! log; those of one that could not be written are taken back and made anew.

use std::io;
use std::io::Write as _;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use mio::{Interest, Token};

use crate::behind::Behind;
use crate::commands::{self, CommandError, flag};
use crate::data::Tick;
use crate::dispatch::{Outcome, Turn, dispatch, run};
use crate::net::conn::{Conn, Done, Effect, Pool};
use crate::net::output::{Output, SHARED};
use crate::net::reply::Reply;
use crate::net::request::{Limits, Scanner};
use crate::net::stream::Stream;
use crate::remote::Remote;
use crate::session::{Queue, Session};
use crate::stats::Counter;
use crate::world::World;

/// Tokens of clients begin here.
pub const CLIENTS: usize = 16;
/// Commands of one connection in one tick.
const COMMANDS_PER_CLIENT: usize = 1024;
/// Commands of all connections in one tick.
const COMMANDS_PER_TICK: usize = 8192;
/// Bytes of requests executed and of replies produced in one tick, and of what it writes to the log. The
/// command that passes it is the last one.
const BYTES_PER_TICK: usize = 8 << 20;
/// Weights of views changed in one tick; the command, or the commit, that passes it is the last one.
const FLOWN_PER_TICK: usize = 2048;

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

/// Everything but the engine, so that a tick can borrow that one alone.
pub struct Front {
    /// The server around the data.
    pub world: World,
    /// What the tick has done so far.
    pub turn: Turn,
    /// How much of its share it has used.
    pub work: Work,
    /// What peers have sent.
    pub remote: Remote,
    /// What writes rows.
    pub behind: Behind,
    pool: Pool,
}

/// What a tick has done so far.
#[derive(Debug, Default)]
pub struct Work {
    commands: usize,
    /// Of requests and replies.
    pub bytes: usize,
    /// Of what the tick will write to the log: small requests may make much of it.
    written: usize,
    /// Weights of views that it has changed: one member may be in thousands of views.
    flown: usize,
}

impl Work {
    /// Whether the tick's share is used up.
    pub fn is_full(&self) -> bool {
        self.commands >= COMMANDS_PER_TICK
            || self.bytes.max(self.written) >= BYTES_PER_TICK
            || self.flown >= FLOWN_PER_TICK
    }

    /// Takes note of what the tick has done by now.
    pub fn measure(&mut self, tick: &Tick<'_>) {
        (self.written, self.flown) = (tick.bytes(), tick.flown());
    }
}

/// How far a client's requests were executed.
#[derive(PartialEq, Eq)]
enum Progress {
    /// All that are complete.
    All,
    /// The tick's share is used up, or a command has to wait for the next tick.
    More,
    /// The next one waits for the end of a pause.
    Paused,
}

impl Front {
    /// Nothing has happened yet.
    pub fn new(world: World, behind: Behind) -> Front {
        let (turn, work, remote) = (Turn::default(), Work::default(), Remote::default());
        Front { world, turn, work, remote, behind, pool: Pool::default() }
    }

    /// Whether clients or peers wait for a tick.
    pub fn has_work(&self) -> bool {
        let World { clients, port, .. } = &self.world;
        clients.ready() > 0 || port.waiting() > 0 || self.remote.has_rest()
    }

    // ---- coming and going

    /// Takes in a client, if there is room.
    pub fn admit(&mut self, mut stream: Stream, registry: &mio::Registry) {
        let config = &self.world.config;
        if self.world.clients.len() >= config.maxclients {
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
        let slot = self.world.clients.next_place();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry.register(&mut stream, Token(CLIENTS + slot), interest).is_err() {
            return;
        }
        let id = self.world.clients.next_id();
        let mut session = Session::new(id, stream.names(), self.world.instant);
        (session.local, session.authenticated) = (stream.is_local(), authenticated);
        session.fd = stream.as_fd().as_raw_fd();
        self.world.stats.add(Counter::Connections, 1);
        self.world.clients.insert(Conn::new(stream, session));
    }

    fn close(&mut self, slot: usize) {
        if let Some(mut conn) = self.world.clients.remove(slot) {
            self.world.watch.unwatch(&mut conn.session);
        }
    }

    /// Closes connections that have been idle for too long.
    pub fn close_idle(&mut self) {
        let timeout = self.world.config.timeout;
        if timeout == 0 {
            return;
        }
        let now = self.world.instant;
        let idle = |client: &Session| {
            !client.waits && now.saturating_duration_since(client.active).as_secs() > timeout
        };
        let idle = self.world.clients.others().filter(|(_, conn)| idle(&conn.session));
        let slots: Vec<usize> = idle.map(|(slot, _)| slot).collect();
        slots.into_iter().for_each(|slot| self.close(slot));
    }

    // ---- clients

    /// Serves those who have something to do, each once.
    pub fn serve_clients(&mut self, tick: &mut Tick<'_>) {
        for _ in 0..self.world.clients.ready() {
            if self.work.is_full() {
                break;
            }
            let Some((slot, mut conn)) = self.world.clients.next_ready() else { break };
            let progress = self.serve(tick, &mut conn);
            let (again, left) = (progress == Progress::More && !conn.dead, conn.half_closed);
            conn.session.active = self.world.instant;
            conn.measure();
            self.world.clients.put_back(slot, conn);
            match progress {
                // Whoever has left does not wait.
                Progress::Paused if left => self.world.clients.kill(slot),
                Progress::Paused => self.world.clients.postpone(slot),
                _ if again => self.world.clients.enqueue(slot),
                _ => {}
            }
        }
    }

    /// Reads once and executes what is complete.
    fn serve(&mut self, tick: &mut Tick<'_>, conn: &mut Conn) -> Progress {
        if conn.session.waits || conn.session.closing || conn.dead {
            return Progress::All;
        }
        let unread = conn.input.pending() > 0 && conn.scanner.is_idle();
        if conn.readable && !unread {
            self.read(conn);
        }
        match self.execute_all(tick, conn) {
            // Go on if the socket has more.
            Progress::All if conn.readable && !conn.session.closing && !conn.session.waits => {
                Progress::More
            }
            progress => progress,
        }
    }

    fn read(&mut self, conn: &mut Conn) {
        match conn.input.read(&mut conn.stream, conn.scanner.needed(), &mut self.pool) {
            Ok((0, _)) => conn.dead = true,
            Ok((len, full)) => {
                // A short read has emptied the socket, unless its end is still to be seen.
                conn.readable = full || conn.half_closed;
                self.world.stats.add(Counter::InputBytes, len as u64);
                let queued = conn.session.multi.as_ref().map_or(0, Queue::size);
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

    /// Executes complete requests.
    fn execute_all(&mut self, tick: &mut Tick<'_>, conn: &mut Conn) -> Progress {
        let limits = Limits {
            max_bulk: self.world.config.proto_max_bulk_len,
            authenticated: conn.session.authenticated,
        };
        let mut commands = 0;
        loop {
            if conn.session.waits || conn.session.closing || conn.dead || self.world.shutdown {
                return Progress::All;
            }
            if commands >= COMMANDS_PER_CLIENT || self.work.is_full() {
                return Progress::More;
            }
            let start = conn.input.start();
            let request = conn.input.bytes().get(start..).unwrap_or_default();
            let len = match conn.scanner.scan(request, &limits) {
                Ok(Some(len)) => len,
                Ok(None) => return Progress::All,
                Err(error) => {
                    let text = format!("ERR {error}");
                    Reply::new(&mut conn.out, conn.session.resp3).error(text.as_bytes());
                    self.world.stats.error(text.as_bytes());
                    conn.session.closing = true;
                    return Progress::All;
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
                let Front { world, turn, .. } = &mut *self;
                let (session, out) = (&mut conn.session, &mut conn.out);
                let effect = match dispatch(world, turn, tick, session, out, args) {
                    Outcome::Done(effect) => effect,
                    waits => {
                        conn.scanner.rewind();
                        return match waits {
                            Outcome::Paused => Progress::Paused,
                            _ => Progress::More,
                        };
                    }
                };
                let reply = before..conn.out.len();
                commands += 1;
                self.work.commands += 1;
                self.work.bytes += len + reply.len();
                if let Effect::Exec(queue) = &effect {
                    self.work.bytes += queue.size();
                }
                self.work.measure(tick);
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

    /// Replaces the replies of a tick that has not happened.
    pub fn redo(&mut self, tick: &mut Tick<'_>, slot: usize, why: &CommandError) {
        let Some(mut conn) = self.world.clients.take(slot) else { return };
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
        self.world.clients.put_back(slot, conn);
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
        let Front { world, turn, .. } = &mut *self;
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
                    run(world, turn, tick, &mut conn.session, out, command, args);
                }
            }
            Effect::Read => {
                let mut scanner = Scanner::new();
                let request = conn.input.bytes().get(done.request..).unwrap_or_default();
                let limits = Limits { max_bulk: u64::MAX, authenticated: true };
                if let Ok(Some(_)) = scanner.scan(request, &limits) {
                    let args = scanner.args(request);
                    if let Ok(command) = commands::resolve(args) {
                        run(world, turn, tick, &mut conn.session, out, command, args);
                    }
                }
            }
        }
    }

    // ---- after the seal

    /// Sends what the touched connections have to send.
    pub fn send_replies(&mut self) {
        let touched = self.world.clients.take_touched();
        for slot in &touched {
            let World { clients, stats, .. } = &mut self.world;
            let Some(conn) = clients.at(*slot) else { continue };
            conn.touched = false;
            conn.done.clear();
            conn.input.settle(&mut self.pool);
            let written = if conn.dead { 0 } else { conn.flush() };
            stats.add(Counter::OutputBytes, written as u64);
            conn.measure();
            if conn.dead || (conn.session.closing && conn.unsent() == 0) {
                self.close(*slot);
            }
        }
        self.world.clients.untouch(touched);
    }

    /// Sends to all what can be sent.
    pub fn flush_everyone(&mut self) {
        self.world.clients.others_mut().for_each(|conn| {
            conn.flush();
        });
    }
}
