//! A synthetic BPE vocabulary of any size.

use std::collections::VecDeque;

/// Tokens that a vocabulary has before its first merge: four special ones and one per byte.
pub const MIN_VOCAB: usize = 4 + 256;

/// Tokens and merges of a BPE vocabulary that is valid and meaningless: special tokens, bytes, then words
/// over the letters a to z, shorter ones first, each merged from the word without its last letter and that
/// letter.
#[derive(Clone, Debug)]
pub struct SyntheticVocabulary {
    /// By id, in the byte-level alphabet.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type` of each.
    pub types: Vec<i32>,
    /// `"a b"` in order of rank.
    pub merges: Vec<String>,
}

impl SyntheticVocabulary {
    /// A vocabulary of `n_vocab` tokens; `None` for fewer than [`MIN_VOCAB`].
    pub fn new(n_vocab: usize) -> Option<Self> {
        const UNKNOWN: i32 = 2;
        const CONTROL: i32 = 3;
        const NORMAL: i32 = 1;
        if n_vocab < MIN_VOCAB {
            return None;
        }
        let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>", "<pad>"].map(String::from).into();
        let mut types = vec![UNKNOWN, CONTROL, CONTROL, CONTROL];
        tokens.extend((0..=255).map(|byte| printable(byte).to_string()));
        let letters = b'a'..=b'z';
        // The words of the length before, to be extended by every letter.
        let mut stems: VecDeque<String> = letters.clone().map(|c| char::from(c).to_string()).collect();
        let mut merges = Vec::with_capacity(n_vocab - MIN_VOCAB);
        while tokens.len() < n_vocab {
            let Some(stem) = stems.pop_front() else { break };
            for c in letters.clone().map(char::from).take(n_vocab - tokens.len()) {
                let word = format!("{stem}{c}");
                merges.push(format!("{stem} {c}"));
                stems.push_back(word.clone());
                tokens.push(word);
            }
        }
        types.resize(tokens.len(), NORMAL);
        Some(Self { tokens, types, merges })
    }
}

/// GPT-2's character for a byte: itself where it is visible Latin-1, else one from U+0100 on.
fn printable(byte: u8) -> char {
    let visible = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if visible(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !visible(b)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or('\u{100}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_vocabulary_has_as_many_distinct_tokens_as_asked_for_and_its_merges_make_them() {
        let v = SyntheticVocabulary::new(250_880).unwrap();
        let known: HashSet<&str> = v.tokens.iter().map(String::as_str).collect();
        assert_eq!((known.len(), v.tokens.len(), v.types.len()), (250_880, 250_880, 250_880));
        assert_eq!(v.merges.len(), 250_880 - MIN_VOCAB);
        for (merge, token) in v.merges.iter().zip(&v.tokens[MIN_VOCAB..]) {
            let (a, b) = merge.split_once(' ').unwrap();
            assert!(known.contains(a) && known.contains(b) && format!("{a}{b}") == *token, "{merge}");
        }
        assert_eq!(
            (printable(b' '), printable(b'\n'), printable(b'a'), printable(0xad)),
            ('Ġ', 'Ċ', 'a', 'Ń')
        );
    }
}
