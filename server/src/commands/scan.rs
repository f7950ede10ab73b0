//! SCAN, SSCAN and HSCAN: iteration in pages, of which the server remembers nothing.
//!
//! Keys, members and fields lie in the order of a hash of their names. A cursor is a place in that order, so
//! it holds whatever is added, removed or moved to disk meanwhile, and on any connection: what is there
//! throughout has one place for ever, and is returned once.

use std::ops::ControlFlow;

use lattis_engine::name::Cursor;

use super::{Call, CommandError, CommandResult, OnKey};
use crate::glob;
use crate::net::output::Output;
use crate::net::reply::Reply;

/// What a page is to have.
struct Options<'a> {
    count: u64,
    pattern: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    const NONE: Options<'a> = Options { count: 10, pattern: None, kind: None };

    /// Of a page of one key; if that is absent they are not looked at, as in Redis.
    fn of_key(call: &Call<'a, '_>, is_there: bool) -> Result<Options<'a>, CommandError> {
        if is_there { Options::parse(call, 3, false) } else { Ok(Options::NONE) }
    }

    fn parse(
        call: &Call<'a, '_>,
        from: usize,
        with_type: bool,
    ) -> Result<Options<'a>, CommandError> {
        let mut options = Options::NONE;
        for at in (from..call.args.len()).step_by(2) {
            let word = call.args.at(at);
            let value = call.args.get(at + 1).ok_or(CommandError::SYNTAX)?;
            if word.eq_ignore_ascii_case(b"COUNT") {
                let count = u64::try_from(call.integer(at + 1)?).ok().filter(|count| *count > 0);
                options.count = count.ok_or(CommandError::SYNTAX)?;
            } else if word.eq_ignore_ascii_case(b"MATCH") {
                options.pattern = Some(value);
            } else if with_type && word.eq_ignore_ascii_case(b"TYPE") {
                options.kind = Some(value);
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }
}

/// A page in the making.
struct Page<'a> {
    options: Options<'a>,
    seen: u64,
    last: Cursor,
    next: Cursor,
    found: Output,
    items: usize,
}

impl<'a> Page<'a> {
    fn new(options: Options<'a>) -> Page<'a> {
        let (last, next) = (Cursor::START, Cursor::START);
        Page { options, seen: 0, last, next, found: Output::default(), items: 0 }
    }

    /// Looks at a name. What shares a place is on one page.
    fn visit(&mut self, name: &[u8], with: &[&[u8]], wanted: bool) -> ControlFlow<()> {
        let place = Cursor::of(name);
        if self.seen >= self.options.count && place != self.last {
            self.next = place;
            return ControlFlow::Break(());
        }
        self.seen += 1;
        self.last = place;
        if wanted && self.options.pattern.is_none_or(|pattern| glob::matches(pattern, name)) {
            let mut items = Reply::new(&mut self.found, false);
            items.bulk(name);
            with.iter().for_each(|part| items.bulk(part));
            self.items += 1 + with.len();
        }
        ControlFlow::Continue(())
    }

    fn answer(self, call: &mut Call<'_, '_>) {
        call.reply.array(2);
        call.reply.display(&self.next.number());
        call.reply.array(self.items);
        call.reply.raw(&self.found, 0..self.found.len());
    }
}

fn cursor(text: &[u8]) -> Result<Cursor, CommandError> {
    let number = std::str::from_utf8(text).ok().and_then(|text| match text {
        "" => Some(0),
        text => text.parse().ok(),
    });
    number.map(Cursor::from_number).ok_or(CommandError::Fixed("ERR invalid cursor"))
}

pub(super) fn scan(call: &mut Call<'_, '_>) -> CommandResult {
    let from = cursor(call.args.at(1))?;
    let mut page = Page::new(Options::parse(call, 2, true)?);
    let kind = page.options.kind;
    let visit = &mut |key: &[u8], its: &str| {
        let wanted = kind.is_none_or(|kind| kind.eq_ignore_ascii_case(its.as_bytes()));
        page.visit(key, &[], wanted)
    };
    call.txn.keys(call.session.db, from, visit).on(b"")?;
    page.answer(call);
    Ok(())
}

pub(super) fn sscan(call: &mut Call<'_, '_>) -> CommandResult {
    let (db, key) = (call.session.db, call.args.at(1));
    let from = cursor(call.args.at(2))?;
    call.look(key)?;
    let is_there = call.txn.set_len(db, key).on(key)? > 0;
    let mut page = Page::new(Options::of_key(call, is_there)?);
    let visit = &mut |member: &[u8]| page.visit(member, &[], true);
    call.txn.set_members_from(db, key, from, visit).on(key)?;
    page.answer(call);
    Ok(())
}

pub(super) fn hscan(call: &mut Call<'_, '_>) -> CommandResult {
    let (db, key) = (call.session.db, call.args.at(1));
    let from = cursor(call.args.at(2))?;
    call.look(key)?;
    let is_there = call.txn.hash_len(db, key).on(key)? > 0;
    let mut page = Page::new(Options::of_key(call, is_there)?);
    let visit = &mut |field: &[u8], value: &[u8]| page.visit(field, &[value], true);
    call.txn.hash_fields_from(db, key, from, visit).on(key)?;
    page.answer(call);
    Ok(())
}
