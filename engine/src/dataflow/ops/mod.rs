//! Operators: one file each, with its record at the end; one line each in [`OPERATORS`].

use std::ops::RangeInclusive;

use super::{Change, Definition};

mod filter;
mod map;
mod union;

/// All operators. `<name>.BIND` is the command that defines a binding by it.
pub static OPERATORS: [&OperatorRecord; 3] = [&map::OPERATOR, &filter::OPERATOR, &union::OPERATOR];

/// What the engine knows of an operator.
#[derive(Debug)]
pub struct OperatorRecord {
    /// Its name, in capitals.
    pub name: &'static str,
    /// How many sources it takes.
    pub inputs: RangeInclusive<usize>,
    /// Whether it takes an expression.
    pub expression: bool,
    /// Whether more input can only mean more output: only then may its result trigger what cannot be
    /// taken back.
    pub monotone: bool,
    /// Makes the operator of one binding; refused with the reason if the expression does not compile.
    pub build: fn(&Definition) -> Result<Box<dyn Operator>, String>,
}

/// The operator called `name`.
pub fn operator(name: &str) -> Option<&'static OperatorRecord> {
    OPERATORS.iter().copied().find(|record| record.name.eq_ignore_ascii_case(name))
}

/// One operator at work in one binding.
///
/// Law: operators are linear over weights. Stepping through any sequence of changes, in any order, gives
/// in sum what stepping through their sum gives; so removals undo additions exactly, and the result of a
/// history depends only on what is there in the end. `engine/tests/dataflow.rs` checks every record.
pub trait Operator {
    /// What a change of source `input` does to the result: appended to `out`. An element that cannot be
    /// evaluated is left out and counted by returning false.
    fn step(&self, input: usize, change: &Change, out: &mut Vec<Change>) -> bool;
}
