//! Directories of the lying disk: what processes find in them, what is on the medium, and the changes in between.
//!
//! Of the changes since a directory's last fsync, a power cut leaves those before any point, as file systems with a
//! journal do, or any of them, as others may. What is in a directory whose own entry is lost is lost with it.

use super::file::File;
use nsq_core::random::Random;
use nsq_net_sim::disk::Found;
use std::collections::BTreeMap;
use std::{io, mem};

/// All files and directories that ever were, by number, and the names by which they are found; number 0 is the data
/// directory.
#[derive(Debug)]
pub(super) struct Tree(Vec<Node>);

#[derive(Debug)]
enum Node {
    File(File),
    Directory(Directory),
}

#[derive(Debug, Default)]
struct Directory {
    names: BTreeMap<String, usize>,
    kept: BTreeMap<String, usize>,
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Name(String, usize),
    Rename(String, String, usize),
    Gone(String, usize),
}

/// What a power cut did.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Files of which a part was lost.
    pub(super) torn: u64,
    /// Changes of directories.
    pub(super) undone: u64,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self(vec![Node::Directory(Directory::default())])
    }

    /// Makes a file, empty.
    pub(super) fn create(&mut self, name: &str) -> io::Result<()> {
        let (parent, name) = self.parent(name)?;
        if let Some(&number) = self.names(parent).get(name)
            && matches!(self.0[number], Node::Directory(_))
        {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.add(parent, name, Node::File(File::default()));
        Ok(())
    }

    pub(super) fn create_dir(&mut self, name: &str) -> io::Result<()> {
        let (parent, name) = self.parent(name)?;
        match self.names(parent).get(name) {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => {
                self.add(parent, name, Node::Directory(Directory::default()));
                Ok(())
            }
        }
    }

    fn add(&mut self, parent: usize, name: &str, node: Node) {
        self.0.push(node);
        let number = self.0.len() - 1;
        self.directory(parent).change(Change::Name(name.to_owned(), number));
    }

    /// # Errors
    /// If there is no such file.
    pub(super) fn file(&mut self, name: &str) -> io::Result<&mut File> {
        let number = self.find(name)?;
        match &mut self.0[number] {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let number = self.find(from)?;
        let ((parent, from), (other, to)) = (self.parent(from)?, self.parent(to)?);
        assert_eq!(parent, other, "the port renames within a directory");
        if let Some(&replaced) = self.names(parent).get(to).filter(|replaced| **replaced != number) {
            let fits = match (&self.0[number], &self.0[replaced]) {
                (Node::File(_), Node::File(_)) => true,
                (Node::Directory(_), Node::Directory(replaced)) => replaced.names.is_empty(),
                _ => false,
            };
            fits.then_some(()).ok_or_else(|| io::Error::other("what is in the way cannot be replaced"))?;
        }
        self.directory(parent).change(Change::Rename(from.to_owned(), to.to_owned(), number));
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        let Some(number) = missing_is_none(self.find(name))? else { return Ok(()) };
        if matches!(self.0[number], Node::Directory(_)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (parent, name) = self.parent(name)?;
        self.directory(parent).change(Change::Gone(name.to_owned(), number));
        Ok(())
    }

    /// Its files go one after the other, then it does; or only so many files, if it has more.
    pub(super) fn remove_dir(&mut self, name: &str, most: usize) -> io::Result<()> {
        let Some(number) = missing_is_none(self.find(name))? else { return Ok(()) };
        if matches!(self.0[number], Node::File(_)) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let gone: Vec<_> = self.names(number).iter().take(most).map(|(name, file)| (name.clone(), *file)).collect();
        gone.into_iter().for_each(|(name, file)| self.directory(number).change(Change::Gone(name, file)));
        if !self.names(number).is_empty() {
            return Ok(());
        }
        let (parent, name) = self.parent(name)?;
        self.directory(parent).change(Change::Gone(name.to_owned(), number));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, name: &str) -> io::Result<()> {
        let number = self.find_directory(name)?;
        self.directory(number).sync();
        Ok(())
    }

    /// The fsync of a directory fails, and no later one makes stay what had become of the files in it. How many changes
    /// those were.
    pub(super) fn fail_sync_dir(&mut self, name: &str) -> io::Result<u64> {
        let number = self.find_directory(name)?;
        let (dropped, changes): (Vec<_>, Vec<_>) = mem::take(&mut self.directory(number).changes)
            .into_iter()
            .partition(|change| matches!(self.0[change.number()], Node::File(_)));
        self.directory(number).changes = changes;
        Ok(dropped.len() as u64)
    }

    pub(super) fn list(&self, name: &str) -> io::Result<Vec<Found>> {
        let Some(number) = missing_is_none(self.find(name))? else { return Ok(Vec::new()) };
        let Node::Directory(directory) = &self.0[number] else { return Err(io::ErrorKind::NotADirectory.into()) };
        let found = |(name, number): (&String, &usize)| {
            let length = if let Node::File(file) = &self.0[*number] { Some(file.len() as u64) } else { None };
            Found { name: name.clone(), length }
        };
        Ok(directory.names.iter().map(found).collect())
    }

    /// The names and lengths of all files, with their directories.
    pub(super) fn files(&self) -> Vec<(String, u64)> {
        let mut files = Vec::new();
        let mut directories = vec![(String::new(), 0)];
        while let Some((path, number)) = directories.pop() {
            for (name, &number) in self.names(number) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                match &self.0[number] {
                    Node::File(file) => files.push((path, file.len() as u64)),
                    Node::Directory(_) => directories.push((path, number)),
                }
            }
        }
        files.sort_unstable();
        files
    }

    /// The bytes of all files.
    pub(super) fn used(&self) -> u64 {
        self.files().into_iter().map(|(_, length)| length).sum()
    }

    /// The process has ended.
    pub(super) fn kill(&mut self, random: &mut Random) {
        for node in &mut self.0 {
            if let Node::File(file) = node {
                file.forget_dropped(random);
            }
        }
    }

    /// Power is lost.
    pub(super) fn power_off(&mut self, random: &mut Random) -> Damage {
        let mut damage = Damage::default();
        for node in &mut self.0 {
            match node {
                Node::File(file) => damage.torn += u64::from(file.power_off(random)),
                Node::Directory(directory) => damage.undone += directory.power_off(random),
            }
        }
        damage
    }

    /// The directory that a name is in, and the name in there.
    fn parent<'a>(&self, name: &'a str) -> io::Result<(usize, &'a str)> {
        let (parent, name) = name.rsplit_once('/').unwrap_or(("", name));
        Ok((self.find_directory(parent)?, name))
    }

    fn find_directory(&self, name: &str) -> io::Result<usize> {
        let number = self.find(name)?;
        let is_directory = matches!(self.0[number], Node::Directory(_));
        if is_directory { Ok(number) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        let parts = name.split('/').filter(|part| !part.is_empty());
        parts.into_iter().try_fold(0, |number, part| match &self.0[number] {
            Node::Directory(directory) => {
                directory.names.get(part).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
            }
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        })
    }

    fn names(&self, number: usize) -> &BTreeMap<String, usize> {
        match &self.0[number] {
            Node::Directory(directory) => &directory.names,
            Node::File(_) => unreachable!("it was found to be a directory"),
        }
    }

    fn directory(&mut self, number: usize) -> &mut Directory {
        match &mut self.0[number] {
            Node::Directory(directory) => directory,
            Node::File(_) => unreachable!("it was found to be a directory"),
        }
    }
}

impl Directory {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn sync(&mut self) {
        let changes = mem::take(&mut self.changes);
        changes.iter().for_each(|change| change.apply(&mut self.kept));
    }

    /// How many changes are undone.
    fn power_off(&mut self, random: &mut Random) -> u64 {
        let changes = mem::take(&mut self.changes);
        let before = changes.len();
        let (has_journal, end) = (random.below(2) == 0, random.below(changes.len() as u64 + 1));
        let survivors =
            (0u64..).zip(changes).filter(|(at, _)| if has_journal { *at < end } else { random.below(2) == 0 });
        let survivors: Vec<_> = survivors.collect();
        survivors.iter().for_each(|(_, change)| change.apply(&mut self.kept));
        self.names.clone_from(&self.kept);
        (before - survivors.len()) as u64
    }
}

impl Change {
    /// Which file or directory it is about.
    const fn number(&self) -> usize {
        let (Self::Name(_, number) | Self::Rename(_, _, number) | Self::Gone(_, number)) = self;
        *number
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Name(name, number) => drop(names.insert(name.clone(), *number)),
            Self::Rename(from, to, _) => {
                // What was never there on the medium is not there under another name.
                if let Some(number) = names.remove(from) {
                    names.insert(to.clone(), number);
                }
            }
            Self::Gone(name, _) => drop(names.remove(name)),
        }
    }
}

fn missing_is_none(found: io::Result<usize>) -> io::Result<Option<usize>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What many power cuts make of a tree: its files with their lengths.
    fn outcomes(what: impl Fn(&mut Tree) -> io::Result<()>) -> BTreeSet<Vec<(String, u64)>> {
        let outcome = |seed| {
            let mut tree = Tree::new();
            what(&mut tree).expect("it can be done");
            tree.power_off(&mut Random::new(seed));
            tree.files()
        };
        (0..200).map(outcome).collect()
    }

    fn write(tree: &mut Tree, name: &str, bytes: &[u8]) -> io::Result<()> {
        tree.create(name)?;
        tree.file(name)?.write(0, bytes);
        tree.file(name)?.sync();
        Ok(())
    }

    #[test]
    fn what_was_done_in_a_directory_took_effect_or_not() {
        let seen = outcomes(|tree| {
            tree.create("a")?;
            tree.create("b")?;
            tree.remove("a")
        });
        let names: BTreeSet<String> =
            seen.iter().map(|files| files.iter().map(|(name, _)| &**name).collect::<String>()).collect();
        assert_eq!(names.iter().map(|names| &**names).collect::<Vec<_>>(), ["", "a", "ab", "b"]);
    }

    #[test]
    fn a_file_that_replaces_another_is_the_old_or_the_new_one() {
        let seen = outcomes(|tree| {
            write(tree, "file", b"old")?;
            tree.sync_dir("")?;
            write(tree, "tmp", b"newer")?;
            tree.rename("tmp", "file")
        });
        let seen: BTreeSet<_> = seen.into_iter().flatten().collect();
        let all = [("file", 3), ("file", 5), ("tmp", 5)].map(|(name, length)| (name.to_owned(), length));
        assert_eq!(seen, BTreeSet::from(all));
    }

    #[test]
    fn names_of_files_whose_fsync_failed_are_not_made_safe_by_a_later_one() {
        let seen = outcomes(|tree| {
            write(tree, "old", b"x")?;
            tree.create_dir("d")?;
            tree.sync_dir("")?;
            write(tree, "d/f", b"x")?;
            tree.sync_dir("d")?;
            tree.remove("old")?;
            write(tree, "new", b"x")?;
            tree.create_dir("g")?;
            assert_eq!(tree.fail_sync_dir("")?, 2);
            tree.rename("d", "e")?;
            tree.rename("g", "h")?;
            assert_eq!(tree.fail_sync_dir("")?, 0);
            assert_eq!(tree.files().iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["e/f", "new"]);
            write(tree, "h/f", b"x")?;
            tree.sync_dir("h")?;
            write(tree, "newer", b"x")?;
            tree.sync_dir("")
        });
        let all = ["e/f", "h/f", "newer", "old"].map(|name| (name.to_owned(), 1));
        assert_eq!(seen, BTreeSet::from([all.to_vec()]));
    }

    #[test]
    fn what_is_in_a_directory_is_lost_with_it() {
        let seen = outcomes(|tree| {
            tree.create_dir("d")?;
            write(tree, "d/f", b"x")?;
            tree.sync_dir("d")
        });
        assert_eq!(seen, BTreeSet::from([vec![], vec![("d/f".to_owned(), 1)]]));
    }
}
