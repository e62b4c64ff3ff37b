//! One event per operation; the client names the target, the acknowledgement carries the result.

use std::{
    future::{Ready, ready},
    time::Duration,
};

use futures_util::StreamExt;
use rmpv::Value;
use serde::{Deserialize, Serialize};
use serde_json::json;
use socketioxide::{
    SocketIo,
    adapter::Adapter,
    extract::{AckSender, Data, SocketRef, State},
    operators::BroadcastOperators,
    socket::RemoteSocket,
};
use socketioxide_adapter::Cluster;

use crate::publisher;

/// Whom an operation is for, in the words of socketioxide's operators.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Target {
    /// Start from the asking socket, which leaves it out, instead of from the server.
    from_socket: bool,
    to: Vec<String>,
    within: Vec<String>,
    except: Vec<String>,
    local: bool,
    volatile: bool,
    broadcast: bool,
    timeout_ms: Option<u64>,
}

impl Target {
    fn operators<A: Adapter>(
        self,
        io: &SocketIo<A>,
        socket: &SocketRef<A>,
    ) -> BroadcastOperators<A> {
        let nowhere: [String; 0] = [];
        let mut operators = if self.from_socket {
            socket.within(nowhere)
        } else {
            // A handler's `SocketIo` means the default namespace; the operation is for the socket's own.
            match io.of(socket.ns()) {
                Some(operators) => operators,
                None => io.within(nowhere),
            }
        };
        if self.broadcast || (!self.from_socket && self.within.is_empty()) {
            operators = operators.broadcast();
        }
        if !self.to.is_empty() {
            operators = operators.to(self.to);
        }
        if !self.within.is_empty() {
            operators = operators.within(self.within);
        }
        if !self.except.is_empty() {
            operators = operators.except(self.except);
        }
        if self.local {
            operators = operators.local();
        }
        if self.volatile {
            operators = operators.volatile();
        }
        if let Some(ms) = self.timeout_ms {
            operators = operators.timeout(Duration::from_millis(ms));
        }
        operators
    }
}

#[derive(Debug, Deserialize)]
struct Emit {
    #[serde(default)]
    target: Target,
    event: String,
    data: Value,
}

#[derive(Debug, Deserialize)]
struct Rooms {
    #[serde(default)]
    target: Target,
    rooms: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Query {
    target: Target,
}

/// One operation on one socket of the cluster, wherever it is.
#[derive(Debug, Deserialize)]
struct Remote {
    id: String,
    #[serde(rename = "do")]
    action: String,
    #[serde(default)]
    rooms: Vec<String>,
    #[serde(default = "nil")]
    data: Value,
}

const fn nil() -> Value {
    Value::Nil
}

/// Not `async`, so that every handler is there before the client's first event can come.
pub(crate) fn on_connect<A: Adapter>(socket: SocketRef<A>) -> Ready<()> {
    socket.on("emit", emit);
    socket.on("emit-ack", emit_ack);
    socket.on("join", join);
    socket.on("leave", leave);
    socket.on("disconnect-sockets", disconnect);
    socket.on("sockets", sockets);
    socket.on("rooms", rooms);
    socket.on("remote", remote);
    socket.on("enter", enter);
    socket.on("exit", exit);
    socket.on("echo", echo);
    socket.on("cluster", cluster);
    socket.on("burst", burst);
    socket.on("delete-namespace", delete_namespace);
    publisher::listen(&socket);
    ready(())
}

async fn emit<A: Adapter>(
    io: SocketIo<A>,
    socket: SocketRef<A>,
    Data(emit): Data<Emit>,
    ack: AckSender<A>,
) {
    let result = emit
        .target
        .operators(&io, &socket)
        .emit(emit.event, &emit.data)
        .await;
    reply(ack, result.map(|()| true));
}

/// Answers with `[id, answer]` of each socket that acknowledged and `[id, null, error]` of each that did not.
async fn emit_ack<A: Adapter>(
    io: SocketIo<A>,
    socket: SocketRef<A>,
    Data(emit): Data<Emit>,
    ack: AckSender<A>,
) {
    let stream = emit
        .target
        .operators(&io, &socket)
        .emit_with_ack::<_, Value>(emit.event, &emit.data)
        .await;
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => return reply(ack, Err::<(), _>(error)),
    };
    let answers: Vec<(String, Option<Value>, Option<String>)> = stream
        .map(|(id, answer)| match answer {
            Ok(value) => (id.to_string(), Some(value), None),
            Err(error) => (id.to_string(), None, Some(error.to_string())),
        })
        .collect()
        .await;
    reply(ack, Ok::<_, String>(answers));
}

async fn join<A: Adapter>(
    io: SocketIo<A>,
    socket: SocketRef<A>,
    Data(op): Data<Rooms>,
    ack: AckSender<A>,
) {
    reply(
        ack,
        op.target
            .operators(&io, &socket)
            .join(op.rooms)
            .await
            .map(|()| true),
    );
}

async fn leave<A: Adapter>(
    io: SocketIo<A>,
    socket: SocketRef<A>,
    Data(op): Data<Rooms>,
    ack: AckSender<A>,
) {
    reply(
        ack,
        op.target
            .operators(&io, &socket)
            .leave(op.rooms)
            .await
            .map(|()| true),
    );
}

async fn disconnect<A: Adapter>(
    io: SocketIo<A>,
    socket: SocketRef<A>,
    Data(op): Data<Query>,
    ack: AckSender<A>,
) {
    reply(
        ack,
        op.target
            .operators(&io, &socket)
            .disconnect()
            .await
            .map(|()| true),
    );
}

async fn sockets<A: Adapter>(
    io: SocketIo<A>,
    socket: SocketRef<A>,
    Data(op): Data<Query>,
    ack: AckSender<A>,
) {
    let found = op.target.operators(&io, &socket).fetch_sockets().await;
    let list = |sockets: Vec<RemoteSocket<A>>| -> Vec<[String; 3]> {
        let each = sockets.iter().map(RemoteSocket::data);
        each.map(|data| {
            [
                data.id.to_string(),
                data.server_id.to_string(),
                data.ns.to_string(),
            ]
        })
        .collect()
    };
    reply(ack, found.map(list));
}

async fn rooms<A: Adapter>(
    io: SocketIo<A>,
    socket: SocketRef<A>,
    Data(op): Data<Query>,
    ack: AckSender<A>,
) {
    let rooms = op.target.operators(&io, &socket).rooms().await;
    reply(
        ack,
        rooms.map(|rooms| rooms.iter().map(ToString::to_string).collect::<Vec<_>>()),
    );
}

async fn remote<A: Adapter>(
    io: SocketIo<A>,
    socket: SocketRef<A>,
    Data(op): Data<Remote>,
    ack: AckSender<A>,
) {
    reply(ack, act_on_remote(&io, &socket, op).await);
}

async fn act_on_remote<A: Adapter>(
    io: &SocketIo<A>,
    socket: &SocketRef<A>,
    op: Remote,
) -> Result<Value, String> {
    let all = Target::default()
        .operators(io, socket)
        .fetch_sockets()
        .await;
    let mut all = all.map_err(|error| error.to_string())?.into_iter();
    let target = all
        .find(|found| found.data().id.as_str() == op.id)
        .ok_or("no such socket")?;
    let done = |()| Value::Boolean(true);
    match op.action.as_str() {
        "emit" => target
            .emit("remote", &op.data)
            .await
            .map(done)
            .map_err(|error| error.to_string()),
        "emit-ack" => {
            let acks = target.emit_with_ack::<_, Value>("remote", &op.data).await;
            acks.map_err(|error| error.to_string())?
                .await
                .map_err(|error| error.to_string())
        }
        "join" => target
            .join(op.rooms)
            .await
            .map(done)
            .map_err(|error| error.to_string()),
        "leave" => target
            .leave(op.rooms)
            .await
            .map(done)
            .map_err(|error| error.to_string()),
        "disconnect" => target
            .disconnect()
            .await
            .map(done)
            .map_err(|error| error.to_string()),
        "rooms" => {
            let rooms = target.rooms().await.map_err(|error| error.to_string())?;
            Ok(rooms
                .iter()
                .map(|room| Value::from(room.to_string()))
                .collect())
        }
        other => Err(format!("unknown action {other}")),
    }
}

/// The socket itself joins rooms, as an application does it: at once and without the adapter.
async fn enter<A: Adapter>(
    socket: SocketRef<A>,
    Data(rooms): Data<Vec<String>>,
    ack: AckSender<A>,
) {
    socket.join(rooms);
    reply(ack, Ok::<_, String>(true));
}

async fn exit<A: Adapter>(socket: SocketRef<A>, Data(rooms): Data<Vec<String>>, ack: AckSender<A>) {
    socket.leave(rooms);
    reply(ack, Ok::<_, String>(true));
}

async fn echo<A: Adapter>(Data(data): Data<Value>, ack: AckSender<A>) {
    let _ = ack.send(&data);
}

/// What the node knows of the cluster.
async fn cluster<A: Adapter>(State(cluster): State<Cluster>, ack: AckSender<A>) {
    let nodes: Vec<String> = cluster
        .nodes()
        .iter()
        .map(|node| node.id.to_string())
        .collect();
    let link = format!("{:?}", cluster.link().state());
    let stats = format!("{:?}", cluster.stats());
    let answer =
        json!({ "node": crate::name(&cluster), "nodes": nodes, "link": link, "stats": stats });
    reply(ack, Ok::<_, String>(answer));
}

/// Emits numbers from 0 to `count` to everybody as fast as it can, all at once.
async fn burst<A: Adapter>(io: SocketIo<A>, Data(count): Data<u32>, ack: AckSender<A>) {
    let emits = (0..count).map(|n| {
        let io = io.clone();
        async move { io.emit("burst", &n).await.is_err() }
    });
    let failures = futures_util::future::join_all(emits).await;
    reply(
        ack,
        Ok::<_, String>(failures.into_iter().filter(|failed| *failed).count()),
    );
}

async fn delete_namespace<A: Adapter>(
    io: SocketIo<A>,
    Data(path): Data<String>,
    ack: AckSender<A>,
) {
    io.delete_ns(path);
    reply(ack, Ok::<_, String>(true));
}

#[derive(Serialize)]
struct Reply<T> {
    ok: Option<T>,
    error: Option<String>,
}

fn reply<A: Adapter, T: Serialize, E: ToString>(ack: AckSender<A>, result: Result<T, E>) {
    let reply = match result {
        Ok(value) => Reply {
            ok: Some(value),
            error: None,
        },
        Err(error) => Reply {
            ok: None,
            error: Some(error.to_string()),
        },
    };
    // The socket may be gone by now, and with it the one who asked.
    let _ = ack.send(&reply);
}
