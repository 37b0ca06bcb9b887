//! What changes with the step: the learning rate, the weights of losses, a temperature.
//!
//! Both kinds are functions of the step alone and hold no state, so a resumed run needs nothing of them.
//!
//! | type              | gives                                    | for                                          |
//! |-------------------|------------------------------------------|----------------------------------------------|
//! | [`Schedule`]      | a factor on the learning rate, `[0, 1]`  | [`TrainerConfig`](crate::trainer::TrainerConfig) |
//! | [`ValueSchedule`] | a value of its own, `from → to`          | weights and temperatures of an [`objective`](crate::objective) |

mod learning_rate;
mod value;

pub use learning_rate::Schedule;
pub use value::{Ramp, ValueSchedule};
