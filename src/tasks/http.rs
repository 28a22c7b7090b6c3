//! `http`: calls an address and judges the answer by its status.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{SpecProblem, TaskContext, TaskError, TaskKind, TaskOutput};

/// The answer is read up to this size; more of it is an error.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// A body that is kept as an output may have this size; a larger one is left out.
const OUTPUT_BYTES_MAX: usize = 32 * 1024;

/// Calls an address. `status` and, if it is small, `body` become outputs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    /// The address, `http://` or `https://`.
    url: String,
    /// GET, POST, PUT, PATCH, DELETE or HEAD.
    #[serde(default = "get")]
    method: String,
    /// Headers to send.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// A JSON body to send.
    #[serde(default)]
    json: Option<Value>,
    /// Statuses that count as success. Default: 200 to 299.
    #[serde(default)]
    expect_status: Vec<u16>,
    /// The longest wait for the whole answer, in seconds.
    #[serde(default = "thirty")]
    request_timeout_secs: u64,
}

fn get() -> String {
    "GET".to_owned()
}

fn thirty() -> u64 {
    30
}

impl TaskKind for Http {
    const NAME: &'static str = "http";

    fn check(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, message: String, hint: Option<String>| {
            problems.push(SpecProblem { path: vec![key.to_owned()], message, hint });
        };
        if !self.url.contains("{{")
            && !matches!(reqwest::Url::parse(&self.url), Ok(u) if matches!(u.scheme(), "http" | "https"))
        {
            problem("url", format!("`{}` is not an http or https address", self.url), None);
        }
        if !["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"].contains(&self.method.as_str()) {
            let hint = "GET, POST, PUT, PATCH, DELETE or HEAD".to_owned();
            problem("method", format!("`{}` is not a method this task can use", self.method), Some(hint));
        }
        problems
    }

    async fn run(&self, cx: &TaskContext) -> Result<TaskOutput, TaskError> {
        let method = Method::from_bytes(self.method.as_bytes())
            .map_err(|_| TaskError::Permanent(format!("`{}` is not an HTTP method", self.method)))?;
        let mut request = cx
            .shared
            .http
            .request(method, &self.url)
            .timeout(Duration::from_secs(self.request_timeout_secs))
            .header(
                "Idempotency-Key",
                format!("{}/{}/{}/{}", cx.dag_id, cx.run_id, cx.task_id, cx.map_index),
            );
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &self.json {
            request = request.json(body);
        }
        let call = async {
            let answer = request.send().await.map_err(|e| unreachable(&self.url, &e))?;
            let status = answer.status();
            let body = read(answer).await?;
            Ok::<_, TaskError>((status, body))
        };
        let (status, body) = tokio::select! {
            done = call => done?,
            () = cx.cancel.cancelled() => return Err(TaskError::Retryable("the call was ended on request".to_owned())),
        };
        cx.log.line(&format!("{} {} answered {status} with {} bytes", self.method, self.url, body.len()));
        self.judge(status, &body)
    }
}

impl Http {
    fn judge(&self, status: StatusCode, body: &[u8]) -> Result<TaskOutput, TaskError> {
        let good = if self.expect_status.is_empty() {
            status.is_success()
        } else {
            self.expect_status.contains(&status.as_u16())
        };
        if !good {
            let start: String = String::from_utf8_lossy(body).chars().take(200).collect();
            let text = format!("{} {} answered {status}: {start}", self.method, self.url);
            let may_pass = status.is_server_error()
                || status == StatusCode::TOO_MANY_REQUESTS
                || status == StatusCode::REQUEST_TIMEOUT;
            return Err(if may_pass { TaskError::Retryable(text) } else { TaskError::Permanent(text) });
        }
        let mut outputs = json!({ "status": status.as_u16(), "bytes": body.len() });
        if body.len() <= OUTPUT_BYTES_MAX {
            outputs["body"] = serde_json::from_slice(body)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()));
        }
        Ok(TaskOutput::of(outputs))
    }
}

async fn read(mut answer: reqwest::Response) -> Result<Vec<u8>, TaskError> {
    let mut body = Vec::new();
    while let Some(piece) = answer
        .chunk()
        .await
        .map_err(|e| TaskError::Retryable(format!("the answer broke off: {}", e.without_url())))?
    {
        body.extend_from_slice(&piece);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(TaskError::Permanent(format!(
                "the answer is larger than {ANSWER_BYTES_MAX} bytes; read large data with an `ingest` task"
            )));
        }
    }
    Ok(body)
}

/// The cause at the bottom of the chain is what a reader needs: `connection refused`, `timed out`.
fn unreachable(url: &str, error: &reqwest::Error) -> TaskError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    TaskError::Retryable(format!("{url} cannot be reached: {cause}"))
}
