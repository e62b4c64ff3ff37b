//! Errors of JetStream as errors of the adapter, by kind.

use async_nats::{
    Message, StatusCode,
    jetstream::{self, ErrorCode, response::Response},
};
use socketioxide_adapter_core::{Error, ErrorKind, Result, transport::Step};

/// Name of the transport.
pub(crate) const NAME: &str = "jetstream";

/// The session cannot go on.
pub(crate) fn broken(what: &str) -> Error {
    Step::Link.error(NAME, ErrorKind::Interrupted, what)
}

/// A request that was refused.
pub(crate) fn refused(request: &str, error: &jetstream::Error) -> Error {
    let kind = match error.error_code() {
        // Another stream has the subjects; one server alone keeps no replicas; not for this account.
        ErrorCode::STREAM_SUBJECT_OVERLAP
        | ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => ErrorKind::Config,
        _ => ErrorKind::Unavailable,
    };
    Step::Connect.error(NAME, kind, format!("{request}: {error}"))
}

/// What the server says about a frame that it was sent for the stream.
pub(crate) fn acknowledgement(message: &Message) -> Result<()> {
    let failed = |kind, what: String| Err(Step::Publish.error(NAME, kind, what));
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        let what = "the stream is not there at the moment".to_owned();
        return failed(ErrorKind::Unavailable, what);
    }
    match serde_json::from_slice(&message.payload) {
        Ok(Response::<serde_json::Value>::Ok(_)) => Ok(()),
        Ok(Response::Err { error }) => {
            let kind = match error.error_code() {
                ErrorCode::INSUFFICIENT_RESOURCES => ErrorKind::Unavailable,
                _ => ErrorKind::Rejected,
            };
            failed(kind, format!("not stored: {error}"))
        }
        Err(_) => failed(
            ErrorKind::Protocol,
            "the answer is no acknowledgement".to_owned(),
        ),
    }
}
