//! Comparing a finished file with its source: reopened, decoded, compared weight by weight.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use huozi_quant::Format;
use huozi_quant::gguf::check;

use crate::error::Error;
use crate::journal::Loss;
use crate::names::Target;
use crate::progress::Progress;
use crate::report::per_tensor;
use crate::source::Checkpoint;
use crate::work::{Chunk, Workers};

/// The relative error that a format may have: far above what any encoder leaves, below what wrong rows (1.4),
/// missing ones (1) or another tensor give.
fn allowed(format: Format) -> f64 {
    match format {
        Format::F32 => 0.0,
        Format::F16 | Format::BF16 => 0.01,
        _ => 0.7,
    }
}

/// Compares the file at `path`; returns the error of each chunk, over all its rows. `allow_nan`: as in the
/// conversion.
///
/// # Errors
/// [`Error::Verify`] for the first tensor whose checksum does not match, that has NaN or infinity where
/// the source has a number, or that is not what the source has to the precision of its format; also in a
/// single chunk.
pub(crate) fn verify(
    work: &Workers<'_>,
    tensors: &[(Target, usize)],
    chunks: &[Chunk],
    path: &Path,
    allow_nan: bool,
    progress: &dyn Progress,
) -> Result<Vec<Loss>, Error> {
    let stop = |_| if work.cancel.load(Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) };
    let checked = work.pool.install(|| check::check(path, &stop));
    if work.cancel.load(Relaxed) {
        return Err(Error::Interrupted);
    }
    let checked = checked.map_err(|source| Error::Gguf { path: path.to_owned(), source })?;
    let wrong = |tensor: &str, what: String| Err(Error::Verify { tensor: tensor.to_owned(), what });
    if let Some(tensor) = checked.damaged.first() {
        return wrong(tensor, "its checksum does not match".into());
    }
    let file = Checkpoint::from_gguf(path)?;
    let losses = work.compare(tensors, chunks, &file, allow_nan, progress)?;
    let sums = per_tensor(chunks, &losses, tensors.len());
    for (chunk, loss) in chunks.iter().zip(&losses) {
        let ((target, _), sum) = (&tensors[chunk.target], sums[chunk.target]);
        let stored = file.find(&target.name).and_then(|at| file.tensors()[at].dtype.format());
        let allowed = stored.map_or(0.0, allowed);
        // Rows far below the tensor's own scale may be lost in whole, as the padding rows of an embedding
        // are.
        let share = (chunk.rows.end - chunk.rows.start) as f64 / target.rows as f64;
        let tiny = if allowed > 0.0 { 1e-6 * sum.power * share } else { 0.0 };
        if loss.error > allowed * allowed * loss.power + tiny {
            let rows = format!("rows {} to {}", chunk.rows.start, chunk.rows.end);
            return wrong(&target.name, format!("{rows} have a relative error of {:.3}", loss.relative()));
        }
    }
    Ok(losses)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::AtomicBool;

    use huozi_quant::gguf::{Layout, Reader, TensorSpec, Writer};
    use huozi_quant::map::How;

    use super::*;
    use crate::names::{Spelling, assign};
    use crate::options::{Options, Source};
    use crate::pipeline::run;
    use crate::plan::Preset;
    use crate::work::chunks;

    /// Writes `from` again without sums, its tensors changed by `change`.
    fn changed(from: &Path, to: &Path, change: impl Fn(&str, &mut Vec<u8>)) {
        let reader = Reader::open(from, How::Read).unwrap();
        let spec = |t: &huozi_quant::gguf::TensorInfo| TensorSpec {
            name: t.name.clone(),
            format: t.format,
            dims: t.dims.clone(),
        };
        let keep = |key: &str| key != check::SHA256_KEY;
        let meta = reader.meta().iter().filter(|(k, _)| keep(k)).map(|(k, v)| (k.to_owned(), v.into()));
        let layout =
            Layout::new(&meta.collect::<Vec<_>>(), reader.tensors().iter().map(spec).collect()).unwrap();
        let writer = Writer::create(std::fs::File::create(to).unwrap(), layout).unwrap();
        for (i, t) in reader.tensors().iter().enumerate() {
            let mut bytes = reader.bytes(t).to_vec();
            change(&t.name, &mut bytes);
            writer.write_at(i, 0, &bytes).unwrap();
        }
        writer.finish().unwrap();
    }

    #[test]
    fn weights_that_differ_from_the_source_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-k256-f16");
        let checkpoint = Checkpoint::open(&source).unwrap();
        let json = checkpoint.file("config.json").unwrap().unwrap();
        let config = crate::config::Config::from_json(&json).unwrap();
        let list = checkpoint.tensors().iter();
        let list = list.map(|t| crate::names::FoundTensor { name: &t.name, shape: &t.shape, file: &t.file });
        let tensors = assign(&config, Spelling::HuggingFace, list).unwrap().tensors;
        let chunks = chunks(tensors.iter().map(|(t, _)| t));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let never = AtomicBool::new(false);
        let work = Workers {
            checkpoint: &checkpoint,
            pool: &pool,
            cancel: &never,
            isa: huozi_quant::kernels::Isa::SCALAR,
        };
        for preset in [Preset::F32, Preset::F16, Preset::Q2_K] {
            let good = path("good.gguf");
            let options =
                Options { force: true, ..Options::new(Source::Path(source.clone()), preset, &good) };
            run(&options, &(), &never).unwrap();
            let verify = |file: &str| verify(&work, &tensors, &chunks, &path(file), false, &());
            let losses = verify("good.gguf").unwrap();
            assert_eq!(losses.iter().any(|l| l.error > 0.0), preset == Preset::Q2_K);
            changed(&good, &path("same.gguf"), |_, _| {});
            assert_eq!(verify("same.gguf").unwrap(), losses);
            // The last rows of one matrix are missing.
            changed(&good, &path("hole.gguf"), |name, bytes| {
                if name == "blk.1.ffn_up.weight" {
                    let half = bytes.len() / 4;
                    bytes[half..].fill(0);
                }
            });
            let error = verify("hole.gguf").unwrap_err().to_string();
            assert!(error.contains("blk.1.ffn_up.weight: rows "), "{preset}: {error}");
            // No number where there was one.
            changed(&good, &path("nan.gguf"), |name, bytes| {
                if name == "blk.1.ffn_up.weight" {
                    match preset {
                        Preset::F32 => bytes[4096 + 4..][..4].copy_from_slice(&f32::NAN.to_le_bytes()),
                        Preset::F16 => bytes[2048 + 2..][..2].copy_from_slice(&[0, 0x7e]),
                        // The scale of a block: behind 4-bit scales and 2-bit weights.
                        _ => bytes[4 * 84 + 80..][..2].copy_from_slice(&[0, 0x7c]),
                    }
                }
            });
            let error = verify("nan.gguf").unwrap_err().to_string();
            assert!(error.contains("blk.1.ffn_up.weight: row 4 has "), "{preset}: {error}");
            // Rows in another order.
            changed(&good, &path("turned.gguf"), |name, bytes| {
                if name == "blk.0.attn_qkv.weight" {
                    let third = bytes.len() / 3;
                    bytes.rotate_left(third);
                }
            });
            let error = verify("turned.gguf").unwrap_err().to_string();
            assert!(error.contains("blk.0.attn_qkv.weight"), "{preset}: {error}");
            // The checksum of the file shows the damage.
            let mut bytes = std::fs::read(&good).unwrap();
            let last = bytes.len() - 40;
            bytes[last] ^= 1;
            std::fs::write(path("flipped.gguf"), bytes).unwrap();
            let error = verify("flipped.gguf").unwrap_err().to_string();
            assert!(error.contains("output_norm.bias") && error.contains("sum"), "{error}");
        }
    }
}
