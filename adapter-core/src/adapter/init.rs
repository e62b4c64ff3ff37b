//! The result of adding a namespace.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use socketioxide_core::adapter::Spawnable;
use tracing::error;

use crate::error::{Error, Result};

/// Resolves when the namespace is subscribed cluster-wide and the link is proven.
///
/// An error does not undo the namespace unless its kind is [`Config`](crate::ErrorKind::Config) or
/// [`Closed`](crate::ErrorKind::Closed): it serves its local sockets and joins the cluster when the broker answers. The
/// same goes for a future that nobody polls.
#[must_use = "the error tells that the namespace is local only"]
pub struct InitRes(Pin<Box<dyn Future<Output = Result<()>> + Send>>);

impl InitRes {
    pub(super) fn new(ready: impl Future<Output = Result<()>> + Send + 'static) -> Self {
        Self(Box::pin(ready))
    }

    pub(super) fn failed(error: Error) -> Self {
        Self(Box::pin(std::future::ready(Err(error))))
    }
}

impl Future for InitRes {
    type Output = Result<()>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl Spawnable for InitRes {
    /// Logs the error of a dynamic namespace, which nobody awaits. The task ends by the init deadline.
    fn spawn(self) {
        tokio::spawn(async move {
            if let Err(error) = self.await {
                error!(%error, "dynamic namespace is not in the cluster yet");
            }
        });
    }
}

impl fmt::Debug for InitRes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InitRes")
    }
}
