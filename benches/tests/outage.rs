//! A Redis that dies, freezes and flaps under load fails no call, and is left alone while it does not answer. Counts only;
//! `cargo bench -p larder-benches --bench outage` has the times.

use std::time::Duration;

use larder_benches::outage::{self, Plan};

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_fails_no_call_and_sends_probes_only() {
    // `scripts/soak` runs this with a minute.
    let seconds = std::env::var("LARDER_OUTAGE_SECONDS").map_or(5, |n| n.parse().unwrap());
    let plan =
        Plan { tasks: 64, rest: Duration::from_millis(10), lasts: Duration::from_secs(seconds) };
    let phases = outage::run(plan).await;
    let names: Vec<&str> = phases.iter().map(|phase| phase.name).collect();
    assert_eq!(names, ["no cache", "healthy", "dead", "frozen", "flapping"]);
    for phase in &phases {
        let (name, calls) = (phase.name, &phase.calls);
        assert!(calls.took.len() > plan.tasks, "{name}: {} calls", calls.took.len());
        assert_eq!((calls.failed, calls.wrong), (0, 0), "{name}");
    }
    for phase in &phases[2..] {
        // It was waited for, however long it took: it is used again by itself.
        assert!(phase.recovered.is_some(), "{}", phase.name);
    }
    for phase in &phases[2..4] {
        let (name, asked) = (phase.name, phase.asked.as_ref().unwrap());
        // Each caller and each fill may be under way when it begins, and four failures do not open the breaker. From then
        // on there is one probe a second.
        let under_way = 2 * plan.tasks + 5;
        let probes = asked.lasted.as_secs() as usize + 1;
        assert!(asked.operations <= under_way + probes, "{name}: {asked:?}");
        assert!(asked.operations >= 5, "{name}: {asked:?}: there was no outage");
        assert!(phase.calls.took.len() > 2 * asked.operations, "{name}: {asked:?}");
    }
}
