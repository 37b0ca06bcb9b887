//! Which layer of a student learns from which layer of its teacher.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A map from student layers to teacher layers, as a setting.
///
/// Layers are counted as in [`Output::hidden`](crate::model::Output): 0 is the embeddings, 1 the first layer. With `M`
/// layers of the student and `N` of the teacher:
///
/// | JSON                              | pairs (student, teacher)                    | embeddings    |
/// |-----------------------------------|---------------------------------------------|---------------|
/// | `"uniform"`                       | `(m, m · N / M)` for m = 1..M               | not mapped    |
/// | `"uniform_with_embeddings"`       | the same for m = 0..M (Jiao et al. 2020, §3) | `(0, 0)`     |
/// | `"last"`                          | `(m, N - M + m)` for m = 1..M               | not mapped    |
/// | `{"explicit": [[0, 0], [2, 12]]}` | those                                       | where listed  |
///
/// ```
/// use kd_core::losses::LayerMap;
/// assert_eq!(LayerMap::Uniform.pairs(3, 12)?, [(1, 4), (2, 8), (3, 12)]);
/// assert_eq!(LayerMap::Last.pairs(3, 12)?, [(1, 10), (2, 11), (3, 12)]);
/// let map: LayerMap = serde_json::from_str(r#"{"explicit": [[0, 0], [2, 12]]}"#).map_err(std::io::Error::other)?;
/// assert_eq!(map.pairs(3, 12)?, [(0, 0), (2, 12)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LayerMap {
    /// Evenly spaced over the teacher, its last layer for the student's last.
    Uniform,
    /// The same, and the embeddings for the embeddings.
    UniformWithEmbeddings,
    /// The teacher's last layers, in order.
    Last,
    /// Pairs of (student layer, teacher layer).
    Explicit(Vec<(usize, usize)>),
}

impl LayerMap {
    /// The pairs (student, teacher) for models of these numbers of layers, embeddings not counted.
    ///
    /// # Errors
    /// If a model has no layers, `uniform` does not come out even, `last` has more layers in the student than in the
    /// teacher, or a listed pair is out of range or stands there twice, or none is listed.
    pub fn pairs(&self, student_layers: usize, teacher_layers: usize) -> Result<Vec<(usize, usize)>> {
        let wrong = |expected, found: String| {
            let of = format!("{found}, for {student_layers} student layers and {teacher_layers} teacher layers");
            Err(Error::Config { field: "layer map", expected, found: of })
        };
        if student_layers == 0 || teacher_layers == 0 {
            return wrong("models with layers", "a model without".to_string());
        }
        match self {
            LayerMap::Uniform | LayerMap::UniformWithEmbeddings => {
                if !teacher_layers.is_multiple_of(student_layers) {
                    let expected = "teacher layers that are a multiple of the student's for a uniform map";
                    return wrong(expected, "a remainder".to_string());
                }
                let first = usize::from(*self == LayerMap::Uniform);
                let step = teacher_layers / student_layers;
                Ok((first..=student_layers).map(|layer| (layer, layer * step)).collect())
            }
            LayerMap::Last => match teacher_layers.checked_sub(student_layers) {
                Some(skipped) => Ok((1..=student_layers).map(|layer| (layer, layer + skipped)).collect()),
                None => wrong("no more layers in the student than in the teacher", "more".to_string()),
            },
            LayerMap::Explicit(pairs) => {
                if pairs.is_empty() {
                    return wrong("at least one pair", "none".to_string());
                }
                for (idx, &(student, teacher)) in pairs.iter().enumerate() {
                    let found = format!("pair {idx} (from 0), ({student}, {teacher})");
                    if student > student_layers {
                        return wrong("student layers from 0, the embeddings, to the number of layers", found);
                    }
                    if teacher > teacher_layers {
                        return wrong("teacher layers from 0, the embeddings, to the number of layers", found);
                    }
                    if pairs[..idx].contains(&(student, teacher)) {
                        return wrong("each pair once", format!("{found} again"));
                    }
                }
                Ok(pairs.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_and_last_maps() {
        assert_eq!(LayerMap::Uniform.pairs(2, 4).unwrap(), [(1, 2), (2, 4)]);
        assert_eq!(LayerMap::UniformWithEmbeddings.pairs(2, 4).unwrap(), [(0, 0), (1, 2), (2, 4)]);
        assert_eq!(LayerMap::Uniform.pairs(3, 3).unwrap(), LayerMap::Last.pairs(3, 3).unwrap());
        assert_eq!(LayerMap::Last.pairs(1, 4).unwrap(), [(1, 4)]);
    }

    #[test]
    fn a_setting_comes_back_from_json() {
        let explicit = LayerMap::Explicit(vec![(0, 0), (1, 12)]);
        for (map, json) in [
            (LayerMap::Uniform, r#""uniform""#),
            (LayerMap::UniformWithEmbeddings, r#""uniform_with_embeddings""#),
            (LayerMap::Last, r#""last""#),
            (explicit, r#"{"explicit":[[0,0],[1,12]]}"#),
        ] {
            assert_eq!(serde_json::to_string(&map).unwrap(), json);
            assert_eq!(serde_json::from_str::<LayerMap>(json).unwrap(), map);
        }
        assert!(serde_json::from_str::<LayerMap>(r#""first""#).unwrap_err().to_string().contains("first"));
        assert!(serde_json::from_str::<LayerMap>(r#"{"explicit":[[0,0]],"last":null}"#).is_err());
    }

    #[test]
    fn errors_name_what_is_out_of_range() {
        let message = |map: LayerMap, student, teacher| map.pairs(student, teacher).unwrap_err().to_string();
        let explicit = |pairs: &[(usize, usize)]| LayerMap::Explicit(pairs.to_vec());
        for (message, parts) in [
            (message(LayerMap::Uniform, 5, 12), ["multiple", "5 student layers and 12 teacher layers"]),
            (message(LayerMap::Uniform, 24, 12), ["multiple", "24 student layers"]),
            (message(LayerMap::Last, 6, 4), ["no more layers in the student", "6 student layers"]),
            (message(LayerMap::Last, 0, 4), ["models with layers", "0 student layers"]),
            (message(explicit(&[]), 2, 4), ["at least one pair", "none"]),
            (message(explicit(&[(2, 4), (3, 1)]), 2, 4), ["student layers", "pair 1 (from 0), (3, 1)"]),
            (message(explicit(&[(1, 5)]), 2, 4), ["expected teacher layers", "(1, 5)"]),
            (message(explicit(&[(1, 4), (1, 4)]), 2, 4), ["each pair once", "(1, 4) again"]),
        ] {
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}
