//! What becomes of a request: it is refused, queued, run, or has to wait.
//!
//! There is one gate, through which every command goes whoever calls it, and one way to run a command within
//! the transaction of another one.

use crate::clients::Pause;
use crate::commands::{self, Call, Command, CommandError, flag};
use crate::data::Tick;
use crate::net::conn::Effect;
use crate::net::output::Output;
use crate::net::reply::Reply;
use crate::net::request::Args;
use crate::session::Session;
use crate::stats::Counter;
use crate::world::World;

/// Who calls a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A client.
    Client,
    /// EXEC, which runs what was queued.
    Exec,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It has its reply.
    Done(Effect),
    /// Nothing: it comes first in the next tick.
    Later,
    /// Nothing: it comes first once clients are no longer paused.
    Paused,
}

/// What a tick knows of itself while it goes on.
#[derive(Debug, Default)]
pub struct Turn {
    /// Something was written.
    pub wrote: bool,
    /// The engine reports changed keys.
    pub tracking: bool,
    /// A command waits for that.
    pub wants_tracking: bool,
}

/// Whether a command may be run now; errors are told to whoever calls.
fn gate(
    world: &World,
    session: &Session,
    command: &Command,
    caller: Caller,
) -> Result<(), CommandError> {
    if caller == Caller::Client && !session.authenticated && !command.is(flag::NO_AUTH) {
        return Err(CommandError::Fixed("NOAUTH Authentication required."));
    }
    if session.multi.is_some() && command.is(flag::NO_MULTI) {
        return Err(CommandError::Fixed("ERR Command not allowed inside a transaction"));
    }
    match world.refuses() {
        Some(why) if flags_of(session, command) & flag::WRITE != 0 => {
            Err(CommandError::text(why.to_owned()))
        }
        _ => Ok(()),
    }
}

/// The flags of a command, and of what was queued if it runs that.
fn flags_of(session: &Session, command: &Command) -> u32 {
    let queue = session.multi.as_ref().filter(|_| command.name == "exec");
    command.flags | queue.map_or(0, |queue| queue.flags)
}

/// Whether a command waits while clients are paused.
fn is_paused(pause: Option<Pause>, session: &Session, command: &Command) -> bool {
    pause.is_some_and(|pause| pause.all || flags_of(session, command) & flag::WRITE != 0)
}

/// Runs, queues or refuses a client's request.
pub fn dispatch(
    world: &mut World,
    turn: &mut Turn,
    tick: &mut Tick<'_>,
    session: &mut Session,
    out: &mut Output,
    args: Args<'_>,
) -> Outcome {
    let mark = out.len();
    match answer(world, turn, tick, session, out, args) {
        Outcome::Done(_) if session.silence.hides() => {
            out.truncate(mark);
            Outcome::Done(Effect::None)
        }
        outcome => outcome,
    }
}

fn answer(
    world: &mut World,
    turn: &mut Turn,
    tick: &mut Tick<'_>,
    session: &mut Session,
    out: &mut Output,
    args: Args<'_>,
) -> Outcome {
    let done = Outcome::Done(Effect::None);
    let command = match commands::resolve(args) {
        Ok(command) => command,
        Err(error) => {
            let name = args.at(0);
            if name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"HOST:") {
                // A browser that was talked into posting commands: not a word.
                session.closing = true;
                return done;
            }
            refuse(world, session, out, name.eq_ignore_ascii_case(b"EXEC"), &error);
            return done;
        }
    };
    if let Err(error) = gate(world, session, command, Caller::Client) {
        refuse(world, session, out, command.name == "exec", &error);
        return done;
    }
    if is_paused(world.clients.pause, session, command) {
        return Outcome::Paused;
    }
    session.last_command = command.name;
    let flags = flags_of(session, command);
    if let Some(queue) = &mut session.multi
        && !command.is(flag::UNQUEUED)
    {
        queue.push(command, args);
        Reply::new(out, session.resp3).simple("QUEUED");
        return done;
    }
    if flags & flag::SEALED != 0 && turn.wrote {
        return Outcome::Later;
    }
    if flags & flag::TRACKED != 0 && !turn.tracking {
        turn.wants_tracking = true;
        return Outcome::Later;
    }
    run(world, turn, tick, session, out, command, args);
    Outcome::Done(match session.executed.take() {
        Some(queue) => Effect::Exec(Box::new(queue)),
        None if command.is(flag::WRITE) => Effect::Write,
        None if command.is(flag::READONLY) => Effect::Read,
        None => Effect::None,
    })
}

/// Answers with an error. An EXEC that cannot be run ends its transaction.
fn refuse(
    world: &mut World,
    session: &mut Session,
    out: &mut Output,
    ends: bool,
    error: &CommandError,
) {
    let aborted;
    let mut error = error;
    if ends {
        session.multi = None;
        world.watch.unwatch(session);
        aborted = CommandError::aborted(error);
        error = &aborted;
    }
    world.stats.error(error.line());
    session.fail_transaction();
    Reply::new(out, session.resp3).error(error.line());
}

/// Runs a command as a transaction of its own. What an error leaves behind is its text.
pub fn run(
    world: &mut World,
    turn: &mut Turn,
    tick: &mut Tick<'_>,
    session: &mut Session,
    out: &mut Output,
    command: &'static Command,
    args: Args<'_>,
) {
    world.stats.add(Counter::Commands, 1);
    let mark = out.len();
    let mut txn = tick.txn();
    let reply = Reply::new(out, session.resp3);
    let result = (command.run)(&mut Call { args, session, txn: &mut txn, reply, world });
    match result {
        Ok(()) => {
            turn.wrote |= txn.commit().is_some();
            note_changes(world, turn, tick);
        }
        Err(error) => {
            drop(txn);
            out.truncate(mark);
            Reply::new(out, session.resp3).error(error.line());
            world.stats.error(error.line());
        }
    }
}

/// Runs a command within the transaction of another one, which goes on. If it fails its error is its reply,
/// and it has changed nothing; but an error is returned of what ends the whole transaction.
pub fn nested(
    call: &mut Call<'_, '_>,
    caller: Caller,
    command: &'static Command,
    args: Args<'_>,
) -> Result<(), CommandError> {
    call.world.stats.add(Counter::Commands, 1);
    let savepoint = call.txn.savepoint();
    let mut reply = call.reply.reborrow();
    reply.set_resp3(call.session.resp3);
    let (mark, is_leaving) = (reply.mark(), call.session.closing);
    let (session, world) = (&mut *call.session, &mut *call.world);
    let result = gate(world, session, command, caller).and_then(|()| {
        (command.run)(&mut Call { args, session, txn: &mut *call.txn, reply, world })
    });
    match result {
        Err(error @ CommandError::TooLarge(_)) => Err(error),
        Err(error) => {
            call.txn.rollback(savepoint);
            call.reply.truncate(mark);
            call.reply.error(error.line());
            call.world.stats.error(error.line());
            Ok(())
        }
        Ok(()) => Ok(()),
    }?;
    if is_leaving {
        // It gets no more.
        call.reply.truncate(mark);
    }
    Ok(())
}

/// Breaks the watch of those who watch what has changed.
pub fn note_changes(world: &mut World, turn: &Turn, tick: &mut Tick<'_>) {
    if turn.tracking {
        tick.take_changed().iter().for_each(|changed| world.watch.note(changed));
    }
}
