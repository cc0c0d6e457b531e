//! Text from bytes, at any split.

use huozi_token::DecodeStream;
use proptest::prelude::*;

fn check(bytes: &[u8], cuts: &[usize]) -> Result<(), TestCaseError> {
    let mut stream = DecodeStream::new();
    let mut text = String::new();
    let mut at = 0;
    for &cut in cuts.iter().chain([&bytes.len()]) {
        let cut = cut.clamp(at, bytes.len());
        text.push_str(&stream.push(&bytes[at..cut]));
        at = cut;
        prop_assert!(stream.held() <= 3);
        // What was given out must never have to be taken back.
        let so_far = String::from_utf8_lossy(&bytes[..at - stream.held()]).into_owned();
        prop_assert_eq!(&text, &so_far);
    }
    text.push_str(&stream.finish());
    prop_assert_eq!(&text, &*String::from_utf8_lossy(bytes));
    prop_assert_eq!(stream.finish(), "");
    Ok(())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => any::<char>().prop_map(|c| c.to_string().into_bytes()),
        2 => (any::<char>(), 0usize..4).prop_map(|(c, n)| {
            let mut b = c.to_string().into_bytes();
            b.truncate(n);
            b
        }),
        2 => prop::collection::vec(0x80u8..=0xFF, 1..4),
        1 => prop::collection::vec(any::<u8>(), 1..4),
        // Too long, surrogates, beyond U+10FFFF, and their halves.
        2 => prop::sample::select(vec![
            &b"\xC0\x80"[..], b"\xE0\x80\x80", b"\xE0\x9F", b"\xED\xA0\x80", b"\xED\xA0", b"\xF0\x80",
            b"\xF0\x8F\xBF",
            b"\xF4\x90\x80\x80", b"\xF4\x90", b"\xF5", b"\xFF", b"\xF0\x9F\x98", b"\xE4\xB8",
        ]).prop_map(<[u8]>::to_vec),
    ];
    prop::collection::vec(part, 0..12).prop_map(|v| v.concat())
}

#[test]
fn any_split_gives_the_lossy_text_of_the_whole() {
    let config = ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(bytes in bytes(), mut cuts in prop::collection::vec(0usize..40, 0..20))| {
        cuts.sort_unstable();
        check(&bytes, &cuts)?;
        check(&bytes, &(0..bytes.len()).collect::<Vec<_>>())?;
    });
}

#[test]
fn a_character_comes_out_with_its_last_byte() {
    let mut stream = DecodeStream::new();
    let pieces: Vec<String> = "a闫😀".bytes().map(|b| stream.push(&[b])).collect();
    assert_eq!(pieces, ["a", "", "", "闫", "", "", "", "😀"]);
    assert_eq!(stream.push(b"\xF0\x9F\x98"), "");
    assert_eq!(stream.held(), 3);
    assert_eq!(stream.push(b"a"), "\u{fffd}a");
    assert_eq!(stream.push(b"\xE4"), "");
    assert_eq!(stream.finish(), "\u{fffd}");
    assert_eq!(stream.push("好".as_bytes()), "好");
}
