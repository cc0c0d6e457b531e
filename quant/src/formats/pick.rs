//! A choice between two numbers that never becomes a branch.

/// `a` where `condition` holds, else `b`. An `if` on lanes becomes a branch for each of them.
#[inline(always)]
pub(super) fn pick<T>(condition: bool, a: T, b: T) -> T {
    std::hint::select_unpredictable(condition, a, b)
}
