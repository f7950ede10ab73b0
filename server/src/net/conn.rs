//! One client's connection: socket, input, output, session.

use std::io::{self, Read};
use std::ops::Range;

use bytes::Bytes;

use super::output::Output;
use super::request::Scanner;
use super::stream::Stream;
use crate::clients::Sizes;
use crate::session::{Queue, Session};

/// A fresh input buffer.
const INPUT: usize = 16 * 1024;
/// Room for all of a request is taken when this part of it is there.
const ANNOUNCED: usize = 8;
/// Most bytes of one read.
const MAX_READ: usize = 256 * 1024;

/// Bytes that were received: `bytes()[start..]` is still to be executed.
#[derive(Debug, Default)]
pub struct Input {
    data: Vec<u8>,
    /// Instead of `data`, while a large request is executed: what it stores is then not copied.
    whole: Option<Bytes>,
    start: usize,
    filled: usize,
}

impl Input {
    /// Everything received and kept; [`start`](Input::start) says where the unread part begins.
    pub fn bytes(&self) -> &[u8] {
        let data = self.whole.as_deref().unwrap_or(&self.data);
        data.get(..self.filled).unwrap_or_default()
    }

    /// Where the next request begins.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Bytes still to be executed.
    pub fn pending(&self) -> usize {
        self.filled - self.start
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.data.capacity() + self.whole.as_ref().map_or(0, Bytes::len)
    }

    /// Marks bytes as executed. They stay readable until [`settle`](Input::settle).
    pub fn consume(&mut self, len: usize) {
        self.start = (self.start + len).min(self.filled);
    }

    /// Reads once. `needed`: bytes of the next request, as far as is known. The number of bytes, and
    /// whether there may be more.
    pub fn read(
        &mut self,
        stream: &mut Stream,
        needed: usize,
        pool: &mut Pool,
    ) -> io::Result<(usize, bool)> {
        if self.data.is_empty() {
            self.data = pool.take();
        } else if self.data.len() - self.filled < INPUT / 4 {
            self.grow(needed);
        }
        let end = self.data.len().min(self.filled + MAX_READ);
        let room = self.data.get_mut(self.filled..end).unwrap_or_default();
        let len = stream.read(room)?;
        let full = len == room.len();
        self.filled += len;
        Ok((len, full))
    }

    /// Makes room. Doubling keeps the cost of a big request linear in its length. What it will need is
    /// taken at once when a part of it is there: an announcement alone takes no memory.
    fn grow(&mut self, needed: usize) {
        let pending = self.pending();
        let len = if needed <= pending || pending < needed / ANNOUNCED {
            self.data.len() * 2
        } else {
            needed.max(INPUT)
        };
        if len <= self.data.len() {
            return;
        }
        let mut data = vec![0; len];
        if let (Some(to), Some(from)) =
            (data.get_mut(..pending), self.data.get(self.start..self.filled))
        {
            to.copy_from_slice(from);
        }
        (self.data, self.start, self.filled) = (data, 0, pending);
    }

    /// Lets the next request of that length be stored without a copy, if it fills the buffer.
    pub fn hand_over(&mut self, len: usize) {
        if self.whole.is_none() && len >= self.data.len() / 8 * 7 {
            self.whole = Some(Bytes::from(std::mem::take(&mut self.data)));
        }
    }

    /// The buffer, while it may be kept.
    pub fn whole(&self) -> Option<&Bytes> {
        self.whole.as_ref()
    }

    /// Forgets what was executed; gives an empty buffer back.
    pub fn settle(&mut self, pool: &mut Pool) {
        if let Some(whole) = self.whole.take() {
            self.data = whole.get(self.start..self.filled).unwrap_or_default().to_vec();
            (self.start, self.filled) = (0, self.data.len());
        }
        if self.start == self.filled {
            self.start = 0;
            self.filled = 0;
            pool.give(std::mem::take(&mut self.data));
        } else if self.start > self.filled / 2 {
            self.data.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.start = 0;
        }
    }
}

/// Input buffers of connections that have nothing pending: idle clients hold no memory.
#[derive(Debug, Default)]
pub struct Pool {
    buffers: Vec<Vec<u8>>,
}

impl Pool {
    /// Buffers kept.
    const KEPT: usize = 64;

    fn take(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_else(|| vec![0; INPUT])
    }

    fn give(&mut self, buffer: Vec<u8>) {
        if buffer.len() == INPUT && self.buffers.len() < Pool::KEPT {
            self.buffers.push(buffer);
        }
    }
}

/// What the tick has executed for a connection, until it is sealed.
#[derive(Debug)]
pub struct Done {
    /// The reply's place in the output.
    pub reply: Range<usize>,
    /// The request's place in the input.
    pub request: usize,
    /// The selected database.
    pub db: u16,
    /// Whether the reply is RESP3.
    pub resp3: bool,
    /// What a failed seal means for it.
    pub effect: Effect,
}

/// What a command did to the data.
#[derive(Debug)]
pub enum Effect {
    /// Nothing: its reply is right in any case.
    None,
    /// Read it: to be run again if the tick has not happened.
    Read,
    /// Changed it: an error if the tick has not happened.
    Write,
    /// Ran a transaction.
    Exec(Box<Queue>),
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    /// The socket.
    pub stream: Stream,
    /// The client.
    pub session: Session,
    /// Requests.
    pub input: Input,
    /// How far the next request is understood.
    pub scanner: Scanner,
    /// Replies.
    pub out: Output,
    /// What this tick has executed.
    pub done: Vec<Done>,
    /// The socket may have something to read.
    pub readable: bool,
    /// The peer will send no more: read on until that shows.
    pub half_closed: bool,
    /// Already in the list of connections to serve.
    pub queued: bool,
    /// Already in the list of connections that wait for the end of a pause.
    pub paused: bool,
    /// Already in the list of connections that were served in this tick.
    pub touched: bool,
    /// To be closed at once, whatever is unsent.
    pub dead: bool,
}

impl Conn {
    /// A new connection.
    pub fn new(stream: Stream, session: Session) -> Conn {
        Conn {
            stream,
            session,
            input: Input::default(),
            scanner: Scanner::new(),
            out: Output::default(),
            done: Vec::new(),
            readable: false,
            half_closed: false,
            queued: false,
            paused: false,
            touched: false,
            dead: false,
        }
    }

    /// Bytes of replies that are not sent.
    pub fn unsent(&self) -> usize {
        self.out.unsent()
    }

    /// Bytes that the connection holds for requests and replies.
    pub fn memory(&self) -> usize {
        let queue = self.session.multi.as_ref().map_or(0, Queue::size);
        self.input.memory() + self.out.memory() + queue
    }

    /// Takes note of the sizes of its buffers.
    pub fn measure(&mut self) {
        let (input, memory) = (self.input.pending(), self.memory());
        self.session.sizes = Sizes {
            input,
            input_free: self.input.memory().saturating_sub(input),
            output: self.unsent(),
            chunks: self.out.chunks(),
            memory,
        };
    }

    /// Sends as much as the socket takes; the number of bytes.
    pub fn flush(&mut self) -> usize {
        let mut written = 0;
        while self.out.unsent() > 0 {
            match self.out.send(&mut self.stream) {
                Ok(0) => {
                    self.dead = true;
                    break;
                }
                Ok(len) => written += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.dead = true;
                    break;
                }
            }
        }
        written
    }
}
