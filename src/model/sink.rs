//! Where rows of logits go.

use huozi_quant::team::Crew;

/// Takes `(item, position, logits)`: the index of the item in the step, the absolute position in its
/// sequence, and `n_vocab` logits that are valid during the call only.
type InOrder<'a> = dyn FnMut(usize, usize, &[f32]) + 'a;
/// The same, called by several threads at a time.
type Shared<'a> = dyn Fn(usize, usize, &[f32]) + Sync + 'a;

/// Takes the rows of logits of a step, each once.
pub enum Sink<'a> {
    /// Called by one thread, the rows of each item by ascending position.
    InOrder(&'a mut InOrder<'a>),
    /// Called by all threads of the engine at the same time, in any order: what it makes of a row must depend
    /// on that row only. For work per row that is worth sharing, such as sampling.
    Shared(&'a Shared<'a>),
}

impl Sink<'_> {
    /// Gives one row, on this thread.
    pub fn give(&mut self, item: usize, position: usize, logits: &[f32]) {
        match self {
            Self::InOrder(sink) => sink(item, position, logits),
            Self::Shared(sink) => sink(item, position, logits),
        }
    }

    /// Gives `logits`, `(rows.len(), n_vocab)` row-major; `rows[i]` is the item and the position of row `i`.
    /// A shared sink is called by the members of `crew`, which leave out rows once they are cancelled.
    pub(crate) fn give_all(
        &mut self,
        crew: &Crew<'_>,
        rows: &[(usize, usize)],
        logits: &[f32],
        n_vocab: usize,
    ) {
        let row = |i: usize| (rows[i].0, rows[i].1, &logits[i * n_vocab..][..n_vocab]);
        match self {
            Self::InOrder(sink) => (0..rows.len()).map(row).for_each(|(item, at, row)| sink(item, at, row)),
            Self::Shared(sink) => crew.each(rows.len(), |i| {
                let (item, position, row) = row(i);
                sink(item, position, row);
            }),
        }
    }
}
