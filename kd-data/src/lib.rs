//! kd-data (in the making).
