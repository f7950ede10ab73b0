//! What the server remembers of one client between its commands.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;

use bytes::Bytes;

use crate::commands::Command;
use crate::net::request::Args;

/// A client's side of its connection.
#[derive(Debug)]
pub struct Session {
    /// The number of the connection since the start, never used twice.
    pub id: u64,
    /// The client's address.
    pub address: SocketAddr,
    /// The address it connected to.
    pub local_address: SocketAddr,
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
    /// A command waits for the peers' thread: nothing more of this client runs until it has answered.
    pub blocked: bool,
    /// To be closed once the replies are out.
    pub closing: bool,
    /// The name of the last command.
    pub last_command: &'static str,
}

impl Session {
    /// A fresh client.
    pub fn new(id: u64, address: SocketAddr, local_address: SocketAddr) -> Session {
        Session {
            id,
            address,
            local_address,
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
            blocked: false,
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

/// Commands between MULTI and EXEC: their bytes in one buffer.
#[derive(Debug, Default)]
pub struct Queue {
    bytes: Vec<u8>,
    spans: Vec<Range<usize>>,
    commands: Vec<(&'static Command, Range<usize>)>,
    /// A command was refused while it was queued.
    pub failed: bool,
    /// Flags that any of the commands has.
    pub flags: u32,
}

impl Queue {
    /// Appends a copy of a request.
    pub fn push(&mut self, command: &'static Command, args: Args<'_>) {
        let first = self.spans.len();
        for arg in args.from(0) {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(arg);
            self.spans.push(start..self.bytes.len());
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
        self.bytes.len() + self.spans.len() * 16 + self.commands.len() * 24
    }

    /// The commands in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Command, Args<'_>)> {
        self.commands.iter().map(|(command, spans)| {
            (*command, Args::new(&self.bytes, self.spans.get(spans.clone()).unwrap_or_default()))
        })
    }
}
