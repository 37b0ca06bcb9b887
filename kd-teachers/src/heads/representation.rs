//! An encoder's first layers as a student without its heads.

use candle_core::{DType, Device, Result as TensorResult, Tensor, bail};
use candle_nn::VarBuilder;
use kd_core::batch::{Rows, Tokens};
use kd_core::model::{Mode, Represent};
use kd_core::ops::packed::Precision;
use kd_core::variables::Variables;

use super::Pooling;
use super::head::FamilyPooler;
use crate::config::EncoderConfig;
use crate::encoder::{Encode, Encoder, PackedEncoder, Wanted};
use crate::error::Result;
use crate::folder;
use crate::hub::ModelFiles;

/// How a [`Representation`] is made of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RepresentationOptions {
    /// Use only that many of the checkpoint's layers, the first ones, at least 1; none: all. ALBERT keeps whole groups of
    /// layers that share weights, or a part of the first.
    pub layers: Option<usize>,
    /// How it makes one vector of a sequence.
    pub pooling: Pooling,
    /// Draw BERT's and ALBERT's pooler anew though the checkpoint has one; of [`Pooling::Family`] only.
    pub new_pooler: bool,
    /// What the layers compute in, bf16 or f16, with weights and gradients in f32; none: in f32. See
    /// [`Encoder::computing_in`].
    pub compute: Option<DType>,
}

impl Default for RepresentationOptions {
    /// All layers and the family's own pooler, from the checkpoint if it has one: the `h_1` of Yang et al. 2020, §3.2, whose
    /// numbers of parameters include the pooler.
    fn default() -> Self {
        Self { layers: None, pooling: Pooling::Family, new_pooler: false, compute: None }
    }
}

/// The first layers of an encoder and a pooling: one vector per example, for heads of one's own.
///
/// ```no_run
/// use candle_core::Device;
/// use kd_core::nn::{HeadPerTeacher, HeadsOf};
/// use kd_teachers::heads::{Representation, RepresentationOptions};
/// use kd_teachers::hub::{HubEnvironment, ModelFiles};
/// let files = ModelFiles::find("intfloat/e5-small", "main", &HubEnvironment::from_env()?)?;
/// let options = RepresentationOptions { layers: Some(3), ..Default::default() };
/// let (body, variables) = Representation::from_files(&files, 7, &Device::Cpu, &options)?;
/// let set = HeadsOf { name: "wikiqa".to_string(), classes: 2, teachers: 3, gold: true };
/// let student = HeadPerTeacher::new(body, vec![set], true, 0.1, variables.builder())?;
/// # Ok::<(), kd_teachers::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Representation<E = Encoder> {
    encoder: E,
    pooler: Pooler,
}

/// A pooling and the variables it has.
#[derive(Debug, Clone)]
enum Pooler {
    Plain(Pooling),
    Family(FamilyPooler),
}

impl Representation {
    /// A representation of the variables below `vb`; those that do not exist yet are drawn.
    ///
    /// # Errors
    /// If `options` ask for more layers than `config` has, or a variable of `vb` has another shape.
    pub fn new(config: &EncoderConfig, options: &RepresentationOptions, vb: VarBuilder) -> Result<Self> {
        let config = folder::first_layers(config, options.layers)?;
        let pooler = match options.pooling {
            Pooling::Family => Pooler::Family(FamilyPooler::new(&config, &vb)?),
            plain => Pooler::Plain(plain),
        };
        let encoder = Encoder::new(&config, vb)?;
        let encoder = match options.compute {
            Some(dtype) => encoder.computing_in(dtype),
            None => encoder,
        };
        Ok(Self { encoder, pooler })
    }

    /// The first layers of a pretrained encoder, and the variables of it. A pooler that the checkpoint does not have is drawn
    /// from `seed`, and so is what else is asked of the variables' builder: the heads.
    ///
    /// # Errors
    /// If the files do not fit the model they describe, or it has fewer layers than asked for.
    pub fn from_files(
        files: &ModelFiles,
        seed: u64,
        device: &Device,
        options: &RepresentationOptions,
    ) -> Result<(Self, Variables)> {
        folder::pretrained(files, seed, device, (options.layers, options.new_pooler), |config, variables| {
            Self::new(config, options, variables.builder())
        })
    }

    /// A copy for inference whose encoder is packed in `precision` ([`Encoder::pack`]); the pooler stays in f32.
    ///
    /// # Errors
    /// As [`Encoder::pack`].
    pub fn pack(&self, precision: Precision) -> TensorResult<Representation<PackedEncoder>> {
        let pooler = match &self.pooler {
            Pooler::Plain(pooling) => Pooler::Plain(*pooling),
            Pooler::Family(pooler) => Pooler::Family(pooler.copy()?),
        };
        Ok(Representation { encoder: self.encoder.pack(precision)?, pooler })
    }
}

impl<E> Representation<E> {
    /// The encoder.
    pub fn encoder(&self) -> &E {
        &self.encoder
    }

    /// How it makes one vector of a sequence.
    pub fn pooling(&self) -> Pooling {
        match &self.pooler {
            Pooler::Plain(pooling) => *pooling,
            Pooler::Family(_) => Pooling::Family,
        }
    }
}

impl<E: Encode> Represent for Representation<E> {
    fn width(&self) -> usize {
        self.encoder.config().hidden
    }

    fn represent(&self, tokens: &Tokens, mode: Mode) -> TensorResult<Tensor> {
        if !matches!(tokens.rows, Rows::Examples) {
            bail!("an encoder under a pooling represents examples, and these tokens have a row per word");
        }
        if tokens.second.is_some() {
            bail!("the encoder reads one sequence, and these tokens have a second one that is encoded apart");
        }
        let hidden = self.encoder.encode(&tokens.first, mode.site(0), Wanted::default())?.last;
        match &self.pooler {
            Pooler::Plain(pooling) => pooling.pool(&hidden, &tokens.first),
            Pooler::Family(pooler) => pooler.pool(&hidden, &tokens.first, mode.site(1)),
        }
    }
}
