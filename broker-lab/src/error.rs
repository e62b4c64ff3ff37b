//! What can go wrong in the lab.

use std::{fmt, io, path::Path};

/// Result of every fallible operation of the lab.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the lab: one line that says what to do, then the end of the broker's log where that helps.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    pub(crate) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self(format!("{what}: {error}"))
    }

    pub(crate) fn missing(program: &Path, install: &str) -> Self {
        Self(format!(
            "{} not found, install it with: {install}",
            program.display()
        ))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
