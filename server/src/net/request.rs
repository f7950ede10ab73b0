//! The request scanner: finds commands in the bytes that a client has sent.
//!
//! It reads multibulk requests and inline ones (with Redis's quoting), remembers where it stopped so
//! that no byte is looked at twice, and yields arguments as ranges of the buffer it was given: nothing
//! is copied, except by inline requests, whose quotes have to be resolved. Requests do not nest, so
//! there is no recursion to exhaust. Limits and error texts are those of Redis 7.0, except that
//! line ends are checked strictly.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

/// Longest inline request, and longest line that announces a count or a length.
pub const MAX_LINE: usize = 64 * 1024;
/// Most arguments of a request before authentication.
const UNAUTHENTICATED_ARGS: i64 = 10;
/// Longest argument before authentication.
const UNAUTHENTICATED_BULK: i64 = 16 * 1024;
/// Room for arguments that is kept from one request to the next.
const KEPT_ARGS: usize = 1024;

/// What a request may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest argument (`proto-max-bulk-len`).
    pub max_bulk: u64,
    /// Whether the client has been authenticated; strangers may send only small requests.
    pub authenticated: bool,
}

/// Why a request cannot be read. The client is told and disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// An inline request that does not end within 64 KB.
    InlineTooBig,
    /// An inline request with an open quote, or with text right behind a closed one.
    UnbalancedQuotes,
    /// A count of arguments that does not end within 64 KB.
    CountTooBig,
    /// A count of arguments that is not a number up to 2^31-1.
    InvalidCount,
    /// More arguments than a stranger may send.
    UnauthenticatedCount,
    /// A length of an argument that does not end within 64 KB.
    LengthTooBig,
    /// Not a `$` where an argument has to begin.
    ExpectedBulk(u8),
    /// A length that is not a number, is negative or above the limit.
    InvalidLength,
    /// A longer argument than a stranger may send.
    UnauthenticatedLength,
    /// Something else than CR LF at the end of a line or an argument.
    InvalidLineEnd,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            ProtocolError::InlineTooBig => f.write_str("too big inline request"),
            ProtocolError::UnbalancedQuotes => f.write_str("unbalanced quotes in request"),
            ProtocolError::CountTooBig => f.write_str("too big mbulk count string"),
            ProtocolError::InvalidCount => f.write_str("invalid multibulk length"),
            ProtocolError::UnauthenticatedCount => f.write_str("unauthenticated multibulk length"),
            ProtocolError::LengthTooBig => f.write_str("too big bulk count string"),
            ProtocolError::ExpectedBulk(got) => {
                let shown = if matches!(got, b'\r' | b'\n') { b' ' } else { *got };
                write!(f, "expected '$', got '{}'", char::from(shown))
            }
            ProtocolError::InvalidLength => f.write_str("invalid bulk length"),
            ProtocolError::UnauthenticatedLength => f.write_str("unauthenticated bulk length"),
            ProtocolError::InvalidLineEnd => f.write_str("invalid CRLF in request"),
        }
    }
}

/// The arguments of one request, borrowed from the bytes in which they arrived. The first is the
/// command's name.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Range<usize>],
    /// What `bytes` is a part of, if that may be kept.
    whole: Option<&'a Bytes>,
}

impl<'a> Args<'a> {
    /// Arguments at the given ranges of `bytes`.
    pub fn new(bytes: &'a [u8], spans: &'a [Range<usize>]) -> Args<'a> {
        Args { bytes, spans, whole: None }
    }

    /// The same arguments, in a buffer that [`owned`](Args::owned) may keep.
    pub fn within(self, whole: Option<&'a Bytes>) -> Args<'a> {
        Args { whole, ..self }
    }

    /// Argument `index`, to be kept: a large one is not copied if its buffer may be kept.
    pub fn owned(&self, index: usize) -> Bytes {
        self.keep(self.at(index))
    }

    /// All bytes that the arguments lie in, to be kept likewise, and where they lie in them.
    pub fn request(&self) -> (Bytes, &'a [Range<usize>]) {
        let end = self.spans.last().map_or(0, |last| last.end);
        (self.keep(self.bytes.get(..end).unwrap_or_default()), self.spans)
    }

    fn keep(&self, bytes: &[u8]) -> Bytes {
        let kept =
            self.whole.filter(|whole| bytes.len() >= whole.len() / 8 * 7).and_then(|whole| {
                // An inline request's words lie elsewhere.
                let start = (bytes.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
                let end = start.checked_add(bytes.len()).filter(|end| *end <= whole.len())?;
                Some(whole.slice(start..end))
            });
        kept.unwrap_or_else(|| Bytes::copy_from_slice(bytes))
    }

    /// Number of arguments, the name included.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is not even a name.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Argument `index`, empty if there is none.
    pub fn at(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    /// Argument `index`.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).and_then(|span| self.bytes.get(span.clone()))
    }

    /// The arguments from `first` on.
    pub fn from(
        &self,
        first: usize,
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + Clone + use<'a> {
        let bytes = self.bytes;
        let spans = self.spans.get(first..).unwrap_or_default();
        spans.iter().map(move |span| bytes.get(span.clone()).unwrap_or_default())
    }

    /// The arguments without the first `count` ones.
    pub fn skip(&self, count: usize) -> Args<'a> {
        Args { spans: self.spans.get(count..).unwrap_or_default(), ..*self }
    }

    /// Bytes of all arguments together.
    pub fn size(&self) -> usize {
        self.spans.iter().map(ExactSizeIterator::len).sum()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// At the first byte of a request.
    Start,
    /// In an inline request.
    Inline,
    /// Before the count of arguments.
    Count,
    /// Before the length of an argument.
    Length,
    /// Before an argument of that length.
    Bulk(usize),
    /// Behind a complete request.
    Done,
}

/// The state of one connection's input. Positions count from the first byte of the request, so they
/// stay right when the unread bytes move in memory.
#[derive(Debug)]
pub struct Scanner {
    mode: Mode,
    /// Everything before is understood.
    at: usize,
    /// Everything before has been searched for the end of the line that begins at `at`.
    searched: usize,
    missing: usize,
    args: Vec<Range<usize>>,
    unquoted: Vec<u8>,
    inline: bool,
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner {
            mode: Mode::Start,
            at: 0,
            searched: 0,
            missing: 0,
            args: Vec::new(),
            unquoted: Vec::new(),
            inline: false,
        }
    }
}

impl Scanner {
    /// A scanner at the beginning of a request.
    pub fn new() -> Scanner {
        Scanner::default()
    }

    /// Whether no byte of an unfinished request has been seen.
    pub fn is_idle(&self) -> bool {
        matches!(self.mode, Mode::Start | Mode::Done)
    }

    /// Bytes of the request that has begun, as far as they are known.
    pub fn needed(&self) -> usize {
        match self.mode {
            Mode::Bulk(length) => self.at + length + 2,
            _ => 0,
        }
    }

    /// Goes back to the beginning of a request: the next call gets its first byte again.
    pub fn rewind(&mut self) {
        self.restart();
    }

    /// Looks for the end of the request that begins at `input[0]`. `Some(length)`: it is complete,
    /// [`args`](Scanner::args) has it (perhaps with no argument at all: to be skipped), and the next call
    /// expects the bytes behind it. `None`: call again with more bytes appended.
    pub fn scan(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        loop {
            match self.mode {
                Mode::Done => self.restart(),
                Mode::Start => {
                    let Some(first) = input.first() else { return Ok(None) };
                    self.inline = *first != b'*';
                    self.mode = if self.inline { Mode::Inline } else { Mode::Count };
                }
                Mode::Inline => return self.scan_inline(input),
                Mode::Count => {
                    let Some(line) = self.line(input, ProtocolError::CountTooBig)? else {
                        return Ok(None);
                    };
                    let count = integer(input.get(line.start + 1..line.end).unwrap_or_default())
                        .filter(|count| *count <= i64::from(i32::MAX))
                        .ok_or(ProtocolError::InvalidCount)?;
                    if count > UNAUTHENTICATED_ARGS && !limits.authenticated {
                        return Err(ProtocolError::UnauthenticatedCount);
                    }
                    self.missing = usize::try_from(count).unwrap_or(0);
                    if self.missing == 0 {
                        return Ok(Some(self.finish()));
                    }
                    self.mode = Mode::Length;
                }
                Mode::Length => {
                    let Some(line) = self.line(input, ProtocolError::LengthTooBig)? else {
                        return Ok(None);
                    };
                    let marker = input.get(line.start).copied().unwrap_or_default();
                    if marker != b'$' {
                        return Err(ProtocolError::ExpectedBulk(marker));
                    }
                    let length = integer(input.get(line.start + 1..line.end).unwrap_or_default())
                        .filter(|n| u64::try_from(*n).is_ok_and(|n| n <= limits.max_bulk))
                        .ok_or(ProtocolError::InvalidLength)?;
                    if length > UNAUTHENTICATED_BULK && !limits.authenticated {
                        return Err(ProtocolError::UnauthenticatedLength);
                    }
                    self.mode = Mode::Bulk(
                        usize::try_from(length).map_err(|_| ProtocolError::InvalidLength)?,
                    );
                }
                Mode::Bulk(length) => {
                    let end = self.at + length;
                    match (input.get(end), input.get(end + 1)) {
                        (Some(b'\r'), Some(b'\n')) => {}
                        (Some(b'\r') | None, None) => return Ok(None),
                        _ => return Err(ProtocolError::InvalidLineEnd),
                    }
                    self.args.push(self.at..end);
                    self.at = end + 2;
                    self.searched = self.at;
                    self.missing -= 1;
                    if self.missing == 0 {
                        return Ok(Some(self.finish()));
                    }
                    self.mode = Mode::Length;
                }
            }
        }
    }

    /// The arguments of the request that [`scan`](Scanner::scan) has just found at `input[0]`.
    pub fn args<'a>(&'a self, input: &'a [u8]) -> Args<'a> {
        Args::new(if self.inline { &self.unquoted } else { input }, &self.args)
    }

    fn restart(&mut self) {
        self.mode = Mode::Start;
        self.at = 0;
        self.searched = 0;
        self.args.clear();
        if self.args.capacity() > KEPT_ARGS {
            self.args.shrink_to(KEPT_ARGS);
        }
        if self.inline {
            self.unquoted = Vec::new();
        }
    }

    fn finish(&mut self) -> usize {
        self.mode = Mode::Done;
        self.at
    }

    /// The line that begins at `at`, without its CR LF; the position moves behind it.
    fn line(
        &mut self,
        input: &[u8],
        too_big: ProtocolError,
    ) -> Result<Option<Range<usize>>, ProtocolError> {
        let unseen = input.get(self.searched..).unwrap_or_default();
        let Some(end) = unseen.iter().position(|b| *b == b'\r').map(|i| self.searched + i) else {
            self.searched = input.len();
            return if input.len() - self.at > MAX_LINE { Err(too_big) } else { Ok(None) };
        };
        if end - self.at > MAX_LINE {
            return Err(too_big);
        }
        match input.get(end + 1) {
            None => {
                self.searched = end;
                Ok(None)
            }
            Some(b'\n') => {
                let line = self.at..end;
                self.at = end + 2;
                self.searched = self.at;
                Ok(Some(line))
            }
            Some(_) => Err(ProtocolError::InvalidLineEnd),
        }
    }

    fn scan_inline(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let unseen = input.get(self.searched..).unwrap_or_default();
        let Some(end) = unseen.iter().position(|b| *b == b'\n').map(|i| self.searched + i) else {
            self.searched = input.len();
            return if input.len() > MAX_LINE {
                Err(ProtocolError::InlineTooBig)
            } else {
                Ok(None)
            };
        };
        if end > MAX_LINE {
            return Err(ProtocolError::InlineTooBig);
        }
        let line = input.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        split_line(line, &mut self.unquoted, &mut self.args)
            .ok_or(ProtocolError::UnbalancedQuotes)?;
        self.at = end + 1;
        Ok(Some(self.finish()))
    }
}

/// Splits a line into words as Redis does: `"..."` with backslash escapes, `'...'` with `\'`. `None` if
/// quotes are not balanced. Cost: the line's length.
pub(crate) fn split_line(
    line: &[u8],
    bytes: &mut Vec<u8>,
    spans: &mut Vec<Range<usize>>,
) -> Option<()> {
    let is_space = |b: u8| matches!(b, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r');
    let closes = |next: Option<&u8>| next.is_none_or(|b| is_space(*b));
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|b| is_space(*b)) {
            at += 1;
        }
        if at >= line.len() {
            return Some(());
        }
        let start = bytes.len();
        loop {
            match line.get(at) {
                None | Some(b' ' | b'\n' | b'\r' | b'\t') => break,
                Some(b'"') => {
                    at = double_quoted(line, at + 1, bytes)?;
                    if !closes(line.get(at)) {
                        return None;
                    }
                    break;
                }
                Some(b'\'') => {
                    at = single_quoted(line, at + 1, bytes)?;
                    if !closes(line.get(at)) {
                        return None;
                    }
                    break;
                }
                Some(b) => bytes.push(*b),
            }
            at += 1;
        }
        spans.push(start..bytes.len());
    }
}

/// Resolves the text behind an opening `"`; the position behind the closing one.
fn double_quoted(line: &[u8], mut at: usize, bytes: &mut Vec<u8>) -> Option<usize> {
    loop {
        match (*line.get(at)?, line.get(at + 1)) {
            (b'"', _) => return Some(at + 1),
            (b'\\', Some(b'x')) => {
                let digit = |i: usize| line.get(i).and_then(|b| char::from(*b).to_digit(16));
                match (digit(at + 2), digit(at + 3)) {
                    (Some(high), Some(low)) => {
                        bytes.push((high * 16 + low) as u8);
                        at += 4;
                    }
                    _ => {
                        bytes.push(b'x');
                        at += 2;
                    }
                }
            }
            (b'\\', Some(escaped)) => {
                bytes.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                at += 2;
            }
            (b, _) => {
                bytes.push(b);
                at += 1;
            }
        }
    }
}

/// Resolves the text behind an opening `'`; the position behind the closing one.
fn single_quoted(line: &[u8], mut at: usize, bytes: &mut Vec<u8>) -> Option<usize> {
    loop {
        match (*line.get(at)?, line.get(at + 1)) {
            (b'\\', Some(b'\'')) => {
                bytes.push(b'\'');
                at += 2;
            }
            (b'\'', _) => return Some(at + 1),
            (b, _) => {
                bytes.push(b);
                at += 1;
            }
        }
    }
}

/// A canonical decimal of 64 bits, as Redis's `string2ll` reads it: no `+`, no leading zero, no space.
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] => return if negative { None } else { Some(0) },
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis_protocol::resp2::decode::decode;
    use redis_protocol::resp2::types::OwnedFrame;

    use super::*;

    #[test]
    fn large_arguments_are_kept_where_they_are() {
        let whole = Bytes::from([b"key".to_vec(), vec![b'v'; 1000]].concat());
        let spans = [0..3, 3..1003];
        let args = Args::new(&whole, &spans).within(Some(&whole));
        assert_eq!(args.owned(1).as_ptr(), whole.get(3..).unwrap().as_ptr());
        assert_ne!(args.owned(0).as_ptr(), whole.as_ptr(), "it would keep the rest");
        // Words that lie elsewhere are copied.
        let elsewhere = vec![b'v'; 1003];
        let args = Args::new(&elsewhere, &spans).within(Some(&whole));
        assert_eq!(args.owned(1), vec![b'v'; 1000]);
    }

    const LIMITS: Limits = Limits { max_bulk: 512 << 20, authenticated: true };

    /// Feeds `input` in the given pieces; all commands, and the error that ended them.
    fn feed(
        input: &[u8],
        cuts: &[usize],
        limits: &Limits,
    ) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
        let mut scanner = Scanner::new();
        let mut commands = Vec::new();
        let mut start = 0;
        let ends = cuts.iter().copied().filter(|c| *c < input.len()).chain([input.len()]);
        for end in ends {
            loop {
                if start > end {
                    break;
                }
                match scanner.scan(&input[start..end], limits) {
                    Ok(Some(length)) => {
                        let args = scanner.args(&input[start..end]);
                        if !args.is_empty() {
                            commands.push(args.from(0).map(<[u8]>::to_vec).collect());
                        }
                        start += length;
                    }
                    Ok(None) => break,
                    Err(error) => return (commands, Some(error)),
                }
            }
        }
        (commands, None)
    }

    fn encode(commands: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut out = Vec::new();
        for command in commands {
            out.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
            for arg in command {
                out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                out.extend_from_slice(arg);
                out.extend_from_slice(b"\r\n");
            }
        }
        out
    }

    fn oracle(mut input: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let mut commands = Vec::new();
        while let Ok(Some((frame, used))) = decode(input) {
            let OwnedFrame::Array(items) = frame else { break };
            let bulk = |frame: OwnedFrame| match frame {
                OwnedFrame::BulkString(bytes) => bytes,
                other => panic!("{other:?}"),
            };
            commands.push(items.into_iter().map(bulk).collect());
            input = &input[used..];
        }
        commands
    }

    fn command() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let arg = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            Just(b"\r\n$3\r\n".to_vec()),
            Just(vec![b'x'; 300]),
        ];
        proptest::collection::vec(arg, 1..6)
    }

    proptest! {
        #[test]
        fn agrees_with_the_oracle_in_any_pieces(
            commands in proptest::collection::vec(command(), 0..6),
            mut cuts in proptest::collection::vec(0usize..2000, 0..8),
        ) {
            let input = encode(&commands);
            cuts.sort_unstable();
            prop_assert_eq!(&oracle(&input), &commands);
            prop_assert_eq!(feed(&input, &cuts, &LIMITS), (commands, None));
        }

        #[test]
        fn any_bytes_scan_the_same_in_any_pieces(
            input in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'*'), Just(b'$'), Just(b'1'), Just(b'2'),
                    Just(b'"'), Just(b'\\'), Just(b'\''), Just(b' '), any::<u8>()], 0..60),
        ) {
            let whole = feed(&input, &[], &LIMITS);
            let bytewise: Vec<usize> = (0..input.len()).collect();
            prop_assert_eq!(feed(&input, &bytewise, &LIMITS), whole.clone());
            for cut in 0..input.len() {
                prop_assert_eq!(feed(&input, &[cut], &LIMITS), whole.clone());
            }
        }

        #[test]
        fn integers_are_canonical(value in any::<i64>()) {
            prop_assert_eq!(integer(value.to_string().as_bytes()), Some(value));
        }
    }

    #[test]
    fn splits_at_every_position() {
        let commands = vec![
            vec![b"SET".to_vec(), b"k".to_vec(), b"a\r\nb".to_vec()],
            vec![b"GET".to_vec(), Vec::new()],
        ];
        let input = encode(&commands);
        for first in 0..input.len() {
            for second in first..input.len() {
                assert_eq!(feed(&input, &[first, second], &LIMITS), (commands.clone(), None));
            }
        }
    }

    fn words(line: &str) -> Option<Vec<Vec<u8>>> {
        match feed(format!("{line}\r\n").as_bytes(), &[], &LIMITS) {
            (mut commands, None) => Some(commands.pop().unwrap_or_default()),
            (_, Some(error)) => {
                assert_eq!(error, ProtocolError::UnbalancedQuotes);
                None
            }
        }
    }

    #[test]
    fn inline_requests_are_quoted_as_in_redis() {
        let some = |list: &[&[u8]]| Some(list.iter().map(|w| w.to_vec()).collect::<Vec<_>>());
        assert_eq!(words("  PING  "), some(&[b"PING"]));
        assert_eq!(words(""), some(&[]));
        assert_eq!(words(r#"set "a b" 'c d'"#), some(&[b"set", b"a b", b"c d"]));
        assert_eq!(words(r#""\x41\n\r\t\b\a\q\xzz""#), some(&[b"A\n\r\t\x08\x07qxzz"]));
        assert_eq!(words(r"'it\'s' '\n'"), some(&[b"it's", b"\\n"]));
        assert_eq!(words(r#"""  ''"#), some(&[b"", b""]));
        assert_eq!(words(r#"foo"bar" x"#), some(&[b"foobar", b"x"]));
        assert_eq!(words(r#"x\n"#), some(&[b"x\\n"]));
        for bad in [r#""open"#, "'open", r#""a"b"#, "'a'b", r#""a\"#, r#""a"'b'"#] {
            assert_eq!(words(bad), None, "{bad}");
        }
        assert_eq!(feed(b"\n\r\nPING\n", &[], &LIMITS).0, vec![vec![b"PING".to_vec()]]);
    }

    fn error(input: &[u8]) -> String {
        feed(input, &[], &LIMITS).1.map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn errors_have_the_texts_of_redis() {
        assert_eq!(error(b"*x\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(error(b"*2147483648\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(error(b"*2147483647\r\n"), "");
        assert_eq!(error(b"*1\r\n:1\r\n"), "Protocol error: expected '$', got ':'");
        assert_eq!(error(b"*1\r\n\r\n"), "Protocol error: expected '$', got ' '");
        assert_eq!(error(b"*1\r\n$-1\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(error(b"*1\r\n$536870913\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(error(b"*1\r\n$536870912\r\n"), "");
        assert_eq!(error(b"*1\r\n$1\r\nabc"), "Protocol error: invalid CRLF in request");
        assert_eq!(error(&[b'a'; MAX_LINE + 1]), "Protocol error: too big inline request");
        assert_eq!(
            error(&[b"*", &[b'1'; MAX_LINE][..]].concat()),
            "Protocol error: too big mbulk count string"
        );
        assert_eq!(
            error(&[b"*1\r\n$", &[b'1'; MAX_LINE][..]].concat()),
            "Protocol error: too big bulk count string"
        );
        assert_eq!(feed(b"*0\r\n*-1\r\n*1\r\n$1\r\na\r\n", &[], &LIMITS).0.len(), 1);
    }

    #[test]
    fn strangers_send_small_requests() {
        let limits = Limits { authenticated: false, ..LIMITS };
        let text = |input: &[u8]| feed(input, &[], &limits).1.map(|e| e.to_string());
        assert_eq!(
            text(b"*11\r\n").as_deref(),
            Some("Protocol error: unauthenticated multibulk length")
        );
        assert_eq!(
            text(b"*1\r\n$16385\r\n").as_deref(),
            Some("Protocol error: unauthenticated bulk length")
        );
        assert_eq!(text(b"*10\r\n$16384\r\n"), None);
    }
}
