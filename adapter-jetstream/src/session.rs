//! One session: finds out what was missed, reads on, and lets new listeners know where they begin.

use std::convert::Infallible;

use async_nats::{Message, jetstream::stream::Info};
use socketioxide_adapter_core::{
    Result,
    transport::{Continuity, pulse::TICK},
};
use socketioxide_adapter_nats::companion::{Companion, Session};
use tokio::{sync::oneshot, time::timeout};
use tracing::warn;

use crate::{
    JetStream, error,
    position::Found,
    reader::Reader,
    stream::{self, Stream},
};

impl Companion for JetStream {
    async fn run(&self, session: Session, ready: oneshot::Sender<()>) -> Result<Infallible> {
        let stream = Stream::new(session.client.clone(), &self.config);
        let reader = Reader {
            context: stream.context.clone(),
            next: self.open(&stream).await?,
            session,
        };
        let _ = ready.send(());
        tokio::select! {
            error = reader.run(self) => error,
            error = self.reconcile(&stream) => error,
        }
    }

    fn acknowledgement(message: &Message) -> Result<()> {
        error::acknowledgement(message)
    }
}

impl JetStream {
    /// Finds or makes the stream, tells what was missed, and makes a consumer for the rest.
    async fn open(&self, stream: &Stream) -> Result<String> {
        let wanted = stream::wanted(&self.config, self.nats.namespaces());
        let info = stream.find_or_make(&wanted).await?;
        self.compare(&wanted, &info);
        let last = self.position.last();
        let anchor = match info.state.first_sequence.max(1)..=info.state.last_sequence {
            kept if kept.contains(&last) => stream.stored(last).await?,
            _ => None,
        };
        let resumption = self.position.resume(&Found {
            created: info.created,
            subjects: info.state.subjects_count,
            first: info.state.first_sequence,
            last: info.state.last_sequence,
            anchor,
        });
        let next = stream.consume(resumption.last + 1).await?;
        // At once: what was found out must not be lost with a session that dies before it is told.
        if let Some(verdict) = &resumption.verdict {
            if verdict.is_reset() {
                self.topics.rewind();
            }
            let continuity = |subject: &str| Some(verdict.of(subject));
            self.topics.tell(u64::MAX, continuity);
        }
        self.position.commit(&resumption);
        Ok(next)
    }

    fn compare(&self, wanted: &stream::Config, info: &Info) {
        let limits = |config: &stream::Config| {
            let (age, bytes) = (config.max_age, config.max_bytes);
            (age, bytes, config.num_replicas, config.storage)
        };
        let (wanted, found) = (limits(wanted), limits(&info.config));
        if wanted != found && self.position.is_new() {
            warn!(
                stream = info.config.name,
                ?found,
                ?wanted,
                "the stream exists with other settings (age, bytes, replicas, storage) and is used as it is"
            );
        }
    }

    /// Lets new listeners begin behind the last frame there is; the consumer reads all namespaces anyway.
    async fn reconcile(&self, stream: &Stream) -> Result<Infallible> {
        loop {
            let missing = self.topics.differences().missing;
            if !missing.is_empty() {
                self.topics.ask(&missing);
                let end = stream.end().await?;
                // Nobody has listened before.
                let continuity = |_: &str| Continuity::Unknown;
                self.topics.confirm(&missing, end, continuity);
            }
            let _ = timeout(TICK, self.topics.changed()).await;
        }
    }
}
