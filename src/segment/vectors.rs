//! Which instructions the kernels run on: chosen once, or forced, never a matter of the result.
//!
//! Lanes are rows everywhere, so the bits do not depend on the choice; the choice is a matter of speed.

use pulp::{Arch, WithSimd};

/// Instruction sets a kernel can be asked to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernel {
    /// The widest that this processor has.
    #[default]
    Auto,
    /// One value at a time, on any processor.
    Baseline,
    /// 256 bits with fused multiply-add (x86-64-v3).
    Avx2,
    /// 512 bits (x86-64-v4).
    Avx512,
}

/// An instruction set that this processor has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vectors(Arch);

impl Kernel {
    /// Whether this processor can run it.
    pub fn is_available(self) -> bool {
        self.vectors().is_some()
    }

    pub(super) fn vectors(self) -> Option<Vectors> {
        match self {
            Self::Auto => Some(Vectors::detected()),
            Self::Baseline => Some(Vectors(Arch::Scalar)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::try_new().map(|simd| Vectors(Arch::V3(simd))),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::try_new().map(|simd| Vectors(Arch::V4(simd))),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => None,
        }
    }
}

impl Vectors {
    pub(super) fn detected() -> Self {
        Self(Arch::new())
    }

    /// Runs a kernel, or plain code, compiled for the instruction set.
    #[inline]
    pub(super) fn run<Op: WithSimd>(self, op: Op) -> Op::Output {
        self.0.dispatch(op)
    }
}
