//! kd-rl (in the making).
