//! Go's flag syntax over a table: every program declares its options once with [`options!`](crate::options); parsing,
//! the usage text, config keys and `GET /config/:opt` all come from that list. In come the words of the command line
//! and a config file, out come the filled struct and the names that were given, or the way to stop. The rule: what an
//! operator types for upstream works here, to the error texts and exit codes (spec: http_flags_tools §3.0).

pub mod config_file;
pub mod syntax;
mod value;

pub use value::{ConfigValue, Percentiles, Refusal, Value};

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

/// One flag of a program whose options are a `T`.
pub struct Flag<T: 'static> {
    /// As typed, without dashes.
    pub name: &'static str,
    /// The config-file key; `None` for what only the command line may say.
    pub key: Option<&'static str>,
    /// One line of help.
    pub usage: &'static str,
    /// Whether anything comes of it.
    pub effect: Effect,
    /// The field that the flag sets.
    pub value: fn(&mut T) -> &mut dyn Value,
}

impl<T> Flag<T> {
    /// A flag whose config key is `key`; the [`options!`](crate::options) macro calls this with the field's name.
    pub const fn new(
        name: &'static str,
        key: &'static str,
        usage: &'static str,
        value: fn(&mut T) -> &mut dyn Value,
    ) -> Self {
        Self { name, key: Some(key), usage, effect: Effect::Works, value }
    }

    /// Not in the config file and not under `/config`.
    pub const fn command_line_only(mut self) -> Self {
        self.key = None;
        self
    }

    /// Accepted, but this build lacks the feature it asks for.
    pub const fn missing(mut self, feature: &'static str) -> Self {
        self.effect = Effect::Missing(feature);
        self
    }

    /// Accepted for the sake of old command lines.
    pub const fn obsolete(mut self) -> Self {
        self.effect = Effect::Obsolete;
        self
    }
}

/// What comes of a flag. Whoever asks for something that has no effect is [warned](warnings).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// What its usage says.
    Works,
    /// Nothing yet: the feature does not exist in this build.
    Missing(&'static str),
    /// Nothing any more.
    Obsolete,
}

/// Declares a program's options: per line a field (which is the config key), its type and default, the flag, its help.
///
/// It makes the struct, `NAME::new(parameter)` with the defaults, and the table `NAME::FLAGS`. Method calls after the
/// help adjust the [`Flag`].
#[macro_export]
macro_rules! options {
    (
        $(#[$meta:meta])*
        $visibility:vis struct $name:ident($($parameter:ident: $parameter_type:ty)?);
        $($field:ident: $type:ty = $default:expr, $flag:literal, $usage:literal $(, $method:ident($($arg:expr)?))*;)*
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $visibility struct $name {
            $(#[doc = concat!("`--", $flag, "`: ", $usage, ".")] $visibility $field: $type,)*
        }

        impl $name {
            /// Every flag, in the order of declaration.
            $visibility const FLAGS: &[$crate::flags::Flag<Self>] = &[$(
                $crate::flags::Flag::new($flag, stringify!($field), $usage, |options: &mut Self| &mut options.$field)
                    $(.$method($($arg)?))*,
            )*];

            /// The defaults.
            $visibility fn new($($parameter: $parameter_type)?) -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

/// What a command line said.
#[derive(Debug)]
pub struct Parsed<T> {
    /// The defaults, changed by the flags that were given.
    pub options: T,
    /// Names of the flags that were given, there or in the config file.
    pub given: Vec<&'static str>,
    /// What was said and means nothing, a sentence each.
    pub ignored: Vec<String>,
}

/// A command line that ends the program.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// `-help`: the usage text, exit status 0.
    Help(String),
    /// A mistake and the usage text, exit status 2.
    Usage(String),
    /// A mistake alone, exit status 1.
    Fatal(String),
}

impl Stop {
    /// Tells the user on stderr and gives the exit status.
    pub fn report(self) -> ExitCode {
        let (text, code) = match self {
            Self::Help(text) => (text, ExitCode::SUCCESS),
            Self::Usage(text) => (text, ExitCode::from(2)),
            Self::Fatal(text) => (text, ExitCode::FAILURE),
        };
        // Nobody is left to tell when stderr itself is broken.
        let _ = std::io::stderr().write_all(text.as_bytes());
        code
    }
}

/// Reads `args` (without the program's name) into `defaults`. The first word that is no flag ends the flags; what
/// follows is ignored, and told.
pub fn parse<T: Clone>(
    program: &str,
    flags: &[Flag<T>],
    defaults: T,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Parsed<T>, Stop> {
    let mut parsed = Parsed { options: defaults.clone(), given: Vec::new(), ignored: Vec::new() };
    let mut args = args.into_iter();
    let result = loop {
        match parse_one(flags, &mut parsed, &mut args) {
            Ok(Next::Flag) => {}
            Ok(Next::End(word)) => {
                let rest = args.map(|word| word.to_string_lossy().into_owned());
                let left: Vec<_> = word.into_iter().chain(rest).collect();
                if !left.is_empty() {
                    let left = left.join(" ");
                    parsed.ignored.push(format!("flags end at the first word that is none; ignored: {left}"));
                }
                return Ok(parsed);
            }
            Err(problem) => break problem,
        }
    };
    let help = || usage(program, flags, defaults);
    Err(match result {
        Problem::HelpWanted => Stop::Help(help()),
        Problem::Mistake(text) => Stop::Usage(format!("{text}\n{}", help())),
        Problem::Fatal(text) => Stop::Fatal(format!("{text}\n")),
    })
}

enum Problem {
    HelpWanted,
    Mistake(String),
    Fatal(String),
}

/// What is at the front of the arguments.
enum Next {
    Flag,
    /// The end of the flags, and the word that has ended them unless that was its only purpose.
    End(Option<String>),
}

/// Takes one flag, and its value if it needs one, from the front of `args`.
fn parse_one<T>(
    flags: &[Flag<T>],
    parsed: &mut Parsed<T>,
    args: &mut impl Iterator<Item = OsString>,
) -> Result<Next, Problem> {
    let Some(word) = args.next() else { return Ok(Next::End(None)) };
    let word = into_text(word)?;
    let Some(flag) = word.strip_prefix('-').filter(|rest| !rest.is_empty() && word != "--") else {
        return Ok(Next::End(Some(word).filter(|word| word != "--")));
    };
    let flag = flag.strip_prefix('-').unwrap_or(flag);
    if flag.starts_with(['-', '=']) {
        return Err(Problem::Mistake(format!("bad flag syntax: {word}")));
    }
    let (name, inline) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (flag, None),
    };
    let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
        return Err(match name {
            "help" | "h" => Problem::HelpWanted,
            _ => Problem::Mistake(format!("flag provided but not defined: -{name}")),
        });
    };
    let target = (flag.value)(&mut parsed.options);
    let is_bool = target.is_bool();
    let text = match inline {
        Some(text) => text,
        None if is_bool => "true".to_owned(),
        None => match args.next() {
            Some(next) => into_text(next)?,
            None => return Err(Problem::Mistake(format!("flag needs an argument: -{name}"))),
        },
    };
    target.set(&text).map_err(|refusal| match refusal {
        Refusal::Fatal(text) => Problem::Fatal(text),
        Refusal::Value(why) if is_bool => {
            Problem::Mistake(format!("invalid boolean value {text:?} for -{name}: {why}"))
        }
        Refusal::Value(why) => Problem::Mistake(format!("invalid value {text:?} for flag -{name}: {why}")),
    })?;
    if !parsed.given.contains(&flag.name) {
        parsed.given.push(flag.name);
    }
    Ok(Next::Flag)
}

fn into_text(word: OsString) -> Result<String, Problem> {
    word.into_string().map_err(|word| Problem::Mistake(format!("argument is not valid UTF-8: {}", word.display())))
}

/// The text of `-help`: every flag by name, as Go's `PrintDefaults` lays it out.
pub fn usage<T>(program: &str, flags: &[Flag<T>], mut defaults: T) -> String {
    let mut sorted: Vec<_> = flags.iter().collect();
    sorted.sort_by_key(|flag| flag.name);
    let mut text = format!("Usage of {program}:\n");
    for flag in sorted {
        let value = (flag.value)(&mut defaults);
        let space = if value.kind().is_empty() { "" } else { " " };
        let _ = write!(text, "  -{}{space}{}\n    \t{}", flag.name, value.kind(), flag.usage);
        if let Some(default) = value.shown() {
            let _ = write!(text, " (default {default})");
        }
        text.push('\n');
    }
    text
}

/// Every option by its config key, rendered as `GET /config/:opt` answers it.
pub fn config_values<T: Clone>(flags: &[Flag<T>], options: &T) -> BTreeMap<&'static str, ConfigValue> {
    let mut options = options.clone(); // a table entry leads to its field by `&mut` only
    flags.iter().filter_map(|flag| Some((flag.key?, (flag.value)(&mut options).config()))).collect()
}

/// One sentence for all that was given and has no effect: words, and flags that ask for something. False, zero and
/// empty ask for nothing.
pub fn warnings<T: Clone>(flags: &[Flag<T>], parsed: &Parsed<T>) -> Vec<String> {
    let mut options = parsed.options.clone();
    let mut asks = |flag: &&Flag<T>| parsed.given.contains(&flag.name) && (flag.value)(&mut options).shown().is_some();
    let mut warnings = parsed.ignored.clone();
    for flag in flags.iter().filter(&mut asks) {
        match flag.effect {
            Effect::Works => {}
            Effect::Missing(feature) => {
                warnings.push(format!("--{} has no effect: this build does not support {feature} yet", flag.name));
            }
            Effect::Obsolete => warnings.push(format!("--{} has no effect any more", flag.name)),
        }
    }
    warnings
}

#[cfg(test)]
mod tests;
