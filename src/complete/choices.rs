//! The ids of a closed list of choices.

use super::job::ChoiceOptions;
use huozi_token::{ChatFormat, Specials, Tokenizer};

impl ChoiceOptions {
    /// `choices` behind `prompt`, at least one id, each scored with `end`, the id that ends an answer. A
    /// choice is tokenised together with the text behind the prompt's last control token, where the prompt's
    /// ids are those of that text; else behind it.
    pub fn of(prompt: &[u32], choices: &[String], end: u32, tokenizer: &Tokenizer) -> Self {
        let vocab = tokenizer.vocab();
        let controls = prompt.iter().rposition(|&id| vocab.kind(id).is_control()).map_or(0, |at| at + 1);
        let text = tokenizer.decode(&prompt[controls..], false);
        let same = tokenizer.encode(&text, Specials::Plain) == prompt[controls..];
        let (kept, text) = if same { (controls, text) } else { (prompt.len(), String::new()) };
        let ids = choices.iter().map(|choice| {
            let mut both = prompt[..kept].to_vec();
            tokenizer.encode_into(&format!("{text}{choice}"), Specials::Plain, &mut both);
            both
        });
        let mut ids = ids.collect::<Vec<_>>();
        let common = |ids: &Vec<u32>| prompt.iter().zip(ids).take_while(|(a, b)| a == b).count();
        // Tokens may reach across the place where prompt and choice meet: what they replace is scored, too,
        // for every choice.
        let from = ids.iter().map(common).min().unwrap_or(prompt.len()).max(1);
        ids.iter_mut().for_each(|ids| ids.push(end));
        Self { ids, from }
    }
}

/// The id that ends an answer, in conversations of `format` or, without, behind a text; `None` where the
/// model names none.
pub fn answer_end(format: Option<&ChatFormat>, tokenizer: &Tokenizer) -> Option<u32> {
    let vocab = tokenizer.vocab();
    let turn_end = match format {
        Some(ChatFormat::Huozi { end, .. }) => Some(*end),
        Some(_) => vocab.eot(),
        None => None,
    };
    turn_end.or(vocab.eos()).or(vocab.stop_ids().first().copied())
}
