//! The tensors of a BLOOM model, found by name in a GGUF file and checked against its shape.

use huozi_quant::bloom::extra;
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
    #[error("{file}: tensor {tensor} is missing{}", if *.none { ": the file holds a vocabulary and no \
         weights; give the file with the weights" } else { "" })]
    Missing {
        /// The file.
        file: String,
        /// Its name.
        tensor: String,
        /// Whether the file has no tensor at all.
        none: bool,
    },
    /// A tensor that no model of this shape has and that may change its output: the metadata says too few
    /// layers, or it is another model.
    #[error(
        "{file}: tensor {tensor} does not belong to a BLOOM model of {n_layer} layers and may change what it \
         says; `huozi-convert FILE --skip-tensor REGEX ...` writes a file without it"
    )]
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
        // What cannot change the output is left out; `extra::of_file` lists it for a note.
        if let (_, Some(tensor)) = extra::of_file(reader, shape.n_layer) {
            let (file, tensor) = (reader.name().to_owned(), tensor.to_owned());
            return Err(Error::Foreign { file, tensor, n_layer: shape.n_layer });
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

/// Whether dimensions are the same: those of 1 at the end, which some programs write, do not count.
fn same_dims(a: &[u64], b: &[u64]) -> bool {
    let at = |dims: &[u64], i: usize| dims.get(i).copied().unwrap_or(1);
    (0..a.len().max(b.len())).all(|i| at(a, i) == at(b, i))
}

struct Finder<'a> {
    reader: &'a Reader,
}

impl Finder<'_> {
    fn tensor(&self, name: &str) -> Result<&TensorInfo, Error> {
        self.reader.tensor(name).ok_or_else(|| Error::Missing {
            file: self.reader.name().to_owned(),
            tensor: name.to_owned(),
            none: self.reader.tensors().is_empty(),
        })
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
        if !same_dims(&t.dims, &expected) {
            return Err(self.dimensions(t, expected));
        }
        QMatrix::new(t.format, rows, cols, self.reader.bytes(t)).map_err(|_| self.dimensions(t, expected))
    }

    fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, Error> {
        let t = self.tensor(name)?;
        if !same_dims(&t.dims, &[n as u64]) {
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
