//! The wire: requests in, replies out, and the connection that holds both buffers.

pub mod conn;
pub mod output;
pub mod reply;
pub mod request;
pub mod stream;
