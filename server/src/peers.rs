//! The peers' thread: the driver of the replication state machine.
//!
//! [`Node`] decides everything; here are only the sockets, the clock, the random numbers and the timers
//! that it needs. One task owns the node. Each connection has a task that reads frames and one that
//! writes them, those of the order lane first; both reach the node by one bounded queue, so that a node that
//! cannot keep up stops reading its peers. The log and snapshots are read here, beside the engine's thread;
//! what they hold has always been reported to the node before.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use lattis_engine::causal::{LogPosition, Millis};
use lattis_engine::crdt::TYPES;
use lattis_engine::store::{RocksSnapshot, StoreError};
use lattis_replication::{
    CloseReason, Framer, Input, Lane, LinkId, Node, Output, PeerCommand, PeerEvent, PeerInfo, Timer,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::Config;
use crate::data::{Engine, LogReader, StateReader};
use crate::port::{Answer, FromPeers, PeerRequest, Port, ToPeers};
use crate::tick::wall_clock;
use crate::{allocator, logging, process, sync};

/// Inputs that wait for the node.
const INPUTS: usize = 1024;
/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 << 10;
/// Longest commit that replicates: longer than any that a client can make, of whose names and values there is
/// [`MAX_BYTES`](lattis_engine::MAX_BYTES), and some 32 bytes beside them in each effect.
const MESSAGE_BYTES: usize = lattis_engine::MAX_BYTES + 32 * lattis_engine::commit::MAX_EFFECTS;
/// A dial that takes longer has failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// What a closed link may still take to say why.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often bytes of a frame that takes long are told of as a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_millis(200);
/// Bytes that the kernel may hold of a link and has not sent: what the order lane cannot overtake.
const UNSENT_BYTES: u32 = 128 << 10;

/// What the tasks tell the node's task.
enum Event {
    Input(Input),
    Connected { stream: TcpStream, dialled: Option<String> },
    Snapshot { request: PartRequest, snapshot: Result<RocksSnapshot, StoreError> },
}

/// A part of a snapshot that the node asks for.
#[derive(Clone, Copy)]
struct PartRequest {
    link: LinkId,
    snapshot: u64,
    part: u64,
    limit: usize,
}

/// Binds the peer port, before anything of the data is touched.
pub fn bind(config: &Config) -> Result<std::net::TcpListener, String> {
    let address = config.peer_socket();
    std::net::TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| format!("cannot listen on {address} for peers: {error}"))
}

/// Starts the thread.
pub fn start(
    config: &Config,
    engine: &Engine,
    port: Arc<Port>,
    listener: std::net::TcpListener,
) -> Result<(), String> {
    let secret = Some(config.cluster_secret.clone().into_bytes()).filter(|it| !it.is_empty());
    let has_secret = secret.is_some();
    let settings = lattis_replication::Config {
        cluster_id: config.cluster_id.clone(),
        secret,
        node_name: config.node_name.clone(),
        address: config.peer_address(),
        peers: config.peers.split_whitespace().map(str::to_owned).collect(),
        max_message: MESSAGE_BYTES,
        clock_max_drift: Millis(config.clock_max_drift * 1000),
        is_sound: |commit| TYPES.check(commit).is_ok(),
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
                states: BTreeMap::new(),
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
                Err(error) => logging::last_words(&format!("peer port: {error}")),
            }
            // Without it half of a node would go on.
            process::end(process::FAILED);
        });
    };
    let spawned = thread::Builder::new().name("peers".into()).spawn(body);
    spawned.map(drop).map_err(|error| format!("thread: {error}"))
}

/// A link's sockets, as far as the node's task needs them.
struct Link {
    /// Of the two lanes. The node bounds what it gives: positions by a window, payloads by what was written.
    order: mpsc::UnboundedSender<Bytes>,
    payload: mpsc::UnboundedSender<Bytes>,
    /// Dropped to stop the reader.
    _reading: oneshot::Sender<()>,
    /// Dropped to let the writer know that it has little time left.
    _writing: oneshot::Sender<()>,
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
    /// Snapshots that are being sent, by the node's names for them.
    states: BTreeMap<u64, StateReader>,
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
                    if let Ok((stream, address)) = accepted {
                        self.connected(stream, None, address.ip().to_string());
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
            Event::Connected { stream, dialled } => {
                let from = dialled.clone();
                self.connected(stream, dialled, from.unwrap_or_default());
            }
            Event::Snapshot { request, snapshot } => {
                // Everything in it was published before it was taken: report that first.
                self.take_sealed();
                let input = match snapshot.and_then(StateReader::new) {
                    Ok(reader) => {
                        self.states.insert(request.snapshot, reader);
                        self.state_part(request)
                    }
                    Err(error) => self.unreadable(request.link, &error.to_string()),
                };
                self.handle(input);
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
                ToPeers::Refused { ticket, culprit, why } => {
                    self.handle(Input::Refused { ticket, culprit, why });
                }
                ToPeers::Asked { client, request } => self.answer(client, request),
            }
        }
    }

    fn handle(&mut self, input: Input) {
        let beat = matches!(input, Input::Timer(Timer::Tick));
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
        if beat {
            allocator::follow();
            self.port.set_peers(self.node.peers());
        }
    }

    /// Does one thing that the node wants done; some have their answer at once.
    fn perform(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Send { link, lane, frame } => {
                if let Some(link) = self.links.get(&link) {
                    // A writer that is gone has reported so.
                    let _ = match lane {
                        Lane::Order => link.order.send(frame),
                        Lane::Payload => link.payload.send(frame),
                    };
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
            Output::ReadState { link, snapshot, part, limit_bytes } => {
                return self.read_state(PartRequest { link, snapshot, part, limit: limit_bytes });
            }
            Output::DropState { snapshot } => drop(self.states.remove(&snapshot)),
            Output::HoldLog { from } => self.waiting.push(FromPeers::HoldLog { from }),
            Output::Report(event) => self.report(&event),
        }
        None
    }

    fn unreadable(&mut self, link: LinkId, why: &str) -> Input {
        tracing::warn!("reading for a peer failed: {why}");
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

    /// Reads a part of a snapshot. A new snapshot is taken by the engine's thread between two ticks, so that
    /// all that it holds has been reported.
    fn read_state(&mut self, request: PartRequest) -> Option<Input> {
        if self.states.contains_key(&request.snapshot) {
            return Some(self.state_part(request));
        }
        if request.part > 0 {
            return Some(self.unreadable(request.link, "the snapshot is gone"));
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
            let gone = || Err(StoreError::Unopened("the engine's thread has ended".into()));
            let snapshot = taken.ok().and_then(Result::ok).unwrap_or_else(gone);
            let _ = events.send(Event::Snapshot { request, snapshot }).await;
        });
        None
    }

    fn state_part(&mut self, request: PartRequest) -> Input {
        let PartRequest { link, snapshot, part, limit } = request;
        let Some(reader) = self.states.get_mut(&snapshot) else {
            return self.unreadable(link, "the snapshot is gone");
        };
        match reader.chunk(part, limit) {
            Ok(Some((bytes, last))) => Input::StateChunk { link, snapshot, part, bytes, last },
            Ok(None) => self.unreadable(link, "a part of the snapshot is gone"),
            Err(error) => self.unreadable(link, &error.to_string()),
        }
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

    fn connected(&mut self, stream: TcpStream, dialled: Option<String>, from: String) {
        let _ = stream.set_nodelay(true);
        // Where the kernel does not know this, what is small waits a little longer.
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        self.next_link += 1;
        let link = LinkId(self.next_link);
        let (read, write) = stream.into_split();
        let (order, first) = mpsc::unbounded_channel();
        let (payload, second) = mpsc::unbounded_channel();
        let (reading, stop) = oneshot::channel();
        let (writing, closed) = oneshot::channel();
        let ends = Link { order, payload, _reading: reading, _writing: writing };
        self.links.insert(link, ends);
        tokio::task::spawn_local(read_frames(
            link,
            read,
            self.max_frame,
            self.events.clone(),
            stop,
        ));
        let lanes = (first, second);
        tokio::task::spawn_local(write_frames(link, write, lanes, self.events.clone(), closed));
        // From now on every tick is handed over; what was not is reported first.
        self.port.set_links(self.links.len());
        self.take_sealed();
        self.handle(Input::LinkUp { link, dialled, from });
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
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let address = match bare.contains(':') {
                    true => format!("[{bare}]:{port}"),
                    false => format!("{bare}:{port}"),
                };
                self.handle(Input::Command(PeerCommand::Meet { address }));
                Answer::Ok
            }
            PeerRequest::List => {
                Answer::Array(self.node.peers().into_iter().map(peer_answer).collect())
            }
            PeerRequest::Pause(name) => self.command(name, |name| PeerCommand::Pause { name }),
            PeerRequest::Resume(name) => self.command(name, |name| PeerCommand::Resume { name }),
            PeerRequest::AcceptClock(name) => self.command(Some(name), |name| {
                PeerCommand::AcceptClock { name: name.unwrap_or_default() }
            }),
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
                tracing::info!("peer {name} ({}) is connected", origin.node);
            }
            PeerEvent::Down { node, address, why, .. } => {
                let peer = node.map_or_else(|| address.clone(), |node| node.to_string());
                match why {
                    // Two nodes that dial each other keep one of two connections.
                    CloseReason::Duplicate | CloseReason::Paused => {
                        tracing::debug!("peer {peer}: {why}");
                    }
                    _ => self.log_once(peer, why.to_string()),
                }
            }
            PeerEvent::DialFailed { address, why } => {
                self.log_once(address.clone(), why.clone());
            }
            PeerEvent::Transfer { receives, resumes, .. } => {
                let direction = if *receives { "receiving a" } else { "sending our" };
                let again = if *resumes { ", from where it was cut" } else { "" };
                tracing::info!(
                    "{direction} whole state: the log no longer reaches back{again}"
                );
            }
            PeerEvent::Claim { peer, theirs, mine } => self.log_once(
                peer.to_string(),
                format!(
                    "claims {theirs} writes of this node's life, of which there are {mine} here; if a \
                     second peer says so, this node refuses writes"
                ),
            ),
            PeerEvent::Suspended { name, why, .. } => tracing::warn!(
                "peer {name} is paused: what it sends was refused again and again \
                 ({why}); PEER.RESUME {name} goes on"
            ),
            PeerEvent::ClockHeld { name, ahead_ms: Some(ahead), .. } => tracing::warn!(
                "peer {name}: its commits wait, as they are stamped {ahead} ms ahead of \
                 this node's clock; PEER.ACCEPT-CLOCK {name} takes them"
            ),
            PeerEvent::ClockHeld { name, ahead_ms: None, .. } => {
                tracing::info!("peer {name}: its commits no longer wait for the clock");
            }
            PeerEvent::OwnClock { ahead_ms } => {
                let why = ahead_ms.map(|ahead| {
                    format!("this node's clock is {ahead} ms ahead of most of its peers'")
                });
                match &why {
                    Some(why) => tracing::error!("{why}; writes are refused"),
                    None => tracing::info!("this node's clock agrees with its peers'"),
                }
                self.waiting.push(FromPeers::ClockFenced { why });
            }
            PeerEvent::Fenced { peer, theirs, mine } => {
                let why = format!(
                    "peers, last {peer}, know {theirs} writes of this node's life, of which there are \
                     {mine} here: this directory is a copy or was restored"
                );
                tracing::error!("{why}; replication has stopped, writes are refused");
                self.waiting.push(FromPeers::Fenced { why });
            }
            PeerEvent::Clone { node } => self.log_once(
                node.to_string(),
                "another node has this identity: refused".to_owned(),
            ),
            PeerEvent::TooManyAddresses => tracing::warn!("too many peer addresses"),
        }
    }

    fn log_once(&mut self, peer: String, why: String) {
        if self.last_down.get(&peer) != Some(&why) {
            tracing::info!("peer {peer}: {why}");
            if self.last_down.len() > 1000 {
                self.last_down.clear();
            }
            self.last_down.insert(peer, why);
        }
    }
}

/// One line of PEER.LIST: name, address, state, node id, incarnation, what the peer lacks in effects and in
/// milliseconds, bytes in and out, last error; then what this node lacks in effects, bytes of a whole state
/// that have come or gone while one does, and how far the peer's clock is ahead, in ms.
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
        number(peer.behind_commits),
        number(peer.receiving.unwrap_or(0)),
        number(peer.sending.unwrap_or(0)),
        Answer::Integer(peer.clock_ms.unwrap_or(0)),
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
    mut stop: oneshot::Receiver<()>,
) {
    let mut framer = Framer::new(max_frame);
    let mut buffer = BytesMut::new();
    // When a frame was whole, or a sign of life was given.
    let mut whole_at = Instant::now();
    let why = 'reading: loop {
        loop {
            match framer.next_frame() {
                Ok(None) => break,
                Ok(Some(bytes)) => {
                    whole_at = Instant::now();
                    if events.send(Event::Input(Input::Frame { link, bytes })).await.is_err() {
                        return;
                    }
                }
                Err(error) => break 'reading error.to_string(),
            }
        }
        if whole_at.elapsed() >= SIGN_OF_LIFE {
            whole_at = Instant::now();
            if events.send(Event::Input(Input::Received { link })).await.is_err() {
                return;
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

/// The order lane and the payload lane.
type Lanes = (mpsc::UnboundedReceiver<Bytes>, mpsc::UnboundedReceiver<Bytes>);

/// Writes until the node has closed the link, and then what is left, if the peer takes it at once.
async fn write_frames(
    link: LinkId,
    mut socket: OwnedWriteHalf,
    (mut order, mut payload): Lanes,
    events: mpsc::Sender<Event>,
    closed: oneshot::Receiver<()>,
) {
    let mut out = BytesMut::new();
    // A peer that reads nothing must not keep the socket, and what waits for it, for as long as it likes.
    let over = async {
        let _ = closed.await;
        tokio::time::sleep(CLOSE_TIMEOUT).await;
    };
    tokio::pin!(over);
    loop {
        let next = tokio::select! {
            biased;
            frame = order.recv() => frame.map(|frame| (frame, false)),
            frame = payload.recv() => frame.map(|frame| (frame, true)),
        };
        // The node has closed the link: both ends of the lanes go together.
        let Some(mut next) = next else { return };
        // What has gathered meanwhile goes out together, the order lane first.
        let mut paid = 0;
        loop {
            let (frame, of_payload) = &next;
            out.extend_from_slice(&Framer::prefix(frame));
            out.extend_from_slice(frame);
            if *of_payload {
                paid += frame.len() as u64 + 4;
            }
            if out.len() >= READ_BYTES {
                break;
            }
            let first = order.try_recv().map(|frame| (frame, false));
            match first.or_else(|_| payload.try_recv().map(|frame| (frame, true))) {
                Ok(more) => next = more,
                Err(_) => break,
            }
        }
        let written = tokio::select! {
            written = socket.write_all_buf(&mut out) => written,
            () = &mut over => return,
        };
        if let Err(error) = written {
            let down = Input::LinkDown { link, why: error.to_string() };
            let _ = events.send(Event::Input(down)).await;
            return;
        }
        if paid > 0 {
            let input = Input::Written { link, bytes: paid };
            if events.send(Event::Input(input)).await.is_err() {
                return;
            }
        }
        out.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link that the node has closed is gone soon, though its peer lives and takes nothing.
    #[tokio::test]
    async fn a_closed_link_ends_though_the_peer_reads_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_peer, _) = listener.accept().await.unwrap();
        let (_read, write) = stream.into_split();
        let (order, first) = mpsc::unbounded_channel();
        let (payload, second) = mpsc::unbounded_channel();
        let (writing, closed) = oneshot::channel();
        let (events, _inbox) = mpsc::channel(INPUTS);
        for _ in 0..1_000 {
            payload.send(Bytes::from(vec![0; READ_BYTES])).unwrap();
        }
        let writer = write_frames(LinkId(1), write, (first, second), events, closed);
        let close = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            drop((order, payload, writing));
        };
        let both = async { tokio::join!(writer, close) };
        tokio::time::timeout(Duration::from_secs(20), both).await.expect("the writer ends");
    }
}
