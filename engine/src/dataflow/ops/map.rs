//! `MAP.BIND dst src expr`: every element of the source, transformed. Two elements that become the same
//! are one element of weight two, so that removing one of them keeps it.

use bytes::Bytes;

use super::{Operator, OperatorRecord};
use crate::dataflow::Change;
use crate::dataflow::expr::Expression;

struct Map(Expression);

impl Operator for Map {
    fn step(&self, _input: usize, change: &Change, out: &mut Vec<Change>) -> bool {
        match self.0.map(&change.element) {
            Ok(element) => {
                out.push(Change { element: Bytes::from(element), weight: change.weight });
                true
            }
            Err(_) => false,
        }
    }
}

pub(super) static OPERATOR: OperatorRecord = OperatorRecord {
    name: "MAP",
    inputs: 1..=1,
    expression: true,
    monotone: true,
    build: |definition| match Expression::compile(&definition.expression) {
        Ok(expression) => Ok(Box::new(Map(expression))),
        Err(error) => Err(error.to_string()),
    },
};
