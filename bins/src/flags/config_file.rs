//! `--config`: a TOML file whose keys are options, each read by the flag of that key. In come the file's path and a
//! parsed command line; what the command line did not say, the file says, and warnings and refusals follow as if it had
//! been typed. The rule: a file that cannot be used ends the program, for nobody knows what was to be in it, and what
//! upstream passes over in silence is told (spec: http_flags_tools §3.0).

use super::{Flag, Parsed, Refusal};
use crate::os_error::os_error;
use std::fs;
use toml::{Table, Value};

/// Reads the file at `path`, if that is not empty.
///
/// # Errors
/// The text of the fatal line.
pub fn read<T>(path: &str, flags: &[Flag<T>], parsed: &mut Parsed<T>) -> Result<(), String> {
    if path.is_empty() {
        return Ok(());
    }
    let failed = |why: String| format!("failed to load config file {path} - {why}");
    let text = fs::read_to_string(path).map_err(|error| failed(format!("open {path}: {}", os_error(&error))))?;
    for (key, value) in parse(&text).map_err(failed)? {
        match flags.iter().find(|flag| flag.key == Some(&key)) {
            Some(flag) if parsed.given.contains(&flag.name) => {}
            Some(flag) => {
                take(flag, parsed, &value).map_err(|why| failed(format!("invalid value for {key}: {why}")))?;
            }
            None => parsed.ignored.push(format!("{path}: {}", unknown(&key, flags))),
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<Table, String> {
    text.parse::<Table>().map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        format!("line {}: {}", before.matches('\n').count() + 1, error.message())
    })
}

fn take<T>(flag: &Flag<T>, parsed: &mut Parsed<T>, value: &Value) -> Result<(), String> {
    let (Refusal::Value(why) | Refusal::Fatal(why)) = match (flag.value)(&mut parsed.options).read(value) {
        Ok(()) => {
            parsed.given.push(flag.name);
            return Ok(());
        }
        Err(refusal) => refusal,
    };
    Err(why)
}

/// What is said of a key that is none; whoever has written a flag's name learns the key.
fn unknown<T>(key: &str, flags: &[Flag<T>]) -> String {
    let meant = flags.iter().find(|flag| flag.name == key || flag.name.replace('-', "_") == key);
    match meant.and_then(|flag| flag.key) {
        Some(meant) => format!("{key} is no key and has no effect, {meant} is one"),
        None => format!("{key} is no key and has no effect"),
    }
}
