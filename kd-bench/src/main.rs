//! `kd-bench table`: our time, PyTorch's and the ratio, for every operation and model that this workspace exists for.
//!
//! ```sh
//! cargo run --release -p kd-bench -- table --python venv/bin/python --json table.json
//! ```

mod table;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The allocator of the programs in `examples`, and of this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `mi_option_purge_delay`, in milliseconds; -1 is never. libmimalloc-sys has no name for it.
const PURGE_DELAY: i32 = 15;

/// Measurements of this workspace's kernels and models.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Time everything against PyTorch, in turns
    Table(table::TableArgs),
    /// Measure the rows of one number of threads, for `table`
    #[command(hide = true)]
    Measure(table::MeasureArgs),
    /// Print the peak memory of one row's calls, for `table`
    #[command(hide = true)]
    Memory { row: String },
}

fn main() -> Result<()> {
    // SAFETY: sets one option of the allocator by its number from mimalloc.h; any value is allowed at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) }
    match Args::parse().command {
        Command::Table(args) => table::run(&args),
        Command::Measure(args) => table::measure(&args),
        Command::Memory { row } => table::memory(&row),
    }
}
