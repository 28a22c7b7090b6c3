//! `from` of an `ingest`: its keys as authors write them, and which belong together.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::SpecProblem;
use super::super::datasets::{Columns, problem};
use super::super::units::{ByteSize, Span};
use crate::data::DataError;
use crate::data::csv_records::{Dialect, Header};
use crate::data::files::Text;
use crate::data::http_pages::Next;

/// What is read: `file`, `http`, or `connection` and `query`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    /// Files: a name, a pattern (`*`, `?`, `[…]`, `**`) or a list of both, relative to the folder of DAG files.
    #[serde(default)]
    pub(super) file: Option<Columns>,
    /// `csv`, `jsonl` or `parquet`. Default: by the file's extension. `.gz` is unpacked by itself.
    #[serde(default)]
    format: Option<Format>,
    /// CSV: whether the first line names the columns.
    #[serde(default)]
    header: Option<bool>,
    /// CSV without a header: the names of the columns.
    #[serde(default)]
    columns: Vec<String>,
    /// CSV: what stands between fields. Default: a comma.
    #[serde(default)]
    delimiter: Option<String>,
    /// CSV: fields that mean null. Default: the empty field.
    #[serde(default)]
    null_values: Option<Vec<String>>,

    /// The first page of an HTTP service: an address, or a path of `token`'s connection (`/v1/orders`).
    #[serde(default)]
    pub(super) http: Option<String>,
    /// Headers to send. A secret belongs in a connection.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    /// The connection whose token is sent.
    #[serde(default)]
    pub(super) token: Option<Token>,
    /// How further pages are found. Default: there is one.
    #[serde(default)]
    pages: Option<Pages>,
    /// A JSON pointer to the list of records in a page, as `/data/items`. Default: the page itself.
    #[serde(default)]
    pub(super) items: String,
    /// At most this many requests a second.
    #[serde(default)]
    rate_limit: Option<f64>,
    /// The longest wait for one page. Default: 30s.
    #[serde(default)]
    timeout: Option<Span>,
    /// Further attempts at a page after 429, 5xx or no answer. Default: 3.
    #[serde(default)]
    pub(super) retries: Option<u32>,
    /// The most bytes of all pages. Default: 1GiB.
    #[serde(default)]
    max_bytes: Option<ByteSize>,

    /// The connection of `query`.
    #[serde(default)]
    pub(super) connection: Option<String>,
    /// A SELECT in the words of the connection's database, with `:name` parameters.
    #[serde(default)]
    pub(super) query: Option<String>,
    /// Reads only rows that are new since the last run.
    #[serde(default)]
    pub(super) cursor: Option<Cursor>,
}

/// Format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// Fields between delimiters.
    Csv,
    /// One JSON object per line.
    #[serde(alias = "ndjson", alias = "json_lines")]
    Jsonl,
    /// Parquet.
    Parquet,
}

/// Whose token is sent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    /// The connection.
    pub(super) connection: String,
}

/// How further pages are found: one of `next` (with or without `cursor_param`), `link_header`, `page_param`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pages {
    /// A JSON pointer to the next page's address, or to the value of `cursor_param`.
    #[serde(default)]
    next: Option<String>,
    /// The query parameter in which the value at `next` is sent.
    #[serde(default)]
    cursor_param: Option<String>,
    /// The `Link` header names the next page.
    #[serde(default)]
    link_header: bool,
    /// The query parameter that counts pages; a page without records is the end.
    #[serde(default)]
    page_param: Option<String>,
    /// Where `page_param` begins. Default: 1.
    #[serde(default)]
    first: Option<u64>,
    /// More pages are an error. Default: 1000.
    #[serde(default)]
    max_pages: Option<u64>,
}

/// How new rows are told: those whose `column` is greater than the greatest of the last run. A row that
/// appears later with an equal or smaller value is not seen.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Cursor {
    /// A column of the query's result that only grows.
    pub(super) column: String,
    /// The first run reads rows after this value. Default: all.
    #[serde(default)]
    pub(super) start: Option<Value>,
}

/// What kind of source it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Files of text.
    Text,
    /// Files of Parquet.
    Parquet,
    /// An HTTP service.
    Http,
    /// A query.
    Query,
}

const PAGES_MAX: u64 = 1000;
const TIMEOUT: Duration = Duration::from_secs(30);
const BYTES_MAX: u64 = 1 << 30;
const RETRIES: u32 = 3;

impl From {
    pub(super) fn has_cursor(&self) -> bool {
        self.cursor.is_some()
    }

    /// What kind of source it is; the error is for people.
    pub(super) fn kind(&self) -> Result<Kind, String> {
        match (&self.file, &self.http, &self.query) {
            (Some(files), None, None) => Ok(match self.format_of(&files.list())? {
                Format::Csv | Format::Jsonl => Kind::Text,
                Format::Parquet => Kind::Parquet,
            }),
            (None, Some(_), None) => Ok(Kind::Http),
            (None, None, Some(_)) => Ok(Kind::Query),
            (None, None, None) => Err("there is no source, expected `file`, `http`, or `connection` and `query`".to_owned()),
            _ => Err("there are several sources, expected one of `file`, `http`, or `connection` and `query`".to_owned()),
        }
    }

    fn format_of(&self, files: &[String]) -> Result<Format, String> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let mut found = None;
        for file in files {
            let bare = file.strip_suffix(".gz").unwrap_or(file);
            let format = match bare.rsplit('.').next() {
                Some("csv" | "tsv" | "txt") => Format::Csv,
                Some("jsonl" | "ndjson") => Format::Jsonl,
                Some("parquet") => Format::Parquet,
                Some(_) | None => return Err(format!("the extension of `{file}` names no format, expected `format: csv`, `jsonl` or `parquet`")),
            };
            if found.is_some_and(|known| known != format) {
                return Err("the files are of several formats; ingest them apart".to_owned());
            }
            found = Some(format);
        }
        found.ok_or_else(|| "there is no file in the list".to_owned())
    }

    /// How text files are to be read.
    pub(super) fn text(&self) -> Result<Text, DataError> {
        let files = self.file.as_ref().map(Columns::list).unwrap_or_default();
        match self.format_of(&files).map_err(DataError::Permanent)? {
            Format::Jsonl | Format::Parquet => Ok(Text::JsonLines),
            Format::Csv => {
                let tabs = files.iter().all(|file| file.trim_end_matches(".gz").ends_with(".tsv"));
                let default = if tabs { b'\t' } else { b',' };
                let delimiter = self.delimiter().map_err(DataError::Permanent)?.unwrap_or(default);
                let header = match self.header {
                    Some(false) => Header::Names(self.columns.clone()),
                    Some(true) | None if self.columns.is_empty() => Header::FirstLine,
                    Some(true) | None => Header::Names(self.columns.clone()),
                };
                let null_values = self.null_values.clone().unwrap_or_else(|| vec![String::new()]);
                Ok(Text::Csv(Dialect { delimiter, header, null_values }))
            }
        }
    }

    fn delimiter(&self) -> Result<Option<u8>, String> {
        match self.delimiter.as_deref() {
            None => Ok(None),
            Some("\\t" | "tab") => Ok(Some(b'\t')),
            Some(text) => match text.as_bytes() {
                [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(Some(*byte)),
                _ => Err(format!("`{text}` is no delimiter, expected one ASCII character or `tab`")),
            },
        }
    }

    /// How the next page is found.
    pub(super) fn next(&self) -> Result<Next, String> {
        let Some(pages) = &self.pages else { return Ok(Next::Nothing) };
        match (&pages.next, &pages.cursor_param, pages.link_header, &pages.page_param) {
            (Some(pointer), None, false, None) => Ok(Next::Address(pointer.clone())),
            (Some(pointer), Some(parameter), false, None) => {
                Ok(Next::Cursor { pointer: pointer.clone(), parameter: parameter.clone() })
            }
            (None, None, true, None) => Ok(Next::LinkHeader),
            (None, None, false, Some(parameter)) => {
                Ok(Next::Number { parameter: parameter.clone(), first: pages.first.unwrap_or(1) })
            }
            _ => Err("expected one of `next` (with or without `cursor_param`), `link_header: true`, `page_param`".to_owned()),
        }
    }

    pub(super) fn pages_max(&self) -> u64 {
        self.pages.as_ref().and_then(|pages| pages.max_pages).unwrap_or(PAGES_MAX)
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout.map_or(TIMEOUT, |span| span.0)
    }

    pub(super) fn retries(&self) -> u32 {
        self.retries.unwrap_or(RETRIES)
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.max_bytes.map_or(BYTES_MAX, |size| size.0)
    }

    /// The least time between two requests.
    pub(super) fn interval(&self) -> Duration {
        self.rate_limit.map_or(Duration::ZERO, |rate| Duration::try_from_secs_f64(1.0 / rate).unwrap_or_default())
    }

    pub(super) fn check(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        let mut wrong = |keys: &[&str], message: String| problems.push(problem(&[&["from"], keys].concat(), message));
        let kind = self.kind();
        if let Err(message) = &kind {
            wrong(&[], message.clone());
        }
        if self.query.is_some() != self.connection.is_some() {
            wrong(&["query"], "`connection` and `query` belong together".to_owned());
        }
        if self.cursor.is_some() && self.query.is_none() {
            wrong(&["cursor"], "a cursor belongs to a `query`".to_owned());
        }
        if self.query.as_ref().is_some_and(|query| query.contains("{{")) {
            wrong(&["query"], "SQL is not a template: values reach it as `:name`".to_owned());
        }
        if let Err(message) = self.delimiter() {
            wrong(&["delimiter"], message);
        }
        if let Err(message) = self.next() {
            wrong(&["pages"], message);
        }
        for pointer in self.pages.iter().filter_map(|pages| pages.next.as_ref()).chain([&self.items]) {
            if !pointer.is_empty() && !pointer.starts_with('/') {
                wrong(&["items"], format!("`{pointer}` is no JSON pointer, expected for instance `/data/items`"));
            }
        }
        if self.rate_limit.is_some_and(|rate| rate <= 0.0 || !rate.is_finite()) {
            wrong(&["rate_limit"], "expected a number of requests a second, greater than 0".to_owned());
        }
        if let Some(address) = &self.http {
            let is_path = address.starts_with('/') && self.token.is_some();
            let is_web = matches!(Url::parse(address), Ok(url) if matches!(url.scheme(), "http" | "https"));
            if !is_path && !is_web && !address.contains("{{") {
                wrong(&["http"], format!("`{address}` is no http or https address, nor a path of `token`'s connection"));
            }
        }
        problems
    }
}
