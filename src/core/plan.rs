//! What follows once the inputs are taken: time, the start and the end of the run, trigger rules and mapping.

use std::sync::Arc;

use super::admit::waits_for_past;
use super::alert::Recovery;
use super::dag::{Expand, MAPPED_MAX, TaskIx};
use super::mutant::{self, Mutant};
use super::reason::Reason;
use super::rule::{self, Verdict};
use super::run::{Alert, AlertKind, Instances, TiRef, UNMAPPED};
use super::state::{RunInput, RunState, TaskInput, TaskState};
use super::step::Step;

/// What is known of the list a task is mapped over.
enum List {
    /// Its source is at work.
    Open,
    Known(u32),
    /// There will be none: what becomes of the instances, and why.
    Never(TaskInput, Reason),
}

impl Step<'_> {
    pub(super) fn plan(&mut self) {
        if self.run.state.is_final() {
            return;
        }
        if self.has_timed_out() {
            self.end_all(TaskInput::Ended, &Reason::RunTimedOut, |_| true);
            return self.end_run(RunInput::Failed, Reason::RunTimedOut);
        }
        self.release_due();
        self.start_run();
        if self.run.state != RunState::Running {
            return;
        }
        self.judge_all();
        self.fail_fast();
        if self.run.index.unfinished == 0 {
            return self.decide_run();
        }
        self.claim_queued();
        self.admit();
        self.claim_queued();
        self.give_way();
    }

    fn has_timed_out(&self) -> bool {
        let limits = self.run.started_at.zip(self.dag.settings.dagrun_timeout);
        self.run.state == RunState::Running
            && limits.is_some_and(|(start, limit)| start.plus(limit) <= self.now)
    }

    fn release_due(&mut self) {
        while let Some(&(at, ti)) = self.run.index.timers.first()
            && at <= self.now
            && !mutant::is(Mutant::RetryIsForgotten)
        {
            self.shift(ti, TaskInput::Due, Reason::Due, |_| {});
        }
    }

    fn start_run(&mut self) {
        let has_room = self.room.other_active_runs < self.room.runs_max(self.dag);
        if self.run.state == RunState::Queued && has_room && !self.room.earlier_waits && !self.room.paused {
            self.shift_run(RunInput::Started, Reason::Started);
            self.unjudged.extend(0..self.dag.tasks().len());
        }
    }

    /// Goes back behind an earlier run that is queued, if all that this one could do is to wait for it: nothing is at
    /// work, no time will come, and a task waits for the run before. Or else it would hold the place that the
    /// earlier one, cleared, needs, and both would wait for ever.
    fn give_way(&mut self) {
        let rests = self.run.index.holding == 0 && self.run.index.timers.is_empty();
        let asked = self.room.earlier_waits && !self.room.paused && !mutant::is(Mutant::WaiterKeepsPlace);
        if rests && asked && waits_for_past(self.dag, self.run, self.room) {
            self.shift_run(RunInput::GaveWay, Reason::GaveWay);
        }
    }

    /// Verdicts, in topological order, until none is left to give.
    fn judge_all(&mut self) {
        while let Some(place) = self.unjudged.pop_first() {
            let task = self.dag.topological()[place];
            if self.waits(task) {
                self.judge(task);
            }
        }
    }

    /// Whether some instance of `task` is `none`.
    fn waits(&self, task: TaskIx) -> bool {
        match &self.run.tasks[task] {
            Instances::One(one) | Instances::Unexpanded(one) => one.state == TaskState::None,
            Instances::Mapped(_) => self.first_waiting(task).is_some(),
        }
    }

    fn first_waiting(&self, task: TaskIx) -> Option<TiRef> {
        let first = TiRef { task, map_index: 0 };
        self.run.index.none_mapped.range(first..).next().copied().filter(|ti| ti.task == task)
    }

    fn judge(&mut self, task: TaskIx) {
        let verdict = rule::judge(self.dag, self.run, task);
        match verdict {
            Verdict::Wait => {}
            Verdict::Run if self.dag.task(task).expand.is_some() => self.map(task),
            Verdict::Run => self.shift_waiting(task, TaskInput::Ready, &Reason::Ready),
            Verdict::Skip => {
                let reason = rule::reason(self.dag, self.run, task, verdict);
                self.shift_waiting(task, TaskInput::Skipped, &reason);
            }
            Verdict::UpstreamFailed => {
                let reason = rule::reason(self.dag, self.run, task, verdict);
                self.shift_waiting(task, TaskInput::UpstreamFailed, &reason);
            }
        }
    }

    /// Moves every instance of `task` that is `none`.
    fn shift_waiting(&mut self, task: TaskIx, input: TaskInput, reason: &Reason) {
        if !matches!(self.run.tasks[task], Instances::Mapped(_)) {
            return self.shift(TiRef { task, map_index: UNMAPPED }, input, reason.clone(), |_| {});
        }
        while let Some(ti) = self.first_waiting(task) {
            self.shift(ti, input, reason.clone(), |_| {});
        }
    }

    /// The rule of a mapped task is satisfied: as soon as its list is known its instances are those of the
    /// list. Instances beyond a list that has become shorter are removed, unless they are final already.
    fn map(&mut self, task: TaskIx) {
        let length = match self.list(task) {
            List::Open => return,
            List::Never(input, reason) => {
                if input == TaskInput::Failed {
                    let ti = TiRef { task, map_index: UNMAPPED };
                    self.alert_task(AlertKind::TaskFailed, ti, reason.to_string().into());
                }
                return self.shift_waiting(task, input, &reason);
            }
            List::Known(length) => length,
        };
        let there = match &self.run.tasks[task] {
            Instances::One(_) | Instances::Unexpanded(_) => 0,
            Instances::Mapped(all) => {
                u32::try_from(all.len()).expect("a list has at most MAPPED_MAX elements")
            }
        };
        if there < length {
            self.expand(task, there..length);
        }
        while let Some(ti) = self.first_waiting(task) {
            if ti.map_index.cast_unsigned() < length {
                self.shift(ti, TaskInput::Ready, Reason::Ready, |_| {});
            } else {
                self.shift(ti, TaskInput::Shrunk, Reason::Expansion { length }, |_| {});
            }
        }
    }

    fn list(&self, task: TaskIx) -> List {
        let length = match self.dag.task(task).expand.as_ref().expect("only mapped tasks have a list") {
            Expand::Fixed(length) => *length,
            Expand::Output { task: source, key } => {
                let own = self.run.index.own(*source);
                let id = &self.dag.task(*source).id;
                let by_rule = || Reason::Rule {
                    rule: self.dag.task(task).trigger_rule.as_str(),
                    upstream: Some(id.clone()),
                };
                if own.open > 0 {
                    return List::Open;
                }
                if own.success == 0 {
                    let input = if own.bad() > 0 { TaskInput::UpstreamFailed } else { TaskInput::Skipped };
                    return List::Never(input, by_rule());
                }
                match self.run.list_lengths.get(&(*source, Arc::from(key.as_str()))) {
                    Some(length) => *length,
                    None => {
                        let reason = Reason::NoList { task: id.clone(), key: key.clone() };
                        return List::Never(TaskInput::Failed, reason);
                    }
                }
            }
        };
        match length {
            0 => List::Never(TaskInput::Skipped, Reason::EmptyList),
            1..=MAPPED_MAX => List::Known(length),
            _ => List::Never(TaskInput::Failed, Reason::Expansion { length }),
        }
    }

    /// The first failure ends all other work at once; teardowns still get their turn.
    fn fail_fast(&mut self) {
        let Some(failed) = self.first_failed.filter(|_| self.dag.settings.fail_fast) else { return };
        let reason = Reason::FailFast { failed: self.dag.task(failed).id.clone() };
        let dag = self.dag;
        self.end_all(TaskInput::Ended, &reason, |task| !dag.task(task).is_teardown());
        self.judge_all();
    }

    /// Every instance is final: the leaves decide, and under `fail_fast` any failed work does.
    fn decide_run(&mut self) {
        let index = &self.run.index;
        let failed = index.bad_leaves > 0 || (self.dag.settings.fail_fast && index.failed_work > 0);
        if failed {
            let count = index.bad_leaves.max(index.failed_work);
            self.end_run(RunInput::Failed, Reason::TasksFailed { count });
        } else {
            self.end_run(RunInput::Succeeded, Reason::AllFinal);
        }
    }

    fn end_run(&mut self, input: RunInput, reason: Reason) {
        let failed = input == RunInput::Failed;
        // A task that failed has been told of; what nothing else explains is told of here.
        let is_explained = matches!(reason, Reason::TasksFailed { .. })
            && self.run.instances().any(|(_, instance)| instance.state == TaskState::Failed);
        if failed && !is_explained {
            let error = reason.to_string().into();
            self.decision.alerts.push(Alert { kind: AlertKind::RunFailed, ti: None, tries: 0, error });
        }
        self.decision.recovery = Some(Arc::new(self.recovery(!failed)));
        self.shift_run(input, reason);
    }

    fn recovery(&self, run_succeeded: bool) -> Recovery {
        let well_since = |task: TaskIx| {
            let own = self.run.index.own(task);
            if own.success == 0 || own.bad() > 0 {
                return None;
            }
            let all = self.run.tasks[task].iter(task).filter(|(_, it)| it.state == TaskState::Success);
            all.filter_map(|(_, it)| it.ended_at).max()
        };
        let tasks = self.dag.tasks().iter().enumerate();
        Recovery { run_succeeded, tasks: tasks.map(|(ix, task)| (task.id.clone(), well_since(ix))).collect() }
    }
}
