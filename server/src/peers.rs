//! The peers' thread: the driver of the replication state machine.
//!
//! [`Node`] decides everything; here are only the sockets, the clock, the random numbers and the timers
//! that it needs. One task owns the node. Each connection has a task that reads frames and one that
//! writes them; both reach the node by one bounded queue, so that a node that cannot keep up stops
//! reading its peers. The log and snapshots are read here, beside the engine's thread; what they hold has
//! always been reported to the node before.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use lattis_engine::causal::LogPosition;
use lattis_engine::store::{RocksSnapshot, StoreError};
use lattis_replication::{
    Framer, Input, LinkId, Node, Output, PeerCommand, PeerEvent, PeerInfo, Timer,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

use crate::config::Config;
use crate::data::{Engine, LogReader, StateReader};
use crate::port::{Answer, FromPeers, PeerRequest, Port, ToPeers};
use crate::sync;
use crate::tick::wall_clock;

/// Inputs that wait for the node.
const INPUTS: usize = 1024;
/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 << 10;
/// Longest commit that replicates: longer than any request that a client can make.
const MESSAGE_BYTES: usize = (1 << 30) + (64 << 20);
/// A dial that takes longer has failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// What a closed link may still take to say why.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the tasks tell the node's task.
enum Event {
    Input(Input),
    Connected { stream: TcpStream, dialled: Option<String> },
    Snapshot { link: LinkId, snapshot: Result<RocksSnapshot, StoreError>, limit: usize },
}

/// Starts the thread. Fails if the peer port cannot be bound.
pub fn start(config: &Config, engine: &Engine, port: Arc<Port>) -> Result<(), String> {
    let address = SocketAddr::new(peer_address(config)?, config.peer_port);
    let listener = std::net::TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let secret = Some(config.cluster_secret.clone().into_bytes()).filter(|it| !it.is_empty());
    let has_secret = secret.is_some();
    let settings = lattis_replication::Config {
        cluster_id: config.cluster_id.clone(),
        secret,
        node_name: config.node_name.clone(),
        address: address.to_string(),
        peers: config.peers.split_whitespace().map(str::to_owned).collect(),
        max_message: MESSAGE_BYTES,
        ..lattis_replication::Config::default()
    };
    let max_frame = settings.max_frame;
    let node = Node::new(settings, engine.origin(), engine.vector().clone(), engine.position());
    let notify = Arc::new(Notify::new());
    let wake = Arc::clone(&notify);
    port.listen(Box::new(move || wake.notify_one()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("runtime: {error}"))?;
    let (log, position) = (engine.log(), engine.position());
    let body = move || {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let (events, inbox) = mpsc::channel(INPUTS);
            let driver = Driver {
                node,
                port,
                notify,
                log,
                reported: position,
                events,
                links: BTreeMap::new(),
                next_link: 0,
                max_frame,
                has_secret,
                random: ChaCha20Rng::from_os_rng(),
                outputs: Vec::new(),
                waiting: Vec::new(),
                last_down: BTreeMap::new(),
            };
            match TcpListener::from_std(listener) {
                Ok(listener) => driver.run(listener, inbox).await,
                Err(error) => eprintln!("lattis-server: peer port: {error}"),
            }
        });
    };
    let spawned = thread::Builder::new().name("peers".into()).spawn(body);
    spawned.map(drop).map_err(|error| format!("thread: {error}"))
}

/// The address of the peer port. Off loopback a secret has to prove who may replicate.
fn peer_address(config: &Config) -> Result<IpAddr, String> {
    let ip: IpAddr = config
        .peer_bind
        .parse()
        .map_err(|_| format!("--peer-bind {}: not an address", config.peer_bind))?;
    if !ip.is_loopback() && config.cluster_secret.is_empty() {
        return Err(format!("--peer-bind {ip}: off loopback a --cluster-secret is required"));
    }
    Ok(ip)
}

/// A link's sockets, as far as the node's task needs them.
struct Link {
    frames: mpsc::UnboundedSender<Bytes>,
    /// The snapshot that is being sent to the peer.
    state: Option<StateReader>,
    /// Dropped to stop the reader.
    _reading: tokio::sync::oneshot::Sender<()>,
}

struct Driver {
    node: Node,
    port: Arc<Port>,
    notify: Arc<Notify>,
    log: LogReader,
    /// The node knows of everything up to here: nothing behind it may be read to a peer.
    reported: LogPosition,
    events: mpsc::Sender<Event>,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    max_frame: usize,
    has_secret: bool,
    random: ChaCha20Rng,
    outputs: Vec<Output>,
    /// What the engine's thread had no room for; nothing else is taken in until it has.
    waiting: Vec<FromPeers>,
    /// The last reason that was logged per peer, so that each is logged once.
    last_down: BTreeMap<String, String>,
}

impl Driver {
    async fn run(mut self, listener: TcpListener, mut inbox: mpsc::Receiver<Event>) {
        self.handle(Input::Start);
        loop {
            self.port.set_links(self.links.len());
            self.take_sealed();
            self.hand_over();
            let busy = !self.waiting.is_empty();
            tokio::select! {
                () = self.notify.notified() => {}
                event = inbox.recv(), if !busy => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                accepted = listener.accept(), if !busy => {
                    if let Ok((stream, _)) = accepted {
                        self.connected(stream, None);
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(1)), if busy => {}
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Input(input) => {
                if let Input::LinkDown { link, .. } = &input {
                    self.links.remove(link);
                }
                self.handle(input);
            }
            Event::Connected { stream, dialled } => self.connected(stream, dialled),
            Event::Snapshot { link, snapshot, limit } => {
                // Everything in it was published before it was taken: report that first.
                self.take_sealed();
                match snapshot.and_then(StateReader::new) {
                    Ok(reader) => {
                        let input = self.state_chunk(link, reader, limit);
                        self.handle(input);
                    }
                    Err(error) => {
                        let down = self.unreadable(link, &error.to_string());
                        self.handle(down);
                    }
                }
            }
        }
    }

    /// Reports what was sealed, and what became of requests, in that order.
    fn take_sealed(&mut self) {
        while let Some(sealed) = self.port.next_sealed() {
            self.reported = sealed.position;
            self.handle(Input::Sealed {
                position: sealed.position,
                vector: sealed.vector,
                entries: sealed.entries,
            });
        }
        while let Some(event) = self.port.next_event() {
            match event {
                ToPeers::Staged(ticket) => self.handle(Input::Staged { ticket }),
                ToPeers::Refused { ticket, why } => self.handle(Input::Refused { ticket, why }),
                ToPeers::Asked { client, request } => self.answer(client, request),
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut outputs = std::mem::take(&mut self.outputs);
            self.node.handle(wall_clock(), input, &mut self.random, &mut outputs);
            for output in outputs.drain(..) {
                // Answers are given after the outputs before them, in order.
                if let Some(answer) = self.perform(output) {
                    inputs.insert(0, answer);
                }
            }
            self.outputs = outputs;
        }
    }

    /// Does one thing that the node wants done; some have their answer at once.
    fn perform(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Send { link, frame } => {
                if let Some(link) = self.links.get(&link) {
                    // A writer that is gone has reported so.
                    let _ = link.frames.send(frame);
                }
            }
            // The writer sends what it has and closes when its queue ends.
            Output::Close { link, .. } => drop(self.links.remove(&link)),
            Output::Dial { address } => self.dial(address),
            Output::Arm { after, timer } => self.arm(Duration::from_millis(after.0), timer),
            Output::Apply { ticket, commits, .. } => {
                self.waiting.push(FromPeers::Apply { ticket, commits });
            }
            Output::Join { ticket, part, last, .. } => {
                self.waiting.push(FromPeers::Join { ticket, part, last });
            }
            Output::ReadLog { link, after, limit_bytes, known } => {
                return Some(self.read_log(link, after, limit_bytes, known.as_ref()));
            }
            Output::ReadCommits { link, ticket, origin, from, to, limit_bytes } => {
                return Some(match self.log.commits(origin, from, to, limit_bytes) {
                    Ok(found) => Input::Grafted {
                        link,
                        ticket,
                        commits: found.commits,
                        truncated: found.truncated,
                    },
                    Err(error) => self.unreadable(link, &error.to_string()),
                });
            }
            Output::ReadState { link, resume, limit_bytes } => {
                return self.read_state(link, resume, limit_bytes);
            }
            Output::Report(event) => self.report(&event),
        }
        None
    }

    fn unreadable(&mut self, link: LinkId, why: &str) -> Input {
        eprintln!("lattis-server: reading for a peer failed: {why}");
        self.links.remove(&link);
        Input::LinkDown { link, why: format!("reading failed: {why}") }
    }

    fn read_log(
        &mut self,
        link: LinkId,
        after: LogPosition,
        limit: usize,
        known: Option<&lattis_engine::causal::VersionVector>,
    ) -> Input {
        match self.log.read(after, limit, known) {
            Ok(mut chunk) => {
                // The engine may have written what it has not reported yet: that waits.
                let beyond = chunk.next.0.saturating_sub(self.reported.0) as usize;
                let kept = chunk.entries.len().saturating_sub(beyond);
                chunk.entries.truncate(kept);
                let upto = chunk.next.min(self.reported).max(after);
                Input::LogChunk { link, upto, entries: chunk.entries }
            }
            Err(error) => self.unreadable(link, &error.to_string()),
        }
    }

    /// Reads the next part of a snapshot. A new one is taken by the engine's thread between two ticks, so
    /// that all that it holds has been reported.
    fn read_state(&mut self, link: LinkId, resume: bool, limit: usize) -> Option<Input> {
        if resume {
            let reader = self.links.get_mut(&link).and_then(|link| link.state.take());
            return match reader {
                Some(reader) => Some(self.state_chunk(link, reader, limit)),
                None => Some(self.unreadable(link, "the state is gone")),
            };
        }
        let (sender, receiver) = std_mpsc::sync_channel(1);
        let inspect = move |engine: &mut Engine| {
            let snapshot = engine.snapshot();
            sync::expect_known(&snapshot);
            let _ = sender.send(snapshot);
        };
        self.waiting.push(FromPeers::Inspect(Box::new(inspect)));
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            let taken = tokio::task::spawn_blocking(move || receiver.recv()).await;
            if let Ok(Ok(snapshot)) = taken {
                let _ = events.send(Event::Snapshot { link, snapshot, limit }).await;
            }
        });
        None
    }

    fn state_chunk(&mut self, link: LinkId, mut reader: StateReader, limit: usize) -> Input {
        let input = match reader.next_chunk(limit) {
            Ok((bytes, last)) => Input::StateChunk { link, bytes, last },
            Err(error) => self.unreadable(link, &error.to_string()),
        };
        if let Some(link) = self.links.get_mut(&link) {
            link.state = Some(reader);
        }
        input
    }

    /// Hands to the engine's thread what it has room for, in order.
    fn hand_over(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting).into_iter();
        for message in waiting.by_ref() {
            if let Err(message) = self.port.submit(message) {
                self.waiting.push(message);
                break;
            }
        }
        self.waiting.extend(waiting);
    }

    // ---- connections

    fn dial(&mut self, address: String) {
        let events = self.events.clone();
        let secret = self.has_secret;
        tokio::task::spawn_local(async move {
            let why = match tokio::time::timeout(DIAL_TIMEOUT, connect(&address, secret)).await {
                Ok(Ok(stream)) => {
                    let event = Event::Connected { stream, dialled: Some(address) };
                    let _ = events.send(event).await;
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            let _ = events.send(Event::Input(Input::DialFailed { address, why })).await;
        });
    }

    fn connected(&mut self, stream: TcpStream, dialled: Option<String>) {
        let _ = stream.set_nodelay(true);
        self.next_link += 1;
        let link = LinkId(self.next_link);
        let (read, write) = stream.into_split();
        let (frames, queue) = mpsc::unbounded_channel();
        let (reading, stop) = tokio::sync::oneshot::channel();
        self.links.insert(link, Link { frames, state: None, _reading: reading });
        tokio::task::spawn_local(read_frames(
            link,
            read,
            self.max_frame,
            self.events.clone(),
            stop,
        ));
        tokio::task::spawn_local(write_frames(link, write, queue, self.events.clone()));
        // From now on every tick is handed over; what was not is reported first.
        self.port.set_links(self.links.len());
        self.take_sealed();
        self.handle(Input::LinkUp { link, dialled });
    }

    fn arm(&self, after: Duration, timer: Timer) {
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(after).await;
            let _ = events.send(Event::Input(Input::Timer(timer))).await;
        });
    }

    // ---- people

    fn answer(&mut self, client: u64, request: PeerRequest) {
        let answer = match request {
            PeerRequest::Meet { host, port } => {
                let address = match host.contains(':') {
                    true => format!("[{host}]:{port}"),
                    false => format!("{host}:{port}"),
                };
                self.handle(Input::Command(PeerCommand::Meet { address }));
                Answer::Ok
            }
            PeerRequest::List => {
                Answer::Array(self.node.peers().into_iter().map(peer_answer).collect())
            }
            PeerRequest::Pause(name) => self.command(name, |name| PeerCommand::Pause { name }),
            PeerRequest::Resume(name) => self.command(name, |name| PeerCommand::Resume { name }),
        };
        self.waiting.push(FromPeers::Answer { client, answer });
    }

    fn command(
        &mut self,
        name: Option<String>,
        command: impl FnOnce(Option<String>) -> PeerCommand,
    ) -> Answer {
        let known = match &name {
            None => true,
            Some(name) => self.node.peers().iter().any(|peer| peer.name == *name),
        };
        if !known {
            return Answer::Error("ERR no such peer".into());
        }
        self.handle(Input::Command(command(name)));
        Answer::Ok
    }

    /// Tells people what happened to a peer, each thing once.
    fn report(&mut self, event: &PeerEvent) {
        match event {
            PeerEvent::Up { origin, name, .. } => {
                self.last_down.remove(&origin.node.to_string());
                eprintln!("lattis-server: peer {name} ({}) is connected", origin.node);
            }
            PeerEvent::Down { node, why, .. } => {
                let peer = node.map_or_else(|| "unknown".to_owned(), |node| node.to_string());
                self.log_once(peer, why.to_string());
            }
            PeerEvent::DialFailed { address, why } => {
                self.log_once(address.clone(), why.clone());
            }
            PeerEvent::Transfer { receives, .. } => {
                let direction = if *receives { "receiving a" } else { "sending our" };
                eprintln!("lattis-server: {direction} whole state: the log no longer reaches back");
            }
            PeerEvent::Fenced { peer, theirs, mine } => {
                let why = format!(
                    "peer {peer} knows {theirs} writes of this node's life, of which there are {mine} \
                     here: this directory is a copy or was restored"
                );
                eprintln!("lattis-server: {why}; replication has stopped, writes are refused");
                self.waiting.push(FromPeers::Fenced { why });
            }
            PeerEvent::Clone { node } => {
                eprintln!("lattis-server: another node has the identity {node}: refused");
            }
            PeerEvent::TooManyAddresses => eprintln!("lattis-server: too many peer addresses"),
        }
    }

    fn log_once(&mut self, peer: String, why: String) {
        if self.last_down.get(&peer) != Some(&why) {
            eprintln!("lattis-server: peer {peer}: {why}");
            if self.last_down.len() > 1000 {
                self.last_down.clear();
            }
            self.last_down.insert(peer, why);
        }
    }
}

/// One line of PEER.LIST: name, address, state, node id, incarnation, lag in commits and in milliseconds,
/// bytes in and out, last error.
fn peer_answer(peer: PeerInfo) -> Answer {
    let number = |n: u64| Answer::Integer(i64::try_from(n).unwrap_or(i64::MAX));
    Answer::Array(vec![
        Answer::Text(peer.name),
        Answer::Text(peer.address),
        Answer::Text(peer.state.into()),
        Answer::Text(peer.node.map_or_else(String::new, |node| node.to_string())),
        number(u64::from(peer.incarnation)),
        number(peer.lag_commits),
        number(peer.lag_ms),
        number(peer.bytes_in),
        number(peer.bytes_out),
        Answer::Text(peer.last_error.unwrap_or_default()),
    ])
}

async fn connect(address: &str, secret: bool) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    if !secret && !stream.peer_addr()?.ip().is_loopback() {
        return Err(io::Error::other("off loopback a --cluster-secret is required"));
    }
    Ok(stream)
}

async fn read_frames(
    link: LinkId,
    mut socket: OwnedReadHalf,
    max_frame: usize,
    events: mpsc::Sender<Event>,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) {
    let mut framer = Framer::new(max_frame);
    let mut buffer = BytesMut::new();
    let why = 'reading: loop {
        loop {
            match framer.next_frame() {
                Ok(None) => break,
                Ok(Some(bytes)) => {
                    if events.send(Event::Input(Input::Frame { link, bytes })).await.is_err() {
                        return;
                    }
                }
                Err(error) => break 'reading error.to_string(),
            }
        }
        buffer.reserve(READ_BYTES);
        tokio::select! {
            // The node has closed the link and wants to hear no more of it.
            _ = &mut stop => return,
            read = socket.read_buf(&mut buffer) => match read {
                Ok(0) => break "the peer closed the connection".to_owned(),
                Ok(_) => framer.push(buffer.split().freeze()),
                Err(error) => break error.to_string(),
            }
        }
    };
    let _ = events.send(Event::Input(Input::LinkDown { link, why })).await;
}

async fn write_frames(
    link: LinkId,
    mut socket: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    events: mpsc::Sender<Event>,
) {
    let mut out = BytesMut::new();
    while let Some(frame) = queue.recv().await {
        // What has gathered meanwhile goes out together.
        let mut next = Some(frame);
        while let Some(frame) = next {
            out.extend_from_slice(&Framer::prefix(&frame));
            out.extend_from_slice(&frame);
            next = if out.len() < READ_BYTES { queue.try_recv().ok() } else { None };
        }
        let closed = queue.is_closed();
        let written = match closed {
            false => socket.write_all_buf(&mut out).await,
            true => match tokio::time::timeout(CLOSE_TIMEOUT, socket.write_all_buf(&mut out)).await
            {
                Ok(written) => written,
                Err(_) => return,
            },
        };
        if let Err(error) = written {
            let down = Input::LinkDown { link, why: error.to_string() };
            let _ = events.send(Event::Input(down)).await;
            return;
        }
        out.clear();
    }
}
