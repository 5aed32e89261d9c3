//! What comes on a link whose bytes are in units: when these begin, and how much of what came is inflated.

use alloc::boxed::Box;

use crate::connection::Inner;
use crate::connection::login::Method;

/// Above so many bytes in events that were not taken, nothing more is inflated: it may be much more than came off the
/// wire. About as much as a host reads at once.
pub(super) const INFLATED_BYTES_MAX: usize = 256 << 10;

impl Inner {
    /// Takes all of `input`; what would give too many events is held until these were taken.
    pub(super) fn take_units(&mut self, input: &mut &[u8]) {
        let Some(mut unpacker) = self.unpacker.take() else { return };
        if self.refused_in_plain && input.first().is_some_and(|byte| !byte.is_ascii_digit()) {
            return;
        }
        self.refused_in_plain &= input.is_empty();
        while !self.is_closed() {
            if !self.held.is_empty() || self.event_bytes >= INFLATED_BYTES_MAX {
                self.held.extend_from_slice(input);
                *input = &[];
                break;
            }
            match unpacker.next(input) {
                Ok([]) => break,
                Ok(mut frames) => {
                    while !frames.is_empty() && !self.is_closed() {
                        self.take_frames(&mut frames);
                    }
                }
                Err(fault) => self.malformed(fault),
            }
        }
        self.unpacker = Some(unpacker);
    }

    /// Goes on with what is held.
    pub(super) fn take_held(&mut self) {
        if !self.is_holding() {
            return;
        }
        let held = core::mem::take(&mut self.held);
        self.take_units(&mut &held[..]);
        if self.held_end && !self.is_holding() {
            self.ended();
        }
    }

    pub(super) fn is_holding(&self) -> bool {
        let has_more =
            !self.held.is_empty() || self.unpacker.as_ref().is_some_and(|unpacker| unpacker.is_full());
        has_more && !self.is_closed()
    }

    /// Units were agreed on: both directions go on in them, by a code behind the keys.
    pub(super) fn agree_on_units(&mut self, method: Method) {
        match method {
            Method::Code => self.units_due = true,
            Method::Key => {
                self.queue.begin_units(self.config.deflating);
                self.unpacker = Some(Box::default());
                self.refused_in_plain = self.is_client;
            }
        }
    }

    /// Keys, or that they are stored, were said: what follows is in units, if these were agreed on.
    pub(super) fn keys_went(&mut self) {
        if self.units_due && !self.queue.has_units() {
            self.queue.begin_units(self.config.deflating);
        }
    }

    /// The same was heard.
    pub(super) fn keys_came(&mut self) {
        if self.units_due && self.unpacker.is_none() {
            self.unpacker = Some(Box::default());
        }
    }
}
