//! Which certificate authorities a backend trusts.

use std::{borrow::Cow, fmt, fs, path::PathBuf};

use crate::{
    backend::BackendUrl,
    error::{Error, ErrorKind, Result},
};

/// Which certificate authorities to trust.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootCa {
    /// Those of the operating system.
    #[default]
    System,
    /// Those in a PEM file, which is read once, when connecting.
    File(PathBuf),
    /// Those in this PEM text.
    Pem(Vec<u8>),
}

impl RootCa {
    /// Takes the option `ca` of a URL: the path of a PEM file. Without it, those of the operating system.
    #[must_use]
    pub fn take_from(url: &mut BackendUrl) -> Self {
        url.take("ca")
            .map_or(Self::System, |path| Self::File(path.into()))
    }

    /// The PEM text, if it is not the operating system that knows. Blocks while it reads a file.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the file cannot be read; `operation` is what it was wanted for, as `redis: config`.
    pub fn pem(&self, operation: &'static str) -> Result<Option<Cow<'_, [u8]>>> {
        match self {
            Self::System => Ok(None),
            Self::File(path) => match fs::read(path) {
                Ok(pem) => Ok(Some(pem.into())),
                Err(error) => {
                    let message = format!("option \"ca\": {}: {error}", path.display());
                    Err(Error::new(ErrorKind::Config, operation, message))
                }
            },
            Self::Pem(pem) => Ok(Some(pem.into())),
        }
    }
}

impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Pem(pem) => write!(f, "{} bytes of PEM", pem.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_names_a_file_whose_text_is_read() {
        let mut url = BackendUrl::parse("rediss://h?ca=/nowhere/ca.pem").unwrap();
        let ca = RootCa::take_from(&mut url);
        assert_eq!(ca, RootCa::File("/nowhere/ca.pem".into()));
        let error = ca.pem("redis: config").unwrap_err().to_string();
        let start = "redis: config: option \"ca\": /nowhere/ca.pem: ";
        assert!(error.starts_with(start), "{error}");
        let here = RootCa::File(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into());
        let text = here.pem("redis: config").unwrap().unwrap();
        assert_eq!(*text, *fs::read("Cargo.toml").unwrap());
    }

    #[test]
    fn the_operating_system_has_no_text_and_a_given_one_is_not_shown() {
        let mut url = BackendUrl::parse("rediss://h").unwrap();
        assert_eq!(RootCa::take_from(&mut url), RootCa::System);
        assert_eq!(RootCa::System.pem("x").unwrap(), None);
        let given = RootCa::Pem(b"text".to_vec());
        let text = given.pem("x").unwrap();
        assert_eq!(text.as_deref(), Some(b"text".as_slice()));
        assert_eq!(format!("{given:?}"), "4 bytes of PEM");
    }
}
