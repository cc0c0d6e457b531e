//! The tensors of a BLOOM model, found by name in a GGUF file and checked against its shape.

use huozi_quant::bloom::shape::Shape;
use huozi_quant::gguf::{Meta, Reader, TensorInfo};
use huozi_quant::matmul::QMatrix;

/// Why a file is no model that runs here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something in the metadata.
    #[error("{source}")]
    Metadata {
        /// What is wrong.
        #[source]
        source: huozi_quant::gguf::Error,
    },
    /// Another architecture.
    #[error("{file}: general.architecture is {found:?}, expected \"bloom\"")]
    Architecture {
        /// The file.
        file: String,
        /// What it says.
        found: String,
    },
    /// A tensor is missing.
    #[error("{file}: tensor {tensor} is missing")]
    Missing {
        /// The file.
        file: String,
        /// Its name.
        tensor: String,
    },
    /// A tensor that no model of this shape has: the metadata says too few layers, or it is another model.
    #[error("{file}: tensor {tensor} does not belong to a BLOOM model of {n_layer} layers")]
    Foreign {
        /// The file.
        file: String,
        /// Its name.
        tensor: String,
        /// Layers as the metadata says.
        n_layer: usize,
    },
    /// A tensor has another shape than the metadata says.
    #[error("{file}: tensor {tensor} has dimensions {found:?}, expected {expected:?}")]
    Dimensions {
        /// The file.
        file: String,
        /// Its name.
        tensor: String,
        /// Dimensions in GGUF order, columns first.
        expected: Vec<u64>,
        /// Dimensions found.
        found: Vec<u64>,
    },
    /// The system refused what the engine needs.
    #[error("{what}: {source}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Weight and bias of a LayerNorm, each (n_embd).
pub struct Norm {
    /// Factor per value.
    pub weight: Vec<f32>,
    /// Summand per value.
    pub bias: Vec<f32>,
}

/// A linear layer: `y = w x + bias`.
pub struct Linear {
    /// (outputs, inputs).
    pub weight: QMatrix,
    /// (outputs).
    pub bias: Vec<f32>,
}

/// One layer.
pub struct Layer {
    /// Before attention.
    pub attn_norm: Norm,
    /// Queries, keys and values stacked: (3 n_embd, n_embd).
    pub attn_qkv: Linear,
    /// (n_embd, n_embd).
    pub attn_output: Linear,
    /// Before the MLP.
    pub ffn_norm: Norm,
    /// (n_ff, n_embd).
    pub ffn_up: Linear,
    /// (n_embd, n_ff).
    pub ffn_down: Linear,
}

/// All weights of a model; matrices stay where the file is mapped.
pub struct Weights {
    /// Sizes.
    pub shape: Shape,
    /// Epsilon of every LayerNorm.
    pub eps: f32,
    /// (n_vocab, n_embd).
    pub token_embd: QMatrix,
    /// On the embeddings.
    pub token_embd_norm: Norm,
    /// The layers in order.
    pub layers: Vec<Layer>,
    /// Before the head.
    pub output_norm: Norm,
    /// The head where it is not the embedding: (n_vocab, n_embd).
    pub output: Option<QMatrix>,
}

impl Weights {
    /// Finds and checks every tensor.
    ///
    /// # Errors
    /// When the file is no BLOOM model or a tensor is missing or has another shape.
    pub fn from_gguf(reader: &Reader) -> Result<Self, Error> {
        let metadata = |source| Error::Metadata { source };
        let meta: Meta<'_> = reader.meta();
        let architecture = meta.str("general.architecture").map_err(metadata)?.unwrap_or("");
        if architecture != "bloom" {
            return Err(Error::Architecture {
                file: reader.name().to_owned(),
                found: architecture.to_owned(),
            });
        }
        let shape = Shape::from_file(reader).map_err(metadata)?;
        let find = Finder { reader };
        find.tensor("token_embd.weight")?;
        let (v, e, f) = (shape.n_vocab, shape.n_embd, shape.n_ff);
        let key = "bloom.attention.layer_norm_epsilon";
        let eps = meta.float(key).map_err(metadata)?.unwrap_or(1e-5);
        if !(eps > 0.0 && eps < 1.0) {
            return Err(metadata(meta.refuse(key, "a number between 0 and 1", eps.to_string())));
        }
        let layers = (0..shape.n_layer)
            .map(|i| {
                let name = |part: &str| format!("blk.{i}.{part}");
                Ok(Layer {
                    attn_norm: find.norm(&name("attn_norm"), e)?,
                    attn_qkv: find.linear(&name("attn_qkv"), 3 * e, e)?,
                    attn_output: find.linear(&name("attn_output"), e, e)?,
                    ffn_norm: find.norm(&name("ffn_norm"), e)?,
                    ffn_up: find.linear(&name("ffn_up"), f, e)?,
                    ffn_down: find.linear(&name("ffn_down"), e, f)?,
                })
            })
            .collect::<Result<_, Error>>()?;
        if let Some(t) = reader.tensors().iter().find(|t| !belongs(&t.name, shape.n_layer)) {
            return Err(Error::Foreign {
                file: reader.name().to_owned(),
                tensor: t.name.clone(),
                n_layer: shape.n_layer,
            });
        }
        Ok(Self {
            eps: eps as f32,
            token_embd: find.matrix("token_embd.weight", v, e)?,
            token_embd_norm: find.norm("token_embd_norm", e)?,
            layers,
            output_norm: find.norm("output_norm", e)?,
            output: match reader.tensor("output.weight") {
                Some(_) => Some(find.matrix("output.weight", v, e)?),
                None => None,
            },
            shape,
        })
    }

    /// The head: `output.weight`, or the embedding where they are tied.
    pub fn head(&self) -> &QMatrix {
        self.output.as_ref().unwrap_or(&self.token_embd)
    }
}

/// Whether a BLOOM model of `n_layer` layers has a tensor of this name.
fn belongs(name: &str, n_layer: usize) -> bool {
    const LAYER: [&str; 6] = ["attn_norm", "attn_qkv", "attn_output", "ffn_norm", "ffn_up", "ffn_down"];
    let Some((part, "weight" | "bias")) = name.rsplit_once('.') else { return false };
    match part.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((i, part)) => i.parse::<usize>().is_ok_and(|i| i < n_layer) && LAYER.contains(&part),
        None => ["token_embd", "token_embd_norm", "output_norm", "output"].contains(&part),
    }
}

struct Finder<'a> {
    reader: &'a Reader,
}

impl Finder<'_> {
    fn tensor(&self, name: &str) -> Result<&TensorInfo, Error> {
        self.reader
            .tensor(name)
            .ok_or_else(|| Error::Missing { file: self.reader.name().to_owned(), tensor: name.to_owned() })
    }

    fn dimensions(&self, t: &TensorInfo, expected: Vec<u64>) -> Error {
        Error::Dimensions {
            file: self.reader.name().to_owned(),
            tensor: t.name.clone(),
            expected,
            found: t.dims.clone(),
        }
    }

    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<QMatrix, Error> {
        let t = self.tensor(name)?;
        let expected = vec![cols as u64, rows as u64];
        if t.dims != expected {
            return Err(self.dimensions(t, expected));
        }
        QMatrix::new(t.format, rows, cols, self.reader.bytes(t)).map_err(|_| self.dimensions(t, expected))
    }

    fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, Error> {
        let t = self.tensor(name)?;
        if t.dims != [n as u64] {
            return Err(self.dimensions(t, vec![n as u64]));
        }
        let mut out = vec![0.0; n];
        t.format.decode(&self.reader.bytes(t), &mut out);
        Ok(out)
    }

    fn norm(&self, name: &str, n: usize) -> Result<Norm, Error> {
        Ok(Norm {
            weight: self.vector(&format!("{name}.weight"), n)?,
            bias: self.vector(&format!("{name}.bias"), n)?,
        })
    }

    fn linear(&self, name: &str, rows: usize, cols: usize) -> Result<Linear, Error> {
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), rows, cols)?,
            bias: self.vector(&format!("{name}.bias"), rows)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_past_the_last_layer_are_foreign() {
        assert!(belongs("blk.1.attn_qkv.bias", 2) && belongs("output.weight", 2));
        for name in [
            "blk.2.attn_qkv.bias",
            "blk.x.attn_qkv.bias",
            "blk.0.attn_q.weight",
            "rope_freqs.weight",
            "output",
        ] {
            assert!(!belongs(name, 2), "{name}");
        }
    }
}
