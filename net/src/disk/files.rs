//! The real disk: a directory of the machine and the files in it that are open.
//!
//! A file that was written stays open for a while: to open it anew for each write costs more than small writes do, and an
//! error of the medium is told to those who had the file open when it happened. When the process may not open any more
//! they all give way. Blocking calls only; nobody in here waits
//! for a lock while the disk works.

use super::{Content, EMFILE, ENFILE, Found, Op, Outcome};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module's documentation.
pub(super) struct Files {
    root: PathBuf,
    open: Mutex<Open>,
}

/// Open files by name.
#[derive(Default)]
struct Open {
    files: BTreeMap<String, Kept>,
    uses: u64,
}

struct Kept {
    file: Arc<File>,
    /// Or only to be read and fsynced.
    is_to_write: bool,
    /// When it was last used, in uses.
    used: u64,
}

/// So many files stay open.
const KEPT: usize = 256;

impl Files {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, open: Mutex::default() }
    }

    pub(super) fn perform(&self, op: Op) -> io::Result<Outcome> {
        match op {
            Op::Create(name) => self.create(&name)?,
            Op::Write(name, offset, content) => self.write(&name, offset, content)?,
            Op::Sync(name) => self.file(&name, false)?.sync_data()?,
            Op::Read(name, offset, length) => return self.read(&name, offset, length).map(Outcome::Content),
            Op::Rename(from, to) => {
                fs::rename(self.path(&from), self.path(&to))?;
                self.forget(&from);
                self.forget(&to);
            }
            Op::Remove(name) => {
                let removed = fs::remove_file(self.path(&name));
                // Not before: a read in between would keep what is gone.
                self.forget(&name);
                unless_missing(removed)?;
            }
            Op::CreateDir(name) => {
                fs::DirBuilder::new().mode(0o700).create(self.path(&name))?;
            }
            Op::RemoveDir(name) => {
                let removed = fs::remove_dir_all(self.path(&name));
                self.forget(&name);
                unless_missing(removed)?;
            }
            Op::SyncDir(name) => self.opening(|| File::open(self.path(&name)))?.sync_all()?,
            Op::List(name) => return self.opening(|| list(&self.path(&name))).map(Outcome::List),
        }
        Ok(Outcome::Done)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn create(&self, name: &str) -> io::Result<()> {
        self.forget(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        self.keep(name, Arc::new(self.opening(|| options.open(self.path(name)))?), true);
        Ok(())
    }

    fn write(&self, name: &str, offset: u64, content: Content) -> io::Result<()> {
        let bytes = content.seal();
        self.file(name, true)?.write_all_at(&bytes, offset)
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = self.file(name, false)?;
        let there = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut content = vec![0; length.min(there)];
        file.read_exact_at(&mut content, offset)?;
        Ok(content)
    }

    /// The file, opened if it is not open; what is only read may be of a kind that cannot be written.
    fn file(&self, name: &str, to_write: bool) -> io::Result<Arc<File>> {
        {
            let open = &mut *self.open();
            if let Some(kept) = open.files.get_mut(name).filter(|kept| kept.is_to_write || !to_write) {
                open.uses += 1;
                kept.used = open.uses;
                return Ok(Arc::clone(&kept.file));
            }
        }
        let path = self.path(name);
        let file = Arc::new(self.opening(|| OpenOptions::new().read(true).write(to_write).open(&path))?);
        self.keep(name, Arc::clone(&file), to_write);
        Ok(file)
    }

    /// Does what opens a file. If too many are open, those that are kept are closed, and it is tried once more.
    fn opening<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match open() {
            Err(error) if matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) => {
                self.open().files.clear();
                open()
            }
            done => done,
        }
    }

    fn keep(&self, name: &str, file: Arc<File>, is_to_write: bool) {
        let open = &mut *self.open();
        open.uses += 1;
        open.files.insert(name.to_owned(), Kept { file, is_to_write, used: open.uses });
        if open.files.len() > KEPT {
            let oldest = open.files.iter().min_by_key(|(_, kept)| kept.used).map(|(name, _)| name.clone());
            oldest.and_then(|name| open.files.remove(&name));
        }
    }

    /// Closes a file, or the files of a directory.
    fn forget(&self, name: &str) {
        let is_it = |open: &str| open.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.open().files.retain(|open, _| !is_it(open));
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn list(directory: &Path) -> io::Result<Vec<Found>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let found = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        // What a link leads to counts, unless it leads nowhere.
        let about = match fs::metadata(entry.path()).or_else(|_| entry.metadata()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            about => about?,
        };
        let length = (!about.is_dir()).then_some(about.len());
        // A name that is no text is nobody's here.
        Ok(entry.file_name().into_string().ok().map(|name| Found { name, length }))
    };
    let found: io::Result<Vec<_>> = entries.filter_map(|entry| found(entry).transpose()).collect();
    found.map(|mut found| {
        found.sort_unstable();
        found
    })
}
