//! Replies on their way to a client: written at the end, sent from the front.
//!
//! They lie in chunks, so that nothing is moved when much of it gathers, what is sent is given back, and a
//! large value that the engine holds is not copied: it is a chunk of its own, shared with the engine.
//! Positions count from the first byte that is kept, and stay what they are until something is sent.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::ops::{Deref, Range};

use bytes::Bytes;

/// Bytes of a chunk, but where one reply is larger.
const CHUNK: usize = 256 * 1024;
/// A chunk with fewer bytes moves to where there is room for what comes.
const SMALL: usize = 4 * 1024;
/// Room that is kept once everything is sent.
const KEPT: usize = 64 * 1024;
/// Chunks that one call of the system writes at most.
const SLICES: usize = 16;
/// From this length on a value is shared and not copied.
pub const SHARED: usize = 64 * 1024;

#[derive(Clone, Debug)]
enum Chunk {
    Own(Vec<u8>),
    Shared(Bytes),
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Chunk::Own(bytes) => bytes,
            Chunk::Shared(bytes) => bytes,
        }
    }
}

/// The replies of one connection that are not sent.
#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Chunk>,
    /// Bytes of all chunks.
    before: usize,
    /// Where it is written.
    tail: Vec<u8>,
    /// Bytes at the front that are sent.
    sent: usize,
}

impl Output {
    /// The position behind the last byte.
    pub fn len(&self) -> usize {
        self.before + self.tail.len()
    }

    /// Whether no byte is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that are not sent.
    pub fn unsent(&self) -> usize {
        self.len() - self.sent
    }

    /// Chunks that are full.
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes of memory held; what is shared with the engine is the engine's.
    pub fn memory(&self) -> usize {
        let own = |chunk: &Chunk| match chunk {
            Chunk::Own(bytes) => bytes.capacity(),
            Chunk::Shared(_) => 0,
        };
        self.tail.capacity() + self.chunks.iter().map(own).sum::<usize>()
    }

    /// Appends bytes.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).extend_from_slice(bytes);
    }

    /// Where so many bytes that belong together can be appended.
    #[inline]
    pub fn room(&mut self, more: usize) -> &mut Vec<u8> {
        if self.tail.capacity() - self.tail.len() < more {
            self.make_room(more);
        }
        &mut self.tail
    }

    #[cold]
    fn make_room(&mut self, more: usize) {
        if self.tail.len() + more <= CHUNK {
            self.tail.reserve(more);
            return;
        }
        let full = std::mem::take(&mut self.tail);
        if full.len() > SMALL {
            self.tail = Vec::with_capacity(more.max(CHUNK));
            self.push(Chunk::Own(full));
        } else {
            self.tail = Vec::with_capacity((full.len() + more).max(CHUNK));
            self.tail.extend_from_slice(&full);
        }
    }

    /// Appends bytes without copying them.
    pub fn share(&mut self, bytes: Bytes) {
        let full = std::mem::take(&mut self.tail);
        if !full.is_empty() {
            self.push(Chunk::Own(full));
        }
        self.push(Chunk::Shared(bytes));
    }

    fn push(&mut self, chunk: Chunk) {
        self.before += chunk.len();
        self.chunks.push_back(chunk);
    }

    /// Takes back everything behind a position.
    pub fn truncate(&mut self, len: usize) {
        drop(self.split_off(len));
    }

    /// Takes off everything behind a position; positions in it count from there.
    pub fn split_off(&mut self, at: usize) -> Output {
        let mut rest = Output::default();
        if at >= self.before {
            let tail = (at - self.before).min(self.tail.len());
            rest.extend_from_slice(self.tail.get(tail..).unwrap_or_default());
            self.tail.truncate(tail);
            return rest;
        }
        let tail = std::mem::take(&mut self.tail);
        self.before = 0;
        for chunk in std::mem::take(&mut self.chunks).into_iter().chain([Chunk::Own(tail)]) {
            let start = self.before;
            if start + chunk.len() <= at && rest.is_empty() {
                self.push(chunk);
            } else if start < at && rest.is_empty() {
                let (first, second) = chunk.split_at(at - start);
                let (first, second) = match &chunk {
                    Chunk::Own(_) => (Chunk::Own(first.to_vec()), Chunk::Own(second.to_vec())),
                    Chunk::Shared(bytes) => (
                        Chunk::Shared(bytes.slice_ref(first)),
                        Chunk::Shared(bytes.slice_ref(second)),
                    ),
                };
                self.push(first);
                rest.push(second);
            } else {
                rest.push(chunk);
            }
        }
        rest
    }

    /// Appends a copy of a part of other output.
    pub fn copy(&mut self, other: &Output, range: Range<usize>) {
        let mut start = 0;
        let tail: &[u8] = &other.tail;
        for chunk in other.chunks.iter().map(Deref::deref).chain([tail]) {
            let end = start + chunk.len();
            let (from, to) = (range.start.clamp(start, end), range.end.clamp(start, end));
            if from < to {
                self.extend_from_slice(chunk.get(from - start..to - start).unwrap_or_default());
            }
            start = end;
        }
    }

    /// Replaces some bytes that were appended in one piece. Cost: the rest of their chunk is moved.
    pub fn replace(&mut self, range: Range<usize>, with: &[u8]) {
        let mut start = 0;
        for chunk in &mut self.chunks {
            let end = start + chunk.len();
            if range.start < end {
                if let Chunk::Own(bytes) = chunk {
                    bytes.splice(range.start - start..range.end - start, with.iter().copied());
                    self.before = self.before + with.len() - range.len();
                }
                return;
            }
            start = end;
        }
        self.tail.splice(range.start - start..range.end - start, with.iter().copied());
    }

    /// Sends once, as much as the stream takes; the number of bytes.
    pub fn send(&mut self, stream: &mut impl Write) -> io::Result<usize> {
        let tail: &[u8] = &self.tail;
        let mut skip = self.sent;
        let mut slices = [IoSlice::new(&[]); SLICES];
        let chunks = self.chunks.iter().map(Deref::deref).chain([tail]);
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(chunks) {
            *slice = IoSlice::new(chunk.get(skip..).unwrap_or_default());
            skip = 0;
            filled += 1;
        }
        let len = match slices.get(..filled) {
            Some([only]) => stream.write(only)?,
            Some(several) => stream.write_vectored(several)?,
            None => 0,
        };
        self.sent += len;
        self.forget_sent();
        Ok(len)
    }

    /// Gives back the memory of what is sent.
    fn forget_sent(&mut self) {
        while let Some(first) = self.chunks.front().map(|chunk| chunk.len())
            && first <= self.sent
        {
            self.chunks.pop_front();
            self.sent -= first;
            self.before -= first;
        }
        if self.sent == self.len() {
            self.sent = 0;
            self.tail.clear();
            if self.tail.capacity() > KEPT {
                self.tail = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(output: &Output) -> Vec<u8> {
        let mut copy = Output::default();
        copy.copy(output, 0..output.len());
        let mut bytes = Vec::new();
        while !copy.is_empty() {
            copy.send(&mut bytes).unwrap();
        }
        bytes
    }

    /// Takes a few bytes at a time.
    struct Slow(Vec<u8>, usize);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        /// Whatever is done, the output is what a plain buffer would be.
        #[test]
        fn output_is_a_buffer(
            steps in proptest::collection::vec((0..6usize, 0..400_000usize, any::<u8>()), 1..40),
        ) {
            let (mut output, mut model, mut sent) = (Output::default(), Vec::new(), 0);
            for (step, size, byte) in steps {
                match step {
                    0 | 1 => {
                        let size = if step == 0 { size } else { size % 100 };
                        output.extend_from_slice(&vec![byte; size]);
                        model.extend(std::iter::repeat_n(byte, size));
                    }
                    2 => {
                        output.share(Bytes::from(vec![byte; size]));
                        model.extend(std::iter::repeat_n(byte, size));
                    }
                    3 => {
                        let at = output.sent + size % (output.unsent() + 1);
                        output.truncate(at);
                        model.truncate(sent + at - output.sent);
                    }
                    4 => {
                        let at = output.sent + size % (output.unsent() + 1);
                        let rest = output.split_off(at);
                        prop_assert_eq!(all(&rest), &model[sent + at - output.sent..]);
                        output.copy(&rest, 0..rest.len());
                    }
                    _ => {
                        let mut stream = Slow(Vec::new(), size.max(1));
                        sent += output.send(&mut stream).unwrap();
                        prop_assert_eq!(&stream.0, &model[sent - stream.0.len()..sent]);
                    }
                }
                prop_assert_eq!(output.unsent(), model.len() - sent);
            }
            let mut rest = Slow(Vec::new(), 100_000);
            while output.unsent() > 0 {
                output.send(&mut rest).unwrap();
            }
            prop_assert_eq!(&rest.0, &model[sent..]);
            prop_assert!(output.is_empty() && output.memory() <= KEPT);
        }
    }

    #[test]
    fn much_output_takes_little_more_than_its_size() {
        let mut output = Output::default();
        for _ in 0..10_000 {
            output.extend_from_slice(&[b'x'; 10_000]);
        }
        assert!(output.memory() < output.len() + output.len() / 10, "{}", output.memory());
        let value = Bytes::from(vec![b'v'; 100_000_000]);
        let before = output.memory();
        output.share(value);
        assert_eq!(output.memory(), before);
        // What is sent is given back before the rest is.
        let mut stream = Slow(Vec::new(), 50_000_000);
        while stream.0.len() < 50_000_000 {
            output.send(&mut stream).unwrap();
        }
        assert!(output.memory() < 60_000_000, "{}", output.memory());
    }

    #[test]
    fn heads_are_replaced_in_any_chunk() {
        for size in [10, CHUNK, 3 * CHUNK] {
            let mut output = Output::default();
            output.extend_from_slice(&vec![b'a'; CHUNK - 2]);
            let head = output.len()..output.len() + 4;
            output.extend_from_slice(b"*0\r\n");
            (0..size / 10).for_each(|_| output.extend_from_slice(&[b'b'; 10]));
            output.replace(head.clone(), b"*1234\r\n");
            let bytes = all(&output);
            assert_eq!(bytes.len(), CHUNK - 2 + 7 + size / 10 * 10);
            assert_eq!(&bytes[head.start..head.start + 9], b"*1234\r\nbb");
            assert_eq!(bytes.len(), output.len());
        }
    }
}
