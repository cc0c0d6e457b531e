//! The ids of a closed list of choices.

use super::job::ChoiceOptions;

impl ChoiceOptions {
    /// `prompt`: the ids of the prompt alone, at least one. `ids`: for each choice those of prompt and choice
    /// tokenised together. `end`: the id that ends an answer, which a choice is scored with.
    pub fn new(prompt: &[u32], mut ids: Vec<Vec<u32>>, end: u32) -> Self {
        let common = |ids: &Vec<u32>| prompt.iter().zip(ids).take_while(|(a, b)| a == b).count();
        // Tokens may reach across the place where prompt and choice meet: what they replace is scored, too, for
        // every choice.
        let from = ids.iter().map(common).min().unwrap_or(prompt.len()).max(1);
        ids.iter_mut().for_each(|ids| ids.push(end));
        Self { ids, from }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scoring_begins_where_a_choice_first_differs_from_the_prompt() {
        let of = |ids: &[&[u32]]| {
            let options = ChoiceOptions::new(&[1, 2, 3], ids.iter().map(|ids| ids.to_vec()).collect(), 9);
            (options.from, options.ids)
        };
        assert_eq!(of(&[&[1, 2, 3, 4], &[1, 2, 3]]), (3, vec![vec![1, 2, 3, 4, 9], vec![1, 2, 3, 9]]));
        // The prompt's last token and the beginning of a choice are one token.
        assert_eq!(of(&[&[1, 2, 3, 4], &[1, 2, 7, 4]]).0, 2);
        // No row of logits predicts the first position.
        assert_eq!(of(&[&[7, 2, 3]]).0, 1);
        assert_eq!(of(&[]), (3, Vec::new()));
    }
}
