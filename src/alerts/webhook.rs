//! The channel `webhook`: a POST with the body that Alertmanager sends to its receivers (version 4), signed.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::settings::{RouteProblem, WebhookSettings, problem, secret};
use super::signature::SigningKey;
use super::{Channel, Lines, Message, SEND_TIMEOUT, SendError, Sending, subject};
use crate::core::alert::{AlertKind, Problem, ProblemState};
use crate::core::ids::Timestamp;
use crate::secret::Secret;

/// What is repeated of an answer, in characters.
const ANSWER_CHARS_MAX: usize = 200;
/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// A receiver that asks for more patience gets this much.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// How Alertmanager writes that an alert has not ended.
const NOT_ENDED: &str = "0001-01-01T00:00:00Z";

/// Calls a service.
pub(super) struct Webhook {
    client: reqwest::Client,
    url: Secret<reqwest::Url>,
    key: Option<SigningKey>,
}

/// What is wrong with the keys, as far as they say.
pub(super) fn check(settings: &WebhookSettings) -> Vec<RouteProblem> {
    let mut problems = Vec::new();
    match (&settings.url, &settings.url_env) {
        (None, None) => problems.push(problem("the key `url` is missing", "or `url_env`".to_owned())),
        (Some(_), Some(_)) => problems.push(problem("`url` and `url_env` are one key, written twice", None)),
        (Some(url), None) => problems.extend(address(url).err()),
        (None, Some(_)) => {}
    }
    match (&settings.secret, &settings.secret_env) {
        (Some(_), Some(_)) => {
            problems.push(problem("`secret` and `secret_env` are one key, written twice", None));
        }
        (Some(secret), None) => problems.extend(signing_key(secret).err()),
        (None, _) => {}
    }
    problems
}

fn address(url: &Secret<String>) -> Result<Secret<reqwest::Url>, RouteProblem> {
    match reqwest::Url::parse(url.expose().trim()) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Secret::new(url)),
        Ok(_) | Err(_) => Err(problem("its address is not an http or https address", None)),
    }
}

fn signing_key(secret: &Secret<String>) -> Result<SigningKey, RouteProblem> {
    SigningKey::parse(secret.expose()).map_err(|why| {
        let hint = "make one: echo whsec_$(openssl rand -base64 32)".to_owned();
        problem(format!("its secret cannot be used: {why}"), hint)
    })
}

impl Webhook {
    pub(super) fn open(
        settings: &WebhookSettings,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<RouteProblem>> {
        let mut problems = Vec::new();
        let mut taken = |key: &str, value: &Option<Secret<String>>, variable: &Option<String>| {
            secret(key, value.as_ref(), variable.as_deref(), environment).unwrap_or_else(|found| {
                problems.push(found);
                None
            })
        };
        let url = taken("url", &settings.url, &settings.url_env);
        let key = taken("secret", &settings.secret, &settings.secret_env);
        let url = url.as_ref().map(address).transpose().map_err(|found| problems.push(found));
        let key = key.as_ref().map(signing_key).transpose().map_err(|found| problems.push(found));
        let client = reqwest::Client::builder()
            .user_agent(concat!("mainspring/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(SEND_TIMEOUT)
            .build()
            .map_err(|error| {
                problems.push(problem(format!("the HTTP client cannot be made: {error}"), None))
            });
        match (url, key, client) {
            (Ok(Some(url)), Ok(key), Ok(client)) if problems.is_empty() => Ok(Self { client, url, key }),
            _ => Err(problems),
        }
    }

    async fn post(&self, message: &Message, now: Timestamp) -> Result<String, SendError> {
        let sent_at_secs = now.0.div_euclid(1_000_000);
        let body = body(message).to_string();
        let mut request = self
            .client
            .post(self.url.expose().clone())
            .header(CONTENT_TYPE, "application/json")
            .header("X-Mainspring-Delivery", &message.id)
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", sent_at_secs);
        if let Some(key) = &self.key {
            request =
                request.header("webhook-signature", key.sign(&message.id, sent_at_secs, body.as_bytes()));
        }
        let answer = request.body(body).send().await.map_err(|error| self.unreachable(error))?;
        let status = answer.status();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let words = format!("{} answered {status}{}", self.place(), said(answer).await);
        if status.is_success() {
            return Ok(words);
        }
        let retry_after = retry_after.map(|secs| Duration::from_secs(secs).min(RETRY_AFTER_MAX));
        Err(SendError { text: words, retry_after })
    }

    fn unreachable(&self, error: reqwest::Error) -> SendError {
        if error.is_timeout() {
            return SendError::new(format!("{} did not answer within {SEND_TIMEOUT:?}", self.place()));
        }
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        SendError::new(format!("{} cannot be reached: {cause}", self.place()))
    }
}

/// The beginning of an answer's text, after a colon; empty if there is none.
async fn said(mut answer: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    // What breaks off in the middle was an answer all the same: its status has been read.
    while let Ok(Some(piece)) = answer.chunk().await {
        bytes.extend_from_slice(&piece);
        if bytes.len() > ANSWER_BYTES_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.trim().chars().take(ANSWER_CHARS_MAX).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

impl Channel for Webhook {
    fn send<'a>(&'a self, message: &'a Message, now: Timestamp) -> Sending<'a> {
        Box::pin(self.post(message, now))
    }

    fn place(&self) -> String {
        let url = self.url.expose();
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
    }
}

/// The body of Alertmanager's webhook receiver, version 4. Labels name the problem and nothing else, so that
/// they are the same every time; what changes stands in annotations.
fn body(message: &Message) -> Value {
    let problem = &message.problem;
    let status = match problem.state {
        ProblemState::Open => "firing",
        ProblemState::Resolved => "resolved",
    };
    let labels = labels(problem);
    let lines = Lines::of(problem);
    let annotations = json!({
        "summary": subject(problem),
        "description": lines.in_lines(),
        "error": problem.error,
        "run_id": problem.last_run_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        "occurrences": problem.occurrences.to_string(),
        "next": lines.next.join("\n"),
    });
    let ends_at = problem.resolved_at.map_or_else(|| NOT_ENDED.to_owned(), |at| at.to_string());
    json!({
        "version": "4",
        "groupKey": format!("{{}}:{{problem=\"{}\"}}", problem.key),
        "truncatedAlerts": 0,
        "status": status,
        "receiver": message.route,
        "groupLabels": labels,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [{
            "status": status,
            "labels": labels,
            "annotations": annotations,
            "startsAt": problem.opened_at.to_string(),
            "endsAt": ends_at,
            "generatorURL": "",
            "fingerprint": fingerprint(problem),
        }],
    })
}

fn labels(problem: &Problem) -> Value {
    let mut labels = BTreeMap::from([
        ("alertname", problem.key.kind.to_string()),
        ("problem", problem.key.to_string()),
        ("severity", "critical".to_owned()),
    ]);
    if let Some(dag) = &problem.key.dag_id {
        labels.insert("dag_id", dag.to_string());
    }
    if let Some(subject) = &problem.key.subject {
        let name = match problem.key.kind {
            AlertKind::ImportError => "file",
            AlertKind::WorkerLost => "worker",
            AlertKind::RunFailed
            | AlertKind::TaskFailed
            | AlertKind::Poisoned
            | AlertKind::GateBlocked
            | AlertKind::Anomaly
            | AlertKind::Shift
            | AlertKind::DeadlineMissed
            | AlertKind::ScheduleStalled => "task_id",
        };
        labels.insert(name, subject.to_string());
    }
    json!(labels)
}

/// 16 hexadecimal digits, as Alertmanager's; the same for one problem key always.
fn fingerprint(problem: &Problem) -> String {
    let digest = Sha256::digest(problem.key.to_string().as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
