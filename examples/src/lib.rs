//! examples (in the making).
