//! Whom to dial: addresses, back-off, pause. Mesh membership: every known address is dialled.
//!
//! Other memberships (static, client and server, partial views) take this module's place.

use std::collections::{BTreeMap, BTreeSet};

use lattis_engine::causal::{Millis, NodeId};
use rand_core::RngCore;

use crate::node::Node;
use crate::wire::TEXT_MAX;
use crate::{CloseReason, LinkId, Output, PeerCommand, PeerEvent, Timer};

/// Addresses that a node remembers at most.
pub(crate) const MAX_PLACES: usize = 1024;
/// How often an address is tried whose node is linked by another one, in times of the longest delay.
const ELSEWHERE: u64 = 6;

/// One address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// Who was found there.
    pub node: Option<NodeId>,
    /// This node itself was found there.
    pub myself: bool,
    /// Who was found there is linked by another address: it is tried again, but seldom.
    pub elsewhere: bool,
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

    /// The delay before an address is tried whose node is linked by another one.
    pub fn elsewhere(&self) -> Millis {
        Millis(self.max_ms.saturating_mul(ELSEWHERE))
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

impl Node {
    /// Whether an address is to be dialled: unless a link *at that address* lives. Who was found there
    /// before decides nothing, since nodes move, but for how soon it is tried.
    pub(crate) fn may_dial(&self, address: &str) -> bool {
        let Some(place) = self.membership.places.get(address) else { return false };
        let record = place.node.and_then(|node| Some((node, self.records.get(&node)?)));
        let there = self.links.values().any(|link| {
            let node = link.verified().map(|origin| origin.node);
            let advertised =
                record.is_some_and(|(it, record)| node == Some(it) && record.address == address);
            advertised || (node.is_some() && link.dialled.as_deref() == Some(address))
        });
        let name = record.map_or("", |(_, record)| record.name.as_str());
        self.started
            && !self.fenced
            && !place.myself
            && !place.busy
            && !there
            && !self.membership.is_paused(place.node, &[address, name])
    }

    pub(crate) fn arm_dials(&mut self, rng: &mut dyn RngCore, out: &mut Vec<Output>) {
        self.redial = false;
        let addresses: Vec<String> = self.membership.places.keys().cloned().collect();
        for address in addresses {
            if !self.may_dial(&address) {
                continue;
            }
            let Some(place) = self.membership.places.get_mut(&address) else { continue };
            if std::mem::replace(&mut place.armed, true) {
                continue;
            }
            let (failures, elsewhere) = (place.failures, place.elsewhere);
            let after = match elsewhere {
                true => self.membership.elsewhere(),
                false => self.membership.delay(failures, rng),
            };
            out.push(Output::Arm { after, timer: Timer::Dial(address) });
        }
    }

    pub(crate) fn dial_failed(&mut self, address: String, why: String, out: &mut Vec<Output>) {
        let Some(place) = self.membership.places.get_mut(&address) else { return };
        place.busy = false;
        place.failures = place.failures.saturating_add(1);
        self.redial = true;
        if place.error.as_deref() != Some(why.as_str()) {
            place.error = Some(why.clone());
            out.push(Output::Report(PeerEvent::DialFailed { address, why }));
        }
    }

    pub(crate) fn command(&mut self, command: PeerCommand, out: &mut Vec<Output>) {
        self.redial = true;
        match command {
            PeerCommand::Meet { address } => {
                if address.len() > TEXT_MAX || !self.membership.add(&address) {
                    out.push(Output::Report(PeerEvent::TooManyAddresses));
                }
                if let Some(place) = self.membership.places.get_mut(&address) {
                    // What was found there before says nothing: the operator knows better.
                    *place = Place { busy: place.busy, ..Place::default() };
                }
            }
            PeerCommand::Pause { name } => {
                let nodes = self.named(name.as_deref());
                self.membership.pause(name.as_deref(), nodes.iter().copied());
                let paused = |link: &crate::link::Link| match (&name, &link.peer) {
                    (None, _) => true,
                    (Some(_), Some((hello, _))) => nodes.contains(&hello.origin.node),
                    (Some(_), None) => false,
                };
                let links = self.links.iter().filter(|(_, link)| paused(link));
                let links: Vec<LinkId> = links.map(|(id, _)| *id).collect();
                for link in links {
                    self.drop_link(link, CloseReason::Paused, true, out);
                }
            }
            PeerCommand::Resume { name } => {
                let nodes = self.named(name.as_deref());
                self.membership.resume(name.as_deref(), nodes.into_iter());
                for place in self.membership.places.values_mut() {
                    place.failures = 0;
                    place.elsewhere = false;
                    place.armed = false;
                }
            }
            PeerCommand::AcceptClock { name } => {
                let drift = self.config.clock_max_drift;
                for node in self.named(Some(&name)) {
                    if let Some(stamp) = self.held_stamp(node) {
                        self.clocks.accept(node, stamp, drift);
                    }
                }
                self.state_unheld(out);
            }
        }
    }

    /// Ids of the peers that the operator can mean by a name.
    pub(crate) fn named(&self, name: Option<&str>) -> Vec<NodeId> {
        let Some(name) = name else { return Vec::new() };
        let by_place = self.membership.places.get(name).and_then(|place| place.node);
        let by_record = self.records.iter().filter(|(id, record)| {
            record.name == name || record.address == name || id.to_string() == name
        });
        by_record.map(|(id, _)| *id).chain(by_place).collect()
    }
}
