//! Encoders with a head: what is fine-tuned, and then teaches.
//!
//! | model                  | rows     | head                                              |
//! |------------------------|----------|---------------------------------------------------|
//! | [`TokenTagger`]        | words    | dropout, linear, on the word's first piece        |
//! | [`SequenceClassifier`] | examples | [`Pooling`], dropout, linear                      |
//! | [`Representation`]     | examples | [`Pooling`] alone, for heads of one's own: [`crate::distilled`] |
//!
//! The linear layer's variables are `classifier.weight` (normal, standard deviation 0.02 as in BERT) and `classifier.bias`
//! (0); [`Pooling::Family`] has those of transformers. `from_files` puts a new head on a pretrained encoder: all of the head
//! is drawn but BERT's and ALBERT's pooler, which is loaded where the checkpoint has one ([`HeadOptions::new_pooler`]).
//! `save` and `load` keep the fine-tuned whole in a folder. Transformers reads those of taggers
//! (`AutoModelForTokenClassification`) and of classifiers with the family's own head
//! (`AutoModelForSequenceClassification`), and what it has saved as such is loaded with its head and the names of its
//! classes, here and by `load_files` from the hub.
//!
//! A classifier's logits are those of one class per example, of any number of classes, or the numbers of a regression
//! ([`ProblemType`]); which it is stands in config.json, and the caller chooses the loss that goes with it.
//!
//! ```no_run
//! use candle_core::Device;
//! use kd_core::model::Frozen;
//! use kd_core::ops::packed::Precision;
//! use kd_teachers::heads::{HeadOptions, TokenTagger};
//! use kd_teachers::hub::{HubEnvironment, ModelFiles};
//! let files = ModelFiles::find("intfloat/e5-small", "main", &HubEnvironment::from_env()?)?;
//! let classes = ["O", "B-PER", "I-PER"].map(String::from);
//! let (tagger, variables) = TokenTagger::from_files(&files, &classes, 7, &Device::Cpu, &HeadOptions::default())?;
//! // ... train `variables` ...
//! tagger.save(&variables, &files.tokenizer, "teacher".as_ref())?;
//! let teacher = Frozen::new(tagger.pack(Precision::Int8)?, classes.to_vec()); // or `tagger` itself, in f32
//! # Ok::<(), kd_teachers::Error>(())
//! ```

use candle_core::{DType, Result as TensorResult};
use kd_core::variables::Variables;

use crate::config::{EncoderConfig, ProblemType};
use crate::encoder::{Encoder, Wanted};

mod classifier;
mod head;
mod pooling;
mod representation;
mod tagger;

pub use classifier::SequenceClassifier;
pub use pooling::Pooling;
pub use representation::{Representation, RepresentationOptions};
pub use tagger::TokenTagger;

/// What is not in a checkpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeadOptions {
    /// Use only that many of the checkpoint's layers, the first ones, at least 1; none: all. ALBERT keeps whole groups of
    /// layers that share weights, or a part of the first.
    pub layers: Option<usize>,
    /// Dropout probability before the head, in `[0, 1)`; none: what the checkpoint's config.json says, or its hidden dropout.
    pub head_dropout: Option<f64>,
    /// How a [`SequenceClassifier`] makes one vector of a sequence; a [`TokenTagger`] does not look at it.
    pub pooling: Pooling,
    /// What the outputs of a [`SequenceClassifier`] mean; none: numbers if there is one class, one class per example if
    /// there are more, as in transformers.
    pub problem_type: Option<ProblemType>,
    /// Draw BERT's and ALBERT's pooler anew though the checkpoint has one; of [`Pooling::Family`] only.
    pub new_pooler: bool,
    /// Whether outputs carry all hidden states, for losses that match them.
    pub hidden_states: bool,
    /// Whether outputs carry the attention probabilities of every layer, for losses that match them.
    pub attention: bool,
    /// What the encoder's layers compute in, bf16 or f16, with weights and gradients in f32; none: in f32. See
    /// [`Encoder::computing_in`].
    pub compute: Option<DType>,
}

impl HeadOptions {
    fn wanted(&self) -> Wanted {
        Wanted { hidden: self.hidden_states, attention: self.attention }
    }
}

fn encoder(config: &EncoderConfig, variables: &Variables, options: &HeadOptions) -> TensorResult<Encoder> {
    let encoder = Encoder::new(config, variables.builder())?;
    Ok(match options.compute {
        Some(dtype) => encoder.computing_in(dtype),
        None => encoder,
    })
}
