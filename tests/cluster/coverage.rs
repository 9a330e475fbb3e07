//! The twenty requirements that the daemon must meet in production, with the cases that test each.

use std::collections::BTreeSet;

use libtest_mimic::Trial;

/// Each requirement with its cases. All run on the Kubernetes version that `make test K8S=…` names.
const REQUIREMENTS: [(&str, &[&str]); 20] = [
    ("one of three fails: exactly one write", &["publish::one_of_three_databases_fails"]),
    (
        "two minutes of steady state: no write, and of the Lease only renewals",
        &[
            "lease::in_steady_state_there_are_only_renewals",
            "publish::a_minute_of_steady_state_writes_nothing",
        ],
    ),
    (
        "all fail, by each policy",
        &[
            "policy::min_healthy_is_kept_when_all_targets_fail",
            "publish::all_databases_fail_and_recover",
        ],
    ),
    (
        "restart and failover while all is well: no write",
        &[
            "publish::a_restart_while_all_are_healthy_writes_nothing",
            "publish::a_restart_while_one_is_down_writes_nothing",
            "lease::a_takeover_after_sigterm_takes_2_seconds_and_writes_nothing",
            "lease::a_takeover_after_sigkill_takes_17_seconds_and_writes_nothing",
        ],
    ),
    (
        "a target flaps, below the threshold and above it",
        &[
            "policy::failures_below_the_threshold_remove_nothing",
            "policy::a_flapping_target_is_published_only_as_the_last_one",
        ],
    ),
    (
        "a Service gains a selector: writing stops, our slices go, those of the Pods stay",
        &[
            "slices::a_service_that_gains_a_selector_loses_only_our_slices",
            "ownership::a_service_gains_a_selector_and_loses_it",
        ],
    ),
    (
        "it loses the selector: slices that are left over are reported",
        &["slices::slices_of_pods_that_are_left_behind_are_reported"],
    ),
    (
        "a Service is deleted: our slices go, and no Endpoints come back",
        &[
            "slices::slices_are_deleted_and_created_again_with_their_service",
            "ownership::the_service_is_deleted_and_created_again",
            "faults::endpoints_deleted_with_their_service_do_not_come_back",
        ],
    ),
    (
        "deleted and created again: another owner",
        &["slices::slices_are_deleted_and_created_again_with_their_service"],
    ),
    (
        "several ports join by name, and one without a name has the name \"\"",
        &[
            "slices::ports_are_matched_by_name",
            "slices::slices_have_all_fields_that_clients_need",
            "ownership::ports_that_do_not_match_are_reported",
        ],
    ),
    (
        "dual-stack, and a Service of one family",
        &[
            "slices::each_ip_family_of_the_service_has_a_slice",
            "publish::both_families_are_published_with_hostnames",
        ],
    ),
    (
        "bad addresses are refused, the others published",
        &["refused::bad_addresses_are_refused_and_the_others_published"],
    ),
    (
        "an address outside the allow-list is never published, also if it was before",
        &[
            "refused::outside_the_allow_list_nothing_is_published_or_checked",
            "refused::a_refused_address_is_removed_before_any_verdict",
        ],
    ),
    (
        "1,001 addresses are many slices, and refused for Endpoints",
        &["slices::a_thousand_and_one_addresses_are_in_slices_of_a_hundred"],
    ),
    (
        "Endpoints, slices, both, and Endpoints again under live traffic: no refused connection",
        &["slices_modes::a_switch_of_the_mode_refuses_no_connection"],
    ),
    (
        "nobody mirrors Endpoints: found out within 30 s, with an Event and a metric",
        &["slices_modes::a_cluster_that_does_not_mirror_is_detected"],
    ),
    (
        "Endpoints of someone else: with a leader's annotation, by kubectl, and default/kubernetes",
        &[
            "ownership::endpoints_with_a_leader_annotation_are_never_adopted",
            "ownership::foreign_endpoints_are_not_written",
            "ownership::external_name_and_kubernetes_services_are_never_written",
        ],
    ),
    (
        "a leader that was stopped for longer than its lease goes on: no write of it arrives",
        &[
            "lease::a_holder_that_was_stopped_writes_nothing_when_it_resumes",
            "lease::a_write_in_flight_is_refused_once_another_has_written",
        ],
    ),
    (
        "faults of the API: 429 with Retry-After, 410, 409, 503, hanging, disconnected, and a \
         namespace that is being deleted",
        &[
            "budget::retry_after_is_respected",
            "faults::the_api_answers_with_errors",
            "faults::the_api_is_refused_hanging_and_cut_off",
            "faults::a_namespace_that_is_being_deleted_takes_no_writes",
        ],
    ),
    (
        "with the rights of deploy/ and no others",
        &[
            "deploy::as_shipped_it_does_the_main_job",
            "deploy::nothing_else_is_allowed",
            "deploy::nothing_else_is_done",
            "rights::the_further_roles_allow_no_other_slice_and_no_service",
        ],
    ),
];

/// Returns the cases that docs/safety/promises.md names beside its promises.
fn promised() -> Vec<&'static str> {
    let page = include_str!("../../docs/safety/promises.md");
    page.split('`').filter(|word| word.contains("::")).collect()
}

/// Returns a case that fails if a requirement or a promise names a case that does not exist.
pub(crate) fn cases(others: &[Trial]) -> Vec<Trial> {
    let there: BTreeSet<String> = others.iter().map(|test| test.name().to_owned()).collect();
    let whole = move || {
        for (case, tests) in REQUIREMENTS {
            for test in tests {
                if !there.contains(*test) {
                    return Err(format!("there is no test {test}, which shows: {case}").into());
                }
            }
        }
        match promised().into_iter().find(|test| !there.contains(*test)) {
            Some(missing) => {
                Err(format!("the promises name the test {missing}, and there is none").into())
            }
            None => Ok(()),
        }
    };
    vec![Trial::test("coverage::each_requirement_has_its_tests", whole)]
}
