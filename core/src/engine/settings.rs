//! What a user may set while the node runs: names, bounds, defaults and their stored form. Decides nothing; whoever
//! a setting concerns asks here.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::engine::boot::SETTING;
use crate::files::archive_name::{KEEP_DAYS_DEFAULT, KEEP_DAYS_MIN, VOLUME_PERCENT_DEFAULT};
use crate::io::store::{Space, Write};
use crate::share::layout;

/// The longest name of a computer, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest time that the archive may be told to keep, in days: a hundred years.
pub const ARCHIVE_DAYS_MAX: u32 = 36_500;
/// The most of its volume that the archive may be given, in percent; with all of it nothing could be received.
pub const ARCHIVE_PERCENT_MAX: u64 = 90;
/// The longest value that is looked at, in bytes.
const VALUE_BYTES_MAX: usize = 1024;
/// A setting that the host keeps, because it is needed before there is an engine; its name is the draft's.
pub const LISTEN_PORT: &str = "listen_port";
/// Named here because simulators set it too.
pub(super) const COMPRESSION: &str = "compression";
/// Kept with the settings, but changed by pausing and resuming alone.
const PAUSED: &str = "paused";

/// A setting that users see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Name,
    Lan,
    ArchiveDays,
    ArchivePercent,
    Clock,
    Compression,
}

/// When what goes over a link is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Where the link is slower than compressing.
    #[default]
    Auto,
    /// Wherever it shrinks.
    Always,
    /// Never, and nobody is asked to.
    Never,
}

impl Key {
    const ALL: [Key; 6] =
        [Key::ArchiveDays, Key::ArchivePercent, Key::Clock, Key::Compression, Key::Lan, Key::Name];

    fn name(self) -> &'static str {
        match self {
            Key::Name => "name",
            Key::Lan => "lan",
            Key::ArchiveDays => "archive_days",
            Key::ArchivePercent => "archive_percent",
            Key::Clock => "clock",
            Key::Compression => COMPRESSION,
        }
    }

    fn from_name(name: &str) -> Option<Key> {
        Key::ALL.into_iter().find(|key| key.name() == name)
    }

    fn description(self) -> &'static str {
        match self {
            Key::Name => "What this computer is called toward other members; empty for its host name.",
            Key::Lan => "Whether peers are looked for on the local network.",
            Key::ArchiveDays => {
                "How many days files that sync replaced or deleted are kept in a share's archive."
            }
            Key::ArchivePercent => "How much of its volume a share's archive may take, in percent.",
            Key::Clock => {
                "Whether this computer's clock is checked against its peers' (checked), or right in any case (trusted)."
            }
            Key::Compression => {
                "Whether what is sent is compressed: on links that are slow (auto), always, or never; from the next \
                 connection on."
            }
        }
    }
}

/// All settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    paused: bool,
    name: Option<String>,
    lan: bool,
    archive_days: u32,
    archive_percent: u64,
    clock_trusted: bool,
    compression: Compression,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            paused: false,
            name: None,
            lan: true,
            archive_days: KEEP_DAYS_DEFAULT,
            archive_percent: VOLUME_PERCENT_DEFAULT,
            clock_trusted: false,
            compression: Compression::Auto,
        }
    }
}

impl Settings {
    /// Whether the user paused the node.
    pub fn paused(&self) -> bool {
        self.paused
    }

    /// What this computer is called toward members, if not its host name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether peers are looked for on the local network.
    pub fn lan(&self) -> bool {
        self.lan
    }

    /// How long archives keep what they hold, in days.
    pub fn archive_days(&self) -> u32 {
        self.archive_days
    }

    /// How much of its volume an archive may take, in percent.
    pub fn archive_percent(&self) -> u64 {
        self.archive_percent
    }

    /// Whether the user said that this computer's clock is right (protocol §7, Time).
    pub fn clock_trusted(&self) -> bool {
        self.clock_trusted
    }

    /// When what goes over a link is compressed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Takes a stored value. One that a later version wrote, or that is out of bounds, is passed over.
    pub fn restore(&mut self, name: &str, value: &str) {
        if name == PAUSED {
            self.paused = value == "true";
        } else if let Some(key) = Key::from_name(name) {
            let _ = self.take(key, value);
        }
    }

    /// Pauses or resumes; the write is to be committed.
    pub fn set_paused(&mut self, paused: bool) -> Write {
        self.paused = paused;
        put(PAUSED, if paused { "true" } else { "false" })
    }

    /// Judges a new value and gives the write that stores it; nothing changes before [`Settings::restore`] is called
    /// with the same, once it is stored. The error says what is allowed.
    pub fn set(&self, name: &str, value: &str) -> Result<Write, String> {
        let key = Key::from_name(name).ok_or_else(|| unknown(name))?;
        self.clone().take(key, value)?;
        Ok(put(name, value.trim()))
    }

    /// The value of a setting; the error names those that there are.
    pub fn value(&self, name: &str) -> Result<String, String> {
        Key::from_name(name).map(|key| self.text(key)).ok_or_else(|| unknown(name))
    }

    /// All settings with their values, by name.
    pub fn list(&self) -> Vec<(String, String)> {
        Key::ALL.into_iter().map(|key| (key.name().to_owned(), self.text(key))).collect()
    }

    /// All settings with what each is for, by name.
    pub fn descriptions() -> impl Iterator<Item = (&'static str, &'static str)> {
        Key::ALL.into_iter().map(|key| (key.name(), key.description()))
    }

    fn text(&self, key: Key) -> String {
        match key {
            Key::Name => self.name.clone().unwrap_or_default(),
            Key::Lan => self.lan.to_string(),
            Key::ArchiveDays => self.archive_days.to_string(),
            Key::ArchivePercent => self.archive_percent.to_string(),
            Key::Clock => (if self.clock_trusted { "trusted" } else { "checked" }).to_owned(),
            Key::Compression => match self.compression {
                Compression::Auto => "auto",
                Compression::Always => "always",
                Compression::Never => "never",
            }
            .to_owned(),
        }
    }

    fn take(&mut self, key: Key, value: &str) -> Result<(), String> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!("{} cannot be longer than {VALUE_BYTES_MAX} bytes.", key.name()));
        }
        let value = value.trim();
        match key {
            Key::Name => {
                if value.len() > NAME_BYTES_MAX || value.chars().any(char::is_control) {
                    return Err(format!(
                        "name is a text of at most {NAME_BYTES_MAX} bytes without control characters; empty stands \
                         for the host name."
                    ));
                }
                self.name = (!value.is_empty()).then(|| value.to_owned());
            }
            Key::Lan => {
                self.lan = match value {
                    "true" | "on" | "yes" => true,
                    "false" | "off" | "no" => false,
                    _ => return Err("lan is true or false.".into()),
                }
            }
            Key::ArchiveDays => {
                self.archive_days = number(key, value, KEEP_DAYS_MIN.into(), ARCHIVE_DAYS_MAX.into())?
                    .try_into()
                    .unwrap_or(ARCHIVE_DAYS_MAX);
            }
            Key::ArchivePercent => self.archive_percent = number(key, value, 0, ARCHIVE_PERCENT_MAX)?,
            Key::Clock => {
                self.clock_trusted = match value {
                    "trusted" => true,
                    "checked" => false,
                    _ => return Err("clock is checked or trusted.".into()),
                }
            }
            Key::Compression => {
                self.compression = match value {
                    "auto" => Compression::Auto,
                    "always" => Compression::Always,
                    "never" => Compression::Never,
                    _ => return Err("compression is auto, always or never.".into()),
                }
            }
        }
        Ok(())
    }
}

fn number(key: Key, value: &str, min: u64, max: u64) -> Result<u64, String> {
    let number = value.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("{} is a number from {min} to {max}.", key.name()))
}

fn unknown(name: &str) -> String {
    let mut known = String::new();
    let mut names: Vec<&str> = Key::ALL.into_iter().map(Key::name).chain([LISTEN_PORT]).collect();
    names.sort_unstable();
    for name in names {
        if !known.is_empty() {
            known.push_str(", ");
        }
        known.push_str(name);
    }
    // What was typed is shown, as far as it can be a name at all.
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    format!("There is no setting {shown:?}; the settings are {known}.")
}

fn put(name: &str, value: &str) -> Write {
    let mut key = SETTING.to_owned();
    key.push_str(name);
    Write::Put { space: Space::Meta, key: layout::node_key(&key), value: value.as_bytes().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores a value as the engine does.
    fn set(settings: &mut Settings, name: &str, value: &str) -> Result<(), String> {
        let Write::Put { key, value, .. } = settings.set(name, value)? else { panic!("a setting is put") };
        let Some(layout::MetaKey::Node(key)) = layout::meta_key(&key) else { panic!("a fact of the node") };
        let key = core::str::from_utf8(key).unwrap().strip_prefix(SETTING).unwrap();
        settings.restore(key, core::str::from_utf8(&value).unwrap());
        Ok(())
    }

    #[test]
    fn values_and_bounds() {
        let mut settings = Settings::default();
        for (name, good, bad) in [
            ("archive_days", ["1", "36500"], ["0", "36501"]),
            ("archive_percent", ["0", "90"], ["-1", "91"]),
            ("lan", ["off", "true"], ["", "maybe"]),
            ("clock", ["checked", "trusted"], ["", "true"]),
            ("compression", ["never", "always"], ["", "on"]),
        ] {
            for value in good {
                set(&mut settings, name, value).unwrap();
            }
            for value in bad {
                let before = settings.clone();
                let error = settings.set(name, value).unwrap_err();
                assert!(error.starts_with(name) && error.ends_with('.'), "{error}");
                assert_eq!(settings, before);
            }
        }
        assert_eq!((settings.archive_days(), settings.archive_percent(), settings.lan()), (36500, 90, true));
        let longest = "n".repeat(NAME_BYTES_MAX);
        set(&mut settings, "name", &longest).unwrap();
        assert_eq!(settings.name(), Some(longest.as_str()));
        assert!(settings.set("name", &"n".repeat(NAME_BYTES_MAX + 1)).is_err());
        assert!(settings.set("name", "a\nb").is_err());
        set(&mut settings, "name", " ").unwrap();
        assert_eq!(settings.name(), None);
        let spaces = " ".repeat(VALUE_BYTES_MAX);
        assert!(settings.set("name", &spaces).is_ok());
        assert!(settings.set("name", &(spaces + " ")).is_err());
    }

    #[test]
    fn every_setting_is_listed_and_described() {
        let settings = Settings::default();
        let list = settings.list();
        assert_eq!(list.len(), Key::ALL.len());
        assert!(list.is_sorted());
        for ((name, value), (described, what)) in list.iter().zip(Settings::descriptions()) {
            assert_eq!(name, described);
            assert!(what.ends_with('.'));
            assert_eq!(settings.value(name).as_ref(), Ok(value));
            settings.set(name, value).unwrap();
        }
        let error = settings.value("archive_hours").unwrap_err();
        assert!(error.contains("archive_hours") && error.contains("archive_days"));
        assert!(error.contains("lan, listen_port, name"), "{error}");
        assert!(settings.set(PAUSED, "true").is_err());
    }

    #[test]
    fn pausing_is_stored() {
        let mut settings = Settings::default();
        let Write::Put { value, .. } = settings.set_paused(true) else { panic!("a setting is put") };
        let mut restored = Settings::default();
        restored.restore(PAUSED, core::str::from_utf8(&value).unwrap());
        assert!(restored.paused());
        restored.restore("of_a_later_version", "1");
        restored.restore("archive_days", "99999999");
        assert_eq!(restored.archive_days(), KEEP_DAYS_DEFAULT);
    }
}
