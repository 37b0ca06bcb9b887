//! kd-students (in the making).
