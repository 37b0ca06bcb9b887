//! Tags or classifies text with a saved student, one text a line, one JSON object a line.
//!
//! ```sh
//! echo "Ada Lovelace lived in London." | cargo run --release --bin predict -- --model out/conll/student
//! ```

use clap::Parser;
use examples::predict::{PredictArgs, run};

#[derive(Debug, Parser)]
#[command(version, about = "Tag or classify text with a saved student")]
struct Args {
    #[command(flatten)]
    args: PredictArgs,
}

fn main() -> anyhow::Result<()> {
    examples::start()?;
    run(&Args::parse().args)
}
