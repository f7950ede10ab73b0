//! Two nodes and what can happen between them: who is let in, which connection stays, pauses, fences.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::collections::VecDeque;

use bytes::Bytes;
use lattis_engine::causal::{Hlc, LogPosition, Millis, NodeId, Origin, VersionVector};
use lattis_engine::commit::{Commit, Delta, Effect, EncodedCommit, LogEntry, RowEffect};
use lattis_engine::crdt::string::STRING;
use lattis_engine::name::RowKey;
use lattis_replication::wire::{FrameReader, FrameWriter, Item, Message, Position};
use lattis_replication::{
    CloseReason, Config, Input, Lane, LinkId, Node, Output, PeerCommand, PeerEvent, Ticket, Timer,
};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

/// Nodes joined by connections that lose nothing; link n of the dialler is link n + 1000 there.
struct Table {
    nodes: Vec<Node>,
    now: u64,
    rng: ChaCha8Rng,
    queue: VecDeque<(usize, Input)>,
    ends: Vec<(LinkId, usize, usize)>,
    events: Vec<(usize, PeerEvent)>,
    seen: Vec<(usize, Output)>,
}

fn origin(node: u64, incarnation: u32, nonce: u64) -> Origin {
    Origin { node: NodeId(node), incarnation, nonce }
}

fn config(name: &str) -> Config {
    Config { node_name: name.to_owned(), address: format!("{name}:1"), ..Config::default() }
}

fn node(config: Config, origin: Origin) -> Node {
    Node::new(config, origin, VersionVector::new(), LogPosition(0))
}

impl Table {
    fn new(nodes: Vec<Node>) -> Table {
        let mut table = Table {
            nodes,
            now: 1000,
            rng: ChaCha8Rng::seed_from_u64(1),
            queue: VecDeque::new(),
            ends: Vec::new(),
            events: Vec::new(),
            seen: Vec::new(),
        };
        for at in 0..table.nodes.len() {
            table.give(at, Input::Start);
        }
        table
    }

    fn connect(&mut self, link: u64, from: usize, to: usize) {
        let (mine, theirs) = (LinkId(link), LinkId(link + 1000));
        self.ends.push((mine, from, to));
        self.ends.push((theirs, to, from));
        let address = format!("{}:1", ["a", "b", "c"][to]);
        let from_text = "here".to_owned();
        let up = Input::LinkUp { link: mine, dialled: Some(address), from: from_text.clone() };
        self.queue.push_back((from, up));
        self.queue.push_back((to, Input::LinkUp { link: theirs, dialled: None, from: from_text }));
        self.run();
    }

    fn give(&mut self, at: usize, input: Input) {
        self.queue.push_back((at, input));
        self.run();
    }

    fn run(&mut self) {
        while let Some((at, input)) = self.queue.pop_front() {
            let mut out = Vec::new();
            self.nodes[at].handle(Millis(self.now), input, &mut self.rng, &mut out);
            for output in out {
                self.seen.push((at, output.clone()));
                let other = |link: LinkId| {
                    LinkId(if link.0 >= 1000 { link.0 - 1000 } else { link.0 + 1000 })
                };
                let to = |link: LinkId| {
                    self.ends.iter().find(|(id, from, _)| *id == link && *from == at).map(|e| e.2)
                };
                match output {
                    Output::Send { link, lane, frame: bytes } => {
                        if let Some(to) = to(link) {
                            if lane == Lane::Payload {
                                let written = bytes.len() as u64 + 4;
                                self.queue.push_back((at, Input::Written { link, bytes: written }));
                            }
                            self.queue.push_back((to, Input::Frame { link: other(link), bytes }));
                        }
                    }
                    Output::Close { link, .. } => {
                        if let Some(to) = to(link) {
                            let why = "closed".to_owned();
                            self.queue.push_back((to, Input::LinkDown { link: other(link), why }));
                        }
                    }
                    Output::Report(event) => self.events.push((at, event)),
                    _ => {}
                }
            }
        }
    }

    fn states(&self, at: usize) -> Vec<&'static str> {
        self.nodes[at].peers().iter().map(|peer| peer.state).collect()
    }

    fn active(&self, at: usize) -> usize {
        self.states(at).iter().filter(|state| **state == "active").count()
    }

    fn downs(&self, at: usize) -> Vec<CloseReason> {
        let down = |(of, event): &(usize, PeerEvent)| match event {
            PeerEvent::Down { why, .. } if *of == at => Some(why.clone()),
            _ => None,
        };
        self.events.iter().filter_map(down).collect()
    }
}

fn pair(a: Config, b: Config) -> Table {
    let mut table = Table::new(vec![node(a, origin(1, 1, 5)), node(b, origin(2, 1, 6))]);
    table.connect(1, 0, 1);
    table
}

#[test]
fn equal_secrets_let_in_and_others_do_not() {
    let with =
        |secret: Option<&[u8]>, name| Config { secret: secret.map(<[u8]>::to_vec), ..config(name) };
    let both = pair(with(Some(b"x"), "a"), with(Some(b"x"), "b"));
    assert_eq!((both.active(0), both.active(1)), (1, 1));
    let none = pair(with(None, "a"), with(None, "b"));
    assert_eq!((none.active(0), none.active(1)), (1, 1));
    let other = pair(with(Some(b"x"), "a"), with(Some(b"y"), "b"));
    assert!(
        other.downs(0).contains(&CloseReason::Auth) || other.downs(1).contains(&CloseReason::Auth)
    );
    assert_eq!((other.active(0), other.active(1)), (0, 0));
    let one = pair(with(Some(b"x"), "a"), with(None, "b"));
    assert_eq!(one.downs(0), [CloseReason::Secret]);
    let peers = vec!["b:1".to_owned()];
    let other = Config { cluster_id: "other".to_owned(), ..config("b") };
    let cluster = pair(Config { peers, ..config("a") }, other);
    assert_eq!(cluster.downs(0), [CloseReason::Cluster]);
    let error = cluster.nodes[0].peers()[0].last_error.clone().unwrap();
    assert_eq!(error, "the peer belongs to another cluster");
}

#[test]
fn a_dial_to_oneself_is_remembered() {
    let peers = vec!["a:1".to_owned()];
    let mut table = Table::new(vec![node(Config { peers, ..config("a") }, origin(1, 1, 5))]);
    table.connect(1, 0, 0);
    assert!(table.downs(0).contains(&CloseReason::Myself));
    assert!(!table.events.iter().any(|(_, event)| matches!(event, PeerEvent::Clone { .. })));
    table.seen.clear();
    table.give(0, Input::Timer(Timer::Dial("a:1".to_owned())));
    assert!(!table.seen.iter().any(|(_, output)| matches!(output, Output::Dial { .. })));
    assert!(table.nodes[0].peers().is_empty());
}

#[test]
fn a_clone_is_refused() {
    for other in [origin(1, 1, 5), origin(1, 1, 6), origin(1, 2, 5)] {
        let mut table =
            Table::new(vec![node(config("a"), origin(1, 1, 5)), node(config("b"), other)]);
        table.connect(1, 0, 1);
        assert!(
            table.downs(0).contains(&CloseReason::Clone)
                || table.downs(1).contains(&CloseReason::Clone)
        );
        assert_eq!(table.active(0), 0);
    }
    // A third node sees both.
    let nodes = vec![
        node(config("a"), origin(1, 2, 5)),
        node(config("b"), origin(1, 2, 6)),
        node(config("c"), origin(3, 1, 6)),
    ];
    let mut table = Table::new(nodes);
    table.connect(1, 0, 2);
    table.connect(2, 1, 2);
    assert_eq!(table.active(0), 1);
    assert_eq!(table.active(1), 0);
    assert!(table.events.contains(&(2, PeerEvent::Clone { node: NodeId(1) })));
}

#[test]
fn one_connection_of_two_stays_and_a_new_life_takes_over() {
    // Crossing dials: the one of the lower id stays, at both ends, in either order.
    for first in [0, 1] {
        let mut table = Table::new(vec![
            node(config("a"), origin(1, 1, 5)),
            node(config("b"), origin(2, 1, 6)),
        ]);
        table.connect(1, first, 1 - first);
        table.connect(2, 1 - first, first);
        assert_eq!((table.active(0), table.active(1)), (1, 1));
        let stays = LinkId(if first == 0 { 1 } else { 2 });
        let closed = table.seen.iter().any(|(at, output)| {
            *at == 0 && matches!(output, Output::Close { link, .. } if *link == stays)
        });
        assert!(!closed);
    }
    // The same direction again: the new one stays. A new life: the new one stays.
    let mut table = pair(config("a"), config("b"));
    table.connect(2, 0, 1);
    assert_eq!((table.active(0), table.active(1)), (1, 1));
    table.nodes[0] = node(config("a"), origin(1, 2, 7));
    table.connect(3, 0, 1);
    assert_eq!(table.active(1), 1);
    assert_eq!(table.nodes[1].peers()[0].incarnation, 2);
}

#[test]
fn a_pause_is_a_partition_until_resumed() {
    let peers = vec!["b:1".to_owned()];
    let mut table = pair(Config { peers, ..config("a") }, config("b"));
    for name in [Some("b".to_owned()), None] {
        table.give(0, Input::Command(PeerCommand::Pause { name: name.clone() }));
        assert_eq!((table.active(0), table.active(1)), (0, 0));
        assert_eq!(table.states(0), ["paused"]);
        table.connect(10, 1, 0);
        assert_eq!((table.active(0), table.active(1)), (0, 0));
        table.seen.clear();
        table.give(0, Input::Timer(Timer::Dial("b:1".to_owned())));
        assert!(!table.seen.iter().any(|(_, output)| matches!(output, Output::Dial { .. })));
        table.give(0, Input::Command(PeerCommand::Resume { name }));
        table.give(0, Input::Timer(Timer::Dial("b:1".to_owned())));
        assert!(table.seen.iter().any(|(_, output)| matches!(output, Output::Dial { .. })));
        table.connect(20, 0, 1);
        assert_eq!((table.active(0), table.active(1)), (1, 1));
    }
}

fn commit(origin: Origin, first: u64, length: usize) -> EncodedCommit {
    EncodedCommit { origin, first, last: first, body: Bytes::from(vec![0; length]) }
}

fn sealed(origin: Origin, from: u64, to: u64) -> Input {
    let entries = (from..=to).map(|seq| LogEntry::Commit(commit(origin, seq, 10))).collect();
    let vector = [(origin, to)].into_iter().collect();
    Input::Sealed { position: LogPosition(to), vector, entries }
}

/// One peer's word that this node has written more than it knows closes that link and nothing else; a second
/// peer's word fences.
#[test]
fn a_node_is_fenced_by_two_peers_and_not_by_one() {
    let me = origin(1, 1, 5);
    let nodes = vec![
        node(config("a"), me),
        node(config("b"), origin(2, 1, 6)),
        node(config("c"), origin(3, 1, 7)),
    ];
    let mut table = Table::new(nodes);
    table.connect(1, 0, 1);
    table.connect(2, 0, 2);
    for at in 0..3 {
        table.give(at, sealed(me, 1, 5));
    }
    // A copy of the directory, or of the whole machine, from before those writes.
    table.nodes[0] = node(config("a"), me);
    table.connect(3, 0, 1);
    assert!(!table.nodes[0].fenced());
    assert_eq!(table.active(0), 0);
    let event = PeerEvent::Claim { peer: NodeId(2), theirs: 5, mine: 0 };
    assert!(table.events.contains(&(0, event)));
    // The same peer again is no second word.
    table.connect(4, 0, 1);
    assert!(!table.nodes[0].fenced());
    table.connect(5, 0, 2);
    assert!(table.nodes[0].fenced());
    let event = PeerEvent::Fenced { peer: NodeId(3), theirs: 5, mine: 0 };
    assert!(table.events.contains(&(0, event)));
    table.connect(6, 0, 1);
    assert_eq!(table.active(0), 0);
}

#[test]
fn silence_ends_a_link_and_lag_is_seen() {
    let mut table = pair(config("a"), config("b"));
    let ends = std::mem::take(&mut table.ends);
    table.give(0, sealed(origin(1, 1, 5), 1, 3));
    table.now += 400;
    table.give(0, Input::Timer(Timer::Tick));
    let peer = table.nodes[0].peers().remove(0);
    assert_eq!((peer.lag_commits, peer.lag_ms), (3, 400));
    table.now += 4700;
    table.give(0, Input::Timer(Timer::Tick));
    assert_eq!(table.downs(0), [CloseReason::Dead]);
    drop(ends);
}

/// Tickets and first seqs of what a node was asked to apply.
fn applied(table: &Table, at: usize) -> Vec<(Ticket, Vec<(Origin, u64)>)> {
    let applies = table.seen.iter().filter_map(|(of, output)| match output {
        Output::Apply { ticket, commits, .. } if *of == at => {
            Some((*ticket, commits.iter().map(|it| (it.origin, it.first)).collect()))
        }
        _ => None,
    });
    applies.collect()
}

/// After a refusal that is nobody's fault the same is handed over again, in a new epoch, by the same links.
#[test]
fn what_was_refused_comes_again_and_no_link_is_closed() {
    let other = origin(2, 1, 6);
    let mut table = pair(config("a"), config("b"));
    table.give(1, sealed(other, 1, 2));
    let first = applied(&table, 0);
    assert_eq!(first.len(), 1);
    let refused = |ticket| Input::Refused { ticket, culprit: None, why: "full".to_owned() };
    table.give(0, refused(first[0].0));
    assert_eq!((table.active(0), applied(&table, 0).len()), (1, 1));
    table.now += 1000;
    table.give(0, Input::Timer(Timer::Retry));
    let again = applied(&table, 0);
    assert_eq!(again[1].0.epoch, first[0].0.epoch + 1);
    assert_eq!(again[1].1, first[0].1);
    // A late refusal of the epoch before says nothing.
    table.give(0, refused(first[0].0));
    assert_eq!(table.active(0), 1);
}

/// A commit that cannot be applied closes the link that brought it, and no other; what came with it by others
/// is applied all the same. Who brings such commits again and again is paused.
#[test]
fn a_bad_commit_closes_its_own_link_only() {
    let nodes = vec![
        node(config("a"), origin(1, 1, 5)),
        node(config("b"), origin(2, 1, 6)),
        node(config("c"), origin(3, 1, 7)),
    ];
    let mut table = Table::new(nodes);
    table.connect(1, 0, 1);
    table.connect(2, 0, 2);
    let (bad, good) = (origin(2, 1, 6), origin(3, 1, 7));
    table.give(1, sealed(bad, 1, 1));
    table.give(2, sealed(good, 1, 1));
    for round in 0..3 {
        let ticket = applied(&table, 0).last().unwrap().0;
        let culprit = Some((bad, 1));
        table.give(0, Input::Refused { ticket, culprit, why: "bad".to_owned() });
        assert_eq!(table.active(0), 1, "round {round}: the other link stays");
        assert!(table.downs(0).contains(&CloseReason::Refused("bad".to_owned())));
        let last = applied(&table, 0).pop().unwrap();
        if round == 0 {
            assert_eq!(last.1, [(good, 1)], "what was good is handed over again");
            table.give(0, sealed(good, 1, 1));
        }
        table.connect(10 + round, 0, 1);
        if round < 2 {
            let entries = vec![LogEntry::Commit(commit(bad, 1, 10))];
            let link = LinkId(1010 + round);
            table.give(1, Input::LogChunk { link, upto: LogPosition(1), entries });
        }
    }
    assert_eq!(table.active(0), 1);
    assert!(table.states(0).contains(&"paused"));
    let suspended = |(at, event): &(usize, PeerEvent)| {
        *at == 0 && matches!(event, PeerEvent::Suspended { node: NodeId(2), .. })
    };
    assert!(table.events.iter().any(suspended));
}

/// An address is dialled unless a link at that address lives, whoever was found there before.
#[test]
fn an_address_whose_node_has_moved_is_dialled() {
    let peers = vec!["b:1".to_owned(), "c:1".to_owned()];
    let nodes = vec![
        node(Config { peers, ..config("a") }, origin(1, 1, 5)),
        node(config("b"), origin(2, 1, 6)),
        node(config("c"), origin(3, 1, 7)),
    ];
    let mut table = Table::new(nodes);
    table.connect(1, 0, 1);
    table.connect(2, 0, 2);
    assert_eq!(table.active(0), 2);
    // Both stop; the one that was at c comes back at b, and nothing at c.
    for link in [1, 2] {
        table.give(0, Input::LinkDown { link: LinkId(link), why: "gone".to_owned() });
    }
    let moved = Config { address: "b:1".to_owned(), ..config("c") };
    table.nodes[1] = node(moved, origin(3, 2, 8));
    table.connect(3, 0, 1);
    assert_eq!(table.active(0), 1);
    table.seen.clear();
    table.now += 60_000;
    table.give(0, Input::Timer(Timer::Dial("c:1".to_owned())));
    let dials = |(at, output): &(usize, Output)| {
        *at == 0 && matches!(output, Output::Dial { address } if address == "c:1")
    };
    assert!(table.seen.iter().any(dials));
}

/// A second address of a node that is linked is tried now and then, and the link that there is stays.
#[test]
fn a_second_address_of_a_node_disturbs_nothing() {
    let mut table = pair(config("a"), config("b"));
    let (mine, theirs) = (LinkId(7), LinkId(1007));
    table.ends.extend([(mine, 0, 1), (theirs, 1, 0)]);
    let from = "here".to_owned();
    let dialled = Some("localhost:1".to_owned());
    table.queue.push_back((0, Input::LinkUp { link: mine, dialled, from: from.clone() }));
    table.queue.push_back((1, Input::LinkUp { link: theirs, dialled: None, from }));
    table.run();
    assert_eq!((table.active(0), table.active(1)), (1, 1));
    assert_eq!(table.downs(0), [CloseReason::Duplicate]);
    let kept = table.seen.iter().all(|(at, output)| {
        *at != 0 || !matches!(output, Output::Close { link, .. } if *link == LinkId(1))
    });
    assert!(kept);
}

/// Who opens many connections and says nothing makes room for those who say something.
#[test]
fn silent_strangers_do_not_keep_others_out() {
    let mut table =
        Table::new(vec![node(config("a"), origin(1, 1, 5)), node(config("b"), origin(2, 1, 6))]);
    for link in 0..200 {
        let up = Input::LinkUp { link: LinkId(5000 + link), dialled: None, from: "x".to_owned() };
        table.give(1, up);
    }
    table.connect(1, 0, 1);
    assert_eq!((table.active(0), table.active(1)), (1, 1));
}

/// A commit from a clock far ahead waits on the link that brings it, told, before it is handed to the engine;
/// others go on. It goes on by itself when the time has come, or by the operator's word.
#[test]
fn a_commit_from_a_clock_far_ahead_waits() {
    for accepted in [false, true] {
        let nodes = vec![
            node(config("a"), origin(1, 1, 5)),
            node(config("b"), origin(2, 1, 6)),
            node(config("c"), origin(3, 1, 7)),
        ];
        let mut table = Table::new(nodes);
        table.connect(1, 0, 1);
        table.connect(2, 0, 2);
        let (far, near) = (origin(2, 1, 6), origin(3, 1, 7));
        let stamped = |it: Origin, millis: u64| {
            let row = RowKey::single(0, Bytes::from_static(b"k"), STRING);
            let put = Some(Bytes::from_static(b"v"));
            let delta = Delta { put, ..Delta::default() };
            let effects = vec![Effect::Row(RowEffect { row, delta })];
            Commit { origin: it, first: 1, hlc: Hlc::at(Millis(millis)), lead: 0, effects }.encode()
        };
        let sealed = |commit: EncodedCommit| {
            let vector = [(commit.origin, commit.last)].into_iter().collect();
            let entries = vec![LogEntry::Commit(commit)];
            Input::Sealed { position: LogPosition(1), vector, entries }
        };
        table.give(1, sealed(stamped(far, 1000 + 7_200_000)));
        table.give(2, sealed(stamped(near, 1000)));
        let done: Vec<_> = applied(&table, 0).into_iter().flat_map(|(_, it)| it).collect();
        assert_eq!(done, [(near, 1)]);
        assert_eq!(table.states(0), ["clock", "active"]);
        let held = table.nodes[0].peers()[0].clock_held;
        assert_eq!(held, Some(7_200_000));
        let told = |ahead| {
            let name = "b".to_owned();
            PeerEvent::ClockHeld { node: NodeId(2), name, ahead_ms: ahead }
        };
        assert!(table.events.contains(&(0, told(held))));
        if accepted {
            let name = "b".to_owned();
            table.give(0, Input::Command(PeerCommand::AcceptClock { name }));
        } else {
            table.now += 7_200_000 - 60_000;
            table.give(0, Input::Timer(Timer::Head(LinkId(1))));
        }
        let done: Vec<_> = applied(&table, 0).into_iter().flat_map(|(_, it)| it).collect();
        assert_eq!(done, [(near, 1), (far, 1)]);
        assert!(table.events.contains(&(0, told(None))));
    }
}

/// A peer that knows the secret and no rules.
fn rogue(messages: Vec<Message>) {
    let mut table = pair(config("a"), config("b"));
    // A reader and a writer that stand where b's end stands; nothing was streamed yet.
    let mut writer = FrameWriter::new(4096);
    let mut reader = FrameReader::new(1 << 20);
    table.ends.clear();
    for message in messages {
        for bytes in writer.write(&message) {
            let _ = reader.read(&bytes);
            table.give(0, Input::Frame { link: LinkId(1), bytes });
            table.now += 30;
            table.give(0, Input::Timer(Timer::Head(LinkId(1))));
        }
    }
    table.now += 10_000;
    table.give(0, Input::Timer(Timer::Tick));
}

/// Who asks for a state waits for it, also when it has all of that by another way before the first part is
/// read: nothing else would end its wait.
#[test]
fn a_state_that_was_asked_for_is_sent() {
    let mut table = pair(config("a"), config("b"));
    table.ends.clear();
    for bytes in FrameWriter::new(4096).write(&Message::StateRequest { resume: None }) {
        table.give(0, Input::Frame { link: LinkId(1), bytes });
    }
    for _ in 0..3 {
        table.now += 1000;
        table.give(0, Input::Timer(Timer::Tick));
    }
    let asked = |(_, output): &(usize, Output)| match output {
        Output::ReadState { snapshot, part: 0, .. } => Some(*snapshot),
        _ => None,
    };
    let snapshot = table.seen.iter().find_map(asked).expect("it is read");
    let is_dropped = |(_, output): &(usize, Output)| matches!(output, Output::DropState { .. });
    assert!(!table.seen.iter().any(is_dropped));
    let bytes = Bytes::from_static(b"state");
    let (link, part, last) = (LinkId(1), 0, true);
    table.give(0, Input::StateChunk { link, snapshot, part, bytes, last });
    table.now += 1000;
    table.give(0, Input::Timer(Timer::Tick));
    assert!(table.seen.iter().any(is_dropped));
}

fn any_origin() -> impl Strategy<Value = Origin> {
    (1u64..4, 1u32..2, 5u64..7)
        .prop_map(|(node, incarnation, nonce)| origin(node, incarnation, nonce))
}

fn any_seq() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1u64..5, 1 => Just(u64::MAX - 1)]
}

fn any_message() -> impl Strategy<Value = Message> {
    let vector = || {
        prop::collection::vec((any_origin(), any_seq()), 0..4)
            .prop_map(|entries| entries.into_iter().collect::<VersionVector>())
    };
    let item = prop_oneof![
        (any_origin(), any_seq()).prop_map(|(origin, seq)| Item::Commit(commit(origin, seq, 3))),
        (any_origin(), any_seq()).prop_map(|(origin, first)| Item::Marker {
            origin,
            first,
            last: first
        }),
        vector().prop_map(Item::Barrier),
    ];
    let position = (any_origin(), any_seq(), any::<bool>())
        .prop_map(|(origin, first, eager)| Position::Commits { origin, first, last: first, eager });
    prop_oneof![
        6 => prop::collection::vec(item, 0..6).prop_map(Message::Stream),
        1 => (0u64..200, vector()).prop_map(|(consumed, vector)| Message::Ack {
            consumed,
            positions: 0,
            vector
        }),
        1 => any_origin().prop_map(Message::Prune),
        1 => (any_origin(), any_seq())
            .prop_map(|(origin, from)| Message::Graft { origin, from, to: from, once: from % 2 == 0 }),
        1 => (any_origin(), any_seq()).prop_map(|(origin, seq)| Message::Grafted {
            commits: vec![commit(origin, seq, 3)],
            truncated: seq == 2
        }),
        1 => Just(Message::StateRequest { resume: None }),
        1 => any::<(u64, u64)>().prop_map(|it| Message::StateRequest { resume: Some(it) }),
        1 => prop::collection::vec(position, 0..6).prop_map(Message::Order),
        1 => prop::collection::vec((any_origin(), any_seq()), 0..3).prop_map(|names| {
            Message::Payload(names.into_iter().map(|(it, seq)| commit(it, seq, 3)).collect())
        }),
        1 => Just(Message::State {
            number: (1, 0),
            part: Bytes::from_static(b"x"),
            last: true
        }),
        1 => Just(Message::StateNext),
        1 => any::<(u64, u64)>().prop_map(|(sent, wall)| Message::Ping { sent, wall }),
        1 => any::<u64>().prop_map(|sent| Message::Pong { sent }),
        1 => any::<u8>().prop_map(Message::Bye),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_rogue_peer_does_no_harm(messages in prop::collection::vec(any_message(), 0..12)) {
        rogue(messages);
    }
}
