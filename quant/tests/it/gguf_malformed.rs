//! GGUF: one hand-made bad file per rule, and seeded random damage to a good one.
//!
//! Each case is checked for its rule and for what the message names, and the file without the fault opens.

use std::time::{Duration, Instant};

use huozi_quant::gguf::{Error, Reader, Rule, Value, limits};

/// A file put together byte by byte, without the writer.
#[derive(Clone)]
pub struct Raw {
    magic: [u8; 4],
    version: u32,
    /// `None`: as many as there are.
    n_tensors: Option<u64>,
    n_kv: Option<u64>,
    kv: Vec<Vec<u8>>,
    pub tensors: Vec<Vec<u8>>,
    alignment: usize,
    data: Vec<u8>,
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;
const U8: u32 = 0;
const U32: u32 = 4;
const BOOL: u32 = 7;
pub const F32: u32 = 0;
const Q4_0: u32 = 2;
const Q4_K: u32 = 12;

fn string(s: impl AsRef<[u8]>) -> Vec<u8> {
    let s = s.as_ref();
    [&(s.len() as u64).to_le_bytes()[..], s].concat()
}

fn kv(key: impl AsRef<[u8]>, value_type: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    [&string(key)[..], &value_type.to_le_bytes(), value.as_ref()].concat()
}

/// An array with a length that may be a lie.
fn array(of: u32, len: u64, body: impl AsRef<[u8]>) -> Vec<u8> {
    [&of.to_le_bytes()[..], &len.to_le_bytes(), body.as_ref()].concat()
}

pub fn tensor(name: impl AsRef<[u8]>, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let dims: Vec<u8> = (dims.len() as u32)
        .to_le_bytes()
        .into_iter()
        .chain(dims.iter().flat_map(|d| d.to_le_bytes()))
        .collect();
    [&string(name)[..], &dims, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
}

impl Raw {
    /// A good file: three entries, two tensors of 128 and 36 bytes.
    pub fn good() -> Raw {
        Raw {
            magic: *b"GGUF",
            version: 3,
            n_tensors: None,
            n_kv: None,
            kv: vec![
                kv("general.architecture", STRING, string("bloom")),
                kv("tokens", ARRAY, array(STRING, 2, [string("月"), string("")].concat())),
                kv("flag", BOOL, [1]),
            ],
            tensors: vec![tensor("first", &[8, 4], F32, 0), tensor("second", &[64], Q4_0, 128)],
            alignment: 32,
            data: vec![7; 128 + 36],
        }
    }

    fn header(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_kv.unwrap_or(self.kv.len() as u64).to_le_bytes());
        out.extend(self.kv.concat());
        out.extend(self.tensors.concat());
        out
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(&self.data);
        out
    }

    pub fn open(&self) -> Result<Reader, Error> {
        Reader::from_bytes("bad.gguf", self.bytes())
    }

    /// With one more entry.
    fn and_kv(mut self, entry: Vec<u8>) -> Raw {
        self.kv.push(entry);
        self
    }

    /// With these tensors instead.
    pub fn with_tensors(mut self, tensors: Vec<Vec<u8>>) -> Raw {
        self.tensors = tensors;
        self
    }
}

/// Opening `raw` breaks `rule`, and says each of `words`.
#[track_caller]
pub fn refused(raw: &Raw, rule: Rule, words: &[&str]) {
    refused_bytes(raw.bytes(), rule, words);
}

#[track_caller]
fn refused_bytes(bytes: Vec<u8>, rule: Rule, words: &[&str]) {
    let start = Instant::now();
    let error = Reader::from_bytes("bad.gguf", bytes).expect_err("opened");
    assert!(start.elapsed() < Duration::from_millis(500), "took {:?}: {error}", start.elapsed());
    let message = error.to_string();
    assert_eq!(error.rule(), Some(rule), "{message}");
    assert!(message.starts_with("bad.gguf: "), "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} not in: {message}");
    }
}

#[test]
fn the_file_without_a_fault_opens() {
    for version in [2, 3] {
        let reader = Raw { version, ..Raw::good() }.open().unwrap();
        assert_eq!(reader.version(), version);
        let meta = reader.meta();
        assert_eq!(meta.str("general.architecture").unwrap(), Some("bloom"));
        assert_eq!(meta.strings("tokens").unwrap().unwrap().iter().collect::<Vec<_>>(), ["月", ""]);
        assert_eq!(meta.bool("flag").unwrap(), Some(true));
        assert_eq!(reader.bytes(reader.tensor("second").unwrap()).len(), 36);
    }
}

#[test]
fn magic() {
    refused(&Raw { magic: *b"GGML", ..Raw::good() }, Rule::Magic, &["GGUF", "GGML", "at byte 0"]);
    refused_bytes(vec![], Rule::Magic, &["empty file"]);
    refused_bytes(b"GG".to_vec(), Rule::Magic, &["\"GG\""]);
    refused_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid".to_vec(),
        Rule::Magic,
        &["Git LFS pointer"],
    );
    refused_bytes(b"PK\x03\x04 and so on".to_vec(), Rule::Magic, &["zip"]);
    refused_bytes(b"\x1b[2J".to_vec(), Rule::Magic, &["\\x1b[2J"]);
}

#[test]
fn version() {
    for version in [0, 1, 4, 1000] {
        refused(&Raw { version, ..Raw::good() }, Rule::Version, &["version 2 or 3", &version.to_string()]);
    }
}

#[test]
fn big_endian() {
    let raw = Raw { version: 3u32.swap_bytes(), ..Raw::good() };
    refused(&raw, Rule::Endianness, &["big-endian file (version 3)"]);
}

#[test]
fn truncated_anywhere() {
    let bytes = Raw::good().bytes();
    for n in 0..bytes.len() {
        let error = Reader::from_bytes("cut.gguf", bytes[..n].to_vec()).expect_err("opened");
        let rules = [Rule::Magic, Rule::Truncated, Rule::Count, Rule::OutsideFile];
        assert!(rules.contains(&error.rule().unwrap()), "{n}: {error}");
        assert!(n < 4 || error.to_string().contains("download or convert it again"), "{n}: {error}");
    }
    refused_bytes(bytes[..bytes.len() - 1].to_vec(), Rule::OutsideFile, &["\"second\"", "1 byte earlier"]);
    // In the middle of a value.
    let header =
        Raw { n_tensors: Some(0), n_kv: Some(1), kv: vec![kv("number", U32, [1, 2, 3])], ..Raw::good() };
    let header = Raw { tensors: vec![], ..header }.header();
    refused_bytes(header, Rule::Truncated, &["\"number\"", "4 bytes", "3 bytes to its end"]);
}

#[test]
fn trailing_data_is_tolerated() {
    let mut raw = Raw::good();
    raw.data.extend([9; 1000]);
    raw.open().unwrap();
    // And a file of metadata alone needs no padding.
    let raw = Raw::good().with_tensors(vec![]);
    assert!(Reader::from_bytes("vocab.gguf", raw.header()).unwrap().tensors().is_empty());
}

#[test]
fn count_of_entries() {
    for n_kv in [1 << 20, 1 << 32, 1 << 63, u64::MAX, u64::MAX / 13 + 2] {
        refused(
            &Raw { n_kv: Some(n_kv), ..Raw::good() },
            Rule::Count,
            &["metadata entries", &n_kv.to_string()],
        );
    }
    // The file is long enough, but the count is over the cap.
    let mut raw = Raw { n_kv: Some(limits::MAX_KV + 1), ..Raw::good() };
    raw.data.resize(2 << 20, 0);
    refused(&raw, Rule::Count, &["at most 65536 metadata entries"]);
}

#[test]
fn count_of_tensors() {
    for n in [1_000_000_000, 1 << 32, 1 << 63, u64::MAX, u64::MAX / 24 + 2] {
        refused(&Raw { n_tensors: Some(n), ..Raw::good() }, Rule::Count, &["tensors", &n.to_string()]);
    }
    let mut raw = Raw { n_tensors: Some(limits::MAX_TENSORS + 1), ..Raw::good() };
    raw.data.resize(4 << 20, 0);
    refused(&raw, Rule::Count, &["at most 65536 tensors"]);
    // It fits the file at first, but not what the metadata leaves.
    let raw = Raw::good().and_kv(kv("big", STRING, string(vec![b'x'; 10_000])));
    refused(&Raw { n_tensors: Some(100), ..raw }, Rule::Count, &["left for them", "100"]);
}

#[test]
fn string_length() {
    let claims = |len: u64| kv("text", STRING, [&len.to_le_bytes()[..], b"abc"].concat());
    for len in [u64::MAX, 1 << 63, limits::MAX_STRING_BYTES + 1] {
        refused(&Raw::good().and_kv(claims(len)), Rule::StringLength, &["\"text\"", &len.to_string()]);
    }
    let raw = Raw { data: vec![], tensors: vec![], ..Raw::good() };
    refused(
        &raw.clone().and_kv(claims(1 << 20)),
        Rule::Truncated,
        &["\"text\"", "1048576 bytes of a string"],
    );
    // In an array too.
    let inside = array(STRING, 1, [&u64::MAX.to_le_bytes()[..], b"abc"].concat());
    refused(&raw.and_kv(kv("list", ARRAY, inside)), Rule::StringLength, &["\"list\"", &u64::MAX.to_string()]);
}

#[test]
fn utf8() {
    refused(
        &Raw::good().and_kv(kv("text", STRING, string(b"ab\xff"))),
        Rule::Utf8,
        &["\"text\"", "0xff", "2 of 3"],
    );
    refused(&Raw::good().and_kv(kv(b"k\xc3", U8, [0])), Rule::Utf8, &["\"#3\"", "0xc3"]);
    let list = array(STRING, 2, [string("a"), string(b"\xe6\x9c")].concat());
    refused(&Raw::good().and_kv(kv("list", ARRAY, list)), Rule::Utf8, &["\"list\"", "0xe6"]);
    refused(&Raw::good().with_tensors(vec![tensor(b"\x80", &[1], F32, 0)]), Rule::Utf8, &["\"#0\"", "0x80"]);
}

#[test]
fn value_type() {
    for id in [13, 255, u32::MAX] {
        let words = ["\"odd\"", "a value type", &id.to_string()];
        refused(&Raw::good().and_kv(kv("odd", id, [0; 8])), Rule::ValueType, &words);
    }
}

#[test]
fn array_element_type() {
    for id in [13, u32::MAX] {
        let raw = Raw::good().and_kv(kv("odd", ARRAY, array(id, 0, [])));
        refused(&raw, Rule::ValueType, &["\"odd\"", "an array element type", &id.to_string()]);
    }
}

#[test]
fn array_length() {
    for of in [U8, 1, U32, BOOL, STRING, ARRAY, 10, 12] {
        for len in [1 << 63, u64::MAX, u64::MAX / 8 + 2, u64::MAX / 12 + 2, 1 << 40, 1000] {
            let raw = Raw::good().and_kv(kv("long", ARRAY, array(of, len, [])));
            refused(&raw, Rule::Count, &["\"long\"", "array elements", &len.to_string()]);
        }
    }
}

#[test]
fn a_huge_array_inside_an_array_neither_allocates_nor_loops() {
    let raw = Raw::good().and_kv(kv("deep", ARRAY, array(ARRAY, 1, array(ARRAY, 1 << 63, []))));
    refused(&raw, Rule::Count, &["\"deep\"", &(1u64 << 63).to_string()]);
}

#[test]
fn array_depth() {
    let nested = |depth: usize| (1..depth).fold(array(U8, 1, [5]), |inner, _| array(ARRAY, 1, inner));
    let good = Raw::good().and_kv(kv("deep", ARRAY, nested(limits::MAX_ARRAY_DEPTH)));
    good.open().unwrap();
    for depth in [limits::MAX_ARRAY_DEPTH + 1, 2000] {
        let raw = Raw::good().and_kv(kv("deep", ARRAY, nested(depth)));
        refused(&raw, Rule::ArrayDepth, &["\"deep\"", "at most 4 deep"]);
    }
}

#[test]
fn truth_value() {
    refused(&Raw::good().and_kv(kv("maybe", BOOL, [2])), Rule::Bool, &["\"maybe\"", "found 2"]);
    let raw = Raw::good().and_kv(kv("maybe", ARRAY, array(BOOL, 3, [1, 0, 255])));
    refused(&raw, Rule::Bool, &["\"maybe\"", "found 255"]);
}

#[test]
fn key_name() {
    refused(&Raw::good().and_kv(kv("", U8, [0])), Rule::KeyName, &["\"#3\"", "a length of 0"]);
    refused(&Raw::good().and_kv(kv(vec![b'k'; 1 << 16], U8, [0])), Rule::KeyName, &["1 to 65535", "65536"]);
    Raw::good().and_kv(kv(vec![b'k'; (1 << 16) - 1], U8, [0])).open().unwrap();
}

#[test]
fn a_message_is_short_and_without_escapes_whatever_the_name() {
    let key = [b"\x1b[31m".to_vec(), vec![b'k'; 60_000]].concat();
    let message = Raw::good().and_kv(kv(key, 99, [])).open().unwrap_err().to_string();
    assert!(message.len() < 400 && !message.contains('\x1b') && message.contains("60005 bytes"), "{message}");
}

#[test]
fn key_twice() {
    refused(&Raw::good().and_kv(kv("flag", U8, [0])), Rule::KeyTwice, &["\"flag\"", "a second time"]);
}

#[test]
fn alignment() {
    let with = |value_type, value: &[u8]| Raw::good().and_kv(kv("general.alignment", value_type, value));
    for bad in [0u32, 1, 4, 24, 48, 1 << 17, 1 << 31, u32::MAX] {
        let words = ["general.alignment", "power of two from 8 to 65536", &bad.to_string()];
        refused(&with(U32, &bad.to_le_bytes()), Rule::Alignment, &words);
    }
    // Of another type, even with a good number.
    refused(&with(10, &32u64.to_le_bytes()), Rule::Alignment, &["UINT64 32"]);
    refused(&with(5, &32i32.to_le_bytes()), Rule::Alignment, &["INT32 32"]);
    refused(&with(STRING, &string("32")), Rule::Alignment, &["STRING \"32\""]);
    refused(&with(ARRAY, &array(U32, 1, 32u32.to_le_bytes())), Rule::Alignment, &["array of 1 UINT32"]);
    for good in [8usize, 64, 65536] {
        let raw = with(U32, &(good as u32).to_le_bytes());
        let raw = Raw { alignment: good, ..raw }.with_tensors(vec![tensor("first", &[8, 4], F32, 0)]);
        assert_eq!(raw.open().unwrap().parts()[0].data_offset() % good as u64, 0);
    }
}

#[test]
fn tensor_name() {
    refused(
        &Raw::good().with_tensors(vec![tensor("", &[1], F32, 0)]),
        Rule::TensorName,
        &["\"#0\"", "length of 0"],
    );
    let long = "n".repeat(256);
    refused(&Raw::good().with_tensors(vec![tensor(&long, &[1], F32, 0)]), Rule::TensorName, &["255", "256"]);
    Raw::good().with_tensors(vec![tensor(&long[1..], &[1], F32, 0)]).open().unwrap();
}

#[test]
fn tensor_twice() {
    let raw = Raw::good().with_tensors(vec![tensor("same", &[8], F32, 0), tensor("same", &[8], F32, 32)]);
    refused(&raw, Rule::TensorTwice, &["tensor \"same\""]);
}

#[test]
fn number_of_dimensions() {
    refused(
        &Raw::good().with_tensors(vec![tensor("t", &[], F32, 0)]),
        Rule::DimCount,
        &["tensor \"t\"", "found 0"],
    );
    refused(&Raw::good().with_tensors(vec![tensor("t", &[1; 5], F32, 0)]), Rule::DimCount, &["found 5"]);
    let lie = [&string("t")[..], &u32::MAX.to_le_bytes(), &[1; 40]].concat();
    refused(&Raw::good().with_tensors(vec![lie]), Rule::DimCount, &["found 4294967295"]);
    Raw::good().with_tensors(vec![tensor("t", &[2, 2, 2, 2], F32, 0)]).open().unwrap();
}

#[test]
fn dimension_of_zero() {
    for dims in [&[0][..], &[8, 0], &[0, u64::MAX], &[8, 1, 1, 0]] {
        refused(&Raw::good().with_tensors(vec![tensor("t", dims, F32, 0)]), Rule::DimZero, &["tensor \"t\""]);
    }
}

#[test]
fn tensor_size_that_wraps() {
    // Products that wrap to something small; the exabyte tensor of CVE-2026-33298; 2^63 weights in Q4_0.
    let all: [&[u64]; 6] = [
        &[1 << 32, 1 << 32],
        &[1 << 32, 1 << 31, 2, 1],
        &[(1 << 42) + 32, 1 << 22],
        &[u64::MAX - 31, u64::MAX],
        &[1 << 62, 2],
        &[1 << 16; 4],
    ];
    for dims in all {
        for kind in [F32, Q4_0] {
            let raw = Raw::good().with_tensors(vec![tensor("t", dims, kind, 0)]);
            refused(&raw, Rule::TensorSize, &["tensor \"t\"", &dims[0].to_string()]);
        }
    }
    refused(&Raw::good().with_tensors(vec![tensor("t", &[1 << 61], F32, 0)]), Rule::TensorSize, &[]);
}

#[test]
fn tensor_type() {
    for (id, name) in [(4, "type 4 (Q4_2"), (31, "Q4_0_4_4"), (42, "type 42"), (u32::MAX, "4294967295")] {
        let raw = Raw::good().with_tensors(vec![tensor("odd", &[256], id, 0)]);
        refused(&raw, Rule::TensorType, &["tensor \"odd\"", name, "Q4_K"]);
    }
}

#[test]
fn row_of_broken_blocks() {
    for (cols, kind, name) in [(33, Q4_0, "Q4_0"), (16, Q4_0, "Q4_0"), (128, Q4_K, "Q4_K")] {
        // The product is a multiple of the block, the row is not.
        let raw = Raw::good().with_tensors(vec![tensor("t", &[cols, 256], kind, 0)]);
        refused(&raw, Rule::Block, &["tensor \"t\"", name, &format!("rows of {cols}")]);
    }
}

#[test]
fn offset_off_the_alignment() {
    for offset in [1, 16, 33] {
        let raw = Raw::good().with_tensors(vec![tensor("t", &[1], F32, offset)]);
        refused(&raw, Rule::Offset, &["tensor \"t\"", "multiple of 32", &offset.to_string()]);
    }
}

#[test]
fn tensor_outside_the_file() {
    let at = |offset| Raw::good().with_tensors(vec![tensor("t", &[8, 4], F32, offset)]);
    at(32).open().unwrap();
    refused(&at(64), Rule::OutsideFile, &["tensor \"t\"", "128 bytes"]);
    refused(&at(1 << 62), Rule::OutsideFile, &["earlier: the file was cut"]);
    // Ends that wrap.
    for offset in [u64::MAX - 31, u64::MAX - 127, u64::MAX - 255] {
        refused(&at(offset), Rule::OutsideFile, &["past 2^64"]);
    }
    // Declared far larger than the data, as in CVE-2026-7482.
    let raw = Raw::good().with_tensors(vec![tensor("t", &[1 << 20, 4], F32, 0)]);
    refused(&raw, Rule::OutsideFile, &["16777216 bytes"]);
}

#[test]
fn tensors_that_overlap() {
    let two = |a, b| Raw::good().with_tensors(vec![tensor("a", &[16], F32, a), tensor("b", &[16], F32, b)]);
    two(0, 64).open().unwrap();
    // In any order, and with a gap.
    two(96, 0).open().unwrap();
    refused(&two(0, 32), Rule::Overlap, &["tensor \"b\"", "tensor \"a\""]);
    refused(&two(32, 0), Rule::Overlap, &["tensor \"a\"", "tensor \"b\""]);
    refused(&two(64, 64), Rule::Overlap, &[]);
    // Not neighbours in the header.
    let three = vec![tensor("a", &[16], F32, 0), tensor("m", &[16], F32, 64), tensor("z", &[8], F32, 32)];
    refused(&Raw::good().with_tensors(three), Rule::Overlap, &["\"z\"", "\"a\""]);
}

#[test]
fn a_value_of_the_wrong_type_is_an_error_that_says_so() {
    let raw = Raw::good()
        .and_kv(kv("minus", 5, (-1i32).to_le_bytes()))
        .and_kv(kv("half", 6, 0.5f32.to_le_bytes()))
        .and_kv(kv("big", ARRAY, array(10, 2, [1u64.to_le_bytes(), (1u64 << 63).to_le_bytes()].concat())))
        .and_kv(kv("halves", ARRAY, array(6, 1, 0.5f32.to_le_bytes())));
    let reader = raw.open().unwrap();
    let meta = reader.meta();
    #[track_caller]
    fn wrong<T: std::fmt::Debug>(got: Result<Option<T>, Error>, message: &str) {
        let error = got.unwrap_err();
        assert_eq!((error.rule(), error.to_string().as_str()), (Some(Rule::WrongType), message));
    }
    let at = |key: &str, rest: &str| format!("bad.gguf: metadata key \"{key}\": expected {rest}");
    wrong(meta.str("flag"), &at("flag", "a string, found the BOOL true"));
    wrong(meta.uint("minus"), &at("minus", "an integer of at least 0, found the INT32 -1"));
    wrong(meta.uint("half"), &at("half", "an integer of at least 0, found the FLOAT32 0.5"));
    wrong(meta.float("minus"), &at("minus", "a floating-point number, found the INT32 -1"));
    wrong(meta.bool("minus"), &at("minus", "a BOOL, found the INT32 -1"));
    wrong(meta.strings("big"), &at("big", "an array of STRING, found an array of 2 UINT64"));
    wrong(
        meta.strings("general.architecture"),
        &at("general.architecture", "an array of STRING, found the STRING \"bloom\""),
    );
    wrong(meta.ints("big"), &at("big", "an array of integers below 2^63, found an array of 2 UINT64"));
    wrong(meta.ints("halves"), &at("halves", "an array of integers below 2^63, found an array of 1 FLOAT32"));
    assert!(meta.uint("absent").unwrap().is_none() && meta.ints("absent").unwrap().is_none());
}

/// Damages a copy of a good file in some thousand ways and opens it. Whatever opens is read through and
/// through.
#[test]
fn random_damage_never_panics_and_never_takes_long() {
    let mut raw = Raw::good();
    let inner = [array(STRING, 2, [string("甲"), string("乙")].concat()), array(U8, 3, [1, 2, 3])].concat();
    for value_type in 0..=12u32 {
        let value = match value_type {
            STRING => string("text"),
            ARRAY => array(ARRAY, 2, &inner),
            BOOL => vec![1],
            _ => vec![1; [1, 1, 2, 2, 4, 4, 4, 0, 0, 0, 8, 8, 8][value_type as usize]],
        };
        raw = raw.and_kv(kv(format!("key.{value_type}"), value_type, value));
    }
    let good = raw.bytes();
    read_everything(&raw.open().unwrap());
    let header = raw.header().len() as u64;

    // Seeded, so that a failure repeats.
    let mut random = huozi_quant::random::Random::new(1);
    let mut random = move |below: u64| random.below(below);
    let (mut opened, mut rules, mut slowest) = (0, std::collections::HashSet::new(), Duration::ZERO);
    for round in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=random(3) {
            let at = random(header) as usize;
            match random(5) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] ^= 1 << random(8),
                2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random(5) as usize],
                3 => {
                    let extreme = [0, 1, u64::MAX, 1 << 63, u64::MAX / 2, 1 << 32][random(6) as usize];
                    let end = bytes.len().min(at + 8);
                    bytes[at..end].copy_from_slice(&extreme.to_le_bytes()[..end - at]);
                }
                _ => {
                    let from = random(header) as usize;
                    let n = (random(24) as usize).min(bytes.len() - at.max(from));
                    bytes.copy_within(from..from + n, at);
                }
            }
        }
        if random(4) == 0 {
            bytes.truncate(random(good.len() as u64) as usize);
        }
        let start = Instant::now();
        match Reader::from_bytes("damaged.gguf", bytes) {
            Ok(reader) => {
                opened += 1;
                read_everything(&reader);
            }
            Err(error) => {
                rules.insert(error.rule().unwrap_or_else(|| panic!("round {round}: {error}")));
                assert!(error.to_string().len() < 1000, "round {round}: {error}");
            }
        }
        slowest = slowest.max(start.elapsed());
    }
    // Damage that is never noticed, or always in the same way, would test nothing.
    assert!(opened > 500 && rules.len() >= 15, "{opened} opened, rules {rules:?}");
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
}

fn read_everything(reader: &Reader) {
    let meta = reader.meta();
    assert!(!format!("{meta:?}").is_empty());
    for (key, value) in meta.iter() {
        assert!(meta.get(key).is_some());
        let owned = huozi_quant::gguf::MetaValue::from(value);
        assert_eq!(owned.value_type(), value.value_type());
        let _ = (meta.str(key), meta.uint(key), meta.float(key), meta.bool(key));
        if let Ok(Some(strings)) = meta.strings(key) {
            assert_eq!(strings.iter().count(), strings.len());
        }
        if let Ok(Some(ints)) = meta.ints(key) {
            assert_eq!(ints.iter().count(), ints.len());
        }
    }
    for tensor in reader.tensors() {
        assert_eq!(reader.tensor(&tensor.name), Some(tensor));
        assert_eq!(reader.bytes(tensor).len() as u64, tensor.bytes);
        assert_eq!(tensor.format.row_bytes(tensor.cols()).unwrap() * tensor.rows(), tensor.bytes as usize);
    }
}

#[test]
fn a_mapped_file_that_others_overwrite_gives_nonsense_but_no_panic() {
    let raw =
        Raw::good().and_kv(kv("deep", ARRAY, array(ARRAY, 2, array(STRING, 1, string("甲")).repeat(2))));
    let good = raw.bytes();
    for fill in [0u8, 1, 9, 0x7f, 0xff] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &good).unwrap();
        let reader = Reader::open(file.path(), huozi_quant::map::How::Map).unwrap();
        read_everything(&reader);
        // In place and as long as before: what is cut off would end the process, see `map`.
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), &vec![fill; good.len()], 0).unwrap();
        assert!(reader.bytes(&reader.tensors()[0]).iter().all(|&b| b == fill), "not mapped");
        read_everything(&reader);
    }
}

#[test]
fn an_inner_array_that_others_lengthen_does_not_loop() {
    let inner = array(U8, 3, [0xab, 0xcd, 0xef]);
    let good = Raw::good().and_kv(kv("deep", ARRAY, array(ARRAY, 1, &inner))).bytes();
    let length_at = good.windows(inner.len()).position(|w| w == inner).unwrap() as u64 + 4;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &good).unwrap();
    let reader = Reader::open(file.path(), huozi_quant::map::How::Map).unwrap();
    for len in [1u64 << 32, 1 << 63, u64::MAX] {
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), &len.to_le_bytes(), length_at).unwrap();
        let Some(Value::Array(outer)) = reader.meta().get("deep") else { panic!("no array") };
        let lens: Vec<_> = outer.iter().map(|v| if let Value::Array(a) = v { a.len() } else { 99 }).collect();
        assert_eq!(lens, [0]);
    }
}
