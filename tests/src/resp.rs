//! A blocking client of the Redis protocol, for tests: small, and exact to the byte.
//!
//! [`Client::call_raw`] gives a reply as it came over the wire, for comparison byte for byte;
//! [`Value`] is the same reply understood. Both protocol versions are read.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A reply.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// `+`
    Simple(String),
    /// `-` and `!`, with its code.
    Error(String),
    /// `:`
    Int(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// `_`, and the null bulk and null array of the old protocol.
    Null,
    /// `#`
    Bool(bool),
    /// `,` as it was printed.
    Double(String),
    /// `(` as it was printed.
    BigNumber(String),
    /// `=` with its format.
    Verbatim(String, Vec<u8>),
    /// `*`
    Array(Vec<Value>),
    /// `~`
    Set(Vec<Value>),
    /// `%`
    Map(Vec<(Value, Value)>),
    /// `>`
    Push(Vec<Value>),
}

impl Value {
    /// The bytes of a string of any kind.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Simple(text) | Value::Double(text) | Value::BigNumber(text) => {
                Some(text.as_bytes())
            }
            Value::Bulk(bytes) | Value::Verbatim(_, bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The text of a string of any kind; what is not UTF-8 is replaced.
    pub fn text(&self) -> Option<String> {
        self.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The integer.
    pub fn int(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The elements of an array, a set or a push.
    pub fn items(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => Some(items),
            _ => None,
        }
    }

    /// The elements as sorted texts: how a test reads an unordered collection.
    pub fn sorted_texts(&self) -> Vec<String> {
        let mut texts: Vec<String> =
            self.items().unwrap_or_default().iter().filter_map(Value::text).collect();
        texts.sort();
        texts
    }

    /// The text of an error.
    pub fn error(&self) -> Option<&str> {
        match self {
            Value::Error(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is `+OK`.
    pub fn is_ok(&self) -> bool {
        matches!(self, Value::Simple(text) if text == "OK")
    }
}

/// As redis-cli prints it, on one line.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Simple(text) => write!(f, "{text}"),
            Value::Error(text) => write!(f, "(error) {text}"),
            Value::Int(number) => write!(f, "(integer) {number}"),
            Value::Bulk(bytes) | Value::Verbatim(_, bytes) => {
                write!(f, "\"{}\"", bytes.escape_ascii())
            }
            Value::Null => write!(f, "(nil)"),
            Value::Bool(yes) => write!(f, "({yes})"),
            Value::Double(text) => write!(f, "(double) {text}"),
            Value::BigNumber(text) => write!(f, "(number) {text}"),
            Value::Array(items) => f.debug_list().entries(items).finish(),
            Value::Set(items) => f.debug_set().entries(items).finish(),
            Value::Map(pairs) => f.debug_map().entries(pairs.iter().map(|(k, v)| (k, v))).finish(),
            Value::Push(items) => {
                write!(f, "push ")?;
                f.debug_list().entries(items).finish()
            }
        }
    }
}

/// Reads one value off the front: the value and its length, or nothing while bytes are missing.
pub fn parse(bytes: &[u8]) -> io::Result<Option<(Value, usize)>> {
    let mut at = 0;
    Ok(parse_at(bytes, &mut at)?.map(|value| (value, at)))
}

fn parse_at(bytes: &[u8], at: &mut usize) -> io::Result<Option<Value>> {
    let Some(length) = bytes[*at..].windows(2).position(|two| two == b"\r\n") else {
        return Ok(None);
    };
    let line = &bytes[*at..*at + length];
    *at += length + 2;
    let (kind, rest) = line.split_first().ok_or_else(|| malformed(line))?;
    let text = String::from_utf8_lossy(rest).into_owned();
    let number = || text.parse::<i64>().map_err(|_| malformed(line));
    Ok(Some(match kind {
        b'+' => Value::Simple(text),
        b'-' => Value::Error(text),
        b':' => Value::Int(number()?),
        b',' => Value::Double(text),
        b'(' => Value::BigNumber(text),
        b'_' => Value::Null,
        b'#' => Value::Bool(text == "t"),
        b'$' | b'=' | b'!' => {
            let Ok(size) = usize::try_from(number()?) else { return Ok(Some(Value::Null)) };
            let Some(body) = bytes.get(*at..*at + size + 2) else { return Ok(None) };
            *at += size + 2;
            let (body, end) = body.split_at(size);
            if end != b"\r\n" {
                return Err(malformed(body));
            }
            match kind {
                b'$' => Value::Bulk(body.to_vec()),
                b'!' => Value::Error(String::from_utf8_lossy(body).into_owned()),
                _ => {
                    let format = String::from_utf8_lossy(body.get(..3).unwrap_or_default());
                    Value::Verbatim(format.into_owned(), body.get(4..).unwrap_or_default().to_vec())
                }
            }
        }
        b'*' | b'~' | b'>' | b'%' => {
            let Ok(count) = usize::try_from(number()?) else { return Ok(Some(Value::Null)) };
            let count = if *kind == b'%' { count * 2 } else { count };
            let mut items = Vec::new();
            for _ in 0..count {
                let Some(item) = parse_at(bytes, at)? else { return Ok(None) };
                items.push(item);
            }
            match kind {
                b'*' => Value::Array(items),
                b'~' => Value::Set(items),
                b'>' => Value::Push(items),
                _ => {
                    let mut items = items.into_iter();
                    let mut pairs = Vec::new();
                    while let (Some(key), Some(value)) = (items.next(), items.next()) {
                        pairs.push((key, value));
                    }
                    Value::Map(pairs)
                }
            }
        }
        _ => return Err(malformed(line)),
    }))
}

fn malformed(bytes: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a reply: \"{}\"", bytes.escape_ascii()))
}

/// A command as it travels.
pub fn encode<A: AsRef<[u8]>>(args: &[A], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// A connection.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    /// Connects. Reads that wait longer than ten seconds fail.
    pub fn connect(port: u16) -> io::Result<Client> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Client { stream, received: Vec::new() })
    }

    /// Changes how long a read may wait.
    pub fn set_read_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(timeout))
    }

    /// The socket, for tests that send what no client would, or read from another thread.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a command and does not wait.
    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<()> {
        let mut out = Vec::new();
        encode(args, &mut out);
        self.stream.write_all(&out)
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next reply and its bytes.
    pub fn read_raw(&mut self) -> io::Result<(Value, Vec<u8>)> {
        loop {
            if let Some((value, length)) = parse(&self.received)? {
                let rest = self.received.split_off(length);
                return Ok((value, std::mem::replace(&mut self.received, rest)));
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.received.extend_from_slice(&chunk[..n]),
            }
        }
    }

    /// The next reply.
    pub fn read(&mut self) -> io::Result<Value> {
        Ok(self.read_raw()?.0)
    }

    /// Sends a command and waits for its reply.
    pub fn try_call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Value> {
        self.send(args)?;
        self.read()
    }

    /// Sends a command and waits for its reply and the bytes of it.
    pub fn call_raw<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<(Value, Vec<u8>)> {
        self.send(args)?;
        self.read_raw()
    }

    /// Like [`try_call`](Client::try_call); a broken connection panics.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        match self.try_call(args) {
            Ok(value) => value,
            Err(error) => {
                let words: Vec<String> =
                    args.iter().map(|arg| arg.as_ref().escape_ascii().to_string()).collect();
                panic!("no reply to {}: {error}", words.join(" "));
            }
        }
    }

    /// A command given as words, as one types it into redis-cli.
    pub fn words(&mut self, line: &str) -> Value {
        self.call(&line.split_whitespace().collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind is read whole, and no prefix of it is taken for a reply.
    #[test]
    fn reads_every_kind() {
        let cases: [(&[u8], Value); 15] = [
            (b"+OK\r\n", Value::Simple("OK".into())),
            (b"-ERR no\r\n", Value::Error("ERR no".into())),
            (b"!6\r\nERR no\r\n", Value::Error("ERR no".into())),
            (b":-7\r\n", Value::Int(-7)),
            (b"$2\r\n\r\n\r\n", Value::Bulk(b"\r\n".to_vec())),
            (b"$-1\r\n", Value::Null),
            (b"*-1\r\n", Value::Null),
            (b"_\r\n", Value::Null),
            (b"#t\r\n", Value::Bool(true)),
            (b",1.5\r\n", Value::Double("1.5".into())),
            (b"=6\r\ntxt:ab\r\n", Value::Verbatim("txt".into(), b"ab".to_vec())),
            (b"*2\r\n:1\r\n*0\r\n", Value::Array(vec![Value::Int(1), Value::Array(vec![])])),
            (b"~1\r\n$1\r\na\r\n", Value::Set(vec![Value::Bulk(b"a".to_vec())])),
            (b"%1\r\n+a\r\n:1\r\n", Value::Map(vec![(Value::Simple("a".into()), Value::Int(1))])),
            (b">1\r\n+a\r\n", Value::Push(vec![Value::Simple("a".into())])),
        ];
        for (bytes, value) in cases {
            assert_eq!(parse(bytes).unwrap(), Some((value, bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]).unwrap(), None, "{}", bytes[..cut].escape_ascii());
            }
        }
        assert!(parse(b"?\r\n").is_err());
        assert!(parse(b"$1\r\nabc").is_err());
    }
}
