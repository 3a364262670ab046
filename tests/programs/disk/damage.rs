//! Files that were damaged while nsqd was away: it starts, says what is lost and where, and loses nothing else.

use super::{Nsqd, directory, files, publish, run};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

const MESSAGES: u64 = 500;
const BODY: usize = 1000;
/// Several segments.
const FLAGS: [&str; 2] = ["--mem-queue-size=0", "--max-bytes-per-file=100000"];

/// Two topics of one channel each, both with messages 0 to `MESSAGES` on disk, and nsqd ended or killed.
fn filled(kill: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let nsqd = Nsqd::start(dir.path(), &FLAGS);
    for topic in ["hurt", "fine"] {
        nsqd.create(topic, "c");
        run(async { publish(&mut nsqd.producer().await, topic, 0..MESSAGES, BODY).await });
    }
    if kill {
        nsqd.kill();
    } else {
        nsqd.stop();
    }
    assert!(files(&directory(dir.path(), "hurt"), ".log").len() >= 4);
    dir
}

/// Starts nsqd on what is left. What has become of the damaged topic's messages, and the log of the start.
fn survivors(dir: &Path) -> (Vec<u64>, String) {
    let nsqd = Nsqd::start(dir, &FLAGS);
    assert_eq!(nsqd.ping(), (200, "OK".to_owned()), "{}", nsqd.log());
    let left = run(nsqd.drain("hurt", "c"));
    assert_eq!(run(nsqd.drain("fine", "c")), Vec::from_iter(0..MESSAGES), "another topic is none of its business");
    let log = nsqd.log();
    assert!(!log.contains("TOPIC(fine): topics/"), "{log}");
    // It goes on, and what was damaged does not come back.
    run(async { publish(&mut nsqd.producer().await, "hurt", 1000..1010, BODY).await });
    nsqd.stop();
    let nsqd = Nsqd::start(dir, &FLAGS);
    assert_eq!(run(nsqd.drain("hurt", "c")), Vec::from_iter(1000..1010));
    nsqd.stop();
    (left, log)
}

fn flip(file: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
}

/// The line of the log that tells of a file.
fn line<'a>(log: &'a str, file: &Path) -> &'a str {
    let (directory, file) = (file.parent().unwrap().file_name().unwrap(), file.file_name().unwrap());
    let place = format!("TOPIC(hurt): topics/{}/{}", directory.display(), file.display());
    let found = log.lines().find(|line| line.contains(&place));
    found.unwrap_or_else(|| panic!("nothing about {place}:\n{log}"))
}

fn is_contained_in_order(left: &[u64], at_least: usize) {
    assert!(left.len() >= at_least, "{} of {MESSAGES} are left, which is less than {at_least}", left.len());
    assert!(left.is_sorted_by(|a, b| a < b) && left.last() < Some(&MESSAGES));
}

#[test]
fn a_flipped_byte_costs_one_message() {
    let dir = filled(false);
    let file = files(&directory(dir.path(), "hurt"), ".log").swap_remove(1);
    flip(&file, fs::metadata(&file).unwrap().len() / 2);

    let (left, log) = survivors(dir.path());
    assert_eq!(left.len() as u64, MESSAGES - 1, "one message is lost and no other");
    assert!(log.contains(file.file_name().unwrap().to_str().unwrap()), "the file is named:\n{log}");
    assert!(log.contains("damaged"), "{log}");
}

#[test]
fn damage_in_many_places_is_told_in_a_few_lines_and_loss_without_a_file() {
    let dir = filled(false);
    let file = files(&directory(dir.path(), "hurt"), ".log").swap_remove(1);
    let length = fs::metadata(&file).unwrap().len();
    (1..50).for_each(|part| flip(&file, length / 50 * part));
    let (_, log) = survivors(dir.path());
    let directory = directory(dir.path(), "hurt");
    let name = directory.file_name().unwrap().display();
    let told: Vec<_> = log.lines().filter(|line| line.contains(" is damaged")).collect();
    assert_eq!(told.len(), 21, "{log}");
    assert!(told[20].contains(&format!(" ERROR: TOPIC(hurt): topics/{name} is damaged in ")), "{log}");
    assert!(told[20].ends_with(" bytes"), "{log}");
}

#[test]
fn what_was_set_aside_is_called_so() {
    let dir = filled(false);
    let aside = directory(dir.path(), "hurt").join("0000000f.journal.unreadable");
    fs::write(&aside, "").unwrap();
    let (_, log) = survivors(dir.path());
    assert!(log.contains("0000000f.journal.unreadable was set aside, it is left alone"), "{log}");
    assert!(!log.contains("is none of this topic's files"), "{log}");
}

#[test]
fn an_nsqd_dat_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("data/nsqd.dat")).unwrap();
    let mut nsqd = crate::program::Program::start(super::command(dir.path(), &[]), dir.path());
    assert_eq!(nsqd.status(), 1);
    let log = nsqd.stderr();
    let why = "failed to load metadata - cannot read nsqd.dat - Is a directory (in the directory data)";
    assert!(log.ends_with(&format!(" FATAL: {why}\n")), "{log}");
}

#[test]
fn a_segment_that_was_cut_loses_its_end() {
    let dir = filled(false);
    let file = files(&directory(dir.path(), "hurt"), ".log").swap_remove(1);
    let length = fs::metadata(&file).unwrap().len();
    OpenOptions::new().write(true).open(&file).unwrap().set_len(length / 2).unwrap();

    let (left, log) = survivors(dir.path());
    is_contained_in_order(&left, MESSAGES as usize - 100);
    assert!((left.len() as u64) < MESSAGES, "half a segment is missing");
    line(&log, &file);
}

/// What is done to a segment.
type Harm = fn(&File, u64);

#[test]
fn what_was_safe_and_is_gone_is_lost_and_counted() {
    let harms: [(&str, Harm); 5] = [
        ("empty", |file, _| file.set_len(0).unwrap()),
        ("its head only", |file, _| file.set_len(64).unwrap()),
        ("half of it", |file, length| file.set_len(length / 2).unwrap()),
        ("zeros from the middle on", |file, length| {
            file.write_all_at(&vec![0; (length - length / 2) as usize], length / 2).unwrap();
        }),
        ("nonsense", |file, length| file.write_all_at(&vec![0x5a; length as usize], 0).unwrap()),
    ];
    for (what, harm) in harms {
        for is_last in [false, true] {
            let dir = filled(false);
            let mut segments = files(&directory(dir.path(), "hurt"), ".log");
            let path = if is_last { segments.pop().unwrap() } else { segments.swap_remove(1) };
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            harm(&file, file.metadata().unwrap().len());

            let (left, log) = survivors(dir.path());
            assert!((left.len() as u64) < MESSAGES, "{what}");
            // A message that was cut in two may be told of by itself.
            let lost = MESSAGES - left.len() as u64;
            let is_told = |count| log.contains(&format!("at least {count} messages of channel c are lost"));
            assert!(is_told(lost) || is_told(lost - 1), "{what}, the last one: {is_last}: not {lost} in\n{log}");
            assert!(line(&log, &path).contains("ERROR"), "{log}");
            let aside = path.with_file_name(format!("{}.unreadable", path.file_name().unwrap().display()));
            assert_eq!(aside.exists(), ["empty", "its head only", "nonsense"].contains(&what), "{what}\n{log}");
        }
    }
}

#[test]
fn a_torn_tail_costs_what_was_not_written_to_its_end() {
    let dir = filled(true);
    let file = files(&directory(dir.path(), "hurt"), ".log").pop().unwrap();
    let content = fs::read(&file).unwrap();
    let end = content.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1;
    OpenOptions::new().write(true).open(&file).unwrap().set_len(end - 500).unwrap();

    let (left, log) = survivors(dir.path());
    assert_eq!(left, Vec::from_iter(0..MESSAGES - 1), "the last message was half written");
    assert!(line(&log, &file).contains("not written to their end") || line(&log, &file).contains("damaged"), "{log}");
}

#[test]
fn a_segment_that_is_missing_is_reported_and_nothing_else_is_lost() {
    let dir = filled(false);
    let file = files(&directory(dir.path(), "hurt"), ".log").swap_remove(1);
    fs::remove_file(&file).unwrap();

    let (left, log) = survivors(dir.path());
    is_contained_in_order(&left, MESSAGES as usize - 150);
    assert!(line(&log, &file).ends_with(" is missing, and the messages in it are lost"), "{log}");
}

#[test]
fn a_segment_that_cannot_be_opened_is_reported_and_nothing_else_is_lost() {
    let dir = filled(false);
    let file = files(&directory(dir.path(), "hurt"), ".log").swap_remove(1);
    // Not even root can open what points to itself, where a mode of 0 would stop nobody.
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&file, &file).unwrap();

    let (left, log) = survivors(dir.path());
    is_contained_in_order(&left, MESSAGES as usize - 150);
    line(&log, &file);
    let aside = file.with_file_name(format!("{}.unreadable", file.file_name().unwrap().display()));
    assert!(aside.is_symlink() && !file.is_symlink(), "what cannot be read is set aside");
}

#[test]
fn without_its_journal_a_topic_delivers_everything_again() {
    let dir = filled(false);
    let journals = files(&directory(dir.path(), "hurt"), ".journal");
    assert!(!journals.is_empty());
    journals.iter().for_each(|journal| fs::remove_file(journal).unwrap());

    let (left, log) = survivors(dir.path());
    assert_eq!(left, Vec::from_iter(0..MESSAGES), "{log}");
}

#[test]
fn a_damaged_journal_loses_nothing() {
    for offset in [3, 70] {
        let dir = filled(false);
        let journal = files(&directory(dir.path(), "hurt"), ".journal").pop().unwrap();
        flip(&journal, offset);

        let (left, log) = survivors(dir.path());
        assert_eq!(left, Vec::from_iter(0..MESSAGES), "{log}");
        line(&log, &journal);
    }
}

#[test]
fn what_is_none_of_nsqds_files_is_left_alone() {
    let dir = filled(true);
    let topics = dir.path().join("data/topics");
    let strays = ["stray", "stray.0000000000000001", "hurt.1/x.log"].map(|name| topics.join(name));
    fs::create_dir(strays[2].parent().unwrap()).unwrap();
    let inside = directory(dir.path(), "fine").join("notes.txt");
    let strays = [&strays[..], &[inside]].concat();
    strays.iter().for_each(|path| fs::write(path, "mine").unwrap());
    let nsqd = Nsqd::start(dir.path(), &FLAGS);
    for topic in ["hurt", "fine"] {
        assert_eq!(run(nsqd.drain(topic, "c")), Vec::from_iter(0..MESSAGES), "{topic}");
    }
    nsqd.stop();
    strays.iter().for_each(|path| assert_eq!(fs::read_to_string(path).unwrap(), "mine", "{path:?}"));
}

#[test]
fn an_nsqd_dat_that_is_missing_empty_or_broken_loses_no_message() {
    for (kill, content) in [(false, None), (true, None), (false, Some("")), (true, Some(r#"{"topics":[{"na"#))] {
        let dir = filled(kill);
        let metadata = dir.path().join("data/nsqd.dat");
        match content {
            None => fs::remove_file(&metadata).unwrap(),
            Some(content) => fs::write(&metadata, content).unwrap(),
        }
        let (left, log) = survivors(dir.path());
        assert_eq!(left, Vec::from_iter(0..MESSAGES), "{log}");
        let kept = dir.path().join("data/nsqd.dat.bad");
        assert_eq!(fs::read_to_string(kept).ok().as_deref(), content);
        assert_eq!(log.contains("failed to parse nsqd.dat"), content.is_some(), "{log}");
    }
}
