//! Which instructions this machine has, and the tiles made of them.

use super::tile::{MOST_ROWS, Tile};

type Kernel = unsafe fn(&Tile);

/// The tiles of one instruction set.
pub(super) struct Level {
    /// Values of a vector; a panel is two vectors wide.
    pub(super) lanes: usize,
    /// Tallest tile over one panel.
    pub(super) most_rows: usize,
    /// By number of panels (1, 2, 4), packed or not, and rows: `kernels[i][packed][rows - 1]`.
    kernels: [[&'static [Kernel]; 2]; 3],
}

impl Level {
    /// The best that this machine can run; none where there are no tiles, and the `gemm` crate does the work.
    pub(super) fn best() -> Option<&'static Self> {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Some(&x86::AVX512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Some(&x86::AVX2);
            }
        }
        None
    }

    /// All that this machine can run.
    #[cfg(test)]
    pub(super) fn all() -> Vec<&'static Self> {
        let mut levels: Vec<_> = Self::best().into_iter().collect();
        #[cfg(target_arch = "x86_64")]
        if levels.first().is_some_and(|level| level.lanes == 16) && is_x86_feature_detected!("avx2") {
            levels.push(&x86::AVX2);
        }
        levels
    }

    /// Columns of a panel.
    pub(super) fn width(&self) -> usize {
        2 * self.lanes
    }

    /// The tile for `rows` rows and the most panels that the registers hold, up to `panels`; and that number.
    pub(super) fn kernel(&self, rows: usize, panels: usize, packed: bool) -> (Kernel, usize) {
        for (by_rows, together) in self.kernels.iter().zip([1, 2, 4]).rev() {
            if together <= panels && rows <= by_rows[0].len() {
                return (by_rows[usize::from(packed)][rows - 1], together);
            }
        }
        unreachable!("a tile has 1 to {MOST_ROWS} rows and at least one panel, found {rows} and {panels}")
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::simd::{Avx2, Avx512};
    use super::super::tile::{self, Tile};
    use super::{Kernel, Level};

    macro_rules! level {
        ($level:ident, $run:ident, $simd:ty, $features:literal, $most:literal, $lanes:literal,
            [$($one:literal)*], [$($two:literal)*], [$($four:literal)*]) => {
            #[target_feature(enable = $features)]
            unsafe fn $run<const ROWS: usize, const PANELS: usize, const PACKED: bool>(tile: &Tile) {
                // SAFETY: the caller's promises are those of `tile::run`.
                unsafe { tile::run::<$simd, ROWS, PANELS, PACKED>(tile) }
            }

            pub(super) static $level: Level = Level {
                lanes: $lanes,
                most_rows: $most,
                kernels: [
                    [&[$($run::<$one, 1, false> as Kernel),*], &[$($run::<$one, 1, true> as Kernel),*]],
                    [&[$($run::<$two, 2, false> as Kernel),*], &[$($run::<$two, 2, true> as Kernel),*]],
                    [&[$($run::<$four, 4, false> as Kernel),*], &[$($run::<$four, 4, true> as Kernel),*]],
                ],
            };
        };
    }

    level!(AVX512, run512, Avx512, "avx512f", 14, 16, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], [1 2 3 4 5 6], [1 2 3]);
    level!(AVX2, run2, Avx2, "avx2,fma", 6, 8, [1 2 3 4 5 6], [1 2], [1]);
}
