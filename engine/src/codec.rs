//! The one place where bytes get their shape: varints, bounded readers, format numbers.
//!
//! Every stored value and every wire frame begins with a format number, so that a later version can
//! tell what it reads. Readers never allocate by a claimed count: a count is checked against the bytes
//! that are really there before anything is reserved.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::causal::{Dot, Hlc, NodeId, Origin, Stamp};

/// Why bytes could not be read. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The input ended inside a value.
    #[error("truncated")]
    Truncated,
    /// A value that this version cannot have written, and which.
    #[error("invalid {0}")]
    Invalid(&'static str),
    /// A format number that this version does not know.
    #[error("unknown format {0}")]
    Format(u8),
}

/// Of a stamp: a lead follows. No sane timestamp has the bit.
const LEAD: u64 = 1 << 63;

/// From this length on, bytes are worth keeping where they are instead of copying them.
const SHARED: usize = 64 << 10;

/// Large bytes that belong in between, each before the byte at its position.
pub(crate) type Between = Vec<(usize, Bytes)>;

/// Appends encoded values to a byte vector.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Large payloads that were not copied, if that is wanted.
    between: Option<Between>,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// An empty writer that begins with a format number.
    pub fn with_format(format: u8) -> Writer {
        let mut writer = Writer::new();
        writer.u8(format);
        writer
    }

    /// A writer that appends to `bytes`, so that a buffer can be used again.
    pub fn over(bytes: Vec<u8>) -> Writer {
        Writer { bytes, between: None }
    }

    /// The writer, which from now on copies no large [`payload`](Writer::payload): what it has written is to
    /// be taken by [`parts`](Writer::parts).
    pub(crate) fn sharing(self, between: Between) -> Writer {
        Writer { between: Some(between), ..self }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// LEB128: seven bits a byte, least significant first.
    pub fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A signed 128-bit integer, zigzag and LEB128.
    pub fn varint_i128(&mut self, value: i128) {
        let mut rest = ((value << 1) ^ (value >> 127)) as u128;
        while rest >= 0x80 {
            self.bytes.push((rest as u8) | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A length and the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    /// A length and the bytes, which are shared and not copied if they are many and the writer may.
    pub fn payload(&mut self, bytes: &Bytes) {
        match &mut self.between {
            Some(_) if bytes.len() >= SHARED => self.varint(bytes.len() as u64),
            _ => return self.bytes(bytes),
        }
        if let Some(between) = &mut self.between {
            between.push((self.bytes.len(), bytes.clone()));
        }
    }

    /// The bytes with which all that is written ends; a writer that shares does not copy them if they are
    /// more than so many.
    pub(crate) fn last(&mut self, bytes: &Bytes, most: usize) {
        match &mut self.between {
            Some(between) if bytes.len() > most => between.push((self.bytes.len(), bytes.clone())),
            _ => self.raw(bytes),
        }
    }

    /// An origin, 20 bytes.
    pub fn origin(&mut self, origin: &Origin) {
        self.raw(&origin.to_bytes());
    }

    /// A dot: its origin in full and its seq.
    pub fn dot(&mut self, dot: &Dot) {
        self.origin(&dot.origin);
        self.varint(dot.seq);
    }

    /// A stamp: its hybrid timestamp in eight bytes, whose highest bit says that a lead follows.
    pub fn stamp(&mut self, stamp: Stamp) {
        match stamp.lead() {
            0 => self.u64(stamp.hlc.0),
            lead => {
                self.u64(stamp.hlc.0 | LEAD);
                self.varint(lead);
            }
        }
    }

    /// Of a payload of that length, the bytes that a sharing writer copies.
    pub(crate) fn copied(len: usize) -> usize {
        if len < SHARED { len } else { 0 }
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What was written so far, with what is shared.
    pub fn parts(&self) -> Parts<'_> {
        Parts { own: &self.bytes, from: 0, between: self.between.as_deref().unwrap_or_default() }
    }

    /// Bytes of its own, and what belongs in between.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Between) {
        (self.bytes, self.between.unwrap_or_default())
    }

    /// The bytes, as a vector.
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes, shareable.
    pub fn finish(self) -> Bytes {
        Bytes::from(self.bytes)
    }
}

/// Bytes in parts: most in one slice, large ones where they were.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    own: &'a [u8],
    /// The position that `own` begins at.
    from: usize,
    between: &'a [(usize, Bytes)],
}

impl<'a> From<&'a [u8]> for Parts<'a> {
    fn from(own: &'a [u8]) -> Parts<'a> {
        Parts { own, from: 0, between: &[] }
    }
}

impl<'a> Parts<'a> {
    pub(crate) fn new(own: &'a [u8], from: usize, between: &'a [(usize, Bytes)]) -> Parts<'a> {
        Parts { own, from, between }
    }

    /// Bytes of all parts.
    pub fn len(&self) -> usize {
        self.own.len() + self.between.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The parts in order; some may be empty.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let Parts { own, from, between } = *self;
        let mut start = 0;
        let parts = between.iter().flat_map(move |(at, bytes)| {
            let end = at - from;
            let before = own.get(std::mem::replace(&mut start, end)..end).unwrap_or_default();
            [before, &bytes[..]]
        });
        let rest = between.last().map_or(0, |(at, _)| at - from);
        parts.chain([own.get(rest..).unwrap_or_default()])
    }

    /// The only part, if there are no others.
    pub fn only(&self) -> Option<&'a [u8]> {
        self.between.is_empty().then_some(self.own)
    }

    /// All in one slice. Cost: a copy, if there is more than one part.
    pub fn whole(&self) -> Cow<'a, [u8]> {
        match self.between {
            [] => Cow::Borrowed(self.own),
            _ => Cow::Owned(self.iter().collect::<Vec<_>>().concat()),
        }
    }

    /// The parts as they are kept: what is shared stays so.
    pub fn kept(&self) -> Vec<Bytes> {
        let shared = |part: &[u8]| {
            let same = |(_, bytes): &&(usize, Bytes)| std::ptr::eq(&bytes[..], part);
            self.between.iter().find(same).map(|(_, bytes)| bytes.clone())
        };
        self.iter().map(|it| shared(it).unwrap_or_else(|| Bytes::copy_from_slice(it))).collect()
    }
}

/// Reads encoded values from the front of a slice.
#[derive(Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// What all is read from, if parts of it may be kept.
    whole: Option<&'a Bytes>,
    /// What comes behind all that.
    last: Option<&'a Bytes>,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, whole: None, last: None }
    }

    /// Reads from the start of `bytes`, of which [`kept`](Reader::kept) may keep parts.
    pub fn over(bytes: &'a Bytes) -> Reader<'a> {
        Reader { rest: bytes, whole: Some(bytes), last: None }
    }

    /// Reads from the start of `bytes`, which end with `last`.
    pub(crate) fn ending(bytes: &'a [u8], last: &'a Bytes) -> Reader<'a> {
        Reader { rest: bytes, whole: None, last: Some(last) }
    }

    /// Reads from the start of `bytes`, which must begin with the format number `known`.
    pub fn with_format(bytes: &'a [u8], known: u8) -> Result<Reader<'a>, CodecError> {
        Reader::new(bytes).format(known)
    }

    /// The reader behind the format number, which must be `known`.
    pub fn format(mut self, known: u8) -> Result<Reader<'a>, CodecError> {
        match self.u8()? {
            format if format == known => Ok(self),
            format => Err(CodecError::Format(format)),
        }
    }

    /// Reads a format number, which must be one of `known`.
    pub fn one_of(&mut self, known: RangeInclusive<u8>) -> Result<u8, CodecError> {
        let format = self.u8()?;
        if known.contains(&format) { Ok(format) } else { Err(CodecError::Format(format)) }
    }

    /// The next `len` bytes.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Result<u16, CodecError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// LEB128, at most ten bytes.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, CodecError> {
        match self.rest {
            [byte @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(CodecError::Invalid("varint"))
    }

    /// A signed 128-bit integer, zigzag and LEB128.
    pub fn varint_i128(&mut self) -> Result<i128, CodecError> {
        let mut value = 0u128;
        for shift in (0..128).step_by(7) {
            let byte = self.u8()?;
            let bits = u128::from(byte & 0x7f);
            if shift == 126 && bits > 3 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok((value >> 1) as i128 ^ -((value & 1) as i128));
            }
        }
        Err(CodecError::Invalid("integer"))
    }

    /// A count of items that take at least `least` bytes each: refused if they cannot all be there.
    pub fn count(&mut self, least: usize) -> Result<usize, CodecError> {
        let count = usize::try_from(self.varint()?).map_err(|_| CodecError::Truncated)?;
        match count.checked_mul(least.max(1)) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(CodecError::Truncated),
        }
    }

    /// A length and that many bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let len = self.count(1)?;
        self.raw(len)
    }

    /// The same, to be kept: shared with what is read if that is little more, copied otherwise.
    pub fn kept(&mut self) -> Result<Bytes, CodecError> {
        let rest = self.bytes()?;
        Ok(Reader { rest, last: None, ..*self }.kept_rest())
    }

    /// All that is left, to be kept as by [`kept`](Reader::kept).
    pub(crate) fn kept_rest(&mut self) -> Bytes {
        let bytes = std::mem::take(&mut self.rest);
        if let Some(last) = self.last.filter(|_| bytes.is_empty()) {
            return last.clone();
        }
        let shares = |whole: &&Bytes| bytes.len() >= SHARED && bytes.len() >= whole.len() / 8 * 7;
        match self.whole.filter(shares) {
            Some(whole) => whole.slice_ref(bytes),
            None => Bytes::copy_from_slice(bytes),
        }
    }

    /// An origin, 20 bytes.
    pub fn origin(&mut self) -> Result<Origin, CodecError> {
        Ok(Origin { node: NodeId(self.u64()?), incarnation: self.u32()?, nonce: self.u64()? })
    }

    /// A dot: its origin in full and its seq.
    pub fn dot(&mut self) -> Result<Dot, CodecError> {
        Ok(Dot { origin: self.origin()?, seq: self.varint()? })
    }

    /// A hybrid timestamp, eight bytes.
    pub fn hlc(&mut self) -> Result<Hlc, CodecError> {
        Some(Hlc(self.u64()?)).filter(|hlc| hlc.is_sane()).ok_or(CodecError::Invalid("stamp"))
    }

    /// A stamp.
    #[inline]
    pub fn stamp(&mut self) -> Result<Stamp, CodecError> {
        let bits = self.u64()?;
        let hlc = Hlc(bits & !LEAD);
        let lead = if bits & LEAD == 0 { 0 } else { self.varint()? };
        if !hlc.is_sane() || lead > hlc.millis().0 || (bits & LEAD != 0 && lead == 0) {
            return Err(CodecError::Invalid("stamp"));
        }
        Ok(Stamp::with_lead(hlc, lead))
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Succeeds if all was read.
    pub fn end(&self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CodecError::Invalid("trailing bytes")) }
    }
}
