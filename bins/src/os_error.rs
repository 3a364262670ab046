//! The operating system's errors in the words that operators of NSQ know and grep for.
//! In comes an `io::Error`, out comes `no such file or directory` rather than `No such file or directory (os error 2)`.

use std::io;

/// `error` without its number, and in lower case unless it begins with an abbreviation.
pub fn os_error(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), second) if !second.is_some_and(char::is_uppercase) => {
            format!("{}{}", first.to_ascii_lowercase(), &text[first.len_utf8()..])
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_upstream_words_them() {
        let missing = std::fs::File::open("no/such/file").unwrap_err();
        assert_eq!(os_error(&missing), "no such file or directory");
        assert_eq!(os_error(&io::Error::other("TLS is broken")), "TLS is broken");
        assert_eq!(os_error(&io::Error::other("")), "");
    }
}
