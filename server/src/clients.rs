//! The clients: their connections by place and by number, and which of them have something to do.
//!
//! One that is being served is taken out and put back, so that its command may do something to the others.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::net::conn::Conn;
use crate::session::Session;

/// All clients. They are found in O(1).
#[derive(Debug, Default)]
pub struct Clients {
    slots: Vec<Option<Box<Conn>>>,
    free: Vec<usize>,
    /// Places by the numbers of connections.
    places: HashMap<u64, usize>,
    last_id: u64,
    /// Those to serve, in order.
    ready: VecDeque<usize>,
    /// Those that may have something to send.
    touched: Vec<usize>,
    /// How many wait for an answer.
    waiting: usize,
    /// CLIENT PAUSE.
    pub pause: Option<Pause>,
    /// Those whose next command waits for its end.
    paused: Vec<usize>,
}

/// Clients wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Until then.
    pub until: Instant,
    /// With all commands, not only with those that write.
    pub all: bool,
}

impl Clients {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The place of the next one to come.
    pub fn next_place(&self) -> usize {
        self.free.last().copied().unwrap_or(self.slots.len())
    }

    /// The number of the next one to come; none is used twice.
    pub fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Adds one, at the [next place](Clients::next_place).
    pub fn insert(&mut self, conn: Conn) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.places.insert(conn.session.id, slot);
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(Box::new(conn));
        }
    }

    /// Lets one go.
    pub fn remove(&mut self, slot: usize) -> Option<Box<Conn>> {
        let conn = self.slots.get_mut(slot)?.take()?;
        self.places.remove(&conn.session.id);
        if conn.session.waits {
            self.waiting = self.waiting.saturating_sub(1);
        }
        if conn.queued {
            self.ready.retain(|other| *other != slot);
        }
        if conn.paused {
            self.paused.retain(|other| *other != slot);
        }
        self.free.push(slot);
        Some(conn)
    }

    /// The one at a place.
    pub fn at(&mut self, slot: usize) -> Option<&mut Conn> {
        self.slots.get_mut(slot).and_then(Option::as_deref_mut)
    }

    /// The place of the one of that number.
    pub fn find(&self, id: u64) -> Option<usize> {
        self.places.get(&id).copied()
    }

    /// All but the one that is being served.
    pub fn others(&self) -> impl Iterator<Item = (usize, &Conn)> {
        let conns = self.slots.iter().enumerate();
        conns.filter_map(|(slot, conn)| Some((slot, conn.as_deref()?)))
    }

    /// The same, to be changed.
    pub fn others_mut(&mut self) -> impl Iterator<Item = &mut Conn> {
        self.slots.iter_mut().filter_map(Option::as_deref_mut)
    }

    /// Takes one out to serve it. It is to be put back.
    pub fn take(&mut self, slot: usize) -> Option<Box<Conn>> {
        self.slots.get_mut(slot)?.take()
    }

    /// Puts it back.
    pub fn put_back(&mut self, slot: usize, conn: Box<Conn>) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(conn);
        }
    }

    /// Closes one once the tick is over, whatever is unsent.
    pub fn kill(&mut self, slot: usize) {
        if let Some(conn) = self.at(slot) {
            conn.dead = true;
        }
        self.touch(slot);
    }

    // ---- who has something to do

    /// Puts one on the list of those to serve.
    pub fn enqueue(&mut self, slot: usize) {
        if let Some(conn) = self.at(slot)
            && !conn.queued
        {
            conn.queued = true;
            self.ready.push_back(slot);
        }
    }

    /// How many are to be served.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes the next one of these.
    pub fn next_ready(&mut self) -> Option<(usize, Box<Conn>)> {
        while let Some(slot) = self.ready.pop_front() {
            self.touch(slot);
            if let Some(mut conn) = self.take(slot) {
                conn.queued = false;
                return Some((slot, conn));
            }
        }
        None
    }

    /// Puts one on the list of those that may have something to send.
    pub fn touch(&mut self, slot: usize) {
        if let Some(conn) = self.at(slot)
            && !conn.touched
        {
            conn.touched = true;
            self.touched.push(slot);
        }
    }

    /// That list.
    pub fn touched(&self) -> Vec<usize> {
        self.touched.clone()
    }

    /// Takes that list.
    pub fn take_touched(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.touched)
    }

    /// Gives the list back, to keep its memory.
    pub fn untouch(&mut self, mut touched: Vec<usize>) {
        touched.clear();
        if self.touched.is_empty() {
            self.touched = touched;
        }
    }

    // ---- waiting

    /// The client waits for an answer: nothing more of it runs until then.
    pub fn wait(&mut self, session: &mut Session) {
        session.waits = true;
        self.waiting += 1;
    }

    /// The one that waits has its answer, and goes on.
    pub fn go_on(&mut self, slot: usize) {
        if let Some(conn) = self.at(slot)
            && std::mem::take(&mut conn.session.waits)
        {
            self.waiting = self.waiting.saturating_sub(1);
        }
        self.touch(slot);
        self.enqueue(slot);
    }

    /// Pauses clients, for longer or more strictly than they are paused already.
    pub fn pause(&mut self, pause: Pause) {
        let before = self.pause.unwrap_or(pause);
        let (until, all) = (before.until.max(pause.until), before.all || pause.all);
        self.pause = Some(Pause { until, all });
    }

    /// The next command of one waits for the end of the pause.
    pub fn postpone(&mut self, slot: usize) {
        if let Some(conn) = self.at(slot)
            && !conn.paused
        {
            conn.paused = true;
            self.paused.push(slot);
        }
    }

    /// How many wait: for an answer, or for the end of a pause.
    pub fn blocked(&self) -> usize {
        self.waiting + self.paused.len()
    }

    /// Ends the pause, if it is over at that time, or at once. Who waited goes on.
    pub fn unpause(&mut self, now: Option<Instant>) {
        if self.pause.is_some_and(|pause| now.is_none_or(|now| pause.until <= now)) {
            self.pause = None;
            for slot in std::mem::take(&mut self.paused) {
                if let Some(conn) = self.at(slot) {
                    conn.paused = false;
                }
                self.enqueue(slot);
            }
        }
    }
}

/// What CLIENT LIST tells of buffers, as they were when the client was served last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// Bytes received and not yet executed.
    pub input: usize,
    /// Room for requests that has nothing in it.
    pub input_free: usize,
    /// Bytes of replies not yet sent.
    pub output: usize,
    /// Pieces that these replies lie in.
    pub chunks: usize,
    /// Bytes of its buffers and its queue.
    pub memory: usize,
}
