//! The one gate: there is no way to add a route but [`Routes::on`], which demands its permission, and the gate
//! runs before anything of a request is looked at.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::handler::Handler;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use axum::{Router, middleware};

use super::Shared;
use super::error::ApiError;
use super::tokens::{Denied, Need};

/// A request that takes longer is given up; a long poll is shorter.
const REQUEST_MAX: Duration = Duration::from_secs(60);
const KIB: usize = 1024;

/// What a route needs of who asks. There is no default.
pub(super) trait Permission {
    /// See above.
    const NEED: Need;
    /// A larger body is not read.
    const BODY_BYTES_MAX: usize = 256 * KIB;
}

/// Whoever can reach the address. The routes are listed in a test.
pub(super) struct Public;
/// To read.
pub(super) struct Read;
/// To change what people may change.
pub(super) struct Operate;
/// To take work and report on it.
pub(super) struct Work;

impl Permission for Public {
    const NEED: Need = Need::Nothing;
    const BODY_BYTES_MAX: usize = 0;
}
impl Permission for Read {
    const NEED: Need = Need::Read;
}
impl Permission for Operate {
    const NEED: Need = Need::Operate;
}
impl Permission for Work {
    const NEED: Need = Need::Work;
    const BODY_BYTES_MAX: usize = 16 * KIB * KIB;
}

/// Routes, each behind the gate.
pub(super) struct Routes {
    router: Router<Shared>,
    api: Shared,
}

impl Routes {
    pub(super) fn new(api: Shared) -> Self {
        Self { router: Router::new(), api }
    }

    /// Adds a route that needs `P`.
    pub(super) fn on<P: Permission, H, T>(
        self,
        _needs: P,
        method: MethodFilter,
        path: &str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Shared>,
        T: 'static,
    {
        let gate = from_fn_with_state((self.api.clone(), P::NEED), pass);
        let route = on(method, handler).layer(DefaultBodyLimit::max(P::BODY_BYTES_MAX)).route_layer(gate);
        Self { router: self.router.route(path, route), ..self }
    }

    pub(super) fn finish(self) -> Router {
        let host = from_fn_with_state(self.api.clone(), from_here);
        let nothing =
            |uri: Uri| async move { ApiError::not_found(format!("there is nothing at `{}`", uri.path())) };
        self.router.fallback(nothing).layer(host).layer(middleware::map_response(sealed)).with_state(self.api)
    }
}

async fn pass(State((api, need)): State<(Shared, Need)>, request: Request, next: Next) -> Response {
    let secret = bearer(request.headers());
    if let Err(denied) = api.tokens.judge(need, secret, (api.now)()) {
        return refusal(denied).into_response();
    }
    match tokio::time::timeout(REQUEST_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not done within {} s; it may still be done", REQUEST_MAX.as_secs()),
        )
        .into_response(),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

fn refusal(denied: Denied) -> ApiError {
    let unauthorized = |detail: String| ApiError::new(StatusCode::UNAUTHORIZED, detail);
    match denied {
        Denied::Missing => unauthorized("this needs a token".to_owned())
            .hint("send `Authorization: Bearer …`; the server of a home keeps one in its `server.json`"),
        Denied::Wrong => unauthorized("the token is not one of this server's".to_owned())
            .hint("it may have been made anew when the server was started; look at its token file"),
        Denied::Expired(until) => unauthorized(format!("the token was good until {until}"))
            .hint("put a new one into the token file and start the server again"),
        Denied::NotAllowed(role) => ApiError::new(
            StatusCode::FORBIDDEN,
            format!("the token is that of a {role:?}, who may not do this"),
        ),
    }
}

/// Pages of other sites cannot ask here through a browser: neither under a name of theirs that leads to this
/// address (the `Host` is checked), nor openly (the `Origin` is).
async fn from_here(State(api): State<Shared>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return ApiError::invalid("the request has no `Host`").into_response();
    };
    if !api.any_host && !is_loopback(host) {
        return ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("this server does not answer to the name `{host}`"),
        )
        .hint("ask under its address or `localhost`; a server with a token file answers to every name")
        .into_response();
    }
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if !safe && let Some(origin) = headers.get(header::ORIGIN) {
        let same =
            origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(|o| o.1 == host);
        if !same {
            return ApiError::new(StatusCode::FORBIDDEN, "the request comes from a page of another site")
                .into_response();
        }
    }
    next.run(request).await
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What every answer says to browsers.
async fn sealed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_not_ours() {
        for host in ["127.0.0.1:8080", "127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:8080", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:8080", "10.0.0.1:80", "localhost.evil", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
