//! Every method of the store on both databases, from one list of claims.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod aside;
mod events;
mod guards;
pub(crate) mod home;
mod leases;
mod prune;
mod rows;
mod schedules;
mod steps;

use home::Home;

/// Runs each function on a fresh database of either kind.
macro_rules! on_both {
    ($($module:ident :: $claim:ident,)+) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $claim() {
                    super::$module::$claim(super::Home::on_sqlite().await).await;
                }
            )+
        }
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $claim() {
                    if let Some(home) = super::Home::on_postgres().await {
                        super::$module::$claim(home).await;
                    }
                }
            )+
        }
    };
}

pub(crate) use on_both;

on_both! {
    rows::a_restored_run_is_the_run_that_was_committed,
    rows::the_folded_journal_is_the_rows,
    rows::the_journal_is_in_the_order_of_the_commits,
    rows::attempts_are_opened_by_the_claim_and_closed_by_the_outcome,
    rows::outputs_come_back_and_give_the_lengths_of_their_lists,
    rows::a_mapped_task_becomes_as_many_rows_as_its_list_is_long,
    rows::a_repetition_after_a_clear_that_leaves_nothing_takes_the_outputs_away,
    rows::creating_a_run_twice_answers_with_the_first,
    rows::a_scheduled_instant_is_taken_once_under_any_name,
    rows::a_run_of_a_version_that_was_not_stored_is_refused,
    rows::a_run_is_not_loaded_with_another_version_of_its_dag,
    rows::runs_are_listed_newest_first_and_filtered,
    rows::an_alert_is_in_the_outbox_once_and_until_delivered,
    rows::the_clock_of_the_database_is_the_time_of_day,
    guards::migrating_again_changes_nothing,
    guards::a_database_from_a_newer_version_is_refused,
    guards::a_stale_version_is_a_conflict_and_writes_nothing,
    guards::a_stale_fence_is_a_conflict_and_writes_nothing,
    guards::a_state_that_was_not_expected_is_a_conflict,
    guards::the_database_itself_refuses_an_illegal_move,
    guards::the_database_itself_refuses_columns_that_contradict_the_state,
    guards::a_pool_is_never_admitted_over_its_slots,
    guards::of_many_writers_of_one_version_one_wins,
    guards::a_failing_commit_does_not_harm_its_neighbours,
    guards::a_transaction_that_was_not_finished_leaves_nothing,
    leases::a_lease_that_ran_out_or_was_closed_is_not_renewed,
    leases::what_a_dead_session_holds_is_found,
    prune::only_runs_that_ended_before_are_pruned,
    steps::a_cancelled_placeholder_that_is_cleared_gives_way_to_its_list,
    steps::marking_a_repeated_attempt_keeps_what_the_first_one_left,
    schedules::of_two_schedulers_one_moves_a_schedule_on,
    schedules::what_a_schedule_leaves_out_is_kept,
    schedules::a_paused_or_lost_dag_is_not_due,
    schedules::runs_start_in_order_within_the_limit_and_backfills_last,
    schedules::a_run_is_found_by_its_time_and_by_what_waits_for_a_worker,
    schedules::an_earlier_run_that_waits_for_its_place_is_seen,
    schedules::the_run_before_is_the_one_with_the_date_before,
    events::a_success_is_news_for_every_dag_that_follows_an_asset,
    events::a_commit_that_is_refused_is_no_news,
    events::news_that_comes_while_a_schedule_is_asked_is_not_forgotten,
    events::events_of_a_run_that_cannot_be_made_wait_on,
    events::among_many_writers_and_schedulers_each_event_is_taken_once,
    events::a_dag_that_follows_other_news_forgets_what_waited,
    events::a_dag_that_was_there_before_events_were_follows_them_once_a_server_starts,
    events::an_event_that_is_sent_twice_is_received_once,
    events::old_events_are_pruned_but_for_those_that_a_run_is_still_to_have,
    aside::a_run_that_cannot_be_written_keeps_nobody_from_going_on,
}
