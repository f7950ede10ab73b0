//! What peers have sent, in a tick: commits are applied, states joined, answers given.
//!
//! What is refused makes everything refused that may follow from it, until the peers' thread begins anew.

use std::sync::Arc;

use lattis_engine::causal::{LogPosition, Origin};
use lattis_engine::commit::EncodedCommit;
use lattis_engine::crdt::TYPES;
use lattis_engine::store::StoreError;
use lattis_engine::{Refused, Staged};
use lattis_replication::Ticket;

use crate::data::Tick;
use crate::dispatch::note_changes;
use crate::front::Front;
use crate::net::reply::Reply;
use crate::port::{Answer, FromPeers, Inspect, Port, ToPeers};
use crate::stats::Counter;

/// Messages of peers in one tick.
const MESSAGES_PER_TICK: usize = 256;
/// Bytes of a peer's state that are staged at most.
const STAGE_BYTES: usize = 4 << 30;

/// What is remembered of peers between their messages.
#[derive(Default)]
pub struct Remote {
    /// What to tell the peers' thread once the tick is sealed.
    answers: Vec<ToPeers>,
    /// Commits that came together, and how many of them were applied: the tick's share was used up.
    rest: Option<(Ticket, Vec<EncodedCommit>, usize)>,
    /// Tickets of commits that this tick has applied.
    applied: Vec<Ticket>,
    /// Everything of this epoch and before is refused: it may follow what was refused.
    refused_epoch: Option<u64>,
    /// The state of a peer as far as it has arrived.
    staged: Option<(Ticket, Staged)>,
    /// Another node lives under this one's name: writes are refused for good.
    pub fenced: bool,
    /// From where peers need the log.
    pub hold: Option<Option<LogPosition>>,
}

impl Remote {
    /// Whether there is something left to apply.
    pub fn has_rest(&self) -> bool {
        self.rest.is_some()
    }
}

impl Front {
    /// Takes their messages.
    pub fn serve_peers(&mut self, tick: &mut Tick<'_>, inspections: &mut Vec<Inspect>) {
        let port: Arc<Port> = Arc::clone(&self.world.port);
        for _ in 0..MESSAGES_PER_TICK {
            if self.work.is_full() {
                break;
            }
            if let Some((ticket, commits, from)) = self.remote.rest.take() {
                self.apply(tick, ticket, commits, from);
                continue;
            }
            match port.next_message() {
                None => break,
                Some(FromPeers::Apply { ticket, commits }) => self.apply(tick, ticket, commits, 0),
                Some(FromPeers::Join { ticket, part, last }) => {
                    self.join(tick, ticket, &part, last);
                }
                Some(FromPeers::Answer { client, answer }) => self.answer(client, &answer),
                Some(FromPeers::Inspect(inspect)) => inspections.push(inspect),
                Some(FromPeers::HoldLog { from }) => self.remote.hold = Some(from),
                Some(FromPeers::ClockFenced { why }) => {
                    self.world.clock_fenced = why.map(|why| format!("MISCONF {why}"));
                }
                Some(FromPeers::Fenced { why }) => {
                    self.remote.fenced = true;
                    self.world.refuse_writes = Some(format!("MISCONF {why}"));
                }
            }
        }
    }

    /// Applies commits of a peer, from one on, as many as the tick has room for. What is refused makes
    /// everything refused that may follow from it.
    fn apply(
        &mut self,
        tick: &mut Tick<'_>,
        ticket: Ticket,
        commits: Vec<EncodedCommit>,
        from: usize,
    ) {
        if self.remote.refused_epoch >= Some(ticket.epoch) {
            return;
        }
        if let Some(why) = self.world.refuse_writes.clone() {
            return self.refuse_ticket(ticket, None, why);
        }
        self.remote.applied.push(ticket);
        for (at, commit) in commits.iter().enumerate().skip(from) {
            if self.work.is_full() {
                note_changes(&mut self.world, &self.turn, tick);
                self.remote.rest = Some((ticket, commits, at));
                return;
            }
            let applied = tick.apply(commit);
            self.work.measure(tick);
            match applied {
                Ok(applied) => self.world.stats.add(Counter::RemoteCommits, u64::from(applied)),
                Err(why) => {
                    // A store that fails is no fault of what was sent.
                    let fault = !matches!(why, Refused::Store(_));
                    let culprit = fault.then_some((commit.origin, commit.first));
                    return self.refuse_ticket(ticket, culprit, why.to_string());
                }
            }
        }
        note_changes(&mut self.world, &self.turn, tick);
    }

    /// Stages a part of a peer's state; the last one makes all of it visible in this tick.
    fn join(&mut self, tick: &mut Tick<'_>, ticket: Ticket, part: &[u8], last: bool) {
        if self.remote.refused_epoch >= Some(ticket.epoch) {
            return;
        }
        let (_, mut staged) = self
            .remote
            .staged
            .take()
            .filter(|(current, _)| *current == ticket)
            .unwrap_or_else(|| (ticket, Staged::new(&TYPES, STAGE_BYTES)));
        self.work.bytes += part.len();
        if let Err(why) = staged.add(part) {
            return self.refuse_ticket(ticket, None, why.to_string());
        }
        if !last {
            self.remote.staged = Some((ticket, staged));
            self.remote.answers.push(ToPeers::Staged(ticket));
            return;
        }
        if let Some(why) = self.world.refuse_writes.clone() {
            return self.refuse_ticket(ticket, None, why);
        }
        self.remote.applied.push(ticket);
        if let Some((generation, result)) = self.behind.finish() {
            tick.written(generation, &result);
        }
        // A store that fails here fails the tick, and the ticket with it.
        let _ = tick.join(&staged);
        note_changes(&mut self.world, &self.turn, tick);
    }

    fn refuse_ticket(&mut self, ticket: Ticket, culprit: Option<(Origin, u64)>, why: String) {
        self.remote.refused_epoch = Some(ticket.epoch);
        self.remote.answers.push(ToPeers::Refused { ticket, culprit, why });
    }

    /// Gives a blocked client its reply and lets it go on.
    fn answer(&mut self, client: u64, answer: &Answer) {
        let clients = &mut self.world.clients;
        let Some(slot) = clients.find(client) else { return };
        let Some(conn) = clients.at(slot).filter(|conn| conn.session.waits) else { return };
        write_answer(&mut Reply::new(&mut conn.out, conn.session.resp3), answer);
        clients.go_on(slot);
    }

    /// The tick is over: tells the peers' thread what became of its commits.
    pub fn settle(&mut self, failed: Option<&StoreError>) {
        let applied = std::mem::take(&mut self.remote.applied);
        if let (Some(error), Some(first)) = (failed, applied.first()) {
            self.refuse_ticket(*first, None, error.to_string());
        }
        self.tell_peers();
    }

    /// Tells what the peers' thread waits for. What has no room in its queue is told after the next tick.
    pub fn tell_peers(&mut self) {
        let mut answers = std::mem::take(&mut self.remote.answers).into_iter();
        for answer in answers.by_ref() {
            if let Err(answer) = self.world.port.tell(answer) {
                self.remote.answers.push(answer);
                break;
            }
        }
        self.remote.answers.extend(answers);
    }
}

fn write_answer(reply: &mut Reply<'_>, answer: &Answer) {
    match answer {
        Answer::Ok => reply.ok(),
        Answer::Error(text) => reply.error(text.as_bytes()),
        Answer::Integer(value) => reply.integer(*value),
        Answer::Text(text) => reply.bulk(text.as_bytes()),
        Answer::Array(items) => {
            reply.array(items.len());
            items.iter().for_each(|item| write_answer(reply, item));
        }
        Answer::Map(fields) => {
            reply.map(fields.len());
            for (name, value) in fields {
                reply.bulk(name.as_bytes());
                write_answer(reply, value);
            }
        }
    }
}
