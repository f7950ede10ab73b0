//! A page: rows of one interval of hashes, packed in the order of (hash, name).
//!
//! First comes an index of four bytes a row: 16 bits of the hash, as many as tell the rows of the interval
//! apart, and where the row begins. Then come the rows: flags, length of the name, name, length of the
//! value, value. What is too long for a page lies beside it, and the row has its number there.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;

use super::{Name, hash, order};
use crate::codec::Reader;

/// Rows of a page at most.
pub(super) const MAX_ROWS: usize = 64;
/// Bytes of its packed rows at most, but for one row.
pub(super) const MAX_BYTES: usize = 4 << 10;
/// A row whose name and value have more bytes lies beside the page.
pub(crate) const LARGE: usize = 1 << 10;
/// Bytes of the index for a row.
const INDEX: usize = 4;

/// What a page knows of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    /// Nothing: the store has the row as it is.
    pub(super) const CLEAN: Flags = Flags(0);
    /// Changed in the generation that is open.
    pub(super) const DIRTY: Flags = Flags(1);
    /// Not to be let go: changed in a generation that had not been written when the page was changed last.
    pub(super) const OWED: Flags = Flags(2);
    /// The store has no row of that name: if this one goes as well, there is nothing to write.
    pub(super) const FRESH: Flags = Flags(4);
    /// There is no such row any more, and the store has to be told.
    pub(super) const BLANK: Flags = Flags(8);
    /// Looked up since the last sweep.
    pub(super) const USED: Flags = Flags(16);
    /// It lies beside the page.
    const BESIDE: Flags = Flags(32);

    pub(super) fn has(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    pub(super) fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}

/// A stored value, where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'p> {
    /// In a page.
    Packed(&'p [u8]),
    /// On its own: how it begins, if not all is in one piece, and the rest, which is shared.
    Beside(&'p [u8], &'p Bytes),
}

impl<'p> Value<'p> {
    /// The bytes, if it is packed.
    #[inline]
    pub(crate) fn packed(self) -> Option<&'p [u8]> {
        if let Value::Packed(bytes) = self { Some(bytes) } else { None }
    }

    /// Its bytes, counted.
    pub(crate) fn len(self) -> usize {
        match self {
            Value::Packed(bytes) => bytes.len(),
            Value::Beside(first, rest) => first.len() + rest.len(),
        }
    }

    /// To be decoded: of what lies on its own, large parts are shared.
    pub(crate) fn reader(self) -> Reader<'p> {
        match self {
            Value::Packed(bytes) => Reader::new(bytes),
            Value::Beside([], rest) => Reader::over(rest),
            Value::Beside(first, rest) => Reader::ending(first, rest),
        }
    }
}

/// A row of a page.
#[derive(Clone, Copy)]
pub(super) struct Packed<'p> {
    pub(super) flags: Flags,
    pub(super) name: &'p [u8],
    pub(super) value: Value<'p>,
    /// Where the next one begins.
    end: usize,
}

/// A row that lies beside its page.
struct Beside {
    name: Box<[u8]>,
    /// As in [`Value::Beside`].
    first: Box<[u8]>,
    rest: Bytes,
}

pub(super) struct Page {
    bytes: Vec<u8>,
    /// Where the interval begins: a hash, and where rows of the same hash lie in the page before, a name.
    start: u64,
    low: Box<[u8]>,
    /// By number. Most pages have none.
    #[allow(clippy::box_collection, reason = "a pointer, as there are many pages")]
    beside: Option<Box<Vec<Option<Beside>>>>,
    /// The generation of the last change, 0 if there was none.
    generation: u64,
    rows: u16,
    /// How far a hash, less `start`, is shifted for its 16 bits in the index.
    shift: u8,
    /// All rows of the interval are here: what is not, is nowhere.
    whole: bool,
}

/// What a change was to a page.
#[derive(Default)]
pub(super) struct Changed {
    /// It is the first one of the generation.
    pub(super) first: bool,
    /// Rows that the store does not have: more, or fewer.
    pub(super) unwritten: isize,
}

/// Bytes that a row takes whose name and value are so long, roughly.
pub(crate) fn row_bytes(name: usize, value: usize) -> usize {
    // Its part of a page that is not full, and of what pages take beside their rows.
    let part = size_of::<Page>() / (MAX_ROWS / 2);
    INDEX + 1 + varint_len(name) + name + varint_len(value) + value + part
}

#[inline]
fn varint(bytes: &[u8], at: &mut usize) -> usize {
    let first = bytes[*at];
    if first < 0x80 {
        *at += 1;
        return usize::from(first);
    }
    let mut value = 0;
    let mut shift = 0;
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

/// Bytes that a length takes.
fn varint_len(value: usize) -> usize {
    if value < 0x80 { 1 } else { 2 }
}

fn put_varint(out: &mut [u8], at: &mut usize, value: usize) {
    // No packed name or value is longer than `LARGE`.
    if value >= 0x80 {
        out[*at] = value as u8 | 0x80;
        *at += 1;
        out[*at] = (value >> 7) as u8;
    } else {
        out[*at] = value as u8;
    }
    *at += 1;
}

impl Page {
    /// A page without rows for what lies between there and `end`.
    pub(super) fn new(start: Name<'_>, end: u64, whole: bool) -> Page {
        let mut page = Page {
            bytes: Vec::new(),
            start: start.0,
            low: start.1.into(),
            beside: None,
            generation: 0,
            rows: 0,
            shift: 0,
            whole,
        };
        page.set_end(end);
        page
    }

    /// Where its interval begins.
    pub(super) fn start(&self) -> Name<'_> {
        (self.start, &self.low)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    pub(super) fn set_whole(&mut self) {
        self.whole = true;
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Rows, blank ones included.
    pub(super) fn rows(&self) -> usize {
        usize::from(self.rows)
    }

    /// Bytes of the packed rows.
    fn packed(&self) -> usize {
        self.bytes.len() - self.begin()
    }

    /// Bytes that it holds on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let beside = self.beside.iter().flat_map(|all| all.iter()).flatten();
        let beside: usize =
            beside.map(|it| it.name.len() + it.first.len() + it.rest.len() + 64).sum();
        self.bytes.capacity() + self.low.len() + beside
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.rows() > MAX_ROWS || (self.packed() > MAX_BYTES && self.rows() > 1)
    }

    /// Whether it and another one make a page that will not soon be too large.
    pub(super) fn may_join(&self, other: &Page) -> bool {
        self.rows() + other.rows() <= MAX_ROWS / 2
            && self.packed() + other.packed() <= MAX_BYTES / 2
            && self.whole == other.whole
    }

    // ---- finding -------------------------------------------------------------------------------------

    fn set_end(&mut self, end: u64) {
        let bits = u64::BITS - end.saturating_sub(self.start).leading_zeros();
        self.shift = bits.saturating_sub(16) as u8;
    }

    fn fragment(&self, hash: u64) -> u16 {
        (hash.saturating_sub(self.start) >> self.shift) as u16
    }

    #[inline]
    fn indexed(&self, at: usize) -> [u8; INDEX] {
        let from = at * INDEX;
        [self.bytes[from], self.bytes[from + 1], self.bytes[from + 2], self.bytes[from + 3]]
    }

    fn fragment_at(&self, at: usize) -> u16 {
        let [a, b, ..] = self.indexed(at);
        u16::from_le_bytes([a, b])
    }

    /// Where the packed rows begin.
    fn begin(&self) -> usize {
        self.rows() * INDEX
    }

    /// Where a row begins, from there.
    fn offset(&self, at: usize) -> usize {
        let [.., a, b] = self.indexed(at);
        usize::from(u16::from_le_bytes([a, b]))
    }

    /// Where a row begins that may be the one behind the last.
    fn offset_or_end(&self, at: usize) -> usize {
        if at < self.rows() { self.offset(at) } else { self.packed() }
    }

    fn set_offset(&mut self, at: usize, offset: usize) {
        let from = at * INDEX + 2;
        // Rows end after `MAX_BYTES` and one row.
        self.bytes[from..from + 2].copy_from_slice(&(offset as u16).to_le_bytes());
    }

    /// The row that begins there in `bytes`.
    #[inline(always)]
    fn row_from(&self, from: usize) -> Packed<'_> {
        let bytes = &self.bytes[..];
        let flags = Flags(bytes[from]);
        let mut at = from + 1;
        if flags.has(Flags::BESIDE) {
            let number = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
            let beside = self.beside.as_ref().and_then(|all| all.get(number)?.as_ref());
            static NOTHING: Bytes = Bytes::new();
            let (name, value) = match beside {
                Some(it) => (&*it.name, Value::Beside(&it.first, &it.rest)),
                None => (&[][..], Value::Beside(&[], &NOTHING)),
            };
            return Packed { flags, name, value, end: at + 2 };
        }
        let len = varint(bytes, &mut at);
        let name = &bytes[at..at + len];
        at += len;
        let len = varint(bytes, &mut at);
        Packed { flags, name, value: Value::Packed(&bytes[at..at + len]), end: at + len }
    }

    /// A row by its number.
    pub(super) fn row(&self, at: usize) -> Packed<'_> {
        self.row_from(self.begin() + self.offset(at))
    }

    /// All rows from one on.
    pub(super) fn rows_from(&self, at: usize) -> impl Iterator<Item = Packed<'_>> {
        let mut next = self.begin() + self.offset_or_end(at);
        std::iter::from_fn(move || {
            (next < self.bytes.len()).then(|| {
                let row = self.row_from(next);
                next = row.end;
                row
            })
        })
    }

    /// The number of a row, or that of the first one behind its place.
    pub(super) fn find(&self, place: Name<'_>) -> Result<usize, usize> {
        let fragment = self.fragment(place.0);
        let (mut at, mut end) = (0, self.rows());
        while at < end {
            let middle = (at + end) / 2;
            if self.fragment_at(middle) < fragment { at = middle + 1 } else { end = middle }
        }
        while at < self.rows() && self.fragment_at(at) == fragment {
            let name = self.row(at).name;
            if name == place.1 {
                return Ok(at);
            }
            match order((hash(name), name), place) {
                Ordering::Less => at += 1,
                _ => return Err(at),
            }
        }
        Err(at)
    }

    // ---- changing ------------------------------------------------------------------------------------

    pub(super) fn set_flags(&mut self, at: usize, flags: Flags) {
        let from = self.begin() + self.offset(at);
        self.bytes[from] = flags.0 | self.bytes[from] & Flags::BESIDE.0;
    }

    /// Room for so many bytes more, and a little: the allocator's sizes are an eighth apart.
    fn reserve(&mut self, more: usize) {
        let free = self.bytes.capacity() - self.bytes.len();
        if free < more {
            self.bytes.reserve_exact(more.max(self.bytes.len() / 8));
        }
    }

    /// Makes the bytes of the row that begins there as many as it takes.
    fn resize_row(&mut self, from: usize, old: usize, new: usize) {
        let len = self.bytes.len();
        if new > old {
            self.reserve(new - old);
            self.bytes.resize(len + new - old, 0);
        }
        self.bytes.copy_within(from + old..len, from + new);
        self.bytes.truncate(len + new - old);
    }

    /// Writes a row over so many bytes of another one, or of none.
    fn write_row(&mut self, at: usize, old: usize, name: &[u8], value: Value<'_>, flags: Flags) {
        let small = value.packed().filter(|bytes| name.len() + bytes.len() <= LARGE);
        let beside = small.is_none().then(|| {
            let (first, rest) = match value {
                Value::Packed(bytes) => (Box::default(), Bytes::copy_from_slice(bytes)),
                Value::Beside(first, rest) => (first.into(), rest.clone()),
            };
            self.put_beside(Beside { name: name.into(), first, rest })
        });
        let bytes = small.unwrap_or_default();
        let packed = |len| varint_len(len) + len;
        let new = match beside {
            Some(_) => 3,
            None => 1 + packed(name.len()) + packed(bytes.len()),
        };
        let from = self.begin() + self.offset_or_end(at);
        if new != old {
            self.resize_row(from, old, new);
        }
        let mut next = from + 1;
        let out = &mut self.bytes[..];
        match beside {
            Some(number) => {
                out[from] = flags.with(Flags::BESIDE).0;
                out[next..next + 2].copy_from_slice(&number.to_le_bytes());
            }
            None => {
                out[from] = flags.0;
                put_varint(out, &mut next, name.len());
                out[next..next + name.len()].copy_from_slice(name);
                next += name.len();
                put_varint(out, &mut next, bytes.len());
                out[next..next + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    fn put_beside(&mut self, row: Beside) -> u16 {
        let all = self.beside.get_or_insert_default();
        // A page has few rows, so there are few numbers.
        let free = all.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            all.push(None);
            all.len() - 1
        });
        all[number] = Some(row);
        number as u16
    }

    /// If the row lies beside the page, takes it from there.
    fn take_beside(&mut self, at: usize) -> Option<Beside> {
        let from = self.begin() + self.offset(at);
        if !Flags(self.bytes[from]).has(Flags::BESIDE) {
            return None;
        }
        let number = u16::from_le_bytes([self.bytes[from + 1], self.bytes[from + 2]]);
        let all = self.beside.as_mut()?;
        let row = all.get_mut(usize::from(number))?.take();
        if all.iter().all(Option::is_none) {
            self.beside = None;
        }
        row
    }

    /// Adds a row at its place.
    pub(super) fn insert(&mut self, at: usize, place: Name<'_>, value: Value<'_>, flags: Flags) {
        let offset = self.offset_or_end(at);
        let before = self.packed();
        self.write_row(at, 0, place.1, value, flags);
        let more = self.packed() - before;
        for later in at..self.rows() {
            self.set_offset(later, self.offset(later) + more);
        }
        self.reserve(INDEX);
        let (from, len) = (at * INDEX, self.bytes.len());
        self.bytes.resize(len + INDEX, 0);
        self.bytes.copy_within(from..len, from + INDEX);
        let fragment = self.fragment(place.0).to_le_bytes();
        self.bytes[from..from + 2].copy_from_slice(&fragment);
        self.rows += 1;
        self.set_offset(at, offset);
    }

    /// Replaces the value of a row.
    pub(super) fn set(&mut self, at: usize, value: Value<'_>, flags: Flags) {
        let begin = self.begin() + self.offset(at);
        let Packed { name, value: was, end, .. } = self.row(at);
        let (len, old) = (name.len(), end - begin);
        let small = value.packed().filter(|bytes| len + bytes.len() <= LARGE);
        if let Some(bytes) = small.filter(|_| was.packed().is_some()) {
            // The name stays where it is.
            let mut next = 1 + varint_len(len) + len;
            let new = next + varint_len(bytes.len()) + bytes.len();
            if new != old {
                self.resize_row(begin, old, new);
            }
            let out = &mut self.bytes[begin..];
            out[0] = flags.0;
            put_varint(out, &mut next, bytes.len());
            out[next..next + bytes.len()].copy_from_slice(bytes);
        } else {
            let name = Box::<[u8]>::from(name);
            self.take_beside(at);
            self.write_row(at, old, &name, value, flags);
        }
        let new = self.row(at).end - begin;
        if new != old {
            for later in at + 1..self.rows() {
                self.set_offset(later, self.offset(later) + new - old);
            }
        }
    }

    pub(super) fn remove(&mut self, at: usize) {
        let begin = self.begin() + self.offset(at);
        let old = self.row(at).end - begin;
        self.take_beside(at);
        self.resize_row(begin, old, 0);
        for later in at + 1..self.rows() {
            self.set_offset(later, self.offset(later) - old);
        }
        let from = at * INDEX;
        self.bytes.copy_within(from + INDEX.., from);
        self.bytes.truncate(self.bytes.len() - INDEX);
        self.rows -= 1;
        self.shrink();
    }

    /// Gives back what it has room for and does not need.
    fn shrink(&mut self) {
        if self.bytes.capacity() > self.bytes.len() / 2 * 3 + 64 {
            self.bytes.shrink_to(self.bytes.len() + self.bytes.len() / 8);
        }
    }

    // ---- generations -----------------------------------------------------------------------------------

    /// It belongs to the generation from now on; `written` is the newest one that the store has.
    fn join_generation(&mut self, generation: u64, written: u64) -> bool {
        if self.generation == generation {
            return false;
        }
        self.settle(written);
        self.generation = generation;
        true
    }

    /// What the store has by now is not owed to it any more.
    pub(super) fn settle(&mut self, written: u64) {
        if self.generation > written || self.generation == 0 {
            return;
        }
        let mut at = 0;
        while at < self.rows() {
            let flags = self.row(at).flags;
            if flags.has(Flags::BLANK) {
                self.remove(at);
                continue;
            }
            if flags.has(Flags::OWED) {
                self.set_flags(at, flags.without(Flags::OWED));
            }
            at += 1;
        }
        self.generation = 0;
    }

    /// Changes a row, or removes it; `absent` says that the store is known to have none of that name.
    pub(super) fn change(
        &mut self,
        place: Name<'_>,
        value: Option<Value<'_>>,
        absent: bool,
        (generation, written): (u64, u64),
    ) -> Changed {
        let first = self.join_generation(generation, written);
        let owed = Flags::DIRTY.with(Flags::OWED);
        let absent = absent || self.whole;
        let unwritten = match (self.find(place), value) {
            (Ok(at), value) => {
                let was = self.row(at).flags;
                let dirty = isize::from(was.has(Flags::DIRTY));
                let fresh = if was.has(Flags::FRESH) { Flags::FRESH } else { Flags::CLEAN };
                match value {
                    Some(value) => self.set(at, value, owed.with(fresh).with(Flags::USED)),
                    None if was.has(Flags::FRESH) => {
                        self.remove(at);
                        return Changed { first, unwritten: -dirty };
                    }
                    None => self.set(at, Value::Packed(&[]), owed.with(Flags::BLANK)),
                }
                1 - dirty
            }
            (Err(at), Some(value)) => {
                let fresh = if absent { Flags::FRESH } else { Flags::CLEAN };
                self.insert(at, place, value, owed.with(fresh).with(Flags::USED));
                1
            }
            (Err(_), None) if absent => 0,
            (Err(at), None) => {
                self.insert(at, place, Value::Packed(&[]), owed.with(Flags::BLANK));
                1
            }
        };
        Changed { first, unwritten }
    }

    /// What was to be written has not reached the store.
    pub(super) fn owe_again(&mut self, place: Name<'_>, now: (u64, u64)) -> Changed {
        match self.find(place) {
            Ok(at) => {
                let first = self.join_generation(now.0, now.1);
                let was = self.row(at).flags;
                let owed = Flags::DIRTY.with(Flags::OWED);
                self.set_flags(at, was.with(owed).without(Flags::FRESH));
                Changed { first, unwritten: isize::from(!was.has(Flags::DIRTY)) }
            }
            Err(_) => {
                let whole = std::mem::replace(&mut self.whole, false);
                let changed = self.change(place, None, false, now);
                self.whole = whole;
                changed
            }
        }
    }

    /// Visits what was changed: names, and values but for what is gone. It is owed until it is written.
    pub(super) fn freeze(&mut self, mut visit: impl FnMut(&[u8], Option<Value<'_>>)) {
        for at in 0..self.rows() {
            let row = self.row(at);
            let flags = row.flags;
            if flags.has(Flags::DIRTY) {
                visit(row.name, (!flags.has(Flags::BLANK)).then_some(row.value));
                self.set_flags(at, flags.without(Flags::DIRTY).without(Flags::FRESH));
            }
        }
    }

    /// Lets go of rows that are not owed and that nobody has looked up since the last time.
    pub(super) fn sweep(&mut self, written: u64) {
        self.settle(written);
        let stays = |flags: Flags| flags.has(Flags::OWED.with(Flags::USED));
        if (0..self.rows()).all(|at| !stays(self.row(at).flags)) {
            // An empty page may join another one that is.
            self.whole = false;
            (self.bytes, self.beside, self.rows) = (Vec::new(), None, 0);
            return;
        }
        let mut at = 0;
        while at < self.rows() {
            let flags = self.row(at).flags;
            if stays(flags) {
                self.set_flags(at, flags.without(Flags::USED));
                at += 1;
            } else {
                self.whole = false;
                self.remove(at);
            }
        }
    }

    // ---- intervals -------------------------------------------------------------------------------------

    /// Takes rows into a page of its own, whose interval begins and ends there.
    fn take(&mut self, rows: Range<usize>, start: Name<'_>, end: u64) -> Page {
        let mut taken = Page::new(start, end, self.whole);
        taken.generation = self.generation;
        taken.add(self, rows);
        taken
    }

    /// Adds rows of another page behind its own.
    fn add(&mut self, from: &mut Page, rows: Range<usize>) {
        let begin = from.begin();
        let bytes = begin + from.offset_or_end(rows.start)..begin + from.offset_or_end(rows.end);
        let (mine, count) = (self.rows(), rows.len());
        let base = self.packed();
        let len = self.bytes.len() + count * INDEX + bytes.len();
        let mut all = Vec::with_capacity(len);
        all.extend_from_slice(&self.bytes[..mine * INDEX]);
        all.resize((mine + count) * INDEX, 0);
        all.extend_from_slice(&self.bytes[mine * INDEX..]);
        all.extend_from_slice(&from.bytes[bytes]);
        self.bytes = all;
        self.rows += count as u16;
        let shift = from.offset_or_end(rows.start);
        for (index, row) in rows.enumerate() {
            self.set_offset(mine + index, base + from.offset(row) - shift);
            if let Some(beside) = from.take_beside(row) {
                let number = self.put_beside(beside);
                let at = self.begin() + self.offset(mine + index) + 1;
                self.bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
            }
        }
        self.index_from(mine);
    }

    /// Computes the fragments of the rows from one on.
    fn index_from(&mut self, first: usize) {
        for at in first..self.rows() {
            let fragment = self.fragment(hash(self.row(at).name)).to_le_bytes();
            self.bytes[at * INDEX..at * INDEX + 2].copy_from_slice(&fragment);
        }
    }

    /// Splits it in two of the same size; `end` is where its interval ends.
    pub(super) fn split(&mut self, end: u64) -> Page {
        let half = self.packed() / 2;
        let middle = (1..self.rows()).find(|at| self.offset(*at) >= half);
        let middle = middle.unwrap_or(self.rows() - 1);
        let (before, first) = (self.row(middle - 1).name, self.row(middle).name);
        let start = hash(first);
        let low = if hash(before) == start { Box::from(first) } else { Box::default() };
        self.cut((start, &low), end)
    }

    /// Cuts off what lies at a place or behind it.
    pub(super) fn cut(&mut self, place: Name<'_>, end: u64) -> Page {
        let at = self.find(place).unwrap_or_else(|at| at);
        let rows = self.rows();
        let right = self.take(at..rows, place, end);
        let low = std::mem::take(&mut self.low);
        *self = self.take(0..at, (self.start, &low), place.0);
        right
    }

    /// Takes in the page behind it, whose interval ends there.
    pub(super) fn absorb(&mut self, mut right: Page, end: u64) {
        self.set_end(end);
        self.index_from(0);
        self.whole &= right.whole;
        self.generation = self.generation.max(right.generation);
        let rows = right.rows();
        self.add(&mut right, 0..rows);
    }
}
