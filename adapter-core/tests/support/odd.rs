//! The in-memory transport with something odd about it.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use socketioxide_adapter_core::{
    Result,
    memory::MemoryTransport,
    transport::{Capabilities, LinkWatch, Receipt, Subscription, Topic, Transport},
};

/// What it does otherwise.
#[async_trait]
pub trait Oddity: Debug + Send + Sync + 'static {
    async fn publish(
        &self,
        inner: &MemoryTransport,
        topic: &Topic,
        payload: Bytes,
    ) -> Result<Receipt> {
        inner.publish(topic, payload).await
    }
    async fn subscribe(&self, inner: &MemoryTransport, topic: &Topic) -> Result<Subscription> {
        inner.subscribe(topic).await
    }
}

#[derive(Debug)]
pub struct Odd<O>(pub MemoryTransport, pub O);

#[async_trait]
impl<O: Oddity> Transport for Odd<O> {
    fn name(&self) -> &'static str {
        "odd"
    }
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        self.1.publish(&self.0, topic, payload).await
    }
    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        self.1.subscribe(&self.0, topic).await
    }
    fn link(&self) -> LinkWatch {
        self.0.link()
    }
    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}
