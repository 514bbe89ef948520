//! Parsers for numbers, durations, dates and JSON as servers write them. Each function accepts any input without a
//! panic.

pub(super) mod date;
pub(super) mod duration;
pub(super) mod json;
pub(super) mod number;
pub(super) mod time_unit;
