//! `:name` in SQL text: finds the bound parameters, and nothing in strings, comments or casts.

use serde_json::{Map, Value};

use super::DataError;
use super::connections::near_name;

/// A piece of SQL text.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// Writes `$1`, `$2`, … for the `:name`s of `sql`, and gives the values in that order. A name used twice
/// is one parameter.
///
/// # Errors
/// [`DataError::Permanent`] for names that `values` lacks, all at once, each with the near name.
pub fn bind(sql: &str, values: &Map<String, Value>) -> Result<(String, Vec<Value>), DataError> {
    let mut text = String::with_capacity(sql.len());
    let mut names: Vec<&str> = Vec::new();
    for piece in pieces(sql) {
        match piece {
            Piece::Text(part) => text.push_str(part),
            Piece::Name(name) => {
                let place = names.iter().position(|known| *known == name).unwrap_or_else(|| {
                    names.push(name);
                    names.len() - 1
                });
                text.push_str(&format!("${}", place + 1));
            }
        }
    }
    let missing: Vec<String> = names
        .iter()
        .filter(|name| !values.contains_key(**name))
        .map(|name| match near_name(name, values.keys().map(String::as_str)) {
            Some(near) => {
                format!("the statement wants `:{name}`, which has no value\nhint: did you mean `:{near}`?")
            }
            None => format!("the statement wants `:{name}`, which has no value"),
        })
        .collect();
    if !missing.is_empty() {
        return Err(DataError::Permanent(missing.join("\n")));
    }
    Ok((text, names.iter().map(|name| values[*name].clone()).collect()))
}

fn pieces(sql: &str) -> Vec<Piece<'_>> {
    let bytes = sql.as_bytes();
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < bytes.len() {
        let skipped = skip_quoted(sql, at);
        if skipped > at {
            at = skipped;
            continue;
        }
        let is_name = bytes[at] == b':'
            && bytes.get(at + 1).is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
            && (at == 0 || !(bytes[at - 1] == b':' || bytes[at - 1].is_ascii_alphanumeric()));
        if is_name {
            let end = at
                + 1
                + bytes[at + 1..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
            pieces.push(Piece::Text(&sql[start..at]));
            pieces.push(Piece::Name(&sql[at + 1..end]));
            (start, at) = (end, end);
        } else {
            at += 1;
        }
    }
    pieces.push(Piece::Text(&sql[start..]));
    pieces
}

/// The place after the string, quoted name, comment or dollar-quoted text that begins at `at`; `at` if
/// none does.
fn skip_quoted(sql: &str, at: usize) -> usize {
    let bytes = sql.as_bytes();
    if !matches!(bytes[at], b'\'' | b'"' | b'-' | b'/' | b'$') {
        return at;
    }
    let rest = &sql[at..];
    let after = |opened: usize, close: &str| {
        rest[opened..].find(close).map_or(bytes.len(), |found| at + opened + found + close.len())
    };
    match bytes[at] {
        b'\'' => after(1, "'"),
        b'"' => after(1, "\""),
        b'-' if rest.starts_with("--") => after(2, "\n"),
        b'/' if rest.starts_with("/*") => after(2, "*/"),
        b'$' => match rest[1..].find('$') {
            Some(len) if rest[1..=len].bytes().all(|b| b.is_ascii_alphabetic() || b == b'_') => {
                after(len + 2, &rest[..len + 2])
            }
            _ => at,
        },
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_outside_quotes_comments_and_casts_are_bound() {
        let sql = "SELECT ':no', \":no\", a::text, 'it''s :no' -- :no\n FROM t /* :no */ \
                   WHERE a > :low AND b[1:2] < :high AND $q$ :no $q$ <> :low";
        let values = serde_json::json!({"low": 1, "high": "x", "unused": null});
        let (text, bound) = bind(sql, values.as_object().unwrap()).unwrap();
        assert_eq!(
            text,
            "SELECT ':no', \":no\", a::text, 'it''s :no' -- :no\n FROM t /* :no */ \
             WHERE a > $1 AND b[1:2] < $2 AND $q$ :no $q$ <> $1"
        );
        assert_eq!(bound, [serde_json::json!(1), serde_json::json!("x")]);
    }

    #[test]
    fn names_without_a_value_are_reported_together() {
        let values = serde_json::json!({"start_date": 1});
        let error = bind(":start_dat :zzz", values.as_object().unwrap()).unwrap_err().to_string();
        assert!(error.contains("did you mean `:start_date`?") && error.contains("`:zzz`"), "{error}");
    }
}
