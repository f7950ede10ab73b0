//! The reply sink: writes RESP2 or RESP3 straight into a connection's output.
//!
//! Commands say what they answer (a map, a set, a double) and the sink knows how each protocol version
//! writes it. Nothing is allocated but the room in the output.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use super::output::{Output, SHARED};

/// Room for the digits of any integer of 64 bits and its sign.
const DIGITS: usize = 20;

/// Writes the replies of one command.
#[derive(Debug)]
pub struct Reply<'a> {
    out: &'a mut Output,
    resp3: bool,
}

impl<'a> Reply<'a> {
    /// A sink that appends to `out`.
    pub fn new(out: &'a mut Output, resp3: bool) -> Reply<'a> {
        Reply { out, resp3 }
    }

    /// The same sink for a shorter while.
    pub fn reborrow(&mut self) -> Reply<'_> {
        Reply { out: self.out, resp3: self.resp3 }
    }

    /// Whether the client speaks RESP3.
    pub fn is_resp3(&self) -> bool {
        self.resp3
    }

    /// Switches the protocol from here on (HELLO, RESET).
    pub fn set_resp3(&mut self, resp3: bool) {
        self.resp3 = resp3;
    }

    /// Where the next reply begins, for [`truncate`](Reply::truncate).
    pub fn mark(&self) -> usize {
        self.out.len()
    }

    /// Takes back everything behind `mark`.
    pub fn truncate(&mut self, mark: usize) {
        self.out.truncate(mark);
    }

    /// `+OK`
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// `+text`. The text is ours: it has no line ends.
    pub fn simple(&mut self, text: &str) {
        self.out.extend_from_slice(b"+");
        self.out.extend_from_slice(text.as_bytes());
        self.end();
    }

    /// `-text`, the text beginning with its code. Line ends become spaces, as in Redis.
    pub fn error(&mut self, text: &[u8]) {
        self.out.extend_from_slice(b"-");
        let mut lines = text.split(|byte| matches!(byte, b'\r' | b'\n'));
        self.out.extend_from_slice(lines.next().unwrap_or_default());
        for line in lines {
            self.out.extend_from_slice(b" ");
            self.out.extend_from_slice(line);
        }
        self.end();
    }

    /// `:value`
    pub fn integer(&mut self, value: i64) {
        self.line(b':', value);
    }

    /// `:value`
    pub fn count(&mut self, value: u64) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// A string of bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        let mut room = [0; LINE];
        let head = line(b'$', i64::try_from(bytes.len()).unwrap_or(i64::MAX), &mut room);
        let out = self.out.room(head.len() + bytes.len() + 2);
        out.extend_from_slice(head);
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }

    /// A string of bytes that the engine holds: a large one is not copied.
    pub fn shared_bulk(&mut self, bytes: Bytes) {
        if bytes.len() < SHARED {
            return self.bulk(&bytes);
        }
        self.head(b'$', bytes.len());
        self.out.share(bytes);
        self.end();
    }

    /// A string of bytes, written as it is displayed.
    pub fn display(&mut self, value: &dyn fmt::Display) {
        self.bulk(value.to_string().as_bytes());
    }

    /// A string or null.
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// Nothing, where a string could have been.
    pub fn null(&mut self) {
        self.out.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// Nothing, where an array could have been.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// The head of an array of `len` replies.
    pub fn array(&mut self, len: usize) {
        self.head(b'*', len);
    }

    /// The head of a map of `len` pairs; an array of twice as many in RESP2.
    pub fn map(&mut self, len: usize) {
        let (marker, len) = self.of_shape(Shape::Map, len);
        self.line(marker, len);
    }

    /// The head of a set of `len` replies; an array in RESP2.
    pub fn set(&mut self, len: usize) {
        let (marker, len) = self.of_shape(Shape::Set, len);
        self.line(marker, len);
    }

    /// The head of a push message of `len` replies; an array in RESP2.
    pub fn push(&mut self, len: usize) {
        self.head(if self.resp3 { b'>' } else { b'*' }, len);
    }

    /// A floating-point number, in its shortest form; a string in RESP2.
    pub fn double(&mut self, value: f64) {
        let text = if value.is_infinite() {
            String::from(if value > 0.0 { "inf" } else { "-inf" })
        } else if value.is_nan() {
            String::from("nan")
        } else {
            value.to_string()
        };
        if self.resp3 {
            self.out.extend_from_slice(b",");
            self.out.extend_from_slice(text.as_bytes());
            self.end();
        } else {
            self.bulk(text.as_bytes());
        }
    }

    /// A truth value; 1 or 0 in RESP2.
    pub fn boolean(&mut self, value: bool) {
        if self.resp3 {
            self.out.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" });
        } else {
            self.integer(i64::from(value));
        }
    }

    /// Text for people; a plain string in RESP2.
    pub fn verbatim(&mut self, text: &[u8]) {
        if self.resp3 {
            self.head(b'=', text.len() + 4);
            self.out.extend_from_slice(b"txt:");
            self.out.extend_from_slice(text);
            self.end();
        } else {
            self.bulk(text);
        }
    }

    /// Begins an array, set or map of probably `guess` items (pairs, of a map);
    /// [`finish`](Reply::finish) corrects the head if there were others.
    pub fn open(&mut self, shape: Shape, guess: usize) -> Opened {
        let mark = self.out.len();
        let (marker, len) = self.of_shape(shape, guess);
        self.line(marker, len);
        Opened { shape, guess, head: mark..self.out.len() }
    }

    /// Ends what [`open`](Reply::open) has begun. Costs nothing if the guess was right, else some of the
    /// items are moved once by a few bytes.
    pub fn finish(&mut self, opened: Opened, len: usize) {
        if len == opened.guess {
            return;
        }
        let (marker, len) = self.of_shape(opened.shape, len);
        let mut room = [0; LINE];
        self.out.replace(opened.head, line(marker, len, &mut room));
    }

    /// Marker and length of the head of a shape.
    fn of_shape(&self, shape: Shape, len: usize) -> (u8, i64) {
        let (marker, len) = match (shape, self.resp3) {
            (Shape::Map, true) => (b'%', len),
            (Shape::Map, false) => (b'*', len * 2),
            (Shape::Set, true) => (b'~', len),
            (Shape::Array | Shape::Set, _) => (b'*', len),
        };
        (marker, i64::try_from(len).unwrap_or(i64::MAX))
    }

    /// What is already encoded.
    pub fn raw(&mut self, encoded: &Output, range: Range<usize>) {
        self.out.copy(encoded, range);
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }

    fn head(&mut self, marker: u8, len: usize) {
        self.line(marker, i64::try_from(len).unwrap_or(i64::MAX));
    }

    fn line(&mut self, marker: u8, value: i64) {
        self.out.extend_from_slice(line(marker, value, &mut [0; LINE]));
    }
}

/// Room for a marker, a number and the end of the line.
const LINE: usize = DIGITS + 3;

/// `marker value`, in one piece.
fn line(marker: u8, value: i64, room: &mut [u8; LINE]) -> &[u8] {
    let mut digits = [0; DIGITS];
    let digits = decimal(value, &mut digits);
    let end = 1 + digits.len();
    room[0] = marker;
    room[1..end].copy_from_slice(digits);
    room[end..end + 2].copy_from_slice(b"\r\n");
    &room[..end + 2]
}

/// The shapes of replies with a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An array.
    Array,
    /// A set.
    Set,
    /// A map; its length counts pairs.
    Map,
}

/// A head that may still have to be corrected.
#[derive(Debug)]
pub struct Opened {
    shape: Shape,
    guess: usize,
    head: Range<usize>,
}

/// The digits of a number, without allocating.
pub fn decimal(value: i64, digits: &mut [u8; DIGITS]) -> &[u8] {
    let mut rest = value.unsigned_abs();
    let mut at = DIGITS;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    &digits[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(write: impl Fn(&mut Reply<'_>)) -> (String, String) {
        let one = |resp3| {
            let mut out = Output::default();
            write(&mut Reply::new(&mut out, resp3));
            let mut bytes = Vec::new();
            while !out.is_empty() {
                out.send(&mut bytes).unwrap();
            }
            String::from_utf8(bytes).unwrap()
        };
        (one(false), one(true))
    }

    #[test]
    fn each_version_has_its_own_types() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(both(|r| r.null()), pair("$-1\r\n", "_\r\n"));
        assert_eq!(both(|r| r.null_array()), pair("*-1\r\n", "_\r\n"));
        assert_eq!(both(|r| r.map(2)), pair("*4\r\n", "%2\r\n"));
        assert_eq!(both(|r| r.set(2)), pair("*2\r\n", "~2\r\n"));
        assert_eq!(both(|r| r.push(2)), pair("*2\r\n", ">2\r\n"));
        assert_eq!(both(|r| r.double(1.5)), pair("$3\r\n1.5\r\n", ",1.5\r\n"));
        assert_eq!(both(|r| r.boolean(true)), pair(":1\r\n", "#t\r\n"));
        assert_eq!(both(|r| r.verbatim(b"x")), pair("$1\r\nx\r\n", "=5\r\ntxt:x\r\n"));
        assert_eq!(both(|r| r.error(b"ERR a\r\nb")).0, "-ERR a  b\r\n");
    }

    #[test]
    fn heads_can_be_corrected() {
        let (text, _) = both(|r| {
            let opened = r.open(Shape::Set, 3);
            for item in 0..12 {
                r.integer(item % 10);
            }
            r.finish(opened, 12);
        });
        assert!(text.starts_with("*12\r\n:0\r\n:1\r\n"), "{text}");
        assert!(text.ends_with(":0\r\n:1\r\n"), "{text}");
    }

    #[test]
    fn decimals() {
        for value in [0, 7, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(decimal(value, &mut [0; DIGITS]), value.to_string().as_bytes());
        }
    }
}
