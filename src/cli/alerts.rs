//! `alerts list`, `alerts test`.

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;

use super::{CliError, Globals, Output, home, print_json, print_line, table};
use crate::alerts::{LOG_ROUTE, Message, Routes};
use crate::core::alert::{AlertKind, Problem, ProblemKey, ProblemState};
use crate::core::ids::{DagId, RunId};
use crate::engine;
use crate::store::{Delivery, LetterState, NumberedProblem, ProblemFilter};

/// How many problems `list` shows unless told.
const LIST_DEFAULT: u32 = 50;

/// List problems and try routes out
#[derive(Subcommand)]
pub(super) enum Alerts {
    /// List open problems and how their alerts were delivered
    List {
        /// Also those that are over
        #[arg(long)]
        all: bool,
        /// At most so many
        #[arg(long, default_value_t = LIST_DEFAULT)]
        limit: u32,
    },
    /// Send a test alert now and say exactly what the receiver answered
    Test {
        /// A route of the settings file
        #[arg(value_name = "ROUTE")]
        route: String,
    },
}

pub(super) async fn run(command: Alerts, globals: Globals) -> Result<(), CliError> {
    match command {
        Alerts::List { all, limit } => list(&globals, all, limit).await,
        Alerts::Test { route } => test(&globals, &route).await,
    }
}

/// Routes with their secrets, as the settings and the environment say.
pub(super) fn routes(globals: &Globals) -> Result<Routes, CliError> {
    Routes::open(&globals.config.alerts, &globals.environment).map_err(|problems| {
        CliError::User(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nerror: "))
    })
}

/// A problem as JSON shows it.
#[derive(Serialize)]
struct ProblemReport {
    problem: String,
    kind: &'static str,
    state: &'static str,
    dag_id: Option<String>,
    subject: Option<String>,
    opened_at: String,
    last_seen: String,
    resolved_at: Option<String>,
    occurrences: u64,
    last_run_id: Option<String>,
    summary: String,
    error: String,
    deliveries: Vec<DeliveryReport>,
}

/// A letter as JSON shows it.
#[derive(Serialize)]
struct DeliveryReport {
    id: String,
    route: String,
    event: String,
    state: &'static str,
    attempts: u32,
    delivered_at: Option<String>,
    next_attempt_at: Option<String>,
    last_error: Option<String>,
}

impl ProblemReport {
    fn of(problem: &Problem, deliveries: Vec<Delivery>) -> Self {
        let delivery = |d: Delivery| DeliveryReport {
            id: d.id,
            route: d.route,
            event: d.event,
            state: d.state.as_str(),
            attempts: d.attempts,
            delivered_at: d.delivered_at.map(|at| at.to_string()),
            next_attempt_at: d.next_attempt_at.map(|at| at.to_string()),
            last_error: d.last_error,
        };
        Self {
            problem: problem.key.to_string(),
            kind: problem.key.kind.as_str(),
            state: problem.state.as_str(),
            dag_id: problem.key.dag_id.as_ref().map(ToString::to_string),
            subject: problem.key.subject.as_ref().map(ToString::to_string),
            opened_at: problem.opened_at.to_string(),
            last_seen: problem.last_seen.to_string(),
            resolved_at: problem.resolved_at.map(|at| at.to_string()),
            occurrences: problem.occurrences,
            last_run_id: problem.last_run_id.as_ref().map(ToString::to_string),
            summary: problem.summary.clone(),
            error: problem.error.clone(),
            deliveries: deliveries.into_iter().map(delivery).collect(),
        }
    }

    /// What became of the letters, in few words: `oncall: open delivered, resolved waiting (refused)`.
    fn told(&self) -> String {
        let words = |d: &DeliveryReport| {
            let trouble = d.last_error.as_ref().filter(|_| d.state != LetterState::Delivered.as_str());
            let trouble = trouble.map_or_else(String::new, |error| {
                let times = if d.attempts == 1 { "once" } else { "again and again" };
                format!(" (tried {times}: {error})")
            });
            format!("{} of {} {}{trouble}", d.route, d.event, d.state)
        };
        self.deliveries.iter().map(words).collect::<Vec<_>>().join("; ")
    }
}

async fn list(globals: &Globals, all: bool, limit: u32) -> Result<(), CliError> {
    let store = home::open_reader(globals).await?;
    let filter = if all { ProblemFilter::All } else { ProblemFilter::Open };
    let mut reports = Vec::new();
    for NumberedProblem { problem_no, problem } in store.problems(filter, limit).await? {
        reports.push(ProblemReport::of(&problem, store.deliveries(problem_no).await?));
    }
    if globals.output == Output::Json {
        print_json(&reports);
        return Ok(());
    }
    if reports.is_empty() {
        print_line(if all { "there has been no problem" } else { "no problem is open" });
        return Ok(());
    }
    let mut lines = table::with_head(&["state", "problem", "since", "runs", "error", "told"]);
    for report in &reports {
        let error = report.error.lines().next().unwrap_or_default();
        lines.add_row([
            report.state,
            &report.problem,
            &report.opened_at,
            &report.occurrences.to_string(),
            error,
            &report.told(),
        ]);
    }
    print_line(&table::text(&lines));
    Ok(())
}

async fn test(globals: &Globals, route: &str) -> Result<(), CliError> {
    let routes = routes(globals)?;
    let Some(channel) = routes.find(route) else {
        let names: Vec<_> = routes.names().collect();
        return Err(CliError::User(format!(
            "there is no alert route `{route}`\nhint: there are {}; declare it as [alerts.routes.{route}] in the settings file",
            names.join(", ")
        )));
    };
    let now = engine::now();
    let id = uuid::Uuid::new_v4().simple().to_string();
    let key = ProblemKey {
        dag_id: DagId::parse("test").ok(),
        subject: Some("test".into()),
        kind: AlertKind::TaskFailed,
    };
    let problem = Problem {
        key,
        state: ProblemState::Open,
        opened_at: now,
        last_seen: now,
        occurrences: 1,
        resolved_at: None,
        last_run_id: RunId::parse("test").ok(),
        summary: "this is a test: nothing failed".to_owned(),
        error: format!("sent by `mainspring alerts test {route}`"),
    };
    let message = Message { first_id: id.clone(), id, route: route.to_owned(), problem };
    let place = channel.place();
    match channel.send(&message, now).await {
        Ok(answer) => {
            match globals.output {
                Output::Json => print_json(&json!({
                    "route": route, "place": place, "id": message.id, "state": "delivered", "answer": answer,
                })),
                Output::Table => print_line(&format!("route `{route}` to {place}: {answer}")),
            }
            Ok(())
        }
        Err(error) => Err(CliError::Environment(format!(
            "route `{route}` to {place}: {error}\nhint: alerts to this route are kept and tried again; until it works, `{LOG_ROUTE}` reaches the log"
        ))),
    }
}
