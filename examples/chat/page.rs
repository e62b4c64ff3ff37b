//! The web page: small files compiled in, and the official Socket.IO client.

use std::{io, path::Path};

use axum::{
    Router,
    http::{HeaderName, header},
    response::IntoResponse,
    routing::get,
};

const INDEX: &str = include_str!("public/index.html");
const STYLE: &str = include_str!("public/style.css");
const APP: &str = include_str!("public/app.js");
const VIEW: &str = include_str!("public/view.js");
const ICON: &str = include_str!("public/icon.svg");

/// The client as `npm ci` in this example's folder installs it.
const INSTALLED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/examples/chat/node_modules/socket.io-client/dist/socket.io.min.js"
);
const LOCAL_CLIENT: &str = r#"<script src="/client.js"></script>"#;
/// The same file from the client's official CDN; the browser refuses any other content.
const CDN_CLIENT: &str = r#"<script src="https://cdn.socket.io/4.8.3/socket.io.min.js" integrity="sha384-kzavj5fiMwLKzzD1f8S7TeoVIEi7uKHvbTA3ueZkrzYq75pNQUiUi6Dy98Q3fxb0" crossorigin="anonymous"></script>"#;

const POLICY: (HeaderName, &str) = (
    header::CONTENT_SECURITY_POLICY,
    "default-src 'self'; script-src 'self' https://cdn.socket.io; connect-src 'self' ws: wss:; frame-ancestors 'none'",
);

/// Routes of the page and its parts.
pub(crate) fn routes() -> io::Result<Router> {
    let mut router = Router::new()
        .route("/style.css", file("text/css", STYLE))
        .route("/app.js", file("text/javascript", APP))
        .route("/view.js", file("text/javascript", VIEW))
        .route("/icon.svg", file("image/svg+xml", ICON));
    let client = if Path::new(INSTALLED).exists() {
        router = router.route(
            "/client.js",
            file("text/javascript", std::fs::read_to_string(INSTALLED)?),
        );
        LOCAL_CLIENT
    } else {
        CDN_CLIENT
    };
    let index = INDEX.replace("<!-- client -->", client);
    Ok(router.route("/", file("text/html; charset=utf-8", index)))
}

fn file(kind: &'static str, content: impl Into<axum::body::Bytes>) -> axum::routing::MethodRouter {
    let content = content.into();
    let answer = async move || {
        let kind = (header::CONTENT_TYPE, kind);
        ([kind, POLICY, (header::CACHE_CONTROL, "no-cache")], content).into_response()
    };
    get(answer)
}
