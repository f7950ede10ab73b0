//! What clients do with each type: a file each, as further methods of [`crate::Txn`].

mod hash;
mod set;
mod string;

pub use set::Members;
