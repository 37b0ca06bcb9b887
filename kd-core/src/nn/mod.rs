//! Layers made of [`crate::ops`].
