//! [`go_duration`]: durations in Go's format, which OpenAI uses.

use std::fmt::Write as _;
use std::time::Duration;

/// Formats a duration as Go's `Duration.String` does: `494ms`, `1m0.052s`, `6m0s`, `1h0m0s`.
///
/// ```
/// use std::time::Duration;
/// use tower_429_testing::go_duration;
///
/// assert_eq!(go_duration(Duration::from_millis(60_052)), "1m0.052s");
/// ```
#[must_use]
pub fn go_duration(span: Duration) -> String {
    let nanos = span.as_nanos();
    match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => return decimal(nanos, 3) + "µs",
        1_000_000..1_000_000_000 => return decimal(nanos, 6) + "ms",
        _ => {}
    }
    let (hours, minutes) = (span.as_secs() / 3_600, span.as_secs() / 60 % 60);
    let mut text = String::new();
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    text + &decimal(nanos % 60_000_000_000, 9) + "s"
}

/// Formats `value` with the decimal point moved `digits` to the left, without trailing zeros.
fn decimal(value: u128, digits: u32) -> String {
    let unit = 10_u128.pow(digits);
    let fraction = format!("{:0width$}", value % unit, width = digits as usize);
    match fraction.trim_end_matches('0') {
        "" => (value / unit).to_string(),
        fraction => format!("{}.{fraction}", value / unit),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_read_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5µs"),
            (494_000_000, "494ms"),
            (494_020_000, "494.02ms"),
            (1_000_000_000, "1s"),
            (1_200_000_000, "1.2s"),
            (60_052_000_000, "1m0.052s"),
            (360_000_000_000, "6m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_061_000_000_001, "25h1m1.000000001s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }

    proptest! {
        #[test]
        fn every_duration_has_a_text_and_its_seconds_add_up(secs: u64, nanos in 0..1_000_000_000_u32) {
            let text = go_duration(Duration::new(secs, nanos));
            if secs > 0 {
                let (hours, rest) = text.split_once('h').unwrap_or(("0", &text));
                let (minutes, rest) = rest.split_once('m').unwrap_or(("0", rest));
                let rest = rest.strip_suffix('s').unwrap();
                let whole = rest.split('.').next().unwrap();
                let sum = hours.parse::<u64>().unwrap() * 3_600
                    + minutes.parse::<u64>().unwrap() * 60
                    + whole.parse::<u64>().unwrap();
                prop_assert_eq!(sum, secs);
            }
        }
    }
}
