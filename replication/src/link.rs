//! One connection: its handshake, its two lanes out, and what is known of the other end by it.

use std::collections::VecDeque;

use bytes::Bytes;
use lattis_engine::causal::{LogPosition, Millis, Origin};

use crate::handshake::Phase;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::wire::{FrameReader, FrameWriter, Hello, Lane, Message, Pieces};
use crate::{LinkId, Output};

pub(crate) struct Link {
    /// The address that was dialled; `None` if the peer dialled.
    pub dialled: Option<String>,
    /// Where the other end is, for people.
    pub from: String,
    pub phase: Phase,
    pub hello: Hello,
    pub hello_frame: Bytes,
    pub peer: Option<(Hello, Bytes)>,
    pub writer: FrameWriter,
    pub reader: FrameReader,
    pub sender: Sender,
    pub receiver: Receiver,
    /// An answer to a graft was parked since the queue was worked last.
    pub grafted: bool,
    /// When bytes arrived last.
    pub heard: Millis,
    /// When bytes of the payload lane arrived last.
    pub moved: Millis,
    /// When the oldest heartbeat was sent that was not answered.
    pub pinged: Option<Millis>,
    pub active_since: Option<Millis>,
    /// Planted fault: what is small waits behind what is big.
    pub one_lane: bool,
    /// How far the peer's wall clock is ahead of this node's, ms, by its last heartbeat.
    pub clock: Option<i64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Messages of the payload lane that go before commits.
    answers: VecDeque<Message>,
    /// The message of the payload lane that is being cut.
    current: Option<Pieces>,
    /// Bytes of the payload lane that the driver has and has not written.
    unwritten: u64,
}

impl Link {
    pub fn new(
        dialled: Option<String>,
        from: String,
        hello: Hello,
        ends: (FrameWriter, FrameReader),
        streams: (Sender, Receiver),
        now: Millis,
    ) -> Link {
        Link {
            dialled,
            from,
            phase: Phase::Hello,
            hello,
            hello_frame: Bytes::new(),
            peer: None,
            writer: ends.0,
            reader: ends.1,
            sender: streams.0,
            receiver: streams.1,
            grafted: false,
            heard: now,
            moved: now,
            pinged: None,
            active_since: None,
            one_lane: false,
            clock: None,
            bytes_in: 0,
            bytes_out: 0,
            answers: VecDeque::new(),
            current: None,
            unwritten: 0,
        }
    }

    /// Whether the link has two lanes.
    pub fn has_lanes(&self) -> bool {
        self.writer.version() > 1
    }

    /// Sends a message: at once, or behind what is on the payload lane, if that is its lane.
    pub fn send(&mut self, link: LinkId, message: Message, out: &mut Vec<Output>) {
        if self.has_lanes() && message.lane() == Lane::Payload {
            return self.answers.push_back(message);
        }
        for frame in self.writer.write(&message) {
            self.bytes_out += frame.len() as u64 + 4;
            let lane = if self.one_lane { Lane::Payload } else { Lane::Order };
            out.push(Output::Send { link, lane, frame });
        }
    }

    /// The driver has written that much of the payload lane.
    pub fn written(&mut self, bytes: u64) {
        self.unwritten = self.unwritten.saturating_sub(bytes);
    }

    /// Gives the driver frames of the payload lane until it has `ahead` bytes of them. Answers go first:
    /// there are few, as the peer asks for one at a time.
    pub fn pump_payload(
        &mut self,
        link: LinkId,
        ahead: u64,
        end: LogPosition,
        out: &mut Vec<Output>,
    ) {
        while self.unwritten < ahead {
            let frame = match &mut self.current {
                Some(pieces) => self.writer.cut(pieces),
                None => None,
            };
            if let Some(frame) = frame {
                let bytes = frame.len() as u64 + 4;
                self.unwritten += bytes;
                self.bytes_out += bytes;
                out.push(Output::Send { link, lane: Lane::Payload, frame });
                continue;
            }
            let commits = match self.answers.pop_front() {
                Some(answer) => {
                    self.current = Some(self.writer.begin(&answer));
                    continue;
                }
                None => self.sender.payload(end),
            };
            if commits.is_empty() {
                self.current = None;
                return;
            }
            self.current = Some(self.writer.begin(&Message::Payload(commits)));
        }
    }

    /// The peer's origin, once it is proven.
    pub fn verified(&self) -> Option<Origin> {
        match self.phase {
            Phase::Hello | Phase::Auth => None,
            Phase::Welcome | Phase::Active => self.peer.as_ref().map(|(hello, _)| hello.origin),
        }
    }

    /// The same, once the streams are open.
    pub fn active(&self) -> Option<Origin> {
        if self.phase == Phase::Active { self.verified() } else { None }
    }
}
