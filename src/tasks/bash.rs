//! `bash`: runs a program, or a line of shell.
//!
//! The text of `command` is never rendered: values reach the program through its environment (`env:`, and
//! the `MAINSPRING_…` names below), so no parameter can become code. The environment starts empty but for
//! an allow-list. The program leads a process group of its own, which is ended as a whole.

use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::units::ByteSize;
use super::{Flow, SpecProblem, TaskContext, TaskError, TaskKind, TaskOutput};

/// How long a program may take to end after TERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// A longer line of output is cut.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Runs a program, or a line of shell. The last line of its standard output becomes `return_value`
/// (parsed, if it is JSON).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Bash {
    /// A line for `bash -c`, or a list: a program and its arguments, run without a shell.
    command: CommandLine,
    /// The folder to run in; relative to the DAG folder. Default: the DAG folder.
    #[serde(default)]
    cwd: Option<String>,
    /// Exit codes that mean `skipped`.
    #[serde(default = "skip_default")]
    skip_on_exit_code: Vec<i32>,
    /// Exit codes after which no attempt can help.
    #[serde(default)]
    fail_on_exit_code: Vec<i32>,
    /// Memory that each process of the program may have: what it asks for beyond that it does not get.
    #[serde(default)]
    memory_limit: Option<ByteSize>,
    /// Files that each process of the program may have open.
    #[serde(default)]
    open_files_limit: Option<u32>,
}

/// Less than this no program starts with.
const MEMORY_LIMIT_MIN: u64 = 16 << 20;
const OPEN_FILES_LIMIT_MIN: u32 = 16;

fn skip_default() -> Vec<i32> {
    vec![99]
}

/// What to run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum CommandLine {
    /// A line of shell.
    Shell(String),
    /// A program and its arguments.
    Program(Vec<String>),
}

impl TaskKind for Bash {
    const NAME: &'static str = "bash";
    const VERBATIM: &'static [&'static str] = &["command"];

    fn check(&self) -> Vec<SpecProblem> {
        let empty = match &self.command {
            CommandLine::Shell(line) => line.trim().is_empty(),
            CommandLine::Program(words) => words.first().is_none_or(|w| w.trim().is_empty()),
        };
        let problem_at = |key: &str, message: &str, hint: &str| SpecProblem {
            path: vec![key.to_owned()],
            message: message.to_owned(),
            hint: Some(hint.to_owned()),
        };
        let problem = |message: &str, hint: &str| problem_at("command", message, hint);
        let mut problems = Vec::new();
        if self.memory_limit.is_some_and(|limit| limit.0 < MEMORY_LIMIT_MIN) {
            let message = "no program starts with less than 16 MiB";
            problems.push(problem_at("memory_limit", message, "write for instance `512MiB`"));
        }
        if self.open_files_limit.is_some_and(|limit| limit < OPEN_FILES_LIMIT_MIN) {
            let message = "no program starts with fewer than 16 open files";
            problems.push(problem_at("open_files_limit", message, "write for instance 1024"));
        }
        if empty {
            problems.push(problem(
                "`command` is empty",
                "write a line of shell, or a list: program and arguments",
            ));
        }
        if let CommandLine::Shell(line) = &self.command
            && line.contains("{{")
        {
            problems.push(problem(
                "`command` holds a template, but a line of shell is never rendered",
                "give the value a name under `env:` and write `\"$NAME\"` here",
            ));
        }
        problems
    }

    async fn run(&self, cx: &TaskContext) -> Result<TaskOutput, TaskError> {
        let mut child = self.command(cx).spawn().map_err(|error| self.cannot_start(&error))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let stdout = child.stdout.take().expect("stdout was piped");
        let stderr = child.stderr.take().expect("stderr was piped");
        let log_of = |prefix: &'static str| {
            let log = cx.log.clone();
            move |line: &str| log.line(&format!("{prefix}{line}"))
        };
        let streams = async {
            let (last, _) = tokio::join!(lines(stdout, log_of("")), lines(stderr, log_of("stderr: ")));
            last
        };
        tokio::pin!(streams);
        let mut last_line = None;
        let mut open = true;
        let status = loop {
            tokio::select! {
                line = &mut streams, if open => { last_line = line; open = false; }
                status = child.wait() => break status,
                () = cx.cancel.cancelled() => {
                    end_group(group, &mut child).await;
                    return Err(TaskError::Retryable("the program was ended on request".to_owned()));
                }
            }
        };
        let status =
            status.map_err(|e| TaskError::Retryable(format!("the program cannot be waited for: {e}")))?;
        if open {
            // A grandchild may hold the pipes open; its output is not waited for longer than the grace.
            last_line = tokio::time::timeout(GRACE, streams).await.unwrap_or_default();
        }
        match status.code() {
            Some(0) => Ok(TaskOutput::of(json!({ "return_value": return_value(last_line) }))),
            Some(code) if self.skip_on_exit_code.contains(&code) => Ok(TaskOutput {
                flow: Flow::Skip { why: format!("exit code {code}") },
                ..TaskOutput::of(Value::Null)
            }),
            Some(code) => {
                let text = format!("`{}` ended with exit code {code}", self.words());
                if self.fail_on_exit_code.contains(&code) {
                    Err(TaskError::Permanent(text))
                } else {
                    Err(TaskError::Exited { code, text })
                }
            }
            None => Err(TaskError::Retryable(format!("`{}` was killed by a signal: {status}", self.words()))),
        }
    }
}

impl Bash {
    fn command(&self, cx: &TaskContext) -> Command {
        let words: Vec<&str> = match &self.command {
            CommandLine::Shell(line) => vec!["bash", "-c", line],
            CommandLine::Program(words) => words.iter().map(String::as_str).collect(),
        };
        let limits = self.limits();
        let mut command = Command::new(if limits.is_empty() { words[0] } else { "bash" });
        if limits.is_empty() {
            command.args(&words[1..]);
        } else {
            // The shell limits itself and then becomes the program.
            command.arg("-c").arg(format!("{limits}exec \"$@\"")).arg("bash").args(&words);
        }
        let folder = &cx.shared.dags_dir;
        command.current_dir(self.cwd.as_ref().map_or_else(|| folder.clone(), |cwd| folder.join(cwd)));
        command.env_clear().envs(cx.shared.inherited_env.iter().map(|(k, v)| (k, v)));
        command
            .env("MAINSPRING_DAG_ID", cx.dag_id.as_str())
            .env("MAINSPRING_RUN_ID", cx.run_id.as_str())
            .env("MAINSPRING_TASK_ID", cx.task_id.as_str())
            .env("MAINSPRING_MAP_INDEX", cx.map_index.to_string())
            .env("MAINSPRING_TRY_NUMBER", cx.try_number.to_string())
            .env("MAINSPRING_LOGICAL_DATE", cx.logical_date.to_string())
            .env("MAINSPRING_DATA_INTERVAL_START", cx.data_interval_start.to_string())
            .env("MAINSPRING_DATA_INTERVAL_END", cx.data_interval_end.to_string())
            .envs(cx.env.iter().map(|(k, v)| (k, v)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command
    }

    /// As lines of shell; empty if there are none.
    fn limits(&self) -> String {
        let memory =
            self.memory_limit.map(|limit| format!("ulimit -v {} || exit 126; ", limit.0.div_ceil(1024)));
        let files = self.open_files_limit.map(|limit| format!("ulimit -n {limit} || exit 126; "));
        memory.into_iter().chain(files).collect()
    }

    /// The command for a message, cut to one short line.
    fn words(&self) -> String {
        let text = match &self.command {
            CommandLine::Shell(line) => line.trim().to_owned(),
            CommandLine::Program(words) => words.join(" "),
        };
        let first: String = text.lines().next().unwrap_or_default().chars().take(80).collect();
        if first.len() < text.len() { format!("{first} …") } else { first }
    }

    fn cannot_start(&self, error: &std::io::Error) -> TaskError {
        let text = format!("`{}` cannot be started: {error}", self.words());
        let hopeless = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied);
        if hopeless { TaskError::Permanent(text) } else { TaskError::Retryable(text) }
    }
}

/// Hands each line to `write`; answers the last one that is not empty.
async fn lines(stream: impl AsyncRead + Unpin, write: impl Fn(&str)) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let mut last = None;
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        match reader.read_until(b'\n', &mut buffer).await {
            Ok(0) => return last,
            Err(error) => {
                write(&format!("the output cannot be read any further: {error}"));
                return last;
            }
            Ok(_) => {
                let cut = &buffer[..buffer.len().min(LINE_BYTES_MAX)];
                let text = String::from_utf8_lossy(cut);
                let line = text.trim_end_matches(['\n', '\r']);
                write(line);
                if !line.trim().is_empty() {
                    last = Some(line.to_owned());
                }
            }
        }
    }
}

fn return_value(last_line: Option<String>) -> Value {
    match last_line {
        None => Value::Null,
        Some(line) => serde_json::from_str(&line).unwrap_or(Value::String(line)),
    }
}

/// TERM to the whole group; KILL to what is left after the grace.
async fn end_group(group: Option<Pid>, child: &mut Child) {
    let Some(group) = group else { return };
    send(group, Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        send(group, Signal::KILL);
        return;
    }
    // The leader has ended; a grandchild that ignored TERM has had its warning.
    send(group, Signal::KILL);
}

/// A group that is gone already is what we want, so its absence is no error.
fn send(group: Pid, signal: Signal) {
    if let Err(error) = kill_process_group(group, signal)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(?group, ?signal, %error, "a process group cannot be signalled");
    }
}
