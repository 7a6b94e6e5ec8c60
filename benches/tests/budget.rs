//! What a hit in memory may allocate. Counts, so the same on every machine and in every build.
//!
//! When one of these fails, something on the way of a hit began to allocate. Find it before raising the number:
//! `cargo bench -p larder-benches` shows by how much, a debugger at `malloc` where.

use larder_benches::{Case, Run, SIZES, WARM_UP, data, grpc, http, sessions};

/// Allocations of one operation, and their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    count: u64,
    bytes: u64,
}

// The middle one of many single operations: the map's housekeeping, once in a hundred, is not the hit's own.
fn cost(mut run: Run) -> Cost {
    run(WARM_UP);
    let mut costs: Vec<Cost> = (0..201)
        .map(|_| {
            let info = allocation_counter::measure(|| run(1));
            Cost { count: info.count_total, bytes: info.bytes_total }
        })
        .collect();
    costs.sort_unstable();
    costs[costs.len() / 2]
}

// An operation's own allocations: without those of the harness, which are measured with it.
fn own(make: fn(usize) -> Run, harness: fn(usize) -> Run, size: usize) -> Cost {
    let (all, harness) = (cost(make(size)), cost(harness(size)));
    Cost { count: all.count - harness.count, bytes: all.bytes - harness.bytes }
}

#[track_caller]
fn within(what: &str, cost: Cost, budget: Cost) {
    assert!(
        cost.count <= budget.count && cost.bytes <= budget.bytes,
        "{what} makes {} allocations of {} bytes, its budget is {} of {}: find what allocates on the way of a hit and \
         take it off; raise the budget only if it buys something that every hit needs",
        cost.count,
        cost.bytes,
        budget.count,
        budget.bytes,
    );
}

/// Collecting a body that is not empty takes one allocation, which the harness's empty response does not make.
const COLLECTING: u64 = 1;

fn http_hit(what: &str, make: fn(usize) -> Run, budget: Cost) {
    let [small, large] = SIZES.map(|size| own(make, http::harness, size));
    assert_eq!(
        small, large,
        "{what} costs more for a larger body: a hit copies it, or a part of it"
    );
    within(what, small, budget);
}

#[test]
fn a_hit_allocates_the_header_map_and_nothing_else() {
    let budget = Cost { count: 2 + COLLECTING, bytes: 1144 };
    http_hit("a hit of CacheLayer", http::larder, budget);
}

#[test]
fn a_hit_on_vary_allocates_no_more() {
    let budget = Cost { count: 2 + COLLECTING, bytes: 1144 };
    http_hit("a hit of CacheLayer on a response with Vary", http::larder_vary, budget);
}

#[test]
fn a_304_allocates_the_few_fields_that_it_has() {
    let [small, large] = SIZES.map(|size| own(http::larder_304, http::harness, size));
    assert_eq!(small, large, "a 304 costs more for a larger body");
    within("a 304 of CacheLayer", small, Cost { count: 4, bytes: 1968 });
}

#[test]
fn a_hit_of_head_allocates_the_header_map_and_nothing_else() {
    let [small, large] = SIZES.map(|size| own(http::larder_head, http::harness, size));
    assert_eq!(small, large, "a HEAD costs more for a larger body");
    within("a HEAD of CacheLayer", small, Cost { count: 2, bytes: 1000 });
}

#[test]
fn a_hit_of_a_part_allocates_its_fields_and_copies_nothing() {
    http_hit("a 206 of CacheLayer", http::larder_range, Cost { count: 12, bytes: 3420 });
}

/// The page names it, so the store is asked for it by another key.
#[test]
fn a_hit_of_an_older_variant_allocates_its_look_up_and_copies_nothing() {
    let budget = Cost { count: 15, bytes: u64::MAX };
    http_hit("an older variant of CacheLayer", http::larder_older_variant, budget);
}

/// The key, the future, the request's fields (two), the flight, the body's box, the fields that are stored (two), page and
/// entry: DESIGN.md tells why each. The body is the handler's own, shared.
#[test]
fn a_miss_allocates_ten_times_and_copies_no_body() {
    let [small, large] = SIZES.map(|size| own(http::larder_miss, http::bare_misses, size));
    within("a miss of CacheLayer", small, Cost { count: 10, bytes: u64::MAX });
    assert_eq!(small.count, large.count);
    // The store's tables grow as they like.
    assert!(
        large.bytes.abs_diff(small.bytes) < 8 << 10,
        "it copies the body: {small:?}, {large:?}"
    );
}

/// One that is larger than what is stored is passed on as it comes.
#[test]
fn a_miss_that_is_not_stored_copies_nothing() {
    let [small, large] = SIZES.map(|size| own(http::larder_unstorable, http::bare_misses, size));
    within("what CacheLayer does not store", small, Cost { count: 6, bytes: u64::MAX });
    assert_eq!(small, large, "it copies the body");
}

#[test]
fn a_grpc_hit_allocates_its_metadata_and_nothing_else() {
    let [small, large] = SIZES.map(|size| own(grpc::larder, grpc::harness, size));
    assert_eq!(small, large, "a hit copies the message, or a part of it");
    // The leading metadata and the trailers, each a map of two parts.
    within("a hit of GrpcCacheLayer", small, Cost { count: 4, bytes: 360 });
    let bare = own(grpc::bare, grpc::harness, SIZES[0]);
    assert!(small.count < bare.count, "a hit allocates no less than a bare handler: {bare:?}");
}

fn data_hit(what: &str, make: fn(usize) -> Run, budget: u64) {
    let decoded = data::decoded();
    let [small, large] = SIZES.map(|size| own(make, data::harness, size));
    assert_eq!(
        small, large,
        "{what} costs more for a larger value: a hit copies it, or a part of it"
    );
    assert_eq!(
        data::decoded(),
        decoded,
        "{what} decodes the value: readers must share the stored one"
    );
    within(what, small, Cost { count: budget, bytes: if budget == 0 { 0 } else { u64::MAX } });
}

#[test]
fn a_typed_hit_allocates_nothing() {
    data_hit("a hit of Cache::get", data::larder_get, 0);
}

#[test]
fn a_typed_hit_that_is_near_allocates_nothing() {
    let decoded = data::decoded();
    let [small, large] = SIZES.map(|size| own(data::larder_get_near, data::harness, size));
    assert_eq!(small, large, "a near hit copies the value, or a part of it");
    assert_eq!(data::decoded(), decoded + 4, "only the two reads before it, of each size, decode");
    within("a hit of Cache::get in a near store", small, Cost { count: 0, bytes: 0 });
}

#[test]
fn a_hit_of_what_would_be_computed_allocates_its_key() {
    data_hit("a hit of Cache::get_or_compute", data::larder_compute, 1);
}

#[test]
fn readers_share_the_stored_value() {
    let (first, second) = data::two_readers();
    assert!(std::sync::Arc::ptr_eq(&first, &second), "two hits gave two copies of the value");
}

fn session(what: &str, make: fn(usize) -> Run, budget: u64) {
    let [small, large] = SIZES.map(|size| own(make, sessions::harness, size));
    assert_eq!(small, large, "{what} costs more for a larger session: it copies a value");
    // The harness boxes its whole future, which has a session's in it.
    within(what, small, Cost { count: budget, bytes: 16 << 10 });
}

#[test]
fn a_request_that_leaves_its_session_alone_allocates_the_handle_and_two_extensions() {
    session("a request with a session that nobody uses", sessions::larder_untouched, 5);
}

#[test]
fn a_request_that_reads_its_session_allocates_little_more() {
    session("a request that reads its session", sessions::larder_read, 12);
}

#[test]
fn a_session_that_is_written_is_read_and_saved_once() {
    session("a request that writes its session", sessions::larder_written, 27);
}

#[test]
fn a_session_that_is_written_the_same_is_compared_and_not_saved() {
    session("a write of what is there already", sessions::larder_written_the_same, 14);
}

#[test]
fn the_counter_counts() {
    let made =
        |_: usize| -> Run { Box::new(|times| (0..times).for_each(|_| drop(vec![1_u8; 100]))) };
    assert_eq!(cost(made(0)), Cost { count: 1, bytes: 100 });
    let named: Vec<&Case> = http::CASES.iter().filter(|case| case.name == http::BASELINE).collect();
    assert_eq!(named.len(), 1, "the baseline is one of the rows");
}
