//! Without the cargo feature `jetstream`: no log, and an error that names the feature.

use std::{convert::Infallible, marker::PhantomData};

use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use socketioxide_adapter_core::Result;

use crate::{
    config::{NatsConfig, invalid},
    publisher::Publisher,
    transport::Shared,
};

/// Cannot be made.
#[derive(Debug)]
pub(crate) struct Log(Infallible);

/// Cannot be opened.
#[derive(Debug)]
pub(crate) struct Opened<'a>(Infallible, PhantomData<&'a Log>);

#[expect(
    clippy::unused_async,
    reason = "the same signatures as with the feature"
)]
impl Log {
    pub(crate) fn new(config: &NatsConfig) -> Result<Option<Self>> {
        match config.log {
            None => Ok(None),
            Some(_) => Err(invalid(
                "JetStream needs the cargo feature \"jetstream\" of socketioxide-adapter-nats",
            )),
        }
    }

    pub(crate) fn max_payload(message: usize) -> usize {
        message
    }

    pub(crate) async fn open(&self, _client: &Client, _config: &NatsConfig) -> Result<Opened<'_>> {
        match self.0 {}
    }

    pub(crate) async fn publish(
        &self,
        _publisher: &Publisher,
        _config: &NatsConfig,
        _subject: String,
        _payload: Bytes,
    ) -> Result<()> {
        match self.0 {}
    }
}

#[expect(
    clippy::unused_async,
    reason = "the same signatures as with the feature"
)]
impl Opened<'_> {
    pub(crate) fn tell(&self, _shared: &Shared) {
        match self.0 {}
    }

    pub(crate) async fn end(&self) -> Result<u64> {
        match self.0 {}
    }

    pub(crate) async fn read(
        &self,
        _shared: &Shared,
        _inbox: &str,
        _messages: Subscriber,
    ) -> Result<Infallible> {
        match self.0 {}
    }
}

/// Nothing is acknowledged.
pub(crate) fn acknowledgement(_message: &Message) -> Result<()> {
    Ok(())
}
