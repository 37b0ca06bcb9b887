//! Checks for tests of layers.
