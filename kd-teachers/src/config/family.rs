//! The families of encoders and how each calls its things.

/// The families of encoders that are implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// BERT and what keeps its shape: MiniLM, E5, BGE and others (Devlin et al. 2019).
    Bert,
    /// RoBERTa: BERT whose positions start behind the padding's id (Liu et al. 2019).
    Roberta,
    /// XLM-RoBERTa: RoBERTa over a hundred languages (Conneau et al. 2020).
    XlmRoberta,
    /// CamemBERT: RoBERTa over French (Martin et al. 2020).
    Camembert,
    /// DistilBERT: no segments, no dropout after attention (Sanh et al. 2019).
    DistilBert,
    /// ALBERT: layers share their weights, embeddings are narrower than hidden states (Lan et al. 2020).
    Albert,
    /// ELECTRA: embeddings may be narrower than hidden states (Clark et al. 2020).
    Electra,
    /// MPNet: a bias of relative positions in every attention (Song et al. 2020).
    MpNet,
    /// XLNet: relative positions and segments only, no longest sequence (Yang et al. 2019).
    XlNet,
}

/// What a family calls the settings that all have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    pub(super) hidden: &'static str,
    pub(super) layers: &'static str,
    pub(super) heads: &'static str,
    pub(super) intermediate: &'static str,
    pub(super) activation: &'static str,
    pub(super) hidden_dropout: &'static str,
    /// The same key as `hidden_dropout` where there is one dropout for all.
    pub(super) attention_dropout: &'static str,
    pub(super) classifier_dropout: &'static str,
    /// Where a sequence classifier's dropout has a key of its own.
    pub(super) summary_dropout: Option<&'static str>,
}

const BERT_KEYS: Keys = Keys {
    hidden: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    intermediate: "intermediate_size",
    activation: "hidden_act",
    hidden_dropout: "hidden_dropout_prob",
    attention_dropout: "attention_probs_dropout_prob",
    classifier_dropout: "classifier_dropout",
    summary_dropout: None,
};

impl Family {
    /// All of them.
    pub const ALL: [Family; 9] = [
        Family::Bert,
        Family::Roberta,
        Family::XlmRoberta,
        Family::Camembert,
        Family::DistilBert,
        Family::Albert,
        Family::Electra,
        Family::MpNet,
        Family::XlNet,
    ];

    /// The `model_type` of config.json.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::Bert => "bert",
            Family::Roberta => "roberta",
            Family::XlmRoberta => "xlm-roberta",
            Family::Camembert => "camembert",
            Family::DistilBert => "distilbert",
            Family::Albert => "albert",
            Family::Electra => "electra",
            Family::MpNet => "mpnet",
            Family::XlNet => "xlnet",
        }
    }

    /// What the names of transformers' classes begin with.
    pub fn class_prefix(self) -> &'static str {
        match self {
            Family::Bert => "Bert",
            Family::Roberta => "Roberta",
            Family::XlmRoberta => "XLMRoberta",
            Family::Camembert => "Camembert",
            Family::DistilBert => "DistilBert",
            Family::Albert => "Albert",
            Family::Electra => "Electra",
            Family::MpNet => "MPNet",
            Family::XlNet => "XLNet",
        }
    }

    /// What the names of the encoder's tensors begin with in a model with a head; a dot follows.
    pub fn prefix(self) -> &'static str {
        match self {
            Family::Roberta | Family::XlmRoberta | Family::Camembert => "roberta",
            Family::XlNet => "transformer",
            other => other.model_type(),
        }
    }

    /// What the names of the layers' variables begin with; a number follows, in ALBERT that of a group of layers.
    pub fn layers(self) -> &'static str {
        match self {
            Family::DistilBert => "transformer.layer",
            Family::Albert => "encoder.albert_layer_groups",
            Family::XlNet => "layer",
            _ => "encoder.layer",
        }
    }

    /// Whether it is RoBERTa or shaped as it.
    pub fn is_roberta(self) -> bool {
        matches!(self, Family::Roberta | Family::XlmRoberta | Family::Camembert)
    }

    /// Whether it has a table of segments.
    pub(super) fn has_segments(self) -> bool {
        !matches!(self, Family::DistilBert | Family::MpNet | Family::XlNet)
    }

    /// The id of padding where config.json does not say it.
    pub(super) fn padding_id(self) -> u32 {
        match self {
            Family::Roberta | Family::XlmRoberta | Family::Camembert | Family::MpNet => 1,
            Family::XlNet => 5,
            _ => 0,
        }
    }

    pub(super) fn keys(self) -> Keys {
        match self {
            Family::Albert => Keys { classifier_dropout: "classifier_dropout_prob", ..BERT_KEYS },
            Family::DistilBert => Keys {
                hidden: "dim",
                layers: "n_layers",
                heads: "n_heads",
                intermediate: "hidden_dim",
                activation: "activation",
                hidden_dropout: "dropout",
                attention_dropout: "attention_dropout",
                classifier_dropout: "classifier_dropout",
                summary_dropout: Some("seq_classif_dropout"),
            },
            Family::XlNet => Keys {
                hidden: "d_model",
                layers: "n_layer",
                heads: "n_head",
                intermediate: "d_inner",
                activation: "ff_activation",
                hidden_dropout: "dropout",
                attention_dropout: "dropout",
                classifier_dropout: "classifier_dropout",
                summary_dropout: Some("summary_last_dropout"),
            },
            _ => BERT_KEYS,
        }
    }
}
