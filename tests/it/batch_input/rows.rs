//! What a row may say, and what it gives.

use super::*;
use huozi::batch::Endpoint;
use huozi::sample::{Sampling, row_seed};
use serde_json::json;

#[test]
fn every_form_of_a_row_gives_its_prompt() {
    let question = json!([{"role": "user", "content": "你好"}]);
    let texts = json!([{"type": "text", "text": "你"}, {"type": "text", "text": "好"}]);
    let parts = json!([{"role": "user", "content": texts}]);
    let chat_url = "/v1/chat/completions";
    let body = json!({"model": "m", "messages": question});
    let chat = chat_ids(&[user("你好")]);
    let text = text_ids("你好");
    for (line, id, endpoint, ids) in [
        (
            json!({"custom_id": "a", "method": "POST", "url": chat_url, "body": body}),
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
        {"role": "assistant", "content": "a", "refusal": null, "tool_calls": []},
        {"role": "user", "content": "r"},
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
        ("response_format", json!("text")),
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
        ("best_of", json!(2)),
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
            json!({"custom_id": "c", "conversations": [
                {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"},
            ]}),
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
            json!({"custom_id": "c", "url": "/v1/completions", "body": {"messages": [
                {"role": "user", "content": "a"},
            ]}}),
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

const SEED_OF_A: u64 = 11_514_924_204_982_539_840;
const SEED_OF_X: u64 = 8_861_443_032_217_180_070;

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
