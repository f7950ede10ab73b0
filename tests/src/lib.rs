//! What the tests of Lattis are made of.
//!
//! [`process`] starts real servers, [`cluster`] joins them by links that can be cut, [`resp`] talks to
//! them, [`compare`] sends the same random commands
//! to Lattis and to Redis, and [`tidy`] holds the rules of the house that a machine can check.
// In this crate a panic is the report of a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod cluster;
pub mod compare;
pub mod process;
pub mod resp;
pub mod tidy;
