//! Text out of a stream of bytes that may be cut inside characters.
//!
//! One character is often several tokens, so the bytes of a token are not text yet. The pieces
//! put together are exactly what [`String::from_utf8_lossy`] makes of all bytes at once.

/// Holds back the bytes of a character that is not complete; never more than 3.
#[derive(Clone, Debug, Default)]
pub struct DecodeStream {
    held: Vec<u8>,
}

impl DecodeStream {
    /// With nothing held back.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes, gives the text that is complete. Bytes that can never become text give one
    /// U+FFFD for each longest prefix of a character among them.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut at = 0;
        loop {
            let rest = &self.held[at..];
            let error = match std::str::from_utf8(rest) {
                Ok(good) => {
                    text.push_str(good);
                    at = self.held.len();
                    break;
                }
                Err(error) => error,
            };
            let (good, bad) = rest.split_at(error.valid_up_to());
            // `good` was just found valid; lossy is the safe way to say so without a panic.
            text.push_str(&String::from_utf8_lossy(good));
            at += good.len();
            match error.error_len() {
                // The rest may become a character with the next bytes.
                None => break,
                Some(n) => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    at += n.min(bad.len());
                }
            }
        }
        self.held.drain(..at);
        text
    }

    /// The end of the stream: what is held back gives one U+FFFD, nothing gives nothing.
    #[must_use]
    pub fn finish(&mut self) -> String {
        if self.held.is_empty() {
            return String::new();
        }
        self.held.clear();
        char::REPLACEMENT_CHARACTER.to_string()
    }

    /// Number of bytes held back, 0 to 3.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }
}
