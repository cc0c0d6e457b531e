//! Where a tensor's numbers lie in its file, and reading rows of them as `f32` through a bounded scratch.

use std::ops::Range;

use huozi_quant::Format;

use super::error::Error;
use super::input::Input;

/// Bytes of scratch per call at most.
const SCRATCH: usize = 1 << 20;
/// Elements farther apart than this (bytes) are read one by one, not with what lies between them.
const FAR: u64 = 4096;

/// A tensor's elements in a file: element (i, j, ..) is number `first + i * strides[0] + j * strides[1] ..`
/// of the `storage` elements that start at byte `base`.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub input: usize,
    pub base: u64,
    pub storage: u64,
    pub first: u64,
    pub strides: Vec<u64>,
    /// What the file says about the bytes of the storage, where it does.
    pub sum: Option<StoredSum>,
}

/// Bytes of a storage and their CRC-32.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredSum {
    pub bytes: u64,
    pub crc: u32,
}

/// Rows (product of all dimensions but the last) and columns of a shape; a scalar is 1 x 1.
pub(super) fn rows_cols(shape: &[u64]) -> Option<(u64, u64)> {
    let (&cols, lead) = shape.split_last().unwrap_or((&1, &[]));
    Some((product(lead)?, cols))
}

/// Checked product; anything times 0 is 0.
pub(super) fn product(shape: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d))
}

/// Row-major strides of a shape without zeros whose product fits.
pub(super) fn contiguous(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i].max(1);
    }
    strides
}

impl Place {
    /// Checks that the elements of `shape` lie in the storage and are not more than it has, so that no small
    /// file can declare a huge tensor. Says what was expected and what was found.
    pub(super) fn check(&self, shape: &[u64]) -> Result<(), (String, String)> {
        if self.strides.len() != shape.len() {
            return Err((format!("{} strides", shape.len()), format!("{:?}", self.strides)));
        }
        let here = || format!("shape {shape:?}, strides {:?}, first element {}", self.strides, self.first);
        let count = product(shape).ok_or_else(|| ("a shape that fits 64 bits".into(), here()))?;
        if count == 0 {
            return Ok(());
        }
        let last = shape
            .iter()
            .zip(&self.strides)
            .try_fold(self.first, |at, (&d, &s)| at.checked_add((d - 1).checked_mul(s)?));
        if count > self.storage || last.is_none_or(|last| last >= self.storage) {
            return Err((format!("elements inside a storage of {}", self.storage), here()));
        }
        Ok(())
    }

    /// Reads rows `rows` of a checked tensor into `out` (rows x cols, row-major).
    pub(super) fn read(
        &self,
        input: &Input,
        format: Format,
        shape: &[u64],
        rows: Range<u64>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        if out.is_empty() {
            return Ok(());
        }
        let item = format.block_bytes();
        let mut reader = Lines {
            input,
            format,
            base: self.base,
            scratch: vec![0; SCRATCH.min(out.len().max(FAR as usize) * item)],
        };
        let (&cols, lead) = shape.split_last().unwrap_or((&1, &[]));
        let (&col_stride, lead_strides) = self.strides.split_last().unwrap_or((&1, &[]));
        let cols_len = cols as usize; // `out` holds at least one row of it
        if self.is_contiguous(shape) {
            return reader.line(self.first + rows.start * cols, 1, out);
        }
        // Stretches of rows that differ in the innermost leading dimension only: each is a block with two
        // strides.
        let (&inner, outer) = lead.split_last().unwrap_or((&1, &[]));
        let (&row_stride, outer_strides) = lead_strides.split_last().unwrap_or((&0, &[]));
        let mut row = rows.start;
        let mut out = out;
        while row < rows.end {
            let n = (inner - row % inner).min(rows.end - row);
            let mut rest = row / inner;
            let mut first = self.first + (row % inner) * row_stride;
            for (&d, &s) in outer.iter().zip(outer_strides).rev() {
                first += (rest % d) * s;
                rest /= d;
            }
            let (block, left) = std::mem::take(&mut out).split_at_mut(n as usize * cols_len);
            reader.block(first, (row_stride, col_stride), cols_len, block)?;
            out = left;
            row += n;
        }
        Ok(())
    }

    fn is_contiguous(&self, shape: &[u64]) -> bool {
        let plain = contiguous(shape);
        shape.iter().zip(self.strides.iter().zip(&plain)).all(|(&d, (s, p))| d == 1 || s == p)
    }
}

struct Lines<'a> {
    input: &'a Input,
    format: Format,
    base: u64,
    scratch: Vec<u8>,
}

impl Lines<'_> {
    /// A matrix of `out.len() / cols` rows whose element (i, j) is number `first + i * row + j * col`.
    fn block(
        &mut self,
        first: u64,
        (row, col): (u64, u64),
        cols: usize,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let rows = out.len() / cols;
        // Along the shorter stride a read fetches more of what is wanted. A transposed matrix goes column by
        // column.
        if rows == 1 || row == 0 || (col != 0 && col <= row) {
            for (i, line) in out.chunks_exact_mut(cols).enumerate() {
                self.line(first + i as u64 * row, col, line)?;
            }
            return Ok(());
        }
        let most = rows.min(SCRATCH / 4);
        let mut line = vec![0.0; most];
        for (n, part) in out.chunks_mut(most * cols).enumerate() {
            let line = &mut line[..part.len() / cols];
            let first = first + (n * most) as u64 * row;
            for j in 0..cols {
                self.line(first + j as u64 * col, row, line)?;
                for (i, &x) in line.iter().enumerate() {
                    part[i * cols + j] = x;
                }
            }
        }
        Ok(())
    }

    /// Elements `first`, `first + stride`, .. into `out`.
    fn line(&mut self, first: u64, stride: u64, out: &mut [f32]) -> Result<(), Error> {
        let item = self.format.block_bytes();
        // More than 1 for block formats only, and those are contiguous, in whole rows.
        let weights = self.format.block_weights();
        let fits = (self.scratch.len() / item * weights) as u64;
        let byte = |element: u64| self.base + element / weights as u64 * item as u64;
        // The stride of a single element means nothing, and may be any number.
        if stride == 1 || out.len() == 1 {
            let mut at = first;
            for part in out.chunks_mut(fits as usize) {
                let bytes = &mut self.scratch[..part.len() / weights * item];
                self.input.read_at(byte(at), bytes)?;
                self.format.decode(bytes, part);
                at += part.len() as u64;
            }
            return Ok(());
        }
        if stride == 0 {
            let (one, rest) = out.split_at_mut(1);
            self.line(first, 1, one)?;
            rest.fill(one[0]);
            return Ok(());
        }
        let piece = if stride * item as u64 > FAR { 1 } else { (fits - 1) / stride + 1 };
        let mut at = first;
        for part in out.chunks_mut(piece as usize) {
            let span = ((part.len() as u64 - 1) * stride + 1) as usize * item;
            let bytes = &mut self.scratch[..span];
            self.input.read_at(byte(at), bytes)?;
            for (k, x) in part.iter_mut().enumerate() {
                let from = k * stride as usize * item;
                self.format.decode(&bytes[from..from + item], std::slice::from_mut(x));
            }
            at += part.len() as u64 * stride;
        }
        Ok(())
    }
}
