//! The graph of bindings: which are active, what feeds what, in which order.
//!
//! The active set is a pure function of the binding rows. Per target the winner of last-writer-wins
//! stands; winners are taken in the order of (stamp, origin), and one that would close a cycle with
//! those before it is suspended. What cannot be built (an operator or expression of a newer version) is
//! suspended as well.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::ops::{self, Operator};
use super::{Change, Definition};
use crate::causal::Millis;
use crate::row::{Row, Sibling};

/// A key by db and name.
pub(crate) type Target = (u16, Bytes);

/// One active binding.
pub(crate) struct Node {
    pub(crate) definition: Definition,
    operator: Box<dyn Operator>,
    /// Evaluations that failed since start, for BIND.LIST.
    errors: Cell<u64>,
}

impl Node {
    pub(crate) fn step(&self, input: usize, change: &Change, out: &mut Vec<Change>) {
        if !self.operator.step(input, change, out) {
            self.errors.set(self.errors.get() + 1);
        }
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors.get()
    }
}

/// The active bindings of all dbs.
#[derive(Default)]
pub(crate) struct Graph {
    active: BTreeMap<Target, Node>,
    suspended: BTreeMap<Target, String>,
    /// Source -> (target, which input).
    feeds: BTreeMap<Target, Vec<(Target, usize)>>,
}

fn winner(row: &Row) -> Option<(&Sibling, Definition)> {
    let sibling = row.winner(Millis(0))?;
    Some((sibling, Definition::decode(&sibling.payload).ok()?))
}

impl Graph {
    /// The graph that the binding rows define. Cost: bindings times the size of the graph.
    pub(crate) fn build(bindings: &BTreeMap<Target, Row>) -> Graph {
        let mut winners: Vec<_> = bindings
            .iter()
            .filter_map(|(target, row)| winner(row).map(|(sibling, def)| (sibling, target, def)))
            .collect();
        winners
            .sort_by_key(|(sibling, target, _)| (sibling.stamp.hlc, sibling.dot.origin, *target));
        let mut graph = Graph::default();
        for (_, target, definition) in winners {
            if let Some(path) = graph.cycle(target, &definition.sources) {
                graph.suspended.insert(target.clone(), path);
                continue;
            }
            let built = match ops::operator(&definition.operator) {
                Some(record) => (record.build)(&definition),
                None => Err(format!("unknown operator {}", definition.operator)),
            };
            match built {
                Ok(operator) => graph.add(target, definition, operator),
                Err(why) => {
                    graph.suspended.insert(target.clone(), why);
                }
            }
        }
        graph
    }

    fn add(&mut self, target: &Target, def: Definition, operator: Box<dyn Operator>) {
        for (input, source) in def.sources.iter().enumerate() {
            let feeds = self.feeds.entry((target.0, source.clone())).or_default();
            feeds.push((target.clone(), input));
        }
        let node = Node { definition: def, operator, errors: Cell::new(0) };
        self.active.insert(target.clone(), node);
    }

    /// If the target, fed by these sources, would feed itself: the path that closes the cycle.
    pub(crate) fn cycle(&self, target: &Target, sources: &[Bytes]) -> Option<String> {
        // Depth first from the target along what it feeds; reaching a source closes the cycle.
        let mut seen = BTreeSet::new();
        let mut open = vec![vec![target.clone()]];
        while let Some(path) = open.pop() {
            let Some(last) = path.last() else { continue };
            if last.0 == target.0 && sources.contains(&last.1) {
                let mut names: Vec<String> =
                    path.iter().map(|(_, key)| String::from_utf8_lossy(key).into_owned()).collect();
                names.push(String::from_utf8_lossy(&target.1).into_owned());
                return Some(format!("closes a cycle: {}", names.join(" -> ")));
            }
            for (next, _) in self.feeds(last) {
                if seen.insert(next.clone()) {
                    let mut longer = path.clone();
                    longer.push(next.clone());
                    open.push(longer);
                }
            }
        }
        None
    }

    /// Whether there are no active bindings.
    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// What a key feeds.
    pub(crate) fn feeds(&self, source: &Target) -> &[(Target, usize)] {
        self.feeds.get(source).map_or(&[], Vec::as_slice)
    }

    /// The active binding of a target.
    pub(crate) fn node(&self, target: &Target) -> Option<&Node> {
        self.active.get(target)
    }

    /// All active bindings.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.active.values()
    }

    /// Why a target's binding is not active.
    pub(crate) fn suspended(&self, target: &Target) -> Option<&str> {
        self.suspended.get(target).map(String::as_str)
    }

    /// Targets whose result has to be computed anew when this graph gives way to `next`: those whose
    /// binding is another, and all that they feed, in an order in which sources come first.
    pub(crate) fn changed(&self, next: &Graph) -> Vec<Target> {
        let differs = |target: &Target| match (self.node(target), next.node(target)) {
            (Some(old), Some(new)) => old.definition != new.definition,
            (None, None) => false,
            _ => true,
        };
        let targets: BTreeSet<&Target> = self.active.keys().chain(next.active.keys()).collect();
        let mut open: Vec<Target> =
            targets.into_iter().filter(|target| differs(target)).cloned().collect();
        let mut affected: BTreeSet<Target> = open.iter().cloned().collect();
        while let Some(target) = open.pop() {
            for (fed, _) in self.feeds(&target).iter().chain(next.feeds(&target)) {
                if affected.insert(fed.clone()) {
                    open.push(fed.clone());
                }
            }
        }
        next.sources_first(affected)
    }

    /// All that a key feeds, directly or not, in an order in which sources come first.
    pub(crate) fn fed_by(&self, source: &Target) -> Vec<Target> {
        let mut found = BTreeSet::new();
        let mut open = vec![source.clone()];
        while let Some(next) = open.pop() {
            for (fed, _) in self.feeds(&next) {
                if found.insert(fed.clone()) {
                    open.push(fed.clone());
                }
            }
        }
        self.sources_first(found)
    }

    fn sources_first(&self, targets: BTreeSet<Target>) -> Vec<Target> {
        let mut ordered = Vec::with_capacity(targets.len());
        let mut waiting = targets;
        while !waiting.is_empty() {
            let waits = |target: &Target| {
                self.node(target).is_some_and(|node| {
                    let mut sources = node.definition.sources.iter();
                    sources.any(|source| waiting.contains(&(target.0, source.clone())))
                })
            };
            let ready: Vec<Target> =
                waiting.iter().filter(|target| !waits(target)).cloned().collect();
            if ready.is_empty() {
                // Only a cycle could wait for itself, and the graph has none.
                break;
            }
            for target in ready {
                waiting.remove(&target);
                ordered.push(target);
            }
        }
        ordered
    }
}
