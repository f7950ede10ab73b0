//! The one place where bytes get their shape: varints, bounded readers, format numbers.
//!
//! Every stored value and every wire frame begins with a format number, so that a later version can
//! tell what it reads. Readers never allocate by a claimed count: a count is checked against the bytes
//! that are really there before anything is reserved.

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

/// Appends encoded values to a byte vector.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
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
        Writer { bytes }
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

    /// The bytes, as a vector.
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes, shareable.
    pub fn finish(self) -> Bytes {
        Bytes::from(self.bytes)
    }
}

/// Reads encoded values from the front of a slice.
#[derive(Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// What all is read from, if parts of it may be kept.
    whole: Option<&'a Bytes>,
}

/// From this length on, bytes that are most of what they are read from are kept there and not copied.
const SHARED: usize = 64 << 10;

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, whole: None }
    }

    /// Reads from the start of `bytes`, of which [`kept`](Reader::kept) may keep parts.
    pub fn over(bytes: &'a Bytes) -> Reader<'a> {
        Reader { rest: bytes, whole: Some(bytes) }
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

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
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
    pub fn varint(&mut self) -> Result<u64, CodecError> {
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
        let bytes = self.bytes()?;
        let shares = |whole: &&Bytes| bytes.len() >= SHARED && bytes.len() >= whole.len() / 8 * 7;
        Ok(match self.whole.filter(shares) {
            Some(whole) => whole.slice_ref(bytes),
            None => Bytes::copy_from_slice(bytes),
        })
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
