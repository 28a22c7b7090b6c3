//! How people are told: a channel per file behind one trait, and routes, which are channels with a name and
//! settings. What is told, and when, is decided elsewhere.
//!
//! A new channel is a file here, a variant of `RouteSettings` and an arm of [`Routes::open`].

mod email;
mod log;
pub mod settings;
mod signature;
mod text;
mod webhook;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::core::alert::{DEFAULT_ROUTE, Problem};
use crate::core::ids::Timestamp;
use settings::{AlertSettings, RouteProblem};
pub use text::{Lines, subject};

/// The longest time that sending one message may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// The route that exists without being declared: the log of the process.
pub const LOG_ROUTE: &str = "log";

/// One message to be sent, once or again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The same at every delivery: the receiver can drop a repetition by it.
    pub id: String,
    /// The id of the message of this route that told of the opening; its own if it is that one.
    pub first_id: String,
    /// The route, as its author called it.
    pub route: String,
    /// What is told; its `state` says whether of the opening or of the end.
    pub problem: Problem,
}

/// Why a message was not taken, in words for people; never with a secret in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SendError {
    /// What happened, with the receiver's own words if there are any.
    pub text: String,
    /// The receiver asked for this much patience.
    pub retry_after: Option<Duration>,
}

impl SendError {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), retry_after: None }
    }
}

/// What a channel answers: the receiver's words, exactly.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<String, SendError>> + Send + 'a>>;

/// A way to tell people.
pub trait Channel: Send + Sync {
    /// Sends one message and waits until the receiver has it. It may be called again with the same message
    /// after an error, or by another process that does not know of this one.
    fn send<'a>(&'a self, message: &'a Message, now: Timestamp) -> Sending<'a>;

    /// Where messages go, for people; without secrets.
    fn place(&self) -> String;
}

/// Every route by name.
pub struct Routes {
    channels: BTreeMap<String, Box<dyn Channel>>,
    default: String,
}

impl std::fmt::Debug for Routes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let places = self.channels.iter().map(|(name, channel)| (name, channel.place()));
        f.debug_map().entries(places).finish()
    }
}

impl Routes {
    /// Routes as the settings say, with secrets taken from `environment`. The route `log` is always there.
    ///
    /// # Errors
    /// Everything that is missing, at once.
    pub fn open(
        settings: &AlertSettings,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<RouteProblem>> {
        let mut channels: BTreeMap<String, Box<dyn Channel>> = BTreeMap::new();
        channels.insert(LOG_ROUTE.to_owned(), Box::new(log::Log));
        let mut problems = Vec::new();
        for (name, route) in &settings.routes {
            let opened = match route {
                settings::RouteSettings::Log => Ok(Box::new(log::Log) as Box<dyn Channel>),
                settings::RouteSettings::Webhook(webhook) => {
                    webhook::Webhook::open(webhook, environment).map(|w| Box::new(w) as Box<dyn Channel>)
                }
                settings::RouteSettings::Email(email) => {
                    email::Email::open(email, environment).map(|e| Box::new(e) as Box<dyn Channel>)
                }
            };
            match opened {
                Ok(channel) => drop(channels.insert(name.clone(), channel)),
                Err(found) => problems
                    .extend(found.into_iter().map(|problem| RouteProblem { route: name.clone(), ..problem })),
            }
        }
        if problems.is_empty() {
            Ok(Self { channels, default: settings.default_route() })
        } else {
            Err(problems)
        }
    }

    /// The channel of the route `name`; `default` is the default route. `None` if it is not declared.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&dyn Channel> {
        let name =
            if name == DEFAULT_ROUTE && !self.channels.contains_key(name) { &self.default } else { name };
        self.channels.get(name).map(|channel| &**channel)
    }

    /// As [`Routes::find`]; a route that is not declared is stood in for by the default one, so that no alert
    /// is lost because a name was changed.
    #[must_use]
    pub fn find_or_default(&self, name: &str) -> &dyn Channel {
        self.find(name)
            .or_else(|| self.channels.get(&self.default).map(|channel| &**channel))
            .unwrap_or(&log::Log)
    }

    /// Names of all routes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.channels.keys().map(String::as_str)
    }
}
