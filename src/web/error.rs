//! What the API answers when it does not do what was asked: `{"title", "detail", "hint"}` under a fitting status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::control::Refused;
use crate::control::ask::AskError;
use crate::control::wire::Garbled;
use crate::core::ids::BadId;
use crate::store::{ErrorClass, StoreError};

/// An answer that says why not.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    detail: String,
    hint: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    title: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        match detail.split_once("\nhint: ") {
            Some((what, hint)) => Self { status, detail: what.to_owned(), hint: Some(hint.to_owned()) },
            None => Self { status, detail, hint: None },
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping").hint("ask again in a moment")
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), detail = self.detail, "a request was not served");
        }
        let body = Body {
            title: self.status.canonical_reason().unwrap_or("error"),
            detail: &self.detail,
            hint: self.hint.as_deref(),
        };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = axum::http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let status = match error.class() {
            ErrorClass::User => StatusCode::BAD_REQUEST,
            ErrorClass::Conflict => StatusCode::CONFLICT,
            ErrorClass::Environment => StatusCode::SERVICE_UNAVAILABLE,
            ErrorClass::Bug => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Input(_) => Self::new(StatusCode::CONFLICT, refused.to_string()),
            Refused::NoSuchRun => Self::not_found(refused.to_string()),
            Refused::Store(error) => error.into(),
            Refused::Stopping => Self::stopping(),
        }
    }
}

impl From<AskError> for ApiError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::NotFound(text) => Self::not_found(text),
            AskError::Invalid(text) => Self::invalid(text),
            AskError::Refused(refused) => refused.into(),
            AskError::Store(error) => error.into(),
        }
    }
}

impl From<BadId> for ApiError {
    fn from(error: BadId) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<Garbled> for ApiError {
    fn from(error: Garbled) -> Self {
        Self::invalid(error.to_string())
    }
}
