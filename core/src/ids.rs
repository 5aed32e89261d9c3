//! Identifiers. Each is a type of its own, so that no two can be taken for one another.

use core::fmt;

use alloc::string::String;
use data_encoding::HEXLOWER;

/// Defines a fixed-size byte identifier that prints as lowercase hex.
macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Reads exactly `LEN` bytes; `None` for any other length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// Reads lowercase hex of exactly `2 * LEN` digits; `None` for anything else.
            pub fn from_hex(hex: &str) -> Option<Self> {
                let mut bytes = [0u8; $len];
                if hex.len() != 2 * $len {
                    return None;
                }
                HEXLOWER.decode_mut(hex.as_bytes(), &mut bytes).ok()?;
                Some(Self(bytes))
            }

            /// Lowercase hex, as on the wire.
            pub fn to_hex(&self) -> String {
                HEXLOWER.encode(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), &self.to_hex()[..8])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }
    };
}

byte_id!(
    /// A peer of one club: the first 16 bytes of SHA-256 over its own Ed25519 public key (protocol §1).
    PeerId, 16
);
byte_id!(
    /// The name of a record, for ever.
    Uuid, 16
);
byte_id!(
    /// The SHA-256 of some content.
    Sha256, 32
);
byte_id!(
    /// Names a level key; known only to those who hold the key.
    KeyId, 32
);
byte_id!(
    /// SHA-256 of an access code's public half.
    AccessId, 32
);

/// Defines a small number that names something inside one process.
macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);
    };
}

number_id!(
    /// A connection, chosen by the engine for each dial and each accept; never used twice in a run.
    ConnId, u64
);
number_id!(
    /// One output that will be completed; never used twice in a run.
    Token, u64
);
number_id!(
    /// A share's root folder, for as long as the share exists; also the number of its club in the store.
    RootId, u32
);
number_id!(
    /// A command given to the engine; its outcome carries the same number.
    CommandId, u64
);
number_id!(
    /// A file under `.clearskies/tmp`; named by this number in hex.
    TempId, u64
);
