//! Why a transcript did not replay.
//!
//! A failure carries what came, in words for a person; what was expected is the step itself, which the report
//! prints next to it. Everything that can go wrong in a scenario is one of these, and nothing panics.

use super::facts::Misfit;

/// What a step comes to.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server did something else; says what.
    Got(String),
    /// Somebody took one of our ports between the check and the start: worth another try.
    PortTaken,
}

impl Failure {
    /// What came instead of the expected, and where the two part.
    pub(crate) fn instead(what: impl std::fmt::Display, misfit: &Misfit) -> Self {
        let misfit = misfit.to_string();
        let gap = if misfit.is_empty() { "" } else { "\n\n" };
        Self::Got(format!("{what}{gap}{misfit}"))
    }
}

impl From<String> for Failure {
    fn from(got: String) -> Self {
        Self::Got(got)
    }
}

impl From<&str> for Failure {
    fn from(got: &str) -> Self {
        Self::Got(got.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Got(got) => f.write_str(got),
            Self::PortTaken => f.write_str("other programs keep taking the ports chosen for the daemons"),
        }
    }
}
