//! Calls to one server, and what came of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ReadToken;

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The token that calls carry.
pub(super) struct Token {
    read: ReadToken,
    value: Mutex<String>,
}

impl Token {
    pub(super) fn new(read: ReadToken) -> Result<Self, String> {
        let value = Mutex::new(read()?);
        Ok(Self { read, value })
    }

    fn value(&self) -> String {
        self.value.lock().expect("nothing panics while the token is held").clone()
    }

    /// Reads it again; true if it has changed.
    fn renew(&self) -> bool {
        let Ok(new) = (self.read)() else { return false };
        let mut value = self.value.lock().expect("nothing panics while the token is held");
        let changed = *value != new;
        *value = new;
        changed
    }
}

/// Why a call came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CallError {
    /// The server did not answer, or is not up to it now: say it again.
    #[error("{0}")]
    Unreachable(String),
    /// The token is not good enough.
    #[error("{0}")]
    Denied(String),
    /// What was spoken of is not there any more.
    #[error("{0}")]
    Gone(String),
    /// It will never be done so.
    #[error("{0}")]
    Refused(String),
}

/// What the API says when it does not do what was asked.
#[derive(Default, Deserialize)]
struct Complaint {
    detail: String,
    #[serde(default)]
    hint: Option<String>,
}

/// One server.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    token: Arc<Token>,
}

impl Client {
    pub(super) fn new(server: &str, token: Arc<Token>) -> Result<Self, String> {
        let base = server.trim_end_matches('/').to_owned();
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(format!("`{server}` is no address of a server\nhint: http://host:8080"));
        }
        Ok(Self { http: http()?, base, token })
    }

    /// For another runtime: connections belong to the one they were made in.
    pub(super) fn fresh(&self) -> Result<Self, String> {
        Ok(Self { http: http()?, base: self.base.clone(), token: self.token.clone() })
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Below `/api/v1/worker/`.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<T, CallError> {
        let body = serde_json::to_vec(body).map_err(|error| CallError::Refused(error.to_string()))?;
        self.call(Method::POST, path, body, patience).await
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<T, CallError> {
        self.call(Method::GET, path, Vec::new(), patience).await
    }

    pub(super) async fn delete(&self, path: &str, patience: Duration) -> Result<(), CallError> {
        self.call::<serde_json::Value>(Method::DELETE, path, Vec::new(), patience).await.map(drop)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<T, CallError> {
        let answer = self.once(method.clone(), path, body.clone(), patience).await;
        if matches!(answer, Err(CallError::Denied(_))) && self.token.renew() {
            return self.once(method, path, body, patience).await;
        }
        answer
    }

    async fn once<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<T, CallError> {
        let url = format!("{}/api/v1/worker/{path}", self.base);
        let mut request = self.http.request(method, url).timeout(patience).bearer_auth(self.token.value());
        if !body.is_empty() {
            request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        }
        let response = request.send().await.map_err(|error| CallError::Unreachable(told(&error)))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| CallError::Unreachable(told(&error)))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes)
                .map_err(|error| CallError::Refused(format!("the server's answer cannot be read: {error}")));
        }
        let complaint: Complaint = serde_json::from_slice(&bytes).unwrap_or_default();
        let why = match complaint {
            Complaint { detail, .. } if detail.is_empty() => format!("the server answered {status}"),
            Complaint { detail, hint: None } => detail,
            Complaint { detail, hint: Some(hint) } => format!("{detail}\nhint: {hint}"),
        };
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CallError::Denied(why),
            StatusCode::NOT_FOUND | StatusCode::GONE => CallError::Gone(why),
            _ if status.is_server_error() => CallError::Unreachable(why),
            _ => CallError::Refused(why),
        })
    }
}

fn http() -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .user_agent(concat!("mainspring-worker/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_MAX)
        .no_proxy()
        .build()
        .map_err(|error| format!("the HTTP client cannot be made: {error}"))
}

/// The error with its causes, which is where the reason is.
fn told(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
