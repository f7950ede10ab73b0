//! Peers: what administrators ask of the peers' thread.
//!
//! A request goes to that thread and the connection waits for its answer; other connections go on.

use super::{Call, Command, CommandError, CommandResult, Group, acl, flag};
use crate::port::{PeerRequest, ToPeers};

fn ask(call: &mut Call<'_, '_>, request: PeerRequest) -> CommandResult {
    if call.world.port.tell(ToPeers::Asked { client: call.session.id, request }).is_err() {
        return Err(CommandError::Fixed("ERR the peers' thread is busy, try again"));
    }
    call.world.clients.wait(call.session);
    Ok(())
}

fn meet(call: &mut Call<'_, '_>) -> CommandResult {
    let host = std::str::from_utf8(call.args.at(1))
        .ok()
        .filter(|host| !host.is_empty() && host.len() <= 255)
        .ok_or(CommandError::Fixed("ERR Invalid node address specified"))?;
    let port = u16::try_from(call.integer(2)?)
        .ok()
        .filter(|port| *port > 0)
        .ok_or(CommandError::Fixed("ERR Invalid node address specified"))?;
    ask(call, PeerRequest::Meet { host: host.to_owned(), port })
}

fn list(call: &mut Call<'_, '_>) -> CommandResult {
    ask(call, PeerRequest::List)
}

/// The peer of a request; `None` for ALL.
fn peer(call: &Call<'_, '_>) -> Result<Option<String>, CommandError> {
    let name = call.args.at(1);
    if name.eq_ignore_ascii_case(b"ALL") {
        return Ok(None);
    }
    let name = std::str::from_utf8(name).map_err(|_| CommandError::Fixed("ERR no such peer"))?;
    Ok(Some(name.to_owned()))
}

fn pause(call: &mut Call<'_, '_>) -> CommandResult {
    let peer = peer(call)?;
    ask(call, PeerRequest::Pause(peer))
}

fn resume(call: &mut Call<'_, '_>) -> CommandResult {
    let peer = peer(call)?;
    ask(call, PeerRequest::Resume(peer))
}

fn accept_clock(call: &mut Call<'_, '_>) -> CommandResult {
    match peer(call)? {
        Some(name) => ask(call, PeerRequest::AcceptClock(name)),
        None => Err(CommandError::Fixed("ERR no such peer")),
    }
}

const FLAGS: u32 = flag::ADMIN | flag::NOSCRIPT | flag::NO_MULTI | flag::STALE;
const ADMIN: u32 = acl::ADMIN | acl::SLOW | acl::DANGEROUS;

/// The group's records.
pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "peer.meet",
        arity: 3,
        syntax: "host port",
        flags: FLAGS,
        group: Group::Peers,
        acl: ADMIN,
        summary: "Connect to a node and stay connected",
        complexity: "O(1)",
        example: "PEER.MEET 127.0.0.1 17002",
        run: meet,
        ..Command::BASE
    },
    Command {
        name: "peer.list",
        arity: 1,
        flags: FLAGS,
        group: Group::Peers,
        acl: ADMIN,
        summary: "List the peers and how far they are",
        complexity: "O(N) where N is the number of peers",
        example: "PEER.LIST",
        run: list,
        ..Command::BASE
    },
    Command {
        name: "peer.pause",
        arity: 2,
        syntax: "<peer: name | ALL>",
        flags: FLAGS,
        group: Group::Peers,
        acl: ADMIN,
        summary: "Stop exchanging data with a peer, or with all of them",
        complexity: "O(1)",
        example: "PEER.PAUSE ALL",
        run: pause,
        ..Command::BASE
    },
    Command {
        name: "peer.resume",
        arity: 2,
        syntax: "<peer: name | ALL>",
        flags: FLAGS,
        group: Group::Peers,
        acl: ADMIN,
        summary: "Go on exchanging data with a peer, or with all of them",
        complexity: "O(1)",
        example: "PEER.RESUME ALL",
        run: resume,
        ..Command::BASE
    },
    Command {
        name: "peer.accept-clock",
        arity: 2,
        syntax: "<peer: name>",
        flags: FLAGS,
        group: Group::Peers,
        acl: ADMIN,
        summary: "Take what a peer has written, though its clock is far ahead",
        complexity: "O(1)",
        example: "PEER.ACCEPT-CLOCK asia",
        run: accept_clock,
        ..Command::BASE
    },
];
