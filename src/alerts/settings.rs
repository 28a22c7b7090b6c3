//! `[alerts]` of the settings file: routes by name, and which of them is the default. Everything that is wrong
//! is found at once; no message shows a secret.
//!
//! ```toml
//! [alerts]
//! default = "oncall"
//! [alerts.routes.oncall]
//! type = "webhook"
//! url = "https://alerts.example/hook"
//! secret_env = "ONCALL_SECRET"
//! [alerts.routes.mail]
//! type = "email"
//! smtp = "smtps://mainspring@mail.example"
//! password_env = "MAIL_PASSWORD"
//! from = "Mainspring <mainspring@example.com>"
//! to = ["data-team@example.com"]
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{LOG_ROUTE, email, webhook};
use crate::core::alert::DEFAULT_ROUTE;
use crate::core::ids::RouteName;
use crate::secret::Secret;

/// Words after `type =`.
const TYPES: [&str; 3] = ["log", "webhook", "email"];

/// Routes as the settings say.
#[derive(Clone, Default)]
pub struct AlertSettings {
    default: Option<String>,
    pub(super) routes: BTreeMap<String, RouteSettings>,
}

impl fmt::Debug for AlertSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// One route.
#[derive(Clone)]
pub(super) enum RouteSettings {
    /// The log of the process.
    Log,
    /// A service that is called.
    Webhook(WebhookSettings),
    /// Mail.
    Email(EmailSettings),
}

/// Keys of a `webhook`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookSettings {
    /// The address; many services put a token into it, so it is a secret.
    pub(super) url: Option<Secret<String>>,
    /// The environment variable that holds the address.
    pub(super) url_env: Option<String>,
    /// The key that signs the body: `whsec_` and base64, or plain text.
    pub(super) secret: Option<Secret<String>>,
    /// The environment variable that holds the key.
    pub(super) secret_env: Option<String>,
}

/// Keys of an `email`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmailSettings {
    /// `smtp://[user@]host[:port]`, or `smtps://…` for TLS from the first byte.
    pub(super) smtp: Option<Secret<String>>,
    /// The user's password.
    pub(super) password: Option<Secret<String>>,
    /// The environment variable that holds the password.
    pub(super) password_env: Option<String>,
    /// For `smtp://`: whether the connection must turn to TLS.
    pub(super) tls: Option<Tls>,
    /// A PEM file with a certificate to be trusted beside the public ones.
    pub(super) ca_file: Option<PathBuf>,
    /// The sender.
    pub(super) from: Option<String>,
    /// The receivers.
    pub(super) to: Option<Receivers>,
}

/// Whether a connection must turn to TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tls {
    /// Nothing is sent before it has (STARTTLS). The default if there is a user.
    Required,
    /// It does if the server can. The default if there is no user.
    Opportunistic,
    /// It does not.
    Off,
}

/// One address or several.
#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "`to` must be an address or a list of addresses")]
pub(super) enum Receivers {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// Something wrong with the routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteProblem {
    /// The route; empty if it is about `[alerts]` itself.
    pub route: String,
    /// What is wrong.
    pub what: String,
    /// A way out.
    pub hint: Option<String>,
}

impl fmt::Display for RouteProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.route.is_empty() {
            write!(f, "[alerts]: {}", self.what)?;
        } else {
            write!(f, "alert route `{}`: {}", self.route, self.what)?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// A problem of a route whose name the caller fills in.
pub(super) fn problem(what: impl Into<String>, hint: impl Into<Option<String>>) -> RouteProblem {
    RouteProblem { route: String::new(), what: what.into(), hint: hint.into() }
}

impl AlertSettings {
    /// Reads the table `[alerts]`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(table: &BTreeMap<String, Value>) -> Result<Self, Vec<RouteProblem>> {
        let mut settings = Self::default();
        let mut problems = Vec::new();
        for (key, value) in table {
            match (key.as_str(), value) {
                ("default", Value::String(name)) => settings.default = Some(name.clone()),
                ("default", _) => problems.push(problem("`default` must be the name of a route", None)),
                ("routes", Value::Object(routes)) => settings.read_routes(routes, &mut problems),
                ("routes", _) => problems.push(problem("`routes` must hold a table per route", None)),
                (unknown, _) => {
                    let hint = "known keys are `default` and `routes`".to_owned();
                    problems.push(problem(format!("unknown key `{unknown}`"), hint));
                }
            }
        }
        settings.judge_default(&mut problems);
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    fn read_routes(&mut self, routes: &Map<String, Value>, problems: &mut Vec<RouteProblem>) {
        for (name, value) in routes {
            let mut found = Vec::new();
            if let Err(error) = RouteName::parse(name) {
                found.push(problem(error.to_string(), None));
            }
            let route = match value.as_object() {
                Some(keys) => read_route(keys, &mut found),
                None => {
                    found.push(problem("it must be a table", format!("[alerts.routes.{name}]")));
                    None
                }
            };
            problems.extend(found.into_iter().map(|p| RouteProblem { route: name.clone(), ..p }));
            // A route with problems is still a name that others may use.
            self.routes.insert(name.clone(), route.unwrap_or(RouteSettings::Log));
        }
    }

    fn judge_default(&self, problems: &mut Vec<RouteProblem>) {
        let Some(default) = &self.default else { return };
        let names = self.names();
        if self.routes.contains_key(DEFAULT_ROUTE) && default != DEFAULT_ROUTE {
            let what = format!("`default` says `{default}`, and there is a route called `{DEFAULT_ROUTE}`");
            problems.push(problem(what, "keep one of them".to_owned()));
        } else if !names.contains(default) {
            let what = format!("`default` names the route `{default}`, which is not declared");
            problems.push(problem(what, near(default, &names)));
        }
    }

    /// Names of all routes that a DAG may name, in ascending order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.routes.keys().cloned().collect();
        names.extend([LOG_ROUTE, DEFAULT_ROUTE].map(str::to_owned));
        names.sort();
        names.dedup();
        names
    }

    /// The route of what names none.
    #[must_use]
    pub fn default_route(&self) -> String {
        let own = self.routes.contains_key(DEFAULT_ROUTE).then(|| DEFAULT_ROUTE.to_owned());
        own.or_else(|| self.default.clone()).unwrap_or_else(|| LOG_ROUTE.to_owned())
    }
}

/// The keys of one route; what is wrong is added to `found`.
fn read_route(keys: &Map<String, Value>, found: &mut Vec<RouteProblem>) -> Option<RouteSettings> {
    let mut rest = keys.clone();
    let kind = match rest.remove("type") {
        Some(Value::String(kind)) => kind,
        Some(_) | None => {
            let hint = format!("type = \"{}\", for instance; one of {}", TYPES[1], TYPES.join(", "));
            found.push(problem("the key `type` is missing", hint));
            return None;
        }
    };
    let unfit = |error: serde_json::Error| problem(error.to_string(), None);
    match kind.as_str() {
        "log" => {
            if let Some(key) = rest.keys().next() {
                found.push(problem(format!("a `log` route has no key `{key}`"), None));
            }
            Some(RouteSettings::Log)
        }
        "webhook" => match serde_json::from_value::<WebhookSettings>(Value::Object(rest)) {
            Ok(settings) => {
                found.extend(webhook::check(&settings));
                Some(RouteSettings::Webhook(settings))
            }
            Err(error) => {
                found.push(unfit(error));
                None
            }
        },
        "email" => match serde_json::from_value::<EmailSettings>(Value::Object(rest)) {
            Ok(settings) => {
                found.extend(email::check(&settings));
                Some(RouteSettings::Email(settings))
            }
            Err(error) => {
                found.push(unfit(error));
                None
            }
        },
        other => {
            let names: Vec<String> = TYPES.map(str::to_owned).to_vec();
            found.push(problem(format!("there is no type `{other}`"), near(other, &names)));
            None
        }
    }
}

/// The nearest name, or all of them.
fn near(written: &str, names: &[String]) -> Option<String> {
    let nearest = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .filter(|(distance, name)| *distance <= name.chars().count() / 2)
        .min();
    Some(match nearest {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("there are {}", names.join(", ")),
    })
}

/// A secret that stands in the settings or in the environment; absent if neither is said.
pub(super) fn secret(
    key: &str,
    value: Option<&Secret<String>>,
    variable: Option<&str>,
    environment: &BTreeMap<String, String>,
) -> Result<Option<Secret<String>>, RouteProblem> {
    match (value, variable) {
        (Some(value), _) => Ok(Some(value.clone())),
        (None, None) => Ok(None),
        (None, Some(name)) => match environment.get(name).filter(|text| !text.is_empty()) {
            Some(text) => Ok(Some(Secret::new(text.clone()))),
            None => Err(problem(
                format!("the environment has no `{name}`, which `{key}_env` names"),
                format!("set {name} where this process is started"),
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AlertSettings, Vec<RouteProblem>> {
        AlertSettings::read(&toml::from_str(text).unwrap())
    }

    #[test]
    fn what_names_no_route_goes_to_the_log_unless_a_default_is_said() {
        assert_eq!(read("").unwrap().default_route(), "log");
        assert_eq!(read("[routes.oncall]\ntype = 'log'").unwrap().default_route(), "log");
        assert_eq!(
            read("default = 'oncall'\n[routes.oncall]\ntype = 'log'").unwrap().default_route(),
            "oncall"
        );
        assert_eq!(read("[routes.default]\ntype = 'log'").unwrap().default_route(), "default");
    }
}
