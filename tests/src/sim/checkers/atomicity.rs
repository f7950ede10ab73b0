//! Transactions are seen whole: `x` and `y` are only ever set together, so they are always equal.

use bytes::Bytes;

use super::{Reading, Verdict};

/// Compares the two.
pub fn check(reading: &Reading) -> Verdict {
    let [x, y] = ["x", "y"].map(|key| reading.get(&(1, key, Bytes::new())));
    if x == y { Ok(()) } else { Err(format!("half a transaction: x is {x:?}, y is {y:?}")) }
}
