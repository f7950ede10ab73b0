//! Causality: who wrote what, what has been seen, and when it was.
//!
//! This is the only vocabulary that replication shares with the engine. A [`Dot`] names one effect on
//! one row; a [`VersionVector`] names a causally closed set of dots; an [`Hlc`] orders concurrent
//! writes in time. Nothing here reads a clock: time is an argument.

mod hlc;
mod origin;
mod vector;

pub use hlc::{Hlc, HlcClock, Millis, Stamp};
pub use origin::{Dot, NodeId, Origin};
pub use vector::VersionVector;

/// A place in one node's own delivery order: the number of log entries up to and including this one.
/// Positions of different nodes cannot be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(pub u64);

impl LogPosition {
    /// The position after this one.
    pub fn next(self) -> LogPosition {
        LogPosition(self.0 + 1)
    }
}
