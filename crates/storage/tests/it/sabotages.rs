//! Storage with faults on purpose: each makes a named test fail. The list is in docs/reliability.md.

use std::process::Command;

/// Runs one test of this binary with one fault; true if it passed.
fn passes(test: &str, sabotage: Option<&str>) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact"]).env_remove("FERRYMQ_SABOTAGE");
    if let Some(sabotage) = sabotage {
        command.env("FERRYMQ_SABOTAGE", sabotage);
    }
    command.output().unwrap().status.success()
}

fn is_noticed(sabotage: &str, test: &str) {
    assert!(passes(test, None), "{test} passes while nothing is broken");
    assert!(!passes(test, Some(sabotage)), "{test} did not notice {sabotage}");
}

/// Like [`is_noticed`], with the simulation, which is a test of its own without a fault.
fn is_noticed_in_lives(sabotage: &str) {
    let test = "simulation::what_was_promised_is_there_in_five_hundred_lives";
    assert!(!passes(test, Some(sabotage)), "{test} did not notice {sabotage}");
}

#[test]
fn a_confirm_before_the_sync_is_noticed() {
    is_noticed("ConfirmBeforeSync", "faults::power_fails_in_many_stories");
}

#[test]
fn a_file_freed_before_the_checkpoint_is_noticed() {
    is_noticed("FreeBeforeCheckpoint", "spill::a_long_queue_leaves_the_journal_and_comes_back_in_order");
}

#[test]
fn a_run_removed_before_the_checkpoint_is_noticed() {
    is_noticed("RemoveBeforeCheckpoint", "merging::power_fails_while_runs_are_merged");
}

#[test]
fn an_ignored_checksum_is_noticed() {
    is_noticed("IgnoreCrc", "faults::a_damaged_run_stops_its_queues_and_no_others");
}

#[test]
fn a_forgotten_settlement_is_noticed() {
    is_noticed("ForgetSettlement", "basics::settled_messages_stay_settled_and_the_rest_keeps_its_order");
}

#[test]
fn a_swapped_order_is_noticed() {
    is_noticed("SwapOrder", "spill::a_long_queue_leaves_the_journal_and_comes_back_in_order");
}

#[test]
fn damage_taken_for_a_torn_tail_is_noticed() {
    is_noticed("AcceptDamage", "faults::damage_in_the_middle_of_the_journal_stops_the_start");
}

#[test]
fn numbers_that_are_given_again_are_noticed() {
    is_noticed("GiveNumbersAgain", "promises::settled_transient_messages_hide_nothing_after_a_restart");
}

#[test]
fn a_group_of_another_directory_is_noticed() {
    is_noticed("AnyStamp", "promises::no_body_in_a_torn_end_is_taken_for_a_group");
}

#[test]
fn trust_in_the_page_cache_is_noticed() {
    is_noticed("TrustTheCache", "promises::a_failed_sync_is_not_trusted_after_a_restart");
}

#[test]
fn a_checkpoint_that_fell_back_is_noticed() {
    is_noticed("AcceptRollback", "promises::a_checkpoint_that_has_lost_its_last_commit_is_damaged");
}

#[test]
fn a_settled_queue_that_is_not_in_the_checkpoint_is_noticed() {
    is_noticed("SettleWithoutTouch", "promises::what_was_settled_long_ago_stays_settled");
}

#[test]
fn a_checkpoint_before_the_sync_of_what_it_speaks_of_is_noticed() {
    is_noticed_in_lives("RetireBeforeSync");
}

#[test]
fn a_merge_before_the_sync_of_what_it_speaks_of_is_noticed() {
    is_noticed_in_lives("MergeBeforeSync");
}

#[test]
fn groups_that_do_not_say_what_was_synced_are_noticed() {
    is_noticed(
        "NoSyncedInGroups",
        "promises::a_bit_in_the_last_group_stops_the_start_once_the_server_was_idle_or_stopped",
    );
}

#[test]
fn a_recovery_that_does_not_sync_is_noticed() {
    is_noticed_in_lives("NoSyncInRecovery");
}

#[test]
fn a_start_that_does_not_say_what_was_synced_is_noticed() {
    is_noticed("NoSyncedAtStart", "promises::damage_in_what_a_start_replayed_stops_the_next");
}

#[test]
fn names_of_a_new_journal_that_are_not_synced_are_noticed() {
    is_noticed("NoSyncOfNewFolder", "faults::power_fails_in_many_stories");
}

#[test]
fn the_name_of_an_added_file_that_is_not_synced_is_noticed() {
    is_noticed("NoSyncOfAddedFile", "promises::a_file_that_was_added_outlives_a_power_loss");
}

#[test]
fn the_name_of_a_checkpoint_that_is_not_synced_is_noticed() {
    is_noticed("NoSyncOfCheckpointName", "faults::power_fails_in_the_first_start");
}

#[test]
fn a_disk_that_lies_about_syncing_is_noticed() {
    let lied = std::panic::catch_unwind(|| {
        for seed in 0..20 {
            crate::faults::power_fails(seed, 300, true);
        }
    });
    assert!(lied.is_err(), "twenty power losses on a disk that never syncs went unnoticed");
}
