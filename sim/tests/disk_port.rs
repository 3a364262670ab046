//! What both disks have to do: the machine's and the simulator's, without faults.
//!
//! First sentences, then any operations in any order, of which each disk must make the same.
#![cfg(madsim)]

use bytes::Bytes;
use nsq_core::random::Random;
use nsq_net_sim::disk::{Content, Directory, Disk, Found, Op, Outcome};
use nsq_sim::disk::SimDisk;
use nsq_sim::runner::{Sim, sweep};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Operations, and what each gives; `None` is any failure that has no name of its own.
type Sentence = (&'static str, Vec<(Op, Result<Outcome, Option<ErrorKind>>)>);

const DONE: Result<Outcome, Option<ErrorKind>> = Ok(Outcome::Done);
const MISSING: Result<Outcome, Option<ErrorKind>> = Err(Some(ErrorKind::NotFound));
const FAILS: Result<Outcome, Option<ErrorKind>> = Err(None);

fn create(name: &str) -> Op {
    Op::Create(name.into())
}

fn write(name: &str, offset: u64, bytes: &'static [u8]) -> Op {
    Op::Write(name.into(), offset, Content::Whole(Bytes::from_static(bytes)))
}

fn read(name: &str, offset: u64, length: usize) -> Op {
    Op::Read(name.into(), offset, length)
}

fn rename(from: &str, to: &str) -> Op {
    Op::Rename(from.into(), to.into())
}

fn list(name: &str) -> Op {
    Op::List(name.into())
}

fn content(bytes: &[u8]) -> Result<Outcome, Option<ErrorKind>> {
    Ok(Outcome::Content(bytes.into()))
}

fn found(all: &[(&str, Option<u64>)]) -> Result<Outcome, Option<ErrorKind>> {
    Ok(Outcome::List(all.iter().map(|&(name, length)| Found { name: name.into(), length }).collect()))
}

fn files() -> Vec<Sentence> {
    let dir = |op: fn(String) -> Op| op("d".into());
    vec![
        ("a file that was created is there, and empty", vec![(create("f"), DONE), (read("f", 0, 10), content(b""))]),
        (
            "what is created again is empty again",
            vec![
                (create("f"), DONE),
                (write("f", 0, b"old"), DONE),
                (create("f"), DONE),
                (read("f", 0, 9), content(b"")),
            ],
        ),
        ("nothing is written to what is not there", vec![(write("f", 0, b"x"), MISSING), (list(""), found(&[]))]),
        ("nothing is created where there is no directory", vec![(create("d/f"), MISSING)]),
        (
            "what lies between the end and a write is zero",
            vec![(create("f"), DONE), (write("f", 3, b"x"), DONE), (read("f", 0, 9), content(b"\0\0\0x"))],
        ),
        (
            "a write replaces what was there, and no more",
            vec![
                (create("f"), DONE),
                (write("f", 0, b"abcdef"), DONE),
                (write("f", 2, b"XY"), DONE),
                (read("f", 0, 9), content(b"abXYef")),
            ],
        ),
        (
            "a write of nothing makes nothing longer",
            vec![(create("f"), DONE), (write("f", 5, b""), DONE), (read("f", 0, 9), content(b""))],
        ),
        (
            "a read ends where the file does",
            vec![
                (create("f"), DONE),
                (write("f", 0, b"abc"), DONE),
                (read("f", 1, 1), content(b"b")),
                (read("f", 1, usize::MAX), content(b"bc")),
                (read("f", 3, 1), content(b"")),
                (read("f", 1000, 1), content(b"")),
            ],
        ),
        ("what is not there cannot be read", vec![(read("f", 0, 1), MISSING), (read("d/f", 0, 1), MISSING)]),
        ("what is not there cannot be synced", vec![(Op::Sync("f".into()), MISSING), (dir(Op::SyncDir), MISSING)]),
        (
            "a file is removed, and that there is none is no failure",
            vec![
                (create("f"), DONE),
                (Op::Remove("f".into()), DONE),
                (read("f", 0, 1), MISSING),
                (write("f", 0, b"x"), MISSING),
                (Op::Remove("f".into()), DONE),
                (Op::Remove("d/f".into()), DONE),
            ],
        ),
        (
            "a file that was removed and created is another one",
            vec![
                (create("f"), DONE),
                (write("f", 0, b"old"), DONE),
                (Op::Sync("f".into()), DONE),
                (Op::Remove("f".into()), DONE),
                (create("f"), DONE),
                (read("f", 0, 9), content(b"")),
            ],
        ),
    ]
}

fn names() -> Vec<Sentence> {
    vec![
        (
            "a file that is renamed replaces the other",
            vec![
                (create("f"), DONE),
                (write("f", 0, b"new"), DONE),
                (create("g"), DONE),
                (write("g", 0, b"old one"), DONE),
                (rename("f", "g"), DONE),
                (read("g", 0, 9), content(b"new")),
                (write("g", 3, b"er"), DONE),
                (read("g", 0, 9), content(b"newer")),
                (read("f", 0, 9), MISSING),
            ],
        ),
        ("what is not there cannot be renamed", vec![(create("g"), DONE), (rename("f", "g"), MISSING)]),
        (
            "what is in a directory is listed in the order of the names, with lengths",
            vec![
                (create("b"), DONE),
                (write("b", 4, b"x"), DONE),
                (Op::CreateDir("c".into()), DONE),
                (create("a"), DONE),
                (create("c/f"), DONE),
                (list(""), found(&[("a", Some(0)), ("b", Some(5)), ("c", None)])),
                (list("c"), found(&[("f", Some(0))])),
            ],
        ),
    ]
}

fn directories() -> Vec<Sentence> {
    let dir = |op: fn(String) -> Op| op("d".into());
    vec![
        (
            "a directory is made once, and keeps what is in it",
            vec![
                (dir(Op::CreateDir), DONE),
                (create("d/f"), DONE),
                (dir(Op::CreateDir), FAILS),
                (read("d/f", 0, 1), content(b"")),
                (dir(Op::SyncDir), DONE),
                (Op::SyncDir(String::new()), DONE),
            ],
        ),
        ("a directory is not made in one that is not there", vec![(Op::CreateDir("d/e".into()), MISSING)]),
        ("a directory is not made where a file is", vec![(create("d"), DONE), (dir(Op::CreateDir), FAILS)]),
        (
            "a directory is renamed with all that is in it",
            vec![
                (dir(Op::CreateDir), DONE),
                (create("d/f"), DONE),
                (write("d/f", 0, b"x"), DONE),
                (rename("d", "e"), DONE),
                (read("e/f", 0, 9), content(b"x")),
                (write("e/f", 1, b"y"), DONE),
                (read("d/f", 0, 9), MISSING),
                (write("d/f", 0, b"z"), MISSING),
                (read("e/f", 0, 9), content(b"xy")),
            ],
        ),
        (
            "a directory is removed with all that is in it, and that there is none is no failure",
            vec![
                (dir(Op::CreateDir), DONE),
                (create("d/f"), DONE),
                (write("d/f", 0, b"x"), DONE),
                (dir(Op::RemoveDir), DONE),
                (read("d/f", 0, 9), MISSING),
                (list("d"), found(&[])),
                (dir(Op::RemoveDir), DONE),
                (dir(Op::CreateDir), DONE),
                (list("d"), found(&[])),
            ],
        ),
        (
            "where there is no directory there is nothing to list",
            vec![(list("d"), found(&[])), (list("d/e"), found(&[]))],
        ),
    ]
}

/// A directory of this machine, empty, and the simulator's disk.
fn disks(sim: &Sim) -> (tempfile::TempDir, Directory, SimDisk) {
    let root = tempfile::tempdir().expect("a directory for tests");
    let directory = Directory::new(root.path());
    (root, directory, SimDisk::new(sim.seed(), |_, _| {}))
}

fn seen(result: io::Result<Outcome>) -> Result<Outcome, Option<ErrorKind>> {
    result.map_err(|error| Some(error.kind()).filter(|kind| *kind == ErrorKind::NotFound))
}

#[test]
fn a_disk_does_what_the_port_says() {
    sweep("a_disk_does_what_the_port_says", 0..1, async |sim: Sim| {
        for (sentence, steps) in [files(), names(), directories()].into_iter().flatten() {
            let (_root, directory, simulated) = disks(&sim);
            for (number, (op, expected)) in steps.into_iter().enumerate() {
                for (name, disk) in [("machine", &directory as &dyn Disk), ("simulator", &simulated)] {
                    let got = seen(disk.run(op.clone()).await);
                    assert_eq!(got, expected, "{sentence}: step {number}, {op:?}, on the {name}'s disk");
                }
            }
        }
    });
}

/// Few names, so that operations meet.
fn any(random: &mut Random) -> Op {
    let number = random.below(1000);
    let file = |random: &mut Random| ["f", "g", "d/f", "d/g", "e/f"][random.below(5) as usize].to_owned();
    let directory = |random: &mut Random| ["d", "e"][random.below(2) as usize].to_owned();
    let (offset, length) = (random.below(40), random.below(20) as usize);
    match random.below(14) {
        0 | 1 => Op::Create(file(random)),
        2..=4 => {
            let bytes = Bytes::from(format!("<{number}>").repeat(random.below(4) as usize));
            Op::Write(file(random), offset, Content::Whole(bytes))
        }
        5 => Op::Sync(file(random)),
        6 | 7 => Op::Read(file(random), offset, length),
        8 => match random.below(3) {
            0 => rename("f", "g"),
            1 => rename("d/g", "d/f"),
            _ => rename("d", "e"),
        },
        9 => Op::Remove(file(random)),
        10 => Op::CreateDir(directory(random)),
        11 => Op::RemoveDir(directory(random)),
        12 => Op::SyncDir(directory(random)),
        _ => Op::List(["", "d", "e"][random.below(3) as usize].into()),
    }
}

#[test]
fn both_disks_make_the_same_of_anything() {
    sweep("both_disks_make_the_same_of_anything", 0..50, async |sim: Sim| {
        let (_root, directory, simulated) = disks(&sim);
        let mut random = Random::new(sim.seed());
        for number in 0..200 {
            let op = any(&mut random);
            let (there, here) = (directory.run(op.clone()).await, simulated.run(op.clone()).await);
            assert_eq!(seen(there), seen(here), "operation {number}, {op:?}");
        }
    });
}

#[test]
fn an_operation_goes_on_if_nobody_waits_for_it() {
    sweep("an_operation_goes_on_if_nobody_waits_for_it", 0..1, async |sim: Sim| {
        let (root, directory, simulated) = disks(&sim);
        for disk in [&directory as &dyn Disk, &simulated] {
            drop(disk.run(create("f")));
        }
        madsim::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(Path::exists(&root.path().join("f")));
        assert_eq!(simulated.files(), [("f".to_owned(), 0)]);
    });
}

#[test]
fn what_fails_is_done_or_not_and_reads_fail_less_often_than_a_start_tries() {
    let name = "what_fails_is_done_or_not_and_reads_fail_less_often_than_a_start_tries";
    sweep(name, 0..20, async |sim: Sim| {
        sim.require(&["done", "not_done"]);
        let disk = SimDisk::new(sim.seed(), |_, _| {});
        disk.configure(|faults| faults.fail_one_in = 1);
        seen(disk.run(create("f")).await).expect_err("it fails");
        sim.count(if disk.files().is_empty() { "not_done" } else { "done" }, 1);
        disk.configure(|faults| faults.of_others = true);
        seen(disk.run(create("g")).await).expect_err("it fails");
        assert!(disk.files().iter().all(|(name, _)| name != "g"), "whoever may not do it has done nothing");
        disk.configure(|faults| *faults = Default::default());
        seen(disk.run(create("f")).await).expect("it works");
        disk.configure(|faults| faults.fail_reads_one_in = 1);
        let mut tries = 1;
        while disk.run(Op::Read("f".into(), 0, 1)).await.is_err() {
            tries += 1;
        }
        assert_eq!(tries, 4);
        disk.configure(|faults| faults.of_others = true);
        for _ in 0..10 {
            seen(disk.run(list("")).await).expect_err("that may last");
        }
    });
}
