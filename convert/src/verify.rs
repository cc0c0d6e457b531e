//! A finished file beside the source it was made of: reopened, decoded, compared weight by weight.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use huozi_quant::Format;
use huozi_quant::gguf::check;

use crate::Error;
use crate::journal::Loss;
use crate::names::Target;
use crate::pipeline::Progress;
use crate::report::per_tensor;
use crate::source::Checkpoint;
use crate::work::{Chunk, Work};

/// The relative error that a format may have: far above what any encoder leaves, below what wrong rows (1.4), missing
/// ones (1) or another tensor give.
fn allowed(format: Format) -> f64 {
    match format {
        Format::F32 => 0.0,
        Format::F16 | Format::BF16 => 0.01,
        _ => 0.7,
    }
}

/// Reads the file at `path`. Gives back what each chunk lost, in whole.
///
/// # Errors
/// [`Error::Verify`] for the first tensor whose bytes do not give their sum, or that is not what the source has to the
/// precision of its format; also in a single chunk.
pub(crate) fn verify(
    work: &Work<'_>,
    tensors: &[(Target, usize)],
    chunks: &[Chunk],
    path: &Path,
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
        return wrong(tensor, "its bytes do not give the sum that the file carries".into());
    }
    let file = Checkpoint::open(path)?;
    let losses = work.compare(tensors, chunks, &file, progress)?;
    let sums = per_tensor(chunks, &losses, tensors.len());
    for (chunk, loss) in chunks.iter().zip(&losses) {
        let ((target, _), sum) = (&tensors[chunk.target], sums[chunk.target]);
        let stored = file.find(&target.name).and_then(|at| file.tensors()[at].dtype.format());
        let allowed = stored.map_or(0.0, allowed);
        // Rows far below the tensor's own scale may be lost in whole, as the padding rows of an embedding are.
        let share = (chunk.rows.end - chunk.rows.start) as f64 / target.rows as f64;
        let tiny = if allowed > 0.0 { 1e-6 * sum.power * share } else { 0.0 };
        if loss.error > allowed * allowed * loss.power + tiny {
            let rows = format!("rows {} to {}", chunk.rows.start, chunk.rows.end);
            return wrong(&target.name, format!("{rows} have a relative error of {:.3}", loss.relative()));
        }
    }
    Ok(losses)
}
