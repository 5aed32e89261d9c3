//! What a connection has yet to send: frames and payloads in their order, sealed when the socket asks for them.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::channel::{Channel, ChannelFault, RECORD_MAX};
use crate::wire::frame::{self, PAYLOAD_END, PIECE_MAX};
use crate::wire::message::{Encoding, Message};

/// Small frames are gathered in one buffer up to about so many bytes.
const GATHER_MAX: usize = 64 * 1024;

/// Parts that are put into one record at most.
const PARTS_MAX: usize = 8;

/// Bytes to send, in order.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    parts: VecDeque<Part>,
    bytes: usize,
    scratch: Vec<u8>,
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
        self.bytes
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
    ) -> Result<(), ChannelFault> {
        let start = out.len();
        while self.bytes > 0 && out.len() - start < limit {
            let mut record: [&[u8]; PARTS_MAX] = [&[]; PARTS_MAX];
            let (mut used, mut length) = (0, 0);
            for part in self.parts.iter().take(PARTS_MAX) {
                let rest = part.rest();
                record[used] = &rest[..rest.len().min(RECORD_MAX - length)];
                length += record[used].len();
                used += 1;
                if length == RECORD_MAX {
                    break;
                }
            }
            channel.seal(&record[..used], out)?;
            self.advance(length);
        }
        Ok(())
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
        // A frame whose first byte was sent goes out whole.
        let end = self
            .parts
            .iter()
            .enumerate()
            .find_map(|(index, part)| part.frame_at.filter(|at| *at >= part.sent).map(|at| (index, at)));
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
            whole.seal(&mut channel, &mut out, usize::MAX).unwrap();
            out.truncate(sent);
            queue.advance(sent);
            queue.cut();
            assert!(sent > 0 || queue.bytes() == 0);
            queue.message(&Message::KeysAcknowledgment);
            let queued = queue.bytes();
            queue.seal(&mut channel, &mut out, usize::MAX).unwrap();
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
