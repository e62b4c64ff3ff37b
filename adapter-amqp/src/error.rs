//! Errors of lapin as errors of the adapter, by kind.
//!
//! Texts of the broker are not passed on: what they say is not ours to judge. What is passed on is the code of its answer.

use lapin::{
    ErrorKind as Lapin,
    protocol::{AMQPErrorKind, AMQPHardError as Hard, AMQPSoftError as Soft},
};
use socketioxide_adapter_core::{Error, ErrorKind, socket::Address, transport::Step};

/// What an error of lapin means, of the connection or an answer of the broker.
pub(crate) fn explain(
    name: &'static str,
    step: Step,
    server: &Address,
) -> impl Fn(lapin::Error) -> Error {
    move |error| {
        let (kind, what) = match error.kind() {
            Lapin::ProtocolError(answer) => {
                let (kind, what) = of_answer(step, answer.kind());
                let code = answer.get_id();
                return step.error(name, kind, format!("{server}: {what} (code {code})"));
            }
            Lapin::MissingHeartbeatError => (ErrorKind::Interrupted, "no heartbeat of the broker"),
            Lapin::ParsingError(_) | Lapin::InvalidProtocolVersion(_) => (
                ErrorKind::Protocol,
                "what answers does not speak AMQP 0-9-1, or wants TLS (amqps://)",
            ),
            Lapin::ChannelsLimitReached => (
                ErrorKind::Unavailable,
                "the broker allows no more channels, raise its channel_max",
            ),
            Lapin::IOError(_)
            | Lapin::InvalidChannel(_)
            | Lapin::InvalidChannelState(..)
            | Lapin::InvalidConnectionState(_) => (step.lost(), "the connection was closed"),
            _ => (ErrorKind::Protocol, "something that lapin cannot handle"),
        };
        step.error(name, kind, format!("{server}: {what}"))
    }
}

/// What an error code of the broker means.
fn of_answer(step: Step, answer: &AMQPErrorKind) -> (ErrorKind, &'static str) {
    use AMQPErrorKind as Is;
    let kind = match answer {
        Is::Soft(Soft::ACCESSREFUSED) | Is::Hard(Hard::NOTALLOWED) => ErrorKind::Unauthorized,
        Is::Soft(Soft::PRECONDITIONFAILED) => ErrorKind::Config,
        Is::Soft(Soft::NOTFOUND | Soft::RESOURCELOCKED) => ErrorKind::Unavailable,
        Is::Soft(_) => ErrorKind::Rejected,
        Is::Hard(Hard::CONNECTIONFORCED) => step.lost(),
        Is::Hard(Hard::RESOURCEERROR | Hard::INTERNALERROR) => ErrorKind::Unavailable,
        Is::Hard(Hard::NOTIMPLEMENTED) => ErrorKind::Incompatible,
        Is::Hard(_) => ErrorKind::Protocol,
    };
    let what = match answer {
        Is::Soft(Soft::ACCESSREFUSED) if step == Step::Connect => "wrong user name or password",
        Is::Soft(Soft::ACCESSREFUSED) => {
            "forbidden, the user needs the permissions configure, write and read for <prefix>.*"
        }
        Is::Hard(Hard::NOTALLOWED) => {
            "there is no such virtual host, or the user may not use it, or there are too many connections"
        }
        Is::Soft(Soft::PRECONDITIONFAILED) => {
            "the exchange, queue or stream is there with other settings: use the same everywhere, or delete it"
        }
        Is::Soft(Soft::NOTFOUND) => "exchange, queue or stream is gone, down, or has no copy here",
        Is::Soft(Soft::RESOURCELOCKED) => "the queue still belongs to another connection",
        Is::Soft(_) => "refused by the broker",
        Is::Hard(Hard::CONNECTIONFORCED) => "the broker closed the connection",
        Is::Hard(Hard::RESOURCEERROR | Hard::INTERNALERROR) => "a problem of the broker's own",
        Is::Hard(Hard::NOTIMPLEMENTED) => "the broker cannot do it, use RabbitMQ 3.9 or newer",
        Is::Hard(_) => "the broker did not understand us",
    };
    (kind, what)
}
