//! What the tests of Lattis are made of.
//!
//! [`process`] starts real servers, [`cluster`] joins them by links that can be cut, [`resp`] talks to
//! them, [`compare`] sends the same random commands to Lattis and to Redis, [`sim`] plays whole
//! clusters from one seed, and [`tidy`] holds the rules of the house that a machine can check.

pub mod cluster;
pub mod compare;
pub mod process;
pub mod resp;
pub mod sim;
pub mod tidy;
