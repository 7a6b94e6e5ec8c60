//! The conformance suite: what every backend and every wrapper must do.
//!
//! A check is an `async fn` that takes a [`Harness`] with a fresh namespace and panics with a sentence about what was
//! promised and not kept. [`conformance!`](crate::conformance) makes one named test of each; [`checks`] gives them as
//! a list.
//!
//! What a backend declares in its [`Abilities`](larder_core::Abilities) decides what is demanded: an operation that it
//! declares missing must answer `Unsupported`, a backend that is `shared` must show its writes to a second client.
//! Where lifetimes follow a clock, the clock is moved; otherwise the checks sleep, and never assert that something
//! took less than some time.

mod run;
mod steps;

pub mod batches;
pub mod cancellation;
pub mod concurrency;
pub mod conditions;
pub mod counters;
pub mod fills;
pub mod foreign;
pub mod keys;
pub mod lifetimes;
pub mod marks;
pub mod namespaces;
pub mod paging;
pub mod reads;
pub mod sizes;
pub mod writes;

use std::fmt;
use std::pin::Pin;

use larder_core::Backend;

use crate::Harness;

#[doc(hidden)]
pub use run::run;
pub use run::run_all;

/// One check of the suite, for those who want to run it themselves.
pub struct Check<B> {
    /// Its name: `group::check`.
    pub name: &'static str,
    /// Runs it.
    pub run: for<'a> fn(&'a Harness<B>) -> Running<'a>,
}

/// A [`Check`] under way.
pub type Running<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl<B> fmt::Debug for Check<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({})", self.name)
    }
}

/// Every check of the suite.
///
/// ```
/// use larder_testkit::{reference::Reference, suite};
///
/// assert!(suite::checks::<Reference>().iter().any(|check| check.name == "reads::missing_is_none"));
/// ```
pub fn checks<B: Backend>() -> Vec<Check<B>> {
    crate::__checks! { __list [] }
}

/// Makes a test of every check, for the backend in the [`Harness`] that the expression makes.
///
/// The expression is evaluated once for each check, is a future, and must have the same type each time: usually the
/// call of an `async fn`. The tests are called `reads::missing_is_none` and so on; put each use into a module of its
/// own. Each runs on a multi-thread runtime of its own, and fails when it takes longer than `LARDER_LIMIT` seconds
/// (120 unless set).
///
/// ```
/// # use larder_core::Clock;
/// # use larder_testkit::{Harness, reference::Reference};
/// mod with_the_machines_clock {
///     # use super::*;
///     async fn harness(clock: Clock) -> Harness<Reference> {
///         Harness::new(Reference::new(clock))
///     }
///
///     larder_testkit::conformance!(harness(Clock::system()));
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! conformance {
    ($harness:expr $(,)?) => {
        $crate::__checks! { __tests [$harness] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    ([$harness:expr] $($group:ident { $($check:ident)* })*) => {
        $(mod $group {
            #[allow(unused_imports)]
            use super::*;
            $(#[test]
            fn $check() {
                $crate::suite::run($harness, async |harness| {
                    $crate::suite::$group::$check(harness).await;
                });
            })*
        })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __list {
    ([] $($group:ident { $($check:ident)* })*) => {
        vec![$($($crate::suite::Check {
            name: concat!(stringify!($group), "::", stringify!($check)),
            run: |harness| Box::pin($crate::suite::$group::$check(harness)),
        }),*),*]
    };
}

// Every check, once: the macro and the list both read it here.
#[doc(hidden)]
#[macro_export]
macro_rules! __checks {
    ($then:ident $args:tt) => {
        $crate::$then! { $args
            reads { missing_is_none everything_comes_back untagged_entries_keep_their_number empty_values_are_hits binary_values_come_back large_values_come_back integers_come_back enveloped_integers_come_back live_values_come_back hits_share_the_body counters_come_with_a_read peek_agrees_with_get local_means_ready_at_once abilities_are_steady reading_changes_nothing }
            writes { put_replaces kinds_replace_each_other revisions_are_the_writers remove_takes_away remove_of_expired_is_false remove_only_that_revision many_tags_come_back what_does_not_encode_is_not_stored a_second_client_sees_it durable_means_durable }
            conditions { always absent present revision another_revision token another_token integers_have_conditions_too a_refusal_changes_nothing zero_follows_the_condition }
            lifetimes { default_is_the_configured_one forever_has_no_end zero_removes less_than_a_second the_end_is_exact longer_than_thirty_days extremes_are_clamped overwriting_replaces_it remaining_has_three_answers never_more_than_given expired_is_absent_to_every_verb touch_gives_a_new_lifetime touch_counts_from_now touch_changes_nothing_else touch_of_absent_is_false touch_with_zero_removes touch_with_forever_persists freshness_ends_before_the_lifetime touch_makes_fresh }
            counters { adding_to_nothing creating negative_and_zero put_and_add_are_of_one_kind no_integer enveloped_integers_do_not_count overflow adding_keeps_the_lifetime racing_with_the_end }
            fills { a_fill begin_finds_an_entry an_expired_entry_is_filled another_token_is_refused voided_by_put voided_by_remove voided_by_clear voided_by_a_counter voided_by_its_end markers_are_absent renewing a_renewal_counts_from_now releasing releasing_too_late passing a_put_ends_a_pass a_fill_for_no_time a_second_client_sees_markers }
            batches { get_many_keeps_the_order a_batch_of_two_namespaces empty_batches put_many_answers_for_each remove_many_counts large_batches }
            marks { unknown_tags_are_made no_tags_at_all invalidating_raises_the_named invalidating_the_unknown older_entries_are_not_covered other_namespaces_are_spared marks_are_counters lost_records_make_nothing_valid records_last_for_days many_tags_at_once numbers_are_taken_once counters_are_not_sequences lasting_tags_are_tags_of_their_own a_second_client_sees_invalidations }
            namespaces { they_do_not_share_keys clearing_empties_one clearing_spares_others clearing_twice a_cleared_namespace_works clearing_makes_nothing_valid clearing_in_one_instant similar_names_are_different a_second_client_sees_a_clear }
            paging { declared_is_done everything_is_found found_among_changes prefixes_are_literal prefixes_respect_parts other_namespaces_are_not_reported absent_is_not_reported foreign_cursors_are_harmless }
            keys { parts_are_framed long_keys binary_keys injection_is_text similar_keys }
            sizes { too_large_takes_the_old_away too_large_in_a_batch nearly_too_large_is_stored the_bound_is_kept }
            foreign { garbage_is_a_miss other_versions_are_a_miss damaged_records_are_a_miss lying_lengths_are_a_miss another_keys_record_is_a_miss damaged_markers_are_a_miss }
            concurrency { one_absent_put_wins one_revision_put_wins one_token_put_wins one_begin_wins one_remove_wins additions_sum_up no_fill_survives_a_remove no_fill_replaces_a_put no_fill_survives_a_clear no_touch_survives_a_remove no_present_put_survives_a_remove no_addition_survives_a_remove nobody_sees_half keys_do_not_mix two_clients_race }
            cancellation { dropped_futures_harm_nobody dropped_writes_are_whole dropped_writes_overtake_nothing }
        }
    };
}
