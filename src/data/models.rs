//! Model artefacts on disk: `<home>/models/<model>/<version>/model.json`, and `current`, which names a
//! version.
//!
//! A version's folder appears whole, by a rename, and never changes; so does the pointer. Knows nothing of
//! what a model says.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::DataError;

/// Where models live under the home folder.
fn folder(home: &Path, model: &str) -> PathBuf {
    home.join("models").join(model)
}

/// Keeps `text` as `version` of `model`; a version that is there already stays. `model` and `version` are
/// names without separators. `attempt` tells rival writers apart.
///
/// # Errors
/// [`DataError::Retryable`] for what the file system refuses.
pub fn keep(home: &Path, model: &str, version: &str, text: &str, attempt: &str) -> Result<(), DataError> {
    let folder = folder(home, model);
    let kept = || -> io::Result<()> {
        let place = folder.join(version);
        if place.join("model.json").exists() {
            return Ok(());
        }
        let new = folder.join(format!(".{version}.{attempt}"));
        fs::create_dir_all(&new)?;
        write_durably(&new.join("model.json"), text)?;
        sync_folder(&new)?;
        match fs::rename(&new, &place) {
            // A rival was faster; the same version has the same bytes.
            Err(_) if place.join("model.json").exists() => fs::remove_dir_all(&new)?,
            renamed => renamed?,
        }
        sync_folder(&folder)
    };
    kept().map_err(|error| unusable(&folder, &error))
}

/// Makes `version` the current one of `model`; nothing is written if it is.
///
/// # Errors
/// As [`keep`].
pub fn point(home: &Path, model: &str, version: &str, attempt: &str) -> Result<(), DataError> {
    let folder = folder(home, model);
    let pointed = || -> io::Result<()> {
        let pointer = folder.join("current");
        if fs::read_to_string(&pointer).is_ok_and(|text| text.trim() == version) {
            return Ok(());
        }
        let new = folder.join(format!(".current.{attempt}"));
        write_durably(&new, &format!("{version}\n"))?;
        fs::rename(&new, &pointer)?;
        sync_folder(&folder)
    };
    pointed().map_err(|error| unusable(&folder, &error))
}

fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn unusable(folder: &Path, error: &io::Error) -> DataError {
    DataError::Retryable(format!("model folder {}: {error}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_never_changes_and_the_pointer_follows() {
        let home = tempfile::tempdir().unwrap();
        keep(home.path(), "m", "v1", "one", "a").unwrap();
        keep(home.path(), "m", "v1", "other", "b").unwrap();
        keep(home.path(), "m", "v2", "two", "a").unwrap();
        point(home.path(), "m", "v1", "a").unwrap();
        point(home.path(), "m", "v2", "a").unwrap();
        let read = |path: &str| fs::read_to_string(home.path().join("models/m").join(path)).unwrap();
        assert_eq!(
            (read("v1/model.json"), read("v2/model.json"), read("current")),
            ("one".into(), "two".into(), "v2\n".into())
        );
        assert_eq!(fs::read_dir(home.path().join("models/m")).unwrap().count(), 3);
    }
}
