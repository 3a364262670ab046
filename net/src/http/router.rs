//! Which handler a request is for (spec: http_flags_tools §1.1).
//!
//! In: a daemon's routes, a method and a path. Out: a route, or the answer to a request that has none: the methods that
//! would do, or the canonical path of one that was spelled in another way.

/// A path, the methods it has, and what it is for. A path may end in a parameter, `/:` and a name: any one segment.
pub(crate) type Entry<R> = (&'static str, &'static str, R);

/// The methods of most paths.
pub(crate) const GET: &str = "GET, OPTIONS";
pub(crate) const POST: &str = "OPTIONS, POST";

/// What the router found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found<'a, R> {
    /// A route, and its parameter.
    Route(R, &'a str),
    /// OPTIONS, or a method that the path does not have; with the list of those it has.
    Options(&'static str),
    WrongMethod(&'static str),
    /// The same route has this path.
    Elsewhere(String),
    Nothing,
}

/// Finds the route.
pub(super) fn find<'a, R: Copy>(routes: &[Entry<R>], method: &str, path: &'a str) -> Found<'a, R> {
    let lookup = |path, same| routes.iter().find_map(|entry| Some((entry, parameter(entry.0, path, same)?)));
    if let Some((&(_, allow, route), parameter)) = lookup(path, str::eq) {
        return match method {
            "OPTIONS" => Found::Options(allow),
            _ if is_allowed(allow, method) => Found::Route(route, parameter),
            _ => Found::WrongMethod(allow),
        };
    }
    let cleaned = clean(path);
    let other = routes.iter().find_map(|entry| Some((entry, parameter(entry.0, &cleaned, str::eq_ignore_ascii_case)?)));
    match other {
        Some(((path, allow, _), parameter)) if is_allowed(allow, method) => {
            Found::Elsewhere(format!("{}{parameter}", start(path)))
        }
        _ => Found::Nothing,
    }
}

/// The parameter in a path that is one of the route's; empty if it has none.
fn parameter<'a>(route: &str, path: &'a str, same: fn(&str, &str) -> bool) -> Option<&'a str> {
    let start = start(route);
    if start.len() == route.len() {
        return same(route, path).then_some("");
    }
    let (before, parameter) = path.split_at_checked(start.len())?;
    (same(start, before) && !parameter.is_empty() && !parameter.contains('/')).then_some(parameter)
}

/// A route's path without its parameter.
fn start(route: &str) -> &str {
    route.split(':').next().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &[Entry<u8>] = &[
        ("/pub", POST, 1),
        ("/ping", GET, 2),
        ("/channel/unpause", POST, 3),
        ("/config/:opt", "GET, OPTIONS, PUT", 4),
        ("/debug/setblockrate", "OPTIONS, PUT", 5),
    ];

    fn find<'a>(method: &str, path: &'a str) -> Found<'a, u8> {
        super::find(ROUTES, method, path)
    }

    #[test]
    fn routes() {
        assert_eq!(find("POST", "/pub"), Found::Route(1, ""));
        assert_eq!(find("GET", "/ping"), Found::Route(2, ""));
        assert_eq!(find("POST", "/channel/unpause"), Found::Route(3, ""));
        assert_eq!(find("PUT", "/config/log_level"), Found::Route(4, "log_level"));
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
