//! How a case says what is wrong.

use std::{fmt, time::Duration};

use socketioxide::{BroadcastError, EmitWithAckError, socket::RemoteActionError};
use socketioxide_adapter_core::transport::Event;

use crate::LabError;

/// What a case returns.
pub(crate) type Verdict<T = ()> = Result<T, Failure>;

/// Why a case failed: a sentence for the author of the transport.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl From<socketioxide_adapter_core::Error> for Failure {
    fn from(error: socketioxide_adapter_core::Error) -> Self {
        Self(format!("an operation failed: {error:?}"))
    }
}

impl From<BroadcastError> for Failure {
    fn from(error: BroadcastError) -> Self {
        Self(format!("an emit failed: {error:?}"))
    }
}

impl From<RemoteActionError> for Failure {
    fn from(error: RemoteActionError) -> Self {
        Self(format!("an operation on a remote socket failed: {error:?}"))
    }
}

impl From<EmitWithAckError> for Failure {
    fn from(error: EmitWithAckError) -> Self {
        Self(format!("an emit with acknowledgements failed: {error:?}"))
    }
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        Self(format!("the lab failed: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Fails the case, with a message, unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::check::Failure(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;

/// Fails the case unless two values are equal.
pub(crate) fn ensure_eq<T: PartialEq + fmt::Debug>(
    what: &str,
    actual: &T,
    expected: &T,
) -> Verdict {
    ensure!(
        actual == expected,
        "{what}: expected {expected:?}, got {actual:?}"
    );
    Ok(())
}

/// Waits for a future, but not for ever.
pub(crate) async fn within<T>(
    deadline: Duration,
    what: &str,
    future: impl Future<Output = T>,
) -> Verdict<T> {
    let late = |_| Failure(format!("{what} did not happen within {deadline:?}"));
    tokio::time::timeout(deadline, future).await.map_err(late)
}

/// Asks again and again until `condition` holds, but not for ever.
pub(crate) async fn eventually<F: Future<Output = Verdict<bool>>>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) -> Verdict {
    let mut pause = Duration::from_millis(1);
    within(deadline, what, async {
        while !condition().await? {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    })
    .await?
}

/// An event for a message, shortened.
pub(crate) fn show(event: Option<&Event>) -> String {
    match event {
        Some(Event::Message(payload)) => {
            let head = String::from_utf8_lossy(&payload[..payload.len().min(32)]).into_owned();
            format!("a payload of {} bytes, {head:?}", payload.len())
        }
        Some(event) => format!("{event:?}"),
        None => "the end of the subscription".to_owned(),
    }
}
