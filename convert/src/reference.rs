//! The ids that the `tokenizers` crate gives for a page of text, with a checkpoint's own `tokenizer.json`.
//!
//! In: the bytes of `tokenizer.json` and what the configuration adds. Out: texts and their ids. The crate's
//! tokenizer is dropped before the runtime's own is built: a vocabulary of 250,880 tokens takes some hundred
//! MiB there. Without the cargo feature `tokenizers` the page is empty.

use serde_json::Value;

use crate::vocab::Vocabulary;

/// Texts with their ids.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub lines: Vec<Line>,
}

/// A text with its ids.
#[derive(Debug)]
pub(crate) struct Line {
    pub text: String,
    /// Spelled control tokens are found.
    pub parse: Vec<u32>,
    /// Spelled control tokens are text.
    pub plain: Vec<u32>,
}

/// What differs between tokenizers that are nearly equal: where words begin and end, white space of every
/// kind, the listed punctuation, digits, letters outside the first plane, characters of several code points.
#[cfg(feature = "tokenizers")]
const TEXTS: [&str; 17] = [
    "白日依山尽，黄河入海流。欲穷千里目，更上一层楼！《登鹳雀楼》——王之涣（唐）",
    "活字印刷术是中国古代四大发明之一……你好，世界？「引号」、『书名』；：“双”‘单’",
    "繁體中文：電腦軟體，龍馬精神。𠮷野家 㐂 々〆〇",
    "The quick brown fox jumps over the lazy dog; it's 3.14159, isn't it? (Yes|No) [a] {b}",
    "I'm you're he'll we've THEY'D  don't_do-this e.g. U.S.A. 10,000.50$ 50% @user #tag",
    "fn main() {\n    let x: Vec<u8> = vec![0x1F; 10];\n\tif x != y && !z { println!(\"{:?}\\n\", x); }\n}\n",
    "def f(a, b=None):\n    return [i**2 for i in range(10) if i % 2 == 0]  # comment\n\n\n",
    "SELECT * FROM t WHERE a='b' AND c>=1.5e-3;-- x\r\n<p class=\"x\">&nbsp;</p>\r\n",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣ ۔ हिन्दी में पाठ। বাংলা தமிழ் ไทย ភាសាខ្មែរ",
    "Ελληνικά Русский українська עברית 日本語テキスト、ひらがな。 한국어 문장입니다. Tiếng Việt ñ é ü ß œ",
    "😀 👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇨🇳 ❤️ e\u{301} a\u{308}\u{323} \u{200d}\u{200b}\u{feff}x",
    " leading and trailing  ",
    "a  b   c    d\te\t\tf\n\ng \n h\r\ni\u{b}j\u{c}k",
    "\u{85}a\u{a0}b\u{1680}c\u{2003}d\u{2028}e\u{2029}f\u{202f}g\u{205f}h\u{3000}i\u{180e}j",
    "....,,,,!!!! ???…… 。。，，、、 ।।۔۔،، (((|||))) . , ! ? ( ) |",
    "∑∫√≈≠≤≥ ½ ² ™ © € £ ¥ ← → ■ ★ ♪ \u{0}\u{1}\u{7f} \u{e000}\u{fffd}\u{10ffff}",
    "1234567890 12 345 6,789 0x7F １２３ Ⅷ ①② v1.2.3-beta+4 2023-11-30T22:45:01Z",
];

/// Added tokens that are spelled on the page, and those of which every pair is.
#[cfg(feature = "tokenizers")]
const SPELLED: usize = 512;
#[cfg(feature = "tokenizers")]
const PAIRED: usize = 40;
/// Added tokens whose overlaps are looked for; longer ones than this many bytes are left out.
#[cfg(feature = "tokenizers")]
const OVERLAPPING: usize = 2000;
#[cfg(feature = "tokenizers")]
const MAX_BYTES: usize = 128;

impl Page {
    /// Reads the page. `config`: `tokenizer_config.json`, for the tokens that it adds, as transformers does.
    ///
    /// `Err`: why the crate cannot read `tokenizer.json`.
    #[cfg(feature = "tokenizers")]
    pub(crate) fn read(json: &[u8], config: Option<&Value>, vocab: &Vocabulary) -> Result<Self, String> {
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(|e| e.to_string())?;
        // transformers sets both for each text.
        tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
        tokenizer.with_padding(None);
        tokenizer.add_tokens(configured(config)).map_err(|e| e.to_string())?;
        let named = crate::vocab::special_names(config).into_iter();
        // Those that are tokens already and added neither here nor there.
        let named = named.filter(|name| vocab.added(name).is_some());
        let known: std::collections::HashSet<String> =
            tokenizer.get_added_vocabulary().get_vocab().keys().cloned().collect();
        let named: Vec<_> = named
            .filter(|name| !known.contains(*name))
            .map(|name| tokenizers::AddedToken::from(name, true))
            .collect();
        tokenizer.add_special_tokens(named).map_err(|e| e.to_string())?;
        let texts = texts(vocab);
        let mut ids = |plain: bool| -> Result<Vec<Vec<u32>>, String> {
            tokenizer.set_encode_special_tokens(plain);
            let one = |text: &String| -> tokenizers::Result<Vec<u32>> {
                Ok(tokenizer.encode_fast(text.as_str(), false)?.get_ids().to_vec())
            };
            texts.iter().map(one).collect::<tokenizers::Result<_>>().map_err(|e| e.to_string())
        };
        let (parse, plain) = (ids(false)?, ids(true)?);
        let lines = texts.into_iter().zip(parse).zip(plain);
        Ok(Self { lines: lines.map(|((text, parse), plain)| Line { text, parse, plain }).collect() })
    }

    /// An empty page: this program is built without the `tokenizers` crate.
    #[cfg(not(feature = "tokenizers"))]
    pub(crate) fn read(_: &[u8], _: Option<&Value>, _: &Vocabulary) -> Result<Self, String> {
        Ok(Self::default())
    }
}

/// The tokens of `added_tokens_decoder` and of `added_tokens.json`, in the order of their ids.
#[cfg(feature = "tokenizers")]
fn configured(config: Option<&Value>) -> Vec<tokenizers::AddedToken> {
    use tokenizers::AddedToken;
    let mut tokens: Vec<(u64, AddedToken)> = Vec::new();
    if let Some(Value::Object(map)) = config.map(|c| &c["added_tokens_decoder"]) {
        for (id, token) in map {
            let (Ok(id), Some(content)) = (id.parse(), token["content"].as_str()) else { continue };
            let flag = |key: &str| token[key].as_bool();
            let added = AddedToken::from(content, flag("special").unwrap_or(false));
            let normalized = flag("normalized").unwrap_or(added.normalized);
            tokens.push((id, added.normalized(normalized)));
        }
    }
    if let Some(Value::Object(map)) = config.map(|c| &c[crate::vocab::ADDED_TOKENS]) {
        let special = crate::vocab::special_names(config);
        let token =
            |content: &String| AddedToken::from(content.as_str(), special.contains(&content.as_str()));
        tokens.extend(map.iter().filter_map(|(content, id)| Some((id.as_u64()?, token(content)))));
    }
    tokens.sort_by_key(|(id, _)| *id);
    tokens.into_iter().map(|(_, token)| token).collect()
}

/// The texts: the fixed ones, alone and together, and each added token between other
/// texts.
#[cfg(feature = "tokenizers")]
fn texts(vocab: &Vocabulary) -> Vec<String> {
    let mut texts: Vec<String> = TEXTS.iter().map(|&text| text.to_owned()).collect();
    texts.push(TEXTS.concat());
    let mut added: Vec<(u32, &str)> = vocab.all_added().map(|(content, id)| (id, content)).collect();
    added.sort_unstable();
    let added: Vec<&str> =
        added.into_iter().map(|(_, content)| content).filter(|c| c.len() <= MAX_BYTES).collect();
    for token in added.iter().take(SPELLED) {
        texts.push(format!("{token}好{token} x {token}y\n{token}{token} "));
    }
    for a in added.iter().take(PAIRED) {
        texts.extend(added.iter().take(PAIRED).map(|b| format!("{a}{b} ")));
    }
    // One that ends as the other begins, or lies within it: the passes of the search show there.
    for a in added.iter().take(OVERLAPPING) {
        for b in added.iter().take(OVERLAPPING) {
            let starts = b.char_indices().map(|(i, _)| i).skip(1);
            texts.extend(starts.filter(|&i| a.ends_with(&b[..i])).map(|i| format!("x{a}{}y", &b[i..])));
            if texts.len() > MAX_TEXTS {
                return texts;
            }
        }
    }
    texts
}

/// Tokens that all begin and end alike give a great many overlaps.
#[cfg(feature = "tokenizers")]
const MAX_TEXTS: usize = 20_000;
