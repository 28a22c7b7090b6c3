//! The simulator: seeds that must hold, situations that must have occurred, and histories that repeat.

use mainspring::sim::{History, Tally, run};

/// Seeds of every submission.
const SEEDS: u64 = 20_000;
/// One in so many is run twice.
const REPEATED: u64 = 200;

#[test]
fn whatever_breaks_the_invariants_hold_and_every_situation_occurs() {
    let halves = [0..SEEDS / 2, SEEDS / 2..SEEDS];
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let threads = halves.map(|half| {
            scope.spawn(|| {
                let mut tally = Tally::default();
                half.for_each(|seed| tally.run(seed));
                tally
            })
        });
        for thread in threads {
            tally.join(thread.join().expect("a broken invariant is an answer, not a panic"));
        }
    });
    println!(
        "{} seeds, {} events, {} simulated seconds, trace hash {:016x}",
        tally.seeds, tally.events, tally.simulated_seconds, tally.trace_hash
    );
    if let Some((seed, found)) = tally.broken.first() {
        let outcome = run(*seed, History::Written);
        let scenario = outcome.scenario.unwrap_or_default();
        panic!(
            "{} of {SEEDS} seeds break an invariant; seed {seed} breaks {}: {}\n{}\n{scenario}",
            tally.broken.len(),
            found.invariant,
            found.text,
            outcome.lines.join("\n")
        );
    }
    let missing: Vec<_> =
        tally.seen.counts().filter(|(_, count)| *count == 0).map(|(it, _)| it.text()).collect();
    assert!(missing.is_empty(), "these situations never occurred: {missing:#?}");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in (0..SEEDS).step_by(REPEATED as usize) {
        let (first, second) = (run(seed, History::Hashed), run(seed, History::Written));
        assert_eq!((first.trace_hash, first.events), (second.trace_hash, second.events), "seed {seed}");
    }
}

/// Seeds that one planted fault may take to be found.
#[cfg(debug_assertions)]
const HUNT_MAX: u64 = 5_000;

/// Faults that trusted schedulers once shipped, planted one at a time: a simulator that overlooks one proves
/// nothing.
#[cfg(debug_assertions)]
#[test]
fn every_planted_fault_is_found() {
    use mainspring::core::mutant::Mutant;
    let mut survivors = Vec::new();
    for &mutant in Mutant::ALL {
        match mainspring::sim::hunt(mutant, HUNT_MAX) {
            Some(kill) => println!("{}: {} after {} seeds", mutant.name(), kill.invariant, kill.seeds),
            None => survivors.push(format!("{}: {}", mutant.name(), mutant.story())),
        }
    }
    assert!(Mutant::ALL.len() >= 20, "only {} faults are planted", Mutant::ALL.len());
    assert!(survivors.is_empty(), "planted and not found: {survivors:#?}");
}
