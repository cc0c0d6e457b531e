//! Products of blocks with activations, compiled for each instruction set and chosen at run time.
//!
//! The list of instruction sets (`isa`) names a *unit* for each: its vectors, its products of bytes and the
//! size of its tiles (`unit`). Kernels are written once over these: `tile` with `layout` and `unpack` for
//! many columns, `line` for one, `dense` for float weights. Generic code (`driver`) walks through a matrix
//! and calls them; only they are compiled for the features of the ISA. Integer formats give the same bits on
//! every ISA. Small loops (`elementwise`, quantising activations) and encoders are portable code that
//! `multiversion!` compiles again for each vector width.
//!
//! The choice happens once: [`Isa::from_env`] takes the best the CPU has, lowered by `HUOZI_ISA`.

mod dense;
mod driver;
pub(crate) mod isa;
mod layout;
mod line;
pub(crate) mod packing;
pub(crate) mod peak;
pub(crate) mod portable;
mod portable2x8;
mod portable4;
pub(crate) mod prefetch;
mod rescale;
mod scalar;
pub(crate) mod table;
mod tile;
pub(crate) mod unit;
mod unpack;
pub(crate) mod vector;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod peak_x86;

pub use isa::{Isa, IsaError};
pub(crate) use isa::{multiversion, with_unit, with_vectors};
