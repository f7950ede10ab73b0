//! What the server remembers of one client between its commands.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

use crate::clients::Sizes;
use crate::commands::Command;
use crate::net::output::SHARED;
use crate::net::request::Args;

/// A client's side of its connection.
#[derive(Debug)]
pub struct Session {
    /// The number of the connection since the start, never used twice.
    pub id: u64,
    /// The client's address, and the one that it connected to.
    pub names: (String, String),
    /// The descriptor of its socket.
    pub fd: i32,
    /// When it connected.
    pub since: Instant,
    /// When it last sent something.
    pub active: Instant,
    /// Its buffers.
    pub sizes: Sizes,
    /// Whether the client is on this machine.
    pub local: bool,
    /// The selected database.
    pub db: u16,
    /// Whether replies are RESP3.
    pub resp3: bool,
    /// CLIENT SETNAME.
    pub name: Bytes,
    /// CLIENT SETINFO LIB-NAME.
    pub library_name: Bytes,
    /// CLIENT SETINFO LIB-VER.
    pub library_version: Bytes,
    /// Whether the client may do more than authenticate.
    pub authenticated: bool,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// Commands since MULTI.
    pub multi: Option<Queue>,
    /// The transaction that EXEC has just run: the tick keeps it until it is sealed.
    pub executed: Option<Queue>,
    /// Keys of WATCH by database and name, and whether they were there.
    pub watched: HashMap<(u16, Bytes), bool>,
    /// A command waits for its answer: nothing more of this client runs until then.
    pub waits: bool,
    /// CLIENT REPLY.
    pub silence: Silence,
    /// To be closed once the replies are out.
    pub closing: bool,
    /// The name of the last command.
    pub last_command: &'static str,
}

impl Session {
    /// A fresh client.
    pub fn new(id: u64, names: (String, String), now: Instant) -> Session {
        Session {
            id,
            names,
            fd: -1,
            since: now,
            active: now,
            sizes: Sizes::default(),
            local: false,
            db: 0,
            resp3: false,
            name: Bytes::new(),
            library_name: Bytes::new(),
            library_version: Bytes::new(),
            authenticated: true,
            no_evict: false,
            multi: None,
            executed: None,
            watched: HashMap::new(),
            waits: false,
            silence: Silence::default(),
            closing: false,
            last_command: "NULL",
        }
    }

    /// Marks the transaction that is being queued, if there is one, as one that EXEC will refuse.
    pub fn fail_transaction(&mut self) {
        if let Some(queue) = &mut self.multi {
            queue.failed = true;
        }
    }
}

/// Which replies a client does not get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Silence {
    /// It gets all.
    #[default]
    Off,
    /// That of the command that has just asked for it, and of the next one.
    Next,
    /// That of the command that runs.
    This,
    /// None.
    On,
}

impl Silence {
    /// Whether the reply of the command that has just run is held back.
    pub fn hides(&mut self) -> bool {
        let hides = *self != Silence::Off;
        *self = match *self {
            Silence::Next => Silence::This,
            Silence::This => Silence::Off,
            other => other,
        };
        hides
    }
}

/// Commands between MULTI and EXEC: the bytes of most in one buffer, of large ones in their own.
#[derive(Debug, Default)]
pub struct Queue {
    bytes: Vec<u8>,
    spans: Vec<Range<usize>>,
    commands: Vec<(&'static Command, Range<usize>)>,
    /// By the number of the command.
    large: Vec<(usize, Bytes)>,
    large_bytes: usize,
    /// A command was refused while it was queued.
    pub failed: bool,
    /// Flags that any of the commands has.
    pub flags: u32,
}

impl Queue {
    /// Appends a request: a copy, unless it is large and may be kept.
    pub fn push(&mut self, command: &'static Command, args: Args<'_>) {
        let first = self.spans.len();
        if args.size() >= SHARED {
            let (bytes, spans) = args.request();
            self.large_bytes += bytes.len();
            self.large.push((self.commands.len(), bytes));
            self.spans.extend_from_slice(spans);
        } else {
            for arg in args.from(0) {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(arg);
                self.spans.push(start..self.bytes.len());
            }
        }
        self.commands.push((command, first..self.spans.len()));
        self.flags |= command.flags;
    }

    /// Number of commands.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether there are no commands.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Bytes that the queue holds.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.large_bytes + self.spans.len() * 16 + self.commands.len() * 24
    }

    /// The commands in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Command, Args<'_>)> {
        let mut large = self.large.iter().peekable();
        self.commands.iter().enumerate().map(move |(number, (command, spans))| {
            let spans = self.spans.get(spans.clone()).unwrap_or_default();
            let args = match large.next_if(|(at, _)| *at == number) {
                Some((_, bytes)) => Args::new(bytes, spans).within(Some(bytes)),
                None => Args::new(&self.bytes, spans),
            };
            (*command, args)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands;

    #[test]
    fn large_requests_are_queued_where_they_are() {
        let whole = Bytes::from([b"SETk".to_vec(), vec![b'v'; SHARED]].concat());
        let large = [0..3, 3..4, 4..4 + SHARED];
        let args = Args::new(&whole, &large).within(Some(&whole));
        let small = [0..3, 3..4, 4..9];
        let mut queue = Queue::default();
        let command = commands::find(b"set").unwrap();
        queue.push(command, Args::new(b"SETasmall", &small));
        queue.push(command, args);
        queue.push(command, Args::new(&whole, &large));
        queue.push(command, Args::new(b"SETbtiny!", &small));
        let queued: Vec<Args<'_>> = queue.iter().map(|(_, args)| args).collect();
        let keys: Vec<&[u8]> = queued.iter().map(|args| args.at(1)).collect();
        assert_eq!(keys, [b"a", b"k", b"k", b"b"]);
        assert_eq!((queued[0].at(2), queued[3].at(2)), (&b"small"[..], &b"tiny!"[..]));
        let at = whole.get(4..).unwrap().as_ptr();
        assert_eq!(queued[1].at(2).as_ptr(), at, "it is not copied");
        assert_eq!(queued[1].owned(2).as_ptr(), at, "nor is it when it is stored");
        assert_ne!(queued[2].at(2).as_ptr(), at, "the buffer of this one is used again");
        assert_eq!(queued[2].at(2).len(), SHARED);
        assert!(queue.size() > 2 * SHARED);
    }
}
