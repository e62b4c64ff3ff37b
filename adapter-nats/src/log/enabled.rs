//! The log: one JetStream stream that keeps the frames of all namespaces of a prefix.
//!
//! A node reads the whole stream, by a consumer that lives as long as the session, and remembers where it is. The next
//! session looks at what the server still has, says what was missed, and reads on from there.

mod ids;
mod position;
mod reader;

use std::time::Duration;

use async_nats::{
    Client, HeaderMap, Message, StatusCode, Subscriber,
    datetime::parse_rfc3339,
    header,
    jetstream::{
        Context, ContextBuilder, ErrorCode,
        context::RequestErrorKind,
        response::Response,
        stream::{self, Info, StorageType},
    },
};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use socketioxide_adapter_core::{Error, ErrorKind, Outcome, Result};
use tracing::warn;

use self::{
    ids::Ids,
    position::{Found, Position, Resumption},
};
use crate::{
    config::{LogConfig, NatsConfig},
    error::Step,
    publisher::{Outgoing, Publisher},
    subjects,
    transport::Shared,
};

/// What a frame in the log needs besides its payload: the header with its id.
const OVERHEAD: usize = 128;
/// A frame that is published again within this time is not stored again.
const DUPLICATES: Duration = Duration::from_secs(120);
/// How long the server keeps a consumer that nobody reads from.
const INACTIVE: Duration = Duration::from_secs(10);

/// The stream, and where this node is in it.
#[derive(Debug)]
pub(crate) struct Log {
    config: LogConfig,
    stream: String,
    ids: Ids,
    position: Position,
}

/// The log in the present session.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    log: &'a Log,
    api: Api,
    consumer: String,
    resumption: Resumption,
}

impl Log {
    /// `None` if the configuration has none.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same signature as without the feature"
    )]
    pub(crate) fn new(config: &NatsConfig) -> Result<Option<Self>> {
        Ok(config.log.as_ref().map(|log| Self {
            config: log.clone(),
            stream: stream_name(&config.prefix),
            ids: Ids::new(DUPLICATES.min(log.max_age)),
            position: Position::default(),
        }))
    }

    /// The largest payload if messages can have so many bytes.
    pub(crate) fn max_payload(message: usize) -> usize {
        message.saturating_sub(OVERHEAD)
    }

    /// Finds or makes the stream, says what was missed, and makes a consumer for the rest.
    pub(crate) async fn open(&self, client: &Client, config: &NatsConfig) -> Result<Opened<'_>> {
        let builder = ContextBuilder::new().timeout(config.limits.timeout);
        let api = Api(builder.build(client.clone()));
        let name = &self.stream;
        let wanted = self.wanted(&config.prefix);
        let info: Info = match api.ask(&format!("STREAM.INFO.{name}"), &()).await? {
            Some(info) => info,
            None => api.tell(&format!("STREAM.CREATE.{name}"), &wanted).await?,
        };
        self.compare(&wanted, &info);
        let last = self.position.last();
        let anchor = match info.state.first_sequence.max(1)..=info.state.last_sequence {
            kept if kept.contains(&last) => {
                let get = format!("STREAM.MSG.GET.{name}");
                let anchor: Option<Anchor> = api.ask(&get, &json!({ "seq": last })).await?;
                anchor.and_then(|anchor| parse_rfc3339(&anchor.message.time).ok())
            }
            _ => None,
        };
        let resumption = self.position.resume(&Found {
            created: info.created,
            subjects: info.state.subjects_count,
            first: info.state.first_sequence,
            last: info.state.last_sequence,
            anchor,
        });
        let consumer = json!({
            "stream_name": name,
            "config": {
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": resumption.last + 1,
                "ack_policy": "none",
                "replay_policy": "instant",
                "inactive_threshold": nanos(INACTIVE),
                "num_replicas": 1,
                "mem_storage": true,
            },
        });
        let create = format!("CONSUMER.CREATE.{name}");
        let consumer: Consumer = api.tell(&create, &consumer).await?;
        Ok(Opened {
            log: self,
            consumer: consumer.name,
            api,
            resumption,
        })
    }

    /// Publishes one frame and waits until it is stored. The same bytes again, after an attempt whose outcome is unknown,
    /// are stored once.
    pub(crate) async fn publish(
        &self,
        publisher: &Publisher,
        config: &NatsConfig,
        subject: String,
        payload: Bytes,
    ) -> Result<()> {
        let mut attempt = self.ids.begin(&subject, &payload);
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, attempt.id());
        let message = Outgoing {
            subject,
            payload,
            headers: Some(headers),
        };
        let result = publisher.publish(config, message).await;
        let unknown = |error: &Error| error.outcome() == Outcome::Unknown;
        if !result.as_ref().is_err_and(unknown) {
            attempt.conclude();
        }
        result
    }

    fn wanted(&self, prefix: &str) -> stream::Config {
        stream::Config {
            name: self.stream.clone(),
            description: Some("frames of a socketioxide cluster".to_owned()),
            subjects: vec![format!("{}*", subjects::namespaces(prefix))],
            max_age: self.config.max_age,
            max_bytes: i64::try_from(self.config.max_bytes).unwrap_or(i64::MAX),
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            num_replicas: self.config.replicas.into(),
            storage: match self.config.in_memory {
                true => StorageType::Memory,
                false => StorageType::File,
            },
            duplicate_window: DUPLICATES.min(self.config.max_age),
            ..Default::default()
        }
    }

    fn compare(&self, wanted: &stream::Config, info: &Info) {
        let limits = |config: &stream::Config| {
            let (age, bytes) = (config.max_age, config.max_bytes);
            (age, bytes, config.num_replicas, config.storage)
        };
        let (wanted, found) = (limits(wanted), limits(&info.config));
        if wanted != found && self.position.is_new() {
            warn!(
                stream = self.stream,
                ?found,
                ?wanted,
                "the stream exists with other settings (age, bytes, replicas, storage) and is used as it is"
            );
        }
    }
}

impl Opened<'_> {
    /// Tells those who listened in an earlier session how it goes on, if that is known before the first frame.
    pub(crate) fn tell(&self, shared: &Shared) {
        if let Some(verdict) = &self.resumption.verdict {
            if verdict.is_reset() {
                shared.topics.rewind();
            }
            let of = |subject: &str| shared.is_logged(subject).then(|| verdict.of(subject));
            shared.topics.tell(u64::MAX, of);
        }
        self.log.position.commit(&self.resumption);
    }

    /// The position behind the last frame there is now.
    pub(crate) async fn end(&self) -> Result<u64> {
        let info = format!("STREAM.INFO.{}", self.log.stream);
        let info: Info = self.api.tell(&info, &()).await?;
        Ok(info.state.last_sequence + 1)
    }

    /// Reads from now on, what arrives at `inbox`, and returns why that ended.
    pub(crate) async fn read(
        &self,
        shared: &Shared,
        inbox: &str,
        messages: Subscriber,
    ) -> Result<std::convert::Infallible> {
        let next = format!(
            "$JS.API.CONSUMER.MSG.NEXT.{}.{}",
            self.log.stream, self.consumer
        );
        let reader = reader::Reader::new(self.api.0.clone(), next, inbox, messages);
        reader.run(shared, &self.log.position).await
    }
}

/// What the server says about a frame that it was sent for the log.
pub(crate) fn acknowledgement(message: &Message) -> Result<()> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        let what = "the stream is not there at the moment";
        return Err(Step::Publish.error(ErrorKind::Unavailable, what));
    }
    match serde_json::from_slice(&message.payload) {
        Ok(Response::<serde_json::Value>::Ok(_)) => Ok(()),
        Ok(Response::Err { error }) => {
            let kind = match error.error_code() {
                ErrorCode::INSUFFICIENT_RESOURCES => ErrorKind::Unavailable,
                _ => ErrorKind::Rejected,
            };
            Err(Step::Publish.error(kind, format!("not stored: {error}")))
        }
        Err(_) => Err(Step::Publish.error(ErrorKind::Protocol, "the answer is no acknowledgement")),
    }
}

/// The name of the stream of a prefix, in which there can be no `.`: it becomes `_-`, and `_` becomes `__`.
fn stream_name(prefix: &str) -> String {
    prefix.replace('_', "__").replace('.', "_-")
}

/// What JetStream is asked.
#[derive(Debug)]
struct Api(Context);

#[derive(Deserialize)]
struct Consumer {
    name: String,
}

/// The frame that this node has read last.
#[derive(Deserialize)]
struct Anchor {
    message: Stored,
}

#[derive(Deserialize)]
struct Stored {
    time: String,
}

impl Api {
    /// Asks for something; `None` if it is not there.
    async fn ask<T: DeserializeOwned>(
        &self,
        request: &str,
        payload: &(impl Serialize + Sync),
    ) -> Result<Option<T>> {
        let message = match self.0.request(request.to_owned(), payload).await {
            Ok(Response::Ok(answer)) => return Ok(Some(answer)),
            Ok(Response::Err { error }) if error.code() == 404 => return Ok(None),
            Ok(Response::Err { error }) => {
                let kind = match error.error_code() {
                    // Another stream has the subjects; one server alone keeps no replicas; not for this account.
                    ErrorCode::STREAM_SUBJECT_OVERLAP
                    | ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED
                    | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => ErrorKind::Config,
                    _ => ErrorKind::Unavailable,
                };
                return Err(Step::Connect.error(kind, format!("JetStream: {request}: {error}")));
            }
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                "JetStream does not answer, is it enabled (nats-server -js)?".to_owned()
            }
            Err(error) => format!("JetStream: {request}: {error}"),
        };
        Err(Step::Connect.error(ErrorKind::Unavailable, message))
    }

    /// Asks for something that must be there.
    async fn tell<T: DeserializeOwned>(
        &self,
        request: &str,
        payload: &(impl Serialize + Sync),
    ) -> Result<T> {
        let gone = || {
            let message = format!("JetStream: {request}: the stream is gone");
            Step::Connect.error(ErrorKind::Unavailable, message)
        };
        self.ask(request, payload).await?.ok_or_else(gone)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_of_streams_are_injective() {
        let prefixes = ["a.b", "a_b", "a_-b", "a__b", "a-b", "a_.b", "a._b"];
        let names: HashSet<_> = prefixes.map(stream_name).into();
        assert_eq!(names.len(), prefixes.len());
        assert_eq!(stream_name("app.chat"), "app_-chat");
    }
}
