//! Where the API of a home's server is: `server.json`, written by the server, read by the other commands.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// In the home.
pub(super) const FILE: &str = "server.json";

/// What `server.json` says: where the server of a home is. Who can read the file may do everything.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) url: String,
    pub(super) pid: u32,
    pub(super) token: String,
}

/// The server of a home, if one says that it is there.
pub(super) fn of_home(home: &Path) -> Result<Found, String> {
    let path = home.join(FILE);
    let text = fs::read_to_string(&path)
        .map_err(|_absent| format!("no server has this home ({} is not there)", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}
