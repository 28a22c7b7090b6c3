//! Where the logs of attempts are, and how a piece that comes from elsewhere is put in its place.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::core::ids::{Fence, RunKey, TaskId};

/// A log may grow to this size, a little more for the line that says so.
pub const LOG_BYTES_MAX: u64 = 64 << 20;

/// Where the logs of a run are.
#[must_use]
pub fn log_folder(logs: &Path, key: &RunKey) -> PathBuf {
    logs.join(key.dag_id.as_str()).join(key.run_id.as_str())
}

/// Where the log of an attempt is: ids are parsed, so the path cannot leave `logs`.
#[must_use]
pub fn log_path(logs: &Path, key: &RunKey, task: &TaskId, map_index: i32, fence: Fence) -> PathBuf {
    let folder = log_folder(logs, key).join(task.as_str());
    folder.join(if map_index < 0 {
        format!("{}.log", fence.0)
    } else {
        format!("{map_index}.{}.log", fence.0)
    })
}

/// Puts `text` at `offset`, and answers how long the log is then. The same piece again changes nothing; one
/// that would leave a gap is not taken, and the answer says where the next must begin.
///
/// # Errors
/// Of the disk.
pub fn put_piece(path: &Path, offset: u64, text: &str) -> std::io::Result<u64> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    let length = file.metadata()?.len();
    let end = offset.saturating_add(text.len() as u64);
    if offset > length || end > LOG_BYTES_MAX + (1 << 20) {
        return Ok(length);
    }
    file.write_all_at(text.as_bytes(), offset)?;
    Ok(length.max(end))
}

/// The log from `offset` on, at most `bytes_max` of it, cut before a broken character; empty if nothing was written.
///
/// # Errors
/// Of the disk.
pub fn read_piece(path: &Path, offset: u64, bytes_max: u64) -> std::io::Result<String> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    if let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_may_come_twice_and_none_leaves_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a").join("1.log");
        assert_eq!(put_piece(&path, 0, "one\n").unwrap(), 4);
        assert_eq!(put_piece(&path, 0, "one\n").unwrap(), 4);
        assert_eq!(put_piece(&path, 9, "three\n").unwrap(), 4, "it would leave a gap");
        assert_eq!(put_piece(&path, 4, "two ü\n").unwrap(), 11);
        assert_eq!(read_piece(&path, 4, 5).unwrap(), "two ", "half a character is left for the next piece");
        assert_eq!(read_piece(&path, 0, 100).unwrap(), "one\ntwo ü\n");
        assert_eq!(read_piece(&folder.path().join("none"), 0, 9).unwrap(), "");
    }
}
