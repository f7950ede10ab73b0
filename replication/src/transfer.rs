//! State transfers: a whole snapshot, part by part, for a peer that is below the log's floor (MODEL M6).
//!
//! A transfer outlives its connection. The sender keeps the snapshot, and its log from the snapshot's
//! position, until the receiver has passed that and is level; the receiver keeps what it has staged, and
//! asks for the rest. So a transfer that is cut goes on where it was, and one that takes longer than the log
//! is kept for is not followed by another.

use bytes::Bytes;
use lattis_engine::causal::{LogPosition, Millis, NodeId, VersionVector};
use lattis_engine::transfer::state_clock;

use crate::link::Link;
use crate::node::Node;
use crate::wire::Message;
use crate::{CloseReason, LinkId, Output, PeerEvent, Ticket};

/// Parts of a snapshot that may be under way to a receiver that has not staged them.
pub(crate) const AHEAD: u32 = 4;

/// A state that is being received.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub node: NodeId,
    /// `None` while there is no connection to go on by.
    pub link: Option<LinkId>,
    pub ticket: Ticket,
    /// The sender's name for it, once it is known; 0 in version 1, which cannot go on after a cut.
    pub snapshot: Option<u64>,
    /// Parts handed to the engine.
    pub parts: u64,
    pub bytes: u64,
    /// The last part was handed over: waits for the engine.
    pub joining: bool,
    /// When the last part came, or the connection was lost.
    pub progress: Millis,
    /// Parts that wait because the sender's clock is too far ahead.
    pub held: Vec<(Bytes, bool)>,
}

/// A state that is being sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub node: NodeId,
    pub link: Option<LinkId>,
    /// The next part to send.
    pub next: u64,
    /// Parts that the peer still takes.
    pub credit: u32,
    /// Whether the driver was asked for a part.
    pub asked: bool,
    /// All parts were sent at least once.
    pub complete: bool,
    pub bytes: u64,
    /// What the snapshot has at least: once the peer has that, it has joined the state.
    pub vector: VersionVector,
    /// The log is kept from here on.
    pub hold: LogPosition,
    /// When the peer was there last.
    pub seen: Millis,
}

impl Node {
    // ---- receiving -----------------------------------------------------------------------------------

    /// Asks for the peer's state, or for the rest of it. While another transfer is under way nothing
    /// happens: the timer comes back.
    pub(crate) fn want_state(&mut self, id: LinkId, out: &mut Vec<Output>) {
        let Some(node) = self.links.get(&id).and_then(|link| link.active()).map(|o| o.node) else {
            return;
        };
        let resume = match &mut self.incoming {
            Some(incoming) if incoming.link.is_none() && incoming.node == node => {
                incoming.link = Some(id);
                incoming.progress = self.now;
                incoming.snapshot.map(|snapshot| (snapshot, incoming.parts))
            }
            Some(_) => return,
            None => {
                let ticket = self.next_ticket();
                self.incoming = Some(Incoming {
                    node,
                    link: Some(id),
                    ticket,
                    snapshot: None,
                    parts: 0,
                    bytes: 0,
                    joining: false,
                    progress: self.now,
                    held: Vec::new(),
                });
                None
            }
        };
        let Some(link) = self.links.get_mut(&id) else { return };
        link.send(id, Message::StateRequest { resume }, out);
        out.push(Output::Report(PeerEvent::Transfer {
            link: id,
            receives: true,
            resumes: resume.is_some(),
        }));
    }

    /// A part has come.
    pub(crate) fn state(
        &mut self,
        id: LinkId,
        (snapshot, number): (u64, u64),
        part: Bytes,
        last: bool,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let unasked = CloseReason::Protocol("state that was not asked for");
        let ticket = self.next_ticket();
        let lanes = self.links.get(&id).is_some_and(|link| link.has_lanes());
        let incoming = self.incoming.as_mut().filter(|it| it.link == Some(id) && !it.joining);
        let incoming = incoming.ok_or(unasked.clone())?;
        if lanes && incoming.snapshot.is_some_and(|known| known != snapshot) {
            // The sender could not go on where it was: what was staged is of no use.
            (incoming.ticket, incoming.parts, incoming.bytes) = (ticket, 0, 0);
            incoming.held.clear();
        }
        incoming.snapshot = lanes.then_some(snapshot);
        if lanes && number != incoming.parts + incoming.held.len() as u64 {
            return Err(unasked);
        }
        incoming.progress = self.now;
        incoming.bytes += part.len() as u64;
        incoming.held.push((part, last));
        self.state_unheld(out);
        Ok(())
    }

    /// Hands parts to the engine, unless they come from a clock that is too far ahead: what a state brings
    /// moves the clock as a commit does.
    pub(crate) fn state_unheld(&mut self, out: &mut Vec<Output>) {
        let Some(incoming) = &mut self.incoming else { return };
        let Some(link) = incoming.link else { return };
        let drift = self.config.clock_max_drift;
        let bound = self.clocks.bound(self.wall, drift, incoming.node);
        let ahead = |part: &Bytes| state_clock(part).is_ok_and(|stamp| stamp > bound);
        if incoming.held.iter().any(|(part, _)| ahead(part)) && !self.faults.clock_not_held {
            return;
        }
        for (part, last) in std::mem::take(&mut incoming.held) {
            incoming.joining = last;
            incoming.parts += 1;
            let ticket = incoming.ticket;
            out.push(Output::Join { link, ticket, part, last });
        }
    }

    /// The engine has staged a part: the sender may send one more.
    pub(crate) fn staged(&mut self, ticket: Ticket, out: &mut Vec<Output>) {
        if let Some(incoming) = &mut self.incoming
            && incoming.ticket == ticket
            && !incoming.joining
            && let Some(id) = incoming.link
            && let Some(link) = self.links.get_mut(&id)
        {
            incoming.progress = self.now;
            link.send(id, Message::StateNext, out);
        }
    }

    // ---- sending -------------------------------------------------------------------------------------

    /// A peer asks for the state, or for the rest of one.
    pub(crate) fn state_requested(
        &mut self,
        id: LinkId,
        node: NodeId,
        resume: Option<(u64, u64)>,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        if self.outgoing.values().any(|it| it.link == Some(id) && !it.complete) {
            return Err(CloseReason::Protocol("second request for the state"));
        }
        let known = resume.filter(|(snapshot, parts)| {
            let outgoing = self.outgoing.get(snapshot).filter(|it| it.node == node);
            outgoing.is_some_and(|it| *parts <= it.next && *parts + u64::from(AHEAD) >= it.next)
        });
        let snapshot = match known {
            Some((snapshot, _)) => snapshot,
            None => {
                let others = self.outgoing.iter().filter(|(_, it)| it.node == node);
                let others: Vec<u64> = others.map(|(snapshot, _)| *snapshot).collect();
                self.forget_transfers(&others, out);
                self.next_ticket().number
            }
        };
        let (vector, hold) = (self.sealed.clone(), self.position);
        let outgoing = self.outgoing.entry(snapshot).or_insert(Outgoing {
            node,
            link: None,
            next: 0,
            credit: 0,
            asked: false,
            complete: false,
            bytes: 0,
            vector,
            hold,
            seen: self.now,
        });
        outgoing.link = Some(id);
        outgoing.next = known.map_or(0, |(_, parts)| parts);
        (outgoing.credit, outgoing.asked, outgoing.complete) = (AHEAD, false, false);
        out.push(Output::Report(PeerEvent::Transfer {
            link: id,
            receives: false,
            resumes: known.is_some(),
        }));
        self.next_part(snapshot, out);
        Ok(())
    }

    /// Asks the driver for the next part, if the peer takes one.
    fn next_part(&mut self, snapshot: u64, out: &mut Vec<Output>) {
        let Some(outgoing) = self.outgoing.get_mut(&snapshot) else { return };
        let Some(link) = outgoing.link else { return };
        if outgoing.credit > 0 && !outgoing.asked && !outgoing.complete {
            outgoing.asked = true;
            let (part, limit_bytes) = (outgoing.next, self.config.read_bytes);
            out.push(Output::ReadState { link, snapshot, part, limit_bytes });
        }
    }

    /// The peer takes one part more.
    pub(crate) fn state_next(&mut self, id: LinkId, out: &mut Vec<Output>) {
        let of = self.outgoing.iter_mut().find(|(_, it)| it.link == Some(id));
        let Some((snapshot, outgoing)) = of else { return };
        outgoing.credit = (outgoing.credit + 1).min(AHEAD);
        let snapshot = *snapshot;
        self.next_part(snapshot, out);
    }

    /// The driver has read a part.
    pub(crate) fn state_chunk(
        &mut self,
        id: LinkId,
        snapshot: u64,
        part: u64,
        bytes: Bytes,
        last: bool,
        out: &mut Vec<Output>,
    ) {
        let Some(outgoing) = self.outgoing.get_mut(&snapshot) else { return };
        if outgoing.link != Some(id) || !outgoing.asked || outgoing.next != part {
            return;
        }
        outgoing.asked = false;
        outgoing.next += 1;
        outgoing.complete = last;
        outgoing.credit = outgoing.credit.saturating_sub(1);
        outgoing.bytes += bytes.len() as u64;
        let Some(link) = self.links.get_mut(&id) else { return };
        // Sent before the next part is asked for: a driver may answer at once.
        link.send(id, Message::State { number: (snapshot, part), part: bytes, last }, out);
        self.next_part(snapshot, out);
    }

    /// Ends transfers that are over, or that nobody comes back for.
    fn forget_transfers(&mut self, over: &[u64], out: &mut Vec<Output>) {
        for snapshot in over {
            self.outgoing.remove(snapshot);
            out.push(Output::DropState { snapshot: *snapshot });
        }
    }

    // ---- both ----------------------------------------------------------------------------------------

    fn next_ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket { epoch: self.epoch, number: self.tickets }
    }

    /// A link is gone: transfers wait for the next one to the same node.
    pub(crate) fn transfer_cut(&mut self, id: LinkId) {
        let cut = |it: &mut Incoming| it.link == Some(id) && !it.joining;
        if let Some(incoming) = self.incoming.as_mut().filter(|it| it.link == Some(id)) {
            incoming.progress = self.now;
            // Parts that the engine does not have come again.
            incoming.held.clear();
        }
        let forgets = |it: &mut Incoming| cut(it) && it.snapshot.is_none();
        if self.faults.transfer_forgotten {
            self.incoming.take_if(cut);
        } else {
            self.incoming.take_if(forgets);
        }
        if let Some(incoming) = self.incoming.as_mut().filter(|it| it.link == Some(id)) {
            incoming.link = None;
        }
        for outgoing in self.outgoing.values_mut().filter(|it| it.link == Some(id)) {
            (outgoing.link, outgoing.seen) = (None, self.now);
        }
    }

    /// Looks after transfers that stand still or are over.
    pub(crate) fn transfers_tick(&mut self, out: &mut Vec<Output>) {
        self.state_unheld(out);
        let since = |at: Millis| self.now.0.saturating_sub(at.0);
        let still = self.config.transfer_after.0;
        let mut stalled = None;
        if let Some(incoming) = self.incoming.as_ref().filter(|it| !it.joining) {
            let moved = incoming.link.and_then(|id| self.links.get(&id)).map(|link| link.moved);
            let moved = moved.unwrap_or_default().max(incoming.progress);
            stalled = (since(moved) >= still && incoming.held.is_empty()).then_some(incoming.link);
        }
        if let Some(link) = stalled {
            self.incoming = None;
            if let Some(link) = link {
                self.drop_link(link, CloseReason::Transfer, true, out);
            }
        }
        let (now, keep) = (self.now.0, self.config.keep_after.0);
        // Who is level by another way waits for the rest of what it asked for all the same, as long as it is
        // connected.
        let level = |it: &Outgoing| {
            let is_asked_for = it.link.is_some() && !it.complete;
            !is_asked_for && self.joined(it).is_some_and(|link| link.sender.sent() >= self.position)
        };
        let gone = |it: &Outgoing| it.link.is_none() && now.saturating_sub(it.seen.0) >= keep;
        let over = self.outgoing.iter().filter(|(_, it)| level(it) || gone(it));
        let over: Vec<u64> = over.map(|(snapshot, _)| *snapshot).collect();
        self.forget_transfers(&over, out);
    }

    /// The link to the receiver of a state, once that has all that the snapshot has, by whichever way.
    fn joined(&self, outgoing: &Outgoing) -> Option<&Link> {
        let mut links = self.links.values();
        let link = links.find(|link| link.active().is_some_and(|it| it.node == outgoing.node))?;
        Some(link).filter(|link| link.sender.known.covers(&outgoing.vector))
    }

    /// Tells the driver from where the log is needed, if that has changed: by each transfer from its
    /// snapshot on, and then from where its receiver has come.
    pub(crate) fn hold_log(&mut self, out: &mut Vec<Output>) {
        let needed = self
            .outgoing
            .values()
            .map(|it| self.joined(it).map_or(it.hold, |link| it.hold.max(link.sender.sent())));
        let from = if self.faults.log_not_held { None } else { needed.min() };
        if from != self.held {
            self.held = from;
            out.push(Output::HoldLog { from });
        }
    }
}
