//! Logins: what one side brings to prove itself on a link, and who knows which of them are served.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::club::identity::{PeerKeys, SigningKey};
use crate::club::level::Level;
use crate::ids::{AccessId, RootId};

/// How a link is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By a level key that both sides hold.
    Key,
    /// By an access code.
    Code,
}

/// What a side of a link is to the club.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has the club's keys.
    Member,
    /// It wants them.
    Joiner,
}

impl Method {
    pub(super) fn to_byte(self) -> u8 {
        match self {
            Method::Key => 1,
            Method::Code => 2,
        }
    }
}

impl Role {
    pub(super) fn to_byte(self) -> u8 {
        match self {
            Role::Member => 1,
            Role::Joiner => 2,
        }
    }

    /// What the other side of a link by code must be.
    pub(super) fn other(self) -> Role {
        match self {
            Role::Member => Role::Joiner,
            Role::Joiner => Role::Member,
        }
    }
}

/// What both sides must know.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub enum Secret {
    /// For [`Method::Key`]: the key of the login's level.
    LevelKey([u8; 32]),
    /// For [`Method::Code`]: the PRS of the PAKE, as `decisions.md` makes it from a code's or a person's password.
    Password(Vec<u8>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One way into one club, for either side of a link.
#[derive(Clone)]
pub struct Login {
    /// The club.
    pub club: RootId,
    /// The level whose key this is, or that the code grants.
    pub level: Level,
    /// How it proves itself.
    pub method: Method,
    /// What this side is; [`Role::Member`] with [`Method::Key`].
    pub role: Role,
    /// The key ID or access ID.
    pub id: [u8; 32],
    /// What both sides must know.
    pub secret: Secret,
    /// The access ID, with [`Method::Code`].
    pub code: Option<AccessId>,
    /// This peer's own keys in this club.
    pub keys: Arc<PeerKeys>,
    /// Random per start and club.
    pub run: [u8; 16],
    /// The read_write private key, if this peer has it.
    pub writer: Option<Arc<SigningKey>>,
    /// The read_write public key; unknown to a joiner.
    pub writer_public: Option<[u8; 32]>,
}

impl Login {
    /// Whether its secret is one for its method.
    pub(super) fn fits_method(&self) -> bool {
        matches!(
            (self.method, &self.secret),
            (Method::Key, Secret::LevelKey(_)) | (Method::Code, Secret::Password(_))
        )
    }
}

impl fmt::Debug for Login {
    /// Leaves out the ID too: outside a link it is a secret (protocol §2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("club", &self.club)
            .field("level", &self.level)
            .field("method", &self.method)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// Who knows which logins this node serves.
pub trait Logins {
    /// The login whose ID makes `tag` on the link that `exporter` names (see [`hello_tag`]), for a client at
    /// `from` that
    /// comes with this method and role. `None` also for one that is spent, over its limit, or held in the same role.
    ///
    /// [`hello_tag`]: super::auth::hello_tag
    fn find(
        &mut self,
        method: Method,
        role_of_client: Role,
        tag: &[u8; 32],
        exporter: &[u8; 32],
        from: IpAddr,
    ) -> Option<Login>;

    /// Somebody at `from` did not know the secret of `login` (protocol §3: wrong proofs are counted).
    fn wrong_proof(&mut self, login: &Login, from: IpAddr);
}
