//! A model before its first weight is read: names, shapes, vocabulary, metadata, the format of each tensor.

use std::borrow::Cow;
use std::collections::HashSet;

use huozi_quant::Format;
use huozi_quant::bloom::extra;
use huozi_quant::gguf::{MetaValue, Reader, TensorSpec, check};
use serde_json::Value;

use crate::chat::{ChatFiles, ChatSetup};
use crate::config::Config;
use crate::error::Error;
use crate::imatrix::Imatrix;
use crate::meta::{self, MetadataOverrides};
use crate::names::{self, HfName, Spelling, Target, TensorRole, Trunk};
use crate::options::{Options, Source};
use crate::plan::{self, Preset, PresetOptions};
use crate::reference::Page;
use crate::source::{
    self, Checkpoint, CheckpointKind, Dtype, Inode, MAX_TOKENIZER_BYTES, SourceTensor, quoted,
};
use crate::template::{self, GivenTemplate};
use crate::usable;
use crate::vocab::{ADDED_TOKENS, Vocabulary, with_old_files};
use crate::work::Workers;

/// How many bytes of a model card are read.
const CARD_BYTES: u64 = 1 << 16;

/// A model before its first weight is converted.
pub(crate) struct SourceModel {
    pub name: String,
    pub config: Config,
    /// Each target with the index of its source tensor.
    pub tensors: Vec<(Target, usize)>,
    meta: Vec<(String, MetaValue)>,
    pub notes: Vec<String>,
    duplicated: bool,
    pub imatrix: Option<Imatrix>,
    /// Files read besides the checkpoint's own.
    pub opened: HashSet<Inode>,
}

impl SourceModel {
    pub(crate) fn read(options: &Options, work: &Workers<'_>) -> Result<Self, Error> {
        let checkpoint = work.checkpoint;
        let mut notes = Vec::from_iter(checkpoint.note().map(str::to_owned));
        let reader = gguf_reader(checkpoint);
        let (mut config, spelling) = match reader {
            Some(reader) => (Config::from_gguf(reader.name(), reader.meta())?, Spelling::Gguf),
            None => (
                Config::from_json(&need(checkpoint.file("config.json"), checkpoint, "config.json")?)?,
                Spelling::HuggingFace,
            ),
        };
        if let Some(n_ctx) = options.context_length {
            if n_ctx == 0 || n_ctx > 1 << 24 {
                return Err(Error::Usage(format!("--context-length {n_ctx}: expected 1 to {}", 1 << 24)));
            }
            config.n_ctx = n_ctx;
        }
        let sources = checkpoint.tensors().iter().map(|t| names::FoundTensor {
            name: &t.name,
            shape: &t.shape,
            file: file_name(t),
        });
        // Before tensors are found to be missing: the index knows the file that should have them.
        let of_index = index_note(checkpoint, options)?;
        let assigned = names::assign(&config, spelling, sources);
        let of_whole = |what: String| Error::Tensors(format!("{}: {what}", checkpoint.name()));
        let names::Assignment { mut tensors, mut ignored, doubtful } = assigned.map_err(of_whole)?;
        ignored.extend(leave_out(&doubtful, options, checkpoint)?);
        let unreadable = |(_, at): &&(Target, usize)| checkpoint.tensors()[*at].dtype.format().is_none();
        if let Some((_, at)) = tensors.iter().find(unreadable) {
            return Err(checkpoint.tensors()[*at].unreadable().into());
        }
        let ignored: Vec<&str> = ignored.iter().map(String::as_str).collect();
        notes.extend(extra::note(&ignored));
        notes.extend(of_index);
        if !checkpoint.objects().is_empty() {
            let list = names::some_of(checkpoint.objects());
            notes.push(format!("left out of the state dict, as it is no tensor: {list}"));
        }
        if spelling == Spelling::Gguf {
            // Already in GGUF's row order.
            tensors.iter_mut().for_each(|(target, _)| target.qkv = None);
        }
        if let Some(first) = checkpoint.quantised().find(|t| t.dtype != Dtype::Quantised(Format::Q8_0)) {
            let what = "the source is quantised already: its error is added to that of the new type";
            notes.push(format!("{what} (e.g. {} is {})", first.name, first.dtype.name()));
        }
        let duplicated = resolve_output(&mut tensors, &config, options, work, &mut notes)?;
        let name = options.name.clone().unwrap_or_else(|| match (reader, &config.name) {
            (Some(_), Some(name)) => name.clone(),
            _ => name_of(&options.source, config.name.as_deref()),
        });
        let mut opened = HashSet::new();
        let imatrix = options.imatrix.as_deref().map(|p| Imatrix::read(p, &mut opened)).transpose()?;
        if let (Some(imatrix), Some(path)) = (&imatrix, &options.imatrix) {
            notes.extend(imatrix.missing(path, tensors.iter().map(|(t, _)| t))?);
        }
        let template = GivenTemplate::read(&options.chat_template, &mut opened)?;
        let mut model = Self { name, config, tensors, meta: Vec::new(), notes, duplicated, imatrix, opened };
        model.notes.extend(model.type_notes(options));
        let mut page = Page::default();
        let mut chat = ChatSetup::default();
        model.meta = match reader {
            Some(reader) => {
                let name = options.name.as_deref();
                let given = MetadataOverrides { name, n_ctx: options.context_length, template };
                meta::from_gguf(reader.meta(), given, &model.config)
            }
            None => {
                let json = ChatTexts::read(checkpoint, template, &mut model.notes)?;
                let tokenizer = checkpoint.file_of("tokenizer.json", MAX_TOKENIZER_BYTES);
                let tokenizer = need(tokenizer, checkpoint, "tokenizer.json")?;
                let vocab =
                    Vocabulary::read(&tokenizer, json.tokenizer_config.as_ref(), model.config.n_vocab)?;
                page = Page::read(&tokenizer, json.tokenizer_config.as_ref(), &vocab).unwrap_or_else(|e| {
                    let what =
                        "tokenizer.json: its ids were not compared, the tokenizers library cannot read it";
                    model.notes.push(format!("{what}: {}", source::shown(&e)));
                    Page::default()
                });
                drop(tokenizer);
                chat = ChatSetup::read(&json.files(), &vocab)?;
                model.notes.extend(vocab.notes.iter().cloned());
                // A card that cannot be read is ignored.
                let card = checkpoint.file_start("README.md", CARD_BYTES).ok().flatten();
                let license = card.and_then(|card| meta::license(&card));
                let (config, params) = (&model.config, model.weights());
                meta::from_checkpoint(config, vocab, &chat, &model.name, params, license.as_deref())
            }
        };
        for (key, value) in &options.metadata {
            meta::set_by_hand(&mut model.meta, key, value).map_err(Error::Usage)?;
        }
        if let Some(reader) = reader {
            model.notes.extend(meta::complete(&mut model.meta, reader.meta()));
        }
        model.check_usable(chat, &page, checkpoint.name())?;
        Ok(model)
    }

    /// Checks that the file will run, and adds the end tokens whose place the template decides.
    fn check_usable(&mut self, mut chat: ChatSetup, page: &Page, source: &str) -> Result<(), Error> {
        let (tokenizer, format, refusals) = usable::open(&self.meta, source)?;
        usable::compare(page, &tokenizer, source)?;
        let written = usable::end_written(&format, &tokenizer, &chat.ends);
        let spelled = |id: u32| String::from_utf8_lossy(tokenizer.vocab().bytes(id)).into_owned();
        let rest = chat.place_ends(written, spelled);
        meta::add_ends(&mut self.meta, chat.eot, rest);
        self.notes.extend(chat.notes);
        for refusal in refusals {
            self.notes.push(format!("a conversation with {} fails: {}", refusal.kind, refusal.error));
        }
        let warnings = tokenizer.vocab().warnings().iter();
        let new: Vec<String> = warnings.filter(|warning| !self.notes.contains(warning)).cloned().collect();
        self.notes.extend(new);
        Ok(())
    }

    /// A separate output is part of the model, a duplicate of the embedding is not.
    pub(crate) fn weights(&self) -> u64 {
        let own = self.tensors.iter().filter(|(t, _)| !(self.duplicated && t.role == TensorRole::Output));
        own.map(|(t, _)| t.rows * t.cols).sum()
    }

    /// Whether the embedding is the output too.
    fn is_tied(&self) -> bool {
        !self.tensors.iter().any(|(t, _)| t.role == TensorRole::Output)
    }

    /// The format of a tensor in a file of one preset, for rows of `cols` weights.
    fn format(&self, preset: Preset, options: &Options, target: &Target, cols: u64) -> Format {
        let preset_options = PresetOptions { imatrix: self.imatrix.is_some(), ..options.preset_options };
        match plan::named(&options.tensor_types, target) {
            Some(format) => plan::fit(format, cols),
            None => {
                plan::format(preset, preset_options, target.role, self.config.n_layer, cols, self.is_tied())
            }
        }
    }

    /// The file's tensors for one preset.
    pub(crate) fn specs(&self, preset: Preset, options: &Options) -> Vec<TensorSpec> {
        let spec = |(t, _): &(Target, usize)| {
            let format = self.format(preset, options, t, t.cols);
            TensorSpec { name: t.name.clone(), format, dims: t.dims() }
        };
        self.tensors.iter().map(spec).collect()
    }

    /// Notes on options for types that have no effect.
    fn type_notes(&self, options: &Options) -> Vec<String> {
        let mut notes = Vec::new();
        let matrices = || self.tensors.iter().map(|(t, _)| t).filter(|t| t.role != TensorRole::Vector);
        for wish in &options.tensor_types {
            if !matrices().any(|t| wish.pattern.is_match(&t.name)) {
                notes.push(format!("--tensor-type {}: matches no matrix", wish.pattern));
            }
        }
        let (embedding, tied) = (options.preset_options.embedding, self.is_tied());
        let output = |t: &&Target| t.role == if tied { TensorRole::TokenEmbd } else { TensorRole::Output };
        let by_name = || matrices().find(output).and_then(|t| plan::named(&options.tensor_types, t));
        if options.preset_options.output.is_some() && ((tied && embedding.is_some()) || by_name().is_some()) {
            notes.push(
                "--output-tensor-type has no effect: the type of that matrix is given otherwise".into(),
            );
        }
        for (preset, _) in &options.outputs {
            // Rows of this many weights hold whole blocks of every format.
            let wanted = |t: &Target| self.format(*preset, options, t, 256);
            let changed = matrices().map(|t| (t, wanted(t), self.format(*preset, options, t, t.cols)));
            let changed = changed.filter(|(_, wanted, format)| wanted != format);
            let changed: Vec<_> = changed.map(|(t, w, f)| format!("{} {f} for {w}", t.name)).collect();
            if !changed.is_empty() {
                let list = names::some_of(&changed);
                notes.push(format!("{preset}: other types where rows hold no whole blocks: {list}"));
            }
        }
        notes
    }

    /// The file's metadata for one preset.
    pub(crate) fn meta(&self, preset: Preset) -> Vec<(String, MetaValue)> {
        let mut meta = meta::for_preset(&self.meta, preset);
        if let Some(imatrix) = &self.imatrix {
            meta.extend(imatrix.meta());
        }
        meta.push((check::SHA256_KEY.to_owned(), check::placeholder(self.tensors.len())));
        meta
    }

    /// Where each tensor comes from, one line each.
    pub(crate) fn mapping(&self, checkpoint: &Checkpoint) -> String {
        let line = |(t, source): &(Target, usize)| {
            let from = &checkpoint.tensors()[*source];
            format!("{} {:?} {} {:?}\n", t.name, t.qkv, from.name, file_name(from))
        };
        self.tensors.iter().map(line).collect()
    }
}

/// Names of those of the `doubtful` tensors that are left out: `--skip-tensor` matches them, or they are
/// biases of nothing but zeros.
///
/// # Errors
/// One of the others may change the output.
fn leave_out(doubtful: &[usize], options: &Options, checkpoint: &Checkpoint) -> Result<Vec<String>, Error> {
    let (mut out, mut left) = (Vec::new(), Vec::new());
    for &at in doubtful {
        let t = &checkpoint.tensors()[at];
        if options.skip_tensors.iter().any(|pattern| pattern.is_match(&t.name))
            || is_zero_bias(checkpoint, at)?
        {
            out.push(t.name.clone());
        } else {
            left.push(names::FoundTensor { name: &t.name, shape: &t.shape, file: file_name(t) });
        }
    }
    if left.is_empty() {
        return Ok(out);
    }
    let what = names::refusal(left.into_iter());
    Err(Error::Tensors(format!("{}: {what}", checkpoint.name())))
}

/// Whether a tensor is a bias, which is added, of zeros alone.
fn is_zero_bias(checkpoint: &Checkpoint, at: usize) -> Result<bool, Error> {
    /// Far more than any vocabulary has.
    const MOST: u64 = 1 << 24;
    let t = &checkpoint.tensors()[at];
    let bias = t.name.ends_with(".bias") && t.dtype.format().is_some() && t.shape.len() == 1;
    if !bias || t.cols() > MOST {
        return Ok(false);
    }
    let mut values = vec![0.0; t.cols() as usize];
    checkpoint.read_rows(at, 0..t.rows(), &mut values)?;
    Ok(values.iter().all(|&x| x == 0.0))
}

/// A note on entries of an index without a tensor.
///
/// # Errors
/// BLOOM needs one of them, or it may have changed the output.
fn index_note(checkpoint: &Checkpoint, options: &Options) -> Result<Option<String>, Error> {
    let absent = checkpoint.absent();
    let present = checkpoint.tensors().iter().map(|t| t.name.as_str());
    let trunk = Trunk::of(present.chain(absent.iter().map(|t| t.name.as_str())));
    let needed = |name: &str| match names::gguf_name(name, &trunk) {
        // Tied to the embedding; where it is not, `resolve_output` misses it.
        HfName::Tensor(target) => target != "output.weight",
        HfName::Harmless => false,
        HfName::Unknown => !options.skip_tensors.iter().any(|pattern| pattern.is_match(name)),
    };
    if let Some(needed) = absent.iter().find(|t| needed(&t.name)) {
        return Err(needed.refuse().into());
    }
    let list: Vec<String> = absent.iter().map(|t| source::shown(&t.name)).collect();
    let text = || {
        format!("the index names tensors that no file has and BLOOM does not need: {}", names::some_of(&list))
    };
    Ok((!list.is_empty()).then(text))
}

/// Drops an output equal to the embedding, or adds one on request. Returns whether the file will have a
/// duplicate.
fn resolve_output(
    tensors: &mut Vec<(Target, usize)>,
    config: &Config,
    options: &Options,
    work: &Workers<'_>,
    notes: &mut Vec<String>,
) -> Result<bool, Error> {
    let embd = tensors.iter().find(|(t, _)| t.role == TensorRole::TokenEmbd).map(|(_, source)| *source);
    let embd = embd.expect("names::assign gives every target");
    let stored = tensors.iter().position(|(t, _)| t.role == TensorRole::Output);
    if let Some(at) = stored {
        let (target, source) = &tensors[at];
        if !work.equal(target, embd, *source)? {
            if config.tied == Some(true) {
                notes.push(
                    "the configuration says tied, but the stored output differs from the embedding: kept"
                        .into(),
                );
            }
            return Ok(false);
        }
        tensors.remove(at);
        if !options.duplicate_output {
            notes.push("the stored output equals the embedding: written once".into());
        }
    } else if config.tied == Some(false) {
        let what = "tie_word_embeddings is false, but there is no lm_head.weight";
        return Err(Error::Tensors(format!("{}: {what}", work.checkpoint.name())));
    }
    if options.duplicate_output {
        let target = names::targets(config, true).pop().expect("the output is the last target");
        tensors.push((target, embd));
    }
    Ok(options.duplicate_output)
}

/// The last part of a path that is a name; a snapshot in the Hugging Face cache is named by its repository.
fn name_of(source: &Source, given: Option<&str>) -> String {
    let last = |text: &str| text.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let from_path = match source {
        Source::Memory(_) => None,
        Source::Path(path) => {
            let full = path.canonicalize().unwrap_or_else(|_| path.clone());
            let parts: Vec<Cow<'_, str>> = full.iter().map(|p| p.to_string_lossy()).collect();
            let repository = parts.iter().rev().find_map(|p| p.strip_prefix("models--")?.rsplit("--").next());
            match repository {
                Some(name) => Some(name.to_owned()),
                None if full.extension().is_some_and(|e| e == "gguf") => None,
                None => full.file_name().map(|n| n.to_string_lossy().into_owned()),
            }
        }
    };
    from_path.or_else(|| given.map(last)).filter(|n| !n.is_empty()).unwrap_or_else(|| "bloom".into())
}

/// The files that describe the chat.
struct ChatTexts {
    config: Option<Value>,
    tokenizer_config: Option<Value>,
    generation_config: Option<Value>,
    chat_template: Option<String>,
    omit_template: bool,
}

impl ChatTexts {
    fn read(
        checkpoint: &Checkpoint,
        template: GivenTemplate,
        notes: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let json = |file: &'static str| -> Result<Option<Value>, Error> {
            let Some(text) = checkpoint.file(file)? else { return Ok(None) };
            let parsed = serde_json::from_slice(&text);
            parsed.map(Some).map_err(|e| Error::Config { file: file.into(), what: format!("not JSON: {e}") })
        };
        let mut tokenizer_config = json("tokenizer_config.json")?;
        if tokenizer_config.as_ref().is_none_or(|c| c["added_tokens_decoder"].is_null()) {
            let (map, added) = (json("special_tokens_map.json")?, json(ADDED_TOKENS)?);
            tokenizer_config = with_old_files(tokenizer_config, map, added);
        }
        let omit_template = template == GivenTemplate::Omit;
        let chat_template = match template {
            GivenTemplate::Text(text) => Some(text),
            GivenTemplate::Omit => None,
            GivenTemplate::Source => template::of_files(checkpoint, tokenizer_config.as_ref(), notes)?,
        };
        Ok(Self {
            config: json("config.json")?,
            tokenizer_config,
            generation_config: json("generation_config.json")?,
            chat_template,
            omit_template,
        })
    }

    fn files(&self) -> ChatFiles<'_> {
        ChatFiles {
            config: self.config.as_ref(),
            tokenizer_config: self.tokenizer_config.as_ref(),
            generation_config: self.generation_config.as_ref(),
            chat_template: self.chat_template.as_deref(),
            omit_template: self.omit_template,
        }
    }
}

fn gguf_reader(checkpoint: &Checkpoint) -> Option<&Reader> {
    match checkpoint.kind() {
        CheckpointKind::Gguf(reader) => Some(reader),
        _ => None,
    }
}

/// The name of a tensor's file, without folders.
fn file_name(tensor: &SourceTensor) -> &str {
    tensor.file.rsplit('/').next().unwrap_or_default()
}

/// The content of `file`, which must exist.
fn need(
    read: Result<Option<Vec<u8>>, source::Error>,
    checkpoint: &Checkpoint,
    file: &'static str,
) -> Result<Vec<u8>, Error> {
    if let Some(content) = read? {
        return Ok(content);
    }
    let names = checkpoint.names_beside()?;
    let has = |name: &str| names.iter().any(|other| other == name);
    let like = names.iter().find(|name| name.to_lowercase().starts_with(file));
    let remedy = match like {
        Some(like) => format!("rename {} to {file}", quoted(like)),
        None if file == "tokenizer.json" && has("tokenizer.model") => {
            "tokenizer.model is a SentencePiece tokenizer, which BLOOM does not have: this is another kind \
             of model; use a program that supports it"
                .into()
        }
        None => "copy it from the model's page, or from the folder that the weights were made from".into(),
    };
    let what = format!("not found beside the weights in {}; {remedy}", checkpoint.name());
    Err(Error::Config { file: file.into(), what })
}
