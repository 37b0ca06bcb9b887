//! Trains, tests and asks networks that a JSON file describes, in the format of NeuronBlocks (Gong et al. 2019).
//!
//! ```sh
//! cargo run --release --bin neuronblocks -- check --conf_path FILE.json     # shapes and parameters; needs no data
//! cargo run --release --bin neuronblocks -- train --conf_path FILE.json
//! cargo run --release --bin neuronblocks -- test --conf_path FILE.json
//! cargo run --release --bin neuronblocks -- predict --conf_path FILE.json --predict_mode interactive
//! cargo run --release --bin neuronblocks -- draw --conf_path FILE.json --graph_path graph.svg
//! cargo run --release --bin neuronblocks -- convert --input_path a.tsv --output_path b.tsv --output_scheme bioes
//! ```
//!
//! The flags are the original's, and win over the file. `train` keeps a folder with the weights, the configuration and the
//! dictionaries; started again after a kill it goes on from its checkpoint and ends in the same bytes.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use examples::neuronblocks::auc::Auc;
use examples::neuronblocks::check::Checked;
use examples::neuronblocks::configuration::Configuration;
use examples::neuronblocks::convert::Convert;
use examples::neuronblocks::{flags, session};
use examples::report;

/// Networks from a JSON file.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Train a network
    Train(Box<flags::Train>),
    /// Score a saved network on a file
    Test(flags::Test),
    /// Ask a saved network
    Predict(flags::Predict),
    /// Check a configuration: shapes, numbers of parameters, warnings; its data files need not exist
    Check(Check),
    /// Draw a network as SVG
    Draw(Draw),
    /// Convert tags between IOB, BIO and BIOES
    Convert(Convert),
    /// Area under the curve of a prediction file
    Auc(Auc),
}

#[derive(Debug, clap::Args)]
struct Check {
    /// Configuration in NeuronBlocks' format
    #[arg(long = "conf_path", alias = "conf-path")]
    conf_path: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Draw {
    /// Configuration in NeuronBlocks' format
    #[arg(long = "conf_path", alias = "conf-path")]
    conf_path: PathBuf,
    /// File to write
    #[arg(long = "graph_path", alias = "graph-path")]
    graph_path: PathBuf,
}

fn main() -> Result<()> {
    examples::start()?;
    match Args::parse().command {
        Command::Train(args) => session::train(&args),
        Command::Test(args) => session::test(&args),
        Command::Predict(args) => session::predict(&args),
        Command::Check(args) => {
            Checked::new(&Configuration::read(&args.conf_path)?)?.print();
            Ok(())
        }
        Command::Draw(args) => {
            let configuration = Configuration::read(&args.conf_path)?;
            let title = args.conf_path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let drawn = Checked::new(&configuration)?.draw(&title, configuration.loss());
            report::save_text(&args.graph_path, &drawn)
        }
        Command::Convert(args) => args.run(),
        Command::Auc(args) => {
            println!("AUC is {}", args.value()?);
            Ok(())
        }
    }
}
