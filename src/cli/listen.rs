//! The API of this process: its address, its tokens, and the `server.json` by which the other commands find it.

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::api::{FILE, Found};
use super::{CliError, Globals};
use crate::control::Control;
use crate::engine::scheduler::Scheduler;
use crate::engine::{self, lease};
use crate::web::{self, Parts, Pulse, Role, Tokens};

/// In the home: what task tokens are made with, so that they outlive the process.
const KEY: &str = "server.key";

/// Where the API is, and who may ask.
#[derive(Args)]
pub(super) struct Listen {
    /// Address of the API; one that other machines can reach needs a token file
    #[arg(long, env = "MAINSPRING_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Tokens that are accepted, one per line: `[admin|viewer|worker] SECRET [END]`; made if it is missing.
    /// Servers that share it accept each other's workers [default: one token, made at the start]
    #[arg(long, env = "MAINSPRING_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A listener that does not answer yet.
pub(super) struct Door {
    listener: TcpListener,
    tokens: Tokens,
    found: Found,
    any_host: bool,
    home: PathBuf,
}

/// The API of this process.
pub(super) struct Answering {
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
    file: PathBuf,
}

impl Listen {
    /// Takes the address and reads the tokens: what can be wrong is found before anything runs.
    pub(super) async fn open(self, globals: &Globals) -> Result<Door, CliError> {
        let home = globals.config.home.clone();
        fs::create_dir_all(&home).map_err(|e| cannot(&home, "created", &e))?;
        let own = web::random_secret();
        let any_host = self.token_file.is_some();
        let listener = web::listen(self.listen, any_host).await.map_err(CliError::Environment)?;
        let tokens = match &self.token_file {
            Some(path) => {
                let text = read_or_make(path, || {
                    let (admin, worker) = (web::random_secret(), web::random_secret());
                    format!("admin {admin}\nworker {worker}\n")
                })?;
                // Servers with the same file make the same task tokens.
                Tokens::new(&text)
                    .read(&text)
                    .map_err(|why| CliError::User(format!("the token file {}: {why}", path.display())))?
            }
            None => Tokens::new(&read_or_make(&home.join(KEY), web::random_secret)?),
        };
        let tokens = tokens.with(Role::Admin, &own, None);
        let mut address = listener.local_addr().map_err(|e| CliError::Environment(e.to_string()))?;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let found = Found { url: format!("http://{address}"), pid: std::process::id(), token: own };
        Ok(Door { listener, tokens, found, any_host, home })
    }
}

impl Door {
    pub(super) fn url(&self) -> &str {
        &self.found.url
    }

    /// Begins to answer. Once `quiet` is cancelled workers elsewhere get no more work.
    pub(super) fn start(
        self,
        globals: &Globals,
        control: Control,
        scheduler: Scheduler,
        quiet: CancellationToken,
    ) -> Result<Answering, CliError> {
        let file = self.home.join(FILE);
        let text = serde_json::to_string_pretty(&self.found).expect("plain values can be written as JSON");
        write_secret(&file, &format!("{text}\n"))?;
        let asleep = scheduler.clone();
        let router = web::router(Parts {
            control,
            tokens: self.tokens,
            any_host: self.any_host,
            lease: lease::LEASE,
            logs: globals.config.logs(),
            now: engine::now,
            pulse: Box::new(move || pulse(&scheduler)),
            wake: Box::new(move || asleep.wake()),
            stop: quiet,
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(web::serve(self.listener, router, stop.clone()));
        Ok(Answering { stop, task, file })
    }
}

fn pulse(scheduler: &Scheduler) -> Pulse {
    let health = scheduler.health();
    Pulse {
        last_round: health.last_round,
        lag: health.lag,
        trouble: health.trouble,
        import_errors: health.import_errors,
    }
}

impl Answering {
    /// Answers what is under way, and no more.
    pub(super) async fn stop(self) {
        if let Err(error) = fs::remove_file(&self.file) {
            tracing::warn!(%error, file = %self.file.display(), "it stays here");
        }
        self.stop.cancel();
        match self.task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the API ended badly"),
            Err(error) => tracing::warn!(%error, "the API ended badly"),
        }
    }
}

fn cannot(path: &Path, what: &str, error: &std::io::Error) -> CliError {
    CliError::Environment(format!("{} cannot be {what}: {error}", path.display()))
}

/// The text of a file of secrets; a new one if it is missing.
fn read_or_make(path: &Path, make: impl FnOnce() -> String) -> Result<String, CliError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = make();
            write_secret(path, &text)?;
            Ok(text)
        }
        Err(error) => Err(cannot(path, "read", &error)),
    }
}

/// Only the owner can read the file, from its first moment on.
fn write_secret(path: &Path, text: &str) -> Result<(), CliError> {
    let new = path.with_extension("new");
    let write = || {
        if new.exists() {
            fs::remove_file(&new)?;
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|error| cannot(path, "written", &error))
}
