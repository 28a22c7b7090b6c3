//! The API: what people, programs and workers elsewhere ask of this process, on one router behind one gate.
//!
//! Everything that changes a run goes through [`crate::control`], in the words of [`crate::control::ask`]; workers
//! speak [`crate::control::wire`]. This room keeps no state of runs. Its invariant: no route without a permission.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::core::ids::Timestamp;

mod api;
mod error;
mod gate;
mod tokens;
mod worker;

pub use tokens::{Role, Tokens, random_secret};

/// How the scheduler of this process is.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    /// When its loop last came round.
    pub last_round: Option<Timestamp>,
    /// By how much the loop was late then.
    pub lag: Duration,
    /// Why the database could not be used in the last round.
    pub trouble: Option<String>,
    /// What is wrong with DAG files.
    pub import_errors: Vec<String>,
}

/// What the API is made of.
pub struct Parts {
    /// The door to the runs.
    pub control: Control,
    /// Who may ask.
    pub tokens: Tokens,
    /// Whether requests under any name are answered, and not only under that of this machine to itself.
    pub any_host: bool,
    /// How long a worker elsewhere lives without a word.
    pub lease: Duration,
    /// The folder of the logs.
    pub logs: PathBuf,
    /// Reads the clock.
    pub now: fn() -> Timestamp,
    /// Asks how the scheduler is.
    pub pulse: Box<dyn Fn() -> Pulse + Send + Sync>,
    /// Has the scheduler look at once.
    pub wake: Box<dyn Fn() + Send + Sync>,
    /// The process is ending: workers are not kept waiting any more, and get no more work.
    pub stop: CancellationToken,
}

pub(crate) struct Api {
    control: Control,
    tokens: Tokens,
    any_host: bool,
    lease: Duration,
    logs: PathBuf,
    now: fn() -> Timestamp,
    pulse: Box<dyn Fn() -> Pulse + Send + Sync>,
    wake: Box<dyn Fn() + Send + Sync>,
    stop: CancellationToken,
    workers: worker::Sessions,
}

type Shared = Arc<Api>;

/// Every route.
pub fn router(parts: Parts) -> Router {
    let Parts { control, tokens, any_host, lease, logs, now, pulse, wake, stop } = parts;
    let workers = worker::Sessions::default();
    let api = Api { control, tokens, any_host, lease, logs, now, pulse, wake, stop, workers };
    worker::routes(api::routes(gate::Routes::new(Arc::new(api)))).finish()
}

/// Answers on `listener` until `stop`, and then what is under way.
///
/// # Errors
/// If the listener fails for good.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Listens at `address`: at one that other machines can reach only if tokens were given.
///
/// # Errors
/// With a hint, if that is not allowed or the address is taken.
pub async fn listen(address: SocketAddr, has_token_file: bool) -> Result<TcpListener, String> {
    if !address.ip().is_loopback() && !has_token_file {
        return Err(format!(
            "{address} can be reached from other machines, and there is no token file\nhint: give one with --token-file (it is made if it is missing), or listen at 127.0.0.1"
        ));
    }
    TcpListener::bind(address).await.map_err(|error| {
        format!("{address} cannot be listened at: {error}\nhint: another server may be there; choose an address with --listen")
    })
}
