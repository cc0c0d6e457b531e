//! What a file or folder is that cannot be used as it was given, why, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::text::{convert_command, shown, size, some, word};

/// A file or folder that cannot be used as it was given. Its text says what it is, why that is so, and what
/// to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct Diagnosis {
    /// The file or folder; the name of a model in the Hugging Face cache where that was given.
    pub path: PathBuf,
    /// What it is. Boxed: most results hold none.
    pub kind: Box<FileKind>,
}

impl Diagnosis {
    /// A diagnosis of `path`.
    pub fn new(path: &Path, kind: FileKind) -> Self {
        let kind = match kind {
            FileKind::Checkpoint { .. } => FileKind::Checkpoint { convert: convert_command(path) },
            kind => kind,
        };
        Self { path: path.to_owned(), kind: Box::new(kind) }
    }

    /// Whether it is a checkpoint that the converter reads.
    pub fn is_checkpoint(&self) -> bool {
        matches!(*self.kind, FileKind::Checkpoint { .. })
    }
}

/// A file of another purpose than a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignFormat {
    /// What llama.cpp saves of a conversation.
    LlamaSession,
    /// An archive of NumPy arrays.
    NumpyArchive,
    /// A NumPy array.
    NumpyArray,
    /// A program that may be a llamafile.
    ProgramOrLlamafile,
    /// A program.
    Program,
    /// A PDF document.
    Pdf,
    /// A picture.
    Picture,
    /// A database.
    Database,
    /// A tokenizer of sentencepiece.
    Sentencepiece,
    /// A GGUF file whose name says something else.
    GgufUnderOtherName,
    /// A JSON text whose name says weights.
    JsonAsWeights,
    /// A JSON text.
    Json,
}

impl ForeignFormat {
    /// What it is, with its article.
    fn what(self) -> &'static str {
        match self {
            Self::LlamaSession => "a saved session of llama.cpp, not a model",
            Self::NumpyArchive => "an archive of NumPy arrays (.npz)",
            Self::NumpyArray => "a NumPy array",
            Self::ProgramOrLlamafile => "a program (a llamafile holds its model as a zip member)",
            Self::Program => "a program",
            Self::Pdf => "a PDF document",
            Self::Picture => "a picture",
            Self::Database => "a database",
            Self::Sentencepiece => "a tokenizer of sentencepiece, which BLOOM does not have",
            Self::GgufUnderOtherName => "a GGUF file under another name",
            Self::JsonAsWeights => "JSON under the name of weights",
            Self::Json => "a JSON text, not a model",
        }
    }
}

/// What has quantised weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuantMethod {
    /// The method or program of this name.
    Named(String),
    /// GPTQ or AWQ, whose tensors have the same names.
    GptqOrAwq,
    /// A program that stores FP8 or INT8.
    Fp8OrInt8,
}

impl fmt::Display for QuantMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::GptqOrAwq => f.write_str("GPTQ or AWQ"),
            Self::Fp8OrInt8 => f.write_str("an FP8 or INT8 program"),
        }
    }
}

/// What shows that a download has not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnfinishedSign {
    /// The file's name ends with a dot and this.
    Ending(String),
    /// A file of this name lies beside it.
    Beside(String),
    /// A file of this name lies in the folder.
    Inside(String),
}

impl fmt::Display for UnfinishedSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ending(end) => write!(f, "its name ends with .{end}"),
            Self::Beside(name) => write!(f, "{name} lies beside it"),
            Self::Inside(name) => f.write_str(name),
        }
    }
}

/// A special file, which has no length to rely on and may make its reader wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialFile {
    /// A named pipe.
    Fifo,
    /// A device.
    Device,
    /// A socket.
    Socket,
}

/// How a training program stores what it has not gathered into a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainingFormat {
    /// DeepSpeed: `global_step*`, `mp_rank_*`, `zero_pp_rank_*`.
    DeepSpeed,
    /// Megatron-LM, Megatron-DeepSpeed: `iter_*`, `layer_*-model_*`.
    Megatron,
    /// PyTorch FSDP: `*.distcp`.
    Fsdp,
}

/// What a file or folder is. Texts in it are fit for a message: short, without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A small text that stands for a file of `bytes` bytes, which `system` has not downloaded.
    Pointer {
        /// `Git LFS`, `Xet`, `git-annex`.
        system: &'static str,
        /// The length of the file itself.
        bytes: Option<u64>,
    },
    /// A web page.
    WebPage {
        /// Its title.
        title: Option<String>,
    },
    /// The error message of a server.
    ServerError {
        /// What it says.
        said: String,
    },
    /// A compressed file or an archive.
    Compressed {
        /// E.g. `gzip`.
        format: &'static str,
        /// The command that unpacks it.
        unpack: String,
    },
    /// No bytes.
    Empty,
    /// Zeros only.
    Zeros {
        /// How many.
        bytes: u64,
    },
    /// The end is missing.
    Truncated {
        /// How many bytes of it, where the file says.
        missing: Option<u64>,
    },
    /// A file that a download program has not finished.
    Unfinished {
        /// What shows it.
        by: UnfinishedSign,
    },
    /// A piece of a file that was cut for its upload.
    Piece {
        /// The command that joins the pieces.
        join: String,
    },
    /// The output of `huozi-convert` before it is complete.
    UnfinishedConversion,
    /// A link to a file that does not exist.
    DanglingLink {
        /// The link.
        link: String,
        /// The model in the Hugging Face cache that it belongs to.
        model: Option<String>,
    },
    /// A FIFO, a device or a socket.
    Special(SpecialFile),
    /// A pickle of `torch.save` before PyTorch 1.6.
    OldTorch,
    /// A pickle without tensors' storages.
    Pickle,
    /// A TorchScript program.
    TorchScript,
    /// A model file of a format before GGUF.
    Ggml {
        /// `GGML`, `GGMF` or `GGJT`.
        format: &'static str,
    },
    /// A LoRA adapter in the format of llama.cpp before GGUF.
    Ggla,
    /// GGUF of a version that is not read.
    GgufVersion {
        /// The version.
        version: u32,
    },
    /// A big-endian GGUF file.
    BigEndian,
    /// A file of another purpose.
    OtherFormat {
        /// What it is.
        what: ForeignFormat,
    },
    /// None of the formats known here.
    Unknown {
        /// How it begins.
        start: String,
    },
    /// A checkpoint that the converter reads.
    Checkpoint {
        /// The command that converts it.
        convert: String,
    },
    /// One file of a checkpoint.
    Part {
        /// The folder of the checkpoint.
        folder: PathBuf,
        /// The command that converts it; `None` where the other files are not there.
        convert: Option<String>,
    },
    /// A LoRA adapter, or another one of PEFT.
    Adapter {
        /// Its folder.
        folder: PathBuf,
        /// The model that it was trained on.
        base: Option<String>,
    },
    /// A checkpoint that holds an adapter beside the weights of the model.
    Unmerged {
        /// One of its tensors.
        tensor: String,
    },
    /// A checkpoint that was saved without the weights, which are distributed over many processes.
    Ungathered {
        /// One of its tensors.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// What a training program stores.
    Training(TrainingFormat),
    /// Weights that another program has quantised.
    Quantised {
        /// By what.
        method: QuantMethod,
    },
    /// Another kind of model.
    OtherModel {
        /// `model_type` of its `config.json`, or its class.
        model: String,
    },
    /// Weights for other frameworks than PyTorch.
    OtherFramework {
        /// E.g. `TensorFlow`.
        framework: &'static str,
        /// Its file.
        file: String,
    },
    /// Weights under names that no checkpoint has.
    OddNames {
        /// Their files.
        files: Vec<String>,
        /// The name that the only one should have.
        rename: Option<&'static str>,
    },
    /// GGUF files where one is needed.
    GgufFiles {
        /// Their paths.
        files: Vec<PathBuf>,
    },
    /// The checkpoint lies in a folder below.
    Below {
        /// These folders.
        folders: Vec<PathBuf>,
    },
    /// The folder of a Hugging Face cache.
    Cache {
        /// The models in it.
        names: Vec<String>,
    },
    /// A folder without weights.
    NoWeights {
        /// What is in it.
        files: Vec<String>,
    },
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, remedy) = self.said();
        write!(f, "{what}; {remedy}")
    }
}

/// What to do about a file that did not arrive.
const AGAIN: &str = "download it again";

/// What to convert instead of a file that cannot be read.
const ORIGINAL: &str = "convert the model's original checkpoint (safetensors or pytorch_model.bin) with \
                        `huozi-convert FOLDER -t q4_k_m -o OUT.gguf`";

/// What a GGUF file or a checkpoint is, for a file that is neither.
const NEEDED: &str = "what is needed is a GGUF file, or for huozi-convert the folder of a checkpoint";

impl FileKind {
    /// What it is and why it cannot be used; what to do about it.
    fn said(&self) -> (String, String) {
        match self {
            Self::Pointer { system, bytes } => {
                let long = bytes.map_or(String::new(), |bytes| format!(" ({})", size(bytes)));
                let remedy = match *system {
                    "Git LFS" => "run `git lfs pull` in its folder, or download the file again",
                    "git-annex" => "run `git annex get .` in its folder, or download the file again",
                    _ => "download it again with `hf download`",
                };
                (format!("a {system} pointer: the file itself was not downloaded{long}"), remedy.into())
            }
            Self::WebPage { title } => {
                let title = title.as_ref().map_or(String::new(), |title| format!(" titled \"{title}\""));
                let remedy = format!(
                    "{AGAIN}: on a model's page the link of the file itself has /resolve/ in it, not \
                     /blob/; a gated model needs a login (`hf auth login`)"
                );
                (format!("a web page{title}, saved in place of the file"), remedy)
            }
            Self::ServerError { said } => {
                let remedy = format!(
                    "check the name of model and file, log in where the model is gated (`hf auth login`), \
                     and {AGAIN}"
                );
                (format!("a server's error message, saved in place of the file: \"{said}\""), remedy)
            }
            Self::Compressed { format, unpack } => {
                (format!("a compressed file ({format})"), format!("unpack it first: {unpack}"))
            }
            Self::Empty => ("an empty file".into(), AGAIN.into()),
            Self::Zeros { bytes } => {
                let what = format!("{}, all of them zero: a download that reserved its space", size(*bytes));
                (what + " and did not finish", AGAIN.into())
            }
            Self::Truncated { missing } => {
                let what = match missing {
                    Some(missing) => format!("the file is cut short by {}", size(*missing)),
                    None => "the file is cut short: its end is missing".into(),
                };
                (what, AGAIN.into())
            }
            Self::Unfinished { by } => {
                (format!("an unfinished download ({by})"), "let it finish, or download the file again".into())
            }
            Self::Piece { join } => {
                ("a piece of a file that was cut for the upload".into(), format!("join the pieces: {join}"))
            }
            Self::UnfinishedConversion => (
                "a GGUF file that huozi-convert has not finished".into(),
                "the command that began it goes on where it stopped".into(),
            ),
            Self::DanglingLink { link, model } => {
                let what = format!("{link} links to a file that does not exist: its download did not finish");
                let remedy = match model {
                    Some(model) => format!("`hf download {model}` goes on where it stopped"),
                    None => AGAIN.into(),
                };
                (what, remedy)
            }
            Self::Special(special) => {
                let what = match special {
                    SpecialFile::Fifo => "a FIFO (pipe)",
                    SpecialFile::Device => "a device",
                    SpecialFile::Socket => "a socket",
                };
                let remedy = "save what it gives as a file, and give its path";
                (format!("{what}, not a regular file"), remedy.into())
            }
            Self::OldTorch => (
                "a pickle in the format of torch.save before PyTorch 1.6, which is not read here".into(),
                "where you trust the file, save it again with PyTorch: `python -c \"import sys, torch; \
                 torch.save(torch.load(sys.argv[1], map_location='cpu'), sys.argv[2])\" OLD.bin NEW.bin`"
                    .into(),
            ),
            Self::Pickle => (
                "a plain Python pickle, not a checkpoint that torch.save wrote".into(),
                "save the model with save_pretrained (safetensors)".into(),
            ),
            Self::TorchScript => (
                "a TorchScript program (torch.jit.save), not a checkpoint".into(),
                "use the checkpoint that it was made from; it has config.json and tokenizer.json".into(),
            ),
            Self::Ggml { format } => (
                format!(
                    "a model in the {format} format, which GGUF replaced in 2023: it has no complete \
                     description of model and tokenizer"
                ),
                ORIGINAL.into(),
            ),
            Self::Ggla => (
                "a LoRA adapter in the GGLA format of llama.cpp, which GGUF replaced".into(),
                "merge the original adapter into its model with PEFT (merge_and_unload) and convert that"
                    .into(),
            ),
            Self::GgufVersion { version } => {
                let remedy = match version {
                    0 | 1 => ORIGINAL,
                    _ => "a newer huozi may read it; else convert the original checkpoint",
                };
                (format!("GGUF version {version}; versions 2 and 3 are read"), remedy.into())
            }
            Self::BigEndian => (
                "a big-endian GGUF file, written for another kind of machine (s390x)".into(),
                "gguf_convert_endian.py of llama.cpp (`pip install gguf`: gguf-convert-endian) makes it \
                 little-endian"
                    .into(),
            ),
            Self::OtherFormat { what } => (what.what().into(), NEEDED.into()),
            Self::Unknown { start } => {
                (format!("not a GGUF file: it begins with \"{start}\""), NEEDED.into())
            }
            Self::Adapter { folder, base } => {
                let of = base.as_ref().map_or(String::new(), |base| format!(" trained on {base}"));
                let what = format!("a LoRA adapter{of}: it holds changes to a model, not the model");
                (what, merge(base.as_deref(), folder))
            }
            Self::Unmerged { tensor } => (
                format!("a checkpoint with an unmerged LoRA adapter in it (tensor {tensor})"),
                "load it with PEFT, then `model = model.merge_and_unload(); model.save_pretrained(OUT)`, \
                 and convert OUT"
                    .into(),
            ),
            Self::Ungathered { tensor, shape } => (
                format!(
                    "tensor {tensor} has the shape {shape:?}: the checkpoint was saved under DeepSpeed \
                     ZeRO-3 without gathering the weights, which are in the files of the processes \
                     (global_step*)"
                ),
                "`python zero_to_fp32.py FOLDER OUT` in the training folder gathers them, or train with \
                 stage3_gather_16bit_weights_on_model_save: true"
                    .into(),
            ),
            Self::Training(format) => {
                let (name, remedy) = match format {
                    TrainingFormat::DeepSpeed => (
                        "DeepSpeed",
                        "`python zero_to_fp32.py FOLDER OUT` (DeepSpeed puts the script beside it) gathers \
                         the weights",
                    ),
                    TrainingFormat::Megatron => (
                        "Megatron",
                        "convert it to Hugging Face's layout first \
                         (convert_bloom_original_checkpoint_to_pytorch.py of transformers)",
                    ),
                    TrainingFormat::Fsdp => {
                        ("PyTorch FSDP", "`accelerate merge-weights FOLDER OUT` gathers the weights")
                    }
                };
                let remedy = format!("{remedy}; then convert the result, with config.json and the tokenizer");
                (format!("a training checkpoint of {name}, in parts for several processes"), remedy)
            }
            Self::Quantised { method } => (
                format!("weights that were quantised by {method}, which cannot be converted again"),
                "convert the original checkpoint (F32, F16 or BF16): huozi-convert quantises it itself, \
                 e.g. -t q4_k_m"
                    .into(),
            ),
            Self::OtherModel { model } => (
                format!("a model of type \"{model}\"; huozi runs models of type bloom only"),
                "convert_hf_to_gguf.py of llama.cpp converts many others, and llama.cpp runs them".into(),
            ),
            Self::OtherFramework { framework, file } => {
                let from = match *framework {
                    "Flax" => "from_flax=True",
                    "TensorFlow" => "from_tf=True",
                    _ => "",
                };
                let remedy = match from {
                    "" => "use the checkpoint for PyTorch or in safetensors that it was made from".into(),
                    from => format!(
                        "load it with `AutoModelForCausalLM.from_pretrained(FOLDER, {from})` (transformers \
                         4), save it with save_pretrained(OUT), and convert OUT"
                    ),
                };
                (format!("weights for {framework} only ({file})"), remedy)
            }
            Self::Checkpoint { convert } => {
                ("a checkpoint, not a GGUF file".into(), format!("convert it: {convert}"))
            }
            Self::Part { convert: Some(convert), .. } => {
                ("one file of a checkpoint".into(), format!("convert its folder: {convert}"))
            }
            Self::Part { folder, .. } => (
                "one file of a checkpoint".into(),
                format!(
                    "huozi-convert needs the folder with all of them (weights, config.json, \
                     tokenizer.json); {} has no complete one",
                    folder.display()
                ),
            ),
            Self::OddNames { files, rename } => {
                let remedy = match rename {
                    Some(name) => format!("rename it to {name}"),
                    None => "rename them as transformers does, e.g. model-00001-of-00002.safetensors".into(),
                };
                (format!("no weights under a name that a checkpoint has, but {}", some(files)), remedy)
            }
            Self::GgufFiles { files } => {
                let list: Vec<String> = files.iter().map(|file| word(file)).collect();
                let (n, list) = (files.len(), list.join(", "));
                match n {
                    1 => ("a folder with a GGUF file".into(), format!("give the path of the file: {list}")),
                    _ => (format!("a folder with {n} GGUF files"), format!("give the path of one: {list}")),
                }
            }
            Self::Below { folders } => {
                let list: Vec<String> = folders.iter().map(|folder| word(folder)).collect();
                ("a folder without weights".into(), format!("give one that has them: {}", list.join(", ")))
            }
            Self::Cache { names } => (
                "the folder of a Hugging Face cache".into(),
                format!("give the name of a model in it: {}", some(names)),
            ),
            Self::NoWeights { files } => {
                let what = match files.is_empty() {
                    true => "an empty folder".to_owned(),
                    false => format!("a folder without weights, with {}", some(files)),
                };
                let remedy = "a checkpoint has config.json, tokenizer.json and model.safetensors or \
                              pytorch_model.bin, whole or in numbered parts";
                (what, remedy.into())
            }
        }
    }
}

/// How an adapter is merged.
fn merge(base: Option<&str>, adapter: &Path) -> String {
    // Both become part of a command: only what no shell and no Python reads as something else.
    let plain = |text: &str| text.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
    let base = base.filter(|base| plain(base)).unwrap_or("BASE");
    let adapter = adapter.to_str().filter(|adapter| plain(adapter)).unwrap_or("ADAPTER");
    format!(
        "merge it into the model with PEFT and convert the result: `python -c \"from transformers import \
         AutoModelForCausalLM as M, AutoTokenizer as T; from peft import PeftModel as P; \
         P.from_pretrained(M.from_pretrained('{base}'), '{adapter}').merge_and_unload()\
         .save_pretrained('OUT'); T.from_pretrained('{base}').save_pretrained('OUT')\"`"
    )
}

/// A web page's title, or another short text of a file.
pub(super) fn line(text: &str) -> String {
    shown(text.split_whitespace().collect::<Vec<_>>().join(" ").trim())
}
