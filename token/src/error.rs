//! Why the vocabulary of a file is refused.

use huozi_quant::gguf;

/// Why a vocabulary was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The metadata could not be read.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// A key that every vocabulary needs is absent.
    #[error("the file has no `{key}`: {}", lacking(key))]
    Missing {
        /// The metadata key.
        key: &'static str,
    },
    /// A tokenizer of another kind.
    #[error(
        "`{key}` is {found:?}{}; this program has the tokenizer of BLOOM ({wanted:?}) only{}",
        known(found),
        correction(key)
    )]
    Unsupported {
        /// The metadata key.
        key: &'static str,
        /// What the file says.
        found: String,
        /// What it should say.
        wanted: &'static str,
    },
    /// A model whose texts all begin with a token that BLOOM's texts do not begin with.
    #[error(
        "`{key}` is true: every text of this model begins with a begin token, which this program does not \
         add. If the model was trained without it, as BLOOM was, `huozi-convert FILE.gguf -t TYPE -o \
         NEW.gguf --metadata {key}=false` writes a file that runs"
    )]
    AddBos {
        /// The metadata key.
        key: &'static str,
    },
    /// Two arrays that go together differ in length.
    #[error("{tokens} tokens, but {types} token types")]
    Lengths {
        /// Entries of `tokenizer.ggml.tokens`.
        tokens: usize,
        /// Entries of `tokenizer.ggml.token_type`.
        types: usize,
    },
    /// More tokens than ids can name, or none.
    #[error("a vocabulary of {n} tokens")]
    Size {
        /// Entries of `tokenizer.ggml.tokens`.
        n: usize,
    },
    /// A token type that does not exist.
    #[error("token {id} has the unknown type {found}")]
    TokenType {
        /// The token.
        id: u32,
        /// Its entry in `tokenizer.ggml.token_type`.
        found: i64,
    },
    /// A byte token whose text is not `<0x00>` to `<0xFF>`.
    #[error("token {id} is a byte token, but its text is {text:?}")]
    ByteToken {
        /// The token.
        id: u32,
        /// Its text.
        text: String,
    },
    /// Two tokens with one text.
    #[error("tokens {first} and {second} are both {text:?}")]
    Duplicate {
        /// The text.
        text: String,
        /// The smaller id.
        first: u32,
        /// The larger id.
        second: u32,
    },
    /// A merge that is not two tokens with one space between.
    #[error("merge {index} is not two tokens: {merge:?}")]
    BadMerge {
        /// Its place in `tokenizer.ggml.merges`.
        index: usize,
        /// Its text.
        merge: String,
    },
    /// A merge of, or into, something the vocabulary does not hold.
    #[error("merge {index} ({merge:?}) needs the token {token:?}, which does not exist")]
    MergeToken {
        /// Its place in `tokenizer.ggml.merges`.
        index: usize,
        /// Its text.
        merge: String,
        /// What is missing.
        token: String,
    },
    /// An id of the metadata is outside the vocabulary.
    #[error("`{key}` is {id}, but there are {n_vocab} tokens")]
    SpecialId {
        /// The metadata key.
        key: &'static str,
        /// What it says.
        id: i64,
        /// Number of tokens.
        n_vocab: usize,
    },
    /// Some text could not be tokenised at all.
    #[error("no token stands for the byte 0x{byte:02X} alone, so some text could not be written")]
    NoByte {
        /// The byte.
        byte: u8,
    },
    /// An added token is longer than any that a text has.
    #[error("added token {id} has {bytes} bytes, more than the {most} that are searched for in texts")]
    AddedLength {
        /// Its id.
        id: u32,
        /// Its length.
        bytes: usize,
        /// The longest that is taken.
        most: usize,
    },
    /// The added tokens are too many or too long to search for.
    #[error("the added tokens cannot be searched for: {0}")]
    Added(#[from] aho_corasick::BuildError),
}

impl Error {
    /// [`Error::Unsupported`].
    pub(crate) fn unsupported(key: &'static str, found: &str, wanted: &'static str) -> Self {
        Self::Unsupported { key, found: found.to_owned(), wanted }
    }
}

/// What a file without `key` lacks.
fn lacking(key: &str) -> &'static str {
    match key {
        "tokenizer.ggml.tokens" => "it holds no tokenizer",
        "tokenizer.ggml.merges" => {
            "text cannot be tokenized without the merges; convert the checkpoint again"
        }
        "tokenizer.ggml.pre" => "how its tokenizer splits text is unknown",
        _ => "which tokenizer it has is unknown",
    }
}

/// What can be done where a key alone is wrong.
fn correction(key: &str) -> &'static str {
    match key {
        "tokenizer.ggml.pre" => {
            ". If the model has BLOOM's tokenizer all the same, `huozi-convert FILE.gguf -t TYPE -o NEW.gguf \
             --metadata tokenizer.ggml.pre=bloom` corrects the name"
        }
        _ => "",
    }
}

/// What is known about another tokenizer, by its name in a GGUF file; with the comma in front.
fn known(name: &str) -> &'static str {
    match name {
        "llama" | "spm" => ", a SentencePiece tokenizer as LLaMA has it",
        "bert" => ", the WordPiece tokenizer of BERT",
        "t5" => ", the Unigram tokenizer of T5",
        "none" | "no_vocab" => ", no tokenizer at all",
        "gpt-2" => ", GPT-2's way of splitting text (FLOR has it too)",
        "viking" => ", BLOOM's way of splitting text with every digit apart",
        _ => "",
    }
}
