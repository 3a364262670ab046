//! Which topics are durable: their messages are acknowledged when they are on the medium, not before.
//!
//! In goes what the operator said (`--durable`, `--durable-topic`), out comes yes or no for a name, asked when a topic
//! is read at the start and when it opens. The rule: an ephemeral topic is never durable, whatever a pattern says.

use nsq_core::name::TopicName;
use wildmatch::WildMatch;

/// The operator's choice. By default no topic is durable.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// `--durable`: every topic.
    pub all: bool,
    /// `--durable-topic`: topics whose whole name matches one of these; `*` is any text, `?` any one character.
    pub patterns: Vec<String>,
}

impl Durable {
    /// Whether a topic of this name is durable.
    pub fn covers(&self, topic: &TopicName) -> bool {
        let matches = |pattern: &String| WildMatch::new(pattern).matches(topic.as_str());
        !topic.is_ephemeral() && (self.all || self.patterns.iter().any(matches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn durable(patterns: &[&str]) -> Durable {
        Durable { all: false, patterns: patterns.iter().map(ToString::to_string).collect() }
    }

    fn covered<'a>(durable: &Durable, names: &[&'a str]) -> Vec<&'a str> {
        names.iter().copied().filter(|name| durable.covers(&TopicName::new(name).unwrap())).collect()
    }

    #[test]
    fn a_pattern_is_for_the_whole_name() {
        let names = ["orders", "orders.eu", "my.orders", "Orders", "order5", "orders#ephemeral"];
        assert_eq!(covered(&durable(&["orders"]), &names), ["orders"]);
        assert_eq!(covered(&durable(&["orders*"]), &names), ["orders", "orders.eu"]);
        assert_eq!(covered(&durable(&["order?"]), &names), ["orders", "order5"]);
        assert_eq!(covered(&durable(&["*.orders", "O*"]), &names), ["my.orders", "Orders"]);
        assert_eq!(covered(&durable(&["*"]), &names), names[..5]);
        assert!(covered(&durable(&[""]), &names).is_empty());
    }

    #[test]
    fn all_are_all_but_the_ephemeral_and_none_is_the_default() {
        let names = ["t", "t#ephemeral"];
        assert_eq!(covered(&Durable { all: true, patterns: vec![] }, &names), ["t"]);
        assert!(covered(&Durable::default(), &names).is_empty());
    }
}
