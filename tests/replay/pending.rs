//! The list of transcripts that are not expected to replay yet: `pending.txt`.
//!
//! A line is `NAME  REASON`. Such a transcript is replayed all the same, and passing is a failure until its line
//! is removed: the list can only shrink. `NAME  differs: REASON` is for upstream behaviour we chose not to share;
//! it is never replayed, and stands only for transcripts that say themselves `differs: allowed`.

use std::collections::BTreeMap;

use super::transcript::Transcript;

#[derive(Debug, Default)]
pub(crate) struct Pending(BTreeMap<String, Entry>);

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) differs: bool,
    pub(crate) reason: String,
}

impl Pending {
    /// Reads the list and checks it against the transcripts there are.
    pub(crate) fn parse(source: &str, transcripts: &[Transcript]) -> Result<Self, String> {
        let mut entries = BTreeMap::new();
        for (number, line) in source.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |error: &str| format!("pending.txt:{}: {error}: {line}", number + 1);
            let (name, reason) = line.split_once(' ').ok_or_else(|| at("no reason"))?;
            let transcript = transcripts.iter().find(|transcript| transcript.name == name);
            let transcript = transcript.ok_or_else(|| at("no such transcript"))?;
            let (differs, reason) = match reason.trim().strip_prefix("differs: ") {
                Some(reason) => (true, reason),
                None => (false, reason.trim()),
            };
            if differs && !transcript.may_differ {
                return Err(at("this transcript must be matched, it is not marked `differs: allowed`"));
            }
            if entries.insert(name.to_owned(), Entry { differs, reason: reason.to_owned() }).is_some() {
                return Err(at("listed twice"));
            }
        }
        Ok(Self(entries))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.0.get(name)
    }
}
