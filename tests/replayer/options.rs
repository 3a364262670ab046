//! The command line.

use crate::replay::options::Options;

fn parse(args: &str) -> Result<Options, String> {
    Options::parse(args.split_whitespace().map(str::to_owned))
}

#[test]
fn flags() {
    let options = parse("v2-pub --keep --test-threads=3 http-* --nocapture").unwrap();
    assert_eq!(options.patterns, ["v2-pub", "http-*"]);
    assert_eq!((options.keep, options.jobs, options.pending), (true, 3, false));
    assert_eq!(parse("--jobs 5").unwrap().jobs, 5);
    assert!(parse("--jobs 0").is_err() && parse("--jobs").is_err());
    assert!(parse("--pnding").unwrap_err().contains("no such option"));
}

#[test]
fn patterns() {
    assert!(parse("").unwrap().wants("v2-pub"));
    let options = parse("pub http-*-errors").unwrap();
    assert!(options.wants("v2-mpub") && options.wants("http-stats-errors"));
    assert!(!options.wants("http-stats") && !options.wants("quirks/http-stats-errors"));
}
