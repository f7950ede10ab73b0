//! The deterministic simulator: whole clusters in one thread, from one seed.
//!
//! The real engine over a store in memory, and the real replication over a network in memory, every
//! message as bytes. [`cluster`] has the clock, the events and the weather; [`swarm`] what a seed draws;
//! `node` drives a node as the server does; `network` carries bytes and loses them; `workload` writes;
//! [`checkers`] judge, one file per invariant, by a history of their own. [`Fault`] lists the bugs that
//! can be planted to see whether the checkers bite.

pub mod checkers;
pub mod cluster;
mod fault;
mod network;
mod node;
mod rng;
pub mod swarm;
#[path = "../../../engine/tests/common/types.rs"]
pub mod types;
mod workload;

pub use cluster::{Coverage, Outcome, run};
pub use fault::Fault;
pub use rng::Rng;
