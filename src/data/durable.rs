//! Files that must survive a loss of power, where the lake is a local folder.
//!
//! Object stores are durable when they answer; a local folder is durable after `fsync` of each file and
//! of each folder that names it. Files of rows are synced before the commit that names them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Makes `files` and the folders from them up to `root` durable. Blocks the thread it runs on.
fn sync_blocking(root: &Path, files: &[PathBuf]) -> io::Result<()> {
    let mut folders = BTreeSet::new();
    for file in files {
        File::open(file)?.sync_all()?;
        let parents = file.ancestors().skip(1).take_while(|folder| folder.starts_with(root));
        folders.extend(parents.map(Path::to_path_buf));
    }
    for folder in folders {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Makes `files` and the folders from them up to `root` durable.
///
/// # Errors
/// What the operating system says.
pub(crate) async fn sync(root: PathBuf, files: Vec<PathBuf>) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    tokio::task::spawn_blocking(move || sync_blocking(&root, &files))
        .await
        .unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
}
