//! The home folder: where a node keeps its keys, its store, its log and its socket. Owns their names and rights.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Write};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clearskies_host::lock::{HomeLock, LockError};
use clearskies_host::net;

/// A folder that is a node's home has at least this file, made by the lock.
const LOCK: &str = "lock";
/// A folder that is shared has this file.
const MARKER: &str = ".clearskies/share";
/// How long a holder of the home that does not answer is waited for,
const HOLDER_TIMEOUT: Duration = Duration::from_secs(5);
/// and how often the lock is tried meanwhile.
const LOCK_EVERY: Duration = Duration::from_millis(50);

/// A node's home folder.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    dir: PathBuf,
}

impl Home {
    /// Names a home without touching it.
    pub(crate) fn at(dir: PathBuf) -> Home {
        Home { dir }
    }

    /// Where the home is if the user does not say: `$XDG_DATA_HOME/clearskies`, else `~/.local/share/clearskies`.
    pub(crate) fn default_dir() -> Result<PathBuf, String> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .map(|data| data.join("clearskies"))
            .ok_or_else(|| {
                "There is no home folder: neither HOME nor XDG_DATA_HOME is set. Use --home.".into()
            })
    }

    /// Makes the folder where it is missing, and makes sure that nobody else can look into it.
    pub(crate) fn prepare(dir: &Path) -> Result<Home, String> {
        if let Some(share) = share_around(dir) {
            return Err(format!(
                "{} lies in {1}, which is shared: its keys would be sent to the peers. Choose a home outside with \
                 --home, and move there what this one holds already. If {1} is shared no more, delete {1}/{MARKER}.",
                dir.display(),
                share.display()
            ));
        }
        let fail = |what: &str, error: io::Error| format!("{}: {what}: {error}", dir.display());
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| fail("the home folder cannot be made", error))?;
        let dir = fs::canonicalize(dir).map_err(|error| fail("the home folder cannot be opened", error))?;
        let meta = fs::metadata(&dir).map_err(|error| fail("the home folder cannot be opened", error))?;
        if meta.mode() & 0o077 != 0 {
            let mut entries =
                fs::read_dir(&dir).map_err(|error| fail("the home folder cannot be read", error))?;
            if entries.next().is_some() && !dir.join(LOCK).exists() {
                return Err(format!(
                    "{} can be opened by others and holds other things, so secrets are not safe there. \
                     Choose a folder of its own with --home.",
                    dir.display()
                ));
            }
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))
                .map_err(|error| fail("the home folder cannot be closed to others", error))?;
        }
        Ok(Home { dir })
    }

    /// Locks the home. A process that was killed may hold it for a moment more, until the system has done with it; only
    /// one that answers is refused at once.
    pub(crate) fn lock(&self) -> Result<HomeLock, String> {
        let begun = Instant::now();
        loop {
            match HomeLock::acquire(&self.dir) {
                Err(LockError::Held { .. })
                    if begun.elapsed() < HOLDER_TIMEOUT && UnixStream::connect(self.control()).is_err() =>
                {
                    std::thread::sleep(LOCK_EVERY);
                }
                result => return result.map_err(|error| format!("{}: {error}", self.dir.display())),
            }
        }
    }

    /// The folder itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The control socket.
    pub(crate) fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// The log.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The store's database.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// This run's mark beside the store.
    pub(crate) fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Listens on the TCP port that was asked for; where none was, on the last run's, so that addresses given to
    /// friends stay true, or on any. Remembers it. An error comes with the port that could not be had.
    pub(crate) fn listen(&self, asked: Option<u16>) -> Result<(TcpListener, u16), (u16, io::Error)> {
        let last = self.read_port();
        let wanted = asked.or(last).unwrap_or(0);
        let listener = match net::listen(wanted) {
            Err(error) if asked.is_none() && wanted != 0 => {
                ::log::warn!(
                    "port {wanted}, that of the last run, is not to be had: {error}; taking another"
                );
                net::listen(0)
            }
            listener => listener,
        };
        let port = |listener: TcpListener| listener.local_addr().map(|addr| (addr.port(), listener));
        let (port, listener) = listener.and_then(port).map_err(|error| (wanted, error))?;
        if last != Some(port)
            && let Err(error) = self.write_port(port)
        {
            ::log::warn!("the port cannot be remembered: {error}");
        }
        Ok((listener, port))
    }

    /// The TCP port of the last run.
    fn read_port(&self) -> Option<u16> {
        fs::read_to_string(self.port()).ok()?.trim().parse().ok()
    }

    /// Remembers the TCP port for the next run.
    pub(crate) fn write_port(&self, port: u16) -> io::Result<()> {
        let new = self.dir.join("port.new");
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        writeln!(file, "{port}")?;
        fs::rename(new, self.port())
    }

    /// Removes a socket that a killed node left. Only for who holds the lock.
    pub(crate) fn remove_stale_socket(&self) -> io::Result<()> {
        match fs::remove_file(self.control()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn port(&self) -> PathBuf {
        self.dir.join("port")
    }
}

/// The share, of whichever node, in which a folder lies or would lie.
fn share_around(dir: &Path) -> Option<PathBuf> {
    let dir = std::path::absolute(dir).ok()?;
    let there = dir.ancestors().find_map(|dir| fs::canonicalize(dir).ok())?;
    there.ancestors().find(|dir| dir.join(MARKER).exists()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_made_closed_and_remembers_its_port() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::prepare(&dir.path().join("a/b")).unwrap();
        assert_eq!(fs::metadata(home.dir()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(home.read_port(), None);
        home.write_port(22400).unwrap();
        assert_eq!(home.read_port(), Some(22400));
    }

    #[test]
    fn the_port_of_the_last_run_is_listened_on_again_if_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::prepare(dir.path()).unwrap();
        let (first, port) = home.listen(None).unwrap();
        assert_eq!(home.read_port(), Some(port));
        let (other, another) = home.listen(None).unwrap();
        assert_ne!(another, port, "it is taken");
        assert_eq!(home.listen(Some(port)).unwrap_err().0, port);
        drop((first, other));
        assert_eq!(home.listen(None).unwrap().1, another);
    }

    #[test]
    fn a_home_in_a_share_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let share = dir.path().join("share");
        fs::create_dir_all(share.join(".clearskies")).unwrap();
        let (home, link) = (share.join("a/home"), dir.path().join("link"));
        Home::prepare(&home).unwrap();
        std::os::unix::fs::symlink(&share, &link).unwrap();
        fs::write(share.join(MARKER), "x").unwrap();
        for home in [&home, &share, &share.join(".clearskies/home"), &link.join("new"), &link.join("a/home")]
        {
            let refused = Home::prepare(home).unwrap_err();
            assert!(refused.contains("--home") && refused.contains(MARKER), "{refused}");
        }
        assert!(!share.join("new").exists());
        Home::prepare(&dir.path().join("beside")).unwrap();
    }

    #[test]
    fn an_open_folder_is_taken_only_if_it_is_empty_or_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("open");
        fs::create_dir(&path).unwrap();
        let open = || fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        open();
        fs::write(path.join("letter"), "x").unwrap();
        assert!(Home::prepare(&path).unwrap_err().contains("--home"));
        fs::write(path.join(LOCK), "").unwrap();
        assert!(Home::prepare(&path).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }
}
