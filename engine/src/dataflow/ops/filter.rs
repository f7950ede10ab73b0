//! `FILTER.BIND dst src expr`: the elements of the source for which the expression is true.

use super::{Operator, OperatorRecord};
use crate::dataflow::Change;
use crate::dataflow::expr::Expression;

struct Filter(Expression);

impl Operator for Filter {
    fn step(&self, _input: usize, change: &Change, out: &mut Vec<Change>) -> bool {
        match self.0.test(&change.element) {
            Ok(true) => out.push(change.clone()),
            Ok(false) => {}
            Err(_) => return false,
        }
        true
    }
}

pub(super) static OPERATOR: OperatorRecord = OperatorRecord {
    name: "FILTER",
    inputs: 1..=1,
    expression: true,
    monotone: true,
    build: |definition| match Expression::compile(&definition.expression) {
        Ok(expression) => Ok(Box::new(Filter(expression))),
        Err(error) => Err(error.to_string()),
    },
};
