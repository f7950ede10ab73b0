//! What is remembered about peers for the operator: records, lag.

use std::collections::VecDeque;

use lattis_engine::causal::{Millis, NodeId, VersionVector};

use crate::node::Node;

/// One line of PEER.LIST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// The peer's name, if known.
    pub name: String,
    /// Where it listens, or the address that is dialled.
    pub address: String,
    /// `active`, `handshake`, `dialling`, `waiting`, `paused` or `down`.
    pub state: &'static str,
    /// Its node id, if known.
    pub node: Option<NodeId>,
    /// Its incarnation, 0 if unknown.
    pub incarnation: u32,
    /// Effects that this node has and the peer is not known to have, by its last word.
    pub lag_commits: u64,
    /// Age in ms of the oldest of them, about.
    pub lag_ms: u64,
    /// Effects that the peer is known to have and this node has not.
    pub behind_commits: u64,
    /// Bytes of a whole state that have come from it so far, while one does.
    pub receiving: Option<u64>,
    /// Bytes of a whole state that were sent to it so far, while one is.
    pub sending: Option<u64>,
    /// How far its wall clock is ahead of this node's, ms.
    pub clock_ms: Option<i64>,
    /// Its commits wait, since they are stamped so far ahead, ms.
    pub clock_held: Option<u64>,
    /// Round trip of the last heartbeat in ms.
    pub rtt_ms: Option<u64>,
    /// Bytes of frames received from it.
    pub bytes_in: u64,
    /// Bytes of frames sent to it.
    pub bytes_out: u64,
    /// Why the last connection or attempt ended.
    pub last_error: Option<String>,
}

/// What outlives a connection.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub name: String,
    pub address: String,
    pub incarnation: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub rtt_ms: Option<u64>,
    pub last_error: Option<String>,
    /// When its commits were refused.
    pub refusals: Vec<u64>,
    /// Its commits wait for this node's clock: how far they are ahead, ms.
    pub clock_held: Option<u64>,
    /// What it was known to have when the last connection ended.
    pub known: VersionVector,
}

const SAMPLES: usize = 64;

/// When the node had which vector: few samples, thinned out when there are too many.
#[derive(Debug, Default)]
pub(crate) struct Seals {
    samples: VecDeque<(Millis, VersionVector)>,
    spacing: u64,
}

impl Seals {
    /// Notes a seal, at most one for each stretch of time.
    pub fn note(&mut self, now: Millis, vector: &VersionVector) {
        if self.samples.back().is_some_and(|(at, _)| now.0 < at.0 + self.spacing) {
            return;
        }
        self.samples.push_back((now, vector.clone()));
        if self.samples.len() > SAMPLES {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.spacing = (self.spacing * 2).max(10);
        }
    }

    /// Forgets what every peer has.
    pub fn forget(&mut self, covered: impl Fn(&VersionVector) -> bool) {
        while self.samples.front().is_some_and(|(_, vector)| covered(vector)) {
            self.samples.pop_front();
        }
        if self.samples.is_empty() {
            self.spacing = 10;
        }
    }

    /// Age of the oldest seal that `known` does not cover, in ms.
    pub fn lag(&self, now: Millis, known: &VersionVector) -> u64 {
        let oldest = self.samples.iter().find(|(_, vector)| !known.covers(vector));
        oldest.map_or(0, |(at, _)| now.0.saturating_sub(at.0))
    }
}

impl Node {
    /// One line for each peer and for each address at which nobody was found yet.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let mut list = Vec::new();
        for (node, record) in &self.records {
            let link = self.links.values().find(|l| l.verified().is_some_and(|o| o.node == *node));
            let place = self.membership.places.values().find(|place| place.node == Some(*node));
            let names = [record.name.as_str(), record.address.as_str()];
            let active = link.filter(|link| link.active().is_some());
            let known = active.map_or(&record.known, |link| &link.sender.known);
            let incoming = self.incoming.as_ref().filter(|it| it.node == *node);
            let outgoing = self.outgoing.values().find(|it| it.node == *node);
            list.push(PeerInfo {
                name: record.name.clone(),
                address: record.address.clone(),
                state: match (active, link) {
                    (Some(_), _) if record.clock_held.is_some() => "clock",
                    (Some(_), _) => "active",
                    (None, Some(_)) => "handshake",
                    _ if self.membership.is_paused(Some(*node), &names) => "paused",
                    _ if place.is_some_and(|place| place.busy) => "dialling",
                    _ if place.is_some() => "waiting",
                    _ => "down",
                },
                node: Some(*node),
                incarnation: record.incarnation,
                lag_commits: self.sealed.missing_from(known),
                lag_ms: self.seals.lag(self.now, known),
                behind_commits: known.missing_from(&self.sealed),
                receiving: incoming.map(|it| it.bytes),
                sending: outgoing.map(|it| it.bytes),
                clock_ms: active.and_then(|link| link.clock),
                clock_held: record.clock_held,
                rtt_ms: record.rtt_ms,
                bytes_in: record.bytes_in + link.map_or(0, |link| link.bytes_in),
                bytes_out: record.bytes_out + link.map_or(0, |link| link.bytes_out),
                last_error: record.last_error.clone(),
            });
        }
        for (address, place) in &self.membership.places {
            if place.node.is_none() && !place.myself {
                list.push(PeerInfo {
                    address: address.clone(),
                    state: match place.busy {
                        _ if self.membership.is_paused(None, &[address]) => "paused",
                        true => "dialling",
                        false => "waiting",
                    },
                    last_error: place.error.clone(),
                    ..PeerInfo::default()
                });
            }
        }
        list
    }

    /// What each link waits for and owes, for a report of something that does not move.
    pub fn explain(&self) -> String {
        let mut text = format!(
            "epoch {}, receives {:?}, sends {:?}, holds {:?}",
            self.epoch,
            self.incoming.as_ref().map(|it| (it.link, it.parts, it.joining, it.held.len())),
            self.outgoing.iter().map(|(id, it)| (*id, it.link, it.next)).collect::<Vec<_>>(),
            self.held,
        );
        for (id, link) in &self.links {
            text.push_str(&format!(
                "; {id}: {}; {}",
                link.receiver.explain(),
                link.sender.explain()
            ));
        }
        text
    }
}
