//! The Lattis engine (map of the crate to follow).
pub mod causal;
pub mod codec;
pub mod commit;
pub mod crdt;
pub mod engine;
pub mod store;
pub mod txn;
