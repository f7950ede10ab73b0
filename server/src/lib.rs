//! The Lattis server: the Redis protocol in front of the engine.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | options, one record each |
//! | [`commands`] | the command table, one file per group |
//! | [`net`] | request scanner, reply sink, connections |
//! | [`clients`], [`session`], [`watch`] | the clients, and what is remembered of each |
//! | [`front`], [`dispatch`] | what clients ask in a tick, and what becomes of a request |
//! | [`remote`] | what peers have sent, in a tick |
//! | [`world`], [`stats`] | what commands see of the server |
//! | [`tick`] | the loop of the thread that owns the engine and the client sockets |
//! | [`sync`] | `appendfsync everysec` |
//! | [`behind`] | rows written behind the log |
//! | [`port`], [`peers`] | queues to the peers' thread, and that thread |
//! | [`run`], [`process`] | starting and stopping; how the process ends |
//! | [`allocator`], [`usage`] | memory: how it goes back, where it is; disk and processor |
//! | [`health`], [`check`] | damage: what a node tells of it, and the tools for a directory |
//! | [`logging`] | lines for people |

pub mod allocator;
pub mod behind;
pub mod check;
pub mod clients;
pub mod commands;
pub mod config;
pub mod data;
pub mod dispatch;
pub mod front;
pub mod glob;
pub mod health;
pub mod logging;
pub mod net;
pub mod peers;
pub mod port;
pub mod process;
pub mod remote;
pub mod run;
pub mod session;
pub mod stats;
pub mod sync;
pub mod tick;
pub mod usage;
pub mod watch;
pub mod world;
