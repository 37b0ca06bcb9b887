//! Networks from a JSON file, in the format of NeuronBlocks (Gong et al. 2019, "NeuronBlocks: Building your NLP DNN models
//! like playing Lego"): the program `neuronblocks` behind its command line.
//!
//! ```text
//! FILE.json --read strictly--> Configuration --plan--> shapes, before any tensor --data--> vocabularies --build--> Network
//!                                                                                   `--encode--> batches --Trainer--'
//! ```

pub mod answers;
pub mod auc;
pub mod blueprint;
pub mod check;
pub mod claim;
pub mod configuration;
pub mod convert;
pub mod design;
pub mod dictionaries;
pub mod draw;
pub mod encoded;
pub mod encoder_block;
pub mod evaluation;
pub mod flags;
pub mod heads;
pub mod model;
pub mod pairing;
pub mod reader;
pub mod session;
pub mod teachers;
pub mod word_vectors;
