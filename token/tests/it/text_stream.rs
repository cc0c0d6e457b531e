//! Text from ids, at any split, up to a stop string.

use huozi_token::TextStream;
use proptest::prelude::*;

/// What the rules of [`TextStream`] make of all bytes at once: the text, and the stop string that ended it.
fn whole(bytes: &[u8], stops: &[String]) -> (String, Option<String>) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    for (at, c) in text.char_indices() {
        let so_far = &text[..at + c.len_utf8()];
        let ends = stops.iter().filter(|stop| !stop.is_empty() && so_far.ends_with(*stop));
        if let Some(stop) = ends.max_by_key(|stop| stop.len()) {
            return (so_far[..so_far.len() - stop.len()].to_owned(), Some(stop.clone()));
        }
    }
    (text, None)
}

fn check(bytes: &[u8], stops: &[String], cuts: &[usize]) -> Result<(), TestCaseError> {
    let (want, stop) = whole(bytes, stops);
    let mut stream = TextStream::new(stops.iter().cloned());
    let mut text = String::new();
    let mut at = 0;
    for &cut in cuts.iter().chain([&bytes.len()]) {
        let cut = cut.clamp(at, bytes.len());
        text.push_str(&stream.push_bytes(&bytes[at..cut]));
        at = cut;
        // What was given out never has to be taken back, and no more is held back than a stop string needs.
        prop_assert!(want.starts_with(&text), "{text:?} of {want:?}");
        let decided = String::from_utf8_lossy(&bytes[..at]).len();
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        prop_assert!(stream.stopped().is_some() || text.len() + longest + 9 >= decided);
    }
    text.push_str(&stream.finish());
    prop_assert_eq!(&text, &want);
    prop_assert_eq!(stream.stopped(), stop.as_deref());
    prop_assert_eq!(stream.finish(), "");
    Ok(())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        8 => "[ab好😀]{1,4}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 1..3),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

#[test]
fn any_split_gives_the_same_text_and_stop() {
    let config = ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() };
    let stops = prop::collection::vec("[ab好😀\u{fffd}]{0,3}", 0..4);
    let cuts = prop::collection::vec(0usize..40, 0..20);
    proptest!(config, |(bytes in bytes(), stops in stops, mut cuts in cuts)| {
        cuts.sort_unstable();
        check(&bytes, &stops, &cuts)?;
        check(&bytes, &stops, &(0..bytes.len()).collect::<Vec<_>>())?;
    });
}

#[test]
fn what_could_be_a_stop_string_is_held_back_and_given_at_the_end() {
    let mut stream = TextStream::new(["用户：".to_owned(), "##".to_owned()]);
    assert_eq!(stream.push_bytes("你好#".as_bytes()), "你好");
    assert_eq!(stream.push_bytes("用".as_bytes()), "#");
    assert_eq!(stream.push_bytes("户".as_bytes()), "");
    assert_eq!(stream.push_bytes("！用户".as_bytes()), "用户！");
    assert_eq!(stream.clone().finish(), "用户");
    assert_eq!(stream.push_bytes("：然后".as_bytes()), "");
    assert_eq!(stream.stopped(), Some("用户："));
    assert_eq!((stream.push_bytes(b"more"), stream.finish()), (String::new(), String::new()));
}

#[test]
fn of_two_stop_strings_the_one_that_ends_first_counts_and_of_equals_the_longest() {
    let text = |stops: [&str; 2]| {
        let mut stream = TextStream::new(stops.map(str::to_owned));
        let text = stream.push_bytes(b"xabcd") + &stream.finish();
        (text, stream.stopped().map(str::to_owned))
    };
    assert_eq!(text(["abcd", "b"]), ("xa".to_owned(), Some("b".to_owned())));
    assert_eq!(text(["c", "abc"]), ("x".to_owned(), Some("abc".to_owned())));
    assert_eq!(text(["", "e"]), ("xabcd".to_owned(), None));
}
