//! Which chat template a file gets.

use crate::convert_support::{fixture, go, open};
use huozi_convert::plan::Preset;
use huozi_convert::{Options, Source, TemplateChoice};
use serde_json::{Value, json};
use std::path::Path;

/// A checkpoint of Huozi's vocabulary with these files instead of its own; an empty text is a folder.
fn checkpoint(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("tiny-f32")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn converted(source: &Path, choice: TemplateChoice) -> Result<(Option<String>, Vec<String>), String> {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("a.gguf");
    let options = Options {
        chat_template: choice,
        ..Options::new(Source::Path(source.to_owned()), Preset::F16, &path)
    };
    let report = go(&options).map_err(|error| error.to_string())?;
    let template = open(&path).meta().str("tokenizer.chat_template").unwrap().map(str::to_owned);
    Ok((template, report.notes))
}

fn config(template: Value) -> String {
    json!({ "chat_template": template }).to_string()
}

/// A template that works, and tells which one it is.
fn text(name: &str) -> String {
    format!("{name}: {{{{ messages[-1].content }}}}")
}

/// Files of a checkpoint: name and content.
type Files<'a> = Vec<(&'a str, String)>;

#[test]
fn template_files_come_first_and_of_several_the_default() {
    let named = |names: &[&str]| -> Value {
        names.iter().map(|name| json!({"name": name, "template": text(name)})).collect()
    };
    let (main, extra) =
        ("chat_template.jinja", |name: &str| format!("additional_chat_templates/{name}.jinja"));
    let key = "tokenizer_config.json";
    let (jinja, from_config, tools, default) =
        (text("J"), config(text("C").into()), extra("tool_use"), extra("default"));
    let cases: Vec<(Files<'_>, &str, &str)> = vec![
        (vec![(main, jinja.clone())], "J", ""),
        (vec![(key, from_config.clone())], "C", ""),
        (vec![(main, jinja.clone()), (key, from_config.clone())], "J", "another chat template"),
        (vec![(main, jinja.clone()), (&tools, text("T"))], "J", ""),
        (vec![(main, jinja.clone()), (&default, text("D"))], "D", ""),
        (vec![(&tools, text("T")), (key, from_config.clone())], "T", "\"tool_use\""),
        (vec![(key, config(named(&["tool_use", "default"])))], "default", "not \"tool_use\""),
        (vec![(key, config(named(&["rag"])))], "rag", "\"rag\""),
        (vec![(key, config(json!({"default": text("D"), "rag": text("R")})))], "D", "not \"rag\""),
        (
            vec![(
                key,
                config(json!([{"name": "default", "template": text("1")},
            {"name": "default", "template": text("2")}])),
            )],
            "2",
            "",
        ),
    ];
    for (files, want, note) in cases {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let (template, notes) = converted(checkpoint(&files).path(), TemplateChoice::Source).unwrap();
        assert_eq!(template, Some(text(want)), "{files:?}");
        assert!(notes.iter().any(|n| n.contains(note)), "{files:?}: {notes:?}");
    }
}

#[test]
fn templates_without_a_default_are_refused_with_the_remedy() {
    for list in [
        json!([{"name": "a", "template": "A"}, {"name": "b", "template": "B"}]),
        json!({"a": "A", "b": "B"}),
        json!([]),
        json!([{"name": "default"}]),
        json!(3),
    ] {
        let dir = checkpoint(&[("tokenizer_config.json", &config(list.clone()))]);
        let error = converted(dir.path(), TemplateChoice::Source).unwrap_err();
        assert!(error.starts_with("tokenizer_config.json: "), "{list}: {error}");
        if list.get(1).is_some() || list == json!([]) || list.is_object() {
            assert!(error.contains("--chat-template none"), "{list}: {error}");
        }
        // The remedy works.
        assert_eq!(converted(dir.path(), TemplateChoice::Omit).unwrap().0, None);
    }
    let dir = checkpoint(&[
        ("additional_chat_templates/a.jinja", "A"),
        ("additional_chat_templates/b.jinja", "B"),
        ("additional_chat_templates/notes.txt", "N"),
    ]);
    let error = converted(dir.path(), TemplateChoice::Source).unwrap_err();
    assert!(error.contains("\"a\", \"b\" and none called \"default\""), "{error}");
}

#[test]
fn a_template_can_be_left_out_or_replaced() {
    let dir = checkpoint(&[("chat_template.jinja", &text("J"))]);
    let file = dir.path().join("other.jinja");
    std::fs::write(&file, text("F")).unwrap();
    let file = TemplateChoice::from_argument(file);
    assert_eq!(TemplateChoice::from_argument("none".into()), TemplateChoice::Omit);
    assert_eq!(converted(dir.path(), TemplateChoice::Omit).unwrap().0, None);
    assert_eq!(converted(dir.path(), file.clone()).unwrap().0, Some(text("F")));
    // Also those of a GGUF file, and Huozi's format that stands in for one.
    let gguf = dir.path().join("a.gguf");
    go(&Options::new(Source::Path(dir.path().to_owned()), Preset::F16, &gguf)).unwrap();
    assert_eq!(converted(&gguf, TemplateChoice::Source).unwrap().0, Some(text("J")));
    assert_eq!(converted(&gguf, TemplateChoice::Omit).unwrap().0, None);
    assert_eq!(converted(&gguf, file).unwrap().0, Some(text("F")));
    let plain = checkpoint(&[]);
    let (template, notes) = converted(plain.path(), TemplateChoice::Source).unwrap();
    assert_eq!(template.as_deref(), Some(huozi_token::markers::TEMPLATE));
    assert!(notes.iter().any(|n| n.contains("no chat template")), "{notes:?}");
    let (template, notes) = converted(plain.path(), TemplateChoice::Omit).unwrap();
    assert!(template.is_none() && !notes.iter().any(|n| n.contains("no chat template")), "{notes:?}");
}

#[test]
fn tokens_that_only_the_template_names_are_written() {
    let names = "{{ sep_token }}{{ additional_special_tokens | join }}";
    let config = json!({
        "sep_token": "</s>", "mask_token": "<pad>", "cls_token": {"content": "nothing"},
        "additional_special_tokens": ["<a>", {"content": "<b>"}], "chat_template": text(names),
    });
    let dir = checkpoint(&[("tokenizer_config.json", &config.to_string())]);
    let out = dir.path().join("a.gguf");
    go(&Options::new(Source::Path(dir.path().to_owned()), Preset::F16, &out)).unwrap();
    let reader = open(&out);
    let meta = reader.meta();
    assert_eq!(meta.uint("tokenizer.ggml.seperator_token_id").unwrap(), Some(2));
    assert_eq!(meta.uint("tokenizer.ggml.mask_token_id").unwrap(), None, "not in the template");
    let tokenizer = huozi_token::Tokenizer::from_gguf(meta).unwrap();
    let format = huozi_token::ChatFormat::from_gguf(meta, &tokenizer).unwrap();
    let question = [huozi_token::Message::text(huozi_token::Role::User, "问")];
    let prompt = format.prompt_text(&question, huozi_token::DateTime::MIN, &tokenizer).unwrap();
    assert_eq!(prompt, "</s><a><b>: 问");
}
