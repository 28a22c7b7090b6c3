//! Reading from Postgres: its binary values to cells, cells to parameters of the types it wants.

use datafusion::execution::SendableRecordBatchStream;
use futures_util::TryStreamExt;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgPool, PgRow, PgTypeInfo, PgTypeKind, PgValueRef};
use sqlx::query::Query;
use sqlx::{
    Arguments, AssertSqlSafe, Column, Either, Encode, Executor, Postgres, Row, SqlSafeStr, Statement, Type,
    TypeInfo, ValueRef,
};

use super::super::DataError;
use super::super::cells::{Cell, CellKind};
use super::copy::{Gathered, Header, stream_of};
use super::explain;

/// Postgres counts time from 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i32 = 10_957;

/// Binds whole numbers, texts and nulls as they are.
pub(super) fn bound<'q>(
    query: Query<'q, Postgres, PgArguments>,
    values: &[Cell],
) -> Query<'q, Postgres, PgArguments> {
    values.iter().fold(query, |query, value| {
        if let Cell::Int(i) = value { query.bind(*i) } else { query.bind(value.to_text()) }
    })
}

/// See [`super::Warehouse::change`].
pub(super) async fn change(pool: &PgPool, sql: String, values: &[Cell]) -> sqlx::Result<Option<u64>> {
    let mut connection = pool.acquire().await?;
    let statement = connection.prepare(AssertSqlSafe(sql).into_sql_str()).await?;
    if !statement.columns().is_empty() {
        return Ok(None);
    }
    let arguments = arguments(statement.parameters(), values)?;
    let done = statement.query_with(arguments).execute(&mut *connection).await?;
    Ok(Some(done.rows_affected()))
}

/// See [`super::Warehouse::read`].
pub(super) async fn read(
    name: &str,
    pool: PgPool,
    sql: String,
    values: Vec<Cell>,
) -> Result<SendableRecordBatchStream, DataError> {
    let name = name.to_owned();
    stream_of(|mut gathered| async move {
        let ended = gather(&mut gathered, &name, &pool, sql, &values).await;
        gathered.end(ended).await;
    })
    .await
}

async fn gather(
    gathered: &mut Gathered,
    name: &str,
    pool: &PgPool,
    sql: String,
    values: &[Cell],
) -> Result<(), DataError> {
    let explain = |e| explain(name, e);
    let mut connection = pool.acquire().await.map_err(explain)?;
    let statement = connection.prepare(AssertSqlSafe(sql).into_sql_str()).await.map_err(explain)?;
    let mut types = Vec::new();
    let mut headers = Vec::new();
    for column in statement.columns() {
        let plain = plain_type(column.type_info()).to_owned();
        let kind = kind_of(&plain).ok_or_else(|| {
            DataError::Permanent(format!(
                "connection `{name}`: column `{}` is of type {plain}, which has no counterpart\n\
                 hint: cast it in the query, for instance to text",
                column.name()
            ))
        })?;
        headers.push(Header { name: column.name().to_owned(), declared: Some(kind) });
        types.push(plain);
    }
    gathered.headers(headers);
    let arguments = arguments(statement.parameters(), values).map_err(explain)?;
    let mut rows = statement.query_with(arguments).fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.map_err(explain)? {
        gathered.row(cells(&row, &types).map_err(explain)?).await?;
    }
    Ok(())
}

fn cells(row: &PgRow, types: &[String]) -> sqlx::Result<Vec<Cell>> {
    types
        .iter()
        .enumerate()
        .map(|(at, plain)| {
            let value = row.try_get_raw(at)?;
            cell(plain, &value).map_err(|source| sqlx::Error::ColumnDecode {
                index: row.column(at).name().to_owned(),
                source,
            })
        })
        .collect()
}

/// The name of a type without domains; enums read as text.
fn plain_type(info: &PgTypeInfo) -> &str {
    match info.kind() {
        PgTypeKind::Domain(inner) => plain_type(inner),
        PgTypeKind::Enum(_) => "TEXT",
        PgTypeKind::Simple
        | PgTypeKind::Pseudo
        | PgTypeKind::Composite(_)
        | PgTypeKind::Array(_)
        | PgTypeKind::Range(_) => info.name(),
    }
}

fn kind_of(plain: &str) -> Option<CellKind> {
    Some(match plain {
        "BOOL" => CellKind::Bool,
        "INT2" => CellKind::Int16,
        "INT4" => CellKind::Int32,
        "INT8" | "OID" => CellKind::Int64,
        "FLOAT4" => CellKind::Float32,
        "FLOAT8" => CellKind::Float64,
        "NUMERIC" => CellKind::Decimal(0),
        "TEXT" | "VARCHAR" | "CHAR" | "BPCHAR" | "NAME" | "UNKNOWN" | "JSON" | "JSONB" | "UUID"
        | "citext" => CellKind::Text,
        "BYTEA" => CellKind::Bytes,
        "DATE" => CellKind::Date,
        "TIMESTAMPTZ" => CellKind::TimeUtc,
        "TIMESTAMP" => CellKind::TimeLocal,
        _ => return None,
    })
}

fn cell(plain: &str, value: &PgValueRef<'_>) -> Result<Cell, BoxDynError> {
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let bytes = value.as_bytes()?;
    Ok(match plain {
        "BOOL" => Cell::Bool(bytes == [1]),
        "INT2" => Cell::Int(i16::from_be_bytes(bytes.try_into()?).into()),
        "INT4" => Cell::Int(i32::from_be_bytes(bytes.try_into()?).into()),
        "INT8" => Cell::Int(i64::from_be_bytes(bytes.try_into()?)),
        "OID" => Cell::Int(u32::from_be_bytes(bytes.try_into()?).into()),
        "FLOAT4" => Cell::Float(f32::from_be_bytes(bytes.try_into()?).into()),
        "FLOAT8" => Cell::Float(f64::from_be_bytes(bytes.try_into()?)),
        "NUMERIC" => numeric(bytes)?,
        "JSONB" => Cell::Text(str::from_utf8(bytes.get(1..).unwrap_or_default())?.to_owned()),
        "UUID" => Cell::Text(uuid::Uuid::from_slice(bytes)?.to_string()),
        "BYTEA" => Cell::Bytes(bytes.to_vec()),
        "DATE" => {
            let days = i32::from_be_bytes(bytes.try_into()?);
            Cell::Date(days.checked_add(EPOCH_DAYS).ok_or("an infinite date has no counterpart")?)
        }
        "TIMESTAMPTZ" | "TIMESTAMP" => {
            let micros = i64::from_be_bytes(bytes.try_into()?);
            let micros = match micros {
                i64::MIN | i64::MAX => return Err("an infinite time has no counterpart".into()),
                finite => finite.checked_add(EPOCH_MICROS).ok_or("the time is too far away")?,
            };
            Cell::Time { micros, utc: plain == "TIMESTAMPTZ" }
        }
        _ => Cell::Text(str::from_utf8(bytes)?.to_owned()),
    })
}

/// Binary numeric: count of base-10,000 digits, weight of the first, sign, digits after the point, digits.
fn numeric(bytes: &[u8]) -> Result<Cell, BoxDynError> {
    let words: Vec<i16> = bytes.chunks_exact(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
    let [_, weight, sign, scale, digits @ ..] = words.as_slice() else {
        return Err("a numeric value is cut short".into());
    };
    if !matches!(*sign, 0 | 0x4000) {
        return Err("NaN and infinities have no counterpart among decimals, cast to double precision".into());
    }
    let scale = u8::try_from(*scale).map_err(|_| "a numeric value has too many digits after the point")?;
    let too_long = "a numeric value has more than 38 digits, cast to double precision";
    let mut units: i128 = 0;
    // Base-10,000 digits down to the one that holds the last digit after the point.
    let last = -i32::from(scale.div_ceil(4));
    for power in (last..=i32::from(*weight).max(-1)).rev() {
        let at = usize::try_from(i32::from(*weight) - power).ok();
        let digit = at.and_then(|at| digits.get(at)).copied().unwrap_or(0);
        units = units.checked_mul(10_000).and_then(|u| u.checked_add(digit.into())).ok_or(too_long)?;
    }
    let spare = u32::from(scale.div_ceil(4) * 4 - scale);
    units /= 10_i128.pow(spare);
    Ok(Cell::Decimal { units: if *sign == 0 { units } else { -units }, scale })
}

/// A parameter in the binary form of the type that Postgres wants.
struct Parameter {
    wanted: PgTypeInfo,
    bytes: Option<Vec<u8>>,
}

impl Type<Postgres> for Parameter {
    fn type_info() -> PgTypeInfo {
        <String as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for Parameter {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(match &self.bytes {
            Some(bytes) => {
                buffer.extend_from_slice(bytes);
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.wanted.clone())
    }
}

fn arguments(wanted: Option<Either<&[PgTypeInfo], usize>>, values: &[Cell]) -> sqlx::Result<PgArguments> {
    let Some(Either::Left(wanted)) = wanted else {
        return Ok(PgArguments::default());
    };
    let mut arguments = PgArguments::default();
    for (wanted, value) in wanted.iter().zip(values) {
        let wrong = || {
            let got = value.to_text().unwrap_or_default();
            sqlx::Error::InvalidArgument(format!("the statement wants a value of type {wanted}, got `{got}`"))
        };
        let present = *value != Cell::Null;
        let bytes =
            if present { Some(parameter(plain_type(wanted), value).ok_or_else(wrong)?) } else { None };
        arguments.add(Parameter { wanted: wanted.clone(), bytes }).map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

fn parameter(wanted: &str, value: &Cell) -> Option<Vec<u8>> {
    let text = value.to_text()?;
    Some(match wanted {
        "BOOL" => vec![u8::from(text.parse::<bool>().ok()?)],
        "INT2" => text.parse::<i16>().ok()?.to_be_bytes().to_vec(),
        "INT4" => text.parse::<i32>().ok()?.to_be_bytes().to_vec(),
        "INT8" => text.parse::<i64>().ok()?.to_be_bytes().to_vec(),
        "FLOAT4" => text.parse::<f32>().ok()?.to_be_bytes().to_vec(),
        "FLOAT8" => text.parse::<f64>().ok()?.to_be_bytes().to_vec(),
        "NUMERIC" => numeric_parameter(&text)?,
        "UUID" => uuid::Uuid::parse_str(&text).ok()?.as_bytes().to_vec(),
        "DATE" => (value.as_date()? - EPOCH_DAYS).to_be_bytes().to_vec(),
        "TIMESTAMPTZ" | "TIMESTAMP" => (value.as_micros()? - EPOCH_MICROS).to_be_bytes().to_vec(),
        "TEXT" | "VARCHAR" | "CHAR" | "BPCHAR" | "NAME" | "UNKNOWN" | "JSON" | "citext" => text.into_bytes(),
        "JSONB" => [&[1], text.as_bytes()].concat(),
        _ => return None,
    })
}

fn numeric_parameter(text: &str) -> Option<Vec<u8>> {
    let (sign, unsigned) = text.strip_prefix('-').map_or((0_i16, text), |rest| (0x4000, rest));
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if whole.len() + fraction.len() == 0 || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let front = whole.len().next_multiple_of(4);
    let digits = format!("{whole:0>front$}{fraction:0<width$}", width = fraction.len().next_multiple_of(4));
    let digits: Vec<i16> =
        digits.as_bytes().chunks(4).filter_map(|four| str::from_utf8(four).ok()?.parse().ok()).collect();
    let weight = i16::try_from(front / 4).ok()? - 1;
    let head = [i16::try_from(digits.len()).ok()?, weight, sign, i16::try_from(fraction.len()).ok()?];
    Some(head.iter().chain(&digits).flat_map(|word| word.to_be_bytes()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numeric_reads_back_as_it_was_written() {
        for text in
            ["0", "1", "-1", "10000", "123456789.0123", "-0.05", "0.00001", "99999999.5", "1000000000000"]
        {
            let cell = numeric(&numeric_parameter(text).unwrap()).unwrap();
            assert_eq!(cell.to_text().unwrap(), text);
        }
        assert_eq!(numeric_parameter("1e5"), None);
    }
}
