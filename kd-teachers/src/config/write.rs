//! To config.json.

use serde_json::{Map, Value, json};

use super::read::{ACTIVATIONS, PROBLEM_TYPES};
use super::{EncoderConfig, Family};

impl EncoderConfig {
    /// A config.json that transformers reads too, of a model with a head over `classes`.
    pub fn to_json(&self, architecture: &str, classes: &[String]) -> Value {
        let (family, keys) = (self.family, self.family.keys());
        let id2label: Map<String, Value> =
            classes.iter().enumerate().map(|(idx, name)| (idx.to_string(), json!(name))).collect();
        let label2id: Map<String, Value> =
            classes.iter().enumerate().map(|(idx, name)| (name.clone(), json!(idx))).collect();
        let activation = ACTIVATIONS.iter().find(|(activation, _)| *activation == self.activation);
        let problem_type = PROBLEM_TYPES.iter().find(|(kind, _)| Some(*kind) == self.problem_type);
        let mut value = json!({
            "architectures": [architecture],
            "model_type": family.model_type(),
            "vocab_size": self.vocabulary,
            "pad_token_id": self.padding_id,
            "initializer_range": self.initializer_range,
            "id2label": id2label,
            "label2id": label2id,
            "problem_type": problem_type.map(|(_, name)| name),
        });
        let mut set = |key: &str, set: Value| value[key] = set;
        set(keys.hidden, json!(self.hidden));
        set(keys.layers, json!(self.layers));
        set(keys.heads, json!(self.heads));
        set(keys.intermediate, json!(self.intermediate));
        set(keys.activation, json!(activation.map(|(_, names)| names[0])));
        set(keys.attention_dropout, json!(self.attention_dropout));
        set(keys.hidden_dropout, json!(self.hidden_dropout));
        set(keys.classifier_dropout, json!(self.classifier_dropout));
        if let (Some(key), Some(p)) = (keys.summary_dropout, self.summary_dropout) {
            set(key, json!(p));
        }
        if family != Family::XlNet {
            set("max_position_embeddings", json!(self.max_positions + self.first_position));
        }
        if family != Family::DistilBert {
            set("layer_norm_eps", json!(self.layer_norm_eps));
        }
        if family.has_segments() {
            set("type_vocab_size", json!(self.segments));
            set("position_embedding_type", json!("absolute"));
        }
        match family {
            Family::DistilBert => set("sinusoidal_pos_embds", json!(false)),
            Family::Albert => {
                set("embedding_size", json!(self.embedding_width()));
                set("num_hidden_groups", json!(self.groups));
                set("inner_group_num", json!(1));
            }
            Family::Electra => set("embedding_size", json!(self.embedding_width())),
            Family::MpNet => set("relative_attention_num_buckets", json!(self.relative_buckets)),
            Family::XlNet => {
                set("d_head", json!(self.hidden / self.heads));
                set("clamp_len", self.clamp_len.map_or(json!(-1), |len| json!(len)));
                set("attn_type", json!("bi"));
            }
            _ => {}
        }
        value
    }
}
