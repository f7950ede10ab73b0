//! The graph of bindings: which are active, what feeds what, in which order.
//!
//! The active set is a pure function of the binding rows. Per target the winner of last-writer-wins
//! stands; winners are taken in the order of (stamp, origin), and one that would close a cycle with
//! those before it is suspended. What cannot be built (an operator or expression of a newer version) is
//! suspended as well.
//!
//! The graph follows the rows one by one. Every cycle lies within one strongly connected part of the graph of
//! all winners, suspended ones too; so a changed row judges anew what is strongly connected with its target,
//! before the change and after it, and nothing else.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::ops::{self, Operator};
use super::{Change, Definition};
use crate::causal::{Hlc, Millis, Origin};
use crate::row::Row;

/// A key by db and name.
pub(crate) type Target = (u16, Bytes);

/// The winning definition of one target, active or not.
pub(crate) struct Node {
    pub(crate) definition: Definition,
    /// In this order definitions are admitted, equal ones by target.
    order: (Hlc, Origin),
    operator: Result<Box<dyn Operator>, String>,
    /// Why it is not active.
    suspended: Option<String>,
    /// One more than the greatest rank of a source that is derived.
    rank: u32,
    /// Evaluations that failed since the result was computed as a whole, for BIND.LIST.
    errors: Cell<u64>,
}

impl Node {
    /// What a row defines.
    fn of(row: &Row) -> Option<Node> {
        let winner = row.winner(Millis(0))?;
        let definition = Definition::decode(&winner.payload).ok()?;
        let operator = match ops::operator(&definition.operator) {
            Some(record) => (record.build)(&definition),
            None => Err(format!("unknown operator {}", definition.operator)),
        };
        let order = (winner.stamp.hlc, winner.dot.origin);
        let (suspended, rank, errors) = (None, 0, Cell::new(0));
        Some(Node { definition, order, operator, suspended, rank, errors })
    }

    pub(crate) fn step(&self, input: usize, change: &Change, out: &mut Vec<Change>) {
        let Ok(operator) = &self.operator else { return };
        if !operator.step(input, change, out) {
            self.errors.set(self.errors.get() + 1);
        }
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors.get()
    }

    /// The result is computed as a whole.
    pub(crate) fn begin(&self) {
        self.errors.set(0);
    }

    fn sources(&self, db: u16) -> impl Iterator<Item = Target> {
        self.definition.sources.iter().map(move |source| (db, source.clone()))
    }
}

/// The bindings of all dbs.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: BTreeMap<Target, Node>,
    /// Source -> targets, of all winners.
    wanted: BTreeMap<Target, BTreeSet<Target>>,
    /// Source -> (target, which input), of the active ones.
    feeds: BTreeMap<Target, BTreeSet<(Target, usize)>>,
}

impl Graph {
    /// The graph that the binding rows define. Cost: that of [`change`](Graph::change) for each.
    pub(crate) fn build(bindings: &BTreeMap<Target, Row>) -> Graph {
        let mut graph = Graph::default();
        for (target, row) in bindings {
            graph.change(target, row);
        }
        graph
    }

    /// Takes a binding row for that of its target. Those whose results are others now, since their binding in
    /// force is another, are returned. Cost: what the target feeds, directly or not, among all winners; to be
    /// judged anew what is strongly connected with it.
    pub(crate) fn change(&mut self, target: &Target, row: &Row) -> Vec<Target> {
        let mut part = self.connected(target);
        let old = self.remove(target);
        if let Some(node) = Node::of(row) {
            if let Some(old) = old.as_ref().filter(|old| old.definition == node.definition) {
                node.errors.set(old.errors());
            }
            for source in node.sources(target.0) {
                self.wanted.entry(source).or_default().insert(target.clone());
            }
            self.nodes.insert(target.clone(), node);
        }
        part.extend(self.connected(target));
        let mut changed = self.judge(&part);
        changed.retain(|it| it != target);
        changed.push(target.clone());
        self.rank(&changed);
        let was = old.as_ref().filter(|old| old.suspended.is_none()).map(|old| &old.definition);
        if was == self.node(target).map(|node| &node.definition) {
            changed.pop();
        }
        changed
    }

    /// Ranks some targets anew, and all that they feed.
    fn rank(&mut self, changed: &[Target]) {
        for target in self.downstream(changed) {
            let Some(node) = self.node(&target) else { continue };
            let sources = node.sources(target.0).filter_map(|source| self.node(&source));
            let rank = sources.map(|source| source.rank + 1).max().unwrap_or(0);
            if let Some(node) = self.nodes.get_mut(&target) {
                node.rank = rank;
            }
        }
    }

    /// Takes a target's node out, with its edges.
    fn remove(&mut self, target: &Target) -> Option<Node> {
        let node = self.nodes.remove(target)?;
        self.disconnect(target, &node);
        for source in node.sources(target.0) {
            if let Some(targets) = self.wanted.get_mut(&source) {
                targets.remove(target);
                if targets.is_empty() {
                    self.wanted.remove(&source);
                }
            }
        }
        Some(node)
    }

    /// Forgets all bindings of a db, which are between its keys alone. Cost: all bindings.
    pub(crate) fn clear(&mut self, db: u16) {
        self.nodes.retain(|(of, _), _| *of != db);
        self.wanted.retain(|(of, _), _| *of != db);
        self.feeds.retain(|(of, _), _| *of != db);
    }

    /// Takes the edges out by which an active node is fed.
    fn disconnect(&mut self, target: &Target, node: &Node) {
        for (input, source) in node.sources(target.0).enumerate() {
            if let Some(fed) = self.feeds.get_mut(&source) {
                fed.remove(&(target.clone(), input));
                if fed.is_empty() {
                    self.feeds.remove(&source);
                }
            }
        }
    }

    /// What is strongly connected with a target, among all winners; itself in any case.
    fn connected(&self, target: &Target) -> BTreeSet<Target> {
        let mut forth = BTreeSet::new();
        let mut open = vec![target];
        while let Some(next) = open.pop() {
            for fed in self.wanted.get(next).into_iter().flatten() {
                if forth.insert(fed) {
                    open.push(fed);
                }
            }
        }
        let mut part = BTreeSet::from([target.clone()]);
        if !forth.contains(target) {
            return part;
        }
        let mut open = vec![target.clone()];
        while let Some(next) = open.pop() {
            let sources = self.nodes.get(&next).into_iter().flat_map(|node| node.sources(next.0));
            for source in sources.filter(|source| forth.contains(source)) {
                if part.insert(source.clone()) {
                    open.push(source);
                }
            }
        }
        part
    }

    /// Admits the winners of a strongly connected part in their order; returns those that have come into
    /// force or gone out of it.
    fn judge(&mut self, part: &BTreeSet<Target>) -> Vec<Target> {
        let mut nodes: Vec<(Target, Node)> = Vec::new();
        for target in part {
            if let Some(node) = self.nodes.remove(target) {
                self.disconnect(target, &node);
                nodes.push((target.clone(), node));
            }
        }
        nodes.sort_by(|(one, a), (other, b)| (a.order, one).cmp(&(b.order, other)));
        let mut changed = Vec::new();
        for (target, mut node) in nodes {
            let was = node.suspended.take();
            let sources = &node.definition.sources;
            // Nothing can close a cycle that is connected with nothing.
            let may_close = part.len() > 1 || sources.contains(&target.1);
            let path = if may_close { self.cycle(&target, sources) } else { None };
            node.suspended = path.or_else(|| node.operator.as_ref().err().cloned());
            if node.suspended.is_none() {
                for (input, source) in node.sources(target.0).enumerate() {
                    self.feeds.entry(source).or_default().insert((target.clone(), input));
                }
            }
            if was.is_some() != node.suspended.is_some() {
                changed.push(target.clone());
            }
            self.nodes.insert(target, node);
        }
        changed
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
        self.feeds.is_empty()
    }

    /// What a key feeds.
    pub(crate) fn feeds(&self, source: &Target) -> impl Iterator<Item = &(Target, usize)> {
        self.feeds.get(source).into_iter().flatten()
    }

    /// What a key feeds, by rank: whoever is fed by several is passed after all of them in this order.
    pub(crate) fn feeds_by_rank(
        &self,
        source: &Target,
    ) -> impl Iterator<Item = ((u32, Target), usize)> {
        let place = |target: &Target| (self.rank_of(target), target.clone());
        self.feeds(source).map(move |(target, input)| (place(target), *input))
    }

    /// Whether a key feeds anything.
    pub(crate) fn is_source(&self, key: &Target) -> bool {
        self.feeds.contains_key(key)
    }

    /// Whether all that a key feeds, directly or not, is fed by nothing else.
    pub(crate) fn feeds_alone(&self, source: &Target) -> bool {
        let mut known = BTreeSet::from([source.clone()]);
        for target in self.fed_by(source) {
            let sources = self.node(&target).map(|node| node.sources(target.0));
            if sources.into_iter().flatten().any(|source| !known.contains(&source)) {
                return false;
            }
            known.insert(target);
        }
        true
    }

    /// The active binding of a target.
    pub(crate) fn node(&self, target: &Target) -> Option<&Node> {
        self.nodes.get(target).filter(|node| node.suspended.is_none())
    }

    /// All active bindings.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&Target, &Node)> {
        self.nodes.iter().filter(|(_, node)| node.suspended.is_none())
    }

    /// How many bindings lead to a target at most, one after the other, before its own.
    pub(crate) fn rank_of(&self, target: &Target) -> u32 {
        self.nodes.get(target).map_or(0, |node| node.rank)
    }

    /// Why a target's binding is not active.
    pub(crate) fn suspended(&self, target: &Target) -> Option<&str> {
        self.nodes.get(target)?.suspended.as_deref()
    }

    /// Some targets and all that they feed, directly or not, sources first. Cost: that.
    pub(crate) fn downstream(&self, of: &[Target]) -> Vec<Target> {
        // Depth first, each after all that it feeds; turned around.
        let mut seen = BTreeSet::new();
        let mut ordered = Vec::new();
        for target in of {
            let mut open = vec![(target.clone(), false)];
            while let Some((next, done)) = open.pop() {
                if done {
                    ordered.push(next);
                } else if seen.insert(next.clone()) {
                    open.push((next.clone(), true));
                    let fed = self.feeds(&next).map(|(fed, _)| (fed.clone(), false));
                    open.extend(fed.filter(|(fed, _)| !seen.contains(fed)));
                }
            }
        }
        ordered.reverse();
        ordered
    }

    /// All that a key feeds, directly or not, sources first.
    pub(crate) fn fed_by(&self, source: &Target) -> Vec<Target> {
        let mut fed = self.downstream(std::slice::from_ref(source));
        fed.retain(|target| target != source);
        fed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::{Dot, NodeId};
    use crate::verify::in_force;

    /// Rows that come, change and go in any order, most of them in circles: the graph is always the one that
    /// judging all of them from the beginning gives.
    #[test]
    fn rows_one_by_one_come_to_what_all_together_come_to() {
        let (mut suspended, mut ranked) = (0, 0);
        for seed in 0..400u64 {
            let mut state = seed;
            let mut draw = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % below
            };
            let key = |number: u64| Bytes::from(format!("k{number}"));
            let (mut graph, mut rows) = (Graph::default(), BTreeMap::new());
            for _ in 0..60 {
                let target = (0, key(draw(8)));
                let mut row = Row::default();
                if draw(4) > 0 {
                    let sources = vec![key(draw(8)), key(draw(8))];
                    let operator = if draw(9) > 0 { "UNION" } else { "UNKNOWN" }.into();
                    let definition = Definition { operator, sources, expression: String::new() };
                    let origin = Origin { node: NodeId(draw(3)), ..Origin::default() };
                    let dot = Dot { origin, seq: 1 + draw(1000) };
                    row.put(dot, Hlc(1 + draw(20)), definition.encode());
                }
                let before: BTreeMap<Target, Definition> = definitions(&graph);
                let mut changed = graph.change(&target, &row);
                match row.is_empty() {
                    true => drop(rows.remove(&target)),
                    false => drop(rows.insert(target, row)),
                }
                let after = definitions(&graph);
                let wanted = in_force(&rows).into_iter().map(|(target, (it, _))| (target, it));
                assert_eq!(after, wanted.collect(), "seed {seed}");
                let differs = |it: &&Target| before.get(*it) != after.get(*it);
                let all: BTreeSet<&Target> = before.keys().chain(after.keys()).collect();
                changed.sort();
                assert_eq!(
                    changed.iter().collect::<Vec<_>>(),
                    all.iter().copied().filter(differs).collect::<Vec<_>>()
                );
                for (target, node) in graph.nodes() {
                    let sources = node.sources(target.0).filter_map(|it| graph.node(&it));
                    assert!(sources.into_iter().all(|source| source.rank < node.rank));
                    ranked += u64::from(node.rank > 1);
                }
                suspended += rows.len() - after.len();
            }
        }
        assert!(suspended > 5_000 && ranked > 5_000, "{suspended} suspended, {ranked} ranked");
    }

    fn definitions(graph: &Graph) -> BTreeMap<Target, Definition> {
        graph.nodes().map(|(target, node)| (target.clone(), node.definition.clone())).collect()
    }
}
