//! Bindings: definition, removal, list.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{OpError, OpResult, Txn};
use crate::dataflow::graph::Graph;
use crate::dataflow::{Definition, MAX_BINDINGS, ops};
use crate::name::{RowKey, Slot};
use crate::store::Store;

/// One binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingInfo {
    /// The key that it derives.
    pub target: Bytes,
    /// The operator's name.
    pub operator: String,
    /// The keys that it derives from.
    pub sources: Vec<Bytes>,
    /// The expression, empty if there is none.
    pub expression: String,
    /// `active`, or why it is not.
    pub state: String,
}

impl<S: Store> Txn<'_, S> {
    /// Makes `target` a view. Replaces the binding that it has, if it has one.
    pub fn bind(
        &mut self,
        db: u16,
        target: &[u8],
        operator: &str,
        sources: &[Bytes],
        expression: &str,
    ) -> OpResult<()> {
        let refuse = |why: String| Err(OpError::Binding(why));
        let Some(record) = ops::operator(operator) else {
            return refuse(format!("unknown operator {operator}"));
        };
        if !record.inputs.contains(&sources.len()) {
            return refuse(format!("wrong number of sources for {}", record.name));
        }
        let definition = Definition {
            operator: record.name.into(),
            sources: sources.to_vec(),
            expression: expression.into(),
        };
        if let Err(why) = (record.build)(&definition) {
            return refuse(why);
        }
        let key = (db, Bytes::copy_from_slice(target));
        if let Some(path) = self.engine.space.graph().cycle(&key, sources) {
            return refuse(format!("the binding {path}"));
        }
        let known = self.engine.space.bindings();
        if known.len() >= MAX_BINDINGS && !known.contains_key(&key) {
            return refuse(format!("more than {MAX_BINDINGS} bindings"));
        }
        let place = self.open(db, target)?;
        if self.at(place).derived.is_none() && self.at(place).visible().is_some() {
            return Err(OpError::Busy);
        }
        self.put(RowKey::single(db, key.1, Slot::BINDING), definition.encode())
    }

    /// Removes the binding of a target; false if it has none.
    pub fn unbind(&mut self, db: u16, target: &[u8]) -> OpResult<bool> {
        let row = RowKey::single(db, Bytes::copy_from_slice(target), Slot::BINDING);
        let live = self.row(&row)?.is_live();
        self.remove(row)?;
        Ok(live)
    }

    /// The bindings of a db, by target; those that lost to a concurrent definition after the winner.
    pub fn bindings(&mut self, db: u16) -> Vec<BindingInfo> {
        let mut building = BTreeMap::new();
        for target in self.engine.space.building_of(db) {
            if let Ok(Some(percent)) = self.engine.space.building(&target) {
                building.insert(target, percent);
            }
        }
        let space = &self.engine.space;
        let graph: &Graph = space.graph();
        let mut list = Vec::new();
        for (target, row) in space.bindings().iter().filter(|(target, _)| target.0 == db) {
            for (rank, sibling) in row.siblings().iter().enumerate() {
                let Ok(definition) = Definition::decode(&sibling.payload) else { continue };
                let percent = building.get(target);
                let state = match (rank, graph.suspended(target), graph.node(target)) {
                    (1.., _, _) => "superseded: a concurrent definition won".into(),
                    (_, Some(why), _) => format!("suspended: {why}"),
                    (_, None, Some(node)) if node.errors() > 0 && percent.is_none() => {
                        format!("active, {} evaluations failed", node.errors())
                    }
                    _ => percent.map_or_else(|| "active".into(), |it| format!("building ({it} %)")),
                };
                list.push(BindingInfo {
                    target: target.1.clone(),
                    operator: definition.operator,
                    sources: definition.sources,
                    expression: definition.expression,
                    state,
                });
            }
        }
        list
    }

    pub(super) fn operator_of(&self, db: u16, key: &[u8]) -> &'static str {
        let target = (db, Bytes::copy_from_slice(key));
        self.engine
            .space
            .graph()
            .node(&target)
            .and_then(|node| ops::operator(&node.definition.operator))
            .map_or("", |record| record.name)
    }
}
