//! The command line as an operator meets it: one small program with a flag of every kind.

use super::*;
use std::time::Duration;

crate::options! {
    /// A program with a flag of every kind.
    struct Options(host: &str);
    address: String = format!("{host}:1"), "address", "where to listen";
    size: u64 = 10, "size", "how many";
    id: i64 = 0, "node-id", "who";
    timeout: Duration = Duration::from_secs(90), "timeout", "how long";
    snappy: bool = true, "snappy", "whether to compress", missing("compression");
    quiet: bool = false, "quiet", "say less", command_line_only(), obsolete();
    peers: Vec<String> = vec![], "peer", "whom to ask (may be given more than once)", missing("peers");
    percentiles: Percentiles = Percentiles::default(), "percentile", "what to measure";
}

fn run(line: &str) -> Result<Parsed<Options>, Stop> {
    parse("prog", Options::FLAGS, Options::new("h"), line.split(' ').filter(|word| !word.is_empty()).map(Into::into))
}

fn options(line: &str) -> Options {
    run(line).unwrap().options
}

/// The first line of the complaint about `line`; the usage must follow.
fn complaint(line: &str) -> String {
    let Err(Stop::Usage(text)) = run(line) else { panic!("{line} was not refused") };
    let (first, rest) = text.split_once('\n').unwrap();
    assert!(rest.starts_with("Usage of prog:\n  -address string\n"), "{rest}");
    first.to_owned()
}

#[test]
fn no_flags_give_the_defaults() {
    let parsed = run("").unwrap();
    assert_eq!(parsed.options, Options::new("h"));
    assert_eq!(parsed.options.address, "h:1");
    assert!(parsed.given.is_empty());
}

#[test]
fn one_dash_or_two_space_or_equals() {
    for line in ["-size 77", "--size 77", "-size=77", "--size=77", "--size=0x4d", "-size 1 -size 77"] {
        let parsed = run(line).unwrap();
        assert_eq!(parsed.options.size, 77, "{line}");
        assert_eq!(parsed.given, ["size"], "{line}");
    }
    assert_eq!(options("--address=a=b").address, "a=b");
    assert_eq!(options("--address=").address, "");
    assert_eq!(options("--address -size").address, "-size"); // a value may look like a flag
    assert_eq!(options("--timeout 1m30s").timeout, Duration::from_secs(90));
    assert_eq!(options("--node-id -5").id, -5);
}

#[test]
fn a_boolean_takes_its_value_only_behind_an_equals_sign() {
    assert!(options("-quiet").quiet);
    assert!(!options("-snappy=F").snappy);
    let parsed = run("-quiet false -size 5").unwrap();
    assert!(parsed.options.quiet);
    assert_eq!(parsed.options.size, 10); // `false` was no flag, so the flags ended there
}

#[test]
fn repeated_flags_append() {
    assert_eq!(options("--peer=a,b --peer c").peers, ["a,b", "c"]);
    assert_eq!(options("--percentile=0.5,1.0 --percentile 0.9").percentiles, Percentiles(vec![1.0, 0.9, 0.5]));
}

#[test]
fn flags_end_at_two_dashes_or_the_first_other_word() {
    for (line, left) in [("-- -size 5", "-size 5"), ("word -size 5", "word -size 5"), ("- -size 5", "- -size 5")] {
        let parsed = run(line).unwrap();
        assert_eq!(parsed.options.size, 10, "{line}");
        let warned = format!("flags end at the first word that is none; ignored: {left}");
        assert_eq!(warnings(Options::FLAGS, &parsed), [warned], "{line}");
    }
    assert!(run("-size 5 --").unwrap().ignored.is_empty());
}

#[test]
fn mistakes_are_named_in_gos_words() {
    assert_eq!(complaint("--no-such-flag"), "flag provided but not defined: -no-such-flag");
    assert_eq!(complaint("-timeout=5"), r#"invalid value "5" for flag -timeout: parse error"#);
    assert_eq!(complaint("--size=many"), r#"invalid value "many" for flag -size: parse error"#);
    assert_eq!(complaint("--size=-1"), r#"invalid value "-1" for flag -size: must not be negative"#);
    assert_eq!(complaint("--quiet=5"), r#"invalid boolean value "5" for -quiet: parse error"#);
    assert_eq!(complaint("--address"), "flag needs an argument: -address");
    assert_eq!(complaint("---x"), "bad flag syntax: ---x");
    assert_eq!(complaint("--=x"), "bad flag syntax: --=x");
    assert_eq!(complaint("-=x"), "bad flag syntax: -=x");
    assert_eq!(run("--percentile=abc").unwrap_err(), Stop::Fatal("Could not parse: abc\n".into()));
}

#[cfg(unix)]
#[test]
fn a_word_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let word = OsString::from_vec(b"--address=\xff".to_vec());
    let Err(Stop::Usage(text)) = parse("prog", Options::FLAGS, Options::new("h"), [word]) else { panic!() };
    assert!(text.starts_with("argument is not valid UTF-8: --address="), "{text}");
}

#[test]
fn help_is_the_usage_as_go_prints_it() {
    let help = "Usage of prog:
  -address string
    \twhere to listen (default \"h:1\")
  -node-id int
    \twho
  -peer value
    \twhom to ask (may be given more than once)
  -percentile value
    \twhat to measure
  -quiet
    \tsay less
  -size int
    \thow many (default 10)
  -snappy
    \twhether to compress (default true)
  -timeout duration
    \thow long (default 1m30s)
";
    for line in ["-h", "--help", "-size 5 -help", "-help=x"] {
        assert_eq!(run(line).unwrap_err(), Stop::Help(help.into()), "{line}");
    }
}

#[test]
fn config_values_go_by_key_and_leave_out_the_command_lines_own() {
    let values = config_values(Options::FLAGS, &options("--node-id=5 -quiet"));
    assert_eq!(values["id"], ConfigValue::Json("5".into()));
    assert_eq!(values["address"], ConfigValue::Text("h:1".into()));
    assert!(!values.contains_key("quiet") && !values.contains_key("node_id"));
    assert_eq!(values.len(), Options::FLAGS.len() - 1);
}

#[test]
fn asking_for_a_missing_feature_warns_and_declining_it_does_not() {
    let warned = |line| warnings(Options::FLAGS, &run(line).unwrap());
    assert_eq!(warned("--peer=a -snappy -size=5").len(), 2);
    assert_eq!(warned("--peer=a"), ["--peer has no effect: this build does not support peers yet"]);
    assert_eq!(warned("-quiet"), ["--quiet has no effect any more"]);
    assert!(warned("-snappy=false -quiet=0").is_empty());
    assert!(warned("").is_empty()); // a default asks for nothing
}

#[test]
fn exit_statuses() {
    let code = |stop: Stop| format!("{:?}", stop.report());
    assert_eq!(code(Stop::Help(String::new())), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(code(Stop::Usage(String::new())), format!("{:?}", ExitCode::from(2)));
    assert_eq!(code(Stop::Fatal(String::new())), format!("{:?}", ExitCode::from(1)));
}

/// What a config file and a command line make together; the file is `config.toml` in a directory of its own.
fn with_file(text: &str, line: &str) -> Result<Parsed<Options>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let mut parsed = run(line).unwrap();
    let shorter = |text: String| text.replace(path, "config.toml");
    config_file::read(path, Options::FLAGS, &mut parsed).map_err(shorter)?;
    parsed.ignored = parsed.ignored.into_iter().map(shorter).collect();
    Ok(parsed)
}

#[test]
fn a_config_file_says_what_the_command_line_does_not() {
    let text = "# all kinds\naddress = 'a:1'\nsize = 5\nid = '-7'\ntimeout = '1m'\nsnappy = false\npeers = ['b', 'c,d']\n\
                percentiles = [0.5, 1]\n";
    let parsed = with_file(text, "").unwrap();
    let all = Options {
        address: "a:1".into(),
        size: 5,
        id: -7,
        timeout: Duration::from_secs(60),
        snappy: false,
        quiet: false,
        peers: vec!["b".into(), "c,d".into()],
        percentiles: Percentiles(vec![1.0, 0.5]),
    };
    assert_eq!(parsed.options, all);
    let parsed = with_file(text, "--size=10 --peer=x -snappy").unwrap();
    assert_eq!(parsed.options, Options { size: 10, peers: vec!["x".into()], snappy: true, ..all });
    let other =
        with_file("timeout = 1500\nsnappy = 'F'\npeers = 'b,c'\npercentiles = '0.5, 0.9'\n", "").unwrap().options;
    assert_eq!((other.timeout, other.snappy), (Duration::from_millis(1500), false));
    assert_eq!((other.peers, other.percentiles), (vec!["b".into(), "c".into()], Percentiles(vec![0.9, 0.5])));
    assert_eq!(with_file("peers = ''\npercentiles = ''\n", "").unwrap().options, Options::new("h"));
}

#[test]
fn what_a_config_file_asks_for_in_vain_is_warned_about() {
    let warned = |text| warnings(Options::FLAGS, &with_file(text, "").unwrap());
    assert_eq!(warned("peers = ['a']"), ["--peer has no effect: this build does not support peers yet"]);
    assert_eq!(
        warned("node_id = 3\nnode-id = 3\nquiet = true\nnothing = 1\nid = 4\n[table]\nsize = 5\n"),
        [
            "config.toml: node-id is no key and has no effect, id is one",
            "config.toml: node_id is no key and has no effect, id is one",
            "config.toml: nothing is no key and has no effect",
            "config.toml: quiet is no key and has no effect",
            "config.toml: table is no key and has no effect",
        ]
    );
}

#[test]
fn a_config_file_that_cannot_be_used_is_fatal() {
    let why = |text| with_file(text, "").unwrap_err().replace("failed to load config file config.toml - ", "");
    assert!(why("size = 1\nsize\n").starts_with("line 2: "), "{}", why("size = 1\nsize\n"));
    assert_eq!(why("size = 1.5"), "invalid value for size: it cannot be of the type float");
    assert_eq!(why("size = true"), "invalid value for size: parse error");
    assert_eq!(why("timeout = '60'"), "invalid value for timeout: parse error");
    assert_eq!(why("timeout = 1.5"), "invalid value for timeout: it cannot be of the type float");
    assert_eq!(why("address = 5"), "invalid value for address: it cannot be of the type integer");
    assert_eq!(why("peers = [5]"), "invalid value for peers: it cannot be of the type integer");
    assert!(why("snappy = 1").starts_with("invalid value for snappy: say true or false"));
    assert_eq!(why("percentiles = 'x'"), "invalid value for percentiles: Could not parse: x");
    let missing = config_file::read("no/such", Options::FLAGS, &mut run("").unwrap()).unwrap_err();
    assert_eq!(missing, "failed to load config file no/such - open no/such: no such file or directory");
}
