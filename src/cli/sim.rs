//! `mainspring sim`: the scheduler among faults, in simulated time, as seeds decide.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{CliError, Globals, Output, print_json, print_line};
use crate::core::ids::Timestamp;
use crate::core::timetable::Skipped;
use crate::sim::{self, History, Tally, Violation, month};

/// Arguments of `sim`.
#[derive(Args)]
pub(super) struct Sim {
    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How many seeds, from the first on
    #[arg(long, value_name = "M", default_value_t = 1)]
    seeds: u64,
    /// Print every line of one seed's history
    #[arg(long, conflicts_with = "seeds")]
    trace: bool,
    /// Replay a month of a DAG's schedule instead: a DAG's name or a file; every attempt takes a minute and succeeds
    #[arg(long, value_name = "DAG", conflicts_with_all = ["seed", "seeds", "trace"])]
    month: Option<String>,
    /// The first moment of the month, RFC 3339 or a date (UTC) [default: now]
    #[arg(long, value_name = "TIME", requires = "month")]
    from: Option<String>,
    /// Plant faults one by one and find each (not in release builds)
    #[cfg(debug_assertions)]
    #[arg(long, conflicts_with_all = ["trace", "seeds", "seed"])]
    mutants: bool,
}

pub(super) fn run(args: &Sim, globals: &Globals) -> Result<(), CliError> {
    #[cfg(debug_assertions)]
    if args.mutants {
        return hunt_all(globals.output);
    }
    if let Some(dag) = &args.month {
        return replay_month(dag, args.from.as_deref(), globals);
    }
    if args.trace {
        return trace(args.seed);
    }
    let began = Instant::now();
    let tally = campaign(args.seed, args.seeds);
    report(&tally, args, began.elapsed().as_secs_f64(), globals.output);
    for (seed, violation) in &tally.broken {
        let file = write_down(*seed, globals)?;
        eprintln!("error: seed {seed} breaks {}: {}", violation.invariant, violation.text);
        eprintln!(
            "hint: its history is in {}; `mainspring sim --seed {seed} --trace` prints it",
            file.display()
        );
    }
    if tally.broken.is_empty() { Ok(()) } else { Err(CliError::Failed) }
}

/// Runs the seeds on every core.
fn campaign(first: u64, count: u64) -> Tally {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let bar = progress(count);
    let mut sum = Tally::default();
    std::thread::scope(|scope| {
        let work = || {
            let mut tally = Tally::default();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                if place >= count {
                    return tally;
                }
                tally.run(first.wrapping_add(place));
                bar.inc(1);
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            sum.join(thread.join().expect("a broken invariant is an answer, not a panic"));
        }
    });
    bar.finish_and_clear();
    sum
}

fn progress(count: u64) -> ProgressBar {
    if count < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(count);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left");
    bar.with_style(style.expect("the template is a constant"))
}

fn report(tally: &Tally, args: &Sim, seconds: f64, output: Output) {
    let hash = format!("{:016x}", tally.trace_hash);
    match output {
        Output::Json => {
            let situations: serde_json::Map<_, _> = tally
                .seen
                .counts()
                .map(|(situation, count)| (situation.text().to_owned(), count.into()))
                .collect();
            let broken = |(seed, found): &(u64, Violation)| json!({ "seed": seed, "invariant": found.invariant, "text": found.text });
            print_json(&json!({
                "seed": args.seed,
                "seeds": tally.seeds,
                "events": tally.events,
                "simulated_seconds": tally.simulated_seconds,
                "seconds": seconds,
                "trace_hash": hash,
                "violations": tally.broken.iter().map(broken).collect::<Vec<_>>(),
                "situations": situations,
            }));
        }
        Output::Table => {
            let mut table = super::table::with_head(&["count", "situation"]);
            for (situation, count) in tally.seen.counts() {
                table.add_row([count.to_string(), situation.text().to_owned()]);
            }
            print_line(&super::table::text(&table));
            print_line(&format!(
                "{} seeds, {} events, {} simulated hours in {seconds:.1} s; trace hash {hash}; {} violations",
                tally.seeds,
                tally.events,
                tally.simulated_seconds / 3_600,
                tally.broken.len()
            ));
        }
    }
}

/// The whole history of one seed, with the scenario of the run that broke.
fn history(seed: u64) -> (String, bool) {
    let outcome = sim::run(seed, History::Written);
    let mut text = outcome.lines.join("\n");
    text.push_str(&format!("\ntrace hash {:016x}\n", outcome.trace_hash));
    if let Some(found) = &outcome.violation {
        text.push_str(&format!("\nseed {seed} breaks {}: {}\n", found.invariant, found.text));
    }
    if let Some(scenario) = &outcome.scenario {
        text.push_str(&format!("\n{scenario}"));
    }
    (text, outcome.violation.is_some())
}

fn trace(seed: u64) -> Result<(), CliError> {
    let (text, is_broken) = history(seed);
    print_line(text.trim_end());
    if is_broken { Err(CliError::Failed) } else { Ok(()) }
}

fn write_down(seed: u64, globals: &Globals) -> Result<PathBuf, CliError> {
    let folder = globals.config.home.join("sim");
    let file = folder.join(format!("seed-{seed}.txt"));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, history(seed).0));
    written.map_err(|e| CliError::Environment(format!("{} cannot be written: {e}", file.display())))?;
    Ok(file)
}

/// The length of a month here.
const MONTH: Duration = Duration::from_secs(31 * 86_400);

fn replay_month(dag: &str, from: Option<&str>, globals: &Globals) -> Result<(), CliError> {
    let file = super::dags::find(dag, globals)?;
    let from = from.map(|text| super::run::parse_time("--from", text)).transpose()?;
    let replay = month::replay(&file.dag, from.unwrap_or_else(crate::engine::now), MONTH);
    let time = |at: Option<Timestamp>| at.map_or(String::new(), |at| at.to_string());
    match globals.output {
        Output::Json => {
            let run = |run: &month::Replayed| {
                json!({
                    "run_id": run.run_id.as_str(),
                    "logical_date": run.logical_date.to_string(),
                    "queued_at": run.queued_at.to_string(),
                    "started_at": run.started_at.map(|at| at.to_string()),
                    "ended_at": run.ended_at.map(|at| at.to_string()),
                    "state": run.state.as_str(),
                    "tasks": run.instances,
                })
            };
            let skipped = |it: &Skipped| json!({ "from": it.from.to_string(), "to": it.to.to_string(), "instants": it.count, "why": it.why.as_str() });
            print_json(&json!({
                "dag_id": file.dag.id.as_str(),
                "runs": replay.runs.iter().map(run).collect::<Vec<_>>(),
                "skipped": replay.skipped.iter().map(skipped).collect::<Vec<_>>(),
            }));
        }
        Output::Table => {
            let mut table =
                super::table::with_head(&["logical date", "created", "started", "ended", "state", "tasks"]);
            for run in &replay.runs {
                table.add_row([
                    run.logical_date.to_string(),
                    run.queued_at.to_string(),
                    time(run.started_at),
                    time(run.ended_at),
                    run.state.to_string(),
                    run.instances.to_string(),
                ]);
            }
            print_line(&super::table::text(&table));
            eprintln!("{} runs of `{}`; times are simulated", replay.runs.len(), file.dag.id);
        }
    }
    Ok(())
}

/// The most seeds that one planted fault is hunted with.
#[cfg(debug_assertions)]
const HUNT_MAX: u64 = 20_000;

/// Plants every fault and finds it.
#[cfg(debug_assertions)]
fn hunt_all(output: Output) -> Result<(), CliError> {
    use crate::core::mutant::Mutant;
    std::panic::set_hook(Box::new(|_| {}));
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = std::sync::Mutex::new(std::collections::BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(&mutant) = Mutant::ALL.get(place) else { return };
                    let kill = sim::hunt(mutant, HUNT_MAX);
                    found.lock().expect("no holder panics").insert(place, (mutant, kill));
                }
            });
        }
    });
    let found = found.into_inner().expect("no holder panics");
    let survivors = found.values().filter(|(_, kill)| kill.is_none()).count();
    let mut table = super::table::with_head(&["mutant", "what is wrong", "seeds", "found by"]);
    let mut all = Vec::new();
    for (mutant, kill) in found.values() {
        let (seeds, by, text) =
            kill.as_ref().map_or((HUNT_MAX, "nothing", ""), |k| (k.seeds, k.invariant, k.text.as_str()));
        table.add_row([
            mutant.name().to_owned(),
            mutant.story().to_owned(),
            seeds.to_string(),
            by.to_owned(),
        ]);
        all.push(json!({ "mutant": mutant.name(), "story": mutant.story(), "seeds": seeds, "found_by": by, "text": text }));
    }
    match output {
        Output::Json => print_json(&json!({ "mutants": all, "survivors": survivors })),
        Output::Table => {
            print_line(&super::table::text(&table));
            print_line(&format!("{} mutants, {survivors} survived", found.len()));
        }
    }
    if survivors == 0 { Ok(()) } else { Err(CliError::Failed) }
}
