//! What any runtime needs from the machine.
