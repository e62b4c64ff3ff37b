//! Compares the table of options of a page with the options that there are, and with the defaults that they have.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use socketioxide_adapter_amqp::{Config, Source};
use socketioxide_adapter_core::{Result, backend::BackendUrl};

/// The options of a page with their defaults; `None` where there is no value to write.
fn options(page: &str) -> Vec<(&str, Option<&str>)> {
    let (_, table) = page.split_once("| option | default | meaning |").unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let mut cells = row.split('|').skip(1).map(str::trim);
        let name = cells.next().unwrap().trim_matches('`');
        let default = cells.next().unwrap();
        (
            name,
            default
                .strip_prefix('`')
                .and_then(|it| it.strip_suffix('`')),
        )
    })
    .collect()
}

fn config<S: Source>(url: &str) -> Result<Config<S>> {
    Config::from_url(BackendUrl::parse(url).unwrap())
}

/// The options that the error about one that does not exist lists.
fn known<S: Source>(url: &str) -> BTreeSet<String> {
    let text = config::<S>(url).unwrap_err().to_string();
    let (_, known) = text.split_once("known options: ").unwrap();
    let known = known.trim_end_matches(')').split(", ");
    known.map(str::to_owned).collect()
}

/// `all` is a URL with an option that does not exist, and the others that are needed to know all. `base` is a URL to which
/// the option of this name can be added.
pub(crate) fn has_a_true_table<S: Source>(page: &str, all: &str, base: impl Fn(&str) -> String) {
    let options = options(page);
    let told: BTreeSet<String> = options.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(told, known::<S>(all));
    for (name, default) in options {
        let Some(default) = default else { continue };
        let base = base(name);
        let (without, with) = (
            config::<S>(&base),
            config::<S>(&format!("{base}{name}={default}")),
        );
        let (without, with) = (without.unwrap(), with.unwrap());
        assert_eq!(format!("{without:?}"), format!("{with:?}"), "{name}");
    }
}
