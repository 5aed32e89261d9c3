//! Reaching the control socket's path, also where it is longer than a socket address may be.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Bytes of a path in a socket address, less the NUL at its end (Linux has 108, others 104).
const PATH_BYTES_MAX: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };

/// Calls `with` with a path that names `path` and fits a socket address.
pub(crate) fn short<T>(path: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return with(path);
    }
    let (Some(dir), Some(name), true) = (path.parent(), path.file_name(), cfg!(target_os = "linux")) else {
        let message = format!("{} is too long for a socket; use a shorter --home", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    };
    // The kernel resolves the directory through our own descriptor, however long its path is.
    let dir = File::open(dir)?;
    let mut by_fd = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    by_fd.push(name);
    with(&by_fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_socket_path_of_any_length_works() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [PATH_BYTES_MAX, PATH_BYTES_MAX + 1, 250] {
            let folder = dir.path().join("d".repeat(bytes - dir.path().as_os_str().len() - "//s".len()));
            std::fs::create_dir(&folder).unwrap();
            let path = folder.join("s");
            assert_eq!(path.as_os_str().len(), bytes);
            let _listener = short(&path, |path| UnixListener::bind(path)).unwrap();
            assert!(path.exists());
            short(&path, |path| UnixStream::connect(path)).unwrap();
        }
    }
}
