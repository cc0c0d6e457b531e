//! Tokenisation is that of the `tokenizers` crate, for any text; vocabularies are checked.

use crate::common::{TINY, fixture};
use crate::token_support::{NANO, Owned, converted, json, ours, owned, theirs, with_added_tokens};
use huozi_quant::gguf::{Layout, MetaValue, Reader};
use huozi_token::bpe::pieces;
use huozi_token::vocabulary::TokenKind;
use huozi_token::{Error, Specials, TextPart, Tokenizer, Vocabulary};
use proptest::prelude::*;

const PATTERN: &str = " ?[^(\\s|[.,!?…。，、।۔،])]+";

struct Pair {
    ours: Tokenizer,
    parse: tokenizers::Tokenizer,
    plain: tokenizers::Tokenizer,
}

impl Pair {
    /// Of a checkpoint: ours from the GGUF file made of it.
    fn new(name: &str) -> Self {
        Self::of(ours(name), &json(name))
    }

    fn of(ours: Tokenizer, json: &serde_json::Value) -> Self {
        Self { ours, parse: theirs(json, false), plain: theirs(json, true) }
    }

    fn check(&self, text: &str) {
        for (specials, reference) in [(Specials::Parse, &self.parse), (Specials::Plain, &self.plain)] {
            let want = reference.encode_fast(text, false).unwrap();
            let got = self.ours.encode(text, specials);
            assert_eq!(got, want.get_ids(), "{specials:?} {text:?}");
            // Every added token is spelled as its bytes, so nothing can be lost either way.
            assert_eq!(self.ours.decode(&got, true), text, "{specials:?}");
            if specials == Specials::Plain {
                assert!(got.iter().all(|&id| !self.ours.vocab().kind(id).is_control()), "{text:?}");
            }
        }
    }
}

fn pairs() -> Vec<Pair> {
    let more = with_added_tokens(TINY[0]);
    vec![
        Pair::new(TINY[0]),
        Pair::new("tiny-untied-oldkeys-f16"),
        Pair::of(converted(TINY[0], &more), &more),
        Pair::new(NANO),
    ]
}

/// Text of many kinds: runs of one class beside runs of others.
fn text() -> impl Strategy<Value = String> {
    let run = prop_oneof![
        8 => "[一-龥]{1,8}",
        4 => "[a-zA-Z0-9]{1,12}",
        4 => "[ ]{1,4}",
        4 => "[.,!?…。，、।۔،()|\\[\\]]{1,6}",
        3 => "[\\t\\n\\r\u{b}\u{c}\u{85}\u{a0}\u{1680}\
                 \u{2000}-\u{200d}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}\u{feff}]{1,4}",
        2 => "[\u{1F300}-\u{1FAFF}\u{200d}\u{fe0f}\u{1F3FB}-\u{1F3FF}]{1,6}",
        2 => "[a-z\u{300}-\u{36f}\u{20d0}-\u{20ff}]{1,8}",
        2 => "[\u{600}-\u{6ff}\u{900}-\u{97f}\u{e00}-\u{e7f}\u{ac00}-\u{ad00}]{1,8}",
        2 => "[\u{0}-\u{ff}]{1,8}",
        2 => "[\u{e000}-\u{f8ff}\u{fffd}\u{ffff}\u{10ffff}]{1,4}",
        4 => prop::sample::select(vec![
            "<|beginofutterance|>", "<|endofutterance|>", "<s>", "</s>", "<unk>", "<pad>", "<|begin",
            "of|>", "<|x|>", "<|x|>y", "<tool>", "<|user|>", "你好", " 的", "的。", "s>", "\n\n",
            "[PAD1020]", "<|endofutterance|", "<|<s>|>", "Ġ", "Ċ", "Äł", "系统\n", " </s> ",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop::collection::vec(run, 0..24).prop_map(|v| v.concat())
}

#[test]
fn any_text_gives_the_ids_of_the_tokenizers_crate() {
    let pairs = pairs();
    // (PROPTEST_CASES=20000 takes 10 s.)
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1500);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(text in text())| {
        for pair in &pairs {
            pair.check(&text);
        }
    });
}

/// Of equal merges the leftmost goes first: a run of one letter shows it, and needs a merge of a
/// token with itself, which the fixtures' own vocabularies lack.
#[test]
fn runs_of_one_letter_merge_from_the_left() {
    let mut json = json(TINY[0]);
    // The crate numbers added tokens from the size of the vocabulary on, whatever the file says.
    json["added_tokens"].as_array_mut().unwrap().retain(|token| token["id"].as_u64() < Some(1000));
    for (id, token, merge) in [
        (1000, "aa", ["a", "a"]),
        (1001, "aab", ["aa", "b"]),
        (1002, "aaaa", ["aa", "aa"]),
        (1003, "aaa", ["a", "aa"]),
    ] {
        json["model"]["vocab"][token] = id.into();
        json["model"]["merges"].as_array_mut().unwrap().push(merge.to_vec().into());
    }
    let pair = Pair::of(converted(TINY[0], &json), &json);
    assert_eq!(pair.ours.encode("aaab", Specials::Plain).len(), 3, "aa, a, b");
    for n in 0..40 {
        for text in [
            format!("{}b", "a".repeat(n)),
            format!("b{}", "a".repeat(n)),
            format!("{}b", "a".repeat(n)).repeat(3),
        ] {
            pair.check(&text);
        }
    }
}

/// Added tokens are found in two passes, those that are not normalized first: it shows where they overlap.
#[test]
fn overlapping_added_tokens_are_found_as_the_tokenizers_crate_finds_them() {
    // (content, special, normalized)
    let cases: [&[(&str, bool, bool)]; 6] = [
        &[("甲乙", false, true), ("乙丙", false, false)],
        &[("甲乙", false, false), ("乙丙", false, true), ("丙丁甲", false, false)],
        &[("<a|", true, true), ("|b>", true, false), ("甲|", false, false)],
        &[("<a|", true, false), ("|b>", false, false), ("a|x", false, true)],
        &[("<|a|>", true, false), ("|a|", false, false), ("甲a", false, true)],
        &[("甲 ", true, true), (" 乙", false, false), ("乙甲", true, false), ("甲 乙", false, true)],
    ];
    for tokens in cases {
        let mut json = json(TINY[0]);
        for (id, (content, special, normalized)) in (1002u64..).zip(tokens) {
            let token = serde_json::json!({"id": id, "content": content, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": normalized, "special": special});
            json["added_tokens"].as_array_mut().unwrap().push(token);
        }
        let pair = Pair::of(converted(TINY[0], &json), &json);
        let words: Vec<&str> = tokens.iter().map(|(content, ..)| *content).collect();
        let mut texts = vec!["甲乙丙丁甲乙 甲 乙甲".to_owned(), "<a|b> <|a|> a|x|b>".to_owned()];
        for a in &words {
            for b in &words {
                texts.push(format!("{a}{b}"));
                texts.push(format!("x{a} {b}y"));
                for (i, _) in b.char_indices().skip(1) {
                    texts.push(format!("{a}{}", &b[i..]));
                    texts.push(format!("{}{a}", &b[..i]));
                }
            }
        }
        for text in texts {
            pair.check(&text);
            // Text between control tokens gives the same ids whether they are split off before or not.
            let mut ids = Vec::new();
            pair.ours.split_controls(&text, |part| match part {
                TextPart::Token(id) => ids.push(id),
                TextPart::Text(text) => pair.ours.encode_into(text, Specials::Plain, &mut ids),
            });
            assert_eq!(ids, pair.ours.encode(&text, Specials::Parse), "{text:?}");
        }
    }
}

#[test]
fn reference_texts_give_the_ids_of_the_tokenizers_crate() {
    for pair in &pairs() {
        pair.check("");
        for file in ["famous-poems.txt", "nano-sampled.txt", "make_tiny_models.py"] {
            pair.check(&std::fs::read_to_string(fixture(file)).unwrap());
        }
    }
    for dir in TINY.into_iter().chain([NANO]) {
        Pair::new(dir).check("焙茶 掬水 闫 😀\n\n  tab\tend…</s>");
    }
}

/// Each character alone, after a space, and between letters: its class decides where pieces end.
#[test]
fn every_character_has_the_class_that_the_pattern_gives_it() {
    let regex = tokenizers::utils::SysRegex::new(PATTERN).unwrap();
    let mut chars = 0;
    for block in (0..=u32::from(char::MAX)).collect::<Vec<_>>().chunks(256) {
        let mut text = String::new();
        for c in block.iter().filter_map(|&c| char::from_u32(c)) {
            text.extend(['a', c, 'b', ' ', c, ' ', ' ', c, c]);
            chars += 1;
        }
        let mut want = Vec::new();
        let mut at = 0;
        for (start, end) in regex.find_iter(&text) {
            if at < start {
                want.push(&text[at..start]);
            }
            want.push(&text[start..end]);
            at = end;
        }
        if at < text.len() {
            want.push(&text[at..]);
        }
        assert_eq!(pieces(&text).collect::<Vec<_>>(), want, "from U+{:04X}", block[0]);
    }
    assert_eq!(chars, 0x11_0000 - 0x800);
}

#[test]
fn a_megabyte_without_a_space_takes_a_moment() {
    for (dir, text) in [
        (NANO, "春江潮水连海平".repeat(50_000)),
        (NANO, "a".repeat(1 << 20)),
        (TINY[0], "的".repeat(350_000)),
    ] {
        assert!(text.len() >= 1 << 20);
        let tokenizer = ours(dir);
        let start = std::time::Instant::now();
        let ids = tokenizer.encode(&text, Specials::Plain);
        let took = start.elapsed();
        assert_eq!(tokenizer.decode(&ids, false), text);
        // About 0.3 s on an old core with the test profile; quadratic time would be hours.
        assert!(took.as_secs_f64() < 10.0, "{took:?}");
    }
}

/// A vocabulary of BLOOM's size: all pairs and then triples of byte tokens, each with its merge.
fn big() -> Owned {
    let json = json(NANO);
    let small = Owned::from_json(&json, 6002);
    let letters: Vec<&String> = small.tokens[4..260].iter().collect();
    assert!(letters.iter().all(|t| t.chars().count() == 1), "the byte tokens come first");
    let mut big = Owned { tokens: letters.iter().map(|&t| t.clone()).collect(), ..Owned::default() };
    'all: for long in 0.. {
        for letter in &letters {
            if big.tokens.len() == 250_000 {
                break 'all;
            }
            let first = big.tokens[long].clone();
            big.tokens.push(format!("{first}{letter}"));
            big.merges.push(format!("{first} {letter}"));
        }
    }
    big.types = vec![1; big.tokens.len()];
    big
}

#[test]
fn a_vocabulary_of_250_000_tokens_is_ready_in_half_a_second() {
    let big = big();
    let meta = [
        ("tokenizer.ggml.model".to_owned(), MetaValue::Str("gpt2".into())),
        ("tokenizer.ggml.pre".to_owned(), MetaValue::Str("bloom".into())),
        ("tokenizer.ggml.tokens".to_owned(), MetaValue::Strings(big.tokens.clone())),
        ("tokenizer.ggml.token_type".to_owned(), MetaValue::I32s(vec![1; big.tokens.len()])),
        ("tokenizer.ggml.merges".to_owned(), MetaValue::Strings(big.merges.clone())),
    ];
    let header = Layout::new(&meta, Vec::new()).unwrap().header().to_vec();
    let reader = Reader::from_bytes("big.gguf", header).unwrap();
    // The best of three: other tests run beside this one.
    let mut took = std::time::Duration::MAX;
    let mut tokenizer = None;
    for _ in 0..3 {
        let start = std::time::Instant::now();
        tokenizer = Some(Tokenizer::from_gguf(reader.meta()).unwrap());
        took = took.min(start.elapsed());
    }
    let tokenizer = tokenizer.unwrap();
    eprintln!("{} tokens, {} merges: {took:?}", big.tokens.len(), big.merges.len());
    assert_eq!(tokenizer.decode(&tokenizer.encode("abc", Specials::Parse), false), "abc");
    assert!(took.as_secs_f64() < 0.5, "{took:?}");
}

#[test]
fn a_gguf_gives_the_same_tokenizer_as_its_parts() {
    let o = owned(TINY[0]);
    let ints = |v: &[i64]| MetaValue::I32s(v.iter().map(|&i| i as i32).collect());
    let mut meta = vec![
        ("tokenizer.ggml.model".to_owned(), MetaValue::Str("gpt2".into())),
        ("tokenizer.ggml.pre".to_owned(), MetaValue::Str("bloom".into())),
        ("tokenizer.ggml.tokens".to_owned(), MetaValue::Strings(o.tokens.clone())),
        ("tokenizer.ggml.token_type".to_owned(), ints(&o.types)),
        ("tokenizer.ggml.merges".to_owned(), MetaValue::Strings(o.merges.clone())),
        ("tokenizer.ggml.suppress_tokens".to_owned(), ints(&o.suppress)),
    ];
    for (key, name) in
        [("bos", "bos"), ("eos", "eos"), ("eot", "eot"), ("unknown", "unk"), ("padding", "pad")]
    {
        let id = MetaValue::U32(o.special[name] as u32);
        meta.push((format!("tokenizer.ggml.{key}_token_id"), id));
    }
    let open = |meta: &[(String, MetaValue)]| {
        let header = Layout::new(meta, Vec::new()).unwrap().header().to_vec();
        Tokenizer::from_gguf(Reader::from_bytes("t.gguf", header).unwrap().meta())
    };
    let t = open(&meta).unwrap();
    let v = t.vocab();
    assert_eq!(
        (v.bos(), v.eos(), v.eot(), v.unk(), v.pad()),
        (Some(1), Some(2), Some(1001), Some(0), Some(3))
    );
    assert_eq!(v.stop_ids(), [2, 1000, 1001]);
    assert_eq!(v.n_vocab(), 1024);
    let text = "白日依山尽，黄河入海流。<|endofutterance|>";
    assert_eq!(t.encode(text, Specials::Parse), o.tokenizer().encode(text, Specials::Parse));

    for (key, value) in [("model", "llama"), ("pre", "gpt-2")] {
        let mut other = meta.clone();
        let key = format!("tokenizer.ggml.{key}");
        other.iter_mut().find(|(k, _)| *k == key).unwrap().1 = MetaValue::Str(value.into());
        assert!(matches!(open(&other), Err(Error::Unsupported { found, .. }) if found == value));
    }
    for (add_bos, fine) in [(false, true), (true, false)] {
        let mut other = meta.clone();
        other.push(("tokenizer.ggml.add_bos_token".to_owned(), MetaValue::Bool(add_bos)));
        match open(&other) {
            Ok(_) => assert!(fine, "a file that asks for a begin token is not read as one that does not"),
            Err(e) => assert!(!fine && e.to_string().contains("tokenizer.ggml.add_bos_token"), "{e}"),
        }
    }
    for key in ["model", "pre", "tokens", "merges"] {
        let key = format!("tokenizer.ggml.{key}");
        let less: Vec<_> = meta.iter().filter(|(k, _)| *k != key).cloned().collect();
        assert!(matches!(open(&less), Err(Error::Missing { key: k }) if k == key), "{key}");
    }
}

#[test]
fn kinds_and_bytes() {
    let t = ours(TINY[0]);
    let v = t.vocab();
    assert_eq!(v.kind(1000), TokenKind::Control);
    assert_eq!(v.bytes(1000), b"<|beginofutterance|>");
    assert_eq!(v.control("<|endofutterance|>"), Some(1001));
    assert_eq!(v.control("a"), None);
    assert_eq!(v.kind(1023), TokenKind::Unused);
    let never = v.never();
    assert_eq!(never.iter().filter(|&&n| n).count(), 22);
    assert!(never[1002] && never[1023] && !never[1001] && never.len() == 1024);
    assert_eq!((v.bytes(1024), v.kind(u32::MAX)), (&[][..], TokenKind::Unused));
    // Either reason alone is enough.
    let mut o = owned(TINY[0]);
    o.suppress = vec![7];
    let never = o.tokenizer().vocab().never();
    assert!(never[1002] && never[7] && !never[8]);
    // Every byte alone is some token, and it stands for that byte.
    let mut seen = [false; 256];
    for id in 4..1000 {
        if let [byte] = v.bytes(id) {
            seen[usize::from(*byte)] = true;
        }
    }
    assert!(seen.iter().all(|&s| s));
    // Half a character, controls, ids that do not exist.
    let ids = t.encode("闫", Specials::Plain);
    assert_eq!(ids.len(), 2);
    assert_eq!(t.decode(&ids[..1], false), "\u{fffd}");
    assert_eq!(t.decode(&[ids[0], 1001, ids[1], 9999], false), "闫");
    assert_eq!(t.decode(&[1001], true), "<|endofutterance|>");
    let mut parts = Vec::new();
    t.split_controls("a</s>b<s>", |p| parts.push(format!("{p:?}")));
    assert_eq!(
        parts,
        [
            format!("{:?}", TextPart::Text("a")),
            format!("{:?}", TextPart::Token(2)),
            format!("{:?}", TextPart::Text("b")),
            format!("{:?}", TextPart::Token(1))
        ]
    );
}

#[test]
fn vocabularies_that_do_not_fit_together_are_refused() {
    let good = owned(TINY[0]);
    let refused = |change: &dyn Fn(&mut Owned)| {
        let mut o = good.clone();
        change(&mut o);
        Tokenizer::from_parts(&o.parts()).err().unwrap_or_else(|| panic!("accepted"))
    };
    assert!(matches!(refused(&|o| o.types.truncate(1023)), Error::Lengths { tokens: 1024, types: 1023 }));
    assert!(matches!(refused(&|o| *o = Owned::default()), Error::Size { n: 0 }));
    assert!(matches!(refused(&|o| o.types[7] = 0), Error::TokenType { id: 7, found: 0 }));
    assert!(matches!(refused(&|o| o.types[7] = -1), Error::TokenType { id: 7, found: -1 }));
    for text in ["<0x-1>", "<0x+1>", "<0x041>", "<0x4>", "0x41", "<0xGG>"] {
        let e = refused(&|o| (o.types[1020], o.tokens[1020]) = (6, text.into()));
        assert!(matches!(e, Error::ByteToken { id: 1020, .. }), "{text}");
    }
    let e = refused(&|o| o.tokens[900] = o.tokens[300].clone());
    assert!(matches!(e, Error::Duplicate { first: 300, second: 900, .. }), "{e}");
    for bad in ["a", "", " ", "a ", " a", "a b c", "a  b"] {
        let e = refused(&|o| o.merges[3] = bad.into());
        assert!(matches!(e, Error::BadMerge { index: 3, .. }), "{bad:?}: {e}");
    }
    for (bad, missing) in [("qqq a", "qqq"), ("a qqq", "qqq"), ("q q", "qq")] {
        match refused(&|o| o.merges[3] = bad.into()) {
            Error::MergeToken { index: 3, token, .. } => assert_eq!(token, missing),
            e => panic!("{bad}: {e}"),
        }
    }
    for name in ["bos", "eos", "eot", "unk", "pad"] {
        for id in [1024, u64::MAX] {
            let e = refused(&|o| *o.special.get_mut(name).unwrap() = id);
            assert!(matches!(e, Error::SpecialId { n_vocab: 1024, .. }), "{name} {id}: {e}");
        }
    }
    for id in [-1, 1024, i64::MIN] {
        assert!(matches!(refused(&|o| o.suppress.push(id)), Error::SpecialId { id: i, .. } if i == id));
    }
    let e = refused(&|o| o.tokens[4] = "no longer !".into());
    assert!(matches!(e, Error::NoByte { byte: b'!' }), "{e}");
    // A control token spelled like a byte is not that byte's token.
    assert!(matches!(refused(&|o| o.types[4] = 3), Error::NoByte { byte: b'!' }));
    assert!(Vocabulary::n_vocab(good.tokenizer().vocab()) == 1024);
}

/// A hostile file may have merges that lead to a control token; text still must not.
#[test]
fn merges_never_lead_to_a_control_token() {
    let mut o = owned(TINY[0]);
    for (i, text) in ["<s", "</", "</s"].into_iter().enumerate() {
        o.tokens[1010 + i] = text.into();
        o.types[1010 + i] = 1;
    }
    for (i, merge) in ["< s", "<s >", "< /", "</ s", "</s >"].into_iter().enumerate() {
        o.merges.insert(i, merge.into());
    }
    let t = o.tokenizer();
    assert_eq!(t.encode("<s>", Specials::Parse), [1]);
    let ids = t.encode("<s></s>", Specials::Plain);
    assert_eq!(ids, [1010, t.encode(">", Specials::Plain)[0], 1012, t.encode(">", Specials::Plain)[0]]);
}

#[test]
fn tokens_outside_the_alphabet_stand_for_themselves_and_byte_tokens_for_bytes() {
    let mut o = owned(TINY[0]);
    (o.tokens[1010], o.types[1010]) = ("中Ġ".into(), 1);
    (o.tokens[1011], o.types[1011]) = ("<0xfe>".into(), 6);
    (o.tokens[1012], o.types[1012]) = ("Ġ的Ġ".into(), 4);
    let t = o.tokenizer();
    assert_eq!(t.vocab().bytes(1010), "中Ġ".as_bytes());
    assert_eq!(t.vocab().bytes(1011), [0xFE]);
    assert_eq!(t.encode("xĠ的Ġ", Specials::Plain)[1], 1012);
    o.tokens[1012].clear();
    let t = o.tokenizer();
    assert_eq!(t.decode(&t.encode("an empty added token", Specials::Parse), true), "an empty added token");
}
