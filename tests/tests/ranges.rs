//! Ranges out of what is stored, and parts that are stored and put together (RFC 9110 §14, RFC 9111 §3.3, §3.4).

use std::sync::{Arc, Mutex};

use http::Response;
use larder_tests::{Got, Origin, Site, TestBody, answer, full, request};

const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz";

/// A site whose origin has the alphabet and knows nothing of ranges.
fn whole() -> Site {
    Site::new(Origin::says(|_, _| {
        answer(
            200,
            &[
                ("cache-control", "max-age=60"),
                ("etag", "\"v1\""),
                ("content-type", "text/plain"),
                ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
                ("date", "Thu, 01 Jan 2026 00:00:05 GMT"),
                ("x-kept", "yes"),
            ],
            ALPHABET,
        )
    }))
}

async fn range(site: &Site, range: &str) -> Got {
    site.get_with("/", &[("range", range)]).await
}

#[tokio::test]
async fn single_ranges_are_cut_out_of_what_is_stored() {
    let site = whole();
    site.get("/").await;
    for (asked, bytes, text) in [
        ("bytes=0-0", "0-0", "a"),
        ("bytes=0-25", "0-25", ALPHABET),
        ("bytes=23-", "23-25", "xyz"),
        ("bytes=-3", "23-25", "xyz"),
        ("bytes=24-9999999999999", "24-25", "yz"),
        ("bytes=-9999", "0-25", ALPHABET),
        ("Bytes= 1-2 ,", "1-2", "bc"),
    ] {
        let got = range(&site, asked).await;
        assert_eq!((got.status, got.text().as_str()), (206, text), "{asked}");
        assert!(got.hit());
        assert_eq!(got.field("content-range").unwrap(), format!("bytes {bytes}/26"), "{asked}");
        assert_eq!(got.field("content-length").unwrap(), text.len().to_string());
        assert_eq!(got.field("x-kept").as_deref(), Some("yes"));
        assert_eq!(got.field("age").as_deref(), Some("0"));
    }
    assert_eq!(site.calls(), 1);
}

#[tokio::test]
async fn what_is_no_range_gets_the_whole_and_what_does_not_exist_416() {
    let site = whole();
    site.get("/").await;
    let many = format!("bytes={}", vec!["1-2"; 17].join(","));
    for asked in [
        "bytes=2-1",
        "bytes=a-b",
        "bytes=-",
        "lines=1-2",
        "bytes",
        "bytes=1-2,1-4",
        "bytes=+1-2",
        &many,
    ] {
        let got = range(&site, asked).await;
        assert_eq!((got.status, got.text().as_str()), (200, ALPHABET), "{asked}");
    }
    for asked in ["bytes=26-", "bytes=99-100", "bytes=-0"] {
        let got = range(&site, asked).await;
        assert_eq!((got.status, got.body.len()), (416, 0), "{asked}");
        assert_eq!(got.field("content-range").as_deref(), Some("bytes */26"));
    }
    let head = site.send(request("HEAD", "/", &[("range", "bytes=0-0")])).await;
    assert_eq!((head.status, head.field("content-length").as_deref()), (200, Some("26")));
    assert_eq!(site.calls(), 1);
}

#[tokio::test]
async fn several_ranges_come_in_parts() {
    let site = whole();
    site.get("/").await;
    let got = range(&site, "bytes=0-1,-2,5-5").await;
    assert_eq!(got.status, 206);
    assert_eq!(got.field("content-length").unwrap(), got.body.len().to_string());
    let kind = got.field("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let text = got.text();
    let parts: Vec<&str> = text.split(&format!("\r\n--{boundary}")).collect();
    assert_eq!(parts.len(), 5);
    assert_eq!((parts[0], parts[4]), ("", "--\r\n"));
    for (part, (bytes, body)) in
        parts[1..4].iter().zip([("0-1", "ab"), ("24-25", "yz"), ("5-5", "f")])
    {
        let expected = format!(
            "\r\ncontent-type: text/plain\r\ncontent-range: bytes {bytes}/26\r\n\r\n{body}"
        );
        assert_eq!(*part, expected);
    }
}

#[tokio::test]
async fn if_range_decides_whether_a_part_fits_what_the_client_has() {
    let site = whole();
    site.get("/").await;
    for (condition, status) in [
        ("\"v1\"", 206),
        ("\"v2\"", 200),
        // Weak validators do not do (RFC 9110 §13.1.5).
        ("W/\"v1\"", 200),
        ("Thu, 01 Jan 2026 00:00:00 GMT", 206),
        ("Thu, 01 Jan 2026 00:00:01 GMT", 200),
        ("nonsense", 200),
    ] {
        let got = site.get_with("/", &[("range", "bytes=0-0"), ("if-range", condition)]).await;
        assert_eq!(got.status, status, "{condition}");
    }
    // Preconditions come first (RFC 9110 §13.2.2).
    let got = site.get_with("/", &[("range", "bytes=0-0"), ("if-none-match", "\"v1\"")]).await;
    assert_eq!(got.status, 304);
}

/// What the origin was asked for.
type Asked = Arc<Mutex<Vec<Option<String>>>>;

/// A site whose origin serves ranges of the alphabet, under an entity tag that can be changed.
fn ranged(tag: Option<&'static str>) -> (Site, Asked, Arc<Mutex<Option<&'static str>>>) {
    let (asked, tag) = (Asked::default(), Arc::new(Mutex::new(tag)));
    let (asking, tagging) = (asked.clone(), tag.clone());
    let origin = Origin::says(move |_, request| {
        let tag = *tagging.lock().unwrap();
        let text = |name: &str| Some(request.headers().get(name)?.to_str().unwrap().to_owned());
        let range = text("range");
        asking.lock().unwrap().push(range.clone());
        let applies = text("if-range").is_none_or(|wanted| Some(wanted.as_str()) == tag);
        part_of_the_alphabet(range.filter(|_| applies), tag)
    });
    (Site::new(origin), asked, tag)
}

fn part_of_the_alphabet(range: Option<String>, tag: Option<&str>) -> Response<TestBody> {
    let mut fields = vec![("cache-control", "max-age=60")];
    if let Some(tag) = tag {
        fields.push(("etag", tag));
    }
    let Some(range) = range else { return answer(200, &fields, ALPHABET) };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(25);
    let mut response = answer(206, &fields, "");
    let content_range = format!("bytes {first}-{last}/26").parse().unwrap();
    response.headers_mut().insert("content-range", content_range);
    *response.body_mut() = full(&ALPHABET[first..=last]);
    response
}

#[tokio::test]
async fn a_part_answers_for_what_is_in_it() {
    let (site, asked, _) = ranged(Some("\"v1\""));
    assert_eq!(range(&site, "bytes=5-9").await.text(), "fghij");
    for (wanted, text) in [("bytes=5-9", "fghij"), ("bytes=6-6", "g"), ("bytes=7-9", "hij")] {
        let got = range(&site, wanted).await;
        assert_eq!((got.status, got.text().as_str(), got.hit()), (206, text, true), "{wanted}");
        let bytes = wanted.trim_start_matches("bytes=");
        assert_eq!(got.field("content-range").unwrap(), format!("bytes {bytes}/26"));
    }
    assert_eq!(site.calls(), 1);
    let got = range(&site, "bytes=99-").await;
    assert_eq!((got.status, got.hit()), (416, true), "the whole's length is known");
    // What is not in it goes to the handler as it was asked; the two parts are one from then on.
    let got = range(&site, "bytes=10-12").await;
    assert_eq!((got.text().as_str(), got.hit()), ("klm", false));
    assert_eq!(got.told(), "t; fwd=partial; fwd-status=206; stored; detail=range-not-stored");
    assert!(range(&site, "bytes=5-12").await.hit());
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_beginning_is_completed_and_is_the_whole_from_then_on() {
    let (site, asked, _) = ranged(Some("\"v1\""));
    range(&site, "bytes=0-9").await;
    let got = site.get("/").await;
    assert_eq!((got.status, got.text().as_str()), (200, ALPHABET));
    assert_eq!(got.field("content-range"), None);
    assert_eq!(got.field("content-length").as_deref(), Some("26"));
    assert_eq!(
        *asked.lock().unwrap(),
        [Some("bytes=0-9".to_owned()), Some("bytes=10-".to_owned())]
    );
    for got in [site.get("/").await, range(&site, "bytes=0-25").await] {
        assert!(got.hit());
        assert_eq!(got.text(), ALPHABET);
    }
}

#[tokio::test]
async fn a_beginning_of_something_that_has_changed_is_replaced() {
    let (site, _, tag) = ranged(Some("\"v1\""));
    range(&site, "bytes=0-9").await;
    *tag.lock().unwrap() = Some("\"v2\"");
    let got = site.get("/").await;
    assert_eq!((got.status, got.text().as_str()), (200, ALPHABET));
    assert_eq!(got.field("etag").as_deref(), Some("\"v2\""));
    assert!(site.get("/").await.hit());
}

#[tokio::test]
async fn parts_without_a_strong_validator_are_never_put_together() {
    for tag in [None, Some("W/\"v1\"")] {
        let (site, asked, _) = ranged(tag);
        range(&site, "bytes=0-9").await;
        range(&site, "bytes=10-19").await;
        assert!(!range(&site, "bytes=0-19").await.hit(), "{tag:?}");
        site.get("/").await;
        assert_eq!(asked.lock().unwrap().last(), Some(&None), "{tag:?}: all of it");
    }
}

#[tokio::test]
async fn parts_of_different_representations_are_never_put_together() {
    let (site, _, tag) = ranged(Some("\"v1\""));
    range(&site, "bytes=0-9").await;
    *tag.lock().unwrap() = Some("\"v2\"");
    range(&site, "bytes=10-19").await;
    assert!(!range(&site, "bytes=5-15").await.hit());
}

#[tokio::test]
async fn a_handler_that_gives_another_rest_than_it_was_asked_for_is_not_believed() {
    for wrong in ["bytes 9-25/26", "bytes 10-25/27", "bytes 10-24/26", "nonsense"] {
        let origin = Origin::says(move |call, _| {
            let mut response = part_of_the_alphabet(Some("bytes=0-9".into()), Some("\"v1\""));
            if call == 2 {
                response.headers_mut().insert("content-range", wrong.parse().unwrap());
            }
            if call < 3 { response } else { part_of_the_alphabet(None, Some("\"v1\"")) }
        });
        let site = Site::new(origin);
        range(&site, "bytes=0-9").await;
        let got = site.get("/").await;
        assert_eq!((got.status, got.body.len()), (502, 0), "{wrong}");
        assert_eq!(site.get("/").await.text(), ALPHABET, "the next gets to the bottom of it");
    }
}

#[tokio::test]
async fn a_part_that_lies_about_its_length_is_not_stored() {
    for lie in [
        "bytes 0-9/26",
        "bytes 0-3/26",
        "bytes 0-4/*",
        "bytes 4-0/26",
        "bytes 0-4/4",
        "lines 0-4/26",
    ] {
        let origin = Origin::says(move |_, _| {
            answer(206, &[("cache-control", "max-age=60"), ("content-range", lie)], "abcde")
        });
        let site = Site::new(origin);
        for call in 1..=2 {
            let got = range(&site, "bytes=0-4").await;
            assert_eq!((got.status, got.text().as_str()), (206, "abcde"));
            assert_eq!(site.calls(), call, "{lie}");
        }
    }
}

#[tokio::test]
async fn a_stale_whole_is_asked_about_by_a_range_request_and_gives_the_part() {
    let site = Site::new(Origin::says(|call, request| {
        let fields = [("cache-control", "max-age=10"), ("etag", "\"v1\"")];
        if call == 1 {
            return answer(200, &fields, ALPHABET);
        }
        assert_eq!(request.headers()["if-none-match"], "\"v1\"");
        answer(304, &fields, "")
    }));
    site.get("/").await;
    site.later(10);
    let got = range(&site, "bytes=0-2").await;
    assert_eq!((got.status, got.text().as_str()), (206, "abc"));
    assert!(site.get("/").await.hit());
    assert_eq!(site.calls(), 2);
}

#[tokio::test]
async fn an_answer_about_a_range_is_nobody_elses() {
    let origin = Origin::says(|call, request| {
        let ranged = request.headers().contains_key("range");
        let fields = [("cache-control", "max-age=60"), ("location", "/elsewhere")];
        answer(if ranged { 301 } else { 200 }, &fields, call.to_string())
    });
    let site = Site::new(origin);
    assert_eq!(range(&site, "bytes=0-4").await.status, 301);
    assert_eq!(site.get("/").await.status, 200);
    assert_eq!(site.calls(), 2);
}
