//! kd-bench (in the making).
