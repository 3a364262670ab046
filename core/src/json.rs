//! JSON as Go's standard library reads and writes it: the bodies of IDENTIFY and the replies to it.
//!
//! Keys match in any case, null changes nothing, the last of repeated keys counts, numbers are integers, bytes that are
//! not UTF-8 become U+FFFD. In come bytes, out comes an [`Object`] that set its own fields, or nothing if Go would
//! refuse.

use alloc::string::String;
use core::fmt;
use core::marker::PhantomData;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::Serialize;

/// A struct that is read from a JSON object.
pub(crate) trait Object: Default {
    /// Sets the field that a key, in lower case, names; passes over the value if it names none.
    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
}

/// Reads an object or null; `None` if Go would not.
pub(crate) fn parse<T: Object>(json: &[u8]) -> Option<T> {
    if has_control_in_string(json) {
        return None;
    }
    let mut json = serde_json::Deserializer::from_slice(json);
    let object = Option::<Read<T>>::deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(object.map_or_else(T::default, |Read(object)| object))
}

/// JSON as Go writes it: the characters that matter in HTML and JavaScript are escaped, and stand in strings only.
pub(crate) fn write(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("numbers, booleans and strings can be written");
    [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")]
        .into_iter()
        .fold(json, |json, (char, escape)| if json.contains(char) { json.replace(char, escape) } else { json })
}

/// Sets a field to the value that comes next, a string.
pub(crate) fn string<'de, A: MapAccess<'de>>(map: &mut A, field: &mut String) -> Result<(), A::Error> {
    if let Some(Text(text)) = map.next_value()? {
        *field = text;
    }
    Ok(())
}

/// The same for a boolean.
pub(crate) fn boolean<'de, A: MapAccess<'de>>(map: &mut A, field: &mut bool) -> Result<(), A::Error> {
    if let Some(value) = map.next_value()? {
        *field = value;
    }
    Ok(())
}

/// The same for an integer of 64 bits.
pub(crate) fn integer<'de, A: MapAccess<'de>>(map: &mut A, field: &mut i64) -> Result<(), A::Error> {
    if let Some(Integer(value)) = map.next_value()? {
        *field = value;
    }
    Ok(())
}

/// The parser lets control characters pass in strings that are read as bytes.
fn has_control_in_string(json: &[u8]) -> bool {
    let (mut bytes, mut inside) = (json.iter(), false);
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => inside = !inside,
            b'\\' if inside => drop(bytes.next()),
            ..=0x1f if inside => return true,
            _ => {}
        }
    }
    false
}

/// A key in lower case, with the two letters outside ASCII that Go takes for the same as letters within.
fn fold(key: &str) -> String {
    let lower = |char| match char {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        char => char.to_ascii_lowercase(),
    };
    key.chars().map(lower).collect()
}

struct Read<T>(T);

impl<'de, T: Object> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Object> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
                let mut object = T::default();
                while let Some(Text(key)) = map.next_key()? {
                    object.set(&fold(&key), &mut map)?;
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// A JSON string in which bytes that are not UTF-8, and halves of surrogate pairs, are replaced.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Utf8;
        impl Visitor<'_> for Utf8 {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Text, E> {
                let mut text = String::with_capacity(bytes.len());
                for chunk in bytes.utf8_chunks() {
                    text.push_str(chunk.valid());
                    text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
                }
                Ok(Text(text))
            }
        }
        deserializer.deserialize_bytes(Utf8)
    }
}

/// A JSON number that Go reads into an integer.
struct Integer(i64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Integer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer of 64 bits")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Integer, E> {
                Ok(Integer(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Integer, E> {
                value.try_into().map(Integer).map_err(E::custom)
            }

            /// The parser makes a float of `-0`.
            fn visit_f64<E: Error>(self, value: f64) -> Result<Integer, E> {
                if value.to_bits() == (-0.0f64).to_bits() { Ok(Integer(0)) } else { Err(E::custom("not an integer")) }
            }
        }
        deserializer.deserialize_i64(Whole)
    }
}
