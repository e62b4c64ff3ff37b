//! The pages of the documentation list the options that there are, with the defaults that they have.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;

use common::config;
use socketioxide_adapter_amqp::AmqpConfig;
use socketioxide_adapter_core::backend::BackendUrl;

const QUEUES: &str = include_str!("../../docs/backends/amqp.md");
const STREAMS: &str = include_str!("../../docs/backends/rabbitmq-streams.md");

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

/// The options that the error about one that does not exist lists.
fn known(url: &str) -> BTreeSet<String> {
    let error = AmqpConfig::from_url(BackendUrl::parse(url).unwrap()).unwrap_err();
    let text = error.to_string();
    let (_, known) = text.split_once("known options: ").unwrap();
    let known = known.trim_end_matches(')').split(", ");
    known.map(str::to_owned).collect()
}

#[test]
fn the_tables_of_options_are_true() {
    for (page, scheme, all) in [
        (QUEUES, "amqp", "amqps://h?nonsense=1&queue=durable"),
        (STREAMS, "amqp+streams", "amqps+streams://h?nonsense=1"),
    ] {
        let options = options(page);
        let told: BTreeSet<String> = options.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(told, known(all));
        // What is only there for durable queues is judged for them.
        let durable = |name| name == "expires";
        for (name, default) in options {
            let Some(default) = default else { continue };
            let base = format!(
                "{scheme}://h?{}",
                if durable(name) { "queue=durable&" } else { "" }
            );
            let (without, with) = (config(&base), config(&format!("{base}{name}={default}")));
            assert_eq!(format!("{without:?}"), format!("{with:?}"), "{name}");
        }
    }
}
