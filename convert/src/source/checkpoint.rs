//! An open checkpoint, of any layout.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use huozi_quant::Format;
use huozi_quant::files::hub::{self, CacheEnv, Snapshot};
use huozi_quant::files::{self, Diagnosis};
use huozi_quant::gguf::Reader;
use huozi_quant::map::How;

use super::dtype::Dtype;
use super::error::{Error, shown};
use super::input::{self, Folder, Inode, Input};
use super::limits::{MAX_TENSORS, MAX_TEXT_BYTES};
use super::rows::{self, Place};
use super::tensor::{Entry, SourceTensor};
use super::{index, safetensors, torch};

/// What kind of source a checkpoint is.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum CheckpointKind<'a> {
    /// Hugging Face files: names and row order are Hugging Face's.
    Hf,
    /// A GGUF file, with its metadata: names and row order are GGUF's.
    Gguf(&'a Reader),
}

/// Where a checkpoint comes from.
enum Origin {
    Folder(Folder),
    Gguf(Reader),
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("name", &self.name)
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

/// An open checkpoint. Reading takes `&self` and may be done from many threads.
pub struct Checkpoint {
    name: String,
    origin: Origin,
    inputs: Vec<Input>,
    tensors: Vec<SourceTensor>,
    places: Vec<Place>,
    names: HashMap<String, usize>,
    note: Option<String>,
    absent: Vec<AbsentTensor>,
    objects: Vec<String>,
}

/// A tensor that an index names and that no file has.
#[derive(Clone, Debug)]
pub struct AbsentTensor {
    /// Its name.
    pub name: String,
    index: String,
    shard: String,
}

impl AbsentTensor {
    /// The error for one that is needed.
    pub(crate) fn refuse(&self) -> Error {
        let expected = format!("tensor {} in {}", shown(&self.name), shown(&self.shard));
        Error::layout(&self.index, expected, "it in no shard")
    }
}

impl Checkpoint {
    /// Opens a directory, a GGUF file, or a model by its name in the local Hugging Face cache (`ORG/NAME`,
    /// where no such path exists).
    ///
    /// Reads headers only. Shards must be complete and no tensor may be in two of them.
    ///
    /// # Errors
    /// No such path, files missing or broken: see [`Error`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, &CacheEnv::from_process())
    }

    /// As [`open`](Self::open), with the place of the cache given.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_with(path: &Path, env: &CacheEnv) -> Result<Self, Error> {
        let snapshot = hub::locate(path, env)?;
        let note = snapshot.as_ref().and_then(Snapshot::note);
        let path = snapshot.map_or(Cow::Borrowed(path), |snapshot| snapshot.dir.into());
        let diagnose = if path.is_dir() { files::diagnose_checkpoint } else { files::diagnose_model };
        let failed = |source| Error::Io { file: path.display().to_string(), doing: "open".into(), source };
        if let Some(diagnosis) = diagnose(&path).map_err(failed)? {
            return Err(diagnosis.into());
        }
        let opened = if path.is_dir() {
            Self::from_folder(Folder::Dir(path.into_owned(), Mutex::default()))
        } else {
            Self::from_gguf(&path)
        };
        opened.map(|checkpoint| Self { note, ..checkpoint })
    }

    /// A checkpoint of files in memory: (name, content) as they would be in a directory.
    ///
    /// # Errors
    /// As [`open`](Self::open); also a name twice or with a path in it.
    pub fn from_memory(files: Vec<(String, Cow<'static, [u8]>)>) -> Result<Self, Error> {
        let mut seen = HashSet::new();
        for (name, _) in &files {
            if !input::is_plain(name) || !seen.insert(name.clone()) {
                return Err(Error::layout("(in memory)", "plain file names, each once", shown(name)));
            }
        }
        let files = files.into_iter().map(|(name, bytes)| (name, Arc::new(bytes))).collect();
        Self::from_folder(Folder::Memory(files))
    }

    /// Opens a GGUF file whatever its name says, as that of a conversion before it is renamed.
    ///
    /// # Errors
    /// The file cannot be read or is broken.
    pub(crate) fn from_gguf(path: &Path) -> Result<Self, Error> {
        let input = Input::open(path)?;
        // Mapped for its header only; rows are read by range as those of other layouts.
        let reader = Reader::open(path, How::Map)?;
        let mut inputs = vec![input];
        for part in &reader.parts()[1..] {
            inputs.push(Input::open(part.path())?);
        }
        let (mut tensors, mut places) = (Vec::new(), Vec::new());
        for t in reader.tensors() {
            // Dimensions of 1 at the end, which some programs write, say nothing.
            let ones = t.dims.iter().skip(1).rev().take_while(|&&n| n == 1).count();
            let shape: Vec<u64> = t.dims[..t.dims.len() - ones].iter().rev().copied().collect();
            let dtype = match t.format {
                Format::F32 => Dtype::F32,
                Format::F16 => Dtype::F16,
                Format::BF16 => Dtype::BF16,
                quantised => Dtype::Quantised(quantised),
            };
            // The reader has checked that shape and bytes agree and lie in the file.
            let storage = rows::product(&shape).unwrap_or(0);
            let strides = rows::contiguous(&shape);
            places.push(Place { input: t.part, base: t.offset, storage, first: 0, strides, sum: None });
            tensors.push(SourceTensor {
                name: t.name.clone(),
                shape,
                dtype,
                file: reader.parts()[t.part].name().into(),
                bytes: t.bytes,
            });
        }
        // Listed, not readable.
        for t in reader.foreign() {
            let shape: Vec<u64> = t.dims.iter().rev().copied().collect();
            let strides = rows::contiguous(&shape);
            places.push(Place { input: t.part, base: 0, storage: 0, first: 0, strides, sum: None });
            tensors.push(SourceTensor {
                name: t.name.clone(),
                shape,
                dtype: Dtype::Other(t.type_name.into()),
                file: reader.parts()[t.part].name().into(),
                bytes: 0,
            });
        }
        let names = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Ok(Self {
            name: reader.name().into(),
            origin: Origin::Gguf(reader),
            inputs,
            tensors,
            places,
            names,
            note: None,
            absent: Vec::new(),
            objects: Vec::new(),
        })
    }

    fn from_folder(folder: Folder) -> Result<Self, Error> {
        let shards = index::find(&folder)?;
        let (mut inputs, mut tensors, mut places) = (Vec::new(), Vec::<SourceTensor>::new(), Vec::new());
        let mut names: HashMap<String, usize> = HashMap::new();
        let mut objects = Vec::new();
        for (number, file) in shards.files.iter().enumerate() {
            let Some(input) = folder.open(file)? else {
                let by = shards.index.as_ref().map_or(folder.name(), |index| index.file.clone());
                return Err(Error::layout(by, format!("shard {} beside it", shown(file)), "no such file"));
            };
            let entries = if shards.torch {
                let (entries, mut others) = torch::list(&input, number)?;
                objects.append(&mut others);
                entries
            } else {
                safetensors::list(&input, number)?
            };
            for Entry { tensor, place } in entries {
                if let Some(first) = names.insert(tensor.name.clone(), tensors.len()) {
                    let expected = format!("tensor {} in one shard", shown(&tensor.name));
                    return Err(Error::layout(
                        tensor.file,
                        expected,
                        format!("it also in {}", tensors[first].file),
                    ));
                }
                tensors.push(tensor);
                places.push(place);
            }
            if tensors.len() > MAX_TENSORS {
                let found = format!("{} up to {}", tensors.len(), shown(file));
                return Err(Error::layout(folder.name(), format!("at most {MAX_TENSORS} tensors"), found));
            }
            inputs.push(input);
        }
        let heads = tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice()));
        if let Some(kind) = files::diagnose_tensors(heads) {
            return Err(Diagnosis::new(Path::new(&folder.name()), kind).into());
        }
        let mut absent = Vec::new();
        if let Some(index) = shards.index {
            for (tensor, shard) in index.map {
                match names.get(&tensor).map(|&i: &usize| &shards.files[places[i].input]) {
                    Some(file) if *file == shard => {}
                    Some(file) => {
                        let expected = format!("tensor {} in {}", shown(&tensor), shown(&shard));
                        return Err(Error::layout(index.file, expected, format!("it in {}", shown(file))));
                    }
                    None => absent.push(AbsentTensor { name: tensor, index: index.file.clone(), shard }),
                }
            }
        }
        let (name, origin) = (folder.name(), Origin::Folder(folder));
        Ok(Self { name, origin, inputs, tensors, places, names, absent, objects, note: None })
    }

    /// The directory or file, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a user should know about the choice of the folder.
    pub(crate) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// What the names and the row order of the tensors are.
    pub fn kind(&self) -> CheckpointKind<'_> {
        match &self.origin {
            Origin::Folder(_) => CheckpointKind::Hf,
            Origin::Gguf(reader) => CheckpointKind::Gguf(reader),
        }
    }

    /// Every tensor, shard by shard, in the order of the file.
    pub fn tensors(&self) -> &[SourceTensor] {
        &self.tensors
    }

    /// Tensors that the index names and no file has: the caller knows whether they are needed.
    pub fn absent(&self) -> &[AbsentTensor] {
        &self.absent
    }

    /// Names of the entries of a pickled state dict that hold no tensor.
    pub fn objects(&self) -> &[String] {
        &self.objects
    }

    /// The number of the tensor with this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// Tensors whose numbers were rounded to a block format already: converting them again adds error to
    /// error.
    pub fn quantised(&self) -> impl Iterator<Item = &SourceTensor> {
        self.tensors.iter().filter(|t| matches!(t.dtype, Dtype::Quantised(_)))
    }

    /// Reads rows of tensor number `tensor` as `f32`.
    ///
    /// `rows`: which of its [`SourceTensor::rows`]; `out`: (rows, [`SourceTensor::cols`]), row-major. Takes
    /// at most a few MiB besides.
    ///
    /// # Errors
    /// No such tensor or rows, another length of `out`, a type other than F32, F16 and BF16, or the file
    /// cannot be read.
    pub fn read_rows(&self, tensor: usize, rows: Range<u64>, out: &mut [f32]) -> Result<(), Error> {
        let Some(t) = self.tensors.get(tensor) else {
            return Err(Error::Rows {
                tensor: format!("number {tensor}"),
                expected: format!("a number below {}", self.tensors.len()),
                found: tensor.to_string(),
            });
        };
        let wrong = |expected, found| Err(Error::Rows { tensor: shown(&t.name), expected, found });
        if rows.start > rows.end || rows.end > t.rows() {
            return wrong(format!("rows inside 0..{}", t.rows()), format!("{rows:?}"));
        }
        let want = (rows.end - rows.start).checked_mul(t.cols());
        if want != Some(out.len() as u64) {
            let expected = format!("a buffer of {} rows of {}", rows.end - rows.start, t.cols());
            return wrong(expected, format!("{} values", out.len()));
        }
        let Some(format) = t.dtype.format() else {
            return Err(t.unreadable());
        };
        let place = &self.places[tensor];
        place.read(&self.inputs[place.input], format, &t.shape, rows, out)
    }

    /// Reads rows of tensor number `tensor`, whose type is [`Dtype::Quantised`], as they are stored.
    ///
    /// `out`: whole rows of the format's blocks.
    ///
    /// # Errors
    /// As [`read_rows`](Self::read_rows).
    pub fn read_blocks(&self, tensor: usize, rows: Range<u64>, out: &mut [u8]) -> Result<(), Error> {
        let row_bytes = self.tensors.get(tensor).and_then(|t| match t.dtype {
            Dtype::Quantised(format) => format.row_bytes(usize::try_from(t.cols()).ok()?),
            _ => None,
        });
        let whole = row_bytes.filter(|bytes| {
            let rows_there = rows.start <= rows.end && rows.end <= self.tensors[tensor].rows();
            rows_there && (rows.end - rows.start).checked_mul(*bytes as u64) == Some(out.len() as u64)
        });
        let Some(row_bytes) = whole else {
            let tensor = self.tensors.get(tensor).map_or("unknown".into(), |t| shown(&t.name));
            let (expected, found) =
                ("rows of blocks that it has".into(), format!("{rows:?} in {} bytes", out.len()));
            return Err(Error::Rows { tensor, expected, found });
        };
        let place = &self.places[tensor];
        self.inputs[place.input].read_at(place.base + rows.start * row_bytes as u64, out)
    }

    /// A text that changes with the source: each file with its size and its
    /// time of change, each tensor with its type and place. One line each; asked of the system at every call.
    ///
    /// # Errors
    /// The system does not say.
    pub fn identity(&self) -> Result<String, Error> {
        use std::fmt::Write;
        let mut text = String::new();
        for input in &self.inputs {
            text.push_str(&input.identity()?);
        }
        for (t, place) in self.tensors.iter().zip(&self.places) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:?} {} {:?} {place:?}", t.name, t.dtype.name(), t.shape);
        }
        Ok(text)
    }

    /// Every file that was opened so far: none of them may be written.
    pub(crate) fn opened(&self) -> HashSet<Inode> {
        match &self.origin {
            Origin::Folder(folder) => folder.opened(),
            Origin::Gguf(_) => self.inputs.iter().filter_map(Input::inode).collect(),
        }
    }

    /// The storages whose file says what their bytes sum up to, each once: number of a tensor in it, and
    /// bytes.
    pub(crate) fn summed(&self) -> Vec<(usize, u64)> {
        let mut seen = HashSet::new();
        let of = |(i, place): (usize, &Place)| Some((i, place.sum?.bytes));
        let first = |(_, place): &(usize, &Place)| seen.insert((place.input, place.base));
        self.places.iter().enumerate().filter(first).filter_map(of).collect()
    }

    /// Reads the storage of tensor number `tensor`, of [`summed`](Self::summed), and compares its sum with
    /// the file's. `on` receives the length of each piece and may stop with an error.
    pub(crate) fn check_sum<E: From<Error>>(
        &self,
        tensor: usize,
        on: &dyn Fn(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let (t, place) = (&self.tensors[tensor], &self.places[tensor]);
        let Some(sum) = place.sum else { return Ok(()) };
        let found = self.inputs[place.input].crc32(place.base, sum.bytes, on)?;
        if found == sum.crc {
            return Ok(());
        }
        let expected = format!("CRC-32 {:08x} for the data of tensor {}", sum.crc, shown(&t.name));
        Err(Error::format(&t.file, place.base, expected, format!("{found:08x}")).into())
    }

    /// The content of a small file beside the weights, e.g. `config.json`; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read, has more than 4 MiB, or `name` is not a plain file name.
    pub fn file(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.file_of(name, MAX_TEXT_BYTES)
    }

    /// As [`file`](Self::file), of at most `most` bytes.
    ///
    /// # Errors
    /// As `file`.
    pub(crate) fn file_of(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, Error> {
        let Origin::Folder(folder) = &self.origin else { return Ok(None) };
        let Some(input) = folder.open(name)? else { return Ok(None) };
        input.read_vec(0, input.len(), most, "a file").map(|bytes| Some(as_utf8(bytes)))
    }

    /// The first `most` bytes of a file beside the weights, or all of it; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read, or `name` is not a plain file name.
    pub fn file_start(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, Error> {
        let Origin::Folder(folder) = &self.origin else { return Ok(None) };
        let Some(input) = folder.open(name)? else { return Ok(None) };
        input.read_vec(0, input.len().min(most), most, "a file").map(Some)
    }

    /// The names of the files beside the weights, sorted; none for a single file.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub(crate) fn names_beside(&self) -> Result<Vec<String>, Error> {
        let Origin::Folder(folder) = &self.origin else { return Ok(Vec::new()) };
        folder.names()
    }

    /// The names of the files in a folder beside the weights, sorted; none where there is no such folder.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub(crate) fn names_in(&self, folder: &str) -> Result<Vec<String>, Error> {
        let Origin::Folder(inside) = &self.origin else { return Ok(Vec::new()) };
        inside.folder(folder)?.map_or(Ok(Vec::new()), |inner| inner.names())
    }

    /// As [`text`](Self::text), of a file in a folder beside the weights.
    ///
    /// # Errors
    /// As `text`.
    pub(crate) fn text_in(&self, folder: &str, name: &str) -> Result<Option<String>, Error> {
        let Origin::Folder(outer) = &self.origin else { return Ok(None) };
        let Some(input) = outer.folder(folder)?.map_or(Ok(None), |inner| inner.open(name))? else {
            return Ok(None);
        };
        outer.add_opened(&input);
        let bytes = input.read_vec(0, input.len(), MAX_TEXT_BYTES, "a file")?;
        text(input.name(), bytes).map(Some)
    }

    /// As [`file`](Self::file), for text.
    ///
    /// # Errors
    /// As `file`; also content that is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(bytes) = self.file(name)? else { return Ok(None) };
        text(&format!("{}/{name}", self.name), bytes).map(Some)
    }
}

/// A text without its byte order mark, and in UTF-8 where the mark says UTF-16, as Windows programs save it.
/// What is no such text stays as it is.
fn as_utf8(bytes: Vec<u8>) -> Vec<u8> {
    let wide = |of: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..].chunks_exact(2).map(|pair| of([pair[0], pair[1]])).collect();
        String::from_utf16(&units).ok().map(String::into_bytes)
    };
    let text = match bytes.as_slice() {
        [0xef, 0xbb, 0xbf, rest @ ..] => Some(rest.to_vec()),
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ => None,
    };
    text.unwrap_or(bytes)
}

/// The content of the file `name` as text.
fn text(name: &str, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let found = format!("byte {:#04x}", e.as_bytes()[at]);
        Error::format(name, at as u64, "UTF-8 text", found)
    })
}
