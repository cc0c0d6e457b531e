//! One file: what it is, from its name, its neighbours, its length and some of its bytes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::diagnosis::{FileKind, ForeignFormat, SpecialFile, UnfinishedSign};
use super::start::{Content, START_BYTES, content, unpacked};
use super::tensors;
use super::text::{shown, word};
use crate::gguf;
use crate::map::{Bytes, How};

/// A header of a safetensors file that is longer is left to the reader of such files.
const MAX_HEADER_BYTES: u64 = 4 << 20;
/// Bytes at the end of a zip archive in which its directory is looked for.
const TAIL_BYTES: u64 = 1 << 20;
/// Bytes of the record at its end.
const END_BYTES: usize = 22;
/// A shorter file of zeros may be meant so.
const LEAST_ZEROS: u64 = 64;
/// Places of a file of zeros that are looked at.
const PROBES: u64 = 64;

/// A file that no reader has to refuse for what it is.
#[derive(Debug)]
pub(super) enum Usable {
    /// GGUF of version 2 or 3.
    Gguf,
    /// Weights of a checkpoint.
    Weights,
    /// JSON.
    Json,
    /// Something else: it is up to its reader.
    Other(FileKind),
}

/// What a file is: usable in its role, or why not.
pub(super) type Verdict = Result<Usable, FileKind>;

/// Names that download programs give to files that they have not finished: at the end of the file's name, or
/// of that of a file beside it.
const UNFINISHED: [&str; 13] = [
    "incomplete",
    "part",
    "crdownload",
    "aria2",
    "aria2__temp",
    "download",
    "opdownload",
    "filepart",
    "xltd",
    "td",
    "downloading",
    "!qb",
    "!ut",
];

/// Looks at the file `path`. It is never opened where that could wait.
///
/// # Errors
/// The operating system refuses; a path that does not exist is such an error unless it is a link.
pub(super) fn inspect(path: &Path) -> io::Result<Verdict> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_link(path) => {
            return Ok(Err(FileKind::DanglingLink { link: name(path), model: None }));
        }
        Err(error) => return Err(error),
    };
    let of = meta.file_type();
    if of.is_fifo() {
        return Ok(Err(FileKind::Special(SpecialFile::Fifo)));
    }
    if of.is_socket() {
        return Ok(Err(FileKind::Special(SpecialFile::Socket)));
    }
    if of.is_char_device() || of.is_block_device() {
        return Ok(Err(FileKind::Special(SpecialFile::Device)));
    }
    let (file, len) = (File::open(path)?, meta.len());
    if let Some(by) = unfinished(path)
        && (by == FileKind::UnfinishedConversion || !is_whole_gguf(path, &file, len)?)
    {
        return Ok(Err(by));
    }
    let mut start = Vec::new();
    (&file).take(START_BYTES as u64).read_to_end(&mut start)?;
    if len >= LEAST_ZEROS && start.iter().all(|&byte| byte == 0) && all_zero(&file, len)? {
        return Ok(Err(FileKind::Zeros { bytes: len }));
    }
    Ok(match content(path, &start, len) {
        Content::Useless(kind) => Err(kind),
        Content::Gguf => Ok(Usable::Gguf),
        Content::Safetensors(header) => safetensors(&file, header, len)?,
        Content::Zip => zip(path, &file, len)?,
        Content::Json => Ok(Usable::Json),
        Content::Other(kind) => Ok(Usable::Other(kind)),
    })
}

fn is_link(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_symlink())
}

fn name(path: &Path) -> String {
    shown(&path.file_name().unwrap_or_default().to_string_lossy())
}

/// Whether the content is that of a whole GGUF file, or part of a split one, whatever its name says: none of
/// its tensors is cut off, and it has no holes, which a program leaves that reserves the space of a download
/// first.
fn is_whole_gguf(path: &Path, file: &File, len: u64) -> io::Result<bool> {
    let mut start = [0; 4];
    if file.read_at(&mut start, 0)? < start.len() || start != *b"GGUF" {
        return Ok(false);
    }
    let whole = Bytes::open(path, How::Map).is_ok_and(|bytes| gguf::is_whole(&bytes));
    // Few pages of a model, if any, have nothing but zeros.
    Ok(whole && zero_probes(file, len)? * 8 <= PROBES)
}

/// Whether the name, or that of a file beside it, is one of a download that goes on.
fn unfinished(path: &Path) -> Option<FileKind> {
    let name = path.file_name()?.to_string_lossy();
    if name.to_ascii_lowercase().ends_with(".gguf.partial") {
        return Some(FileKind::UnfinishedConversion);
    }
    if let Some(join) = pieces(path, &name) {
        return Some(FileKind::Piece { join });
    }
    if is_unfinished(&name) {
        return Some(FileKind::Unfinished { by: UnfinishedSign::Ending(extension(path)) });
    }
    // Only those that lie beside a file which has its final name already.
    let beside = ["aria2", "xltd.cfg", "td.cfg", "st"].into_iter().find(|end| {
        let neighbour = path.with_file_name(format!("{name}.{end}"));
        neighbour.symlink_metadata().is_ok_and(|meta| meta.is_file())
    })?;
    Some(FileKind::Unfinished { by: UnfinishedSign::Beside(format!("{}.{beside}", shown(&name))) })
}

/// The command that joins the pieces of a file, of which `name` is one: `X.part1of2`, `X-split-a`, `X.001`.
fn pieces(path: &Path, name: &str) -> Option<String> {
    let digits = |text: &str| !text.is_empty() && text.len() < 4 && text.bytes().all(|b| b.is_ascii_digit());
    let of = |end: &str| end.split_once("of").is_some_and(|(n, m)| digits(n) && digits(m));
    let (whole, pieces) =
        match (name.rsplit_once(".part"), name.rsplit_once("-split-"), name.rsplit_once('.')) {
            (Some((whole, end)), ..) if of(end) => (whole, ".part?of*"),
            (_, Some((whole, end)), _) if end.len() == 1 => (whole, "-split-?"),
            (.., Some((whole, end))) if end.len() == 3 && digits(end) => (whole, ".???"),
            _ => return None,
        };
    let whole = word(&path.with_file_name(whole));
    Some(format!("cat {whole}{pieces} > {whole}"))
}

fn extension(path: &Path) -> String {
    shown(&path.extension().unwrap_or_default().to_string_lossy())
}

/// Whether a download program gives such names to files that it has not finished.
pub(super) fn is_unfinished(name: &str) -> bool {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase());
    end.is_some_and(|end| UNFINISHED.contains(&end.as_str()))
}

/// Whether a file that begins with zeros has nothing else, as far as some places of it tell.
fn all_zero(file: &File, len: u64) -> io::Result<bool> {
    Ok(zero_probes(file, len)? == PROBES)
}

/// How many of the places that are looked at have zeros only.
fn zero_probes(file: &File, len: u64) -> io::Result<u64> {
    let mut zeros = 0;
    let mut page = [0; START_BYTES];
    let last = len.saturating_sub(START_BYTES as u64);
    for probe in 1..=PROBES {
        let at = (u128::from(last) * u128::from(probe) / u128::from(PROBES)) as u64;
        let n = file.read_at(&mut page, at)?;
        zeros += u64::from(page[..n].iter().all(|&byte| byte == 0));
    }
    Ok(zeros)
}

/// A safetensors file is as long as its header says, and holds weights and no adapter.
fn safetensors(file: &File, header: u64, len: u64) -> io::Result<Verdict> {
    let start = 8 + header;
    if start > len {
        return Ok(Err(FileKind::Truncated { missing: None }));
    }
    if header > MAX_HEADER_BYTES {
        return Ok(Ok(Usable::Weights));
    }
    let mut bytes = vec![0; header as usize];
    file.read_exact_at(&mut bytes, 8)?;
    // What is wrong with a header is told by the reader of such files.
    let Ok(Value::Object(tensors)) = serde_json::from_slice::<Value>(&bytes) else {
        return Ok(Ok(Usable::Weights));
    };
    let tensors: Vec<_> = tensors.iter().filter(|(name, _)| *name != "__metadata__").collect();
    let ends = tensors.iter().filter_map(|(_, tensor)| tensor.get("data_offsets")?.get(1)?.as_u64());
    let end = ends.max().unwrap_or(0);
    if let Some(missing) = end.checked_sub(len - start).filter(|&missing| missing > 0) {
        return Ok(Err(FileKind::Truncated { missing: Some(missing) }));
    }
    let numbers = |tensor: &Value| -> Vec<u64> {
        let shape = tensor.get("shape").and_then(Value::as_array);
        shape.into_iter().flatten().filter_map(Value::as_u64).collect()
    };
    let heads: Vec<(&str, Vec<u64>)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), numbers(tensor))).collect();
    let heads = heads.iter().map(|(name, shape)| (*name, shape.as_slice()));
    Ok(tensors::diagnose(heads).map_or(Ok(Usable::Weights), Err))
}

/// A zip archive is a checkpoint of PyTorch where it holds `NAME/data.pkl`, and no program.
fn zip(path: &Path, file: &File, len: u64) -> io::Result<Verdict> {
    let at = len.saturating_sub(TAIL_BYTES);
    let mut tail = vec![0; (len - at) as usize];
    file.read_exact_at(&mut tail, at)?;
    let has = |what: &[u8]| tail.windows(what.len()).any(|window| window == what);
    // The record at the end of an archive; a comment may follow it.
    match tail.windows(4).rposition(|window| window == b"PK\x05\x06").map(|at| tail.len() - at) {
        None => return Ok(Err(FileKind::Truncated { missing: None })),
        Some(rest) if rest < END_BYTES => {
            return Ok(Err(FileKind::Truncated { missing: Some((END_BYTES - rest) as u64) }));
        }
        Some(_) => {}
    }
    Ok(if has(b"/constants.pkl") && has(b"/code/") {
        Err(FileKind::TorchScript)
    } else if has(b"/data.pkl") {
        Ok(Usable::Weights)
    } else if has(b".npy") {
        Err(FileKind::OtherFormat { what: ForeignFormat::NumpyArchive })
    } else {
        Err(unpacked(path, "zip", "unzip"))
    })
}

/// The files of an unfinished download in `folder`, or where `hf download --local-dir` and ModelScope put
/// them: the first by name.
pub(super) fn unfinished_in(folder: &Path) -> Option<String> {
    let places = ["", ".cache/huggingface/download", ".huggingface/download", "._____temp"];
    places.iter().find_map(|place| {
        let here: PathBuf = folder.join(place);
        let names = fs::read_dir(&here).into_iter().flatten().flatten();
        let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        // ModelScope's folder of files that it has not finished has only such.
        names.retain(|name| is_unfinished(name) || *place == "._____temp");
        names.sort();
        let first = names.into_iter().next()?;
        Some(shown(&if place.is_empty() { first } else { format!("{place}/{first}") }))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::bloom::plan::Preset;
    use crate::bloom::shape::Shape;
    use crate::bloom::synth::RandomModel;

    #[test]
    fn the_content_of_a_whole_gguf_counts_more_than_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let shape = Shape { n_vocab: 300, n_embd: 32, n_layer: 1, n_head: 2, n_ff: 128, n_ctx_train: 64 };
        let model = RandomModel { shape, preset: Preset::Q8_0, seed: 1, name: "m".into() };
        model.write(&at("m.gguf"), &AtomicBool::new(false), &|_, _| {}).unwrap();
        fs::write(at("m.gguf.st"), "").unwrap();
        let whole = fs::read(at("m.gguf")).unwrap();
        for name in ["m.gguf", "bloom.560", "m.part", "b.gguf.part1of2"] {
            fs::write(at(name), &whole).unwrap();
            assert!(matches!(inspect(&at(name)), Ok(Ok(Usable::Gguf))), "{name}");
            // Cut, or of the length that it will have.
            let mut reserved = whole.clone();
            reserved[whole.len() / 2..].fill(0);
            for bytes in [&whole[..whole.len() - 1], &reserved] {
                fs::write(at(name), bytes).unwrap();
                let verdict = inspect(&at(name));
                let unfinished = Err(FileKind::Unfinished { by: UnfinishedSign::Ending(String::new()) });
                let kind = |verdict: &Verdict| verdict.as_ref().err().map(std::mem::discriminant);
                let piece = Err(FileKind::Piece { join: String::new() });
                let found = kind(&verdict.unwrap());
                assert!(found == kind(&unfinished) || found == kind(&piece), "{name}");
            }
        }
    }
}
