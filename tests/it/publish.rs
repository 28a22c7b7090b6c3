//! Connections, loads, validation, clustering and SQL statements, through their public doors, on SQLite and
//! on a real Postgres.

use std::path::Path;

use mainspring::data::connections::{Connections, Declared, Secret};
use mainspring::data::warehouse::Warehouse;

#[cfg(feature = "ml")]
mod gate;
mod load;
mod tasks;
#[cfg(feature = "ml")]
mod tasks_cluster;
mod tasks_validate;
mod watch;

/// `warehouse`, a SQLite file under `home`, and `pg`, a new Postgres database; without Postgres only the first.
async fn warehouses(home: &Path) -> Vec<Warehouse> {
    let url = crate::postgres::new_database().await;
    let declared = url.map(|url| ("pg".to_owned(), Declared::Url(Secret::new(url))));
    let connections = Connections::new(declared.into_iter().collect(), &Default::default(), home);
    let mut opened = Vec::new();
    for name in ["warehouse", "pg"] {
        if name == "warehouse" || connections.names().contains(&name.to_owned()) {
            opened.push(connections.warehouse(name).await.unwrap());
        }
    }
    opened
}
