//! The real disk: a directory of the machine and the files in it that are open.
//!
//! A file that was written stays open for a while: to open it anew for each write costs more than small writes do, and
//! an error of the medium is told to those who had the file open when it happened. When the process may not open any
//! more they all give way. Blocking calls only; nobody in here waits for a lock while the disk works.

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
    /// How often names have lost their files: what was opened before may have no name any more.
    forgotten: u64,
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
        let file = Arc::new(self.opening(|| options.open(self.path(name)))?);
        self.open().keep(name, file, true);
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
        let forgotten = {
            let open = &mut *self.open();
            if let Some(kept) = open.files.get_mut(name).filter(|kept| kept.is_to_write || !to_write) {
                open.uses += 1;
                kept.used = open.uses;
                return Ok(Arc::clone(&kept.file));
            }
            open.forgotten
        };
        let path = self.path(name);
        let file = Arc::new(self.opening(|| OpenOptions::new().read(true).write(to_write).open(&path))?);
        self.keep_since(forgotten, name, &file, to_write);
        Ok(file)
    }

    /// Keeps a file that was opened after so many were forgotten, unless its name may have gone meanwhile: its room
    /// would not come back, or whoever opens a new file of that name would get this one.
    fn keep_since(&self, forgotten: u64, name: &str, file: &Arc<File>, is_to_write: bool) {
        let open = &mut *self.open();
        if open.forgotten == forgotten {
            open.keep(name, Arc::clone(file), is_to_write);
        }
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

    /// Closes a file, or the files of a directory.
    fn forget(&self, name: &str) {
        let is_it = |open: &str| open.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let open = &mut *self.open();
        open.forgotten += 1;
        open.files.retain(|open, _| !is_it(open));
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn keep(&mut self, name: &str, file: Arc<File>, is_to_write: bool) {
        self.uses += 1;
        self.files.insert(name.to_owned(), Kept { file, is_to_write, used: self.uses });
        if self.files.len() > KEPT {
            let oldest = self.files.iter().min_by_key(|(_, kept)| kept.used).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.files.remove(&name));
        }
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
    let found: io::Result<Vec<_>> =
        entries.filter_map(|entry| entry.and_then(|entry| found(&entry)).transpose()).collect();
    found.map(|mut found| {
        found.sort_unstable();
        found
    })
}

/// What an entry of a directory is; nothing if it has gone since it was listed, or if its name is no text.
fn found(entry: &fs::DirEntry) -> io::Result<Option<Found>> {
    // What a link leads to counts, unless it leads nowhere.
    let about = match fs::metadata(entry.path()).or_else(|_| entry.metadata()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        about => about?,
    };
    let length = (!about.is_dir()).then_some(about.len());
    // A name that is no text is nobody's here.
    Ok(entry.file_name().into_string().ok().map(|name| Found { name, length }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::{Duration, Instant};
    use tempfile::TempDir;

    fn files() -> (TempDir, Files) {
        let dir = TempDir::new().unwrap();
        let files = Files::new(dir.path().to_owned());
        fs::write(dir.path().join("f"), "content").unwrap();
        (dir, files)
    }

    fn read(files: &Files) -> io::Result<Vec<u8>> {
        files.perform(Op::Read("f".into(), 0, 100)).map(Outcome::content)
    }

    #[test]
    fn a_file_goes_before_it_is_forgotten() {
        let (_dir, files) = files();
        assert_eq!(read(&files).unwrap(), b"content");
        let open = files.open();
        thread::scope(|threads| {
            let removing = threads.spawn(|| files.perform(Op::Remove("f".into())));
            // It cannot forget it yet. If it wanted to do that first, the name would stay.
            let begun = Instant::now();
            while files.path("f").exists() {
                assert!(begun.elapsed() < Duration::from_secs(10), "whoever reads now would keep it");
                thread::yield_now();
            }
            assert!(open.files.contains_key("f"));
            drop(open);
            assert_eq!(removing.join().unwrap().unwrap(), Outcome::Done);
        });
        assert!(files.open().files.is_empty());
        assert_eq!(read(&files).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_goes_while_it_is_opened_is_not_kept() {
        let (_dir, files) = files();
        let forgotten = files.open().forgotten;
        let file = Arc::new(File::open(files.path("f")).unwrap());
        files.perform(Op::Remove("f".into())).unwrap();
        files.keep_since(forgotten, "f", &file, false);
        assert!(files.open().files.is_empty(), "its room would not come back");
        let forgotten = files.open().forgotten;
        files.keep_since(forgotten, "f", &file, false);
        assert!(files.open().files.contains_key("f"), "others are kept");
    }

    #[test]
    fn what_goes_while_a_directory_is_listed_is_not_in_the_list() {
        let (dir, files) = files();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        let entries: Vec<_> = fs::read_dir(dir.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(entries.len(), 2);
        fs::remove_file(dir.path().join("f")).unwrap();
        let found: Vec<_> = entries.iter().filter_map(|entry| found(entry).unwrap()).collect();
        let link = Found { name: "link".into(), length: Some("nowhere".len() as u64) };
        assert_eq!(files.perform(Op::List(String::new())).unwrap().list(), found);
        assert_eq!(found, [link], "and no failure");
    }
}
