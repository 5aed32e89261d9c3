//! zlib data (RFC 1950) through flate2; the only file that names it, and the library that adds up what it is checked
//! by. Both are given as much room as they may fill: what does not fit is not made.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use simd_adler32::Adler32;

use crate::error::Malformed;

/// Makes zlib data; one stream at a time. Holds about 300 kB.
pub(super) struct Deflater(Box<Compress>);

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deflater(..)")
    }
}

impl Deflater {
    pub(super) fn new() -> Deflater {
        Deflater(Box::new(Compress::new(Compression::fast(), true)))
    }

    /// Appends `parts`, joined and compressed, to `out`, if that takes `max` bytes at most; otherwise appends nothing.
    pub(super) fn deflate<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a [u8]>,
        max: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        self.0.reset();
        let start = out.len();
        out.resize(start + max, 0);
        let mut made = 0;
        let ended = self.fill(parts, &mut out[start..], &mut made);
        out.truncate(if ended { start + made } else { start });
        ended
    }

    fn fill<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>, room: &mut [u8], made: &mut usize) -> bool {
        for mut part in parts {
            while !part.is_empty() {
                let before = (self.0.total_in(), self.0.total_out());
                if self.0.compress(part, &mut room[*made..], FlushCompress::None).is_err() {
                    return false;
                }
                let (taken, grown) = (self.0.total_in() - before.0, self.0.total_out() - before.1);
                // Neither exceeds what was given.
                part = &part[taken as usize..];
                *made += grown as usize;
                if *made == room.len() || taken == 0 {
                    return false;
                }
            }
        }
        let before = self.0.total_out();
        let ended = self.0.compress(&[], &mut room[*made..], FlushCompress::Finish);
        *made += (self.0.total_out() - before) as usize;
        matches!(ended, Ok(Status::StreamEnd))
    }
}

/// Reads zlib data; one stream at a time. Holds about 45 kB.
pub(super) struct Inflater(Box<Decompress>);

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inflater(..)")
    }
}

impl Inflater {
    pub(super) fn new() -> Inflater {
        Inflater(Box::new(Decompress::new(true)))
    }

    /// Begins another stream.
    pub(super) fn restart(&mut self) {
        self.0.reset(true);
    }

    /// Takes bytes off the front of `input`, all of them unless `room` is filled or the stream ends, and says how many
    /// it made of them and whether the stream has ended, its sum checked.
    pub(super) fn inflate(&mut self, input: &mut &[u8], room: &mut [u8]) -> Result<(usize, bool), Malformed> {
        let fault = Malformed("a unit that is no zlib data");
        let before = (self.0.total_in(), self.0.total_out());
        let status = self.0.decompress(input, room, FlushDecompress::None).map_err(|_| fault)?;
        let (taken, made) = (self.0.total_in() - before.0, self.0.total_out() - before.1);
        // Neither exceeds what was given.
        *input = &input[taken as usize..];
        let (made, ended) = (made as usize, status == Status::StreamEnd);
        if !ended && !input.is_empty() && made < room.len() {
            return Err(fault);
        }
        Ok((made, ended))
    }
}

/// The sum at the end of zlib data, of bytes that come in pieces.
#[derive(Default)]
pub(super) struct Sum(Adler32);

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sum(..)")
    }
}

impl Sum {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// As it stands in the data.
    pub(super) fn bytes(&self) -> [u8; 4] {
        self.0.finish().to_be_bytes()
    }
}
