//! How long things live.

use std::time::Duration;

use larder_core::{Backend, Entry, Outcome, Remaining, Revision, Ttl, When};

use super::steps::{LONG, text};
use crate::Harness;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `Ttl::Default` is what the backend was configured with.
pub async fn default_is_the_configured_one<B: Backend>(h: &Harness<B>) {
    let key = h.key("default");
    let watch = h.watch();
    h.store(&key, text("default"), Ttl::Default).await;
    let remaining = h.remaining(&key).await;
    match h.default_ttl().resolve(Ttl::Forever) {
        None => assert_eq!(remaining, Remaining::Forever, "the default is for ever"),
        Some(ttl) => {
            let Remaining::For(left) = remaining else {
                panic!("the default is {ttl:?}, and {remaining:?} remains")
            };
            assert!(left <= ttl, "more than the default of {ttl:?} remains: {left:?}");
            let spent = Duration::from_secs(30).min(ttl / 2);
            assert!(!watch.within(spent) || left >= ttl - spent, "{left:?} of {ttl:?} remains");
        }
    }
    assert!(h.touch(&key, Ttl::Forever).await, "it is there");
    assert!(h.touch(&key, Ttl::Default).await, "it is there");
    let forever = h.remaining(&key).await == Remaining::Forever;
    let expected = h.default_ttl().resolve(Ttl::Forever).is_none();
    assert_eq!(forever, expected, "a touch knows the default too");
}

/// `Ttl::Forever` has no end.
pub async fn forever_has_no_end<B: Backend>(h: &Harness<B>) {
    let (key, counter) = (h.key("forever"), h.key("counter"));
    h.store(&key, text("forever"), Ttl::Forever).await;
    h.store(&counter, Entry::integer(1), Ttl::Forever).await;
    assert_eq!(h.remaining(&key).await, Remaining::Forever, "it has no end");
    assert_eq!(h.remaining(&counter).await, Remaining::Forever, "a counter has no end");
    if h.moving_hands().is_some() {
        h.pass(150 * 365 * DAY).await;
    }
    let read = h.get(&key).await.expect("it is there for ever");
    assert!(read.times().is_some_and(|times| times.expires.is_none()), "an entry tells its end");
    assert_eq!(read.remaining(h.clock().now()), None, "nothing remains of what has no end");
    assert!(h.get(&counter).await.is_some(), "a counter is there for ever");
}

/// Zero stores nothing, removes what was there, and counts as stored.
pub async fn zero_removes<B: Backend>(h: &Harness<B>) {
    let (key, counter) = (h.key("zero"), h.key("counter"));
    h.store(&key, text("zero"), Duration::ZERO).await;
    h.expect_absent(&key, "zero stores nothing").await;
    h.store(&key, text("old"), LONG).await;
    h.store(&key, text("zero"), Duration::ZERO).await;
    h.expect_absent(&key, "zero removes the old value").await;
    h.store(&counter, Entry::integer(1), LONG).await;
    h.store(&counter, Entry::integer(2), Duration::ZERO).await;
    h.expect_absent(&counter, "zero removes the old counter").await;
}

/// A lifetime of less than a second is kept, and is over when it is over.
pub async fn less_than_a_second<B: Backend>(h: &Harness<B>) {
    let (key, counter) = (h.key("short"), h.key("counter"));
    let ttl = Duration::from_millis(250);
    let watch = h.watch();
    h.store(&key, text("short"), ttl).await;
    h.store(&counter, Entry::integer(1), ttl).await;
    let (read, counted) = (h.get(&key).await, h.get(&counter).await);
    if watch.within(ttl) {
        assert!(read.is_some() && counted.is_some(), "it lives for a quarter of a second");
    }
    h.outlive(ttl).await;
    h.expect_absent(&key, "a quarter of a second is over").await;
    h.expect_absent(&counter, "a quarter of a second is over").await;
}

/// An entry is there until the last step of its lifetime, and absent from its end on.
pub async fn the_end_is_exact<B: Backend>(h: &Harness<B>) {
    // Only a clock that stands still can show it.
    if h.moving_hands().is_none() {
        return;
    }
    let (key, step) = (h.key("exact"), h.abilities().precision);
    let ttl = step * 20;
    h.store(&key, text("exact"), ttl).await;
    h.pass(ttl - step).await;
    assert!(h.get(&key).await.is_some(), "one step before its end it is there");
    assert_eq!(h.remaining(&key).await, Remaining::For(step), "one step remains");
    h.pass(step).await;
    h.expect_absent(&key, "its end has come").await;
}

/// Lifetimes over 30 days are lifetimes, not dates.
pub async fn longer_than_thirty_days<B: Backend>(h: &Harness<B>) {
    for days in [29, 30, 31, 60, 3650] {
        let (key, ttl) = (h.key(format!("{days} days")), days * DAY);
        h.store(&key, text("long"), ttl).await;
        h.expect_body(&key, "long", "a long lifetime is kept").await;
        let Remaining::For(left) = h.remaining(&key).await else { panic!("{days} days remain") };
        assert!(left <= ttl && left > ttl - DAY, "of {days} days, {left:?} remains");
    }
}

/// The longest and the shortest durations are clamped; nothing overflows, nothing becomes immortal.
pub async fn extremes_are_clamped<B: Backend>(h: &Harness<B>) {
    let (longest, counter, key) = (h.key("longest"), h.key("counter"), h.key("shortest"));
    for ttl in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_millis(u64::MAX)] {
        h.store(&longest, text("longest"), ttl).await;
        h.store(&counter, Entry::integer(1), ttl).await;
        for key in [&longest, &counter] {
            let Remaining::For(left) = h.remaining(key).await else { panic!("{ttl:?} has an end") };
            assert!(left <= Ttl::MAX && left > Ttl::MAX - DAY, "of {ttl:?}, {left:?} remains");
        }
        assert!(h.touch(&longest, ttl).await, "it is there to be touched");
        h.expect_body(&longest, "longest", "it is there after the touch").await;
    }
    let entry = text("fresh").fresh_for(Duration::MAX);
    h.store(&longest, entry, Duration::MAX).await;
    let read = h.get(&longest).await.expect("it is there");
    let fresh = read.times().is_some_and(|times| times.fresh(h.clock().now()));
    assert!(fresh, "what is fresh for so long is fresh now");
    let token = h.token(&h.key("held"), Duration::MAX).await;
    let renewed = h.backend().renew(&h.key("held"), token, Duration::MAX).await;
    assert!(renewed.expect("renew"), "a marker can be held for the longest time");
    let passed = h.backend().release(&h.key("held"), token, Some(Duration::MAX)).await;
    assert!(passed.expect("release"), "a pass can be for the longest time");

    let short = Duration::from_nanos(1);
    h.store(&key, text("shortest"), short).await;
    h.store(&counter, Entry::integer(1), short).await;
    h.store(&longest, text("touched"), LONG).await;
    assert!(h.touch(&longest, short).await, "it is there to be touched");
    h.token(&h.key("begun"), short).await;
    h.outlive(h.abilities().precision.max(Duration::from_millis(1))).await;
    for (key, what) in [(&key, "an entry"), (&counter, "a counter"), (&longest, "a touched entry")]
    {
        h.expect_absent(key, &format!("a nanosecond is over for {what}")).await;
    }
    h.token(&h.key("begun"), LONG).await;
}

/// A shorter, a longer and no lifetime each replace the one before.
pub async fn overwriting_replaces_it<B: Backend>(h: &Harness<B>) {
    let (shorter, longer, none, ended) = (h.key("s"), h.key("l"), h.key("n"), h.key("e"));
    let tick = h.tick();
    h.store(&shorter, text("1"), LONG).await;
    h.store(&shorter, text("2"), tick).await;
    h.store(&longer, text("1"), tick).await;
    h.store(&longer, text("2"), LONG).await;
    h.store(&none, text("1"), tick).await;
    h.store(&none, text("2"), Ttl::Forever).await;
    h.store(&ended, text("1"), Ttl::Forever).await;
    h.store(&ended, text("2"), tick).await;
    assert_eq!(h.remaining(&none).await, Remaining::Forever, "the new one has no end");
    h.outlive(tick).await;
    h.expect_absent(&shorter, "the shorter lifetime counts").await;
    h.expect_absent(&ended, "the lifetime with an end counts").await;
    h.expect_body(&longer, "2", "the longer lifetime counts").await;
    h.expect_body(&none, "2", "no lifetime counts").await;
}

/// Absent, without an end, and so long: three answers.
pub async fn remaining_has_three_answers<B: Backend>(h: &Harness<B>) {
    let (absent, forever, limited) = (h.key("absent"), h.key("forever"), h.key("limited"));
    h.store(&forever, text("forever"), Ttl::Forever).await;
    let ttl = Duration::from_secs(1000);
    let watch = h.watch();
    h.store(&limited, text("limited"), ttl).await;
    h.pass(h.tick()).await;
    assert_eq!(h.remaining(&absent).await, Remaining::Absent, "it was never written");
    assert_eq!(h.remaining(&forever).await, Remaining::Forever, "it has no end");
    let Remaining::For(left) = h.remaining(&limited).await else { panic!("it has an end") };
    let step = h.abilities().precision;
    assert!(left <= ttl - h.tick() + step, "time has passed, and {left:?} of {ttl:?} remains");
    let spent = Duration::from_secs(500);
    assert!(!watch.within(spent) || left >= ttl - spent, "{left:?} of {ttl:?} remains");
}

/// An entry that was read never tells of more lifetime than it was given, and it was not written later than now.
pub async fn never_more_than_given<B: Backend>(h: &Harness<B>) {
    let key = h.key("given");
    let second = h.second().await;
    for ttl in [LONG, h.tick() * 10, 400 * DAY] {
        let watch = h.watch();
        h.store(&key, text("given"), ttl).await;
        let Remaining::For(left) = h.remaining(&key).await else { panic!("it has an end") };
        assert!(left <= ttl, "{left:?} remains of {ttl:?}");
        let read = h.get(&key).await.expect("it is there");
        let now = h.clock().now();
        let left = read.remaining(now).expect("it has an end");
        let step = h.abilities().precision;
        assert!(left <= ttl + step, "an entry tells of {left:?} of {ttl:?}");
        let told = !watch.within(h.tick()) || left + h.tick() * 2 > ttl;
        assert!(told, "an entry tells of only {left:?} of {ttl:?}");
        let times = read.times().expect("an entry that was stored has times");
        assert!(times.written <= now + step, "it was written before it was read");
        let Some(second) = &second else { continue };
        h.settle().await;
        let read = second.get(&key, &[]).await.expect("get").entry.expect("the other sees it");
        let left = read.remaining(second.clock().now()).expect("it has an end for both");
        // Two clients learn the store's time over a network, each with an error.
        let error = step + Duration::from_millis(100);
        assert!(left <= ttl + error, "the other client is told of {left:?} of {ttl:?}");
    }
}

/// To every verb an expired entry is absent.
pub async fn expired_is_absent_to_every_verb<B: Backend>(h: &Harness<B>) {
    let (b, ttl) = (h.backend(), h.tick());
    let key = |verb: &str| h.key(format!("expired {verb}"));
    let verbs = ["get", "touch", "zero", "add", "remove", "only", "many", "present", "begin"];
    let revision = Revision::random();
    for verb in verbs {
        h.store(&key(verb), text("expired").with_revision(revision), ttl).await;
    }
    h.store(&key("counter"), Entry::integer(5), ttl).await;
    h.outlive(ttl).await;
    h.expect_absent(&key("get"), "it has expired").await;
    assert!(!h.touch(&key("touch"), LONG).await, "a touch must not revive it");
    h.expect_absent(&key("touch"), "a touch must not revive it").await;
    assert!(!h.touch(&key("zero"), Duration::ZERO).await, "there is nothing to remove by touching");
    assert_eq!(b.add(&key("add"), 1, None).await.expect("add"), None, "there is no counter");
    assert_eq!(
        b.add(&key("counter"), 1, None).await.expect("add"),
        None,
        "the counter has expired"
    );
    h.expect_absent(&key("counter"), "adding must not revive it").await;
    assert!(!h.remove(&key("remove")).await, "there is nothing to remove");
    let only = b.remove(&key("only"), Some(revision)).await.expect("remove");
    assert!(!only, "there is nothing of that revision");
    assert_eq!(b.remove_many(&[key("many")]).await.expect("remove_many"), 0, "there are none");
    let refused = h.put(&key("present"), text("new"), LONG, When::Present).await;
    assert_eq!(refused, Outcome::Refused, "nothing is present");
    let refused = h.put(&key("present"), text("new"), LONG, When::Revision(revision)).await;
    assert_eq!(refused, Outcome::Refused, "nothing of that revision is present");
    h.token(&key("begin"), LONG).await;
}

/// A touch prolongs or shortens what is there.
pub async fn touch_gives_a_new_lifetime<B: Backend>(h: &Harness<B>) {
    let (longer, shorter, ended) = (h.key("longer"), h.key("shorter"), h.key("ended"));
    let tick = h.tick();
    let watch = h.watch();
    h.store(&longer, text("longer"), tick).await;
    let touched = h.touch(&longer, LONG).await;
    assert!(touched || !watch.within(tick), "it was there to be touched");
    h.store(&shorter, text("shorter"), LONG).await;
    assert!(h.touch(&shorter, tick).await, "it is there to be touched");
    h.store(&ended, Entry::integer(1), Ttl::Forever).await;
    assert!(h.touch(&ended, tick).await, "a counter can be touched too");
    h.outlive(tick).await;
    if touched {
        h.expect_body(&longer, "longer", "it was touched to live longer").await;
    }
    h.expect_absent(&shorter, "it was touched to live shorter").await;
    h.expect_absent(&ended, "it was touched to have an end").await;
}

/// A touch counts from now, and the entry that is read next knows it.
pub async fn touch_counts_from_now<B: Backend>(h: &Harness<B>) {
    let key = h.key("touched");
    h.store(&key, text("touched"), LONG * 2).await;
    h.pass(h.tick()).await;
    assert!(h.touch(&key, LONG).await, "it is there to be touched");
    let read = h.get(&key).await.expect("it is there");
    let left = read.remaining(h.clock().now()).expect("it has an end");
    assert!(left <= LONG + h.abilities().precision, "{left:?} of {LONG:?} remains after a touch");
    let Remaining::For(left) = h.remaining(&key).await else { panic!("it has an end") };
    assert!(left <= LONG, "{left:?} of {LONG:?} remains after a touch");
    assert!(left > LONG - Duration::from_secs(600), "{left:?} of {LONG:?} remains after a touch");
}

/// A touch leaves value, tags, sequence number and revision alone.
pub async fn touch_changes_nothing_else<B: Backend>(h: &Harness<B>) {
    let (key, counter) = (h.key("touched"), h.key("counter"));
    let tags = [super::steps::tag("t")];
    let marks = h.backend().marks(h.namespace(), &tags).await.expect("marks");
    let entry = text("touched").with_tags(tags).with_built_at(marks.sequence);
    let revision = entry.revision();
    h.store(&key, entry, LONG).await;
    h.store(&counter, Entry::integer(5), LONG).await;
    assert!(h.touch(&key, LONG * 2).await && h.touch(&counter, LONG * 2).await, "both are there");
    let read = h.get(&key).await.expect("it is there");
    assert_eq!(super::steps::body(&read), "touched", "the value stays");
    assert_eq!(read.tags().len(), 1, "the tags stay");
    assert_eq!(read.built_at(), marks.sequence, "the sequence's number stays");
    assert_eq!(read.revision(), revision, "the revision stays");
    let added = h.backend().add(&counter, 1, None).await.expect("add");
    assert_eq!(added, Some(6), "a touched counter still counts");
}

/// A touch of what is absent is false and makes nothing; one of what has expired never revives it.
pub async fn touch_of_absent_is_false<B: Backend>(h: &Harness<B>) {
    let (absent, expired) = (h.key("absent"), h.key("expired"));
    h.store(&expired, text("expired"), h.tick()).await;
    h.outlive(h.tick()).await;
    for ttl in [Ttl::Forever, LONG.into(), Ttl::Default, Duration::ZERO.into()] {
        assert!(!h.touch(&absent, ttl).await, "{ttl:?}: there is nothing to touch");
        assert!(!h.touch(&expired, ttl).await, "{ttl:?}: an expired entry is not there");
    }
    h.expect_absent(&absent, "a touch must not make it").await;
    h.expect_absent(&expired, "a touch must not revive it").await;
}

/// A touch with zero removes, and is true.
pub async fn touch_with_zero_removes<B: Backend>(h: &Harness<B>) {
    let key = h.key("touched");
    h.store(&key, text("touched"), LONG).await;
    assert!(h.touch(&key, Duration::ZERO).await, "there was something");
    h.expect_absent(&key, "a touch with zero removes").await;
    assert!(!h.touch(&key, Duration::ZERO).await, "there is nothing left");
}

/// A touch with `Forever` takes the end away.
pub async fn touch_with_forever_persists<B: Backend>(h: &Harness<B>) {
    let (key, counter) = (h.key("touched"), h.key("counter"));
    h.store(&key, text("touched"), LONG).await;
    h.store(&counter, Entry::integer(1), LONG).await;
    for key in [&key, &counter] {
        assert!(h.touch(key, Ttl::Forever).await, "it is there to be touched");
        assert_eq!(h.remaining(key).await, Remaining::Forever, "the end is gone");
    }
    if h.moving_hands().is_some() {
        h.pass(LONG * 2).await;
    }
    let read = h.get(&key).await.expect("it has no end any more");
    assert!(read.times().is_some_and(|times| times.expires.is_none()), "an entry tells it");
}

/// An entry is fresh for as long as it was asked to be, and stale from then to its end.
pub async fn freshness_ends_before_the_lifetime<B: Backend>(h: &Harness<B>) {
    let (key, plain) = (h.key("fresh"), h.key("plain"));
    let tick = h.tick();
    let watch = h.watch();
    h.store(&key, text("fresh").fresh_for(tick), LONG).await;
    h.store(&plain, text("plain"), LONG).await;
    let fresh = async |key| {
        let read = h.get(key).await.expect("it lives much longer");
        read.times().expect("what was stored has times").fresh(h.clock().now())
    };
    let is_fresh = fresh(&key).await;
    assert!(is_fresh || !watch.within(tick / 2), "at first it is fresh");
    h.outlive(tick).await;
    assert!(!fresh(&key).await, "it is stale after its freshness");
    assert!(fresh(&plain).await, "without a freshness an entry is fresh to its end");
    // A new writing is fresh again; and not longer than it asks for.
    h.store(&key, text("fresh"), LONG).await;
    assert!(fresh(&key).await, "the freshness of the old writing is gone with it");
}

/// A touched entry is fresh to its new end.
pub async fn touch_makes_fresh<B: Backend>(h: &Harness<B>) {
    let key = h.key("fresh");
    h.store(&key, text("fresh").fresh_for(h.tick()), LONG).await;
    h.outlive(h.tick()).await;
    assert!(h.touch(&key, LONG).await, "it is there to be touched");
    let read = h.get(&key).await.expect("it is there");
    let times = read.times().expect("what was stored has times");
    assert!(times.fresh(h.clock().now()), "a touched entry is fresh");
    let end = times.expires.expect("it has an end");
    assert!(times.fresh_until.is_none_or(|until| until >= end), "it is fresh to its new end");
}
