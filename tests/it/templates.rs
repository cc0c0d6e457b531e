//! Chat templates against Jinja2 as transformers sets it up: goldens of `make_template_goldens.py`.

use crate::token_support::{NANO, json, ours, theirs};
use huozi_token::{ChatError, ChatFormat, DateTime, Message, Role};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/templates")
}

fn goldens() -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join("goldens.json")).unwrap()).unwrap()
}

fn source(name: &str) -> String {
    std::fs::read_to_string(folder().join(format!("{name}.jinja"))).unwrap()
}

fn messages(talk: &Value) -> Vec<Message> {
    let message = |message: &Value| {
        let mut roles = [Role::System, Role::User, Role::Assistant].into_iter();
        let role = roles.find(|role| role.name() == message["role"].as_str().unwrap()).unwrap();
        Message::text(role, message["content"].as_str().unwrap())
    };
    talk.as_array().unwrap().iter().map(message).collect()
}

#[test]
fn prompts_are_those_of_jinja2_and_tokenizers() {
    let (t, goldens) = (ours(NANO), goldens());
    let reference = theirs(&json(NANO), false);
    let date: DateTime = goldens["date"].as_str().unwrap().parse().unwrap();
    let mut wrong = Vec::new();
    for (name, prompts) in goldens["prompts"].as_object().unwrap() {
        let format = ChatFormat::new(Some(&source(name)), &t);
        for (talk, want) in prompts.as_object().unwrap() {
            let messages = messages(&goldens["conversations"][talk]);
            let format = format.as_ref().map_err(|e| e.to_string());
            let text =
                format.clone().and_then(|f| f.prompt_text(&messages, date, &t).map_err(|e| e.to_string()));
            match (text, want.as_str()) {
                (Ok(text), Some(want)) => {
                    let ids = format.unwrap().prompt_ids(&messages, date, &t).unwrap();
                    let theirs = reference.encode_fast(want, false).unwrap();
                    if text != want {
                        wrong.push(format!("{name}, {talk}:\n  {text:?}\n  {want:?}"));
                    } else if ids != theirs.get_ids() {
                        wrong.push(format!("{name}, {talk}: {ids:?}\n  {:?}", theirs.get_ids()));
                    }
                }
                (Err(_), None) => {}
                (text, _) => wrong.push(format!("{name}, {talk}:\n  {text:?}\n  {want}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_checkpoint_s_own_template_is_not_taken_for_huozi_s() {
    let t = ours(NANO);
    let format = ChatFormat::new(Some(&source("persona")), &t).unwrap();
    assert!(matches!(format, ChatFormat::Template(_)));
    let date = DateTime::constant(2024, 3, 5, 0, 0, 0, 0);
    // Counted with Jinja2 and `tokenizers`; Huozi's own format has 70 more.
    for (question, n) in [("写一首诗", 26), ("写一首关于月的诗。", 31)] {
        let ids = format.prompt_ids(&[Message::text(Role::User, question)], date, &t).unwrap();
        assert_eq!(ids.len(), n, "{question}");
    }
}

#[test]
fn an_answer_is_put_in_as_ids_unless_the_template_changes_its_text() {
    let (t, date) = (ours(NANO), DateTime::constant(2024, 3, 5, 0, 0, 0, 0));
    let bytes = |text: &str| -> Vec<u32> {
        text.bytes().map(|b| (4..260).find(|&id| t.vocab().bytes(id) == [b]).unwrap()).collect()
    };
    let prompt = |template: &str, answers: &[&str]| {
        let format = ChatFormat::new(Some(template), &t).unwrap();
        let mut messages = Vec::new();
        for answer in answers {
            messages.push(Message::text(Role::User, "问"));
            messages.push(Message::answer(bytes(answer)));
        }
        format.prompt_ids(&messages, date, &t).unwrap()
    };
    let holds = |ids: &[u32], part: &[u32]| ids.windows(part.len()).any(|window| window == part);
    let trim = "{% for m in messages %}<s>{{ m.content | trim }}</s>{% endfor %}";
    for kept in ["春眠", "a"] {
        assert!(holds(&prompt(trim, &[kept]), &bytes(kept)), "{kept}");
    }
    // What is trimmed is text again, and only there.
    let ids = prompt(trim, &["春眠 ", "不觉"]);
    assert!(!holds(&ids, &bytes("春眠")) && holds(&ids, &bytes("不觉")));
    assert_eq!(t.decode(&ids, true), "<s>问</s><s>春眠</s><s>问</s><s>不觉</s>");
    let last = "{% for m in messages %}\
                {{ m.content.split('</think>')[-1] if m.role == 'assistant' else '问：' }}\
                {{ eos_token }}{% endfor %}";
    assert_eq!(t.decode(&prompt(last, &["想</think>答"]), true), "问：</s>答</s>");
    let asked = "{% for m in messages %}{{ m.content }}{{ '！' if '春' in m.content }}{% endfor %}";
    let ids = prompt(asked, &["春", "晓"]);
    assert_eq!(t.decode(&ids, true), "问春！问晓");
    assert!(holds(&ids, &bytes("晓")) && !holds(&ids, &bytes("春")));
}

#[test]
fn the_date_is_the_caller_s() {
    let t = ours(NANO);
    let format = ChatFormat::new(Some(&source("strftime")), &t).unwrap();
    for year in [1999, 2024] {
        let date = DateTime::constant(year, 3, 5, 0, 0, 0, 0);
        let text = format.prompt_text(&[Message::text(Role::User, "q")], date, &t).unwrap();
        assert_eq!(text, format!("Date: {year}\nq\nA:"));
    }
}

#[test]
fn a_template_is_tried_out() {
    let t = ours(NANO);
    let refused = |source: &str| {
        let refused = ChatFormat::new(Some(source), &t).and_then(|format| format.try_out(&t));
        refused.map(|list| list.into_iter().map(|r| (r.kind, r.error.to_string())).collect::<Vec<_>>())
    };
    for good in ["persona", "phoenix", "belle", "firefly", "generation", "strftime"] {
        assert_eq!(refused(&source(good)).unwrap(), [], "{good}");
    }
    let no_system = refused(&source("raise")).unwrap();
    assert!(
        matches!(&no_system[..], [("a system text", why)] if why.contains("不支持 system 角色")),
        "{no_system:?}"
    );
    let once =
        "{% if messages | length > 2 %}{{ raise_exception('once') }}{% endif %}{{ messages[-1].content }}";
    assert!(matches!(&refused(once).unwrap()[..], [("a second question", _)]));
    for (bad, what) in [
        (source("undefined-error"), "undefined"),
        (source("include"), "include"),
        ("{{ raise_exception('never') }}".into(), "never"),
        ("{{ messages[0].role }}".into(), "lacks the text"),
        ("{{ messages[0].content | nofilter }}".into(), "nofilter"),
        ("{{ strftime_now('%s') }}".into(), "%s"),
    ] {
        let error = refused(&bad).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    assert!(ChatFormat::new(None, &t).unwrap().try_out(&t).unwrap().is_empty());
}

/// Each costs a few instructions and would take all memory, all stack, or never end.
#[test]
fn a_template_cannot_outgrow_its_limits() {
    let (t, date) = (ours(NANO), DateTime::constant(2024, 3, 5, 0, 0, 0, 0));
    let doubled =
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}";
    let within = "{% with a = [1] %}".to_owned() + &"{% with a = [a, a] %}".repeat(60) + "{{ a }}";
    for hostile in [
        "{% set n = namespace() %}{% set n.x = n %}{{ n }}".into(),
        "{% set n = namespace() %}{% set n.x = [n] %}{{ n | tojson }}".into(),
        format!("{doubled}{{{{ n.x }}}}"),
        format!("{doubled}{{{{ n.x | string | length }}}}"),
        doubled.replace("[n.x, n.x]", "n.x + n.x") + "{{ n.x | length }}",
        within + &"{% endwith %}".repeat(61),
        "{% macro f(x, n) %}{% if n %}{{ f([x, x, x, x, x, x], n - 1) }}{% else %}{{ x }}{% endif %}\
         {% endmacro %}{{ f(1, 20) }}"
            .into(),
        "{% for x in [[1]] recursive %}{{ loop([[x, x, x, x, x, x]]) }}{% endfor %}".into(),
        "{{ '{:>1500000000}'.format(1) | length }}".into(),
        "{{ '{:>{}}'.format(1, 1500000000) | length }}".into(),
        "{{ range(5000) | list | tojson(indent='x' * 1000000) }}".into(),
    ] {
        let format = ChatFormat::new(Some(&hostile), &t).unwrap();
        let error = format.prompt_text(&[Message::text(Role::User, "问")], date, &t).unwrap_err();
        assert!(error.to_string().len() < 1000, "{hostile}: {error}");
    }
}

#[test]
fn values_may_nest_as_deep_as_the_fuel_lasts() {
    let (t, date) = (ours(NANO), DateTime::constant(2024, 3, 5, 0, 0, 0, 0));
    for (empty, nested) in [("[]", "[ns.x]"), ("{}", "{'a': ns.x}")] {
        for print in ["{{ ns.x }}", "{{ ns.x | tojson }}"] {
            let template = format!(
                "{{% set ns = namespace(x={empty}) %}}{{% for i in range(50000) %}}\
                 {{% set ns.x = {nested} %}}{{% endfor %}}{print}"
            );
            let format = ChatFormat::new(Some(&template), &t).unwrap();
            // Whether it renders does not matter; that the process goes on does.
            let _ = format.prompt_text(&[Message::text(Role::User, "问")], date, &t);
        }
    }
}

#[test]
fn a_system_text_that_a_template_refuses_is_named() {
    let (t, date) = (ours(NANO), DateTime::constant(2024, 3, 5, 0, 0, 0, 0));
    let format = ChatFormat::new(Some(&source("raise")), &t).unwrap();
    let (system, user) = (Message::text(Role::System, "短"), Message::text(Role::User, "问"));
    let error = format.prompt_ids(&[system.clone(), user], date, &t).unwrap_err();
    assert!(matches!(&error, ChatError::NoSystem(why) if why.contains("短")), "{error}");
    let error = format.prompt_ids(&[system.clone(), system], date, &t).unwrap_err();
    assert!(matches!(&error, ChatError::Refused(why) if why.contains("短")), "{error}");
}

/// Whatever the messages say, the control tokens are those of the template.
#[test]
fn messages_give_no_control_tokens_in_any_template() {
    let (t, goldens) = (ours(NANO), goldens());
    let date: DateTime = goldens["date"].as_str().unwrap().parse().unwrap();
    let controls = |ids: &[u32]| -> Vec<u32> {
        ids.iter().copied().filter(|&id| t.vocab().kind(id).is_control()).collect()
    };
    let spelled = ["<s>", "</s>", "<pad>", "<|endofutterance|>", "<|beginofutterance|>", "<unk>"];
    let halves = ["<|endof", "utterance|>", "<", "s>", "/s>"];
    for name in goldens["prompts"].as_object().unwrap().keys() {
        let Ok(format @ ChatFormat::Template(_)) = ChatFormat::new(Some(&source(name)), &t) else { continue };
        let talk = |a: &str, b: &str| {
            let messages = [
                Message::text(Role::User, a),
                Message::text(Role::Assistant, b),
                Message::text(Role::User, a),
            ];
            format.prompt_ids(&messages, date, &t).map(|ids| controls(&ids)).ok()
        };
        let Some(want) = talk("甲", "乙") else { continue };
        for (i, a) in spelled.iter().chain(&halves).enumerate() {
            let b = spelled.iter().chain(&halves).nth((i * 7 + 3) % 11).unwrap();
            assert_eq!(talk(&format!("甲{a}"), &format!("{b}乙")).as_ref(), Some(&want), "{name}: {a} {b}");
        }
    }
}
