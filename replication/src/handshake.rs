//! Who may talk: greeting, authentication, refusal.
//!
//! Both ends send a [`Hello`] at once, then a MAC over both greetings: HMAC-SHA256(secret, role of the
//! author, the dialler's hello, the accepter's hello). The greetings hold cluster, node ids,
//! incarnations and fresh challenges, so a MAC fits one connection only; the role keeps it from being
//! sent back to its author. Without a secret the key is empty, and only the cluster id is proven. Nothing
//! but these two fixed-size messages is parsed before the MAC has been verified in constant time.

use bytes::Bytes;
use hmac::digest::Key;
use hmac::{Hmac, KeyInit, Mac};
use lattis_engine::causal::Origin;
use sha2::{Digest, Sha256};

use crate::wire::Hello;
use crate::{CloseReason, Config};

/// The protocol version that this code speaks.
pub const VERSION: u16 = 1;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for the other's hello.
    Hello,
    /// Waits for the other's MAC.
    Auth,
    /// Verified; waits for the other's welcome.
    Welcome,
    /// Streams.
    Active,
}

/// The greeting of a node for one connection.
pub(crate) fn hello(config: &Config, origin: Origin, challenge: [u8; 32]) -> Hello {
    Hello {
        version_min: VERSION,
        version_max: VERSION,
        cluster: Sha256::digest(config.cluster_id.as_bytes()).into(),
        origin,
        challenge,
        max_frame: u32::try_from(config.max_frame).unwrap_or(u32::MAX),
        secured: config.secret.is_some(),
    }
}

/// Judges a greeting by what can be judged before authentication. `challenges` are those that this node
/// has sent on its connections: one of them coming back is this node itself.
pub(crate) fn check(
    mine: &Hello,
    theirs: &Hello,
    mut challenges: impl Iterator<Item = [u8; 32]>,
) -> Result<(), CloseReason> {
    if theirs.version_min > mine.version_max || theirs.version_max < mine.version_min {
        return Err(CloseReason::Version);
    }
    if theirs.cluster != mine.cluster {
        return Err(CloseReason::Cluster);
    }
    if theirs.origin.node == mine.origin.node {
        let myself = challenges.any(|challenge| challenge == theirs.challenge);
        return Err(if myself { CloseReason::Myself } else { CloseReason::Clone });
    }
    if theirs.secured != mine.secured {
        return Err(CloseReason::Secret);
    }
    Ok(())
}

fn state(
    secret: Option<&[u8]>,
    author_dialled: bool,
    dialler: &Bytes,
    accepter: &Bytes,
) -> Hmac<Sha256> {
    let mut mac = keyed(secret.unwrap_or_default());
    mac.update(&[if author_dialled { 1 } else { 2 }]);
    mac.update(dialler);
    mac.update(accepter);
    mac
}

/// HMAC-SHA256 with a key of any length (RFC 2104: longer than a block, it is hashed; then padded).
fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    let mut key = Key::<Hmac<Sha256>>::default();
    let hashed = Sha256::digest(secret);
    let short = if secret.len() > key.len() { hashed.as_slice() } else { secret };
    for (to, from) in key.iter_mut().zip(short) {
        *to = *from;
    }
    Hmac::new(&key)
}

/// The MAC of an author over both hello frames.
pub(crate) fn mac(
    secret: Option<&[u8]>,
    author_dialled: bool,
    dialler: &Bytes,
    accepter: &Bytes,
) -> [u8; 32] {
    state(secret, author_dialled, dialler, accepter).finalize().into_bytes().into()
}

/// Whether the MAC is the author's, in constant time.
pub(crate) fn verify(
    secret: Option<&[u8]>,
    author_dialled: bool,
    dialler: &Bytes,
    accepter: &Bytes,
    tag: &[u8; 32],
) -> bool {
    state(secret, author_dialled, dialler, accepter).verify_slice(tag).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_length_are_keyed_by_the_standard() {
        for length in [0, 1, 63, 64, 65, 300] {
            let secret = vec![7; length];
            let standard = Hmac::<Sha256>::new_from_slice(&secret);
            let mut standard = standard.unwrap_or_else(|_| keyed(b"not this"));
            let mut mine = keyed(&secret);
            standard.update(b"text");
            mine.update(b"text");
            assert_eq!(standard.finalize().into_bytes(), mine.finalize().into_bytes());
        }
    }
}
