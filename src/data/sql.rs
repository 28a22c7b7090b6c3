//! SQL text before anything runs: one SELECT, the datasets it names, and its `:name` parameters.
//!
//! A parameter is bound in the syntax tree, as a literal of its type, so that its value can never become
//! syntax. Nothing inside strings, quoted names, comments or `::` casts is a parameter.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::common::TableReference;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{self, Expr, Value as Literal, visit_expressions_mut};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use serde_json::Value;

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
                None => {
                    let hint = hint_near(name, values.keys().map(String::as_str));
                    problems.push(format!("the statement wants `:{name}`, which has no value{hint}"));
                }
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
    let mut message = message.trim_end_matches('.').to_owned();
    if let Some(first) = message.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    SqlProblem { place: place.map(|(_, place)| place), message }
}

#[cfg(test)]
mod tests {
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
