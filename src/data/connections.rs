//! Connections: named in the configuration or the environment, never in a DAG file.
//!
//! Owns which address a name stands for, and the warehouses opened so far. Does not read the environment:
//! the top hands it over as a map. Nothing here prints an address that may hold a password.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Mutex;

use super::DataError;
use super::warehouse::Warehouse;
pub use crate::secret::Secret;

/// The connection that exists without being declared: SQLite in the home folder.
pub const DEFAULT_CONNECTION: &str = "warehouse";
/// The environment variable of connection `sales-db` is this and `SALES_DB`.
pub const ENVIRONMENT_PREFIX: &str = "MAINSPRING_CONN_";
/// How unlike a known name may be to be offered as a hint.
const NEAR_ENOUGH: f64 = 0.7;

/// A connection as the configuration writes it: `"postgres://…"` or `{url = "https://…", token = "…"}`.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum Declared {
    /// An address alone.
    Url(Secret<String>),
    /// An address and a bearer token.
    WithToken {
        /// The address.
        url: Secret<String>,
        /// Sent as `Authorization: Bearer …`.
        #[serde(default)]
        token: Option<Secret<String>>,
    },
}

/// What a name stands for.
#[derive(Clone)]
pub enum Connection {
    /// A SQLite file.
    Sqlite {
        /// Where it is.
        path: PathBuf,
    },
    /// A Postgres database.
    Postgres {
        /// Address with user and password.
        url: Secret<String>,
    },
    /// An HTTP service.
    Http {
        /// Its base address, without user or password.
        url: String,
        /// Bearer token.
        token: Option<Secret<String>>,
    },
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => write!(f, "sqlite {}", path.display()),
            Self::Postgres { .. } => f.write_str("postgres (address not shown)"),
            Self::Http { url, token } => {
                write!(f, "http {url}{}", if token.is_some() { " with a token" } else { "" })
            }
        }
    }
}

/// All connections by name. `warehouse` exists by default: SQLite in the home folder.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    home: PathBuf,
    declared: BTreeMap<String, Declared>,
    environment: BTreeMap<String, Declared>,
    opened: Mutex<BTreeMap<String, Warehouse>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Connections {
    /// Connections of the configuration, `declared`, and of the environment: those variables of
    /// `environment` that begin with `MAINSPRING_CONN_` (an address, or `{"url": …, "token": …}`). The
    /// environment wins. A wrong address is reported by [`get`](Self::get), so that it harms nobody else.
    #[must_use]
    pub fn new(
        declared: BTreeMap<String, Declared>,
        environment: &BTreeMap<String, String>,
        home: &Path,
    ) -> Self {
        let environment = environment
            .iter()
            .filter_map(|(key, text)| {
                let name = key.strip_prefix(ENVIRONMENT_PREFIX)?;
                let plain = || Declared::Url(Secret::new(text.clone()));
                Some((name.to_owned(), serde_json::from_str(text).unwrap_or_else(|_| plain())))
            })
            .collect();
        let opened = Mutex::new(BTreeMap::new());
        Self(Arc::new(Inner { home: home.to_owned(), declared, environment, opened }))
    }

    /// All names, sorted; those known from the environment alone in lower case.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names: BTreeSet<String> = self.0.declared.keys().cloned().collect();
        let known: BTreeSet<String> = names.iter().map(|name| environment_name(name)).collect();
        names.extend(self.0.environment.keys().filter(|n| !known.contains(*n)).map(|n| n.to_lowercase()));
        names.insert(DEFAULT_CONNECTION.to_owned());
        names.into_iter().collect()
    }

    /// What must not be seen of them: tokens, and passwords as they stand in addresses.
    #[must_use]
    pub fn secrets(&self) -> Vec<Secret<String>> {
        let password = |url: &Secret<String>| {
            let url = reqwest::Url::parse(url.expose()).ok()?;
            url.password().map(|password| Secret::new(password.to_owned()))
        };
        let of = |declared: &Declared| match declared {
            Declared::Url(url) => [password(url), None],
            Declared::WithToken { url, token } => [password(url), token.clone()],
        };
        let all = self.0.declared.values().chain(self.0.environment.values());
        all.flat_map(of).flatten().collect()
    }

    /// What `name` stands for.
    ///
    /// # Errors
    /// [`DataError::Permanent`]: unknown, with the near name; or an address that cannot be read, without
    /// showing it.
    pub fn get(&self, name: &str) -> Result<Connection, DataError> {
        let declared = self.0.environment.get(&environment_name(name)).or_else(|| self.0.declared.get(name));
        match declared {
            Some(Declared::Url(url)) => self.read(name, url, None),
            Some(Declared::WithToken { url, token }) => self.read(name, url, token.clone()),
            None if name == DEFAULT_CONNECTION => {
                Ok(Connection::Sqlite { path: self.0.home.join("warehouse.db") })
            }
            None => Err(self.unknown(name)),
        }
    }

    /// The database that `name` stands for, opened once and kept.
    ///
    /// # Errors
    /// As [`get`](Self::get), and those of [`Warehouse::open`].
    pub async fn warehouse(&self, name: &str) -> Result<Warehouse, DataError> {
        let connection = self.get(name)?;
        let mut opened = self.0.opened.lock().await;
        if let Some(warehouse) = opened.get(name) {
            return Ok(warehouse.clone());
        }
        let warehouse = Warehouse::open(name, &connection).await?;
        opened.insert(name.to_owned(), warehouse.clone());
        Ok(warehouse)
    }

    fn read(
        &self,
        name: &str,
        url: &Secret<String>,
        token: Option<Secret<String>>,
    ) -> Result<Connection, DataError> {
        let text = url.expose().trim();
        if let Some(path) = text.strip_prefix("sqlite://")
            && !path.is_empty()
        {
            return Ok(Connection::Sqlite { path: self.0.home.join(path) });
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Connection::Postgres { url: Secret::new(text.to_owned()) });
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            let parsed = reqwest::Url::parse(text).map_err(|_| unreadable(name))?;
            if !parsed.username().is_empty() || parsed.password().is_some() {
                return Err(DataError::Permanent(format!(
                    "connection `{name}`: an http address must not hold a user or password\n\
                     hint: give the token apart: {{url: …, token: …}}"
                )));
            }
            return Ok(Connection::Http { url: text.to_owned(), token });
        }
        Err(unreadable(name))
    }

    fn unknown(&self, name: &str) -> DataError {
        let names = self.names();
        let hint = match near_name(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "declare it in the configuration or as `{ENVIRONMENT_PREFIX}{}`; known: {}",
                environment_name(name),
                names.join(", ")
            ),
        };
        DataError::Permanent(format!("there is no connection `{name}`\nhint: {hint}"))
    }
}

fn unreadable(name: &str) -> DataError {
    DataError::Permanent(format!(
        "connection `{name}`: its address cannot be read, expected `sqlite:///path`, `postgres://…` or `https://…`"
    ))
}

fn environment_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The name among `known` that is most like `name`, if any is like it.
pub fn near_name<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= NEAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(environment: &[(&str, &str)]) -> Connections {
        let declared = serde_json::from_value(serde_json::json!({
            "sales-db": "postgres://me:hunter2@db/sales",
            "crm": {"url": "https://crm.example/api", "token": "hunter2"},
            "broken": "mysql://me:hunter2@db/sales",
        }))
        .unwrap();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Connections::new(declared, &environment, Path::new("/home"))
    }

    #[test]
    fn the_environment_wins_over_the_configuration() {
        let connections = connections(&[
            ("MAINSPRING_CONN_SALES_DB", "sqlite:///tmp/sales.db"),
            ("MAINSPRING_CONN_API", r#"{"url": "https://api.example", "token": "t"}"#),
            ("HOME", "/root"),
        ]);
        assert_eq!(format!("{:?}", connections.get("sales-db").unwrap()), "sqlite /tmp/sales.db");
        assert_eq!(format!("{:?}", connections.get("api").unwrap()), "http https://api.example with a token");
        assert_eq!(connections.names(), ["api", "broken", "crm", "sales-db", "warehouse"]);
    }

    #[test]
    fn the_warehouse_exists_by_default() {
        assert_eq!(format!("{:?}", connections(&[]).get("warehouse").unwrap()), "sqlite /home/warehouse.db");
    }

    #[test]
    fn an_unknown_connection_is_answered_with_the_near_name() {
        let error = connections(&[]).get("sales_db").unwrap_err().to_string();
        assert_eq!(error, "there is no connection `sales_db`\nhint: did you mean `sales-db`?");
    }

    #[test]
    fn a_secret_is_printed_nowhere() {
        let connections = connections(&[]);
        let mut printed = format!("{connections:?}");
        for name in ["sales-db", "crm", "broken", "other"] {
            match connections.get(name) {
                Ok(connection) => printed += &format!("{connection:?}"),
                Err(error) => printed += &format!("{error} {error:?}"),
            }
        }
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
