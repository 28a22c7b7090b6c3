//! SQL text before anything runs: one SELECT, the datasets it names, and its `:name` parameters.
//!
//! In a SELECT of ours a parameter is bound in the syntax tree, as a literal of its type; in a statement for a
//! warehouse it becomes `$1`, `$2`, … ([`bind_text`]). Either way its value can never become syntax, and nothing
//! inside strings, quoted names, comments or `::` casts is a parameter.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{self, Expr, Value as Literal, visit_expressions_mut};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use serde_json::{Map, Value};

use super::{DataError, hint_near};
use crate::core::ids::Timestamp;

/// What is wrong with a SQL text, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", .place.map(|(line, column)| format!("line {line}, column {column}: ")).unwrap_or_default())]
pub struct SqlProblem {
    /// Line and column of the text, from 1, if known.
    pub place: Option<(u32, u32)>,
    /// What is wrong and what was expected.
    pub message: String,
}

/// The value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Bound {
    /// No value, a truth value, a number, or text; lists and objects are refused where they are used.
    Json(Value),
    /// A moment.
    Moment(Timestamp),
}

/// One SELECT, read and not yet bound.
#[derive(Debug, Clone)]
pub struct Select(Statement);

impl Select {
    /// Reads one SELECT (`WITH`, `UNION`, `VALUES` included).
    ///
    /// # Errors
    /// A syntax error with its place, a second statement, or a statement that is not a SELECT.
    pub fn parse(sql: &str) -> Result<Self, SqlProblem> {
        let problem = |message: &str| SqlProblem { place: None, message: message.to_owned() };
        let mut statements = DFParserBuilder::new(sql)
            .with_dialect(&GenericDialect {})
            .build()
            .and_then(|mut parser| parser.parse_statements())
            .map_err(|error| syntax(&error.to_string()))?;
        let statement =
            statements.pop_front().ok_or_else(|| problem("there is no statement, expected one SELECT"))?;
        if !statements.is_empty() {
            return Err(problem("there are several statements, expected one SELECT"));
        }
        let is_query =
            matches!(&statement, Statement::Statement(inner) if matches!(**inner, ast::Statement::Query(_)));
        if is_query {
            return Ok(Self(statement));
        }
        let text = statement.to_string();
        let verb = text.split_whitespace().next().unwrap_or_default();
        Err(problem(&format!("`{verb}` is not a query, expected one SELECT")))
    }

    /// The tables it names, without those it defines itself in `WITH`.
    ///
    /// # Errors
    /// A name with more parts than a table can have.
    pub fn tables(&self) -> Result<Vec<TableReference>, SqlProblem> {
        resolve_table_references(&self.0, true)
            .map(|(tables, _)| tables)
            .map_err(|error| SqlProblem { place: None, message: error.strip_backtrace() })
    }

    /// The same with every `:name` replaced by its value.
    ///
    /// # Errors
    /// [`DataError::Permanent`] naming every parameter without a value, with the near name.
    pub fn bind(mut self, values: &BTreeMap<String, Bound>) -> Result<Statement, DataError> {
        let mut problems: Vec<String> = Vec::new();
        let ControlFlow::Continue(()) = self.visit(&mut |expression| {
            let Expr::Value(literal) = &*expression else { return };
            let Literal::Placeholder(text) = &literal.value else { return };
            let Some(name) = text.strip_prefix(':') else {
                problems.push(format!("`{text}` is no parameter, expected `:name`"));
                return;
            };
            match values.get(name).map(|value| literal_of(name, value)) {
                Some(Ok(bound)) => *expression = bound,
                Some(Err(problem)) => problems.push(problem),
                None => problems.push(no_value(name, values.keys().map(String::as_str))),
            }
        });
        problems.dedup();
        if problems.is_empty() { Ok(self.0) } else { Err(DataError::Permanent(problems.join("\n"))) }
    }

    fn visit(&mut self, change: &mut dyn FnMut(&mut Expr)) -> ControlFlow<std::convert::Infallible> {
        let Statement::Statement(inner) = &mut self.0 else { return ControlFlow::Continue(()) };
        visit_expressions_mut(inner.as_mut(), |expression| {
            change(expression);
            ControlFlow::Continue(())
        })
    }
}

/// Writes `$1`, `$2`, … for the `:name`s of a statement that a warehouse will read, and gives the values in
/// that order. A name used twice is one parameter. The rest of the text stays as it is.
///
/// # Errors
/// [`DataError::Permanent`] for names that `values` lacks, all at once, each with the near name, and for a
/// string or comment that does not end.
pub fn bind_text(
    sql: &str,
    dialect: &dyn Dialect,
    values: &Map<String, Value>,
) -> Result<(String, Vec<Value>), DataError> {
    let tokens = Tokenizer::new(dialect, sql).tokenize_with_location().map_err(|error| {
        let place = u32::try_from(error.location.line).ok().zip(u32::try_from(error.location.column).ok());
        DataError::Permanent(SqlProblem { place, message: lower_first(error.message) }.to_string())
    })?;
    let mut text = String::with_capacity(sql.len());
    let mut names: Vec<&str> = Vec::new();
    let mut done = 0;
    for (place, pair) in tokens.windows(2).enumerate() {
        let before = place.checked_sub(1).map(|place| &tokens[place]);
        let [colon, word] = pair else { continue };
        if !is_parameter(before, colon, word) {
            continue;
        }
        let (begin, name, end) =
            (byte_of(sql, colon.span.start), byte_of(sql, word.span.start), byte_of(sql, word.span.end));
        let name = &sql[name..end];
        let number = names.iter().position(|known| *known == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        text.push_str(&sql[done..begin]);
        text.push_str(&format!("${}", number + 1));
        done = end;
    }
    text.push_str(&sql[done..]);
    let missing: Vec<String> = names
        .iter()
        .filter(|name| !values.contains_key(**name))
        .map(|name| no_value(name, values.keys().map(String::as_str)))
        .collect();
    if !missing.is_empty() {
        return Err(DataError::Permanent(missing.join("\n")));
    }
    Ok((text, names.iter().map(|name| values[*name].clone()).collect()))
}

/// A colon with a bare word right behind it and no word or number right before it (`b[1:n]` is a slice).
fn is_parameter(before: Option<&TokenWithSpan>, colon: &TokenWithSpan, word: &TokenWithSpan) -> bool {
    let Token::Word(bare) = &word.token else { return false };
    let touches = before.is_some_and(|token| {
        token.span.end == colon.span.start && matches!(token.token, Token::Word(_) | Token::Number(..))
    });
    colon.token == Token::Colon && bare.quote_style.is_none() && word.span.start == colon.span.end && !touches
}

/// The byte at a line and column, which count from 1 and in characters.
fn byte_of(sql: &str, at: Location) -> usize {
    let before = usize::try_from(at.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let line = sql.match_indices('\n').map(|(byte, _)| byte + 1).nth(before.wrapping_sub(1));
    let start = if before == 0 { 0 } else { line.unwrap_or(sql.len()) };
    let column = usize::try_from(at.column.saturating_sub(1)).unwrap_or(usize::MAX);
    sql[start..].char_indices().nth(column).map_or(sql.len(), |(byte, _)| start + byte)
}

fn no_value<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    format!("the statement wants `:{name}`, which has no value{}", hint_near(name, known))
}

/// The name of a table as authors write a dataset: its parts joined by dots.
#[must_use]
pub fn dataset_text(table: &TableReference) -> String {
    match table {
        TableReference::Bare { table } => table.to_string(),
        TableReference::Partial { schema, table } => format!("{schema}.{table}"),
        TableReference::Full { catalog, schema, table } => format!("{catalog}.{schema}.{table}"),
    }
}

fn literal_of(name: &str, value: &Bound) -> Result<Expr, String> {
    let plain = |literal: Literal| Ok(Expr::Value(literal.with_empty_span()));
    match value {
        Bound::Json(Value::Null) => plain(Literal::Null),
        Bound::Json(Value::Bool(truth)) => plain(Literal::Boolean(*truth)),
        Bound::Json(Value::String(text)) => plain(Literal::SingleQuotedString(text.clone())),
        // The text comes from a number, so it is a number's.
        Bound::Json(Value::Number(number)) => ours(&format!("({number})")),
        Bound::Moment(at) => ours(&format!("arrow_cast({}, 'Timestamp(Microsecond, Some(\"UTC\"))')", at.0)),
        Bound::Json(Value::Array(_) | Value::Object(_)) => {
            Err(format!("`:{name}` is a list or an object, expected a single value"))
        }
    }
}

fn ours(text: &str) -> Result<Expr, String> {
    Parser::new(&GenericDialect {})
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_expr())
        .map_err(|error| error.to_string())
}

/// Turns `SQL error: ParserError("… at Line: 2, Column: 7")` into its place and its words.
fn syntax(text: &str) -> SqlProblem {
    let words = text.find("ParserError(\"").map_or(text, |at| &text[at + 13..]);
    let words = words.split("\")").next().unwrap_or(words).trim_start_matches("sql parser error: ");
    let place = words.rfind(" at Line: ").and_then(|at| {
        let (line, column) = words[at + 10..].split_once(", Column: ")?;
        let digits =
            |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
        Some((at, (digits(line)?, digits(column)?)))
    });
    let message = words[..place.map_or(words.len(), |(at, _)| at)].replace("\\\"", "\"").replace("\\'", "'");
    let message = lower_first(message.trim_end_matches('.').to_owned());
    SqlProblem { place: place.map(|(_, place)| place), message }
}

fn lower_first(mut message: String) -> String {
    if let Some(first) = message.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    message
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::{PostgreSqlDialect, SQLiteDialect};
    use serde_json::json;

    use super::*;

    fn bound(sql: &str) -> Result<String, String> {
        let values = BTreeMap::from([
            ("low".to_owned(), Bound::Json(json!(-1))),
            ("high".to_owned(), Bound::Json(json!("it's"))),
            ("start".to_owned(), Bound::Moment(Timestamp(0))),
        ]);
        let select = Select::parse(sql).map_err(|problem| problem.to_string())?;
        select.bind(&values).map(|statement| statement.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn only_names_outside_quotes_comments_and_casts_are_bound() {
        assert_eq!(
            bound("SELECT ':low', \":low\", a::text /* :low */ FROM t WHERE a > :low AND b < :high -- :low")
                .unwrap(),
            "SELECT ':low', \":low\", a::TEXT FROM t WHERE a > (-1) AND b < 'it''s'"
        );
        assert!(bound("SELECT :start").unwrap().contains("arrow_cast(0, "));
    }

    #[test]
    fn parameters_without_a_value_are_reported_together_with_the_near_name() {
        let error = bound("SELECT :lo, :nothing_like_it").unwrap_err();
        assert!(error.contains("did you mean `low`") && error.contains("`:nothing_like_it`"), "{error}");
        let values = json!({"high": 1, "low": 1, "start": 1});
        let text = bind_text("SELECT :lo, :nothing_like_it", &SQLiteDialect {}, values.as_object().unwrap());
        assert_eq!(text.unwrap_err().to_string(), error, "both readers say the same");
    }

    #[test]
    fn a_warehouse_gets_numbered_parameters_and_the_text_as_it_was_written() {
        let sql = "SELECT ':no', \":no\", a::text, 'it''s :no', 'ü' -- :no\n FROM t /* :no\n */ \
                   WHERE a > :low AND b[1:2] < :high AND c[d:e] = :end AND $q$ :no $q$ <> :low";
        let values = json!({"low": 1, "high": "x", "end": 2, "unused": null});
        let (text, bound) = bind_text(sql, &PostgreSqlDialect {}, values.as_object().unwrap()).unwrap();
        assert_eq!(
            text,
            "SELECT ':no', \":no\", a::text, 'it''s :no', 'ü' -- :no\n FROM t /* :no\n */ \
             WHERE a > $1 AND b[1:2] < $2 AND c[d:e] = $3 AND $q$ :no $q$ <> $1"
        );
        assert_eq!(bound, [json!(1), json!("x"), json!(2)]);
        let open = bind_text("SELECT\n 'x", &SQLiteDialect {}, &Map::new()).unwrap_err().to_string();
        assert_eq!(open, "line 2, column 2: unterminated string literal");
    }

    #[test]
    fn a_syntax_error_names_its_place() {
        let problem = Select::parse("SELECT (a\nFROM x").unwrap_err();
        assert_eq!(problem.place.map(|(line, _)| line), Some(2), "{problem}");
        for (sql, words) in [
            ("DELETE FROM t", "`DELETE` is not a query"),
            ("SELECT 1; SELECT 2", "several statements"),
            ("", "no statement"),
            ("COPY t TO 'x.csv'", "`COPY` is not a query"),
        ] {
            let problem = Select::parse(sql).unwrap_err().to_string();
            assert!(problem.contains(words), "{sql}: {problem}");
        }
    }

    #[test]
    fn tables_are_those_not_defined_by_the_statement_itself() {
        let select =
            Select::parse("WITH x AS (SELECT * FROM raw.orders) SELECT * FROM x JOIN b USING (k)").unwrap();
        let names: Vec<_> = select.tables().unwrap().iter().map(dataset_text).collect();
        assert_eq!(names, ["b", "raw.orders"]);
    }
}
