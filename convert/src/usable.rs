//! Whether the file to be written can run, asked before its first byte is written.
//!
//! In: the metadata to be written, and the page that the `tokenizers` crate has read. The metadata is opened
//! as the program that runs the file opens it ([`huozi_token::usable`]); the ids of the page must be equal.

use huozi_quant::gguf::{Layout, MetaValue, Reader};
use huozi_token::usable::{self, Unusable};
use huozi_token::{ChatFormat, Content, DateTime, Message, Refusal, Role, Specials, Tokenizer};

use crate::error::Error;
use crate::reference::Page;

/// The tokenizer and the chat format of the file to be written, and what its template refuses; `source` is
/// the name for messages.
///
/// # Errors
/// [`Error::Unusable`] if the file would not run.
pub(crate) fn open(
    meta: &[(String, MetaValue)],
    source: &str,
) -> Result<(Tokenizer, ChatFormat, Vec<Refusal>), Error> {
    let refuse = |what: String| Error::Unusable { source_name: source.to_owned(), what };
    let layout = Layout::new(meta, Vec::new()).map_err(|e| refuse(e.to_string()))?;
    let reader =
        Reader::from_bytes("metadata", layout.header().to_vec()).map_err(|e| refuse(e.to_string()))?;
    usable::open(reader.meta()).map_err(|error| {
        let remedy = match &error {
            Unusable::Chat(_) => {
                "; --chat-template FILE gives another one, --chat-template none leaves it out"
            }
            _ => "",
        };
        refuse(format!("{error}{remedy}"))
    })
}

/// Compares the ids of the page.
///
/// # Errors
/// [`Error::Unusable`] with the first text whose ids differ.
pub(crate) fn compare(page: &Page, tokenizer: &Tokenizer, source: &str) -> Result<(), Error> {
    for line in &page.lines {
        for (specials, theirs) in [(Specials::Parse, &line.parse), (Specials::Plain, &line.plain)] {
            let kind = |id: &u32| tokenizer.vocab().kind(*id);
            // Here text never becomes a control token, whatever the checkpoint says.
            if specials == Specials::Plain && theirs.iter().any(|id| kind(id).is_control()) {
                continue;
            }
            let ours = tokenizer.encode(&line.text, specials);
            if ours != *theirs {
                return Err(Error::Unusable {
                    source_name: source.to_owned(),
                    what: difference(&line.text, &ours, theirs),
                });
            }
        }
    }
    Ok(())
}

/// The first place where the ids of a text differ, with a few ids from there on.
fn difference(text: &str, ours: &[u32], theirs: &[u32]) -> String {
    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    let from = |ids: &[u32]| format!("{:?}", ids.iter().skip(at).take(6).collect::<Vec<_>>());
    let text: String = text.chars().take(60).collect();
    format!(
        "text would get other ids than with the checkpoint's tokenizer.json: in {text:?} from token {at} {}, \
         the tokenizers library gives {}",
        from(ours),
        from(theirs)
    )
}

/// The end token that the format writes after an answer.
pub(crate) fn end_written(format: &ChatFormat, tokenizer: &Tokenizer, ends: &[u32]) -> Option<u32> {
    // Text that no template has, as ids: found again wherever the template puts it.
    let answer = tokenizer.encode("Ω≈ç√∫˜µ", Specials::Plain);
    let date = DateTime::constant(2024, 2, 29, 0, 0, 0, 0);
    let prompt = |second: &str| {
        let said = Message { role: Role::Assistant, content: Content::Ids(answer.clone()) };
        let conversation = [Message::text(Role::User, "?"), said, Message::text(Role::User, second)];
        format.prompt_ids(&conversation, date, tokenizer).ok()
    };
    let (ids, other) = (prompt("7")?, prompt("x")?);
    let after = ids.windows(answer.len()).position(|window| window == answer)? + answer.len();
    // What differs belongs to the second question, and so does all that comes behind it.
    let same = ids.iter().zip(&other).take_while(|(a, b)| a == b).count();
    ids[..same].get(after..)?.iter().copied().find(|id| ends.contains(id))
}

#[cfg(test)]
mod tests {
    use huozi_quant::bloom::synth::SyntheticVocabulary;

    use super::*;

    #[test]
    fn an_end_token_behind_the_next_question_is_none_of_the_answer() {
        let written = |template: &str| {
            let SyntheticVocabulary { tokens, types, merges } = SyntheticVocabulary::new(300).unwrap();
            let meta: Vec<(String, MetaValue)> = [
                ("general.architecture", MetaValue::Str("bloom".into())),
                ("tokenizer.ggml.model", MetaValue::Str("gpt2".into())),
                ("tokenizer.ggml.pre", MetaValue::Str("bloom".into())),
                ("tokenizer.ggml.tokens", MetaValue::Strings(tokens)),
                ("tokenizer.ggml.token_type", MetaValue::I32s(types)),
                ("tokenizer.ggml.merges", MetaValue::Strings(merges)),
                ("tokenizer.ggml.bos_token_id", MetaValue::U32(1)),
                ("tokenizer.ggml.eos_token_id", MetaValue::U32(2)),
                ("tokenizer.chat_template", MetaValue::Str(template.into())),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into();
            let (tokenizer, format, _) = open(&meta, "test").unwrap();
            end_written(&format, &tokenizer, &[2])
        };
        let turns = |user: &str, answer: &str| {
            format!(
                "{{% for m in messages %}}{{% if m.role == 'user' %}}<s>{{{{ m.content }}}}{user}\
                 {{% else %}}{{{{ m.content }}}}{answer}{{% endif %}}{{% endfor %}}"
            )
        };
        assert_eq!(written(&turns("</s>", "</s>")), Some(2));
        assert_eq!(written(&turns("", "</s>")), Some(2));
        assert_eq!(written(&turns("</s>", "")), None);
    }
}
