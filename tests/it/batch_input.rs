//! The input of a batch: forms of files and rows, settings, errors, ids and seeds, memory.

use crate::common::{NEVER, model};
use huozi::batch::input::{
    BadRow, CheckedInput, FollowedInput, Input, InputError, InputForm, InputOptions, MAX_RECORD_BYTES,
    RowPreparer, RunDefaults,
};
use huozi::batch::{Endpoint, Prepared};
use huozi::complete::{AnswerOptions, ChoiceOptions, Task};
use huozi::sample::{Sampling, row_seed};
use huozi_convert::plan::Preset;
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;
use huozi_token::{ChatFormat, DateTime, Message, Role, Specials, Tokenizer};
use serde_json::{Value, json};
use std::io::{Cursor, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

const DATE: DateTime = DateTime::constant(2026, 3, 1, 12, 0, 0, 0);
const N_CTX: usize = 256;

fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    let read = || {
        let reader = Reader::open(&model("nano", Preset::F16), How::Read).unwrap();
        Arc::new(Tokenizer::from_gguf(reader.meta()).unwrap())
    };
    TOKENIZER.get_or_init(read).clone()
}

fn chat_format() -> ChatFormat {
    ChatFormat::new(None, &tokenizer()).unwrap()
}

fn preparer_with(defaults: RunDefaults) -> Arc<RowPreparer> {
    Arc::new(RowPreparer::new(tokenizer(), chat_format(), DATE, N_CTX, defaults))
}

fn preparer() -> Arc<RowPreparer> {
    preparer_with(RunDefaults::default())
}

struct File {
    folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(name: &str, bytes: impl AsRef<[u8]>) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    File { folder, path }
}

fn check_path(
    path: &Path,
    options: &InputOptions,
    preparer: Arc<RowPreparer>,
) -> Result<CheckedInput, InputError> {
    Input::open(path, options, &NEVER)?.check(preparer, &mut |_| {}, &NEVER)
}

fn check_as(name: &str, bytes: impl AsRef<[u8]>, options: &InputOptions) -> Result<CheckedInput, InputError> {
    check_path(&file(name, bytes).path, options, preparer())
}

fn check(name: &str, bytes: impl AsRef<[u8]>) -> CheckedInput {
    check_as(name, bytes, &InputOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(name: &str, bytes: impl AsRef<[u8]>) -> String {
    check_as(name, bytes, &InputOptions::default()).err().expect("refused").to_string()
}

fn rows(input: &CheckedInput) -> Vec<Result<Prepared, BadRow>> {
    (0..input.len()).map(|row| input.prepared(row).unwrap()).collect()
}

/// The only row of an input of one JSON line.
fn row(value: &Value) -> Result<Prepared, BadRow> {
    rows(&check("in.jsonl", value.to_string())).pop().unwrap()
}

fn answers(row: &Prepared) -> &AnswerOptions {
    match &row.job.task {
        Task::Answers(answers) => answers,
        Task::Choices(_) => panic!("choices"),
    }
}

fn choices(row: &Prepared) -> &ChoiceOptions {
    match &row.job.task {
        Task::Choices(choices) => choices,
        Task::Answers(_) => panic!("answers"),
    }
}

fn chat_ids(messages: &[Message]) -> Vec<u32> {
    chat_format().prompt_ids(messages, DATE, &tokenizer()).unwrap()
}

fn text_ids(text: &str) -> Vec<u32> {
    tokenizer().encode(text, Specials::Plain)
}

fn user(text: &str) -> Message {
    Message::text(Role::User, text)
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

#[test]
fn every_form_of_a_row_gives_its_prompt() {
    let question = json!([{"role": "user", "content": "你好"}]);
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": "你"}, {"type": "text", "text": "好"}]}]);
    let chat = chat_ids(&[user("你好")]);
    let text = text_ids("你好");
    for (line, id, endpoint, ids) in [
        (
            json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": question}}),
            "a",
            Endpoint::Chat,
            &chat,
        ),
        (
            json!({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "你好"}}),
            "a",
            Endpoint::Completions,
            &text,
        ),
        (json!({"custom_id": "b", "body": {"prompt": ["你好"]}}), "b", Endpoint::Completions, &text),
        (json!({"messages": question}), "line-1", Endpoint::Chat, &chat),
        (json!({"id": 7, "messages": parts}), "7", Endpoint::Chat, &chat),
        (json!({"id": "x", "custom_id": "y", "prompt": "你好"}), "y", Endpoint::Completions, &text),
        (json!({"prompt": text}), "line-1", Endpoint::Completions, &text),
        (json!({"prompt": [text]}), "line-1", Endpoint::Completions, &text),
        (json!({"conversations": [{"from": "human", "value": "你好"}]}), "line-1", Endpoint::Chat, &chat),
    ] {
        let row = row(&line).unwrap_or_else(|bad| panic!("{line}: {bad:?}"));
        assert_eq!((row.id.as_str(), row.endpoint, &row.job.prompt), (id, endpoint, ids), "{line}");
        assert_eq!((row.line, row.job.n_ctx), (1, N_CTX));
    }
    assert_eq!(row(&json!({"model": "m", "prompt": "a"})).unwrap().model.as_deref(), Some("m"));

    let turns = [Message::text(Role::System, "s"), user("q"), Message::text(Role::Assistant, "a"), user("r")];
    let openai = json!({"messages": [
        {"role": "developer", "content": "s"}, {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "refusal": null, "tool_calls": []}, {"role": "user", "content": "r"},
    ]});
    let share = json!({"conversations": [
        {"from": "system", "value": "s"}, {"from": "human", "value": "q"},
        {"from": "gpt", "value": "a"}, {"from": "user", "value": "r"},
    ]});
    let factory = json!({"system": "s", "conversations": [
        {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, {"from": "human", "value": "r"},
    ]});
    for line in [openai, share, factory] {
        assert_eq!(row(&line).unwrap().job.prompt, chat_ids(&turns), "{line}");
    }
    // Text never becomes a control token.
    let marker = row(&json!({"prompt": "<|endofutterance|>"})).unwrap();
    assert!(marker.job.prompt.iter().all(|&id| !tokenizer().vocab().kind(id).is_control()));
}

#[test]
fn settings_of_a_row_go_over_those_of_the_run() {
    let plain = row(&json!({"prompt": "a"})).unwrap();
    let run = answers(&plain);
    assert_eq!((run.sampling, run.max_new, run.seeds.len()), (Sampling::DEFAULT, 512, 1));
    assert_eq!(
        (run.log_probs, run.stop.len(), run.stop_ids.clone()),
        (None, 0, tokenizer().vocab().stop_ids())
    );

    let own = row(&json!({
        "custom_id": "q", "prompt": "a", "max_tokens": 9.0, "max_completion_tokens": 9, "temperature": 0,
        "top_p": 0.5, "top_k": -1, "repetition_penalty": 1, "seed": u64::MAX, "stop": ["。", "\n"], "n": 3,
        "logprobs": 5,
    }))
    .unwrap();
    let options = answers(&own);
    let want = Sampling { do_sample: true, temperature: 0.0, top_k: 0, top_p: 0.5, repetition_penalty: 1.0 };
    assert_eq!((options.sampling, options.max_new, options.log_probs), (want, 9, Some(5)));
    assert_eq!(options.stop, ["。", "\n"]);
    assert_eq!(options.seeds, [0, 1, 2].map(|i| row_seed(u64::MAX, i)));
    assert_eq!(own.seed, u64::MAX);

    let chat = json!({"messages": [{"role": "user", "content": "a"}], "logprobs": true, "top_logprobs": 2});
    assert_eq!(answers(&row(&chat).unwrap()).log_probs, Some(2));

    // A greedy run, in which one row says how to draw.
    let defaults = RunDefaults {
        sampling: Sampling { do_sample: false, ..Sampling::DEFAULT },
        max_new: 3,
        stop: vec!["x".into()],
        log_probs: Some(1),
        system: Some("s".into()),
        speculate: true,
        n: 2,
        ..RunDefaults::default()
    };
    let lines = "{\"prompt\":\"a\"}\n{\"prompt\":\"a\",\"top_k\":4,\"logprobs\":null,\"stop\":[]}\n\
        {\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"logprobs\":false}\n";
    let input =
        check_path(&file("in.jsonl", lines).path, &InputOptions::default(), preparer_with(defaults)).unwrap();
    let rows = rows(&input).into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    let of = |row: usize| answers(&rows[row]);
    assert!(!of(0).sampling.do_sample && of(1).sampling.do_sample);
    assert_eq!((of(0).max_new, of(0).log_probs, of(0).speculate, of(0).seeds.len()), (3, Some(1), true, 2));
    assert_eq!((of(0).stop.len(), of(1).stop.len(), of(1).log_probs, of(2).log_probs), (1, 0, Some(1), None));
    assert_eq!(rows[2].job.prompt, chat_ids(&[Message::text(Role::System, "s"), user("a")]));
}

#[test]
fn neutral_values_are_accepted_and_others_named() {
    let neutral = [
        ("user", json!("u")),
        ("metadata", json!({"answer": "B"})),
        ("store", json!(true)),
        ("service_tier", json!("auto")),
        ("stream", json!(false)),
        ("stream_options", json!({"include_usage": true})),
        ("presence_penalty", json!(0)),
        ("frequency_penalty", json!(0.0)),
        ("response_format", json!({"type": "text"})),
        ("logit_bias", json!({})),
        ("tools", json!([])),
        ("tool_choice", json!("none")),
        ("echo", json!(false)),
        ("best_of", json!(1)),
        ("suffix", json!("")),
        ("min_p", json!(0)),
        ("modalities", json!(["text"])),
        ("anything", json!(null)),
    ];
    let plain = row(&json!({"prompt": "a"})).unwrap();
    for (field, value) in neutral {
        let line = json!({"prompt": "a", field: value});
        let row = row(&line).unwrap_or_else(|bad| panic!("{line}: {bad:?}"));
        assert_eq!((row.job.prompt, row.seed), (plain.job.prompt.clone(), plain.seed), "{line}");
    }
    for (field, value) in [
        ("presence_penalty", json!(0.1)),
        ("response_format", json!({"type": "json_object"})),
        ("response_format", json!({"type": "text", "schema": {}})),
        ("stream", json!(true)),
        ("tools", json!([{}])),
        ("tool_choice", json!("required")),
        ("logit_bias", json!({"5": 1})),
        ("echo", json!(true)),
        ("suffix", json!("x")),
        ("min_p", json!(0.1)),
        ("reasoning_effort", json!("low")),
        ("answer", json!("B")),
        ("max_new_tokens", json!(5)),
    ] {
        let bad = row(&json!({"prompt": "a", field: value})).unwrap_err();
        assert_eq!((bad.error.code, bad.error.param.as_deref()), ("unsupported_parameter", Some(field)));
        assert!(bad.error.message.contains(&format!("`{field}`")), "{}", bad.error.message);
    }
}

#[test]
fn rows_that_are_wrong_say_what_is_wrong() {
    let chat = |messages: Value| json!({"custom_id": "c", "messages": messages});
    let with = |field: &str, value: Value| json!({"custom_id": "c", "prompt": "a", field: value});
    for (line, code, what) in [
        (json!({"custom_id": "c"}), "invalid_request", "none of `messages`"),
        (json!({"custom_id": "c", "text": "a"}), "invalid_request", "it has `text`"),
        (
            json!({"custom_id": "c", "prompt": "a", "messages": []}),
            "invalid_request",
            "both `messages` and `prompt`",
        ),
        (with("prompt", json!("")), "invalid_request", "the prompt is empty"),
        (with("prompt", json!([])), "invalid_request", "empty array"),
        (with("prompt", json!(["a", "b"])), "invalid_request", "2 prompts"),
        (with("prompt", json!([[1], [2]])), "invalid_request", "2 prompts"),
        (with("prompt", json!([1, -1])), "invalid_request", "no id of a token"),
        (with("prompt", json!([4_000_000_000_u32])), "invalid_request", "there are"),
        (with("prompt", json!({})), "invalid_request", "an object"),
        (with("model", json!(1)), "invalid_request", "`model`"),
        (with("max_tokens", json!(0)), "invalid_request", "`max_tokens` is 0"),
        (with("max_tokens", json!("9")), "invalid_request", "`max_tokens` is \"9\""),
        (with("max_tokens", json!(1.5)), "invalid_request", "whole number"),
        (with("temperature", json!(-1)), "invalid_request", "0 to 5"),
        (with("temperature", json!("hot")), "invalid_request", "number"),
        (with("top_p", json!(1.1)), "invalid_request", "0 to 1"),
        (with("top_k", json!(-2)), "invalid_request", "`top_k`"),
        (with("repetition_penalty", json!(0)), "invalid_request", "0.01 to 5"),
        (with("seed", json!(-1)), "invalid_request", "`seed`"),
        (with("n", json!(129)), "invalid_request", "1 to 128"),
        (with("stop", json!([""])), "invalid_request", "0 bytes"),
        (with("stop", json!(vec!["x"; 17])), "invalid_request", "17 texts"),
        (with("stop", json!([1])), "invalid_request", "a text"),
        (with("logprobs", json!(21)), "invalid_request", "0 to 20"),
        (with("logprobs", json!(true)), "invalid_request", "the number"),
        (with("top_logprobs", json!(2)), "invalid_request", "`logprobs`"),
        (with("choices", json!([])), "invalid_request", "1 to 1024"),
        (with("choices", json!(["A", "A"])), "invalid_request", "twice"),
        (with("choices", json!(["A", ""])), "invalid_request", "empty text"),
        (
            json!({"custom_id": "c", "prompt": "a", "max_tokens": 1, "max_completion_tokens": 2}),
            "invalid_request",
            "differ",
        ),
        (json!({"custom_id": "c", "prompt": "a", "choices": ["A"], "n": 2}), "invalid_request", "`n`"),
        (
            json!({"custom_id": "c", "prompt": "a", "choices": ["A"], "logprobs": 2}),
            "invalid_request",
            "`logprobs`",
        ),
        (json!({"custom_id": "c", "prompt": "x ".repeat(N_CTX)}), "context_length_exceeded", "tokens"),
        (chat(json!([])), "invalid_request", "0 messages"),
        (chat(json!("hi")), "invalid_request", "must be an array"),
        (chat(json!([1])), "invalid_request", "`messages[0]` is 1"),
        (chat(json!([{"content": "a"}])), "invalid_request", "has no `role`"),
        (chat(json!([{"role": "user"}])), "invalid_request", "has no `content`"),
        (chat(json!([{"role": "user", "content": 5}])), "invalid_request", "`messages[0].content` is 5"),
        (chat(json!([{"role": "tool", "content": "a"}])), "unsupported_parameter", "\"tool\""),
        (chat(json!([{"role": "user", "content": "a", "name": "n"}])), "unsupported_parameter", "`name`"),
        (
            chat(json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])),
            "unsupported_parameter",
            "image_url",
        ),
        (
            chat(json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])),
            "invalid_request",
            "ends with a message of the assistant",
        ),
        (
            json!({"custom_id": "c", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}),
            "invalid_request",
            "ends with a message of the assistant",
        ),
        (
            json!({"custom_id": "c", "conversations": [{"from": "observation", "value": "a"}]}),
            "unsupported_parameter",
            "observation",
        ),
        (
            json!({"custom_id": "c", "messages": [{"role": "user", "content": "a"}], "logprobs": 2}),
            "invalid_request",
            "true or false",
        ),
        (
            json!({"custom_id": "c", "messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}),
            "invalid_request",
            "needs `logprobs`",
        ),
        (
            json!({"custom_id": "c", "method": "GET", "url": "/v1/completions", "body": {"prompt": "a"}}),
            "unsupported_parameter",
            "POST",
        ),
        (
            json!({"custom_id": "c", "method": "POST", "url": "/v1/embeddings", "body": {"input": "a"}}),
            "unsupported_parameter",
            "/v1/embeddings",
        ),
        (json!({"custom_id": "c", "url": "/v1/completions"}), "invalid_request", "no `body`"),
        (json!({"custom_id": "c", "body": "x"}), "invalid_request", "must be an object"),
        (
            json!({"custom_id": "c", "url": "/v1/completions", "body": {"messages": [{"role": "user", "content": "a"}]}}),
            "invalid_request",
            "must have `prompt`",
        ),
        (
            json!({"custom_id": "c", "body": {"prompt": "a"}, "seed": 1}),
            "unsupported_parameter",
            "`seed` beside",
        ),
    ] {
        let bad = row(&line).expect_err(&line.to_string());
        assert_eq!(
            (bad.error.code, bad.id.as_str(), bad.line),
            (code, "c", 1),
            "{line}: {}",
            bad.error.message
        );
        assert!(bad.error.message.contains(what), "{line}: {}", bad.error.message);
    }
    for id in [json!(""), json!(1.5), json!([]), json!("x".repeat(600))] {
        let bad = row(&json!({"custom_id": id, "prompt": "a"})).unwrap_err();
        assert_eq!((bad.id.as_str(), bad.error.param.as_deref()), ("line-1", Some("custom_id")));
    }
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
    let whats = ["3 fields", "1 field,", "empty", "must be doubled", "no quote ends it"];
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
        let input = Input::from_reader(bytes, "standard input", &options, &NEVER).unwrap();
        assert_eq!(told(input.check(preparer(), &mut |_| {}, &NEVER).unwrap()), want);
    }
    let units = |big: bool| {
        let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
        std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(bytes).collect::<Vec<u8>>()
    };
    assert_eq!(told(check("in.jsonl", units(false))), want);
    assert_eq!(told(check("in.jsonl", units(true))), want);
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
fn seeds_follow_the_id_or_else_the_content() {
    let of = |lines: &[&str], seed: u64| {
        let defaults = RunDefaults { seed, n: 2, ..RunDefaults::default() };
        let made = file("in.jsonl", lines.join("\n"));
        let input = check_path(&made.path, &InputOptions::default(), preparer_with(defaults)).unwrap();
        let rows = rows(&input).into_iter().map(|row| row.unwrap());
        rows.map(|row| {
            assert_eq!(answers(&row).seeds, [row_seed(row.seed, 0), row_seed(row.seed, 1)]);
            row.seed
        })
        .collect::<Vec<_>>()
    };
    let named = [r#"{"custom_id":"a","prompt":"x"}"#, r#"{"custom_id":"b","prompt":"x"}"#];
    let seeds = of(&named, 0);
    assert_ne!(seeds[0], seeds[1]);
    assert_eq!(of(&[named[1], named[0]], 0), [seeds[1], seeds[0]]);
    assert_ne!(of(&named, 1)[0], seeds[0]);
    assert_eq!(of(&[r#"{"custom_id":"a","prompt":"y","temperature":1}"#], 0), [seeds[0]]);

    // Order and spelling of fields are no content; settings are.
    let plain = [
        r#"{"prompt":"x"}"#,
        r#"{"prompt":"y"}"#,
        r#" {"model":"m", "prompt":"\u0078"}"#,
        r#"{"prompt":"x","top_k":3}"#,
    ];
    let seeds = of(&plain, 0);
    let mut distinct = seeds.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 4);
    // The first of two equal rows has the first seed, whichever it is.
    assert_eq!(of(&[plain[3], plain[2], plain[1], plain[0]], 0), [seeds[3], seeds[0], seeds[1], seeds[2]]);
    // The seeds themselves stay from version to version.
    assert_eq!(of(&named[..1], 0), [SEED_OF_A]);
    assert_eq!(of(&plain[..1], 0), [SEED_OF_X]);
}

const SEED_OF_A: u64 = 0;
const SEED_OF_X: u64 = 0;

#[test]
fn choices_are_tokenised_with_the_prompt() {
    let tokenizer = tokenizer();
    let row = row(&json!({"prompt": "答案：", "choices": ["A", "B。", "答案"]})).unwrap();
    let scored = choices(&row);
    let end = tokenizer.vocab().eos().unwrap();
    let prompt = text_ids("答案：");
    let want = ["A", "B。", "答案"].map(|choice| {
        let mut ids = text_ids(&format!("答案：{choice}"));
        ids.push(end);
        ids
    });
    assert_eq!(scored.ids, want);
    let common = |ids: &Vec<u32>| ids.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
    assert_eq!(scored.from, want.iter().map(common).min().unwrap());
    assert_eq!(row.choices, ["A", "B。", "答案"]);

    // A letter that joins the letters before it: the prompt's last token is not part of the whole.
    let joined = self::row(&json!({"prompt": "the answer is th", "choices": ["e", "at"]})).unwrap();
    let whole = text_ids("the answer is the");
    assert_eq!(choices(&joined).ids[0][..whole.len()], whole);
    assert!(choices(&joined).from <= joined.job.prompt.len());

    let chat =
        self::row(&json!({"messages": [{"role": "user", "content": "选"}], "choices": ["A"]})).unwrap();
    let ChatFormat::Huozi { end, .. } = chat_format() else { panic!("nano has Huozi's format") };
    let ids = &choices(&chat).ids[0];
    assert_eq!(ids.last(), Some(&end));
    assert_eq!(tokenizer.decode(&ids[chat.job.prompt.len()..], false), "A");

    let ids = self::row(&json!({"prompt": prompt, "choices": ["A"]})).unwrap();
    assert_eq!(choices(&ids).from, prompt.len());
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
    let lines = "\u{feff}{\"custom_id\":\"a\",\"prompt\":\"x\"}\n\nbad\n{\"custom_id\":\"a\",\"prompt\":\"x\"}\n\
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
fn a_million_rows_take_28_bytes_each() {
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
    let open = || Input::open(&made.path, &InputOptions::default(), &NEVER).unwrap();
    let mut told = Vec::new();
    open().check(preparer(), &mut |at| told.push(at), &NEVER).unwrap();
    assert_eq!(told.last().map(|at| (at.rows, at.bytes == at.total_bytes)), Some((3000, true)));
    assert!(told.len() >= 3);
    let cancel = std::sync::atomic::AtomicBool::new(true);
    let ended = open().check(preparer(), &mut |_| {}, &cancel);
    assert!(matches!(ended, Err(InputError::Cancelled)));
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 300, failure_persistence: None, ..Default::default() })]

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
