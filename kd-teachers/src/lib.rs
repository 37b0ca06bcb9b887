//! kd-teachers (in the making).
