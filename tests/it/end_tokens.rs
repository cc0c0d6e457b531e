//! Everything that a checkpoint names as an end token stops an answer.

use crate::common::{arg, checkpoint, model, run};
use huozi_convert::plan::Preset;
use huozi_convert::{Options, Source, pipeline};
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;
use huozi_token::Tokenizer;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::AtomicBool;

const TEMPLATE: &str = "{% for m in messages %}\
    {{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The small model with its markers renamed, so that nothing built in applies, and these files beside it.
fn nano(folder: &Path, config: Value, files: &[(&str, Value)]) {
    let from = checkpoint("nano");
    std::fs::copy(from.join("model.safetensors"), folder.join("model.safetensors")).unwrap();
    let mut own: Value = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    for (key, value) in config.as_object().unwrap() {
        own[key] = value.clone();
    }
    std::fs::write(folder.join("config.json"), own.to_string()).unwrap();
    let text = std::fs::read_to_string(from.join("tokenizer.json")).unwrap();
    let text =
        text.replace("<|beginofutterance|>", "<|im_start|>").replace("<|endofutterance|>", "<|im_end|>");
    std::fs::write(folder.join("tokenizer.json"), text).unwrap();
    for (name, value) in files {
        std::fs::write(folder.join(name), value.to_string()).unwrap();
    }
}

struct Converted {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    notes: Vec<String>,
}

fn convert(config: Value, files: &[(&str, Value)]) -> Result<Converted, String> {
    let folder = tempfile::tempdir().unwrap();
    nano(folder.path(), config, files);
    let path = folder.path().join("out.gguf");
    let options = Options::new(Source::Path(folder.path().to_owned()), Preset::F16, &path);
    let report = pipeline::run(&options, &(), &AtomicBool::new(false)).map_err(|e| e.to_string())?;
    Ok(Converted { _folder: folder, path, notes: report.notes })
}

/// `eos`, `eot`, the ids in the key of our own, and all that stop.
fn ends(path: &Path) -> (Option<u64>, Option<u64>, Vec<i64>, Vec<u32>) {
    let reader = Reader::open(path, How::Read).unwrap();
    let meta = reader.meta();
    let id = |key: &str| meta.uint(&format!("tokenizer.ggml.{key}_token_id")).unwrap();
    let rest = meta.ints("huozi.end_token_ids").unwrap().map_or(Vec::new(), |ids| ids.iter().collect());
    (id("eos"), id("eot"), rest, Tokenizer::from_gguf(meta).unwrap().vocab().stop_ids())
}

fn marker(text: &str) -> u32 {
    let json: Value =
        serde_json::from_slice(&std::fs::read(checkpoint("nano").join("tokenizer.json")).unwrap()).unwrap();
    let added = json["added_tokens"].as_array().unwrap();
    added.iter().find(|t| t["content"] == text).unwrap()["id"].as_u64().unwrap() as u32
}

#[test]
fn all_that_the_files_name_stop_an_answer() {
    let end = marker("<|endofutterance|>");
    let id = u64::from(end);
    let chat = |eos: &str| json!({"eos_token": eos, "chat_template": TEMPLATE});
    type Case = (Value, Vec<(&'static str, Value)>, (u64, Option<u64>, Vec<i64>));
    let cases: Vec<Case> = vec![
        // config.json alone has the list.
        (
            json!({"eos_token_id": [2, end]}),
            vec![("tokenizer_config.json", chat("</s>"))],
            (2, Some(id), vec![]),
        ),
        // Each file names another one.
        (
            json!({"eos_token_id": 2}),
            vec![
                ("tokenizer_config.json", chat("<|im_end|>")),
                ("generation_config.json", json!({"eos_token_id": [3, 77]})),
            ],
            (id, Some(2), vec![3, 77]),
        ),
        // What the template writes comes before what is named first.
        (
            json!({"eos_token_id": [2, 77, 78]}),
            vec![
                ("tokenizer_config.json", chat("</s>")),
                ("generation_config.json", json!({"eos_token_id": end})),
            ],
            (2, Some(id), vec![77, 78]),
        ),
        // The template writes none of them.
        (
            json!({"eos_token_id": [2, 77]}),
            vec![("tokenizer_config.json", json!({"chat_template": "{{ messages[-1].content }}"}))],
            (2, Some(77), vec![]),
        ),
        // Old checkpoints name it in a file of its own.
        (
            json!({"eos_token_id": 2}),
            vec![
                ("tokenizer_config.json", chat("</s>")),
                ("special_tokens_map.json", json!({"eos_token": {"content": "<|im_end|>"}})),
            ],
            (id, Some(2), vec![]),
        ),
        (json!({"eos_token_id": null}), vec![], (2, None, vec![])),
    ];
    for (config, files, (eos, eot, rest)) in cases {
        let done = convert(config.clone(), &files).unwrap();
        let found = ends(&done.path);
        assert_eq!((found.0, found.1, &found.2), (Some(eos), eot, &rest), "{config} {files:?}");
        let mut all: Vec<u32> = [eos].into_iter().chain(eot).map(|id| id as u32).collect();
        all.extend(rest.iter().map(|&id| id as u32));
        for id in &all {
            assert!(found.3.contains(id), "{id} of {all:?} does not stop: {:?}", found.3);
        }
        let note = done.notes.iter().find(|note| note.contains("huozi.end_token_ids"));
        assert_eq!(note.is_some(), !rest.is_empty(), "{:?}", done.notes);
        if let Some(note) = note {
            assert!(rest.iter().all(|id| note.contains(&format!("{id} \""))), "{note}");
        }
        // Another conversion keeps all of them.
        let again = done.path.with_extension("q8.gguf");
        let options = Options::new(Source::Path(done.path.clone()), Preset::Q8_0, &again);
        pipeline::run(&options, &(), &AtomicBool::new(false)).unwrap();
        assert_eq!(ends(&again), found);
    }
}

#[test]
fn a_third_end_token_ends_the_answer() {
    // The model ends its answers with the marker, which is one of five end tokens here: the last.
    let end = marker("<|endofutterance|>");
    let files = [(
        "tokenizer_config.json",
        json!({"eos_token": "</s>", "chat_template": "{{ messages[-1].content }}"}),
    )];
    let done = convert(json!({"eos_token_id": [2, 77, 78, 3, end]}), &files).unwrap();
    assert_eq!(ends(&done.path).2, [78, 3, i64::from(end)]);
    let answer = |path: &Path, begin: &str, end: &str| {
        let prompt = format!("{begin}用户\n你好{end}\n{begin}助手\n");
        let told =
            run(&["run", "-m", &arg(path), "--raw", "--specials", &prompt, "-n", "200", "--greedy"], "");
        told.ok().to_owned()
    };
    // 31 tokens, the marker included.
    let usual = answer(&model("nano", Preset::F16), "<|beginofutterance|>", "<|endofutterance|>");
    assert!(usual.chars().count() < 80, "{usual}");
    assert_eq!(answer(&done.path, "<|im_start|>", "<|im_end|>"), usual);
}

#[test]
fn bad_end_tokens_are_refused_and_bad_others_are_noted() {
    for (config, part) in [
        (json!({"eos_token_id": 6144}), "config.json: eos_token_id is 6144"),
        (json!({"eos_token_id": [2, -1]}), "eos_token_id is -1"),
        (json!({"eos_token_id": "2"}), "eos_token_id is \"2\""),
        (json!({"eos_token_id": [[2]]}), "eos_token_id is"),
        (json!({"eos_token_id": 2.5}), "eos_token_id is 2.5"),
    ] {
        let error = convert(config.clone(), &[]).err().unwrap_or_else(|| panic!("{config}"));
        assert!(error.contains(part), "{config}: {error}");
    }
    let generation = [("generation_config.json", json!({"eos_token_id": [2, 9999]}))];
    assert!(
        convert(json!({}), &generation)
            .err()
            .unwrap()
            .contains("generation_config.json: eos_token_id is 9999")
    );
    for (config, part) in [
        (json!({"pad_token_id": -1}), "pad_token_id is -1"),
        (json!({"pad_token_id": 9999}), "pad_token_id is 9999"),
        (json!({"bos_token_id": 6144}), "bos_token_id is 6144"),
        (json!({"unk_token_id": "x"}), "unk_token_id is \"x\""),
    ] {
        let done = convert(config.clone(), &[]).unwrap_or_else(|e| panic!("{config}: {e}"));
        assert!(done.notes.iter().any(|note| note.contains(part)), "{config}: {:?}", done.notes);
        run(&["verify", &arg(&done.path)], "").ok();
    }
}
