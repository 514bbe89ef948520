//! Numbers, durations, dates and JSON as servers write them. Each function is total: any input has an outcome.

pub(super) mod date;
pub(super) mod duration;
pub(super) mod json;
pub(super) mod number;
pub(super) mod time_unit;
