//! `mainspring fmt`: DAG files in canonical words.

use std::path::{Path, PathBuf};

use super::{CliError, Globals, print_line};
use crate::dagbag;

/// Write DAG files in canonical words; comments, quotes and order stay.
#[derive(clap::Args)]
pub(super) struct Fmt {
    /// Files or folders [default: the DAG folder]
    paths: Vec<PathBuf>,
    /// Change nothing; name the files that would change and exit 1 if there are any
    #[arg(long)]
    check: bool,
}

pub(super) fn run(args: &Fmt, globals: &Globals) -> Result<(), CliError> {
    let default = [globals.config.dags.clone()];
    let paths = if args.paths.is_empty() { &default[..] } else { &args.paths[..] };
    let (mut changed, mut failed) = (0, false);
    for file in paths.iter().flat_map(|path| dagbag::files_of(path)) {
        match format(&file, args.check) {
            Ok(false) => {}
            Ok(true) => {
                changed += 1;
                print_line(&file.display().to_string());
            }
            Err(text) => {
                failed = true;
                eprintln!("{text}");
            }
        }
    }
    if failed || (args.check && changed > 0) { Err(CliError::Failed) } else { Ok(()) }
}

/// Whether the file was, or would be, changed.
fn format(file: &Path, check: bool) -> Result<bool, String> {
    let away = |error: std::io::Error| format!("error: {}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(away)?;
    let formatted = dagbag::format_text(&text).map_err(|problems| {
        let named = problems
            .into_iter()
            .map(|problem| dagbag::Problem { file: file.to_string_lossy().into_owned(), ..problem });
        named.map(|problem| problem.to_string()).collect::<Vec<_>>().join("\n")
    })?;
    if formatted == text {
        return Ok(false);
    }
    if !check {
        // A crash between the two leaves the old file or the new one, never half of one.
        let beside = file.with_extension("yaml.new");
        std::fs::write(&beside, &formatted).map_err(away)?;
        std::fs::rename(&beside, file).map_err(away)?;
    }
    Ok(true)
}
