//! The log of one attempt: a file that appears with its first line. Each line begins with its time.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::control::{LOG_BYTES_MAX, log_path};
use crate::core::dag::Dag;
use crate::core::ids::{Fence, RunKey, Timestamp};
use crate::core::run::TiRef;
use crate::tasks::TaskLog;

struct Writer {
    path: PathBuf,
    file: Option<File>,
    written: u64,
}

impl Writer {
    fn line(&mut self, now: Timestamp, text: &str) -> std::io::Result<()> {
        if self.written > LOG_BYTES_MAX {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                if let Some(folder) = self.path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                self.file.insert(File::options().create(true).append(true).open(&self.path)?)
            }
        };
        let mut line = format!("{now} {text}\n");
        self.written += line.len() as u64;
        if self.written > LOG_BYTES_MAX {
            line = format!("{now} the log has reached {LOG_BYTES_MAX} bytes; the rest is left out\n");
        }
        file.write_all(line.as_bytes())
    }
}

/// Opens the log of an attempt. A line that cannot be written is reported once, not fatal to the attempt.
pub(super) fn open(
    logs: &Path,
    dag: &Dag,
    key: &RunKey,
    ti: TiRef,
    fence: Fence,
    now: fn() -> Timestamp,
) -> TaskLog {
    let path = log_path(logs, key, &dag.task(ti.task).id, ti.map_index, fence);
    let writer = Mutex::new(Writer { path, file: None, written: 0 });
    let complained = std::sync::Once::new();
    TaskLog::new(move |text| {
        let mut writer = writer.lock().expect("writing a line does not panic");
        if let Err(error) = writer.line(now(), text) {
            complained.call_once(
                || tracing::warn!(path = %writer.path.display(), %error, "a task log cannot be written"),
            );
        }
    })
}
