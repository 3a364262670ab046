//! What every program answers to `--version`.
//! The number is the workspace's; the compiler's is found at build time.
//! The rule: the daemons' line keeps upstream's shape.

/// This release, as on the wire in IDENTIFY and `/info`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What it was built with.
pub const BUILT_WITH: &str = concat!("rust", env!("NSQ_RUSTC_VERSION"));

/// A daemon's version line, such as `nsqd v1.4.0 (built w/rust1.95.0)`.
pub fn text(program: &str) -> String {
    format!("{program} v{VERSION} (built w/{BUILT_WITH})")
}

#[cfg(test)]
mod tests {
    #[test]
    fn version_line_names_program_release_and_compiler() {
        let text = super::text("nsqd");
        let rustc = text.strip_prefix(concat!("nsqd v", env!("CARGO_PKG_VERSION"), " (built w/rust")).unwrap();
        assert!(rustc.starts_with("1.") && rustc.ends_with(')'), "{text}");
    }
}
