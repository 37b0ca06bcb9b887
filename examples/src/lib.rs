//! What the recipes share: the command line's device and threads, progress, Ctrl-C, tables and plots.
//!
//! Nothing here knows a model or a loss; a part that a trainer elsewhere would want lives in one of the crates.

pub mod device;
pub mod fine_tune;
pub mod folder;
pub mod intents;
pub mod interrupt;
pub mod labelling;
pub mod model_files;
pub mod multi_teacher;
pub mod neuronblocks;
pub mod plot;
pub mod predict;
pub mod progress;
pub mod report;
pub mod tagging;
pub mod weighting;

/// The allocator of every program here.
///
/// A training step frees and takes hundreds of megabytes; an allocator that gives them back to the system makes the
/// kernel clear the same pages again at every step. [`start`] tells this one to keep them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Call first in `main`: freed pages stay with the process, and Ctrl-C asks for a checkpoint instead of killing.
pub fn start() -> anyhow::Result<()> {
    keep_freed_pages();
    interrupt::install()
}

/// mimalloc's `mi_option_purge_delay`, in milliseconds; -1 is never. libmimalloc-sys has no name for it.
const PURGE_DELAY: i32 = 15;

fn keep_freed_pages() {
    // SAFETY: sets one option of the allocator by its number from mimalloc.h; any value is allowed at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) }
}
