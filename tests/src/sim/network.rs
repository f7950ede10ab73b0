//! The network: connections that carry bytes in order, late, in pieces, and that break anywhere.
//!
//! A connection may have a rate: then a frame takes its time on the wire, arrives piece by piece, and what is
//! small goes before what is big. A direction that is cut holds its bytes, as TCP does, until it is healed or
//! somebody gives up. A connection that breaks delivers some of what was under way, perhaps half a
//! frame, and ends.

use std::collections::VecDeque;

use bytes::Bytes;
use lattis_engine::causal::VersionVector;
use lattis_replication::{Framer, Input, Lane, LinkId};

use super::cluster::{Cluster, Event};
use super::node::Link;

/// What is under way in one direction.
#[derive(Debug)]
pub enum Packet {
    /// Bytes of the stream.
    Bytes(Bytes),
    /// The other end is gone.
    End,
}

/// One connection. Side 0 dialled.
#[derive(Debug)]
pub struct Conn {
    /// The nodes at its ends.
    pub sites: [usize; 2],
    /// What they call it.
    ids: [LinkId; 2],
    /// The same, while they have it.
    pub links: [Option<LinkId>; 2],
    /// Under way to each side.
    pipes: [VecDeque<Packet>; 2],
    /// When the last of it arrives.
    last: [u64; 2],
    framers: [Framer; 2],
    /// Frames that wait for the wire to each side: the order lane, the payload lane.
    lanes: [[VecDeque<Bytes>; 2]; 2],
    /// What the wire to each side has sent beyond a whole ms, in thousandths of a byte.
    rest: [u64; 2],
    /// A frame is on the wire to each side.
    busy: [bool; 2],
    /// When bytes were delivered last to each side.
    heard: [u64; 2],
    /// What each side's shadow had when its state was taken for the other.
    pub claims: [Option<VersionVector>; 2],
}

impl Cluster {
    /// Puts a packet on its way to a side.
    pub fn packet(&mut self, conn: usize, to: usize, packet: Packet) {
        self.packet_after(conn, to, packet, 0);
    }

    fn packet_after(&mut self, conn: usize, to: usize, packet: Packet, after: u64) {
        let delay = after + 1 + self.rng.below(self.swarm.delay);
        let it = &mut self.conns[conn];
        let at = (self.now + delay).max(it.last[to]);
        it.last[to] = at;
        it.pipes[to].push_back(packet);
        self.at(at - self.now, Event::Deliver { conn, to });
    }

    /// Puts a frame on its lane.
    pub fn send(&mut self, conn: usize, to: usize, lane: Lane, frame: &Bytes) {
        let mut bytes = Framer::prefix(frame).to_vec();
        bytes.extend_from_slice(frame);
        let lane = usize::from(lane == Lane::Payload);
        self.conns[conn].lanes[to][lane].push_back(Bytes::from(bytes));
        if !self.conns[conn].busy[to] {
            self.onto_wire(conn, to);
        }
    }

    /// Puts frames on the wire to a side, the order lane first: all of them, sometimes in two pieces, or with
    /// a rate one, which takes its time.
    pub fn onto_wire(&mut self, conn: usize, to: usize) {
        loop {
            let it = &mut self.conns[conn];
            let order = it.lanes[to][0].pop_front();
            let paid = order.is_none();
            let next = order.or_else(|| it.lanes[to][1].pop_front());
            it.busy[to] = next.is_some();
            let Some(mut bytes) = next else { return };
            let written = if paid { bytes.len() as u64 } else { 0 };
            let rate = self.swarm.rate;
            if rate == 0 {
                if self.rng.chance(10) {
                    let at = self.rng.below(bytes.len() as u64) as usize;
                    self.packet(conn, to, Packet::Bytes(bytes.split_to(at)));
                }
                self.packet(conn, to, Packet::Bytes(bytes));
                if written > 0 {
                    // The sender hears of it later: not while it is at work.
                    self.at(0, Event::Wire { conn, to, written });
                }
                continue;
            }
            let (mut after, mut sent) = (0, self.conns[conn].rest[to]);
            while !bytes.is_empty() {
                let piece = bytes.split_to(bytes.len().min(500));
                sent += piece.len() as u64 * 1000;
                after = sent / rate;
                self.packet_after(conn, to, Packet::Bytes(piece), after);
            }
            self.conns[conn].rest[to] = sent % rate;
            return self.at(after, Event::Wire { conn, to, written });
        }
    }

    /// The sender hears that a frame of its payload lane is written.
    pub fn written(&mut self, conn: usize, to: usize, bytes: u64) {
        let it = &self.conns[conn];
        if let (Some(link), true) = (it.links[1 - to], bytes > 0) {
            let site = it.sites[1 - to];
            self.peers(site, Input::Written { link, bytes });
        }
    }

    /// Whether packets pass from one node to another.
    fn passes(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// A node dials an address.
    pub fn dial(&mut self, from: usize, address: String) {
        let to: usize = address.parse().unwrap_or(usize::MAX);
        let edge = (from.min(to), from.max(to));
        let open = self.swarm.edges.contains(&edge) && self.passes(from, to);
        if !open || !self.passes(to, from) || self.sites[to].node.is_none() {
            let why = "unreachable".to_owned();
            return self.peers(from, Input::DialFailed { address, why });
        }
        let links = [self.next_link + 1, self.next_link + 2].map(LinkId);
        self.next_link += 2;
        let conn = self.conns.len();
        let framer = || Framer::new(self.swarm.config.max_frame);
        self.conns.push(Conn {
            sites: [from, to],
            ids: links,
            links: links.map(Some),
            pipes: Default::default(),
            last: [self.now; 2],
            framers: [framer(), framer()],
            lanes: Default::default(),
            rest: [0; 2],
            busy: [false; 2],
            heard: [self.now; 2],
            claims: [None, None],
        });
        for (side, site) in [(0, from), (1, to)] {
            self.sites[site].links.insert(links[side], Link { conn, side });
        }
        let name = from.to_string();
        self.peers(to, Input::LinkUp { link: links[1], dialled: None, from: name });
        let name = address.clone();
        self.peers(from, Input::LinkUp { link: links[0], dialled: Some(address), from: name });
    }

    /// What arrives at a side.
    pub fn deliver(&mut self, conn: usize, to: usize) {
        let [a, b] = self.conns[conn].sites;
        let (from, site) = if to == 0 { (b, a) } else { (a, b) };
        if !self.passes(from, site) {
            return;
        }
        let it = &mut self.conns[conn];
        let Some(packet) = it.pipes[to].pop_front() else { return };
        let Some(link) = it.links[to] else { return };
        let why = match packet {
            Packet::End => "the connection broke".to_owned(),
            Packet::Bytes(bytes) => {
                it.framers[to].push(bytes);
                it.heard[to] = self.now;
                let mut whole = false;
                loop {
                    if self.conns[conn].links[to].is_none() {
                        return;
                    }
                    match self.conns[conn].framers[to].next_frame() {
                        Ok(Some(bytes)) => {
                            whole = true;
                            self.peers(site, Input::Frame { link, bytes });
                        }
                        Ok(None) if whole => return,
                        Ok(None) => return self.peers(site, Input::Received { link }),
                        Err(error) => break error.to_string(),
                    }
                }
            }
        };
        self.conns[conn].links[to] = None;
        self.sites[site].links.remove(&link);
        self.peers(site, Input::LinkDown { link, why });
    }

    /// One side has closed.
    pub fn close(&mut self, conn: usize, side: usize) {
        self.conns[conn].links[side] = None;
        self.conns[conn].lanes[1 - side].iter_mut().for_each(VecDeque::clear);
        self.packet(conn, 1 - side, Packet::End);
    }

    /// Breaks a connection: what is under way is lost from some byte on.
    pub fn break_conn(&mut self, conn: usize) {
        for to in 0..2 {
            let under_way = self.conns[conn].pipes[to].len() as u64;
            let keep = self.rng.below(under_way + 1) as usize;
            let at = self.rng.below(1 << 16) as usize;
            let pipe = &mut self.conns[conn].pipes[to];
            let torn = pipe.get(keep).and_then(|packet| match packet {
                Packet::Bytes(bytes) if !bytes.is_empty() => Some(bytes.slice(..at % bytes.len())),
                _ => None,
            });
            pipe.truncate(keep);
            if let Some(bytes) = torn {
                self.count("torn frames");
                self.packet(conn, to, Packet::Bytes(bytes));
            }
            self.packet(conn, to, Packet::End);
        }
    }

    /// A link was declared dead: no byte may have arrived on it for as long as that takes.
    pub fn not_heard(&mut self, at: usize, link: LinkId) {
        let heard = self.conns.iter().find_map(|conn| {
            let side = conn.ids.iter().position(|it| *it == link)?;
            Some(conn.heard[side])
        });
        // The node counts the steps of its own clock, which may jump.
        let steady = self.swarm.jumps == 0;
        if let (Some(heard), true) = (heard, steady)
            && self.now < heard + self.swarm.config.dead_after.0
        {
            let silent = self.now - heard;
            self.fail("liveness", format!("n{at}: {link} is dead, though heard {silent} ms ago"));
        }
    }

    /// Lets everything pass again.
    pub fn heal(&mut self) {
        self.cut.clear();
        for conn in 0..self.conns.len() {
            for to in 0..2 {
                for _ in 0..self.conns[conn].pipes[to].len() {
                    let after = 1 + self.rng.below(self.swarm.delay);
                    self.at(after, Event::Deliver { conn, to });
                }
            }
        }
    }
}
