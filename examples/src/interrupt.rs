//! Ctrl-C: the first asks the running program to write a checkpoint and end, the second ends it at once.

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Exit status of a program ended by Ctrl-C, as shells have it: 128 + SIGINT.
pub const EXIT_STATUS: i32 = 130;

/// Installs the handler.
pub fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(EXIT_STATUS);
        }
        eprintln!("\nfinishing this step and writing a checkpoint; Ctrl-C again ends at once");
    })?;
    Ok(())
}

/// Whether Ctrl-C was pressed.
pub fn is_requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// The error that ends a program after Ctrl-C.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted; the same command goes on from the checkpoint")
    }
}

impl std::error::Error for Interrupted {}

/// An [`Interrupted`] error if Ctrl-C was pressed.
pub fn check() -> anyhow::Result<()> {
    if is_requested() { Err(Interrupted.into()) } else { Ok(()) }
}
