//! Files, streams and their records; ids, and rows by number.

use super::*;
use huozi::batch::input::{FollowedInput, InputForm, MAX_RECORD_BYTES};
use std::io::{Cursor, Write};
use std::os::unix::fs::FileExt;

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

#[test]
fn lines_that_are_no_json_are_rows_that_fail() {
    let mut lines = b"\xef\xbb\xbf{\"custom_id\":\"a\",\"prompt\":\"a\"}\r\n\r\n  \nnot json\n".to_vec();
    lines.extend(b"{\"prompt\":\"\\ud800\"}\n{\"prompt\":NaN}\n{\"prompt\":\"a\",\"seed\":1e999}\n[1]\n");
    lines.extend(b"{\"prompt\":\"a\",\"prompt\":\"b\"}\n{\"prompt\":\"\xff\"}\n{\"prompt\":\"a\"} x\n");
    lines.extend("[".repeat(300).bytes());
    lines.extend(b"\n{\"custom_id\":\"z\",\"prompt\":\"z\"}");
    let input = check("in.jsonl", &lines);
    let rows = rows(&input);
    assert_eq!(input.counts().blank_lines, 2);
    assert_eq!((input.counts().rows, input.counts().failed()), (11, 9));
    assert_eq!(input.counts().failures.get("invalid_json"), Some(&9));
    let ids = rows.iter().map(|row| row.as_ref().map_or_else(|bad| bad.id.clone(), |row| row.id.clone()));
    let want = [
        "a", "line-4", "line-5", "line-6", "line-7", "line-8", "line-9", "line-10", "line-11", "line-12", "z",
    ];
    assert_eq!(ids.collect::<Vec<_>>(), want);
    let message = |row: usize| rows[row].as_ref().unwrap_err().error.message.as_str();
    assert!(message(2).contains("surrogate"), "{}", message(2));
    assert!(message(6).contains("\"prompt\" is there twice"), "{}", message(6));
    assert!(message(7).contains("not UTF-8 at byte 12"), "{}", message(7));
    assert!(message(9).contains("recursion"), "{}", message(9));
    for (row, id) in want.iter().enumerate() {
        assert_eq!(input.find(id).unwrap(), Some(row), "{id}");
    }
    assert_eq!(input.find("line-1").unwrap(), None, "this line has an id of its own");
    assert_eq!(input.find("line-2").unwrap(), None);
}

#[test]
fn a_line_over_the_limit_fails_and_the_next_is_read() {
    let mut lines = vec![b'x'; MAX_RECORD_BYTES + 1];
    lines.extend(b"\n{\"prompt\":\"a\"}\n\"");
    lines.extend(vec![b'y'; MAX_RECORD_BYTES - 2]);
    lines.extend(b"\"\n");
    let input = check("in.jsonl", &lines);
    let rows = rows(&input);
    let error = |row: usize| rows[row].as_ref().unwrap_err().error.code;
    assert_eq!((rows.len(), error(0), error(2)), (3, "line_too_long", "invalid_json"));
    assert!(rows[1].is_ok());
    assert_eq!(input.bytes(), lines.len() as u64);
}

#[test]
fn text_and_columns_give_prompts() {
    let chat = |text: &str| chat_ids(&[user(text)]);
    let text = "你好\r\n\n  第二 \n{\"prompt\":\"a\"}";
    let input = check("in.txt", text);
    let prompts =
        |input: &CheckedInput| rows(input).into_iter().map(|row| row.unwrap().job.prompt).collect::<Vec<_>>();
    assert_eq!((input.form(), input.counts().blank_lines), (InputForm::Text, 1));
    assert_eq!(prompts(&input), [chat("你好"), chat("  第二 "), chat("{\"prompt\":\"a\"}")]);
    assert_eq!(input.line(2), 4);
    let raw = InputOptions { raw: true, ..InputOptions::default() };
    assert_eq!(prompts(&check_as("in.txt", text, &raw).unwrap())[1], text_ids("  第二 "));

    let csv =
        "\u{feff}id,prompt,answer\r\n1,\"多行\n与\"\"引号\"\",和逗号\",B\r\n\r\nx,短,A\r\n,a 5\" pipe,C\n";
    for (name, bytes) in
        [("in.csv", csv.to_owned()), ("in.tsv", csv.replace("\",", "\"\t").replace([','], "\t"))]
    {
        let bytes = bytes.replace("引号\"\"\t和", "引号\"\",和");
        let input = check(name, &bytes);
        let rows = rows(&input).into_iter().map(|row| row.unwrap()).collect::<Vec<_>>();
        let told = rows.iter().map(|row| (row.id.as_str(), row.line)).collect::<Vec<_>>();
        assert_eq!(told, [("1", 2), ("x", 5), ("line-6", 6)], "{name}");
        assert_eq!(rows[0].job.prompt, chat("多行\n与\"引号\",和逗号"), "{name}");
        assert_eq!(rows[2].job.prompt, chat("a 5\" pipe"), "{name}");
        assert_eq!(input.unused_columns(), ["answer"]);
    }
    let answer = InputOptions { column: Some("answer".into()), raw: true, ..InputOptions::default() };
    assert_eq!(prompts(&check_as("in.csv", csv, &answer).unwrap()), ["B", "A", "C"].map(text_ids));

    let bad = check("in.csv", "prompt,id\na,1,2\nb\n\"\",3\n\"x\" y,4\n\"open,5\n6,7\n");
    let told = rows(&bad).into_iter().map(|row| row.unwrap_err()).collect::<Vec<_>>();
    let whats = ["3 fields", "1 field,", "empty", "must be doubled", "the 2 lines to the end of the"];
    assert_eq!(told.len(), whats.len());
    for (bad, what) in told.iter().zip(whats) {
        assert!(bad.error.message.contains(what), "{}", bad.error.message);
    }
    assert_eq!((told[2].id.as_str(), told[4].line), ("3", 6));

    for (name, bytes, what) in [
        ("in.csv", "id,text\n1,a\n", "no column \"prompt\": it names \"id\", \"text\""),
        ("in.csv", "prompt,prompt\n1,a\n", "more than one column \"prompt\""),
        ("in.csv", "prompt,id,id\n1,a,b\n", "more than one column \"id\""),
        ("in.csv", "prompt\n", "no rows"),
        ("in.csv", "", "no rows"),
        ("in.csv", "\"prompt\n", "does not end"),
        ("in.txt", "\n \n", "no rows"),
        ("in.jsonl", "", "no rows"),
        ("in.json", "[{\"prompt\":\"a\"}]", "jq -c"),
        // By what it holds, as on standard input.
        ("in", "[{\"prompt\":\"a\"}, {\"prompt\":\"b\"}]", "jq -c"),
        ("in.json", "\n[\n{\"prompt\":\"a\"},\n{\"prompt\":\"b\"}\n]\n", "jq -c"),
    ] {
        let error = refused(name, bytes);
        assert!(error.contains(what), "{error}");
    }
    for (magic, what) in
        [(&b"\x28\xb5\x2f\xfd...."[..], "zstd"), (b"PK\x03\x04...", "ZIP"), (b"PAR1", "Parquet")]
    {
        let error = refused("in.jsonl", magic);
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn forms_are_told_by_name_then_by_the_first_lines() {
    let json = "{\"prompt\":\"a\"}\n";
    for (name, bytes, form) in [
        ("in.NDJSON", json, InputForm::JsonLines),
        ("in.jsonl.gz", json, InputForm::JsonLines),
        ("in", json, InputForm::JsonLines),
        ("in.data", "broken\n{\"prompt\":\"a\"}\n", InputForm::JsonLines),
        ("in", "hello\n", InputForm::Text),
        ("in.txt", json, InputForm::Text),
        ("in.csv.gz", "prompt\na\n", InputForm::Csv),
        ("in.tsv", "prompt\na\n", InputForm::Tsv),
    ] {
        assert_eq!(check(name, bytes).form(), form, "{name}");
    }
    let options = InputOptions { form: Some(InputForm::JsonLines), ..InputOptions::default() };
    assert_eq!(check_as("in.txt", json, &options).unwrap().form(), InputForm::JsonLines);
}

#[test]
fn compressed_piped_and_foreign_inputs_give_the_same_rows() {
    let text = "{\"custom_id\":\"甲\",\"prompt\":\"月\"}\n{\"prompt\":\"日\"}\n".to_owned();
    let plain = check("in.jsonl", &text);
    let want = rows(&plain).into_iter().map(|row| format!("{row:?}")).collect::<Vec<_>>();
    let told = |input: CheckedInput| {
        assert_eq!(input.digest(), plain.digest());
        rows(&input).into_iter().map(|row| format!("{row:?}")).collect::<Vec<_>>()
    };
    let (one, two) = text.split_at(20);
    let members = [gz(one.as_bytes()), gz(two.as_bytes())].concat();
    assert_eq!(told(check("in.jsonl.gz", gz(text.as_bytes()))), want);
    assert_eq!(told(check("in.jsonl", members.clone())), want);
    for bytes in [text.as_bytes(), &members] {
        let options = InputOptions::default();
        let input = InputFile::from_reader(bytes, "standard input", &options, &NEVER).unwrap();
        assert_eq!(told(input.check(preparer(), &mut |_| {}, &NEVER).unwrap()), want);
    }
    let units = |big: bool| {
        let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(bytes).collect::<Vec<u8>>()
    };
    assert_eq!(told(check("in.jsonl", units(false))), want);
    assert_eq!(told(check("in.jsonl", units(true))), want);
    assert_eq!(check("in.jsonl", "[1]\n[2]\n").counts().failed(), 2);
    let cut = &members[..members.len() - 12];
    let error = refused("in.jsonl.gz", cut);
    assert!(error.contains("gzip data is damaged or cut off"), "{error}");

    // GB18030 without a mark, and UTF-8 of which one line is damaged.
    let lines = "床前明月光，\n疑是地上霜。\n".repeat(400);
    let foreign = check("in.txt", in_gb18030(&lines));
    assert_eq!(foreign.counts().failed(), 0);
    assert_eq!(foreign.prepared(1).unwrap().unwrap().job.prompt, chat_ids(&[user("疑是地上霜。")]));
    let damaged = [lines.as_bytes(), b"\xe6\x9c\n", lines.as_bytes()].concat();
    let damaged = check("in.txt", damaged);
    assert_eq!(damaged.counts().failures.get("invalid_text"), Some(&1));
    assert_eq!(damaged.counts().rows, 1601);
}

/// A text of these characters in GB18030.
fn in_gb18030(text: &str) -> Vec<u8> {
    const TABLE: &[(char, [u8; 2])] = &[
        ('床', [0xb4, 0xb2]),
        ('前', [0xc7, 0xb0]),
        ('明', [0xc3, 0xf7]),
        ('月', [0xd4, 0xc2]),
        ('光', [0xb9, 0xe2]),
        ('，', [0xa3, 0xac]),
        ('疑', [0xd2, 0xc9]),
        ('是', [0xca, 0xc7]),
        ('地', [0xb5, 0xd8]),
        ('上', [0xc9, 0xcf]),
        ('霜', [0xcb, 0xaa]),
        ('。', [0xa1, 0xa3]),
    ];
    let mut bytes = Vec::new();
    for c in text.chars() {
        match TABLE.iter().find(|(known, _)| *known == c) {
            Some((_, code)) => bytes.extend(code),
            None => bytes.push(c as u8),
        }
    }
    bytes
}

#[test]
fn two_rows_of_one_id_are_refused_with_their_lines() {
    let many = |ids: &[&str]| {
        let lines = ids.iter().map(|id| format!("{{\"custom_id\":{id:?},\"prompt\":\"a\"}}\n"));
        lines.collect::<String>()
    };
    let error = refused("in.jsonl", many(&["a", "b", "c", "b", "a"]));
    assert!(error.contains("lines 2 and 4 both have the id \"b\""), "{error}");
    // A row without an id has that of its line; one that fails has its id, too.
    let error = refused("in.jsonl", "{\"prompt\":\"a\"}\n{\"custom_id\":\"line-1\",\"prompt\":\"a\"}\n");
    assert!(error.contains("lines 1 and 2 both have the id \"line-1\""), "{error}");
    let error = refused("in.jsonl", "{\"custom_id\":\"x\"}\n{\"custom_id\":\"x\",\"prompt\":\"a\"}\n");
    assert!(error.contains("lines 1 and 2 both have the id \"x\""), "{error}");
    let error = refused("in.csv", "id,prompt\n1,a\n2,b\n1,c\n");
    assert!(error.contains("lines 2 and 4"), "{error}");
    let fine = check("in.jsonl", many(&["line-1", "line-3", "line-2", "line-01"]));
    assert_eq!((fine.find("line-3").unwrap(), fine.find("line-4").unwrap()), (Some(1), None));
}

#[test]
fn a_row_that_changed_since_the_check_ends_the_run() {
    let line = |text: &str| format!("{{\"prompt\":\"{text}\"}}\n");
    let made = file("in.jsonl", line("aaa") + &line("bbb"));
    let input = check_path(&made.path, &InputOptions::default(), preparer()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&made.path).unwrap();
    file.write_all_at(line("ccc").as_bytes(), line("aaa").len() as u64).unwrap();
    assert!(input.prepared(0).unwrap().is_ok());
    let error = input.prepared(1).expect_err("changed").to_string();
    assert!(error.contains("line 2 changed"), "{error}");
    // Another file under its name changes nothing: the one that was checked is still open.
    let made = self::file("in.jsonl", line("aaa"));
    let input = check_path(&made.path, &InputOptions::default(), preparer()).unwrap();
    std::fs::write(made.folder.path().join("new"), line("zzz")).unwrap();
    std::fs::rename(made.folder.path().join("new"), &made.path).unwrap();
    assert_eq!(input.prepared(0).unwrap().unwrap().job.prompt, text_ids("aaa"));
    file.set_len(3).unwrap();
}

#[test]
fn a_followed_input_gives_rows_as_they_arrive() {
    let lines = "\u{feff}{\"custom_id\":\"a\",\"prompt\":\"x\"}\n\nbad\n\
        {\"custom_id\":\"a\",\"prompt\":\"x\"}\n\
        {\"prompt\":\"x\"}\n{\"prompt\":\"x\"}";
    let mut input = FollowedInput::new(Cursor::new(lines), false, false, preparer());
    let mut told = Vec::new();
    while let Some(row) = input.next_row().unwrap() {
        told.push(row);
    }
    assert_eq!(told.len(), 5);
    let batch =
        check("in.jsonl", "{\"custom_id\":\"a\",\"prompt\":\"x\"}\n{\"prompt\":\"x\"}\n{\"prompt\":\"x\"}");
    let seeds = rows(&batch).into_iter().map(|row| row.unwrap().seed).collect::<Vec<_>>();
    let seed = |row: usize| told[row].as_ref().unwrap().seed;
    assert_eq!([seed(0), seed(3), seed(4)], seeds[..]);
    let bad = |row: usize| told[row].as_ref().unwrap_err();
    assert_eq!((bad(1).id.as_str(), bad(1).error.code), ("line-3", "invalid_json"));
    assert_eq!((bad(2).id.as_str(), bad(2).error.code), ("a", "duplicate_id"));
}

#[test]
fn rows_take_at_most_28_bytes_each() {
    use std::fmt::Write as _;
    let (mut named, mut plain) = (String::new(), String::new());
    for row in 0..100_000 {
        writeln!(named, "{{\"custom_id\":\"{row}\",\"prompt\":\"a\"}}").unwrap();
        writeln!(plain, "{{\"prompt\":\"{row}\"}}").unwrap();
    }
    let named = check("in.jsonl", named);
    assert_eq!((named.len(), named.index_bytes()), (100_000, 2_800_000));
    let plain = check("in.jsonl", plain);
    assert_eq!((plain.len(), plain.index_bytes()), (100_000, 1_600_000));

    // Every row is in one shard, wherever it is asked.
    let mut all = (0..7).flat_map(|shard| named.shard(shard, 7)).collect::<Vec<_>>();
    assert!((0..7).all(|shard| named.shard(shard, 7).len() > 13_000));
    all.sort_unstable();
    assert!(all.into_iter().eq(0..100_000));
    assert_eq!(plain.find("line-77").unwrap(), Some(76));
}

#[test]
fn a_cancelled_check_ends_and_progress_is_told() {
    let made = file("in.jsonl", "{\"prompt\":\"a\"}\n".repeat(3000));
    let open = || InputFile::open(&made.path, &InputOptions::default(), &NEVER).unwrap();
    let mut told = Vec::new();
    open().check(preparer(), &mut |at| told.push(at), &NEVER).unwrap();
    assert_eq!(told.last().map(|at| (at.rows, at.bytes == at.total_bytes)), Some((3000, true)));
    assert!(told.len() >= 3);
    let cancel = std::sync::atomic::AtomicBool::new(true);
    let ended = open().check(preparer(), &mut |_| {}, &cancel);
    assert!(matches!(ended, Err(InputError::Cancelled)));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: 300,
        failure_persistence: None,
        ..Default::default()
    })]

    /// Bytes of any kind, and JSON that is nearly right, in every form: rows or an error, twice the same.
    #[test]
    fn any_bytes_give_rows_or_an_error(
        noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        picks in proptest::collection::vec(0_usize..16, 0..40),
        form in 0_usize..4,
    ) {
        const PIECES: [&[u8]; 16] = [
            b"{\"prompt\":", b"\"a\"", b"}", b"\n", b"\"", b",", b"[", b"]", b"\"messages\":",
            b"{\"role\":\"user\",\"content\":", b"\\ud800", b"\r\n", b"\t", b"1", b"null", b"prompt,id\n",
        ];
        let pieces = picks.iter().flat_map(|&pick| PIECES[pick]).copied().collect::<Vec<_>>();
        for bytes in [noise.clone(), [&b"prompt\n"[..], &noise].concat(), pieces] {
            let options = InputOptions { form: Some(InputForm::ALL[form]), ..InputOptions::default() };
            if let Ok(input) = check_as("in", &bytes, &options) {
                let failed = rows(&input).iter().filter(|row| row.is_err()).count();
                assert_eq!(failed as u64, input.counts().failed());
            }
        }
    }
}
