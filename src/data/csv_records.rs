//! CSV: fields between delimiters, quoted as RFC 4180 has it, with a header line or declared names.
//!
//! A record with too few or too many fields, one that is not UTF-8, and a field that is no value of its
//! column make that record bad, not the file.

use std::io::Read;

use csv::{ByteRecord, Reader, ReaderBuilder};

use super::cells::Cell;
use super::columns::Guess;
use super::files::{Declared, GUESS_BYTES_MAX, Source, of_file, open};
use super::intake::{Column, Fault, Intake, Place, RECORD_BYTES_MAX};
use super::{DataError, hint_near};

/// How a CSV file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// Between fields.
    pub delimiter: u8,
    /// Whether the first line names the columns.
    pub header: Header,
    /// Fields that mean null.
    pub null_values: Vec<String>,
}

/// Where the names of columns come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// The first line.
    FirstLine,
    /// The author; the first line is a record.
    Names(Vec<String>),
}

/// The columns of the files: their names from the first file, in its order, types declared or guessed.
pub(crate) fn columns(
    sources: &[Source],
    dialect: &Dialect,
    declared: &Declared,
) -> Result<Vec<Column>, DataError> {
    let mut names: Vec<String> = Vec::new();
    let mut guesses: Vec<Guess> = Vec::new();
    for source in sources {
        let mut reader = reader(open(source)?.take(GUESS_BYTES_MAX), dialect);
        let (here, first) = names_of(source, dialect, &mut reader)?;
        if names.is_empty() {
            guesses = vec![Guess::default(); here.len()];
            names.clone_from(&here);
        }
        let places = places(source, &here, &names)?;
        if declared.is_empty() {
            let mut look = |record: &ByteRecord| {
                if record.len() == here.len() {
                    guesses
                        .iter_mut()
                        .zip(&places)
                        .for_each(|(guess, &place)| see(guess, &record[place], dialect));
                }
            };
            look_through(source, &mut reader, first, &mut look)?;
        }
    }
    if declared.is_empty() {
        let typed = names.into_iter().zip(guesses);
        return Ok(typed.map(|(name, guess)| Column { name, column_type: guess.column_type() }).collect());
    }
    let missing: Vec<String> = declared
        .keys()
        .filter(|name| !names.contains(name))
        .map(|name| {
            format!(
                "`schema` names the column `{name}`, which the file does not have{}",
                hint_near(name, names.iter().map(String::as_str))
            )
        })
        .collect();
    if !missing.is_empty() {
        return Err(DataError::Permanent(missing.join("\n")));
    }
    let typed =
        names.into_iter().filter_map(|name| declared.get(&name).map(|t| Column { name, column_type: *t }));
    Ok(typed.collect())
}

/// Reads a file into `intake`; columns that are not asked for are left out.
pub(crate) fn read(
    source: &Source,
    dialect: &Dialect,
    columns: &[Column],
    intake: &mut Intake<'_>,
) -> Result<(), DataError> {
    let mut reader = reader(open(source)?, dialect);
    let (names, first) = names_of(source, dialect, &mut reader)?;
    let wanted: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let places = places(source, &names, &wanted)?;
    let mut record = first.unwrap_or_default();
    let mut is_first = matches!(dialect.header, Header::Names(_));
    loop {
        if !is_first && !next(source, &mut reader, &mut record)? {
            return Ok(());
        }
        is_first = false;
        let line = record.position().map_or(0, csv::Position::line);
        let row = row(&record, dialect, names.len(), columns, &places);
        intake.take(Place { source: &source.name, line }, row, || raw(&record, dialect))?;
        if intake.is_hopeless() {
            return Ok(());
        }
    }
}

fn reader<R: Read>(bytes: R, dialect: &Dialect) -> Reader<R> {
    ReaderBuilder::new().delimiter(dialect.delimiter).has_headers(false).flexible(true).from_reader(bytes)
}

fn next<R: Read>(
    source: &Source,
    reader: &mut Reader<R>,
    record: &mut ByteRecord,
) -> Result<bool, DataError> {
    reader.read_byte_record(record).map_err(|error| of_file(source, &error.into()))
}

/// The names of the columns, and the first record if it was read to count them.
fn names_of<R: Read>(
    source: &Source,
    dialect: &Dialect,
    reader: &mut Reader<R>,
) -> Result<(Vec<String>, Option<ByteRecord>), DataError> {
    let refuse = |why: String| Err(DataError::Permanent(format!("{}:1: {why}", source.name)));
    let mut first = ByteRecord::new();
    if !next(source, reader, &mut first)? {
        return refuse("there is no line, expected a header".to_owned());
    }
    if let Header::Names(names) = &dialect.header {
        let names = if names.is_empty() {
            (1..=first.len()).map(|i| format!("column_{i}")).collect()
        } else {
            names.clone()
        };
        return Ok((names, Some(first)));
    }
    let mut names: Vec<String> = Vec::with_capacity(first.len());
    for (place, field) in first.iter().enumerate() {
        let Ok(name) = str::from_utf8(field) else {
            return refuse(format!("the name of column {} is not UTF-8", place + 1));
        };
        let name = name.trim_start_matches('\u{feff}').trim().to_owned();
        if name.is_empty() {
            return refuse(format!(
                "column {} has no name\nhint: a file without a header needs `header: false`",
                place + 1
            ));
        }
        if names.contains(&name) {
            return refuse(format!("the column `{name}` occurs twice"));
        }
        names.push(name);
    }
    Ok((names, None))
}

/// Where each of `wanted` is among `names`.
fn places(source: &Source, names: &[String], wanted: &[String]) -> Result<Vec<usize>, DataError> {
    wanted
        .iter()
        .map(|name| {
            names.iter().position(|known| known == name).ok_or_else(|| {
                let hint = hint_near(name, names.iter().map(String::as_str));
                DataError::Permanent(format!("{}:1: the column `{name}` is missing{hint}", source.name))
            })
        })
        .collect()
}

/// Shows `look` the records of the part of the file that is looked at.
fn look_through<R: Read>(
    source: &Source,
    reader: &mut Reader<R>,
    first: Option<ByteRecord>,
    look: &mut dyn FnMut(&ByteRecord),
) -> Result<(), DataError> {
    // One record is held back: the last may be cut in the middle where the look ends.
    let (mut held, mut record) = (first.unwrap_or_default(), ByteRecord::new());
    while next(source, reader, &mut record)? {
        look(&held);
        std::mem::swap(&mut held, &mut record);
    }
    if reader.position().byte() < GUESS_BYTES_MAX {
        look(&held);
    }
    Ok(())
}

fn see(guess: &mut Guess, field: &[u8], dialect: &Dialect) {
    match str::from_utf8(field) {
        Ok(text) if !is_null(text, dialect) => guess.see_text(text),
        Ok(_) | Err(_) => {}
    }
}

fn is_null(text: &str, dialect: &Dialect) -> bool {
    dialect.null_values.iter().any(|null| null == text)
}

fn row(
    record: &ByteRecord,
    dialect: &Dialect,
    width: usize,
    columns: &[Column],
    places: &[usize],
) -> Result<Vec<Cell>, Fault> {
    let bytes = record.as_slice().len();
    if bytes > RECORD_BYTES_MAX {
        let message =
            format!("the record has {bytes} bytes, expected at most {RECORD_BYTES_MAX}; is a quote open?");
        return Err(Fault { class: "oversize", message });
    }
    if record.len() != width {
        let message = format!("the record has {} fields, expected {width}", record.len());
        return Err(Fault { class: "ragged", message });
    }
    columns
        .iter()
        .zip(places)
        .map(|(column, &place)| {
            let Ok(text) = str::from_utf8(&record[place]) else {
                let message = format!("column `{}` is not UTF-8", column.name);
                return Err(Fault { class: "encoding", message });
            };
            if is_null(text, dialect) {
                return Ok(Cell::Null);
            }
            column.column_type.read_text(text).ok_or_else(|| Fault {
                class: "type",
                message: format!("column `{}`: `{}` is no {}", column.name, short(text), column.column_type),
            })
        })
        .collect()
}

fn short(text: &str) -> String {
    if text.chars().count() <= 80 {
        text.to_owned()
    } else {
        format!("{}…", text.chars().take(80).collect::<String>())
    }
}

fn raw(record: &ByteRecord, dialect: &Dialect) -> String {
    let fields: Vec<_> = record.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect();
    fields.join(&char::from(dialect.delimiter).to_string())
}
