//! What a flag may set: one trait, implemented by the few std types that options are made of. Text of the command line
//! or a value of the config file goes in; the usage's default and the rendering of `GET /config/:opt` come out. The
//! rule: a type knows its spelling, so a table of flags never says it again.

use super::syntax::{OUT_OF_RANGE, format_duration, parse_bool, parse_duration, parse_int};
use std::time::Duration;
use toml::Value as Toml;

/// A field of an options struct that one flag sets.
pub trait Value {
    /// The word for the value in the usage text; empty for a flag that needs none.
    fn kind(&self) -> &'static str {
        "value"
    }

    /// Whether the flag may stand without a value, meaning `true`.
    fn is_bool(&self) -> bool {
        false
    }

    /// Takes over what one occurrence of the flag says.
    fn set(&mut self, text: &str) -> Result<(), Refusal>;

    /// Takes over what the config file says, in any spelling that upstream takes (spec: http_flags_tools §3.0).
    fn read(&mut self, value: &Toml) -> Result<(), Refusal> {
        match value {
            Toml::String(text) => self.set(text),
            Toml::Integer(number) => self.set(&number.to_string()),
            Toml::Boolean(truth) => self.set(&truth.to_string()),
            other => Err(wrong_type(other)),
        }
    }

    /// The value as the usage text shows a default; `None` for false, zero and empty.
    fn shown(&self) -> Option<String>;

    /// The value as `GET /config/:opt` answers it (spec: http_flags_tools §1.9).
    fn config(&self) -> ConfigValue;
}

/// Why a value was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Wrong in the flag's own terms: the reason is printed with the usage, exit status 2.
    Value(String),
    /// The whole message, printed alone, exit status 1.
    Fatal(String),
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        Self::Value(reason.to_owned())
    }
}

fn wrong_type(value: &Toml) -> Refusal {
    Refusal::Value(format!("it cannot be of the type {}", value.type_str()))
}

/// An option as `GET /config/:opt` renders it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigValue {
    /// A string: the raw bytes, `text/plain`.
    Text(String),
    /// Anything else: JSON.
    Json(String),
}

impl Value for bool {
    fn kind(&self) -> &'static str {
        ""
    }

    fn is_bool(&self) -> bool {
        true
    }

    fn set(&mut self, text: &str) -> Result<(), Refusal> {
        *self = parse_bool(text)?;
        Ok(())
    }

    fn read(&mut self, value: &Toml) -> Result<(), Refusal> {
        match value {
            Toml::String(text) => self.set(text),
            Toml::Boolean(truth) => self.set(&truth.to_string()),
            // Upstream takes 0 for true and 1 for false: whichever is meant, somebody would be surprised.
            Toml::Integer(_) => Err("say true or false, a number means one thing here and another to others".into()),
            other => Err(wrong_type(other)),
        }
    }

    fn shown(&self) -> Option<String> {
        self.then(|| "true".to_owned())
    }

    fn config(&self) -> ConfigValue {
        ConfigValue::Json(self.to_string())
    }
}

/// Integers: a negative number is named as such, one that is too large gets Go's words.
macro_rules! integers {
    ($($int:ty),*) => {$(
        impl Value for $int {
            fn kind(&self) -> &'static str {
                "int"
            }

            fn set(&mut self, text: &str) -> Result<(), Refusal> {
                let value = parse_int(text)?;
                let fallback = if value < 0 { "must not be negative" } else { OUT_OF_RANGE };
                *self = Self::try_from(value).map_err(|_| fallback)?;
                Ok(())
            }

            fn shown(&self) -> Option<String> {
                (*self != 0).then(|| self.to_string())
            }

            fn config(&self) -> ConfigValue {
                ConfigValue::Json(self.to_string())
            }
        }
    )*};
}

integers!(i64, u64, u16);

impl Value for Duration {
    fn kind(&self) -> &'static str {
        "duration"
    }

    fn set(&mut self, text: &str) -> Result<(), Refusal> {
        *self = parse_duration(text)?;
        Ok(())
    }

    fn read(&mut self, value: &Toml) -> Result<(), Refusal> {
        match value {
            Toml::String(text) => self.set(text),
            Toml::Integer(millis) => self.set(&format!("{millis}ms")),
            other => Err(wrong_type(other)),
        }
    }

    fn shown(&self) -> Option<String> {
        (!self.is_zero()).then(|| format_duration(*self))
    }

    fn config(&self) -> ConfigValue {
        ConfigValue::Json(self.as_nanos().to_string())
    }
}

impl Value for String {
    fn kind(&self) -> &'static str {
        "string"
    }

    fn set(&mut self, text: &str) -> Result<(), Refusal> {
        text.clone_into(self);
        Ok(())
    }

    fn read(&mut self, value: &Toml) -> Result<(), Refusal> {
        self.set(value.as_str().ok_or_else(|| wrong_type(value))?)
    }

    fn shown(&self) -> Option<String> {
        (!self.is_empty()).then(|| format!("{self:?}"))
    }

    fn config(&self) -> ConfigValue {
        ConfigValue::Text(self.clone())
    }
}

/// A repeatable flag: each occurrence appends. Commas are split in the config file only.
impl Value for Vec<String> {
    fn set(&mut self, text: &str) -> Result<(), Refusal> {
        self.push(text.to_owned());
        Ok(())
    }

    fn read(&mut self, value: &Toml) -> Result<(), Refusal> {
        let text = |value: &Toml| value.as_str().map(str::to_owned).ok_or_else(|| wrong_type(value));
        *self = match value {
            Toml::Array(values) => values.iter().map(text).collect::<Result<_, _>>()?,
            Toml::String(text) if text.is_empty() => Self::new(),
            Toml::String(text) => text.split(',').map(str::to_owned).collect(),
            other => return Err(wrong_type(other)),
        };
        Ok(())
    }

    fn shown(&self) -> Option<String> {
        (!self.is_empty()).then(|| self.join(","))
    }

    fn config(&self) -> ConfigValue {
        // Go's encoder escapes these as well; they can only stand inside the strings.
        let json = serde_json::json!(self).to_string();
        ConfigValue::Json(json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
    }
}

/// Fractions from a repeatable flag that also splits commas, kept in descending order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Percentiles(pub Vec<f64>);

impl Value for Percentiles {
    fn set(&mut self, text: &str) -> Result<(), Refusal> {
        for part in text.split(',') {
            // Upstream ends the program here and prints no usage.
            let value = part.parse().map_err(|_| Refusal::Fatal(format!("Could not parse: {text}")))?;
            self.0.push(value);
        }
        self.0.sort_by(|a, b| b.total_cmp(a));
        Ok(())
    }

    fn read(&mut self, value: &Toml) -> Result<(), Refusal> {
        match value {
            Toml::Array(values) => values.iter().try_for_each(|value| match value {
                Toml::Float(fraction) => self.set(&fraction.to_string()),
                Toml::Integer(whole) => self.set(&whole.to_string()),
                other => Err(wrong_type(other)),
            }),
            Toml::String(text) if text.is_empty() => Ok(()),
            Toml::String(text) => self.set(&text.replace(' ', "")),
            other => Err(wrong_type(other)),
        }
    }

    fn shown(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.join())
    }

    fn config(&self) -> ConfigValue {
        ConfigValue::Json(format!("[{}]", self.join()))
    }
}

impl Percentiles {
    fn join(&self) -> String {
        self.0.iter().map(f64::to_string).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> ConfigValue {
        ConfigValue::Json(text.to_owned())
    }

    #[test]
    fn values_render_for_config_and_usage() {
        assert_eq!((true.config(), true.shown()), (json("true"), Some("true".into())));
        assert_eq!((false.config(), false.shown()), (json("false"), None));
        assert_eq!((16i64.config(), 16i64.shown()), (json("16"), Some("16".into())));
        assert_eq!((0u64.config(), 0u64.shown()), (json("0"), None));
        let minute = Duration::from_secs(60);
        assert_eq!((minute.config(), minute.shown()), (json("60000000000"), Some("1m0s".into())));
        let text = "nsq.%s".to_owned();
        assert_eq!((text.config(), text.shown()), (ConfigValue::Text("nsq.%s".into()), Some("\"nsq.%s\"".into())));
        assert_eq!(Vec::<String>::new().config(), json("[]"));
        let list = vec!["a:1".to_owned(), "\"<\\\n\u{1}".to_owned()];
        assert_eq!(list.config(), json(r#"["a:1","\"\u003c\\\n\u0001"]"#));
    }

    #[test]
    fn integers_are_held_to_their_type() {
        let mut port = 0u16;
        assert_eq!(port.set("4150"), Ok(()));
        assert_eq!(port, 4150);
        assert_eq!(port.set("65536"), Err(Refusal::Value(OUT_OF_RANGE.into())));
        assert_eq!(port.set("-1"), Err(Refusal::Value("must not be negative".into())));
        assert_eq!(0u64.set("many"), Err(Refusal::Value("parse error".into())));
        assert_eq!((-5i64).set("-6"), Ok(()));
    }

    #[test]
    fn percentiles_append_split_and_sort() {
        let mut percentiles = Percentiles::default();
        assert_eq!(percentiles.set("0.5,1.0"), Ok(()));
        assert_eq!(percentiles.set("0.99"), Ok(()));
        assert_eq!(percentiles.config(), json("[1,0.99,0.5]"));
        assert_eq!(percentiles.set("abc"), Err(Refusal::Fatal("Could not parse: abc".into())));
        assert_eq!(percentiles.set(""), Err(Refusal::Fatal("Could not parse: ".into())));
    }
}
