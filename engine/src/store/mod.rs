//! (stub)
/// Why the store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full: nothing was written.
    #[error("no space left: {0}")]
    Full(String),
    /// It is not known whether the batch reached the disk.
    #[error("write failed: {0}")]
    Unknown(String),
    /// What was read cannot be what was written.
    #[error("corrupt: {0}")]
    Corrupt(String),
}
/// (stub)
pub trait Store {}
