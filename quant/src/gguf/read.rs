//! Opening a model: one file, or the parts of a split one.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::header::{Header, parse, sorted};
use super::limits::MAX_TENSORS;
use super::meta::Table;
use super::split::{self, Split};
use super::{Error, ForeignTensor, Meta, Place, Rule, TensorInfo};
use crate::map::{Bytes, How};

/// An open GGUF model. Cheap to clone; the bytes live as long as the last clone or the last
/// [`bytes`](Self::bytes).
#[derive(Clone)]
pub struct Reader(Arc<Inner>);

struct Inner {
    /// At least one; the first has the metadata.
    parts: Vec<Part>,
    version: u32,
    alignment: u64,
    table: Table,
    /// Of all parts, in their order.
    tensors: Vec<TensorInfo>,
    /// Indices of `tensors`, sorted by name.
    by_name: Vec<u32>,
    foreign: Vec<ForeignTensor>,
}

/// A file of a model: the only one, or a part of a split model.
pub struct Part {
    path: PathBuf,
    /// The path, as it stands in messages.
    name: String,
    bytes: Bytes,
    data_offset: u64,
}

impl Part {
    fn read(path: &Path, bytes: Bytes) -> Result<(Self, Header), Error> {
        let name = path.display().to_string();
        let header = parse(&name, &bytes, bytes.len() as u64)?;
        Ok((Self { path: path.to_owned(), name, bytes, data_offset: header.data_offset }, header))
    }

    /// The path, or the name given to [`Reader::from_bytes`], for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path; the name given to [`Reader::from_bytes`] of a file in memory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Where the tensor data begins. Without tensors it may lie past the end of the file.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }
}

impl Reader {
    /// Opens and checks the file at `path`; of a split model that is the first part, and the others are
    /// opened beside it.
    ///
    /// # Errors
    /// [`Error::Io`], or the first broken [`Rule`].
    pub fn open(path: &Path, how: How) -> Result<Reader, Error> {
        Self::open_watched(path, how, &mut |_| ControlFlow::Continue(()))
    }

    /// [`Self::open`] with progress that may stop it; see [`Bytes::open_watched`]. The bytes are counted over
    /// all parts.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_watched(
        path: &Path,
        how: How,
        on: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Reader, Error> {
        let name = path.display().to_string();
        let bytes = Bytes::open_watched(path, how, on).map_err(|e| cannot_open(&name, e))?;
        let (part, header) = Part::read(path, bytes)?;
        let mut model = Inner::new(part, header);
        let Some(split) = Split::of(&model.meta())? else { return model.finish() };
        let names = split.first(&model.parts[0].name, path)?;
        let mut before = model.parts[0].file_bytes();
        for number in 1..split.count {
            let path = names.path(number + 1);
            let name = path.display().to_string();
            let bytes = Bytes::open_watched(&path, how, &mut |done| on(before + done));
            let bytes = bytes.map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => {
                    split::missing(&model.parts[0].name, number + 1, split.count, &path)
                }
                _ => cannot_open(&name, e),
            })?;
            let (part, header) = Part::read(&path, bytes)?;
            split.check(&model.meta(), number, &Meta::new(&part.name, &part.bytes, &header.table))?;
            before += part.file_bytes();
            model.add(part, header)?;
        }
        let found = model.tensors.len() + model.foreign.len();
        if let Some(expected) = split.tensors.filter(|&n| n != found as u64) {
            return Err(split::miscounted(&model.parts[0].name, split, expected, found));
        }
        model.finish()
    }

    /// Checks a file that is in memory; `name` stands for the path in messages.
    ///
    /// # Errors
    /// The first broken [`Rule`]; a part of a split model, whose other parts are not known.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Reader, Error> {
        Self::from_shared(name, bytes.into())
    }

    /// As [`from_bytes`](Self::from_bytes), sharing `bytes`.
    ///
    /// # Errors
    /// As `from_bytes`.
    pub fn from_shared(name: &str, bytes: Bytes) -> Result<Reader, Error> {
        let (part, header) = Part::read(Path::new(name), bytes)?;
        let model = Inner::new(part, header);
        match Split::of(&model.meta())? {
            None => model.finish(),
            Some(split) => Err(split::alone(name, split)),
        }
    }

    /// Brings the whole model in; see [`Bytes::page_in`].
    pub fn page_in(&self, on: &mut dyn FnMut(u64) -> ControlFlow<()>) {
        let (mut before, mut stopped) = (0, false);
        for part in self.parts() {
            part.bytes.page_in(&mut |done| {
                let flow = on(before + done);
                stopped |= flow.is_break();
                flow
            });
            if stopped {
                return;
            }
            before += part.file_bytes();
        }
    }

    /// Keeps the whole model in memory; see [`Bytes::lock`].
    ///
    /// # Errors
    /// What the system says.
    pub fn lock(&self) -> io::Result<()> {
        self.parts().iter().try_for_each(|part| part.bytes.lock())
    }

    /// Whether every file still is as long as it was; see [`Bytes::check_length`].
    ///
    /// # Errors
    /// One is shorter, or the system does not tell.
    pub fn check_length(&self) -> io::Result<()> {
        self.parts().iter().try_for_each(|part| part.bytes.check_length())
    }

    /// The path (of the first part), or the name given to [`from_bytes`](Self::from_bytes): for messages.
    pub fn name(&self) -> &str {
        &self.0.parts[0].name
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// Tensors begin at multiples of this many bytes; a later part may have an alignment of its own.
    pub fn alignment(&self) -> u64 {
        self.0.alignment
    }

    /// The files of the model, in order: at least one.
    pub fn parts(&self) -> &[Part] {
        &self.0.parts
    }

    /// The length of all files of the model.
    pub fn file_bytes(&self) -> u64 {
        self.parts().iter().map(Part::file_bytes).sum()
    }

    /// The metadata.
    pub fn meta(&self) -> Meta<'_> {
        self.0.meta()
    }

    /// The tensors, in the order of the headers.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.0.tensors
    }

    /// The tensors whose type no [`Format`](crate::Format) is for; not among [`tensors`](Self::tensors).
    pub fn foreign(&self) -> &[ForeignTensor] {
        &self.0.foreign
    }

    /// The error for a tensor of [`foreign`](Self::foreign) that is needed.
    pub fn refuse_type(&self, tensor: &ForeignTensor) -> Error {
        let expected = format!("one of {}", crate::Format::names());
        let found = format!(
            "{}, which this program does not decode; convert the original checkpoint with huozi-convert, or \
             requantise with llama-quantize --allow-requantize",
            tensor.type_name
        );
        let (place, file) = (Place::Tensor(tensor.name.clone()), &self.0.parts[tensor.part].name);
        Error::malformed(Rule::TensorType, file, place, Some(tensor.type_at), expected, found)
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let Inner { tensors, by_name, .. } = &*self.0;
        let at = by_name.binary_search_by(|&i| tensors[i as usize].name.as_str().cmp(name)).ok()?;
        tensors.get(by_name[at] as usize)
    }

    /// The encoded rows of a tensor, not copied.
    ///
    /// # Panics
    /// When `tensor` is not of this model and lies outside it.
    pub fn bytes(&self, tensor: &TensorInfo) -> Bytes {
        let start = usize::try_from(tensor.offset).expect("offset of a tensor of this model");
        let bytes = usize::try_from(tensor.bytes).expect("size of a tensor of this model");
        self.0.parts[tensor.part].bytes.slice(start..).slice(..bytes)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({}, {} entries, {} tensors)", self.name(), self.meta().len(), self.tensors().len())
    }
}

impl Inner {
    fn meta(&self) -> Meta<'_> {
        Meta::new(&self.parts[0].name, &self.parts[0].bytes, &self.table)
    }
}

/// While the parts are added.
impl Inner {
    fn new(part: Part, header: Header) -> Self {
        let Header { version, alignment, table, tensors, foreign, .. } = header;
        Self { parts: vec![part], version, alignment, table, tensors, by_name: Vec::new(), foreign }
    }

    fn add(&mut self, part: Part, header: Header) -> Result<(), Error> {
        let number = self.parts.len();
        let Header { mut tensors, mut foreign, .. } = header;
        tensors.iter_mut().for_each(|t| t.part = number);
        foreign.iter_mut().for_each(|t| t.part = number);
        self.tensors.append(&mut tensors);
        self.foreign.append(&mut foreign);
        let count = (self.tensors.len() + self.foreign.len()) as u64;
        if count > MAX_TENSORS {
            let expected = format!("at most {MAX_TENSORS} tensors in all parts");
            let found = count.to_string();
            return Err(Error::malformed(Rule::Count, &part.name, Place::Header, None, expected, found));
        }
        self.parts.push(part);
        Ok(())
    }

    /// Sorts the names. Each file has a tensor once; two parts may still have the same.
    fn finish(mut self) -> Result<Reader, Error> {
        let decoded = self.tensors.iter().map(|t| (t.name.as_str(), t.part));
        let foreign = self.foreign.iter().map(|t| (t.name.as_str(), t.part));
        let all: Vec<(&str, usize)> = decoded.chain(foreign).collect();
        let order = sorted(all.len(), |i| all[i].0).map_err(|second| {
            let (name, part) = all[second];
            let first = all.iter().find(|other| other.0 == name).map_or(0, |other| other.1);
            let (first, second) = (&self.parts[first].name, &self.parts[part].name);
            let place = Place::Tensor(name.to_owned());
            let found = format!("it in {first} as well");
            Error::malformed(Rule::TensorTwice, second, place, None, "every tensor once", found)
        })?;
        // The order without the foreign ones, which come behind.
        let decoded = self.tensors.len();
        self.by_name = order.into_iter().filter(|&i| (i as usize) < decoded).collect();
        Ok(Reader(Arc::new(self)))
    }
}

/// Whether `bytes` are a whole GGUF file, or a whole part of a split one.
pub(crate) fn is_whole(bytes: &Bytes) -> bool {
    parse("", bytes, bytes.len() as u64).is_ok()
}

fn cannot_open(name: &str, source: io::Error) -> Error {
    Error::Io { file: name.to_owned(), action: "open", source }
}
