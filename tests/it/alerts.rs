//! How people are told: problems and letters in the store on both databases, couriers, and real receivers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod couriers;
mod night;
mod problems;
mod program;
mod receivers;
mod routes;
mod story;

use crate::store::home::Home;
use crate::store::on_both;

on_both! {
    problems::what_fails_in_many_runs_is_one_problem_with_a_count,
    problems::a_task_that_a_retry_heals_opens_none,
    problems::the_first_success_resolves_and_tells_those_who_were_told,
    problems::of_many_who_see_the_same_one_opens_and_one_resolves,
    problems::a_success_that_is_older_than_the_failure_resolves_nothing,
    problems::a_task_that_succeeds_in_a_failed_run_is_well_again,
    problems::a_run_that_times_out_has_a_problem_of_its_own,
    problems::a_poisoned_task_is_told_as_that,
    problems::what_a_success_saw_is_one_problem_until_a_success_does_not_see_it,
    problems::a_gate_that_refuses_is_told_as_that_and_not_tried_again,
    problems::trouble_outside_of_runs_is_one_occurrence_until_it_is_over,
    problems::a_commit_that_is_refused_tells_nobody,
    problems::the_database_itself_refuses_columns_that_contradict_each_other,
    problems::a_letter_is_given_once_within_its_lease_and_again_after_it,
    problems::a_claim_that_no_longer_stands_changes_nothing_but_a_delivery_counts,
    problems::the_end_is_never_told_before_the_opening,
    problems::a_letter_that_was_given_up_stays_visible,
    couriers::three_couriers_send_every_letter_once,
    couriers::a_receiver_that_stays_away_is_given_up_after_days_and_others_do_not_wait,
    couriers::a_route_that_is_no_longer_declared_is_stood_in_for_by_the_default_one,
    night::an_hour_of_failures_is_told_once_and_its_end_once,
}
