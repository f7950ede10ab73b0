//! Frames: what is written is read again, and nothing that is read can do harm.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use bytes::Bytes;
use lattis_engine::causal::{NodeId, Origin, VersionVector};
use lattis_engine::commit::EncodedCommit;
use lattis_replication::Framer;
use lattis_replication::wire::{
    FrameReader, FrameWriter, Hello, Item, Lane, Message, PIECE, Position, Welcome,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn origin() -> impl Strategy<Value = Origin> {
    (0u64..4, 1u32..3, 0u64..2).prop_map(|(node, incarnation, nonce)| Origin {
        node: NodeId(node),
        incarnation,
        nonce,
    })
}

fn vector() -> impl Strategy<Value = VersionVector> {
    vec((origin(), 1u64..=u64::MAX), 0..6).prop_map(|entries| entries.into_iter().collect())
}

fn run() -> impl Strategy<Value = (u64, u64)> {
    (prop_oneof![1u64..50, 1u64..u64::MAX - (1 << 24)], 0u64..300)
        .prop_map(|(first, more)| (first, first + more))
}

fn commit() -> impl Strategy<Value = EncodedCommit> {
    (origin(), run(), vec(any::<u8>(), 0..200)).prop_map(|(origin, (first, last), body)| {
        EncodedCommit { origin, first, last, body: Bytes::from(body) }
    })
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        commit().prop_map(Item::Commit),
        (origin(), run()).prop_map(|(origin, (first, last))| Item::Marker { origin, first, last }),
        vector().prop_map(Item::Barrier),
    ]
}

fn position() -> impl Strategy<Value = Position> {
    prop_oneof![
        (origin(), run(), any::<bool>()).prop_map(|(origin, (first, last), eager)| {
            Position::Commits { origin, first, last, eager }
        }),
        vector().prop_map(Position::Barrier),
    ]
}

/// Messages that version 1 does not have.
fn newer() -> impl Strategy<Value = Message> {
    let number = || (any::<u64>(), 0u64..1 << 40);
    prop_oneof![
        vec(position(), 0..40).prop_map(Message::Order),
        vec(commit(), 0..40).prop_map(Message::Payload),
        (origin(), run(), vec(any::<u8>(), 4000..9000)).prop_map(
            |(origin, (first, last), body)| {
                Message::Payload(vec![EncodedCommit {
                    origin,
                    first,
                    last,
                    body: Bytes::from(body),
                }])
            }
        ),
        (any::<(u64, u64)>(), vector()).prop_map(|((consumed, positions), vector)| Message::Ack {
            consumed,
            positions,
            vector
        }),
        (origin(), run()).prop_map(|(origin, (from, to))| Message::Graft {
            origin,
            from,
            to,
            once: true
        }),
        number().prop_map(|number| Message::StateRequest { resume: Some(number) }),
        (number(), vec(any::<u8>(), 0..9000), any::<bool>()).prop_map(|(number, part, last)| {
            Message::State { number, part: Bytes::from(part), last }
        }),
        any::<(u64, u64)>().prop_map(|(sent, wall)| Message::Ping { sent, wall }),
    ]
}

/// Messages of version 1.
fn message() -> impl Strategy<Value = Message> {
    let hello = (any::<[u8; 32]>(), any::<[u8; 32]>(), origin(), any::<(u16, u16, u32, bool)>());
    prop_oneof![
        hello.prop_map(|(cluster, challenge, origin, (low, high, max_frame, secured))| {
            Message::Hello(Hello {
                version_min: low,
                version_max: high,
                cluster,
                origin,
                challenge,
                max_frame,
                secured,
            })
        }),
        any::<[u8; 32]>().prop_map(Message::Auth),
        ("[a-z]{0,20}", "[a-z0-9:.]{0,30}", vector(), any::<u64>(), any::<bool>()).prop_map(
            |(name, address, vector, window, catch_up)| Message::Welcome(Welcome {
                name,
                address,
                vector,
                window,
                catch_up,
            })
        ),
        vec(item(), 0..40).prop_map(Message::Stream),
        (any::<u64>(), vector()).prop_map(|(consumed, vector)| Message::Ack {
            consumed,
            positions: 0,
            vector
        }),
        origin().prop_map(Message::Prune),
        (origin(), run()).prop_map(|(origin, (from, to))| Message::Graft {
            origin,
            from,
            to,
            once: false
        }),
        (vec(commit(), 0..20), any::<bool>())
            .prop_map(|(commits, truncated)| Message::Grafted { commits, truncated }),
        Just(Message::StateRequest { resume: None }),
        (vec(any::<u8>(), 0..5000), any::<bool>()).prop_map(|(part, last)| Message::State {
            number: (0, 0),
            part: Bytes::from(part),
            last
        }),
        Just(Message::StateNext),
        any::<u64>().prop_map(|sent| Message::Ping { sent, wall: 0 }),
        any::<u64>().prop_map(|sent| Message::Pong { sent }),
        any::<u8>().prop_map(Message::Bye),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A connection's messages, through length prefixes and pieces of any size.
    #[test]
    fn messages_come_back(messages in vec(message(), 0..12), cuts in vec(1usize..3000, 1..20)) {
        let mut writer = FrameWriter::new(1024);
        let mut stream = Vec::new();
        for message in &messages {
            for frame in writer.write(message) {
                prop_assert!(frame.len() <= 1024);
                stream.extend_from_slice(&Framer::prefix(&frame));
                stream.extend_from_slice(&frame);
            }
        }
        let mut framer = Framer::new(4096);
        let mut reader = FrameReader::new(1 << 20);
        let mut back = Vec::new();
        let mut rest = stream.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, left) = rest.split_at((*cut).min(rest.len()));
            framer.push(Bytes::copy_from_slice(piece));
            while let Some(frame) = framer.next_frame().unwrap() {
                back.extend(reader.read(&frame).unwrap());
            }
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(back, messages);
    }

    /// The same with two lanes, of which one goes first: each keeps its order, whatever lies between.
    #[test]
    fn lanes_keep_their_order(
        messages in vec(prop_oneof![newer(), message()], 0..12),
        turns in vec(any::<bool>(), 1..20),
    ) {
        let two = |message: &&Message| {
            !matches!(message, Message::Hello(_) | Message::Auth(_) | Message::Stream(_))
        };
        let messages: Vec<Message> = messages.iter().filter(two).cloned().collect();
        let mut writer = FrameWriter::new(1024);
        writer.agree(2, 1024);
        let (mut order, mut payload) = (std::collections::VecDeque::new(), std::collections::VecDeque::new());
        for message in &messages {
            match message.lane() {
                Lane::Order => order.extend(writer.write(message)),
                Lane::Payload => {
                    let mut pieces = writer.begin(message);
                    while let Some(frame) = writer.cut(&mut pieces) {
                        payload.push_back(frame);
                    }
                }
            }
        }
        let mut reader = FrameReader::new(1 << 20);
        let mut back = [Vec::new(), Vec::new()];
        for turn in turns.iter().chain([&true, &false]).cycle() {
            let lanes = if *turn { &mut order } else { &mut payload };
            if let Some(frame) = lanes.pop_front() {
                prop_assert!(frame.len() <= 1024);
                if let Some(message) = reader.read(&frame).unwrap() {
                    back[usize::from(message.lane() == Lane::Payload)].push(message);
                }
            }
            if order.is_empty() && payload.is_empty() {
                break;
            }
        }
        for lane in [Lane::Order, Lane::Payload] {
            let sent: Vec<&Message> = messages.iter().filter(|it| it.lane() == lane).collect();
            let read: Vec<&Message> = back[usize::from(lane == Lane::Payload)].iter().collect();
            // A ping without a clock, or a state without a number, is of version 1 and reads the same.
            prop_assert_eq!(read, sent);
        }
        prop_assert_eq!(reader.arriving(), None);
    }

    /// One flipped bit anywhere is noticed.
    #[test]
    fn flips_are_noticed(message in message(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = FrameWriter::new(1 << 20).write(&message).pop().unwrap().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(FrameReader::new(1 << 20).read(&Bytes::from(bytes)).is_err());
    }

    /// Garbage under a right checksum is an error or a message, never a panic.
    #[test]
    fn garbage_is_harmless(kind in 0u8..26, body in vec(any::<u8>(), 0..300)) {
        let mut rest = vec![1, kind];
        rest.extend_from_slice(&body);
        let mut frame = crc32c::crc32c(&rest).to_be_bytes().to_vec();
        frame.extend_from_slice(&rest);
        let _ = FrameReader::new(1 << 20).read(&Bytes::from(frame));
        let _ = FrameReader::new(1 << 20).read(&Bytes::from(body.clone()));
        let mut framer = Framer::new(1024);
        framer.push(Bytes::from(body));
        while let Ok(Some(_)) = framer.next_frame() {}
    }
}

#[test]
fn a_marker_takes_two_bytes_and_a_commit_three_more_than_its_body() {
    let origin = Origin { node: NodeId(1), incarnation: 1, nonce: 9 };
    let size = |writer: &mut FrameWriter, items| {
        writer.write(&Message::Stream(items)).iter().map(Bytes::len).sum::<usize>()
    };
    let mut writer = FrameWriter::new(1 << 20);
    let empty = size(&mut writer, vec![]);
    let marker = |first, last| Item::Marker { origin, first, last };
    assert_eq!(size(&mut writer, vec![marker(1, 1)]), empty + 22);
    assert_eq!(size(&mut writer, vec![marker(2, 9), marker(10, 10)]), empty + 4);
    let body = Bytes::from_static(b"12345");
    let commit = Item::Commit(EncodedCommit { origin, first: 11, last: 11, body });
    assert_eq!(size(&mut writer, vec![commit]), empty + 3 + 5);
}

#[test]
fn fragments_are_bounded() {
    let part = Bytes::from(vec![7; 10_000]);
    let message = Message::State { number: (0, 0), part, last: true };
    let mut reader = FrameReader::new(5000);
    let frames = FrameWriter::new(1024).write(&message);
    assert!(frames.len() > 9);
    assert!(frames.iter().any(|frame| reader.read(frame).is_err()));
}

#[test]
fn strangers_get_small_frames_only() {
    let mut framer = Framer::new(1 << 20);
    framer.push(Bytes::from_static(&[0, 0, 8, 0]));
    assert!(framer.next_frame().is_err());
}

/// A big message is cut into pieces that share its bytes, says from the first piece on which commit it
/// is, and is put together in a buffer of its size.
#[test]
fn a_big_commit_comes_in_pieces_and_is_known_from_the_first() {
    let origin = Origin { node: NodeId(1), incarnation: 1, nonce: 9 };
    let body = Bytes::from(vec![7; 1 << 20]);
    let commit = EncodedCommit { origin, first: 5, last: 5, body };
    let mut writer = FrameWriter::new(4 << 20);
    writer.agree(2, 4 << 20);
    let mut reader = FrameReader::new(2 << 20);
    let mut pieces = writer.begin(&Message::Payload(vec![commit.clone()]));
    let mut frames = 0;
    while let Some(frame) = writer.cut(&mut pieces) {
        assert!(frame.len() <= PIECE);
        frames += 1;
        match reader.read(&frame).unwrap() {
            None => assert_eq!(reader.arriving(), Some((origin, 5))),
            Some(message) => assert_eq!(message, Message::Payload(vec![commit.clone()])),
        }
    }
    assert_eq!((frames, reader.arriving()), (17, None));
}
