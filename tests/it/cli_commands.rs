//! Every subcommand from outside: what goes to standard output, what to standard error.

use crate::common::{arg, finish, fixture, huozi, model, run};
use huozi_convert::plan::Preset;
use std::fs;

fn nano() -> String {
    arg(&model("nano", Preset::F16))
}

const ASK: &str = "写一首关于月的诗。";

#[test]
fn run_gives_the_answer_and_nothing_else() {
    let m = nano();
    let answer = run(&["run", "-m", &m, "-p", ASK, "-s", "1", "-n", "20"], "");
    assert!(answer.ok().trim().chars().count() > 5, "{answer:?}");
    assert!(answer.out().ends_with('\n') && !answer.out().contains("<|"), "{answer:?}");
    assert_eq!(
        answer.stderr, "[stopped: the limit of -n is reached]\n",
        "standard error is no terminal: no statistics, and the seed was given"
    );
    // The same from a file and from standard input, line break at the end or not.
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("p.txt");
    fs::write(&file, format!("{ASK}\n")).unwrap();
    let args = ["run", "-m", &m, "-s", "1", "-n", "20"];
    assert_eq!(run(&args, &format!("{ASK}\n")).ok(), answer.out());
    assert_eq!(run(&[&args[..], &["-f", &arg(&file)]].concat(), "").ok(), answer.out());
    assert_eq!(run(&[&args[..], &["-f", "-"]].concat(), ASK).ok(), answer.out());
    assert_eq!(run(&["run", "-m", &m, "-s", "1", "-n", "20", ASK], "").ok(), answer.out());
    // Another seed, another poem; the same model read into memory, the same poem.
    assert_ne!(run(&["run", "-m", &m, "-p", ASK, "-s", "2", "-n", "20"], "").ok(), answer.out());
    assert_eq!(run(&[&args[..], &["--no-mmap", "-t", "1"]].concat(), ASK).ok(), answer.out());
}

#[test]
fn run_tells_its_statistics_when_asked() {
    let seen = run(&["run", "-m", &nano(), "-p", ASK, "-s", "77", "-n", "5", "-v"], "");
    seen.ok();
    assert!(seen.stderr.contains("seed 77") && seen.stderr.contains("answer 5 tokens"), "{}", seen.stderr);
}

#[test]
fn a_drawn_seed_is_shown_and_quiet_is_quiet() {
    let m = nano();
    let seed = |stderr: &str| {
        let line = stderr.lines().find(|l| l.starts_with("[seed ")).map(str::to_owned);
        line.map(|l| l["[seed ".len()..l.len() - 1].to_owned())
    };
    let args = ["run", "-m", &m, "-n", "8", ASK];
    let drawn = run(&args, "");
    let shown = seed(&drawn.stderr).unwrap_or_else(|| panic!("{drawn:?}"));
    assert_eq!(run(&[&args[..], &["-s", &shown]].concat(), "").ok(), drawn.ok(), "the seed is the one used");
    // Where nothing is drawn there is no seed to know.
    assert_eq!(seed(&run(&[&args[..], &["--greedy"]].concat(), "").stderr), None);
    // More context than trained is a note; two lines of a chat show one seed.
    let long = ["-c", "2100", "--no-memory-check"];
    let noisy = run(&[&args[..], &long].concat(), "");
    assert!(noisy.stderr.contains("trained with") && noisy.stderr.contains("limit of -n"), "{noisy:?}");
    assert_eq!(run(&[&args[..], &long, &["-q"]].concat(), "").stderr, "");
    let chat = run(&["chat", "-m", &m, "-n", "4"], &format!("{ASK}\n{ASK}\n"));
    assert_eq!(chat.stderr.matches("[seed ").count(), 1, "{chat:?}");
    assert_eq!(chat.stderr.matches("[stopped: the limit of -n").count(), 2, "{chat:?}");
}

#[test]
fn run_json() {
    let lines = run(&["run", "-m", &nano(), "-p", ASK, "-n", "5", "--json", "-c", "300"], "").json();
    assert_eq!(lines.len(), 1);
    let answer = &lines[0];
    assert_eq!(answer["ids"].as_array().unwrap().len(), 5);
    assert_eq!(answer["stop"], "length");
    assert!(answer["seed"].is_u64() && answer["text"].is_string());
    assert_eq!((&answer["context"], &answer["kv_type"]), (&300.into(), &"f16".into()));
    assert_eq!(answer["model_fingerprint"].as_str().unwrap().len(), 16);
    // The seed that was drawn gives the same answer again.
    let seed = answer["seed"].to_string();
    let again =
        run(&["run", "-m", &nano(), "-p", ASK, "-n", "5", "--json", "-c", "300", "-s", &seed], "").json();
    assert_eq!(again[0]["ids"], answer["ids"]);
}

#[test]
fn specials_are_parsed_on_demand_only() {
    let m = nano();
    let text = "<|beginofutterance|>用户\n你是谁？<|endofutterance|>\n<|beginofutterance|>助手\n";
    let args =
        ["run", "-m", &m, "--raw", "--greedy", "--repetition-penalty", "1", "--kv-type", "f32", "--json"];
    let args = [&args[..], &["-p", text]].concat();
    let parsed = &run(&[&args[..], &["--specials"]].concat(), "").json()[0];
    assert_eq!(parsed["text"], "我是活字，一个在本地运行的小模型，会写古诗词。");
    assert_eq!(parsed["stop"], "end");
    let plain = &run(&[&args[..], &["-n", "4"]].concat(), "").json()[0];
    assert!(
        plain["prompt_tokens"].as_u64() > parsed["prompt_tokens"].as_u64(),
        "markers spelled out are text"
    );
}

#[test]
fn chat_over_a_pipe() {
    let home = tempfile::tempdir().unwrap();
    let m = nano();
    let args = ["chat", "-m", &m, "-s", "3", "-n", "12", "-v"];
    let script = format!(
        "/set top_k 20\n{ASK}\n/stats\n/save 月\n/retry\n/undo\n\n/nonsense\n\
         \"\"\"\n写一首\n关于雪的诗。\n\"\"\"\n/save 雪\n/quit\n{ASK}\n"
    );
    let talk = finish(huozi(home.path()).args(args), &script);
    assert_eq!(talk.code, Some(1), "a line failed: {talk:?}");
    assert!(talk.out().lines().filter(|l| !l.is_empty()).count() >= 3, "{talk:?}");
    let stderr = &talk.stderr;
    for said in [
        "top_k 20",
        "attempt 2",
        "taken back: 写一首关于月",
        "/nonsense is no command",
        "huozi: 1 of the lines failed\n",
        "saved as 月",
        "kept)",
    ] {
        assert!(stderr.contains(said), "{said:?} missing in {stderr}");
    }
    assert!(!talk.out().contains("saved"), "only answers go to standard output");
    let saved = fs::read_to_string(home.path().join(".local/share/huozi/sessions/雪.jsonl")).unwrap();
    assert!(
        saved.contains("写一首\\n关于雪的诗。") && saved.lines().all(|l| l.contains("\"schema\":1")),
        "{saved}"
    );
    // The saved one goes on where it was: its ids and so its keys and values are the same ones.
    let on = finish(huozi(home.path()).args(args).args(["--load", "月"]), "/undo\n/load 月\n/stats\n");
    on.ok();
    assert!(
        on.stderr.contains("taken back: 写一首关于月") && on.stderr.contains("loaded 月: 1 exchange"),
        "{}",
        on.stderr
    );
    // A retry after loading is the retry it would have been.
    let retried = finish(huozi(home.path()).args(args).args(["--load", "月"]), "/set top_k 20\n/retry\n");
    let second = talk.out().lines().collect::<Vec<_>>().join("\n");
    assert!(second.contains(retried.ok().trim()), "{:?} is no part of {second:?}", retried.out());
}

#[test]
fn tokenize_both_ways() {
    let m = nano();
    let text = run(&["tokenize", "-m", &m, "-p", "白日依山尽，😀"], "");
    let ids: Vec<&str> = text.ok().lines().map(|l| l.split_once('\t').unwrap().0).collect();
    assert!(ids.len() > 4 && text.out().contains("\\x"), "{text:?}");
    let back = run(&["tokenize", "-m", &m, "--ids", &ids.join(",")], "");
    assert_eq!(back.ok(), "白日依山尽，😀\n");
    let marker = "<|endofutterance|>";
    let count = |more: &[&str]| {
        let json = run(&[&["tokenize", "-m", &m, "--json", "-p", marker], more].concat(), "").json();
        json[0]["n_tokens"].as_u64().unwrap()
    };
    assert_eq!(count(&["--specials"]), 1);
    assert!(count(&[]) > 1);
    let json = run(&["tokenize", "-m", &m, "--json"], "春\n").json();
    assert_eq!(json[0]["text"], "春");
    assert_eq!(json[0]["tokens"][0]["bytes"], "e698a5");
    let spaced = run(&["tokenize", "-m", &m, "--ids", &ids.join(" ")], "");
    assert_eq!(spaced.ok(), back.out());
    run(&["tokenize", "-m", &m, "--ids", "99999"], "").fails(2, "id 99999 is out of range");
}

#[test]
fn logits_as_text_json_and_raw() {
    let m = arg(&model("tiny-f32", Preset::F32));
    let json = run(&["logits", "-m", &m, "--ids", "5,6,7", "--json", "-k", "3"], "").json();
    assert_eq!(json.len(), 3);
    assert_eq!(json[1]["position"], 1);
    assert_eq!(json[1]["id"], 6);
    assert_eq!(
        (&json[2]["kv_type"], json[2]["model_fingerprint"].as_str().unwrap().len()),
        (&"f32".into(), 16)
    );
    assert!(json[0]["runs_on"].is_string() && json[0]["threads"].is_u64() && json[0]["model"] == m.as_str());
    let top = json[1]["top"].as_array().unwrap();
    assert_eq!(top.len(), 3);
    assert!(top[0]["logit"].as_f64() >= top[1]["logit"].as_f64() && top[0]["logprob"].as_f64() < Some(0.0));
    let last = run(&["logits", "-m", &m, "--ids", "5,6,7", "--last", "--json", "--all"], "").json();
    assert_eq!((last.len(), &last[0]["position"]), (1, &serde_json::json!(2)));
    let text = run(&["logits", "-m", &m, "-p", "春"], "");
    assert!(text.ok().starts_with("# position\tid\tpiece; "), "{text:?}");
    assert!(text.out().lines().nth(1).unwrap().starts_with("0\t"), "{text:?}");
    // The digits give the number again, and no more of them than that takes.
    let shown = run(&["logits", "-m", &m, "--ids", "5", "--all"], "");
    let text: Vec<&str> = shown.ok().lines().skip(1).map(|l| l.rsplit_once('\t').unwrap().1).collect();
    assert_eq!(shown.out().lines().next(), Some("# position\tid\tlogit"));

    let home = tempfile::tempdir().unwrap();
    let raw =
        finish(huozi(home.path()).args(["logits", "-m", &m, "--ids", "5,6,7", "--all", "-o", "out.f32"]), "");
    assert_eq!(raw.ok(), "");
    let bytes = fs::read(home.path().join("out.f32")).unwrap();
    let values: Vec<f32> = bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let row: Vec<f32> =
        last[0]["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
    assert_eq!(values.len(), 3 * row.len(), "padding rows included");
    assert!(values[2 * row.len()..].iter().zip(&row).all(|(a, b)| a == b));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "no partial file stays");
    let first: Vec<String> = values[..row.len()].iter().map(f32::to_string).collect();
    assert_eq!(text, first);
    let printed = run(&["logits", "-m", &m, "--ids", "5", "--json", "--all"], "");
    let numbers = printed.ok().split_once("\"logits\":[").unwrap().1.split_once(']').unwrap().0;
    for (number, x) in numbers.split(',').zip(&values) {
        assert_eq!(number, serde_json::to_string(x).unwrap(), "as few digits as an f32 takes");
    }
}

#[test]
fn inspect_shows_the_file() {
    let m = nano();
    let text = run(&["inspect", &m], "");
    for part in [
        "general.architecture = \"bloom\"",
        "tokenizer.ggml.tokens = ",
        ", ...]",
        "blk.0.attn_qkv.weight",
        "bits per weight",
    ] {
        assert!(text.ok().contains(part), "{part:?} missing");
    }
    assert!(text.out().len() < 20_000, "long arrays are cut");
    let json = &run(&["inspect", "-m", &m, "--json"], "").json()[0];
    assert_eq!(json["metadata"]["bloom.block_count"], 6);
    assert_eq!(json["metadata"]["bloom.attention.layer_norm_epsilon"], 1e-5);
    assert_eq!(json["metadata"]["tokenizer.ggml.tokens"]["len"], 6144);
    let sum: u64 = json["types"].as_object().unwrap().values().map(|t| t["tensors"].as_u64().unwrap()).sum();
    assert_eq!(sum as usize, json["tensors"].as_array().unwrap().len());
    let full = &run(&["inspect", &m, "--json", "--full"], "").json()[0];
    assert_eq!(full["metadata"]["tokenizer.ggml.tokens"].as_array().unwrap().len(), 6144);
}

#[test]
fn verify_finds_a_flipped_bit() {
    let m = nano();
    let sound = run(&["verify", &m], "");
    assert!(sound.ok().contains("sound, 77 tensors") && sound.stderr.is_empty(), "{sound:?}");
    let json = &run(&["verify", "-m", &m, "--json"], "").json()[0];
    assert_eq!((&json["ok"], &json["sums"], &json["tensors"]), (&true.into(), &true.into(), &77.into()));
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("flipped.gguf");
    let mut bytes = fs::read(&m).unwrap();
    let last = bytes.len() - 40;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    run(&["verify", &arg(&path)], "")
        .fails(4, "the checksums of 1 of 77 tensors do not match: output_norm.bias");
    let damaged = run(&["verify", &arg(&path), "--json"], "");
    assert_eq!(damaged.code, Some(4));
    assert!(damaged.out().contains("\"damaged\":[\"output_norm.bias\"]"), "{damaged:?}");
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    run(&["verify", &arg(&path)], "").fails(4, "flipped.gguf");
}

#[test]
fn eval_measures() {
    let text = arg(&fixture("famous-poems.txt"));
    let (f16, q8) = (nano(), arg(&model("nano", Preset::Q8_0)));
    let ppl = &run(&["eval", "ppl", "-m", &f16, &text, "--json", "--chunks", "2"], "").json()[0];
    assert_eq!((&ppl["n_tokens"], &ppl["scored"]), (&serde_json::json!(1426), &serde_json::json!(510)));
    assert_eq!(ppl["kv_type"], "f32");
    let half =
        &run(&["eval", "ppl", "-m", &f16, &text, "--json", "--chunks", "2", "--second-half"], "").json()[0];
    assert_eq!(half["scored"], 2 * 127);
    let stride =
        &run(&["eval", "ppl", "-m", &f16, &text, "--json", "--chunks", "2", "--stride", "100"], "").json()[0];
    assert_eq!(stride["scored"], 255 + 100);
    let plain = run(&["eval", "ppl", "-m", &f16, &text, "-c", "64", "--chunks", "1", "-q"], "");
    assert!(plain.ok().starts_with("perplexity ") && plain.stderr.is_empty(), "{plain:?}");

    let kl = &run(&["eval", "kl", "-m", &q8, "--base", &f16, &text, "--json", "--chunks", "2"], "").json()[0];
    assert_eq!(kl["scored"], 2 * 127, "rows n/2 .. n-2");
    let close = |a: &serde_json::Value, b: &serde_json::Value| {
        (a.as_f64().unwrap() / b.as_f64().unwrap() - 1.0).abs() < 1e-9
    };
    let mean = kl["kl_mean"].as_f64().unwrap();
    assert!(mean > 0.0 && mean < 0.01, "{kl}");
    assert!(kl["same_top"].as_f64().unwrap() > 0.9 && close(&kl["ppl_base"], &half["ppl"]), "{kl} {half}");
    let same =
        &run(&["eval", "kl", "-m", &f16, "--base", &f16, &text, "--json", "--chunks", "1"], "").json()[0];
    assert_eq!((same["kl_max"].as_f64(), same["same_top"].as_f64()), (Some(0.0), Some(1.0)));
}

#[test]
fn doctor_knows_the_machine() {
    let home = tempfile::tempdir().unwrap();
    fs::copy(nano(), home.path().join("here.gguf")).unwrap();
    fs::write(home.path().join("bad.gguf"), "not a model").unwrap();
    let text = finish(huozi(home.path()).arg("doctor").env("HUOZI_ISA", "scalar"), "");
    for part in [
        "kernels   scalar (HUOZI_ISA)",
        "bloom-7b1",
        "here.gguf",
        "bad.gguf  not usable: not a GGUF file: it begins",
    ] {
        assert!(text.ok().contains(part), "{part:?} missing in {}", text.out());
    }
    let json = &finish(huozi(home.path()).args(["doctor", "--json"]), "").json()[0];
    assert_eq!(json["models"].as_array().unwrap().len(), 2);
    assert!(json["memory_available"].as_u64() > Some(0) && json["isa"].is_string());
    finish(huozi(home.path()).arg("doctor").env("HUOZI_ISA", "mmx"), "").fails(2, "HUOZI_ISA=mmx");
}

#[test]
fn demo_converts_once_and_answers() {
    let home = tempfile::tempdir().unwrap();
    let args = ["demo", ASK, "-s", "1", "-n", "20"];
    let first = finish(huozi(home.path()).args(args), "");
    assert!(first.ok().chars().count() > 5);
    assert!(first.stderr.contains("converted the built-in model"), "{}", first.stderr);
    let second = finish(huozi(home.path()).args(args), "");
    assert_eq!(second.ok(), first.out());
    assert!(!second.stderr.contains("huozi:"), "nothing was done, nothing is said: {}", second.stderr);
    let third = finish(huozi(home.path()).args(args).arg("-v"), "");
    assert!(third.stderr.contains("was converted before: "), "{}", third.stderr);
    let cache: Vec<_> = fs::read_dir(home.path().join(".cache/huozi")).unwrap().collect();
    assert_eq!(cache.len(), 1, "nothing half-made stays");
    // A cache that cannot be: a file where the folder should be.
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join(".cache"), "").unwrap();
    let fourth = finish(huozi(other.path()).args(args), "");
    assert_eq!(fourth.ok(), first.out());
    assert!(fourth.stderr.contains("not kept for next time"), "{}", third.stderr);
    // A damaged file is made again, also one that is as long as it was and looks like a model.
    let file = fs::read_dir(home.path().join(".cache/huozi")).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&file).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&b"damaged"[..], &flipped] {
        fs::write(&file, damaged).unwrap();
        let again = finish(huozi(home.path()).args(args), "");
        assert_eq!(again.ok(), first.out());
        assert!(again.stderr.contains("converted the built-in model"), "{}", again.stderr);
        assert_eq!(fs::read(&file).unwrap(), good);
    }
}

#[test]
fn settings_go_flag_environment_file_model() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join(".config/huozi");
    fs::create_dir_all(&config).unwrap();
    let text = format!("model = {:?}\nthreads = 1\nflavour = 2\n[sampling]\ntemperature = 0.25\n", nano());
    fs::write(config.join("config.toml"), text).unwrap();
    let show = |command: &mut std::process::Command| finish(command, "/set\n").stderr;
    let from_file = show(huozi(home.path()).arg("chat"));
    assert!(
        from_file.contains("temperature 0.25 ") && from_file.contains("unknown key \"flavour\""),
        "{from_file}"
    );
    assert!(from_file.contains("top_k 50 "), "the model file's own: {from_file}");
    let typed = show(huozi(home.path()).args(["chat", "--temperature", "0.75"]));
    assert!(typed.contains("temperature 0.75 "), "{typed}");
    let env = finish(huozi(home.path()).args(["run", "-p", "x"]).env("HUOZI_MODEL", "/nowhere.gguf"), "");
    assert_eq!(env.code, Some(4));
    assert!(env.stderr.contains("/nowhere.gguf"), "{}", env.stderr);
    let threads = |command: &mut std::process::Command| {
        finish(command.args(["run", "-p", "x", "-n", "1", "--json"]), "").json()[0]["threads"].clone()
    };
    assert_eq!(threads(&mut huozi(home.path())), 1);
    assert_eq!(threads(huozi(home.path()).env("HUOZI_THREADS", "2")), 2);
    let mut both = huozi(home.path());
    both.env("HUOZI_THREADS", "2");
    let both = finish(both.args(["run", "-p", "x", "-n", "1", "--json", "-t", "1"]), "").json();
    assert_eq!(both[0]["threads"], 1);
}
