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
use lattis_engine::causal::{NodeId, Origin};
use sha2::{Digest, Sha256};

use crate::membership::MAX_PLACES;
use crate::node::{Node, short};
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::wire::{Hello, Message, Welcome};
use crate::{CloseReason, Config, LinkId, Output, PeerEvent};

/// The highest protocol version that this code speaks.
pub const VERSION: u16 = 2;
/// The lowest.
pub const VERSION_MIN: u16 = 1;

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
        version_min: VERSION_MIN,
        version_max: config.version.clamp(VERSION_MIN, VERSION),
        cluster: Sha256::digest(config.cluster_id.as_bytes()).into(),
        origin,
        challenge,
        max_frame: u32::try_from(config.max_frame).unwrap_or(u32::MAX),
        secured: config.secret.is_some(),
    }
}

/// Judges a greeting by what can be judged before authentication, and returns the version that both speak.
/// `challenges` are those that this node has sent on its connections: one of them coming back is this node
/// itself.
pub(crate) fn check(
    mine: &Hello,
    theirs: &Hello,
    mut challenges: impl Iterator<Item = [u8; 32]>,
) -> Result<u16, CloseReason> {
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
    Ok(mine.version_max.min(theirs.version_max))
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

impl Node {
    // ---- the steps of a connection -------------------------------------------------------------------

    pub(crate) fn hello(
        &mut self,
        id: LinkId,
        hello: Hello,
        frame: Bytes,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let Some(link) = self.links.get(&id) else { return Ok(()) };
        let challenges = self.links.values().map(|link| link.hello.challenge);
        if let Err(why) = check(&link.hello, &hello, challenges) {
            if why == CloseReason::Myself {
                // The other end is a link of this node too; without it its hello would look like a
                // clone's.
                let other = self.links.iter().find(|(_, l)| l.hello.challenge == hello.challenge);
                if let Some(other) = other.map(|(other, _)| *other) {
                    self.drop_link(other, CloseReason::Myself, true, out);
                }
            }
            if why == CloseReason::Clone {
                out.push(Output::Report(PeerEvent::Clone { node: self.origin.node }));
            }
            return Err(why);
        }
        let node = hello.origin.node;
        let record = self.records.get(&node);
        let names = record.map_or(["", ""], |record| [&record.name, &record.address]);
        let dialled = link.dialled.as_deref().unwrap_or_default();
        if self.membership.is_paused(Some(node), &[names[0], names[1], dialled]) {
            return Err(CloseReason::Paused);
        }
        // The same node by another address of it: nothing is wrong with the link that there is. Said before
        // the other end takes this one for better.
        let second = !dialled.is_empty()
            && self.links.values().any(|other| {
                let elsewhere = other.dialled.as_deref().is_some_and(|address| address != dialled);
                elsewhere && other.active() == Some(hello.origin)
            });
        if second {
            return Err(CloseReason::Duplicate);
        }
        let secret = self.config.secret.as_deref();
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let (dialler, accepter) = match link.dialled {
            Some(_) => (&link.hello_frame, &frame),
            None => (&frame, &link.hello_frame),
        };
        let tag = mac(secret, link.dialled.is_some(), dialler, accepter);
        link.peer = Some((hello, frame));
        link.phase = Phase::Auth;
        link.send(id, Message::Auth(tag), out);
        Ok(())
    }

    pub(crate) fn auth(
        &mut self,
        id: LinkId,
        tag: [u8; 32],
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let secret = self.config.secret.as_deref();
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let Some((hello, frame)) = &link.peer else { return Ok(()) };
        let (dialler, accepter) = match link.dialled {
            Some(_) => (&link.hello_frame, frame),
            None => (frame, &link.hello_frame),
        };
        if !verify(secret, link.dialled.is_none(), dialler, accepter, &tag) {
            return Err(CloseReason::Auth);
        }
        let origin = hello.origin;
        let max_frame = self.config.max_frame.min(hello.max_frame as usize);
        let version = link.hello.version_max.min(hello.version_max);
        link.phase = Phase::Welcome;
        link.writer.agree(version, max_frame);
        let dialled = link.dialled.clone();
        self.only_link(id, origin, dialled.is_some(), out)?;
        self.remember(origin, dialled.as_deref());
        let alone = !self.links.values().any(|link| link.active().is_some());
        let vector = self.sealed.clone();
        let welcome = Welcome {
            name: short(&self.config.node_name),
            address: short(&self.config.address),
            vector: vector.clone(),
            window: self.config.window_bytes,
            catch_up: alone,
        };
        let limits = self.limits();
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        link.sender = Sender::new(vector, limits);
        link.receiver = Receiver::new(match link.has_lanes() {
            true => self.config.window_positions,
            false => self.config.window_bytes,
        });
        link.send(id, Message::Welcome(welcome), out);
        Ok(())
    }

    /// Of several verified connections to one node one stays, and both ends choose the same. Error: it is
    /// not this one.
    fn only_link(
        &mut self,
        id: LinkId,
        origin: Origin,
        dialled: bool,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let others = self.links.iter().filter(|(other, _)| **other != id);
        let others: Vec<_> = others
            .filter_map(|(id, link)| Some((*id, link.verified()?, link.dialled.is_some())))
            .filter(|(_, other, _)| other.node == origin.node)
            .collect();
        for (other, old, old_dialled) in others {
            if old.incarnation < origin.incarnation {
                let why = CloseReason::Lost("the peer was started again".to_owned());
                self.drop_link(other, why, true, out);
            } else if old.incarnation > origin.incarnation {
                return Err(CloseReason::Older);
            } else if old != origin {
                out.push(Output::Report(PeerEvent::Clone { node: origin.node }));
                return Err(CloseReason::Clone);
            } else if old_dialled != dialled && (self.origin.node < origin.node) != dialled {
                return Err(CloseReason::Duplicate);
            } else {
                self.drop_link(other, CloseReason::Duplicate, true, out);
            }
        }
        Ok(())
    }

    fn remember(&mut self, origin: Origin, dialled: Option<&str>) {
        if let Some(place) = dialled.and_then(|address| self.membership.places.get_mut(address)) {
            place.node = Some(origin.node);
            place.elsewhere = false;
        }
        if self.records.len() >= MAX_PLACES && !self.records.contains_key(&origin.node) {
            let linked: Vec<NodeId> =
                self.links.values().filter_map(|link| Some(link.verified()?.node)).collect();
            let old = self.records.keys().find(|node| !linked.contains(node)).copied();
            if let Some(old) = old {
                self.records.remove(&old);
            }
        }
        self.records.entry(origin.node).or_default().incarnation = origin.incarnation;
    }

    pub(crate) fn welcome(
        &mut self,
        id: LinkId,
        welcome: Welcome,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let Some((hello, _)) = &link.peer else { return Ok(()) };
        let origin = hello.origin;
        let dialled = link.dialled.clone().unwrap_or_default();
        link.phase = Phase::Active;
        link.active_since = Some(self.now);
        link.sender.known = welcome.vector.clone();
        // What a peer allows does not bind this node to hold that much for a slow socket.
        let window = match link.has_lanes() {
            // Both ends reckon with it.
            true => welcome.window,
            false => welcome.window.min(self.config.window_bytes.saturating_mul(4)),
        };
        link.sender.open(window, welcome.catch_up);
        if self.faults.from_now {
            link.sender.start_at(self.position);
        }
        if let Some(stale) = self.stale.get(&origin.node) {
            link.sender.known.join(stale);
        }
        link.sender.known.lean_on(&self.sealed);
        if let Some(record) = self.records.get_mut(&origin.node) {
            record.name.clone_from(&welcome.name);
            record.address.clone_from(&welcome.address);
            record.last_error = None;
        }
        self.supersede(origin.node, &welcome.name, &welcome.address);
        if !welcome.address.is_empty() && self.config.dial_advertised {
            self.membership.add(&welcome.address);
            if let Some(place) = self.membership.places.get_mut(&welcome.address) {
                place.node = Some(origin.node);
            }
        }
        let names = [welcome.name.as_str(), welcome.address.as_str(), dialled.as_str()];
        if self.membership.is_paused(Some(origin.node), &names) {
            self.membership.pause(Some(&welcome.name), [origin.node].into_iter());
            return Err(CloseReason::Paused);
        }
        self.not_beyond(origin.node, welcome.vector.get(&self.origin), out)?;
        out.push(Output::Report(PeerEvent::Up { link: id, origin, name: welcome.name }));
        Ok(())
    }

    /// A node that came anew under the name and address of one that is gone has taken its place: the old
    /// one is not listed any more.
    fn supersede(&mut self, node: NodeId, name: &str, address: &str) {
        let linked: Vec<NodeId> =
            self.links.values().filter_map(|link| Some(link.verified()?.node)).collect();
        self.records.retain(|other, record| {
            *other == node
                || linked.contains(other)
                || address.is_empty()
                || record.name != name
                || record.address != address
        });
    }

    /// A peer that claims to know more of this node's own origin than there is: either it is wrong, or this
    /// directory was copied and both copies run. One peer's word only closes its link; at the second one's
    /// the node is fenced.
    pub(crate) fn not_beyond(
        &mut self,
        peer: NodeId,
        theirs: u64,
        out: &mut Vec<Output>,
    ) -> Result<(), CloseReason> {
        let mine = self.sealed.get(&self.origin);
        if theirs <= mine {
            return Ok(());
        }
        self.claims.insert(peer);
        if self.claims.len() < 2 {
            out.push(Output::Report(PeerEvent::Claim { peer, theirs, mine }));
            return Err(CloseReason::Claim);
        }
        self.fenced = true;
        out.push(Output::Report(PeerEvent::Fenced { peer, theirs, mine }));
        self.drop_all(&CloseReason::Fenced, out);
        Err(CloseReason::Fenced)
    }
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
