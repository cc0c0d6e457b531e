//! The lines that a batch leaves.

use crate::batch_output_support::{END, HAO_END, answered, asked, context, failed, untimed};
use huozi::batch::Endpoint;
use huozi::batch::output::{OutputError, ResultWriter};
use huozi::complete::{ChoiceOptions, ChoiceScore, Finish, JobResult, JobUsage, Outcome, Task, TokenLogProb};
use serde_json::{Value, json};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// A stream whose text can be read.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The only line that `write` gives, without the time.
fn line(write: impl FnOnce(&mut ResultWriter) -> Result<(), OutputError>) -> Value {
    let text = Shared::default();
    let mut writer = ResultWriter::stream(Box::new(text.clone()), context());
    write(&mut writer).unwrap();
    assert_eq!(writer.finish(1).unwrap().rows, 1);
    let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.matches('\n').count(), 1);
    untimed(&text).remove(0)
}

#[test]
fn a_chat_row_is_a_chat_completion() {
    let at = |token, log_prob, top: &[(u32, f64)]| TokenLogProb { token, log_prob, top: top.to_vec() };
    let log_probs = vec![
        at(0xe5, -0.5, &[(0xe5, -0.5), (0xe9, -1.5)]),
        at(HAO_END, -0.25, &[]),
        at(END, f64::NEG_INFINITY, &[]),
    ];
    let outcome = answered("好", Finish::EndToken(END), log_probs);
    let found = line(|to| to.result(0, &asked("a\"\u{7}好", Endpoint::Chat, Some(2)), &outcome));
    let hex = found["id"].as_str().unwrap().strip_prefix("batch_req_").unwrap();
    assert!(hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let byte = |b: u8, log_prob: f64| {
        let token = format!("bytes:\\x{b:02x}");
        json!({"token": token, "logprob": log_prob, "bytes": [b]})
    };
    let mut first = byte(0xe5, -0.5);
    first["top_logprobs"] = json!([byte(0xe5, -0.5), byte(0xe9, -1.5)]);
    let content = json!([
        first,
        {"token": "bytes:\\xa5\\xbd", "logprob": -0.25, "bytes": [0xa5, 0xbd], "top_logprobs": []},
        {"token": "</s>", "logprob": -9999.0, "bytes": null, "top_logprobs": []},
    ]);
    let choice = json!({
        "index": 0,
        "message": {"role": "assistant", "content": "好", "refusal": null},
        "logprobs": {"content": content, "refusal": null},
        "finish_reason": "stop",
    });
    let body = json!({
        "id": format!("chatcmpl-{hex}"),
        "object": "chat.completion",
        "created": 0,
        "model": "nano",
        "choices": [choice],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 4,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
        "timings": {
            "prompt_seconds": 0.25,
            "generate_seconds": 0.333333,
            "computed_tokens": 2,
            "choice_tokens": 0,
            "drafted_tokens": 0,
            "accepted_tokens": 0,
        },
    });
    let expected = json!({
        "id": found["id"],
        "custom_id": "a\"\u{7}好",
        "response": {"status_code": 200, "request_id": format!("req_{hex}"), "body": body},
        "error": null,
    });
    assert_eq!(found.to_string(), expected.to_string());
}

#[test]
fn a_completion_says_where_tokens_begin_in_characters() {
    let at = |token, top: Vec<(u32, f64)>| TokenLogProb { token, log_prob: -1.0, top };
    let ids = [65, 0xe5, HAO_END, 66, END];
    let log_probs = ids.iter().map(|&id| at(id, vec![(67, -0.5), (0xe5, -2.0)])).collect();
    let mut row = asked("r", Endpoint::Completions, Some(2));
    row.model = Some("mine".to_owned());
    let outcome = answered("A好B", Finish::MaxTokens, log_probs);
    let body = line(|to| to.result(0, &row, &outcome))["response"]["body"].take();
    assert_eq!((&body["object"], &body["model"]), (&json!("text_completion"), &json!("mine")));
    let choice = &body["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("A好B"), &json!("length")));
    let found = &choice["logprobs"];
    assert_eq!(found["tokens"], json!(["A", "bytes:\\xe5", "bytes:\\xa5\\xbd", "B", "</s>"]));
    assert_eq!(found["text_offset"], json!([0, 1, 1, 2, 3]));
    assert_eq!(found["token_logprobs"], json!([-1.0, -1.0, -1.0, -1.0, -1.0]));
    assert_eq!(found["top_logprobs"][0], json!({"C": -0.5, "bytes:\\xe5": -2.0, "A": -1.0}));
    // The drawn one is among the likeliest: one entry.
    assert_eq!(found["top_logprobs"][1], json!({"C": -0.5, "bytes:\\xe5": -2.0}));
    let without = asked("r", Endpoint::Completions, None);
    let outcome = answered("x", Finish::StopText("y".to_owned()), vec![]);
    let line = line(|to| to.result(0, &without, &outcome));
    let choice = &line["response"]["body"]["choices"][0];
    assert_eq!((&choice["logprobs"], &choice["finish_reason"]), (&Value::Null, &json!("stop")));
}

#[test]
fn choices_have_scores_and_errors_a_code() {
    let mut row = asked("c", Endpoint::Chat, None);
    row.job.task = Task::Choices(ChoiceOptions { ids: vec![], from: 1 });
    row.choices = ["A", "B", "C", "D"].map(str::to_owned).to_vec();
    let scored = |scores: [f64; 4]| Outcome {
        completed: JobResult::Choices(scores.map(|log_prob| ChoiceScore { log_prob, tokens: 2 }).to_vec()),
        usage: JobUsage::default(),
    };
    let found = line(|to| to.result(0, &row, &scored([f64::NAN, -3.0, -1.0, -1.0])));
    let body = &found["response"]["body"];
    assert_eq!(body["choices"][0]["message"]["content"], "C");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(body["scores"][2], json!({"choice": "C", "log_prob": -1.0, "tokens": 2}));
    assert_eq!(body["scores"].as_array().unwrap().len(), 4);
    let found = line(|to| to.result(0, &row, &scored([f64::NAN; 4])));
    assert_eq!((&found["response"], &found["error"]["code"]), (&Value::Null, &json!("engine_failed")));
    let found = line(|to| to.error(0, "e", &failed()));
    let id = found["id"].clone();
    let error = json!({"code": "invalid_json", "message": "no \"JSON\"\n", "param": "x"});
    let expected = json!({"id": id, "custom_id": "e", "response": null, "error": error});
    assert_eq!(found.to_string(), expected.to_string());
    // From seed and custom_id.
    assert_eq!(line(|to| to.error(9, "e", &failed()))["id"], id);
    assert_ne!(line(|to| to.error(0, "f", &failed()))["id"], id);
}
