//! `huozi run` for scripts: several answers and prompts, stop texts, log-probabilities, choices, caches.

use crate::common::{Run, arg, model, run};
use huozi_convert::plan::Preset;
use serde_json::Value;
use std::fs;

fn nano() -> String {
    arg(&model("nano", Preset::F16))
}

const ASK: &str = "写一首关于月的诗。";

/// `huozi run` of the small model with seed 7 and 24 tokens.
fn ask(args: &[&str]) -> Run {
    run(&[&["run", "-m", &nano(), "-s", "7", "-n", "24"], args].concat(), "")
}

fn text(value: &Value) -> &str {
    value["text"].as_str().unwrap()
}

#[test]
fn several_answers_share_the_prompt_and_the_first_is_the_only_one() {
    let one = &ask(&["-p", ASK, "--json"]).json()[0];
    assert!(one.get("answer").is_none() && one["seed"] == 7, "{one}");
    let answers = ask(&["-p", ASK, "--json", "--answers", "3"]).json();
    assert_eq!(answers.len(), 3);
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(answer["answer"], i);
        // The prompt was read once.
        assert_eq!((&answer["prompt_tokens"], &answer["seed"]), (&one["prompt_tokens"], &7.into()));
    }
    assert_eq!((text(&answers[0]), &answers[0]["ids"]), (text(one), &one["ids"]));
    assert!(text(&answers[1]) != text(one) && text(&answers[2]) != text(&answers[1]), "{answers:?}");
    // As text, each has a heading.
    let shown = ask(&["-p", ASK, "--answers", "3"]);
    let parts = shown.ok().split("==> answer ").collect::<Vec<_>>();
    assert_eq!(parts.len(), 4, "{shown:?}");
    for (i, answer) in answers.iter().enumerate() {
        let expected = format!("{} of 3 <==\n{}", i + 1, text(answer).trim_end());
        assert_eq!(parts[i + 1].trim_end(), expected);
    }
}

#[test]
fn a_stop_text_ends_the_answer_before_it() {
    let whole = &ask(&["-p", ASK, "--json", "--greedy"]).json()[0];
    let whole_text = text(whole).to_owned();
    // The fourth and fifth character: tokens may reach across both ends.
    let stop = whole_text.chars().skip(3).take(2).collect::<String>();
    let expected = whole_text.split_once(&stop).unwrap().0;
    let args = ["-p", ASK, "--greedy", "--stop", "--never--", "--stop", &stop];
    let stopped = &ask(&[&args[..], &["--json"]].concat()).json()[0];
    assert_eq!(
        (text(stopped), &stopped["stop"], &stopped["stop_text"]),
        (expected, &"stop".into(), &stop[..].into())
    );
    assert!(stopped["generated_tokens"].as_u64() < whole["generated_tokens"].as_u64());
    let shown = ask(&args);
    assert_eq!(shown.ok().trim_end(), expected.trim_end());
    assert_eq!(ask(&["-p", ASK, "--stop", ""]).code, Some(2));
}

#[test]
fn prompts_of_several_files_are_answered_in_order() {
    let home = tempfile::tempdir().unwrap();
    let [a, b, empty] = ["a.txt", "b.txt", "empty.txt"].map(|name| arg(&home.path().join(name)));
    fs::write(&a, ASK).unwrap();
    fs::write(&b, "写一首关于雪的诗。\n").unwrap();
    fs::write(&empty, "\n").unwrap();
    let alone = [&a, &b].map(|file| ask(&["-f", file, "--json"]).json().remove(0));
    let both = ask(&["-f", &a, "-f", &b, "--json"]).json();
    assert_eq!(both.len(), 2);
    for ((got, expected), file) in both.iter().zip(&alone).zip([&a, &b]) {
        assert_eq!((&got["ids"], &got["file"]), (&expected["ids"], &file[..].into()));
    }
    assert!(both[1]["reused_tokens"].as_u64() > Some(0), "the beginning of both is read once");
    let shown = ask(&["-f", &a, "-f", &b]);
    let expected = format!(
        "==> {a} <==\n{}\n\n==> {b} <==\n{}\n",
        text(&alone[0]).trim_end_matches('\n'),
        text(&alone[1]).trim_end_matches('\n')
    );
    assert_eq!(shown.ok(), expected);
    assert_eq!(ask(&["-f", &a, "-f", &b, "--answers", "2", "--json"]).json().len(), 4);
    ask(&["-f", &a, "-f", &empty]).fails(2, "empty.txt: the prompt is empty");
    ask(&["-f", "-", "-f", "-"]).fails(2, "only once");
    ask(&["-f", &a, "-f", "/none"]).fails(4, "/none");
}

#[test]
fn log_probabilities_come_with_each_token() {
    let args = ["-p", ASK, "--greedy", "--repetition-penalty", "1", "--json", "--logprobs", "2"];
    let answer = &ask(&args).json()[0];
    let told = answer["logprobs"].as_array().unwrap();
    assert_eq!(told.len() as u64, answer["generated_tokens"].as_u64().unwrap());
    for (at, id) in told.iter().zip(answer["ids"].as_array().unwrap()) {
        assert_eq!(&at["id"], id);
        let top = at["top"].as_array().unwrap();
        // Greedy takes the likeliest.
        assert_eq!((top.len(), &top[0]["id"], &top[0]["logprob"]), (2, id, &at["logprob"]));
        assert!(at["logprob"].as_f64() <= Some(0.0) && top[1]["logprob"].as_f64() <= at["logprob"].as_f64());
    }
    assert_eq!(answer["ids"], ask(&args[..6]).json()[0]["ids"], "the text is the same");
    let without = ask(&["-p", ASK, "--logprobs", "2"]);
    assert!(without.code == Some(2) && without.stderr.contains("--json"), "{without:?}");
}

#[test]
fn choices_are_scored_and_the_best_comes_first() {
    let m = nano();
    let raw = ["run", "-m", &m, "--raw", "-p", "床前明月"];
    let scored = run(&[&raw[..], &["--choices", "雪,光，疑是地上霜,光", "--json"]].concat(), "").json();
    let choices = scored[0]["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3);
    let scores = choices.iter().map(|choice| choice["logprob"].as_f64().unwrap()).collect::<Vec<_>>();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores[0] <= 0.0, "{scores:?}");
    assert_eq!(scored[0]["text"], choices[0]["text"]);
    // The sum over the tokens of prompt and choice together, the end token included, from the logits at every
    // position.
    let tokens = |text: &str| run(&["tokenize", "-m", &m, "-p", text, "--json"], "").json()[0]["ids"].clone();
    let prompt = tokens("床前明月");
    let both = |choice| tokens(&format!("床前明月{}", text(choice)));
    let same = |ids: &Value| {
        let pairs = prompt.as_array().unwrap().iter().zip(ids.as_array().unwrap());
        pairs.take_while(|(a, b)| a == b).count()
    };
    let prompt = choices.iter().map(|choice| same(&both(choice))).min().unwrap();
    for choice in choices {
        let mut ids = both(choice).as_array().unwrap().clone();
        ids.push(end_token(&m).into());
        let list = ids.iter().map(Value::to_string).collect::<Vec<_>>().join(",");
        let rows = run(&["logits", "-m", &m, "--ids", &list, "-k", "6100", "--json", "--kv-type", "f16"], "");
        let rows = rows.json();
        let sum: f64 = (prompt..ids.len())
            .map(|at| {
                let top = rows[at - 1]["top"].as_array().unwrap();
                top.iter().find(|t| t["id"] == ids[at]).unwrap()["logprob"].as_f64().unwrap()
            })
            .sum();
        assert!((sum - choice["logprob"].as_f64().unwrap()).abs() < 1e-3, "{choice}: {sum}");
        assert_eq!(choice["n_tokens"], ids.len() - prompt);
    }
    // As text; in the chat format; not together with what an answer has.
    let shown = run(&[&raw[..], &["--choices", "雪,光，疑是地上霜,光"]].concat(), "");
    let lines = shown.ok().lines().map(|line| line.split_once('\t').unwrap().1).collect::<Vec<_>>();
    assert_eq!(lines, choices.iter().map(text).collect::<Vec<_>>());
    assert_eq!(ask(&["-p", ASK, "--choices", "好,坏"]).ok().lines().count(), 2);
    assert_eq!(ask(&["-p", ASK, "--choices", "好,坏", "--answers", "2"]).code, Some(2));
    assert_eq!(ask(&["-p", ASK, "--choices", "好,好"]).code, Some(2));
}

/// The end of text of a model file.
fn end_token(model: &str) -> u64 {
    let told = run(&["inspect", "--json", model], "").json();
    told[0]["metadata"]["tokenizer.ggml.eos_token_id"].as_u64().unwrap()
}

#[test]
fn drafts_change_no_text() {
    for more in [&["--greedy"][..], &["--temperature", "1"]] {
        let plain = ask(&[&["-p", ASK, "--json"], more].concat()).json();
        let drafted = ask(&[&["-p", ASK, "--json", "--speculate"], more].concat()).json();
        assert_eq!((&plain[0]["ids"], text(&plain[0])), (&drafted[0]["ids"], text(&drafted[0])), "{more:?}");
    }
}

#[test]
fn a_prompt_cache_is_made_used_and_refused() {
    let home = tempfile::tempdir().unwrap();
    let file = arg(&home.path().join("p.kv"));
    let long = ASK.repeat(12);
    let cached = ["-p", &long, "--json", "--prompt-cache", &file];
    let plain = &ask(&["-p", &long, "--json"]).json()[0];
    let made = &ask(&cached).json()[0];
    let bytes = fs::read(&file).unwrap();
    let used = &ask(&cached).json()[0];
    for got in [made, used] {
        assert_eq!((&got["ids"], text(got)), (&plain["ids"], text(plain)));
    }
    assert_eq!((&made["reused_tokens"], &made["prompt_tokens"]), (&0.into(), &plain["prompt_tokens"]));
    // All but the last token, whose logits are needed.
    assert_eq!(used["prompt_tokens"], 1);
    assert_eq!(used["reused_tokens"].as_u64().map(|n| n + 1), plain["prompt_tokens"].as_u64());
    assert_eq!(fs::read(&file).unwrap(), bytes, "it is left as it is");
    // Answers, log-probabilities and choices begin from it, too, and are the same.
    for more in [&["--answers", "2"][..], &["--logprobs", "1"], &["--choices", "好,坏"]] {
        let with = ask(&[&cached[..], more].concat()).json();
        let without = ask(&[&["-p", &long, "--json"], more].concat()).json();
        for (with, without) in with.iter().zip(&without) {
            for key in ["ids", "logprobs", "choices", "text"] {
                assert_eq!(with.get(key), without.get(key), "{more:?}");
            }
            assert!(with["reused_tokens"].as_u64() > Some(50), "{with}");
        }
    }
    // Another prompt: a note; nothing is used or changed.
    let other = ask(&["--raw", "-p", "the weather", "--prompt-cache", &file]);
    other.ok();
    assert!(other.stderr.contains("of another prompt"), "{other:?}");
    // Another KV type, another model, another instruction set, damage.
    ask(&[&cached[..], &["--kv-type", "f32"]].concat()).fails(4, "made with KV type f16");
    let q8 = arg(&model("nano", Preset::Q8_0));
    let another = ["run", "-m", &q8, "-n", "4", "-p", &long, "--prompt-cache", &file];
    run(&another, "").fails(4, "this run has model");
    let mut torn = bytes.clone();
    torn.truncate(bytes.len() - 1);
    fs::write(&file, &torn).unwrap();
    ask(&cached).fails(4, "damaged at byte");
    assert_eq!(fs::read(&file).unwrap(), torn);
    fs::write(&file, ASK).unwrap();
    ask(&cached).fails(4, "not a prompt cache");
    ask(&["-p", &long, "--prompt-cache", "/dev/null"]).fails(2, "character device");
    let nowhere = arg(&home.path().join("none").join("p.kv"));
    assert_ne!(ask(&["-p", &long, "--prompt-cache", &nowhere]).code, Some(0));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "no file is left beside it");
}

#[test]
fn a_batch_keeps_the_prefix_that_its_prompts_share() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| arg(&home.path().join(name));
    let poem = "白日依山尽，黄河入海流。".repeat(12);
    let row = |i: usize| {
        let prompt = format!("{poem}{i}，");
        let body = serde_json::json!({"custom_id": format!("r{i}"), "prompt": prompt, "max_tokens": 6});
        format!("{body}\n")
    };
    fs::write(path("in.jsonl"), (0..5).map(row).collect::<String>()).unwrap();
    let batch = |out: &str, more: &[&str]| {
        let (input, out) = (path("in.jsonl"), path(out));
        let m = nano();
        let args = ["batch", "-m", &m, "-i", &input, "-o", &out, "--temperature", "1", "-q"];
        run(&[&args[..], more].concat(), "").ok();
        let lines = fs::read_to_string(out).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let texts = |lines: &[Value]| {
        let text = |line: &Value| line.pointer("/response/body/choices/0/text").unwrap().clone();
        lines.iter().map(text).collect::<Vec<_>>()
    };
    let cached = |line: &Value| {
        let at = "/response/body/usage/prompt_tokens_details/cached_tokens";
        line.pointer(at).unwrap().as_u64().unwrap()
    };
    let file = path("prefix.kv");
    let plain = batch("plain.jsonl", &[]);
    let made = batch("made.jsonl", &["--prompt-cache", &file]);
    let bytes = fs::read(&file).unwrap();
    let used = batch("used.jsonl", &["--prompt-cache", &file, "--parallel", "1"]);
    assert_eq!((texts(&made), texts(&used)), (texts(&plain), texts(&plain)));
    assert!(cached(&plain[0]) == 0 && cached(&used[0]) > 60, "{} {}", plain[0], used[0]);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    // A single prompt of `run` begins from it, too.
    let raw = ["run", "-m", &nano(), "--raw", "-p", &format!("{poem}7，"), "-n", "3", "--json"];
    let begun = run(&[&raw[..], &["--prompt-cache", &file]].concat(), "").json();
    assert!(begun[0]["reused_tokens"].as_u64() > Some(60), "{begun:?}");
}
