//! Rust source as rules need it: comments and literals blanked out, functions found.
//!
//! A source text comes in. What is blanked becomes spaces, so that every line stays where it was. This is no parser: it
//! knows comments, strings, characters and braces, which is all that the rules ask for.

use std::ops::Range;

/// The source without its comments and the contents of its literals.
pub(crate) fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + hidden(&bytes[at..], at > 0 && is_word(bytes[at - 1])).unwrap_or(0);
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(code).expect("only whole characters become spaces")
}

/// The length of a comment or literal that begins here.
fn hidden(rest: &[u8], in_word: bool) -> Option<usize> {
    let until = |end: &[u8], from: usize| {
        let found = rest[from..].windows(end.len()).position(|window| window == end);
        found.map_or(rest.len(), |found| from + found + end.len())
    };
    match rest {
        [b'/', b'/', ..] => Some(rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(until(b"*/", 2)),
        [b'"', ..] => Some(quoted(rest, b'"')),
        [b'r', ..] if !in_word || rest.starts_with(b"r\"") => {
            let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
            let end = [b"\"", &vec![b'#'; hashes][..]].concat();
            (rest.get(1 + hashes) == Some(&b'"')).then(|| until(&end, 2 + hashes))
        }
        // A lifetime has no quote after its first character.
        [b'\'', b'\\', ..] => Some(quoted(rest, b'\'')),
        [b'\'', ..] => {
            let length = std::str::from_utf8(&rest[1..rest.len().min(5)]).map_or_else(|e| e.valid_up_to(), str::len);
            let char = std::str::from_utf8(&rest[1..=length]).ok()?.chars().next()?;
            (rest.get(1 + char.len_utf8()) == Some(&b'\'')).then_some(2 + char.len_utf8())
        }
        _ => None,
    }
}

/// The length of a literal with backslash escapes.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    rest.len().min(at + 1)
}

pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Where a word or a path stands in code, not as a part of a longer one.
pub(crate) fn finds<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let joined = |left: Option<&u8>, right: Option<&u8>| {
            left.is_some_and(|&b| is_word(b)) && right.is_some_and(|&b| is_word(b))
        };
        let (before, after) = (at.checked_sub(1).and_then(|at| bytes.get(at)), bytes.get(at + word.len()));
        !joined(before, word.as_bytes().first()) && !joined(word.as_bytes().last(), after)
    })
}

/// The line, from one, that holds this byte.
pub(crate) fn line(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// Functions with bodies: name, and the bytes from `fn` to the closing brace.
pub(crate) fn functions(code: &str) -> Vec<(&str, Range<usize>)> {
    finds(code, "fn").filter_map(|at| function(code, at)).collect()
}

fn function(code: &str, at: usize) -> Option<(&str, Range<usize>)> {
    let after = code[at + 2..].trim_start();
    let name = &after[..after.bytes().position(|byte| !is_word(byte))?];
    if name.is_empty() {
        return None; // a type such as `fn(u8)`
    }
    let (mut depth, mut opened) = (0, false);
    for (offset, byte) in code[at..].bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => {
                opened |= byte == b'{' && depth == 0;
                depth += 1;
            }
            b')' | b']' | b'}' => depth -= 1,
            b';' if depth == 0 => return None,
            _ => {}
        }
        if opened && depth == 0 {
            return Some((name, at..at + offset + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        let blank = |source| code(source).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(blank("a // b\nc /* d\n */ e"), "a c e");
        assert_eq!(blank(r##"a("b \" c", r#"d " e"#, br"f\", 'g', '\'', 'é', b'"') h"##), "a( , , b , , , , b ) h");
        assert_eq!(blank("fn a<'b>(c: &'b str) {} // '"), "fn a<'b>(c: &'b str) {}");
        assert_eq!(code("a\n/*\n*/ b").matches('\n').count(), 2);
    }

    #[test]
    fn words_are_found_whole() {
        let found = |code, word| finds(code, word).collect::<Vec<_>>();
        assert_eq!(found("std::a xstd::a ::std::a", "std::"), [0, 17]);
        assert_eq!(found("fn fns", "fn"), [0]);
        assert_eq!(found("dbg!(x)", "dbg!"), [0]);
    }

    #[test]
    fn functions_are_measured() {
        let code = "trait A { fn a(&self); fn b(&self) -> [u8; 2] {\n{}\n} }\nfn c<T>(f: fn(u8)) where T: X {}";
        let found: Vec<_> = functions(code).into_iter().map(|(name, range)| (name, line(code, range.start))).collect();
        assert_eq!(found, [("b", 1), ("c", 4)]);
        assert_eq!(code[functions(code)[0].1.clone()].lines().count(), 3);
    }
}
