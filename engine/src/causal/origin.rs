//! Origins and dots: the names of writers and of their effects.

use std::fmt;

/// The lasting identity of a node, drawn at random when its directory is first opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A writer: one life of one node.
///
/// Every start opens a new incarnation, so that a dot whose bytes were lost by a crash is never given
/// to another effect. The nonce, drawn with the incarnation, keeps apart two lives that a restored or
/// copied directory would give the same number. The order is the tie-break of every last-writer-wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The node that writes.
    pub node: NodeId,
    /// The number of the node's life, from 1.
    pub incarnation: u32,
    /// Drawn at random when the incarnation was opened.
    pub nonce: u64,
}

impl Origin {
    /// Bytes of the fixed encoding: node, incarnation, nonce, big-endian, so that byte order is `Ord`.
    pub const LEN: usize = 20;

    /// The fixed encoding.
    pub fn to_bytes(self) -> [u8; Origin::LEN] {
        let mut out = [0; Origin::LEN];
        out[..8].copy_from_slice(&self.node.0.to_be_bytes());
        out[8..12].copy_from_slice(&self.incarnation.to_be_bytes());
        out[12..].copy_from_slice(&self.nonce.to_be_bytes());
        out
    }

    /// Reads the fixed encoding.
    pub fn from_bytes(bytes: &[u8; Origin::LEN]) -> Origin {
        let mut node = [0; 8];
        let mut incarnation = [0; 4];
        let mut nonce = [0; 8];
        node.copy_from_slice(&bytes[..8]);
        incarnation.copy_from_slice(&bytes[8..12]);
        nonce.copy_from_slice(&bytes[12..]);
        Origin {
            node: NodeId(u64::from_be_bytes(node)),
            incarnation: u32::from_be_bytes(incarnation),
            nonce: u64::from_be_bytes(nonce),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.incarnation)
    }
}

/// The name of one effect on one row: the `seq`-th effect of `origin`, counted from 1 without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who wrote it.
    pub origin: Origin,
    /// Which of the origin's effects it is.
    pub seq: u64,
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.origin, self.seq)
    }
}
