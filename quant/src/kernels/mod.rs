//! The instruction sets a kernel can be compiled for, and the choice of one at run time.
//!
//! The products with rows of weights are written once over a small trait of vector operations (`simd`), in `tile`,
//! `unpack`, `line` (few columns) and `dense`; a file per vector unit implements it and `table` compiles the code for each. Integer formats
//! give the same bits on every ISA. Small loops (`elementwise`, quantising activations) are portable code that
//! `multiversion!` compiles again for each vector width.
//!
//! The choice happens once: [`Isa::from_env`] takes the best the CPU has, lowered by `HUOZI_ISA`.

mod dense;
pub(crate) mod line;
mod rescale;
mod simd;
pub(crate) mod table;
pub(crate) mod tile;
mod unpack;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Level {
    /// What the architecture guarantees: SSE2 on x86-64, NEON on AArch64.
    Scalar,
    /// With FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2 and the 256-bit form of VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// F, BW, DQ and VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

/// An instruction set that this CPU has: values come from detection only, so holding one is the proof.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa(Level);

/// `HUOZI_ISA` names nothing that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("HUOZI_ISA={asked}: this CPU offers {}", available.join(", "))]
pub struct IsaError {
    asked: String,
    available: Vec<&'static str>,
}

impl Isa {
    /// Portable code for the architecture's baseline.
    pub const SCALAR: Self = Self(Level::Scalar);

    /// Every instruction set of this CPU that kernels exist for, lowest first.
    pub fn available() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
        let mut all = vec![Self::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            if avx2 {
                all.push(Self(Level::Avx2));
            }
            if avx2 && is_x86_feature_detected!("avxvnni") {
                all.push(Self(Level::AvxVnni));
            }
            if avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                all.push(Self(Level::Avx512));
                if is_x86_feature_detected!("avx512vnni") {
                    all.push(Self(Level::Avx512Vnni));
                }
            }
        }
        all
    }

    /// The best instruction set, or the one asked for by name.
    ///
    /// # Errors
    /// When `asked` is unknown or this CPU lacks it.
    pub fn choose(asked: Option<&str>) -> Result<Self, IsaError> {
        let available = Self::available();
        match asked {
            None => Ok(available.last().copied().unwrap_or(Self::SCALAR)),
            Some(name) => {
                available.iter().copied().find(|isa| isa.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
                    IsaError {
                        asked: name.to_owned(),
                        available: available.iter().map(|isa| isa.name()).collect(),
                    }
                })
            }
        }
    }

    /// The best instruction set, or the one that `HUOZI_ISA` names.
    ///
    /// # Errors
    /// When `HUOZI_ISA` names one that is unknown or that this CPU lacks.
    pub fn from_env() -> Result<Self, IsaError> {
        match std::env::var("HUOZI_ISA") {
            Ok(name) if !name.is_empty() => Self::choose(Some(&name)),
            _ => Self::choose(None),
        }
    }

    /// The name as `HUOZI_ISA` takes it: `scalar`, `avx2`, `avxvnni`, `avx512`, `avx512vnni`.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => "avx512vnni",
        }
    }

    pub(crate) const fn level(self) -> Level {
        self.0
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Defines `fn name(isa: Isa, ...)` that runs the `#[inline(always)]` function `body` compiled for that ISA.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path;) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::kernels::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body($($arg),*)
                }
                match isa.level() {
                    $crate::kernels::Level::Scalar => $body($($arg),*),
                    // SAFETY: an `Isa` of this level exists only where `Isa::available` detected these features.
                    $crate::kernels::Level::Avx2 | $crate::kernels::Level::AvxVnni => unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    $crate::kernels::Level::Avx512 | $crate::kernels::Level::Avx512Vnni => unsafe {
                        avx512($($arg),*)
                    },
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            {
                let _ = isa;
                $body($($arg),*)
            }
        }
    };
}
pub(crate) use multiversion;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalar_is_always_there_and_names_are_taken_back() {
        let all = Isa::available();
        assert_eq!(all[0], Isa::SCALAR);
        for isa in &all {
            assert_eq!(Isa::choose(Some(isa.name())), Ok(*isa));
        }
        assert_eq!(Isa::choose(None).unwrap(), *all.last().unwrap());
        eprintln!("ISAs on this machine: {all:?}");
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_what_there_is() {
        let error = Isa::choose(Some("mmx")).unwrap_err().to_string();
        assert!(error.contains("HUOZI_ISA=mmx") && error.contains("scalar"), "{error}");
    }

    /// `HUOZI_REQUIRE_ISA=avx2,avx512` turns a missing instruction set into a failure instead of a silent skip.
    #[test]
    fn required_isas_are_there() {
        let Ok(required) = std::env::var("HUOZI_REQUIRE_ISA") else { return };
        for name in required.split(',').filter(|n| !n.is_empty()) {
            Isa::choose(Some(name)).unwrap();
        }
    }
}
