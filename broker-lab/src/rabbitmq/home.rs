//! A folder that looks like the installed server, but starts in half the time.
//!
//! At each start a server reads what plugins are offered, used or not, looks for each of its thousand modules in the folder
//! of each of them, and loads each module of each library to ask whether it wants to upgrade the data. Here nothing is
//! offered but the core, and the libraries name no modules: those that are needed are loaded when they are.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Where Debian keeps the libraries of Erlang. Elsewhere they keep their modules, and a start takes longer.
const ERLANG: &str = "/usr/lib/erlang/lib";

/// What the server sees as its plugins: only its core, where its settings are described.
pub(super) fn plugins(home: &Path) -> PathBuf {
    home.join("offered")
}

/// Descriptions of libraries without modules, to be found before the real ones.
pub(super) fn applications(home: &Path) -> PathBuf {
    home.join("applications")
}

/// Makes it. `scripts` is where the scripts of the installed server are; `install` says how to get it.
pub(super) fn make(home: &Path, scripts: &Path, install: &'static str) -> Result<()> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::missing(scripts, install),
        _ => Error::io("the server's files", &error),
    };
    // A link into the folder of the installed version, `…/sbin/rabbitmq-server`.
    let script = scripts.join("rabbitmq-server");
    let installed = script.canonicalize().map_err(failed)?.with_file_name("..");
    fill(home, &installed).map_err(failed)
}

fn fill(home: &Path, installed: &Path) -> io::Result<()> {
    let (libraries, offered, applications) =
        (home.join("plugins"), plugins(home), applications(home));
    for folder in [home, &libraries, &offered, &applications] {
        fs::create_dir(folder)?;
    }
    for part in ["sbin", "escript"] {
        unix::fs::symlink(installed.join(part), home.join(part))?;
    }
    for library in folders(&installed.join("plugins"))? {
        let name = library.file_name().unwrap_or_default();
        let bytes = name.as_encoded_bytes();
        if !bytes.starts_with(b"rabbitmq_") || bytes.starts_with(b"rabbitmq_prelaunch-") {
            unix::fs::symlink(&library, libraries.join(name))?;
        }
        if bytes.starts_with(b"rabbit-") {
            unix::fs::symlink(&library, offered.join(name))?;
        }
        // What belongs to the server is asked for its boot steps and feature flags as well.
        if !bytes.starts_with(b"rabbit") {
            describe(&library, &applications)?;
        }
    }
    for library in folders(Path::new(ERLANG)).unwrap_or_default() {
        describe(&library, &applications)?;
    }
    Ok(())
}

fn folders(of: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(of)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect()
}

/// Writes the description of a library without its modules.
fn describe(library: &Path, to: &Path) -> io::Result<()> {
    let name = library.file_name().and_then(OsStr::to_str);
    let Some((name, _version)) = name.and_then(|name| name.rsplit_once('-')) else {
        return Ok(());
    };
    let file = format!("{name}.app");
    match fs::read_to_string(library.join("ebin").join(&file)) {
        Ok(description) => fs::write(to.join(file), without_modules(&description)),
        // A folder that is no library.
        Err(_) => Ok(()),
    }
}

/// A list of modules has no list in it.
fn without_modules(description: &str) -> String {
    let found = description
        .split_once("{modules,")
        .and_then(|(head, rest)| {
            let (_, tail) = rest.split_once(']')?;
            Some(format!("{head}{{modules,[]{tail}"))
        });
    found.unwrap_or_else(|| description.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_loses_its_modules_and_nothing_else() {
        let described = "{application,x,[{vsn,\"1\"},\n {modules, [a,\n b]},\n {registered,[c]}]}.";
        let expected = "{application,x,[{vsn,\"1\"},\n {modules,[]},\n {registered,[c]}]}.";
        assert_eq!(without_modules(described), expected);
        assert_eq!(without_modules("% nothing"), "% nothing");
    }
}
