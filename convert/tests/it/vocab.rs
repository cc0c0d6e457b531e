//! Vocabulary, special ids and templates: from the fixtures' tokenizers, and from broken copies of them.

use huozi_convert::chat::{ChatFiles, ChatSetup, SamplingDefaults};
use huozi_convert::vocab::{TokenType, Vocabulary};
use huozi_token::markers;
use minijinja::{Environment, ErrorKind, context};
use serde_json::{Value, json};

fn fixture(path: &str) -> Vec<u8> {
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn tiny() -> Value {
    serde_json::from_slice(&fixture("tests/fixtures/tiny-f32/tokenizer.json")).unwrap()
}

fn read(tokenizer: &Value) -> Result<Vocabulary, String> {
    read_with(tokenizer, None)
}

fn read_with(tokenizer: &Value, config: Option<&Value>) -> Result<Vocabulary, String> {
    Vocabulary::read(&serde_json::to_vec(tokenizer).unwrap(), config, 1024).map_err(|e| e.to_string())
}

#[test]
fn tokens_types_and_holes() {
    let vocab = read(&tiny()).unwrap();
    assert_eq!((vocab.tokens.len(), vocab.types.len(), vocab.merges.len()), (1024, 1024, 740));
    for (id, token) in [
        (0, "<unk>"),
        (1, "<s>"),
        (2, "</s>"),
        (3, "<pad>"),
        (1000, "<|beginofutterance|>"),
        (1001, "<|endofutterance|>"),
    ] {
        assert_eq!((vocab.tokens[id].as_str(), vocab.types[id]), (token, TokenType::Control));
        assert_eq!((vocab.added(token), vocab.id(token)), (Some(id as u32), Some(id as u32)));
    }
    assert!(vocab.types[4..1000].iter().all(|t| *t == TokenType::Normal));
    assert!(
        (1002..1024)
            .all(|id| vocab.tokens[id] == format!("[PAD{id}]") && vocab.types[id] == TokenType::Unused)
    );
    assert_eq!(vocab.unused(), (1002..1024).collect::<Vec<i32>>());
    assert_eq!(vocab.merges[0], "ã Ģ");
    // Normal tokens are findable, but are not added ones.
    assert_eq!((vocab.id(&vocab.tokens[500]), vocab.added(&vocab.tokens[500])), (Some(500), None));
}

#[test]
fn merges_as_pairs_and_as_strings_are_the_same() {
    let pairs = read(&tiny()).unwrap();
    let text = fixture("tests/fixtures/tiny-untied-oldkeys-f16/tokenizer.json");
    assert!(serde_json::from_slice::<Value>(&text).unwrap()["model"]["merges"][0].is_string());
    let strings = Vocabulary::read(&text, None, 1024).unwrap();
    assert_eq!((pairs.merges, pairs.tokens), (strings.merges, strings.tokens));
}

#[test]
fn added_tokens_that_are_text_and_those_of_the_config() {
    let mut t = tiny();
    let added =
        |id: u64, content: &str, special: bool| json!({"id": id, "content": content, "special": special});
    t["added_tokens"].as_array_mut().unwrap().push(added(1002, "汉字 ok", false));
    // Markers are control tokens even where the file calls them text.
    for token in t["added_tokens"].as_array_mut().unwrap() {
        if token["id"] == 1001 {
            token["special"] = json!(false);
        }
    }
    let config = json!({"added_tokens_decoder": {
        "1003": {"content": "<extra>", "special": true},
        "2": {"content": "</s>", "special": true},
    }});
    let vocab = read_with(&t, Some(&config)).unwrap();
    assert_eq!((vocab.tokens[1002].as_str(), vocab.types[1002]), ("汉字 ok", TokenType::UserDefined));
    assert_eq!((vocab.tokens[1003].as_str(), vocab.types[1003]), ("<extra>", TokenType::Control));
    assert_eq!(vocab.types[1001], TokenType::Control);
    assert_eq!(vocab.unused().len(), 20);
}

type Change = fn(&mut Value);
/// Files of a checkpoint beside the tokenizer.
type Files = Vec<(&'static str, Value)>;

#[test]
fn everything_that_would_change_ids_is_refused_by_name() {
    let cases: &[(&str, Change)] = &[
        ("model type Unigram", |t| {
            t["model"]["type"] = json!("Unigram");
            t["model"]["vocab"] = json!([["a", -1.5]]);
        }),
        ("normalizer", |t| t["normalizer"] = json!({"type": "NFC"})),
        ("pre_tokenizer", |t| {
            t["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})
        }),
        ("pre_tokenizer", |t| t["pre_tokenizer"] = Value::Null),
        ("3 steps", |t| {
            t["pre_tokenizer"]["pretokenizers"].as_array_mut().unwrap().push(json!({"type": "Digits"}))
        }),
        ("pattern", |t| t["pre_tokenizer"]["pretokenizers"][0]["pattern"] = json!({"Regex": " ?\\p{L}+"})),
        ("Removed", |t| t["pre_tokenizer"]["pretokenizers"][0]["behavior"] = json!("Removed")),
        ("invert true", |t| t["pre_tokenizer"]["pretokenizers"][0]["invert"] = json!(true)),
        ("add_prefix_space true", |t| {
            t["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = json!(true)
        }),
        ("use_regex null", |t| {
            t["pre_tokenizer"]["pretokenizers"][1].as_object_mut().unwrap().remove("use_regex");
        }),
        ("post_processor", |t| t["post_processor"] = json!({"type": "TemplateProcessing"})),
        ("dropout", |t| t["model"]["dropout"] = json!(0.1)),
        ("ignore_merges", |t| t["model"]["ignore_merges"] = json!(true)),
        ("byte_fallback", |t| t["model"]["byte_fallback"] = json!(true)),
        ("<|endofutterance|>\" has lstrip", |t| t["added_tokens"][5]["lstrip"] = json!(true)),
        ("<|endofutterance|>\" has rstrip", |t| t["added_tokens"][5]["rstrip"] = json!(true)),
        ("xxx…\" has 4097 bytes", |t| {
            let extra = json!({"id": 1010, "content": "x".repeat(4097), "special": true});
            t["added_tokens"].as_array_mut().unwrap().push(extra);
        }),
        ("has single_word", |t| {
            let extra = json!({"id": 1010, "content": "x y", "special": false, "single_word": true});
            t["added_tokens"].as_array_mut().unwrap().push(extra);
        }),
        ("merge 740: \"ã\" and \"Ģ\" are merge 0 already", |t| {
            t["model"]["merges"].as_array_mut().unwrap().push(json!("ã Ģ"))
        }),
        ("byte 0x0a has no token", |t| {
            t["model"]["vocab"].as_object_mut().unwrap().remove("Ċ");
        }),
        ("end_of_word_suffix", |t| t["model"]["end_of_word_suffix"] = json!("</w>")),
        ("has id 1024, but the embedding has 1024 rows", |t| t["added_tokens"][5]["id"] = json!(1024)),
        ("id 7 belongs to", |t| t["added_tokens"][5]["id"] = json!(7)),
        ("\"<s>\" has two ids, 1 and 1010", |t| {
            let extra = json!({"id": 1010, "content": "<s>", "special": true});
            t["added_tokens"].as_array_mut().unwrap().push(extra);
        }),
        ("\"[PAD1005]\" has two ids, 1005 and 1006", |t| {
            let extra = json!({"id": 1006, "content": "[PAD1005]", "special": false});
            t["added_tokens"].as_array_mut().unwrap().push(extra);
        }),
        ("is empty", |t| t["added_tokens"][5]["content"] = json!("")),
        ("byte-level alphabet", |t| t["model"]["vocab"]["汉"] = json!(1010)),
        ("merge 0: \"zq\" is no token", |t| t["model"]["merges"][0] = json!(["zq", "x"])),
        ("which is no token", |t| t["model"]["merges"][0] = json!(["z", "q"])),
        ("merge 0: \"Ģ x\" cannot be a token", |t| t["model"]["merges"][0] = json!("ã Ģ x")),
        ("merge 0: \"\" cannot be a token", |t| t["model"]["merges"][0] = json!(["", "a"])),
        ("has no space", |t| t["model"]["merges"][0] = json!("ab")),
        ("tokenizer.json", |t| t["model"]["vocab"]["!"] = json!(-1)),
        ("tokenizer.json", |t| t["model"] = json!([])),
        // Whatever it holds, a message is short and does nothing to the terminal.
        ("two ids", |t| {
            let long = format!("\u{1b}[2J\u{9b}{}", "x".repeat(4000));
            for id in [1010, 1011] {
                let extra = json!({"id": id, "content": long, "special": true});
                t["added_tokens"].as_array_mut().unwrap().push(extra);
            }
        }),
        ("model type", |t| t["model"]["type"] = json!(format!("\u{1b}[2J{}", "x".repeat(100_000)))),
        ("normalizer", |t| t["normalizer"] = json!({"type": format!("\u{9b}{}", "x".repeat(100_000))})),
        ("invalid type", |t| t["model"]["vocab"]["!"] = json!("\u{1b}x".repeat(100_000))),
    ];
    assert!(read(&tiny()).is_ok());
    // Options that cannot change any id are accepted.
    let mut harmless = tiny();
    harmless["model"]["vocab"].as_object_mut().unwrap().remove("ÿ");
    harmless["added_tokens"][5]["normalized"] = json!(true);
    assert_eq!(read(&harmless).map(|_| ()), Ok(()));
    for (part, change) in cases {
        let mut t = tiny();
        change(&mut t);
        let error = read(&t).expect_err(part);
        assert!(error.contains(part), "{part}: {error}");
        assert!(error.len() < 500 && !error.chars().any(char::is_control), "{part}: {}", error.len());
    }
    // One spelling twice in the object: most readers keep the last and never notice.
    let text = String::from_utf8(serde_json::to_vec(&tiny()).unwrap()).unwrap();
    let text = text.replacen(r#""vocab":{"#, r#""vocab":{"!":1010,"#, 1);
    let error = Vocabulary::read(text.as_bytes(), None, 1024).unwrap_err().to_string();
    assert!(error.contains("\"!\" has two ids"), "{error}");
    let error = read_with(&tiny(), Some(&json!({"add_prefix_space": true}))).unwrap_err();
    assert!(error.contains("add_prefix_space"), "{error}");
}

#[test]
fn huozi_ids_template_and_sampling() {
    let vocab = read(&tiny()).unwrap();
    let config = json!({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3});
    let files = ChatFiles { config: Some(&config), ..Default::default() };
    let c = ChatSetup::read(&files, &vocab).unwrap();
    assert_eq!((c.bos, c.eos, c.eot, c.unk, c.pad), (Some(1), Some(2), Some(1001), Some(0), Some(3)));
    assert_eq!(c.template.as_deref(), Some(markers::TEMPLATE));
    assert_eq!(
        c.sampling,
        Some(SamplingDefaults { temp: 0.5, top_k: 50, top_p: 0.95, penalty_repeat: 1.03 })
    );
    // A file that names the marker as its end: </s> must not be lost.
    let spelled = json!({"eos_token": {"content": "<|endofutterance|>"}, "pad_token": "nothing"});
    let generation = json!({"temperature": 0.8, "top_k": 20, "top_p": 7.0, "repetition_penalty": 1.1});
    let files = ChatFiles {
        tokenizer_config: Some(&spelled),
        generation_config: Some(&generation),
        ..Default::default()
    };
    let c = ChatSetup::read(&files, &vocab).unwrap();
    assert_eq!((c.eos, c.eot, c.pad), (Some(2), Some(1001), Some(3)));
    assert!(c.notes.iter().any(|n| n.contains("\"nothing\"")), "{:?}", c.notes);
    assert_eq!(c.sampling, Some(SamplingDefaults { temp: 0.8, top_k: 20, top_p: 0.95, penalty_repeat: 1.1 }));
    // Greedy, but only where the file says so itself.
    for (generation, temp) in [
        (json!({"do_sample": false, "temperature": 0.8}), 0.0),
        (json!({"temperature": 0}), 0.0),
        (json!({"temperature": 0.0, "do_sample": true}), 0.0),
        (json!({"do_sample": true}), 0.5),
        (json!({"do_sample": null, "temperature": -1}), 0.5),
        (json!({}), 0.5),
    ] {
        let files = ChatFiles { generation_config: Some(&generation), ..Default::default() };
        assert_eq!(ChatSetup::read(&files, &vocab).unwrap().sampling.unwrap().temp, temp, "{generation}");
    }
    let files = ChatFiles { config: Some(&json!({"eos_token_id": 1024})), ..Default::default() };
    assert!(ChatSetup::read(&files, &vocab).unwrap_err().to_string().contains("1024"));
}

#[test]
fn own_templates_win_and_plain_models_have_none() {
    let vocab = read(&tiny()).unwrap();
    let read = |tokenizer_config: Value, jinja: Option<&str>| {
        let files = ChatFiles {
            tokenizer_config: Some(&tokenizer_config),
            chat_template: jinja,
            ..Default::default()
        };
        ChatSetup::read(&files, &vocab).map(|c| c.template.unwrap()).map_err(|e| e.to_string())
    };
    let list = json!([{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]);
    assert_eq!(read(json!({"chat_template": "T"}), Some("J")).unwrap(), "J");
    assert_eq!(read(json!({"chat_template": "T"}), None).unwrap(), "T");
    assert_eq!(read(json!({"chat_template": list}), None).unwrap(), "D");
    assert!(
        read(
            json!({"chat_template": [{"name": "a", "template": "A"}, {"name": "b", "template": "B"}]}),
            None
        )
        .is_err()
    );
    assert!(read(json!({"chat_template": 3}), None).is_err());

    // Without the markers, BLOOM: nothing to chat with.
    let mut t = tiny();
    t["added_tokens"].as_array_mut().unwrap().truncate(4);
    let plain = Vocabulary::read(&serde_json::to_vec(&t).unwrap(), None, 1024).unwrap();
    let c = ChatSetup::read(&ChatFiles::default(), &plain).unwrap();
    assert_eq!((c.template, c.sampling, c.eot, c.eos), (None, None, None, Some(2)));
    // Another model's list of ends.
    let generation = json!({"eos_token_id": [2, 77]});
    let files = ChatFiles { generation_config: Some(&generation), ..Default::default() };
    let c = ChatSetup::read(&files, &plain).unwrap();
    assert_eq!((c.eos, c.eot), (Some(2), Some(77)));
}

fn render(messages: Value, add_generation_prompt: bool, trim: bool) -> Result<String, minijinja::Error> {
    let mut env = Environment::new();
    // Both ways that programs set these.
    env.set_syntax(env.syntax().to_builder().trim_blocks(trim).lstrip_blocks(trim).build()?);
    env.add_function("raise_exception", |text: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
    });
    env.add_template("chat", markers::TEMPLATE)?;
    let messages = minijinja::value::Serde(messages);
    env.get_template("chat")?.render(context! { messages, add_generation_prompt })
}

#[test]
fn huozi_template_renders_the_format_byte_for_byte() {
    let system = "你是“活字”，由哈尔滨工业大学自然语言处理研究所训练的人工智能助手。请用自然、准确、有条理的语言回答用户的问题，并帮助用户完成任务。";
    assert_eq!(markers::DEFAULT_SYSTEM, system);
    let turns = json!([
        {"role": "user", "content": "你好\n "},
        {"role": "assistant", "content": " 好。"},
        {"role": "user", "content": "再见"},
    ]);
    let tail = "<|beginofutterance|>用户\n你好\n <|endofutterance|>\n\
        <|beginofutterance|>助手\n 好。<|endofutterance|>\n\
                <|beginofutterance|>用户\n再见<|endofutterance|>\n";
    let open = "<|beginofutterance|>助手\n";
    for trim in [true, false] {
        let head = format!("<|beginofutterance|>系统\n{system}<|endofutterance|>\n");
        assert_eq!(render(turns.clone(), true, trim).unwrap(), format!("{head}{tail}{open}"));
        assert_eq!(render(turns.clone(), false, trim).unwrap(), format!("{head}{tail}"));
        assert_eq!(render(json!([]), true, trim).unwrap(), format!("{head}{open}"));
        let mut own = vec![json!({"role": "system", "content": "短"})];
        own.extend(turns.as_array().unwrap().clone());
        let head = "<|beginofutterance|>系统\n短<|endofutterance|>\n";
        assert_eq!(render(json!(own), true, trim).unwrap(), format!("{head}{tail}{open}"));
        // The Chinese names of the roles mean the same.
        let chinese = json!([
            {"role": "系统", "content": "短"},
            {"role": "用户", "content": "问"},
            {"role": "助手", "content": "答"},
        ]);
        let all = format!(
            "{head}<|beginofutterance|>用户\n问<|endofutterance|>\n<|beginofutterance|>助手\n答<|endofutterance|>\n"
        );
        assert_eq!(render(chinese, false, trim).unwrap(), all);
        // A role of another kind, or a system turn that is not the first, is no part of the format.
        for role in ["tool", "system"] {
            let bad = json!([{"role": "user", "content": "x"}, {"role": role, "content": "y"}]);
            assert!(render(bad, true, trim).unwrap_err().to_string().contains("roles are"));
        }
    }
}

fn folder(change: impl FnOnce(&mut Value), files: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::write(folder.path().join(name), fixture(&format!("tests/fixtures/tiny-f32/{name}")))
            .unwrap();
    }
    let mut json = tiny();
    change(&mut json);
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    for (name, value) in files {
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    folder
}

fn convert(folder: &tempfile::TempDir) -> Result<Vec<String>, String> {
    let out = folder.path().join("out.gguf");
    let source = huozi_convert::Source::Path(folder.path().to_owned());
    let options = huozi_convert::Options::new(source, huozi_convert::plan::Preset::F16, &out);
    let done = crate::convert_support::go(&options);
    let names = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name());
    let left = names.filter(|name| name.to_string_lossy().contains("out.gguf")).count();
    assert_eq!(left, usize::from(done.is_ok()), "nothing is written before the file is known to run");
    done.map(|report| report.notes).map_err(|e| e.to_string())
}

fn token(id: u64, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "special": special, "normalized": !special, "single_word": false,
        "lstrip": false, "rstrip": false})
}

/// Tokenizers as different versions and programs save them: the same ids, so no reason to refuse them.
#[test]
fn tokenizers_of_all_kinds_of_programs_are_converted() {
    let cases: Vec<(&str, Change, Files)> = vec![
        ("as it is", |_| (), vec![]),
        ("no type", |t| drop(t["model"].as_object_mut().unwrap().remove("type")), vec![]),
        (
            "an empty sequence of normalizers",
            |t| {
                t["normalizer"] = json!({"type": "Sequence", "normalizers": []});
            },
            vec![],
        ),
        (
            "a template of nothing but the text",
            |t| {
                t["post_processor"] = json!({"type": "TemplateProcessing", "special_tokens": {},
                "single": [{"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]});
            },
            vec![],
        ),
        (
            "cut and padded while training",
            |t| {
                t["truncation"] =
                    json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
                t["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Left",
                    "pad_to_multiple_of": null,
                "pad_id": 3, "pad_type_id": 0, "pad_token": "<pad>"});
            },
            vec![],
        ),
        (
            "a token in the configuration only",
            |_| (),
            vec![(
                "tokenizer_config.json",
                json!({"added_tokens_decoder": {
                    "1002": token(1002, "<extra>", true), "2": token(2, "</s>", true),
                }}),
            )],
        ),
        (
            "a token in a file of old",
            |_| (),
            vec![
                ("tokenizer_config.json", json!({"eos_token": "</s>"})),
                ("added_tokens.json", json!({"<extra>": 1002, "</s>": 2})),
                ("special_tokens_map.json", json!({"additional_special_tokens": ["<extra>"]})),
            ],
        ),
        (
            "overlapping tokens",
            |t| {
                for one in [
                    token(1002, "甲乙", false),
                    json!({"id": 1003, "content": "乙丙", "special": false,
                "normalized": false, "single_word": false, "lstrip": false, "rstrip": false}),
                ] {
                    t["added_tokens"].as_array_mut().unwrap().push(one);
                }
            },
            vec![],
        ),
    ];
    for (name, change, files) in cases {
        let notes = convert(&folder(change, &files)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(notes.iter().all(|note| !note.contains("not compared")), "{name}: {notes:?}");
    }
    let folder = folder(
        |_| (),
        &[
            ("added_tokens.json", json!({"<extra>": 1002})),
            (
                "special_tokens_map.json",
                json!({"additional_special_tokens": ["<extra>"], "eos_token": "<extra>"}),
            ),
        ],
    );
    convert(&folder).unwrap();
    let reader = crate::convert_support::open(&folder.path().join("out.gguf"));
    assert_eq!(reader.meta().uint("tokenizer.ggml.eos_token_id").unwrap(), Some(1002), "the tokenizer's");
    assert_eq!(reader.meta().ints("tokenizer.ggml.token_type").unwrap().unwrap().iter().nth(1002), Some(3));
}

/// A token of the vocabulary that the configuration names as special is a control token, as in transformers.
#[test]
fn named_special_tokens_become_control_tokens() {
    let word =
        tiny()["model"]["vocab"].as_object().unwrap().iter().find(|(t, _)| t.len() > 8).unwrap().0.clone();
    let id = tiny()["model"]["vocab"][&word].as_u64().unwrap() as usize;
    let config =
        json!({"additional_special_tokens": [word, "nothing", "a"], "pad_token": {"content": "<pad>"}});
    let vocab = read_with(&tiny(), Some(&config)).unwrap();
    assert_eq!(vocab.types[id], TokenType::Control);
    assert_eq!(vocab.types.iter().filter(|t| **t == TokenType::Control).count(), 7, "not a single letter");
}

#[test]
fn ids_that_differ_from_the_tokenizers_crate_are_refused_before_anything_is_written() {
    // The crate numbers tokens without a gap, whatever the file says.
    let gap = folder(|t| t["added_tokens"].as_array_mut().unwrap().push(token(1010, "<extra>", true)), &[]);
    let error = convert(&gap).unwrap_err();
    assert!(error.contains("<extra>") && error.contains("1010") && error.contains("1002"), "{error}");
    let other = folder(
        |t| t["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}),
        &[],
    );
    let error = convert(&other).unwrap_err();
    assert!(error.contains("GPT-2") && error.contains("FLOR"), "{error}");
}

#[test]
fn a_template_that_cannot_run_is_refused_before_anything_is_written() {
    let template = |text: &str| folder(|_| (), &[("tokenizer_config.json", json!({"chat_template": text}))]);
    let error = convert(&template("{% for m in messages %}")).unwrap_err();
    assert!(error.contains("chat template") && error.contains("--chat-template none"), "{error}");
    convert(&template("{% for m in messages %}{{ m.content }}{% endfor %}")).unwrap();
}
