//! `UNION.BIND dst src src...`: the elements of any source. An element weighs as many sources as have it.

use super::{Operator, OperatorRecord};
use crate::dataflow::{Change, MAX_SOURCES};

struct Union;

impl Operator for Union {
    fn step(&self, _input: usize, change: &Change, out: &mut Vec<Change>) -> bool {
        out.push(change.clone());
        true
    }
}

pub(super) static OPERATOR: OperatorRecord = OperatorRecord {
    name: "UNION",
    inputs: 2..=MAX_SOURCES,
    expression: false,
    monotone: true,
    build: |_| Ok(Box::new(Union)),
};
