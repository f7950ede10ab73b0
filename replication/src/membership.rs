//! Whom to dial: addresses, back-off, pause. Mesh membership: every known address is dialled.
//!
//! Other memberships (static, client and server, partial views) take this module's place.

use std::collections::{BTreeMap, BTreeSet};

use lattis_engine::causal::{Millis, NodeId};
use rand_core::RngCore;

/// Addresses that a node remembers at most.
pub(crate) const MAX_PLACES: usize = 1024;

/// One address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// Who was found there.
    pub node: Option<NodeId>,
    /// This node itself was found there.
    pub myself: bool,
    /// The driver dials, or a link that it dialled is up.
    pub busy: bool,
    /// A timer to dial is under way.
    pub armed: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Why it failed the last time.
    pub error: Option<String>,
}

/// Addresses and what is paused.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    pub places: BTreeMap<String, Place>,
    /// Names, addresses and ids, as the command named them.
    paused: BTreeSet<String>,
    paused_nodes: BTreeSet<NodeId>,
    paused_all: bool,
    base_ms: u64,
    max_ms: u64,
}

impl Membership {
    pub fn new(base: Millis, max: Millis) -> Membership {
        Membership { base_ms: base.0.max(1), max_ms: max.0.max(1), ..Membership::default() }
    }

    /// Adds an address; false if there are too many.
    pub fn add(&mut self, address: &str) -> bool {
        if address.is_empty() || self.places.contains_key(address) {
            return true;
        }
        if self.places.len() >= MAX_PLACES {
            return false;
        }
        self.places.insert(address.to_owned(), Place::default());
        true
    }

    /// Milliseconds until the next attempt: exponential, with half of it left to chance.
    pub fn delay(&self, failures: u32, rng: &mut dyn RngCore) -> Millis {
        if failures == 0 {
            return Millis(u64::from(rng.next_u32()) % (self.base_ms / 4).max(1));
        }
        let full = self.base_ms.saturating_mul(1 << (failures - 1).min(20)).min(self.max_ms);
        Millis(full / 2 + u64::from(rng.next_u32()) % (full / 2 + 1))
    }

    /// Notes a pause of everyone, or of the peer of that name and, if known, id.
    pub fn pause(&mut self, name: Option<&str>, nodes: impl Iterator<Item = NodeId>) {
        match name {
            None => self.paused_all = true,
            Some(name) => {
                if self.paused.len() < MAX_PLACES {
                    self.paused.insert(name.to_owned());
                    self.paused_nodes.extend(nodes);
                }
            }
        }
    }

    /// Undoes a pause.
    pub fn resume(&mut self, name: Option<&str>, nodes: impl Iterator<Item = NodeId>) {
        match name {
            None => {
                self.paused_all = false;
                self.paused.clear();
                self.paused_nodes.clear();
            }
            Some(name) => {
                self.paused.remove(name);
                for node in nodes {
                    self.paused_nodes.remove(&node);
                }
            }
        }
    }

    pub fn all_paused(&self) -> bool {
        self.paused_all
    }

    /// Whether the node, or any of its names, is paused.
    pub fn is_paused(&self, node: Option<NodeId>, names: &[&str]) -> bool {
        self.paused_all
            || node.is_some_and(|node| {
                self.paused_nodes.contains(&node) || self.paused.contains(&node.to_string())
            })
            || names.iter().any(|name| self.paused.contains(*name))
    }
}
