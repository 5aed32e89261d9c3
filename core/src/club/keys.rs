//! The keys of a club and what they prove (protocol §2, §5): made once, given on to joiners, checked on
//! arrival. Secrets
//! are zeroed when dropped and never printed. Nothing here sends or stores.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::club::identity::{SIGNATURE_LEN, SigningKey, sha256_prefix, verify};
use crate::club::level::Level;
use crate::club::statement::{LEVELS, LevelFact, Scope, check, club_body, read_statement, statement_bytes};
use crate::ids::KeyId;
use crate::rng::Rng;
use crate::wire::keys::{CLUB_NAME_BYTES_MAX, ClubStatement, KeysMessage, LevelEntry, Secret32};

const STORE_VERSION: u8 = 1;

/// Why received keys are refused. The sentence goes to the user, the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysError {
    /// Another level than the one that the code grants.
    OtherLevel,
    /// `core.club` is not what it must be, or not signed with the club's key.
    BadStatement,
    /// The club is another one than the link named.
    OtherClub,
    /// The levels listed are not those of `core.club`.
    OtherLevels,
    /// A secret is missing at or below the granted level.
    Missing,
    /// A secret is present above the granted level, or where it does not belong.
    Excess,
    /// A seed, key or ID does not fit `core.club`.
    Mismatch,
    /// A key or ID belongs to another club here, or is listed twice.
    Held,
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeysError::OtherLevel => "The peer offered another access level than it proved.",
            KeysError::BadStatement => "The peer sent a club whose founding statement is not valid.",
            KeysError::OtherClub => {
                "The peer sent keys of another club than the link names; do not trust it."
            }
            KeysError::OtherLevels => "The peer sent keys whose levels are not those of the club.",
            KeysError::Missing => "The peer left out keys that belong to the granted level.",
            KeysError::Excess => "The peer sent keys that do not belong to the granted level.",
            KeysError::Mismatch => "The peer sent keys that do not fit the club.",
            KeysError::Held => "The peer sent keys that belong to another club here; do not trust it.",
        })
    }
}

impl core::error::Error for KeysError {}

/// What is known of one level.
struct LevelKeys {
    public: [u8; 32],
    secrets: Option<LevelSecrets>,
}

/// What is known of a level at or below one's own.
struct LevelSecrets {
    id: KeyId,
    key: Secret32,
    signing: Arc<SigningKey>,
}

/// A club's keys, as far as this node's level goes.
pub struct Club {
    level: Level,
    /// In the order of [`Level::ALL`].
    levels: [LevelKeys; LEVELS],
    content: Option<Secret32>,
    statement: ClubStatement,
}

impl Club {
    /// Founds a club: makes every key and signs the founding statement.
    pub fn create(rng: &mut Rng) -> Club {
        let secrets = Level::ALL.map(|_| {
            let signing = Arc::new(SigningKey::generate(rng));
            let id = KeyId(rng.bytes());
            let mut key = Secret32::new(&[0; 32]);
            rng.fill(&mut key.0[..]);
            LevelSecrets { id, key, signing }
        });
        let facts = secrets.each_ref().map(|secrets| LevelFact {
            public: secrets.signing.public(),
            check: check(&secrets.id.0, &secrets.key.0),
        });
        let levels =
            secrets.map(|secrets| LevelKeys { public: secrets.signing.public(), secrets: Some(secrets) });
        let mut content = Secret32::new(&[0; 32]);
        rng.fill(&mut content.0[..]);
        let statement = ClubStatement { body: club_body(&facts), signature: [0; SIGNATURE_LEN] };
        let mut club = Club { level: Level::ReadWrite, levels, content: Some(content), statement };
        if let Some(signature) = club.sign_statement(Scope::Core, club.statement.body.as_bytes()) {
            club.statement.signature = signature;
        }
        club
    }

    /// This node's level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The key ID of a level at or below one's own.
    pub fn key_id(&self, level: Level) -> Option<KeyId> {
        self.secrets(level).map(|secrets| secrets.id)
    }

    /// The key of a level at or below one's own.
    pub fn level_key(&self, level: Level) -> Option<&[u8; 32]> {
        self.secrets(level).map(|secrets| &*secrets.key.0)
    }

    /// The signing pair of a level at or below one's own.
    pub fn signing_key(&self, level: Level) -> Option<Arc<SigningKey>> {
        self.secrets(level).map(|secrets| secrets.signing.clone())
    }

    /// The public signing key of a level.
    pub fn public_key(&self, level: Level) -> &[u8; 32] {
        &self.levels[level.place()].public
    }

    /// The secret under which content is sealed (protocol §9); unknown at the untrusted level.
    pub fn content_secret(&self) -> Option<&[u8; 32]> {
        self.content.as_ref().map(|content| &*content.0)
    }

    /// The founding statement.
    pub fn statement(&self) -> &ClubStatement {
        &self.statement
    }

    /// First 16 bytes of SHA-256 over the read_write public key: `k` of a link (protocol §3).
    pub fn fingerprint(&self) -> [u8; 16] {
        sha256_prefix(&[self.public_key(Level::ReadWrite)])
    }

    /// What a share's marker file may show of the club: says nothing that helps to find or enter it.
    pub fn marker_id(&self) -> [u8; 16] {
        sha256_prefix(&[b"clearskies 2 marker", self.public_key(Level::ReadWrite)])
    }

    /// Whether one of the club's keys, IDs, seeds or public keys is this; for [`Club::import`] into another club.
    pub fn holds(&self, bytes: &[u8; 32]) -> bool {
        let is = |own: &[u8; 32]| bool::from(own.ct_eq(bytes));
        self.content_secret().is_some_and(is)
            || self.levels.iter().any(|level| {
                is(&level.public)
                    || level.secrets.as_ref().is_some_and(|secrets| {
                        is(&secrets.id.0) || is(&secrets.key.0) || is(secrets.signing.seed())
                    })
            })
    }

    /// Signs a statement; `None` below the level that signs this scope.
    pub fn sign_statement(&self, scope: Scope, body: &[u8]) -> Option<[u8; SIGNATURE_LEN]> {
        let secrets = self.secrets(scope.signer())?;
        Some(secrets.signing.sign(&statement_bytes(scope, body)))
    }

    /// Whether a statement of this scope was signed by the club.
    pub fn verify_statement(&self, scope: Scope, body: &[u8], signature: &[u8]) -> bool {
        verify(self.public_key(scope.signer()), &statement_bytes(scope, body), signature)
    }

    /// What a joiner at this level gets; `None` above one's own level. A name is cut to
    /// [`CLUB_NAME_BYTES_MAX`] and left
    /// out at the untrusted level.
    pub fn export(&self, granted: Level, name: &str) -> Option<KeysMessage> {
        if granted > self.level {
            return None;
        }
        let name = if granted == Level::Untrusted { "" } else { cut(name, CLUB_NAME_BYTES_MAX) };
        Some(KeysMessage {
            access_level: granted,
            club: self.statement.clone(),
            name: String::from(name),
            keys: Level::ALL.map(|level| self.export_level(level, granted)).into(),
        })
    }

    fn export_level(&self, level: Level, granted: Level) -> LevelEntry {
        let secrets = self.secrets(level).filter(|_| level <= granted);
        LevelEntry {
            level,
            id: secrets.map(|secrets| Secret32::new(&secrets.id.0)),
            key: secrets.map(|secrets| secrets.key.clone()),
            private: secrets.map(|secrets| Secret32::new(secrets.signing.seed())),
            public: *self.public_key(level),
            content: self.content.clone().filter(|_| level == Level::ReadOnly && granted >= Level::ReadOnly),
        }
    }

    /// Takes received keys, or refuses them (protocol §5 step 5). `granted` is the level of the code, `fingerprint` the
    /// link's `k`, and `held` says whether another club here has these 32 bytes.
    pub fn import(
        message: &KeysMessage,
        granted: Level,
        fingerprint: Option<[u8; 16]>,
        held: &dyn Fn(&[u8; 32]) -> bool,
    ) -> Result<Club, KeysError> {
        if granted != message.access_level {
            return Err(KeysError::OtherLevel);
        }
        let club = Club::assemble(message)?;
        if fingerprint.is_some_and(|expected| expected != club.fingerprint()) {
            return Err(KeysError::OtherClub);
        }
        let known = message.keys.iter().flat_map(|entry| {
            let secrets = [&entry.id, &entry.key, &entry.private, &entry.content];
            secrets.into_iter().flatten().map(|secret| &*secret.0).chain([&entry.public])
        });
        let mut known: Vec<&[u8; 32]> = known.collect();
        if known.iter().any(|bytes| held(bytes)) {
            return Err(KeysError::Held);
        }
        known.sort_unstable();
        if known.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(KeysError::Held);
        }
        Ok(club)
    }

    /// Puts a club together from a message that may come from anywhere.
    fn assemble(message: &KeysMessage) -> Result<Club, KeysError> {
        let facts = read_statement(&message.club).ok_or(KeysError::BadStatement)?;
        Club::assemble_by(message, &facts)
    }

    /// As [`Club::assemble`], by what the founding statement says, which was verified.
    fn assemble_by(message: &KeysMessage, facts: &[LevelFact; LEVELS]) -> Result<Club, KeysError> {
        let granted = message.access_level;
        let entries: &[LevelEntry; LEVELS] =
            message.keys.as_slice().try_into().map_err(|_| KeysError::OtherLevels)?;
        if entries.iter().zip(Level::ALL).any(|(entry, level)| entry.level != level) {
            return Err(KeysError::OtherLevels);
        }
        let mut levels = [const { None }; LEVELS];
        let mut content = None;
        for ((entry, fact), place) in entries.iter().zip(facts).zip(&mut levels) {
            *place = Some(take_entry(entry, fact, granted)?);
            let belongs = entry.level == Level::ReadOnly && granted >= Level::ReadOnly;
            match &entry.content {
                Some(secret) if belongs => content = Some(secret.clone()),
                Some(_) => return Err(KeysError::Excess),
                None if belongs => return Err(KeysError::Missing),
                None => {}
            }
        }
        let [Some(a), Some(b), Some(c)] = levels else {
            return Err(KeysError::OtherLevels);
        };
        Ok(Club { level: granted, levels: [a, b, c], content, statement: message.club.clone() })
    }

    /// The form that the store keeps; all of it is secret.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let body = self.statement.body.as_bytes();
        let mut out =
            Zeroizing::new(Vec::with_capacity(8 + body.len() + SIGNATURE_LEN + 32 * (3 * LEVELS + 1)));
        out.push(STORE_VERSION);
        out.push(self.level.number());
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(body);
        out.extend_from_slice(&self.statement.signature);
        for secrets in self.levels.iter().filter_map(|level| level.secrets.as_ref()) {
            out.extend_from_slice(&secrets.id.0);
            out.extend_from_slice(&secrets.key.0[..]);
            out.extend_from_slice(secrets.signing.seed());
        }
        if let Some(content) = &self.content {
            out.extend_from_slice(&content.0[..]);
        }
        out
    }

    /// Reads what [`Club::encode`] wrote; `None` if it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Club> {
        let ([version, level], rest) = bytes.split_first_chunk::<2>()?;
        let level = Level::from_number(*level).filter(|_| *version == STORE_VERSION)?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (body, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        let (signature, mut rest) = rest.split_first_chunk::<SIGNATURE_LEN>()?;
        let club = ClubStatement { body: String::from_utf8(body.to_vec()).ok()?, signature: *signature };
        let facts = read_statement(&club)?;
        let mut next = || {
            let (secret, after) = rest.split_first_chunk::<32>()?;
            rest = after;
            Some(Secret32::new(secret))
        };
        let mut keys = Vec::with_capacity(LEVELS);
        for (of, fact) in Level::ALL.into_iter().zip(&facts) {
            let mut entry = LevelEntry {
                level: of,
                id: None,
                key: None,
                private: None,
                public: fact.public,
                content: None,
            };
            if of <= level {
                (entry.id, entry.key, entry.private) = (Some(next()?), Some(next()?), Some(next()?));
            }
            keys.push(entry);
        }
        if level >= Level::ReadOnly {
            keys.iter_mut().find(|entry| entry.level == Level::ReadOnly)?.content = Some(next()?);
        }
        if !rest.is_empty() {
            return None;
        }
        let message = KeysMessage { access_level: level, club, name: String::new(), keys };
        Club::assemble_by(&message, &facts).ok()
    }

    fn secrets(&self, level: Level) -> Option<&LevelSecrets> {
        self.levels[level.place()].secrets.as_ref()
    }
}

impl fmt::Debug for Club {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Club({}, ..)", self.level)
    }
}

/// The longest beginning of `text` that is at most `bytes_max` long.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// Checks what a message says of one level against `core.club` and the granted level.
fn take_entry(entry: &LevelEntry, fact: &LevelFact, granted: Level) -> Result<LevelKeys, KeysError> {
    if entry.public != fact.public {
        return Err(KeysError::Mismatch);
    }
    if entry.level > granted {
        if entry.id.is_some() || entry.key.is_some() || entry.private.is_some() {
            return Err(KeysError::Excess);
        }
        return Ok(LevelKeys { public: entry.public, secrets: None });
    }
    let (Some(id), Some(key), Some(private)) = (&entry.id, &entry.key, &entry.private) else {
        return Err(KeysError::Missing);
    };
    let signing = SigningKey::from_seed(&private.0);
    if signing.public() != fact.public || check(&id.0, &key.0) != fact.check {
        return Err(KeysError::Mismatch);
    }
    let secrets = LevelSecrets { id: KeyId(*id.0), key: key.clone(), signing: Arc::new(signing) };
    Ok(LevelKeys { public: fact.public, secrets: Some(secrets) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::club::statement::KIND_DIRECTORY;
    use crate::wire::keys::CLUB_BODY_BYTES_MAX;
    use alloc::format;
    use alloc::string::ToString;
    use data_encoding::HEXLOWER;

    fn club() -> Club {
        Club::create(&mut Rng::from_seed([1; 32]))
    }

    fn take(message: &KeysMessage) -> Result<Club, KeysError> {
        Club::import(message, message.access_level, None, &|_| false)
    }

    /// Signs whatever `core.club` says, as its founder could.
    fn resign(message: &mut KeysMessage, founder: &Club) {
        message.club.signature = founder.sign_statement(Scope::Core, message.club.body.as_bytes()).unwrap();
    }

    #[test]
    fn a_joiner_gets_its_level_and_below() {
        let founder = club();
        for granted in Level::ALL {
            let message = founder.export(granted, "Photos").unwrap();
            let mut body = Vec::new();
            message.write(&mut body);
            let message = KeysMessage::read(&body).unwrap();
            assert_eq!(message.name.is_empty(), granted == Level::Untrusted);
            let joined = Club::import(&message, granted, Some(founder.fingerprint()), &|_| false).unwrap();
            assert_eq!(joined.level(), granted);
            assert_eq!(joined.marker_id(), founder.marker_id());
            assert_eq!(joined.content_secret().is_some(), granted >= Level::ReadOnly);
            for level in Level::ALL {
                assert_eq!(joined.public_key(level), founder.public_key(level));
                let has = level <= granted;
                assert_eq!(joined.key_id(level), founder.key_id(level).filter(|_| has));
                assert_eq!(joined.level_key(level), founder.level_key(level).filter(|_| has));
                assert_eq!(joined.signing_key(level).is_some(), has);
                assert_eq!(joined.export(level, "x").is_some(), has);
            }
        }
    }

    #[test]
    fn the_stored_form_goes_both_ways_and_damage_is_seen() {
        let founder = club();
        for granted in Level::ALL {
            let club = take(&founder.export(granted, "").unwrap()).unwrap();
            let stored = club.encode();
            let read = Club::decode(&stored).unwrap();
            assert_eq!(read.level(), granted);
            assert_eq!(read.encode(), stored);
            for at in 0..stored.len() {
                let mut bad = stored.to_vec();
                bad[at] ^= 1;
                // Nothing binds the content secret to the club; each other byte is covered.
                let content = granted >= Level::ReadOnly && at >= stored.len() - 32;
                assert_eq!(Club::decode(&bad).is_some(), content, "{granted} {at}");
            }
            assert!(Club::decode(&stored[..stored.len() - 1]).is_none());
            assert!(Club::decode(&[&stored[..], &[0]].concat()).is_none());
        }
        assert!(Club::decode(&[]).is_none());
    }

    #[test]
    fn every_wrong_field_is_refused() {
        use KeysError::*;
        let founder = club();
        let other = Club::create(&mut Rng::from_seed([2; 32]));
        let stray = || Some(Secret32::new(&[7; 32]));
        type Change<'a> = &'a dyn Fn(&mut KeysMessage);
        let check = |granted: Level, error: KeysError, change: Change<'_>| {
            let mut message = founder.export(granted, "Photos").unwrap();
            change(&mut message);
            assert_eq!(Club::import(&message, granted, None, &|_| false).err(), Some(error));
        };
        for granted in Level::ALL {
            check(granted, Mismatch, &|m| m.keys[2].id = stray());
            check(granted, Mismatch, &|m| m.keys[2].key = stray());
            check(granted, Mismatch, &|m| m.keys[2].private = stray());
            check(granted, Mismatch, &|m| m.keys[0].public = [7; 32]);
            check(granted, Missing, &|m| m.keys[2].id = None);
            check(granted, Missing, &|m| m.keys[2].key = None);
            check(granted, Missing, &|m| m.keys[2].private = None);
            check(granted, Excess, &|m| m.keys[2].content = stray());
            check(granted, Excess, &|m| m.keys[0].content = stray());
            check(granted, OtherLevels, &|m| m.keys.truncate(2));
            check(granted, OtherLevels, &|m| m.keys.push(m.keys[2].clone()));
            check(granted, OtherLevels, &|m| m.keys.swap(1, 2));
            check(granted, BadStatement, &|m| m.club.signature[0] ^= 1);
            check(granted, BadStatement, &|m| m.club.body.push(' '));
            check(granted, Mismatch, &|m| m.club = other.statement().clone());
        }
        check(Level::ReadWrite, Missing, &|m| m.keys[1].content = None);
        check(Level::ReadOnly, Missing, &|m| m.keys[1].content = None);
        check(Level::Untrusted, Excess, &|m| m.keys[1].content = stray());
        check(Level::ReadOnly, Excess, &|m| m.keys[0].id = stray());
        check(Level::ReadOnly, Excess, &|m| m.keys[0].key = stray());
        check(Level::ReadOnly, Excess, &|m| m.keys[0].private = stray());
        check(Level::Untrusted, OtherLevel, &|m| m.access_level = Level::ReadOnly);
        check(Level::ReadWrite, OtherLevel, &|m| m.access_level = Level::ReadOnly);
    }

    #[test]
    fn statements_of_another_form_are_refused() {
        let founder = club();
        let good = founder.export(Level::ReadOnly, "").unwrap();
        let refused = |body: String| {
            let mut message = good.clone();
            message.club.body = body;
            resign(&mut message, &founder);
            assert_eq!(take(&message).err(), Some(KeysError::BadStatement));
        };
        let body = &good.club.body;
        refused(String::new());
        refused(body.replace("core.club", "core.keys"));
        refused(body.replace(KIND_DIRECTORY, "chat"));
        refused(body.replace("read_only", "untrusted"));
        refused(body.replace("\"kind\"", "\"kind\":\"directory\",\"kind\""));
        refused(body.replace("]}", ",{}]}"));
        refused(body.replace("levels", "level"));
        refused(format!("{body}{}", " ".repeat(CLUB_BODY_BYTES_MAX + 1 - body.len())));
        let mut longest = good.clone();
        longest.club.body = format!("{body}{}", " ".repeat(CLUB_BODY_BYTES_MAX - body.len()));
        resign(&mut longest, &founder);
        assert!(take(&longest).is_ok());
    }

    #[test]
    fn keys_of_another_club_are_refused() {
        let founder = club();
        let other = Club::create(&mut Rng::from_seed([2; 32]));
        let message = founder.export(Level::ReadWrite, "").unwrap();
        let import =
            |k, held: &dyn Fn(&[u8; 32]) -> bool| Club::import(&message, Level::ReadWrite, k, held).err();
        assert_eq!(import(Some(other.fingerprint()), &|_| false), Some(KeysError::OtherClub));
        assert_eq!(import(None, &|bytes| other.holds(bytes)), None);
        assert_eq!(import(None, &|bytes| founder.holds(bytes)), Some(KeysError::Held));
        let content = *founder.content_secret().unwrap();
        assert_eq!(import(None, &|bytes| *bytes == content), Some(KeysError::Held));
        let seed = *founder.signing_key(Level::Untrusted).unwrap().seed();
        assert_eq!(import(None, &|bytes| *bytes == seed), Some(KeysError::Held));
        let mut twice = message.clone();
        twice.keys[1].content = twice.keys[2].key.clone();
        assert_eq!(take(&twice).err(), Some(KeysError::Held));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let name = |name: &str| club().export(Level::ReadOnly, name).unwrap().name;
        assert_eq!(name(&"n".repeat(CLUB_NAME_BYTES_MAX)).len(), CLUB_NAME_BYTES_MAX);
        assert_eq!(name(&"n".repeat(CLUB_NAME_BYTES_MAX + 1)).len(), CLUB_NAME_BYTES_MAX);
        assert_eq!(name(&"é".repeat(CLUB_NAME_BYTES_MAX)), "é".repeat(CLUB_NAME_BYTES_MAX / 2));
    }

    #[test]
    fn scopes_and_levels_do_not_mix() {
        let founder = club();
        let reader = take(&founder.export(Level::ReadOnly, "").unwrap()).unwrap();
        let scopes = [Scope::ReadOnly, Scope::Untrusted, Scope::Core, Scope::Verify];
        for scope in scopes {
            let signature = founder.sign_statement(scope, b"{}").unwrap();
            for other in scopes {
                assert_eq!(reader.verify_statement(other, b"{}", &signature), scope == other);
            }
            assert!(!reader.verify_statement(scope, b"{ }", &signature));
            assert_eq!(reader.sign_statement(scope, b"{}").is_some(), scope == Scope::Verify);
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let founder = club();
        assert_eq!(format!("{founder:?}"), "Club(read_write, ..)");
        let message = format!("{:?}", founder.export(Level::ReadWrite, "x").unwrap());
        for level in Level::ALL {
            for secret in [founder.level_key(level).unwrap(), &founder.key_id(level).unwrap().0] {
                assert!(!message.contains(&HEXLOWER.encode(&secret[..4])));
                assert!(!message.contains(&format!("{secret:?}")[1..20]));
            }
        }
        assert!(KeysError::Held.to_string().ends_with('.'));
    }
}
