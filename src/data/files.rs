//! Files as sources: found by name or pattern, unpacked, and read record by record.
//!
//! Two passes over a text file whose columns are not declared: one that looks at values to guess types (up
//! to [`GUESS_BYTES_MAX`] of it), one that reads. Nothing is held whole in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::columns::{ColumnType, Guess};
use super::intake::{Column, Fault, Intake, Place, RECORD_BYTES_MAX};
use super::pipe::Outlet;
use super::{DataError, csv_records, hint_near};

/// How much of each file, unpacked, is looked at to guess the types of its columns.
pub const GUESS_BYTES_MAX: u64 = 64 << 20;

/// Columns an author has declared, by name.
pub type Declared = BTreeMap<String, ColumnType>;

/// The text format of a file.
#[derive(Debug, Clone)]
pub enum Text {
    /// Fields between delimiters.
    Csv(csv_records::Dialect),
    /// One JSON object per line.
    JsonLines,
}

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What messages and the quarantine call it.
    pub name: String,
    /// Whether it is packed with gzip.
    pub is_gzip: bool,
}

/// The files that `patterns` (names, or with `*`, `?`, `[…]`, `**`) mean under `root`, in order of pattern,
/// then of name.
///
/// # Errors
/// [`DataError::Permanent`] naming every pattern that means no file.
pub fn find(root: &Path, patterns: &[String]) -> Result<Vec<Source>, DataError> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for pattern in patterns {
        let whole = root.join(pattern);
        if !pattern.contains(['*', '?', '[']) {
            match std::fs::metadata(&whole) {
                Ok(file) if file.is_file() => found.push(source(whole, pattern.clone())),
                Ok(_) => problems.push(format!(
                    "`{pattern}` is a folder, expected a file\nhint: `{pattern}/*` means the files in it"
                )),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    problems.push(format!(
                        "there is no file `{pattern}` in {}{}",
                        root.display(),
                        near(&whole)
                    ));
                }
                Err(error) => problems.push(format!("`{pattern}`: {error}")),
            }
            continue;
        }
        match glob::glob(&whole.to_string_lossy()) {
            Err(error) => problems.push(format!("`{pattern}` is not a pattern: {}", error.msg)),
            Ok(paths) => {
                let mut files: Vec<PathBuf> =
                    paths.filter_map(Result::ok).filter(|path| path.is_file()).collect();
                files.sort();
                if files.is_empty() {
                    problems.push(format!("`{pattern}` matches no file in {}", root.display()));
                }
                let name =
                    |path: &Path| path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
                found.extend(files.into_iter().map(|path| source(path.clone(), name(&path))));
            }
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(DataError::Permanent(problems.join("\n"))) }
}

fn source(path: PathBuf, name: String) -> Source {
    let is_gzip = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    Source { path, name, is_gzip }
}

fn near(path: &Path) -> String {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return String::new() };
    let Ok(entries) = std::fs::read_dir(folder) else { return String::new() };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    hint_near(&name.to_string_lossy(), names.iter().map(String::as_str))
}

/// The unpacked bytes of a file.
pub(crate) fn open(source: &Source) -> Result<Box<dyn BufRead>, DataError> {
    let file = File::open(&source.path).map_err(|error| of_file(source, &error))?;
    let inside: Box<dyn Read> =
        if source.is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut reader = BufReader::with_capacity(1 << 16, inside);
    if reader.fill_buf().map_err(|error| of_file(source, &error))?.is_empty() {
        return Err(DataError::Permanent(format!(
            "`{}` is empty, expected at least a header or a record",
            source.name
        )));
    }
    Ok(Box::new(reader))
}

/// What the operating system or gzip says about a file.
pub(crate) fn of_file(source: &Source, error: &io::Error) -> DataError {
    let text = format!("`{}`: {error}", source.name);
    let wrong = matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof
    );
    if wrong { DataError::Permanent(text) } else { DataError::Retryable(text) }
}

/// The columns that records of text files have: those declared, or those there are with guessed types.
///
/// # Errors
/// [`DataError::Permanent`] for a file without a header, with other columns than the first, or without a
/// declared column.
pub fn text_columns(sources: &[Source], text: &Text, declared: &Declared) -> Result<Vec<Column>, DataError> {
    match text {
        Text::Csv(dialect) => csv_records::columns(sources, dialect, declared),
        Text::JsonLines if !declared.is_empty() => {
            let column = |(name, column_type): (&String, &ColumnType)| Column {
                name: name.clone(),
                column_type: *column_type,
            };
            Ok(declared.iter().map(column).collect())
        }
        Text::JsonLines => json_columns(sources),
    }
}

/// Reads text files into `intake`.
///
/// # Errors
/// [`DataError::Permanent`] for a file that cannot be read as what it is said to be.
pub fn read_text(
    sources: &[Source],
    text: &Text,
    columns: &[Column],
    intake: &mut Intake<'_>,
) -> Result<(), DataError> {
    for source in sources {
        match text {
            Text::Csv(dialect) => csv_records::read(source, dialect, columns, intake)?,
            Text::JsonLines => read_json_lines(source, columns, intake)?,
        }
    }
    Ok(())
}

fn json_columns(sources: &[Source]) -> Result<Vec<Column>, DataError> {
    let mut guesses: Vec<(String, Guess)> = Vec::new();
    for source in sources {
        let mut lines = open(source)?.take(GUESS_BYTES_MAX);
        let mut line = Vec::new();
        while next_line(source, &mut lines, &mut line)? {
            let Ok(Value::Object(record)) = serde_json::from_slice::<Value>(&line) else { continue };
            for (name, value) in &record {
                let place = guesses.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                    guesses.push((name.clone(), Guess::default()));
                    guesses.len() - 1
                });
                guesses[place].1.see_json(value);
            }
        }
    }
    if guesses.is_empty() {
        let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
        let names = names.join("`, `");
        return Err(DataError::Permanent(format!(
            "`{names}`: there is no record, expected one JSON object per line"
        )));
    }
    Ok(guesses.into_iter().map(|(name, guess)| Column { name, column_type: guess.column_type() }).collect())
}

/// Reads a line without its end; gives whether there was one.
fn next_line(source: &Source, lines: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, DataError> {
    line.clear();
    let read = lines.read_until(b'\n', line).map_err(|error| of_file(source, &error))?;
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(read > 0)
}

fn read_json_lines(source: &Source, columns: &[Column], intake: &mut Intake<'_>) -> Result<(), DataError> {
    let mut lines = open(source)?;
    let mut line = Vec::new();
    let mut number = 0;
    while next_line(source, &mut lines, &mut line)? {
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let place = Place { source: &source.name, line: number };
        intake.take(place, json_record(&line, columns), || String::from_utf8_lossy(&line).into_owned())?;
        if intake.is_hopeless() {
            break;
        }
    }
    Ok(())
}

fn json_record(line: &[u8], columns: &[Column]) -> Result<Vec<super::cells::Cell>, Fault> {
    let fault = |class, message| Err(Fault { class, message });
    if line.len() > RECORD_BYTES_MAX {
        return fault(
            "oversize",
            format!("the record has {} bytes, expected at most {RECORD_BYTES_MAX}", line.len()),
        );
    }
    let Ok(text) = str::from_utf8(line) else {
        return fault("encoding", "the record is not UTF-8".to_owned());
    };
    let record = match serde_json::from_str(text) {
        Ok(Value::Object(record)) => record,
        Ok(_) => return fault("json", "the record is no JSON object".to_owned()),
        Err(error) => return fault("json", format!("the record is no JSON object: {error}")),
    };
    columns
        .iter()
        .map(|column| {
            let value = record.get(&column.name).unwrap_or(&Value::Null);
            column.column_type.read_json(value).ok_or_else(|| Fault {
                class: "type",
                message: format!("column `{}`: {value} is no {}", column.name, column.column_type),
            })
        })
        .collect()
}

/// The schema of Parquet files, which must be one for all.
///
/// # Errors
/// [`DataError::Permanent`] for a file that is no Parquet, or differs.
pub fn parquet_schema(sources: &[Source]) -> Result<SchemaRef, DataError> {
    let mut first: Option<(SchemaRef, &Source)> = None;
    for source in sources {
        let schema = parquet(source)?.schema().clone();
        match &first {
            None => first = Some((schema, source)),
            Some((known, of)) if known.fields() != schema.fields() => {
                return Err(DataError::Permanent(format!(
                    "`{}` has other columns than `{}`; ingest them apart",
                    source.name, of.name
                )));
            }
            Some(_) => {}
        }
    }
    first.map(|(schema, _)| schema).ok_or_else(|| DataError::Permanent("there is no file to read".to_owned()))
}

/// Reads Parquet files as they are.
///
/// # Errors
/// [`DataError::Permanent`] for a damaged file.
pub fn read_parquet(sources: &[Source], outlet: &Outlet) -> Result<(), DataError> {
    for source in sources {
        let damaged =
            |error: &dyn std::fmt::Display| DataError::Permanent(format!("`{}`: {error}", source.name));
        for batch in parquet(source)?.build().map_err(|error| damaged(&error))? {
            outlet.push(batch.map_err(|error| damaged(&error))?)?;
        }
    }
    Ok(())
}

fn parquet(source: &Source) -> Result<ParquetRecordBatchReaderBuilder<File>, DataError> {
    let file = File::open(&source.path).map_err(|error| of_file(source, &error))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| {
        DataError::Permanent(format!("`{}` cannot be read as Parquet: {error}", source.name))
    })
}
