//! The one list of instruction sets, and the choice of one at run time.
//!
//! From the list follow what this CPU offers and what `HUOZI_ISA` may name ([`Isa`]), and the code that is
//! compiled for each: kernels ([`Features`], `with_unit!`), attention (`with_vectors!`) and plain loops
//! (`multiversion!`).

use super::unit::{Features, Job, Unit};
use super::vector::Vector;
use std::fmt;

/// Whether this CPU has features of its architecture.
macro_rules! detected {
    () => { true };
    ("x86_64" $($feature:tt)+) => { $(std::arch::is_x86_feature_detected!($feature))&&+ };
    ("aarch64" $($feature:tt)+) => { $(std::arch::is_aarch64_feature_detected!($feature))&&+ };
}

/// Whether the last word of a row says that the ISA is chosen. Any other word does not compile.
macro_rules! chosen {
    (chosen) => {
        true
    };
    (named) => {
        false
    };
}

/// The list. `$d` is a dollar sign, for the macros that it defines.
macro_rules! isas {
    ($d:tt $(
        $(#[doc = $doc:literal])*
        $name:ident $variant:ident $(on $arch:tt with [$($feature:tt)*])?,
        unit $unit:path, loops of $loops:ident, $chosen:ident;
    )*) => {
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Level {
            $($(#[doc = $doc])* $(#[cfg(target_arch = $arch)])? $variant,)*
        }

        /// The unit of each ISA by the name of the ISA.
        #[allow(non_camel_case_types, reason = "ISAs as HUOZI_ISA names them")]
        pub(crate) mod units {
            $($(#[cfg(target_arch = $arch)])? pub(crate) type $name = $unit;)*
        }

        $($(#[cfg(target_arch = $arch)])?
        impl Features for units::$name {
            #[inline(always)]
            unsafe fn run<J: Job>(job: J) -> J::Output {
                $($(#[target_feature(enable = $feature)])*)?
                unsafe fn compiled<J: Job>(job: J) -> J::Output {
                    // SAFETY: this function enables the features; the rest is the caller's promise.
                    unsafe { job.run() }
                }
                // SAFETY: the caller says that the CPU has the features.
                unsafe { compiled(job) }
            }
        })*

        /// The rows for every architecture.
        #[cfg(test)]
        const ROWS: &[Row] = &[$(Row {
            name: stringify!($name),
            arch: &[$($arch)?],
            features: &[$($($feature),*)?],
            loops: stringify!($loops),
        },)*];

        impl Isa {
            /// Every instruction set that `HUOZI_ISA` may name on this CPU, lowest first: also the references
            /// that are never chosen.
            pub fn all() -> Vec<Self> {
                let mut all = Vec::new();
                $($(#[cfg(target_arch = $arch)])?
                if detected!($($arch $($feature)*)?) {
                    all.push(Self(Level::$variant));
                })*
                all
            }

            /// The name as `HUOZI_ISA` takes it.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($(#[cfg(target_arch = $arch)])? Level::$variant => stringify!($name),)*
                }
            }

            /// Whether it is chosen where `HUOZI_ISA` names none.
            const fn is_chosen(self) -> bool {
                match self.0 {
                    $($(#[cfg(target_arch = $arch)])?
                    Level::$variant => chosen!($chosen),)*
                }
            }
        }

        /// `$body` with `$u` as the unit of an ISA.
        macro_rules! with_unit {
            ($d isa:expr, $d u:ident => $d body:expr) => {
                match $d isa.level() {
                    $($(#[cfg(target_arch = $arch)])?
                    $crate::kernels::isa::Level::$variant => {
                        type $d u = $crate::kernels::isa::units::$name;
                        $d body
                    })*
                }
            };
        }
        pub(crate) use with_unit;

        /// `$body` with `$u` as a unit that has the vectors of an ISA: the one that plain loops are compiled
        /// for.
        macro_rules! with_vectors {
            ($d isa:expr, $d u:ident => $d body:expr) => {
                match $d isa.level() {
                    $($(#[cfg(target_arch = $arch)])?
                    $crate::kernels::isa::Level::$variant => {
                        type $d u = $crate::kernels::isa::units::$loops;
                        $d body
                    })*
                }
            };
        }
        pub(crate) use with_vectors;

        /// Defines `fn name(isa: Isa, ...)` that runs the `#[inline(always)]` function `body` compiled for
        /// that ISA.
        macro_rules! multiversion {
            (
                $d(#[$d meta:meta])*
                $d vis:vis fn $d f:ident($d($d arg:ident: $d ty:ty),* $d(,)?) $d(-> $d ret:ty)?
                    = $d body:path;
            ) => {
                $d(#[$d meta])*
                $d vis fn $d f(isa: $crate::kernels::Isa, $d($d arg: $d ty),*) $d(-> $d ret)? {
                    $($(#[cfg(target_arch = $arch)])?
                    #[allow(dead_code, reason = "ISAs share loops")]
                    $($(#[target_feature(enable = $feature)])*)?
                    unsafe fn $name($d($d arg: $d ty),*) $d(-> $d ret)? {
                        $d body($d($d arg),*)
                    })*
                    match isa.level() {
                        $($(#[cfg(target_arch = $arch)])?
                        // SAFETY: an `Isa` of this level exists only where `Isa::all` detected its features,
                        // those of the loops among them: a test compares the lists of each row.
                        $crate::kernels::isa::Level::$variant => unsafe { $loops($d($d arg),*) },)*
                    }
                }
            };
        }
        pub(crate) use multiversion;
    };
}

// Lowest first. A row: the name that HUOZI_ISA takes; for which architecture and features it is compiled; the
// unit that multiplies matrices; whose vectors and features loops, encoders and attention are compiled for
// (its own, or those of an ISA before it that has no fewer); `chosen`, or `named` for one that is run only
// where HUOZI_ISA names it.
isas! { $
    /// What the architecture guarantees: SSE2 on x86-64, NEON on AArch64.
    scalar Scalar, unit crate::kernels::scalar::Scalar, loops of scalar, chosen;
    /// Four lanes, portable: the reference for NEON.
    portable4 Portable4, unit crate::kernels::portable4::Portable4, loops of scalar, named;
    /// Four lanes and products of two rows with two columns, portable: the reference for i8mm.
    portable2x8 Portable2x8, unit crate::kernels::portable2x8::Portable2x8, loops of scalar, named;
    /// With FMA and F16C.
    avx2 Avx2 on "x86_64" with ["avx2" "fma" "f16c"],
        unit crate::kernels::avx2::Avx2, loops of avx2, chosen;
    /// AVX2 and the 256-bit form of VNNI.
    avxvnni AvxVnni on "x86_64" with ["avx2" "fma" "f16c" "avxvnni"],
        unit crate::kernels::avx2::AvxVnni, loops of avx2, chosen;
    /// F, BW, DQ and VL.
    avx512 Avx512 on "x86_64" with ["avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512dq" "avx512vl"],
        unit crate::kernels::avx512::Avx512, loops of avx512, chosen;
    /// AVX-512 and VNNI.
    avx512vnni Avx512Vnni
        on "x86_64" with ["avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni"],
        unit crate::kernels::avx512::Avx512Vnni, loops of avx512, chosen;
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

    /// Every instruction set of this CPU that may be chosen, lowest first.
    pub fn available() -> Vec<Self> {
        Self::all().into_iter().filter(|isa| isa.is_chosen()).collect()
    }

    /// The best instruction set of this CPU.
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::SCALAR)
    }

    /// The best instruction set, or the one asked for by name.
    ///
    /// # Errors
    /// When `asked` is unknown or this CPU lacks it.
    pub fn choose(asked: Option<&str>) -> Result<Self, IsaError> {
        let Some(name) = asked else { return Ok(Self::best()) };
        let named = Self::all().into_iter().find(|isa| isa.name().eq_ignore_ascii_case(name));
        named.ok_or_else(|| IsaError {
            asked: name.to_owned(),
            available: Self::available().iter().map(|isa| isa.name()).collect(),
        })
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

    /// The class of instruction sets that compute the same bits as this one. Products of integer formats and
    /// small loops are equal everywhere on an architecture; attention is equal where multiply-add rounds
    /// once, and where it rounds twice. `dense`: the model has matrices of F32, F16 or BF16, whose sums also
    /// depend on the number of lanes.
    pub fn bits_class(self, dense: bool) -> String {
        let fused = with_vectors!(self, U => <<U as Unit>::V as Vector>::FUSED);
        let lanes = with_unit!(self, U => <<U as Unit>::V as Vector>::LANES);
        let rounding = if fused { "fused" } else { "separate" };
        let lanes = if dense { format!("-{lanes}") } else { String::new() };
        format!("{}-{rounding}{lanes}", std::env::consts::ARCH)
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

/// What a row of the list says of features.
#[cfg(test)]
struct Row {
    name: &'static str,
    /// Its architecture, if it is for one only.
    arch: &'static [&'static str],
    features: &'static [&'static str],
    /// The name of the row whose features the loops are compiled for.
    loops: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_need_no_feature_that_their_isa_lacks() {
        for row in ROWS {
            let loops = ROWS.iter().find(|loops| loops.name == row.loops).unwrap();
            let missing: Vec<_> = loops.features.iter().filter(|f| !row.features.contains(f)).collect();
            assert!(missing.is_empty(), "{} with the loops of {} lacks {missing:?}", row.name, loops.name);
            assert!(loops.arch.is_empty() || loops.arch == row.arch, "{} on {:?}", row.name, row.arch);
        }
    }

    #[test]
    fn scalar_is_always_there_and_names_are_taken_back() {
        let all = Isa::all();
        assert_eq!(all[0], Isa::SCALAR);
        for isa in &all {
            assert_eq!(Isa::choose(Some(isa.name())), Ok(*isa));
        }
        assert_eq!(Isa::choose(None).unwrap(), *Isa::available().last().unwrap());
        eprintln!("ISAs on this machine: {all:?}");
    }

    #[test]
    fn references_are_run_only_where_they_are_named() {
        let available = Isa::available();
        for name in ["portable4", "portable2x8"] {
            let isa = Isa::choose(Some(name)).unwrap();
            assert!(!available.contains(&isa) && Isa::best() != isa, "{isa}");
        }
    }

    #[test]
    fn classes_tell_rounding_and_for_floats_lanes() {
        for isa in Isa::available() {
            let (integers, floats) = (isa.bits_class(false), isa.bits_class(true));
            assert!(floats.starts_with(&format!("{integers}-")), "{isa}: {integers}, {floats}");
        }
        #[cfg(target_arch = "x86_64")]
        for [a, b] in [["avx2", "avxvnni"], ["avx512", "avx512vnni"], ["avx2", "avx512vnni"]] {
            let [Ok(a), Ok(b)] = [a, b].map(|name| Isa::choose(Some(name))) else { continue };
            assert_eq!(a.bits_class(false), b.bits_class(false));
            assert_ne!(a.bits_class(false), Isa::SCALAR.bits_class(false));
            let narrow = |isa: Isa| isa.name().starts_with("avx2") || isa.name().starts_with("avxv");
            assert_eq!(a.bits_class(true) == b.bits_class(true), narrow(a) == narrow(b));
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_what_there_is() {
        let error = Isa::choose(Some("mmx")).unwrap_err().to_string();
        assert!(error.contains("HUOZI_ISA=mmx") && error.contains("scalar"), "{error}");
    }

    /// `HUOZI_REQUIRE_ISA=avx2,avx512` turns a missing instruction set into a failure instead of a silent
    /// skip.
    #[test]
    fn required_isas_are_there() {
        let Ok(required) = std::env::var("HUOZI_REQUIRE_ISA") else { return };
        for name in required.split(',').filter(|n| !n.is_empty()) {
            Isa::choose(Some(name)).unwrap();
        }
    }
}
