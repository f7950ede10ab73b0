//! What is remembered about peers for the operator: records, lag.

use std::collections::VecDeque;

use lattis_engine::causal::{Millis, NodeId, VersionVector};

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
    /// Effects that this node has and the peer is not known to have.
    pub lag_commits: u64,
    /// Age in ms of the oldest of them, about.
    pub lag_ms: u64,
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
