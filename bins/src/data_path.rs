//! The directory that belongs to one nsqd at a time.
//! In comes `--data-path`, out comes the open, locked directory, or why not (spec: nsqd_protocol §3.1).
//! The rule: the lock is the kernel's and dies with the process, so nothing is ever left behind to clean up.

use crate::os_error::os_error;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// A data directory, locked for as long as this lives.
#[derive(Debug)]
pub struct DataPath {
    path: PathBuf,
    _lock: File,
}

impl DataPath {
    /// Locks the directory, which must exist; `""` is the current one.
    pub fn lock(path: &str) -> Result<Self, String> {
        let path = match path {
            "" => std::env::current_dir().map_err(|error| failed(&os_error(&error)))?,
            path => PathBuf::from(path),
        };
        let shown = path.display();
        let open = |error| failed(&format!("open {shown}: {}", os_error(&error)));
        let directory = File::open(&path).map_err(open)?;
        if !directory.metadata().map_err(open)?.is_dir() {
            return Err(failed(&format!("open {shown}: not a directory")));
        }
        match directory.try_lock() {
            Ok(()) => Ok(Self { path, _lock: directory }),
            Err(error) => {
                let why = match error {
                    TryLockError::WouldBlock => "resource temporarily unavailable".to_owned(),
                    TryLockError::Error(error) => os_error(&error),
                };
                let hint = "possibly in use by another instance of nsqd";
                Err(failed(&format!("cannot flock directory {shown} - {why} ({hint})")))
            }
        }
    }

    /// Where the data is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn failed(why: &str) -> String {
    format!("failed to lock data-path: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_until_it_lets_go() {
        let directory = std::env::temp_dir().join(format!("nsq-data-path-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.to_str().unwrap();
        let held = DataPath::lock(path).unwrap();
        assert_eq!(held.path(), directory);
        assert_eq!(
            DataPath::lock(path).unwrap_err(),
            format!(
                "failed to lock data-path: cannot flock directory {path} - resource temporarily unavailable \
                 (possibly in use by another instance of nsqd)"
            )
        );
        drop(held);
        DataPath::lock(path).unwrap();

        let missing = format!("{path}/missing");
        assert_eq!(
            DataPath::lock(&missing).unwrap_err(),
            format!("failed to lock data-path: open {missing}: no such file or directory")
        );
        std::fs::write(&missing, "").unwrap();
        assert_eq!(
            DataPath::lock(&missing).unwrap_err(),
            format!("failed to lock data-path: open {missing}: not a directory")
        );
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn an_empty_path_is_the_current_directory() {
        let current = std::env::current_dir().unwrap();
        match DataPath::lock("") {
            Ok(held) => assert_eq!(held.path(), current),
            // Somebody works in the source directory; even so the text must name it.
            Err(text) => assert!(text.contains(current.to_str().unwrap()), "{text}"),
        }
    }
}
