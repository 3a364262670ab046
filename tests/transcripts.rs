//! The recorded transcripts, replayed against the real binaries.
