//! An HTTP service as a source: pages of JSON, written down as one JSON object per line.
//!
//! Pages are fetched one after the other into a file under the scratch folder, so that what is read later
//! is one file, whatever the service does meanwhile. Messages show an address without user, password
//! and query, which may hold secrets.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{LINK, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio_util::sync::CancellationToken;

use super::DataError;
use super::connections::Secret;

/// The longest wait that a service may ask for in `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The wait before the second attempt; it doubles with every further one.
const RETRY_FIRST_WAIT: Duration = Duration::from_millis(250);
/// How much of an unwelcome answer is shown.
const SHOWN_CHARS_MAX: usize = 200;

/// How a service gives the next page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// There is one page.
    Nothing,
    /// A JSON pointer to the next address, absolute or relative; null or missing at the end.
    Address(String),
    /// A JSON pointer to a value that is sent as this query parameter; null or missing at the end.
    Cursor {
        /// Where the value is.
        pointer: String,
        /// What it is sent as.
        parameter: String,
    },
    /// The `Link` header with `rel="next"`.
    LinkHeader,
    /// A page number in this query parameter, from this one on; a page without items is the end.
    Number {
        /// What it is sent as.
        parameter: String,
        /// The first.
        first: u64,
    },
}

/// What to fetch.
pub struct Request<'a> {
    /// The first page.
    pub url: Url,
    /// Headers of every page.
    pub headers: &'a BTreeMap<String, String>,
    /// Sent as `Authorization: Bearer …`, to the first page's host alone.
    pub token: Option<&'a Secret<String>>,
    /// How the next page is found.
    pub next: Next,
    /// More pages than this are an error.
    pub pages_max: u64,
    /// A JSON pointer to the list of items in a page; empty if the page is the list or the item.
    pub items: &'a str,
    /// The least time between two requests.
    pub interval: Duration,
    /// The longest wait for one page.
    pub timeout: Duration,
    /// Attempts after the first, per page.
    pub retries: u32,
    /// More bytes than this in all pages are an error.
    pub bytes_max: u64,
}

/// What was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fetched {
    /// Pages.
    pub pages: u64,
    /// Items, one per line.
    pub items: u64,
    /// Bytes of all pages.
    pub bytes: u64,
}

/// Fetches all pages into `file`, one item per line.
///
/// # Errors
/// [`DataError::Retryable`] if the service cannot be reached or keeps answering 429 or 5xx; otherwise
/// [`DataError::Permanent`]: another status, no JSON, no items, a limit exceeded.
pub async fn fetch(
    client: &reqwest::Client,
    request: &Request<'_>,
    file: &Path,
    cancel: &CancellationToken,
) -> Result<Fetched, DataError> {
    let of_disk = |error: std::io::Error| DataError::Retryable(format!("{}: {error}", file.display()));
    let mut lines = BufWriter::new(File::create(file).await.map_err(of_disk)?);
    let mut fetched = Fetched::default();
    let mut url = Some(first_address(request));
    while let Some(here) = url {
        if fetched.pages == request.pages_max {
            return Err(permanent(&here, &format!("there are more than {} pages, as `pages.max_pages` allows", request.pages_max)));
        }
        if fetched.pages > 0 {
            pause(request.interval, cancel).await?;
        }
        let answer = ask(client, request, &here, cancel).await?;
        let link = answer.headers().get(LINK).and_then(|value| value.to_str().ok()).and_then(next_link);
        let body = body(answer, &here, request.bytes_max - fetched.bytes).await?;
        let page: Value = serde_json::from_slice(&body)
            .map_err(|error| permanent(&here, &format!("the answer is no JSON: {error}; it begins `{}`", shown(&body))))?;
        let items = items(&page, request.items, &here)?;
        for item in items {
            lines.write_all(item.to_string().as_bytes()).await.map_err(of_disk)?;
            lines.write_all(b"\n").await.map_err(of_disk)?;
        }
        fetched.pages += 1;
        fetched.items += items.len() as u64;
        fetched.bytes += body.len() as u64;
        url = next_address(request, &here, &page, link, items.is_empty(), fetched.pages)?;
    }
    lines.flush().await.map_err(of_disk)?;
    Ok(fetched)
}

fn first_address(request: &Request<'_>) -> Url {
    match &request.next {
        Next::Number { parameter, first } => with_parameter(&request.url, parameter, &first.to_string()),
        Next::Nothing | Next::Address(_) | Next::Cursor { .. } | Next::LinkHeader => request.url.clone(),
    }
}

fn next_address(
    request: &Request<'_>,
    here: &Url,
    page: &Value,
    link: Option<String>,
    is_empty: bool,
    pages: u64,
) -> Result<Option<Url>, DataError> {
    let text = |pointer: &str| match page.pointer(pointer) {
        None | Some(Value::Null | Value::Bool(false)) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    let address = match &request.next {
        Next::Nothing => return Ok(None),
        Next::Number { .. } if is_empty => return Ok(None),
        Next::Number { parameter, first } => {
            return Ok(Some(with_parameter(&request.url, parameter, &(first + pages).to_string())));
        }
        Next::Cursor { pointer, parameter } => {
            return Ok(text(pointer).map(|value| with_parameter(&request.url, parameter, &value)));
        }
        Next::Address(pointer) => text(pointer),
        Next::LinkHeader => link,
    };
    let Some(address) = address else { return Ok(None) };
    let next = here.join(&address).map_err(|_| permanent(here, "the address of the next page cannot be read"))?;
    if next.origin() != request.url.origin() {
        return Err(permanent(here, &format!("the next page is on another host, {}", address_of(&next))));
    }
    if next == *here {
        return Err(permanent(here, "the next page is this page"));
    }
    Ok(Some(next))
}

fn with_parameter(url: &Url, name: &str, value: &str) -> Url {
    let mut with = url.clone();
    let others: Vec<(String, String)> =
        url.query_pairs().filter(|(known, _)| known != name).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    with.query_pairs_mut().clear().extend_pairs(others).append_pair(name, value);
    with
}

/// The target of `rel="next"` in a `Link` header.
fn next_link(header: &str) -> Option<String> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.split_once(';')?;
        let is_next = parameters.split(';').any(|parameter| {
            parameter.trim().strip_prefix("rel=").is_some_and(|rel| rel.trim_matches('"').eq_ignore_ascii_case("next"))
        });
        is_next.then(|| target.trim().trim_start_matches('<').trim_end_matches('>').to_owned())
    })
}

fn items<'a>(page: &'a Value, pointer: &str, here: &Url) -> Result<&'a [Value], DataError> {
    match page.pointer(pointer) {
        Some(Value::Array(items)) => Ok(items),
        Some(item @ Value::Object(_)) => Ok(std::slice::from_ref(item)),
        Some(other) => {
            Err(permanent(here, &format!("`items: {pointer}` is `{}`, expected a list of objects", shown(other.to_string().as_bytes()))))
        }
        None => Err(permanent(here, &format!("there is nothing at `items: {pointer}`; the answer begins `{}`", shown(page.to_string().as_bytes())))),
    }
}

/// One page, tried again while the service says that it may pass.
async fn ask(
    client: &reqwest::Client,
    request: &Request<'_>,
    url: &Url,
    cancel: &CancellationToken,
) -> Result<Response, DataError> {
    let mut attempt = 0;
    loop {
        let mut call = client.get(url.clone()).timeout(request.timeout);
        for (name, value) in request.headers {
            call = call.header(name, value);
        }
        if let Some(token) = request.token {
            call = call.bearer_auth(token.expose());
        }
        let answer = tokio::select! {
            answer = call.send() => answer,
            () = cancel.cancelled() => return Err(stopped()),
        };
        let (error, wait) = match answer {
            Ok(answer) if answer.status().is_success() => return Ok(answer),
            Ok(answer) => {
                let status = answer.status();
                let wait = retry_after(&answer);
                let text = format!("{} answered {status}: {}", address_of(url), shown(&answer.bytes().await.unwrap_or_default()));
                if !may_pass(status) {
                    return Err(DataError::Permanent(text));
                }
                (text, wait)
            }
            Err(error) => (unreachable(url, &error), None),
        };
        if attempt == request.retries {
            return Err(DataError::Retryable(error));
        }
        let wait = wait.unwrap_or(RETRY_FIRST_WAIT * 2_u32.pow(attempt.min(8)));
        attempt += 1;
        pause(wait.min(RETRY_AFTER_MAX), cancel).await?;
    }
}

fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT
}

/// Seconds; the form with a date is not used by services that limit rates.
fn retry_after(answer: &Response) -> Option<Duration> {
    answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

async fn body(mut answer: Response, url: &Url, bytes_left: u64) -> Result<Vec<u8>, DataError> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| DataError::Retryable(unreachable(url, &error)))? {
        body.extend_from_slice(&piece);
        if body.len() as u64 > bytes_left {
            return Err(permanent(url, "the pages are larger than `max_bytes` allows"));
        }
    }
    Ok(body)
}

/// Waits, or stops if asked to.
async fn pause(wait: Duration, cancel: &CancellationToken) -> Result<(), DataError> {
    match tokio::time::timeout(wait, cancel.cancelled()).await {
        Ok(()) => Err(stopped()),
        Err(_) => Ok(()),
    }
}

fn stopped() -> DataError {
    DataError::Retryable("the call was ended on request".to_owned())
}

fn permanent(url: &Url, why: &str) -> DataError {
    DataError::Permanent(format!("{}: {why}", address_of(url)))
}

fn unreachable(url: &Url, error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    let why = if error.is_timeout() { "no answer in time".to_owned() } else { causes.pop().unwrap_or_else(|| "no answer".to_owned()) };
    format!("{} cannot be reached: {why}", address_of(url))
}

/// Scheme, host, port and path.
fn address_of(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // An address without a host has neither; then there is nothing to hide.
    shown.set_username("").ok();
    shown.set_password(None).ok();
    shown.to_string()
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_link_is_found_among_others() {
        let header = "<https://x/1>; rel=\"prev\", <https://x/3?a=b>; rel=\"next\"";
        assert_eq!(next_link(header).as_deref(), Some("https://x/3?a=b"));
        assert_eq!(next_link("<https://x/1>; rel=\"prev\""), None);
    }

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        let url = Url::parse("https://me:hunter2@api.example/v1/orders?key=hunter2#x").unwrap();
        assert_eq!(address_of(&url), "https://api.example/v1/orders");
    }
}
