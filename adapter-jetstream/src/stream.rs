//! What JetStream is asked: for the stream, and for a consumer to read it.

use std::time::Duration;

use async_nats::{
    Client,
    datetime::{DateTime, parse_rfc3339},
    jetstream::{
        Context, ContextBuilder,
        context::RequestErrorKind,
        response::Response,
        stream::{Info, StorageType},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use socketioxide_adapter_core::{ErrorKind, Result, transport::Step};

pub(crate) use async_nats::jetstream::stream::Config;

use crate::{JetStreamConfig, error};

/// A frame that is published again within this time is not stored again.
const DUPLICATES: Duration = Duration::from_secs(120);
/// How long the server keeps a consumer that nobody reads from.
const INACTIVE: Duration = Duration::from_secs(10);

/// The stream of a prefix, in one session.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) context: Context,
    name: String,
}

impl Stream {
    pub(crate) fn new(client: Client, config: &JetStreamConfig) -> Self {
        let endpoint = &config.nats.endpoint;
        let context = ContextBuilder::new().timeout(endpoint.limits.timeout);
        Self {
            context: context.build(client),
            name: name(&endpoint.prefix),
        }
    }

    /// What there is; makes the stream if it is not there.
    pub(crate) async fn find_or_make(&self, wanted: &Config) -> Result<Info> {
        match self.ask("STREAM.INFO", &()).await? {
            Some(info) => Ok(info),
            None => self.tell("STREAM.CREATE", wanted).await,
        }
    }

    /// The position behind the last frame there is now.
    pub(crate) async fn end(&self) -> Result<u64> {
        let info: Info = self.tell("STREAM.INFO", &()).await?;
        Ok(info.state.last_sequence + 1)
    }

    /// When this frame was stored, if it is there.
    pub(crate) async fn stored(&self, number: u64) -> Result<Option<DateTime>> {
        let get = json!({ "seq": number });
        let found: Option<Value> = self.ask("STREAM.MSG.GET", &get).await?;
        let time = found.as_ref().and_then(|it| it["message"]["time"].as_str());
        Ok(time.and_then(|time| parse_rfc3339(time).ok()))
    }

    /// Makes a consumer that reads from this frame on, and lives as long as it is read from. Returns where it is asked for
    /// frames.
    pub(crate) async fn consume(&self, from: u64) -> Result<String> {
        let consumer = json!({
            "stream_name": self.name,
            "config": {
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": from,
                "ack_policy": "none",
                "replay_policy": "instant",
                "inactive_threshold": nanos(INACTIVE),
                "num_replicas": 1,
                "mem_storage": true,
            },
        });
        let consumer: Value = self.tell("CONSUMER.CREATE", &consumer).await?;
        let (stream, name) = (&self.name, consumer["name"].as_str().unwrap_or_default());
        Ok(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"))
    }

    /// Asks for something; `None` if it is not there.
    async fn ask<T: DeserializeOwned>(
        &self,
        request: &str,
        payload: &(impl Serialize + Sync),
    ) -> Result<Option<T>> {
        let request = format!("{request}.{}", self.name);
        let message = match self.context.request(request.clone(), payload).await {
            Ok(Response::Ok(answer)) => return Ok(Some(answer)),
            Ok(Response::Err { error }) if error.code() == 404 => return Ok(None),
            Ok(Response::Err { error }) => return Err(error::refused(&request, &error)),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                "JetStream does not answer, is it enabled (nats-server -js)?".to_owned()
            }
            Err(error) => format!("{request}: {error}"),
        };
        Err(Step::Connect.error(error::NAME, ErrorKind::Unavailable, message))
    }

    /// Asks for something that must be there.
    async fn tell<T: DeserializeOwned>(
        &self,
        request: &str,
        payload: &(impl Serialize + Sync),
    ) -> Result<T> {
        let gone = || {
            let message = format!("{request}.{}: the stream is gone", self.name);
            Step::Connect.error(error::NAME, ErrorKind::Unavailable, message)
        };
        self.ask(request, payload).await?.ok_or_else(gone)
    }
}

/// How the stream is made. `subjects` has a wildcard.
pub(crate) fn wanted(config: &JetStreamConfig, subjects: String) -> Config {
    Config {
        name: name(&config.nats.endpoint.prefix),
        description: Some("frames of a socketioxide cluster".to_owned()),
        subjects: vec![subjects],
        max_age: config.max_age,
        max_bytes: i64::try_from(config.max_bytes).unwrap_or(i64::MAX),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        num_replicas: config.replicas.into(),
        storage: match config.in_memory {
            true => StorageType::Memory,
            false => StorageType::File,
        },
        duplicate_window: duplicates(config),
        ..Default::default()
    }
}

/// How long the server knows a frame again.
pub(crate) fn duplicates(config: &JetStreamConfig) -> Duration {
    DUPLICATES.min(config.max_age)
}

/// The name of the stream of a prefix, in which there can be no `.`: it becomes `_-`, and `_` becomes `__`.
fn name(prefix: &str) -> String {
    prefix.replace('_', "__").replace('.', "_-")
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_of_streams_are_injective() {
        let prefixes = ["a.b", "a_b", "a_-b", "a__b", "a-b", "a_.b", "a._b"];
        let names: HashSet<_> = prefixes.map(name).into();
        assert_eq!(names.len(), prefixes.len());
        assert_eq!(name("app.chat"), "app_-chat");
    }
}
