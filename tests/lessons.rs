//! What went wrong elsewhere, and which tests keep it from going wrong here: a row for each lesson, with the tests that were made of it. This one makes sure that they are
//! still there.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;

/// What a lesson was made of here.
enum Made {
    /// Tests, by their file and their name.
    Tests(&'static [(&'static str, &'static str)]),
    /// Nothing, and why.
    Nothing(&'static str),
}
use Made::{Nothing, Tests};

/// Where it happened, what went wrong, and what was made of it.
const LESSONS: &[(&str, &str, Made)] = &[
    (
        "CVE-2023-2878, CVE-2024-3744: a CSI driver and azure-file",
        "tokens were logged at a higher level",
        Tests(&[("canary.rs", "no_message_holds_what_was_sent_or_what_is_secret"), ("memory.rs", "no_message_holds_a_secret_in_any_form")]),
    ),
    (
        "CVE-2025-7445: secrets-store-sync-controller",
        "a token stood in an error about bad parameters",
        Tests(&[("canary.rs", "no_message_holds_what_was_sent_or_what_is_secret")]),
    ),
    (
        "CVE-2022-38149: consul-template",
        "a secret stood in an error about a template",
        Tests(&[
            ("grammar.rs", "an_error_shows_nothing_after_the_locator"),
            ("stores.rs", "garbage_is_bytes_or_an_error_and_never_a_panic_nor_a_value_in_a_message"),
        ]),
    ),
    (
        "vault #20884",
        "rendered secrets went to stdout",
        Tests(&[
            ("memory.rs", "no_message_holds_a_secret_in_any_form"),
            ("start.rs", "check_prints_results_without_values_and_ends_as_a_start_would"),
        ]),
    ),
    ("envconsul #226", "values were logged", Tests(&[("memory.rs", "no_message_holds_a_secret_in_any_form")])),
    (
        "CVE-2024-8365: Vault",
        "what hides a secret was lost in a change, and no test saw it",
        Tests(&[
            ("memory.rs", "the_scan_sees_what_waits_in_a_pipe_and_in_a_socket_and_takes_none_of_it"),
            ("groups.rs", "a_mixed_pair_would_have_been_seen"),
        ]),
    ),
    (
        "CVE-2020-8567, CVE-2020-8568: CSI providers",
        "`..` in a name wrote anywhere",
        Tests(&[
            ("config.rs", "variables_and_files_that_cannot_be_are_told"),
            ("plan.rs", "a_key_that_cannot_be_a_variable_or_would_change_what_runs_ends_the_start"),
            ("vault.rs", "a_path_that_would_lead_elsewhere_is_refused_before_anybody_is_asked"),
        ]),
    ),
    (
        "consul-template #2085",
        "the path that was checked was not the one that was opened",
        Tests(&[
            ("start.rs", "files_of_the_kernel_end_the_start_also_behind_a_link"),
            ("delivery.rs", "what_has_the_name_of_a_file_is_replaced_and_not_followed"),
        ]),
    ),
    (
        "sops-guix #14, CVE-2020-1740",
        "a file could be read by all for a moment",
        Tests(&[
            ("delivery.rs", "at_no_instant_can_a_file_be_read_by_more_than_in_the_end"),
            ("staging.rs", "what_is_staged_is_seen_by_nobody_and_dropped_leaves_nothing"),
        ]),
    ),
    (
        "fnox #339, helm-secrets #88",
        "a plain file outlived its use, or went to a disk",
        Tests(&[
            ("delivery.rs", "a_directory_on_disk_is_refused_unless_a_disk_is_accepted"),
            ("memory.rs", "in_exec_mode_the_program_has_what_was_delivered_and_nothing_else_is_left"),
            ("staging.rs", "thousands_of_rotations_leave_no_descriptor_and_no_file"),
        ]),
    ),
    (
        "bank-vaults #956",
        "only the first signal was forwarded",
        Tests(&[("init.rs", "every_signal_that_a_process_sends_reaches_the_program")]),
    ),
    ("envconsul #254", "a signal of the runtime's own was forwarded", Tests(&[("init.rs", "what_the_kernel_raises_for_us_stays_with_us")])),
    (
        "vault #17873",
        "several HUPs crashed the agent",
        Tests(&[
            ("running/machine.rs", "a_storm_of_hangups_reaches_the_program_and_loses_no_term"),
            ("rotation.rs", "an_agent_that_does_not_listen_keeps_pid_1_from_nothing"),
        ]),
    ),
    (
        "dumb-init #136, vault #27100",
        "HUP before the handler was there ended the program",
        Tests(&[
            ("running/machine.rs", "a_change_before_the_program_has_its_handler_does_not_kill_it"),
            ("rotation.rs", "a_program_that_has_no_handler_is_not_killed_and_that_is_told_once"),
            ("init.rs", "term_right_after_the_spawn_is_never_lost"),
        ]),
    ),
    (
        "vault #28876",
        "a destination that could not be written took memory and time without bound",
        Tests(&[
            ("running/machine.rs", "a_directory_that_may_not_be_written_to_any_more_changes_nothing"),
            ("running/machine.rs", "without_any_descriptor_the_agent_waits_and_does_not_spin"),
        ]),
    ),
    (
        "vault #26283",
        "one secret that failed had all others fetched again",
        Tests(&[("running/ways.rs", "a_secret_that_fails_makes_no_other_be_fetched_again")]),
    ),
    (
        "vault #10130, consul-template #972",
        "a key that was missing became an empty file, or a loop without end",
        Tests(&[
            ("start.rs", "a_key_that_is_not_there_is_an_error_and_never_empty"),
            ("rotation.rs", "what_is_gone_stays_with_the_program_and_that_is_told_once"),
        ]),
    ),
    (
        "CVE-2024-45041: External Secrets Operator",
        "a broker used rights of its own beyond what it was asked for",
        Tests(&[
            ("start.rs", "a_secret_is_never_looked_at_for_references"),
            ("plan.rs", "a_program_that_asks_for_our_token_is_not_started"),
        ]),
    ),
    (
        "RUSTSEC-2023-0125, RUSTSEC-2024-0358",
        "credentials stood in what libraries print for debugging",
        Tests(&[("canary.rs", "no_message_holds_what_was_sent_or_what_is_secret")]),
    ),
    (
        "RUSTSEC-2024-0432: age and rage",
        "a name from outside chose which program was run",
        Tests(&[("start.rs", "an_unknown_scheme_stays_and_a_store_that_is_not_built_in_is_refused")]),
    ),
    (
        "RUSTSEC-2023-0069: sudo-rs",
        "the name of a user was used as a path",
        Tests(&[("delivery.rs", "a_user_who_cannot_write_to_run_gets_a_directory_of_his_own_in_shared_memory")]),
    ),
    (
        "RUSTSEC-2025-0040: users",
        "a program kept groups that it was to lose",
        Tests(&[
            ("delivery.rs", "a_name_brings_the_groups_of_the_image"),
            ("delivery.rs", "root_is_given_up_for_good"),
            ("signalling.rs", "a_program_that_is_run_has_its_own_user_and_all_its_groups"),
        ]),
    ),
    (
        "RUSTSEC-2024-0336: rustls",
        "a server could keep a client in a loop for ever",
        Tests(&[
            ("faults.rs", "a_connection_may_take_three_seconds_and_an_answer_ten"),
            ("running/machine.rs", "an_answer_that_never_ends_keeps_nobody_from_ending_the_program"),
        ]),
    ),
    (
        "gosu #37, CVE-2016-2779",
        "a program of another user typed into root's terminal",
        Nothing(
            "the program is to have the terminal that it was given, as with every init; docs/pid1.md says what that means for another user",
        ),
    ),
    (
        "CVE-2024-21626: runc",
        "a descriptor was left open for the program",
        Tests(&[
            ("init.rs", "the_program_gets_the_inherited_descriptors_and_none_of_ours"),
            ("restart.rs", "the_second_start_finds_what_the_first_one_found"),
        ]),
    ),
    ("GitHub's runner #161, #291", "masks were got around", Nothing("nothing is masked: a value never is in what is printed")),
    (
        "axios #10884, gorequest #298",
        "a header with a credential followed a redirect",
        Tests(&[
            ("faults.rs", "a_token_follows_no_redirect"),
            ("running/ways.rs", "a_redirect_takes_the_token_nowhere"),
            ("signalling.rs", "no_redirect_is_followed"),
        ]),
    ),
    (
        "kubernetes #92851",
        "files were missing for a moment, and a certificate did not fit its key",
        Tests(&[
            ("groups.rs", "in_ten_thousand_swaps_no_pair_is_mixed_and_no_file_is_missing"),
            ("rotation.rs", "a_pair_that_does_not_fit_is_refused_as_a_whole_and_the_old_one_stays_until_one_fits"),
        ]),
    ),
    (
        "gosu #104",
        "scanners complained of a helper that is trusted",
        Tests(&[("supply.rs", "every_package_comes_from_crates_io_with_a_checksum")]),
    ),
    (
        "RUSTSEC-2024-0342: vodozemac",
        "memory was no longer wiped, by a flag of a feature",
        Tests(&[
            ("memory.rs", "once_the_program_runs_it_alone_has_what_was_delivered_and_nobody_has_the_login"),
            ("memory.rs", "pid_1_holds_no_secret_while_they_are_watched_nor_after_a_change_nor_when_the_agent_has_died"),
        ]),
    ),
];

#[test]
fn each_lesson_has_its_tests() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for (case, what, made) in LESSONS {
        match made {
            Tests(named) => {
                for (file, name) in *named {
                    let text = fs::read_to_string(tests.join(file)).unwrap_or_default();
                    assert!(text.contains(&format!("fn {name}(")), "{case}: {what}: there is no test {name} in {file}");
                }
            }
            Nothing(why) => assert!(!why.is_empty()),
        }
    }
    assert_eq!(LESSONS.len(), 30);
}
