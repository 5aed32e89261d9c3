//! What a connection has yet to send: frames and payloads in their order, packed into units where the link has them,
//! and sealed when the socket asks for them.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::channel::{Channel, ChannelFault, RECORD_MAX};
use crate::connection::pack::{Deflating, Packer};
use crate::connection::units::STORED_MAX;
use crate::time::Instant;
use crate::wire::frame::{self, PAYLOAD_END, PIECE_MAX};
use crate::wire::message::{Encoding, Message};

/// Small frames are gathered in one buffer up to about so many bytes.
const GATHER_MAX: usize = 64 * 1024;

/// A payload of so many bytes at most is gathered with the frames around it: copying it costs less than a part of its
/// own, and deflating it a tenth of what its file costs both sides anyway.
const GATHERED_PAYLOAD_MAX: usize = 2 * 1024;

/// Parts that are put into one record at most; one stays free for what ends a unit.
const PARTS_MAX: usize = 9;

/// Bytes to send, in order.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    parts: VecDeque<Part>,
    bytes: usize,
    scratch: Vec<u8>,
    /// Packs what is queued, where units were agreed on.
    packer: Option<Box<Packer>>,
    /// How bodies that are queued from now on are written.
    pub(super) encoding: Encoding,
}

#[derive(Debug)]
struct Part {
    bytes: Vec<u8>,
    sent: usize,
    /// Where the first frame that begins in it begins: what stands before is whole without it.
    frame_at: Option<usize>,
    /// Whether more frames may be appended; a payload stays as it was given.
    grows: bool,
}

impl Part {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }
}

impl SendQueue {
    /// Bytes that were not sealed yet.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.packer.as_ref().map_or(0, |packer| packer.bytes())
    }

    /// What is queued from now on goes out in units.
    pub(super) fn begin_units(&mut self, deflating: Deflating) {
        self.packer = Some(Box::new(Packer::new(deflating, self.bytes)));
    }

    /// Whether it does.
    pub(super) fn has_units(&self) -> bool {
        self.packer.is_some()
    }

    /// The socket takes nothing more for now.
    pub(super) fn full(&mut self, now: Instant) {
        if let Some(packer) = &mut self.packer {
            packer.pace.full(now);
        }
    }

    /// Forgets what it holds only to be faster.
    pub(super) fn rest(&mut self) {
        if let Some(packer) = &mut self.packer {
            packer.rest();
        }
    }

    /// Appends whole frames, or the fixed messages before them, as `write` makes them.
    pub(super) fn frames(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.append(true, write);
    }

    /// Appends a message without a payload whose body `write` makes.
    pub(super) fn body(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut body = core::mem::take(&mut self.scratch);
        body.clear();
        write(&mut body);
        self.append(true, |out| frame::write_frame(&body, false, out));
        self.scratch = body;
    }

    /// Appends a message without a payload.
    pub(super) fn message(&mut self, message: &Message) {
        self.with_body(message, |queue, body| queue.append(true, |out| frame::write_frame(body, false, out)));
    }

    /// Appends a message with its payload, which is copied only where it exceeds one chunk.
    pub(super) fn message_with_payload(&mut self, message: &Message, payload: Vec<u8>) {
        self.with_body(message, |queue, body| queue.append(true, |out| frame::write_frame(body, true, out)));
        if payload.len() <= PIECE_MAX {
            self.chunk(payload);
        } else {
            for chunk in payload.chunks(PIECE_MAX) {
                self.chunk(chunk.to_vec());
            }
        }
        self.append(false, |out| out.extend_from_slice(PAYLOAD_END));
    }

    fn chunk(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.append(false, |out| frame::write_chunk_start(bytes.len(), out));
        if bytes.len() <= GATHERED_PAYLOAD_MAX {
            return self.append(false, |out| out.extend_from_slice(&bytes));
        }
        self.bytes += bytes.len();
        self.parts.push_back(Part { bytes, sent: 0, frame_at: None, grows: false });
    }

    fn with_body(&mut self, message: &Message, put: impl FnOnce(&mut SendQueue, &[u8])) {
        let mut body = core::mem::take(&mut self.scratch);
        body.clear();
        message.write_in(self.encoding, &mut body);
        put(self, &body);
        if body.capacity() <= GATHER_MAX {
            self.scratch = body;
        }
    }

    fn append(&mut self, begins_frame: bool, write: impl FnOnce(&mut Vec<u8>)) {
        match self.parts.back_mut() {
            Some(last) if last.grows && last.bytes.len() < GATHER_MAX => {
                let before = last.bytes.len();
                last.frame_at = last.frame_at.or(begins_frame.then_some(before));
                write(&mut last.bytes);
                self.bytes += last.bytes.len() - before;
            }
            _ => {
                let mut bytes = Vec::new();
                write(&mut bytes);
                if !bytes.is_empty() {
                    self.bytes += bytes.len();
                    self.parts.push_back(Part {
                        bytes,
                        sent: 0,
                        frame_at: begins_frame.then_some(0),
                        grows: true,
                    });
                }
            }
        }
    }

    /// Seals queued bytes into `out`, record by record, until it has grown by `limit` or nothing is left.
    pub(super) fn seal(
        &mut self,
        channel: &mut Channel,
        out: &mut Vec<u8>,
        limit: usize,
        now: Instant,
    ) -> Result<(), ChannelFault> {
        let start = out.len();
        if let Some(packer) = &mut self.packer {
            packer.sends(now);
        }
        while self.bytes() > 0 && out.len() - start < limit {
            self.pack();
            let mut record: [&[u8]; PARTS_MAX] = [&[]; PARTS_MAX];
            let (ready, bare, sum) = match &self.packer {
                Some(packer) => (packer.ready(), packer.bare(), packer.sum()),
                None => (&[][..], usize::MAX, &[][..]),
            };
            record[0] = &ready[..ready.len().min(RECORD_MAX)];
            let (first, mut used, mut length) = (record[0].len(), 1, record[0].len());
            for part in self.parts.iter().take(PARTS_MAX - 2) {
                let rest = part.rest();
                record[used] = &rest[..rest.len().min(RECORD_MAX - length).min(bare + first - length)];
                length += record[used].len();
                used += 1;
            }
            let taken = length - first;
            let with_sum = taken == bare && !sum.is_empty() && length + sum.len() <= RECORD_MAX;
            if with_sum {
                record[used] = sum;
                used += 1;
            }
            channel.seal(&record[..used], out)?;
            if let Some(packer) = &mut self.packer {
                packer.went(first, taken, with_sum);
            }
            self.advance(taken);
        }
        if let Some(packer) = &mut self.packer {
            packer.pace.took(now, out.len() - start, self.bytes + packer.bytes() == 0);
        }
        Ok(())
    }

    /// Packs what is next, where there are units, into a record at least.
    fn pack(&mut self) {
        let Some(mut packer) = self.packer.take() else { return };
        while packer.bare() == 0 && self.bytes > 0 && packer.ready().len() < RECORD_MAX {
            let small = self.is_next_small();
            let done = packer.pack(self.parts.iter().map(Part::rest), self.bytes, small);
            self.advance(done);
        }
        self.packer = Some(packer);
    }

    /// Whether most of the next unit are frames that were gathered, each of which costs more than to deflate it.
    fn is_next_small(&self) -> bool {
        let (mut length, mut gathered) = (0, 0);
        for part in &self.parts {
            let taken = part.rest().len().min(STORED_MAX - length);
            length += taken;
            gathered += if part.grows { taken } else { 0 };
            if length == STORED_MAX {
                break;
            }
        }
        2 * gathered > length
    }

    fn advance(&mut self, mut length: usize) {
        self.bytes -= length;
        while let Some(front) = self.parts.front_mut() {
            let rest = front.rest().len();
            if length < rest {
                front.sent += length;
                return;
            }
            length -= rest;
            self.parts.pop_front();
        }
    }

    /// What is queued goes out whatever is dropped later.
    pub(super) fn keep(&mut self) {
        for part in &mut self.parts {
            (part.frame_at, part.grows) = (None, false);
        }
    }

    /// Drops what can be dropped without cutting a frame that has begun.
    pub(super) fn cut(&mut self) {
        // A frame whose first byte was sent goes out whole, and so does a unit.
        let mut begun = self.packer.as_ref().map_or(0, |packer| packer.bare());
        let end = self.parts.iter().enumerate().find_map(|(index, part)| {
            let from = part.sent + begun;
            begun = begun.saturating_sub(part.rest().len());
            part.frame_at.filter(|at| *at >= from).map(|at| (index, at))
        });
        if let Some((index, at)) = end {
            self.parts[index].bytes.truncate(at);
            self.parts.truncate(index + usize::from(at > self.parts[index].sent));
        }
        self.bytes = self.parts.iter().map(|part| part.rest().len()).sum();
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.bytes = 0;
        self.packer = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::plain::PlainChannel;
    use crate::ids::Sha256;
    use crate::wire::directory::DirectoryMessage;
    use crate::wire::frame::{LENGTH_MAX, Parser};
    use alloc::vec;

    /// Small payloads lie with their frames in one part, and make the next unit one of small frames; others do not.
    #[test]
    fn small_payloads_are_gathered() {
        let queued = |lengths: &[usize]| {
            let mut queue = SendQueue::default();
            for &length in lengths {
                let data = DirectoryMessage::Data { sha256: Sha256([1; 32]), range: (0, length as u64) };
                queue.message_with_payload(&Message::Directory(data), vec![b'x'; length]);
            }
            let mut bytes = Vec::new();
            let mut channel = Channel::Plain(PlainChannel::new(true, [0; 32]));
            let (parts, small, length) = (queue.parts.len(), queue.is_next_small(), queue.bytes());
            queue.seal(&mut channel, &mut bytes, usize::MAX, Instant(0)).unwrap();
            assert_eq!(bytes.len(), length);
            (parts, small)
        };
        const MAX: usize = GATHERED_PAYLOAD_MAX;
        assert_eq!(queued(&[MAX; 20]), (1, true));
        assert_eq!(queued(&[MAX + 1]), (3, false));
        assert_eq!(queued(&[MAX, MAX + 1, MAX, MAX]), (3, true));
        // What comes behind the unit that is next says nothing of it.
        assert_eq!(queued(&[PIECE_MAX, MAX, MAX]), (3, false));
        let many = [MAX; 2 * GATHER_MAX / MAX];
        assert_eq!(queued(&many), (3, true));
    }

    /// Cut after any number of bytes, what goes out are whole frames, and none that had not begun.
    #[test]
    fn cut_keeps_frames_whole() {
        let data = Message::Directory(DirectoryMessage::Data { sha256: Sha256([1; 32]), range: (0, 300) });
        let fill = |queue: &mut SendQueue| {
            for _ in 0..2 {
                queue.message_with_payload(&data, vec![b'x'; 300]);
                queue.message(&Message::KeysAcknowledgment);
            }
        };
        let mut whole = SendQueue::default();
        fill(&mut whole);
        for sent in 0..=whole.bytes() {
            let mut queue = SendQueue::default();
            fill(&mut queue);
            let mut channel = Channel::Plain(PlainChannel::new(true, [0; 32]));
            let mut out = Vec::new();
            whole = SendQueue::default();
            fill(&mut whole);
            whole.seal(&mut channel, &mut out, usize::MAX, Instant(0)).unwrap();
            out.truncate(sent);
            queue.advance(sent);
            queue.cut();
            assert!(sent > 0 || queue.bytes() == 0);
            queue.message(&Message::KeysAcknowledgment);
            let queued = queue.bytes();
            queue.seal(&mut channel, &mut out, usize::MAX, Instant(0)).unwrap();
            assert_eq!(out.len(), sent + queued);
            let mut parser = Parser::new(LENGTH_MAX);
            let mut input = &out[..];
            let mut last = None;
            while let Some(piece) = parser.next(&mut input).unwrap() {
                last = Some(piece);
            }
            assert!(input.is_empty());
            let Some(frame::Piece::Body { body, payload: false, .. }) = last else { panic!("{sent}") };
            assert_eq!(body, b"{\"type\":\"core.keys_acknowledgment\"}");
        }
    }
}
