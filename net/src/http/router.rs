//! Which handler a request is for (spec: http_flags_tools §1.1, §1.3).
//!
//! In: a method and a path. Out: a route, or the answer to a request that has none: the methods that would do, or the
//! canonical path of one that was spelled in another way.

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Ping,
    Info,
    Pub,
    Mpub,
    Stats,
    Topic(Action),
    Channel(Action),
    /// The option's name.
    Config(&'a str),
    /// Exists in upstream, for Go's runtime.
    GoRuntime,
}

/// What is to be done with a topic or channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    Delete,
    Empty,
    Pause,
    Unpause,
}

/// What the router found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Route(Route<'a>),
    /// OPTIONS, or a method that the path does not have; with the list of those it has.
    Options(&'static str),
    WrongMethod(&'static str),
    /// The same route has this path.
    Elsewhere(String),
    Nothing,
}

impl Route<'_> {
    /// Whether the access log tells of it.
    pub(super) const fn is_logged(self) -> bool {
        !matches!(self, Self::Pub | Self::Mpub)
    }
}

/// Finds the route.
pub(super) fn find<'a>(method: &str, path: &'a str) -> Found<'a> {
    if let Some((allow, route)) = lookup(path, str::eq) {
        return match method {
            "OPTIONS" => Found::Options(allow),
            _ if is_allowed(allow, method) => Found::Route(route),
            _ => Found::WrongMethod(allow),
        };
    }
    let canonical = clean(path);
    match lookup(&canonical, str::eq_ignore_ascii_case) {
        Some((allow, route)) if is_allowed(allow, method) => Found::Elsewhere(match route {
            Route::Config(option) => format!("{CONFIG}{option}"),
            _ => canonical.to_ascii_lowercase(),
        }),
        _ => Found::Nothing,
    }
}

fn lookup(path: &str, same: fn(&str, &str) -> bool) -> Option<(&'static str, Route<'_>)> {
    let fixed = ROUTES.iter().find(|(known, ..)| same(known, path));
    if let Some(&(_, allow, route)) = fixed {
        return Some((allow, route));
    }
    let (start, option) = path.split_at_checked(CONFIG.len())?;
    let is_option = same(CONFIG, start) && !option.is_empty() && !option.contains('/');
    is_option.then_some(("GET, OPTIONS, PUT", Route::Config(option)))
}

/// OPTIONS is in every list, for the client to read, and in no handler.
fn is_allowed(allow: &str, method: &str) -> bool {
    method != "OPTIONS" && allow.split(", ").any(|allowed| allowed == method)
}

/// The path without doubled and trailing slashes, `.` and `..`.
fn clean(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

const CONFIG: &str = "/config/";

const ROUTES: &[(&str, &str, Route<'_>)] = &[
    ("/pub", POST, Route::Pub),
    ("/mpub", POST, Route::Mpub),
    ("/ping", GET, Route::Ping),
    ("/info", GET, Route::Info),
    ("/stats", GET, Route::Stats),
    ("/topic/create", POST, Route::Topic(Action::Create)),
    ("/topic/delete", POST, Route::Topic(Action::Delete)),
    ("/topic/empty", POST, Route::Topic(Action::Empty)),
    ("/topic/pause", POST, Route::Topic(Action::Pause)),
    ("/topic/unpause", POST, Route::Topic(Action::Unpause)),
    ("/channel/create", POST, Route::Channel(Action::Create)),
    ("/channel/delete", POST, Route::Channel(Action::Delete)),
    ("/channel/empty", POST, Route::Channel(Action::Empty)),
    ("/channel/pause", POST, Route::Channel(Action::Pause)),
    ("/channel/unpause", POST, Route::Channel(Action::Unpause)),
    ("/debug/freememory", POST, Route::GoRuntime),
    ("/debug/setblockrate", "OPTIONS, PUT", Route::GoRuntime),
];

const GET: &str = "GET, OPTIONS";
const POST: &str = "OPTIONS, POST";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        assert_eq!(find("POST", "/pub"), Found::Route(Route::Pub));
        assert_eq!(find("GET", "/stats"), Found::Route(Route::Stats));
        assert_eq!(find("POST", "/channel/unpause"), Found::Route(Route::Channel(Action::Unpause)));
        assert_eq!(find("PUT", "/config/log_level"), Found::Route(Route::Config("log_level")));
    }

    #[test]
    fn wrong_methods() {
        assert_eq!(find("GET", "/pub"), Found::WrongMethod("OPTIONS, POST"));
        assert_eq!(find("HEAD", "/ping"), Found::WrongMethod("GET, OPTIONS"));
        assert_eq!(find("DELETE", "/config/log_level"), Found::WrongMethod("GET, OPTIONS, PUT"));
        assert_eq!(find("GET", "/debug/setblockrate"), Found::WrongMethod("OPTIONS, PUT"));
        assert_eq!(find("OPTIONS", "/pub"), Found::Options("OPTIONS, POST"));
    }

    #[test]
    fn unknown_paths() {
        for path in ["/", "", "*", "/nothing", "/config", "/config/", "/config/a/b", "/debug/vars", "/pub/x", "/ä"] {
            assert_eq!(find("GET", path), Found::Nothing, "{path}");
            assert_eq!(find("OPTIONS", path), Found::Nothing, "{path}");
        }
    }

    #[test]
    fn other_spellings() {
        for path in ["/ping/", "//ping", "/PING", "/x/../ping", "/./Ping//"] {
            assert_eq!(find("GET", path), Found::Elsewhere("/ping".into()), "{path}");
            // Redirects are for those who would be served there.
            assert_eq!(find("POST", path), Found::Nothing, "{path}");
            assert_eq!(find("OPTIONS", path), Found::Nothing, "{path}");
        }
        // An option's name keeps its case.
        assert_eq!(find("PUT", "/Config//Log_Level/"), Found::Elsewhere("/config/Log_Level".into()));
    }
}
