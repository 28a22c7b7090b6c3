//! `mainspring schema`: the JSON Schema of DAG files, for editors.

use super::{CliError, Globals, print_json};
use crate::dagbag;

/// Print the JSON Schema of DAG files.
#[derive(clap::Args)]
pub(super) struct Schema {}

#[expect(clippy::unnecessary_wraps, reason = "every subcommand answers alike")]
pub(super) fn run(_: &Schema, _: &Globals) -> Result<(), CliError> {
    print_json(&dagbag::file_schema());
    Ok(())
}
