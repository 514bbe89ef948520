//! Units of time, and the names that servers use for them.

use std::time::Duration;

use crate::classify::parse::number::Number;

/// The longest delay that is reported: 100 years. Adding it to a clock does not overflow.
pub(crate) const MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A unit of time: a number of seconds, or a fraction of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds(u64),
    Of(u64),
}

pub(crate) const SECOND: Unit = Unit::Seconds(1);
pub(crate) const MILLISECOND: Unit = Unit::Of(1000);

impl Number {
    pub(crate) fn seconds(self) -> Duration {
        self.of(SECOND)
    }

    /// Returns this many units as a duration, rounded up to a nanosecond.
    pub(crate) fn of(self, unit: Unit) -> Duration {
        let billionths = u64::from(self.billionths);
        let whole = match unit {
            Unit::Seconds(secs) => Duration::from_secs(self.whole.saturating_mul(secs)),
            Unit::Of(parts) => Duration::new(self.whole / parts, (self.whole % parts * (1_000_000_000 / parts)) as u32),
        };
        let rest = match unit {
            _ if billionths == 0 => return whole.min(MAX),
            SECOND => billionths,
            Unit::Seconds(secs) => billionths * secs,
            Unit::Of(parts) => billionths.div_ceil(parts),
        };
        whole.saturating_add(Duration::from_nanos(rest)).min(MAX)
    }
}

/// Units in other scripts, which may lack a space or a suffix. Longer names come first.
const OTHER_SCRIPTS: [(&str, Unit); 17] = [
    ("毫秒", MILLISECOND),
    ("秒钟", SECOND),
    ("秒", SECOND),
    ("分钟", Unit::Seconds(60)),
    ("分鐘", Unit::Seconds(60)),
    ("分", Unit::Seconds(60)),
    ("小时", Unit::Seconds(3600)),
    ("小時", Unit::Seconds(3600)),
    ("個小時", Unit::Seconds(3600)),
    ("時間", Unit::Seconds(3600)),
    ("天", Unit::Seconds(86_400)),
    ("초", SECOND),
    ("분", Unit::Seconds(60)),
    ("시간", Unit::Seconds(3600)),
    ("секунд", SECOND),
    ("минут", Unit::Seconds(60)),
    ("час", Unit::Seconds(3600)),
];

/// Parses the unit at the start of a text. Returns it with the length of its name.
pub(crate) fn unit(text: &[u8]) -> Option<(Unit, usize)> {
    // Short names are checked first, because the headers of each successful response use them.
    match text {
        [b's'] => return Some((SECOND, 1)),
        [b'm', b's'] => return Some((MILLISECOND, 2)),
        [b'm', b'0'..=b'9', ..] => return Some((Unit::Seconds(60), 1)),
        _ => {}
    }
    let letters = text.iter().take_while(|b| b.is_ascii_alphabetic() || **b >= 0x80).count();
    // Go writes micro with U+00B5 or U+03BC. Chinese texts have no space after a unit.
    let (unit, end) = match &text[..letters] {
        b"ns" => (Unit::Of(1_000_000_000), letters),
        b"us" | [0xc2, 0xb5, b's'] | [0xce, 0xbc, b's'] => (Unit::Of(1_000_000), letters),
        b"ms" | b"msec" | b"msecs" | b"millis" | b"millisecond" | b"milliseconds" => (MILLISECOND, letters),
        b"s" | b"sec" | b"secs" | b"second" | b"seconds" => (SECOND, letters),
        b"secondes" | b"segundo" | b"segundos" | b"sekunden" => (SECOND, letters),
        b"m" | b"min" | b"mins" | b"minute" | b"minutes" => (Unit::Seconds(60), letters),
        b"minuto" | b"minutos" | b"minuten" => (Unit::Seconds(60), letters),
        b"h" | b"hr" | b"hrs" | b"hour" | b"hours" => (Unit::Seconds(3600), letters),
        b"hora" | b"horas" | b"heures" | b"stunden" => (Unit::Seconds(3600), letters),
        b"d" | b"day" | b"days" => (Unit::Seconds(86_400), letters),
        b"w" | b"week" | b"weeks" => (Unit::Seconds(7 * 86_400), letters),
        longer => {
            let other = OTHER_SCRIPTS.iter().find(|(name, _)| longer.starts_with(name.as_bytes()));
            if let Some((name, unit)) = other {
                return Some((*unit, name.len()));
            }
            let lower = longer.to_ascii_lowercase();
            return (lower != longer).then(|| unit(&lower))?;
        }
    };
    Some((unit, end))
}

#[cfg(test)]
mod tests {
    use crate::classify::parse::duration::spelled;

    #[test]
    fn units_of_other_languages() {
        for (text, secs) in [
            ("30 秒", 30),
            ("2分钟", 120),
            ("1 小时", 3600),
            ("5時間", 18_000),
            ("30초", 30),
            ("20 segundos", 20),
            ("3 Minuten", 180),
        ] {
            assert_eq!(spelled(text.as_bytes()).map(|delay| delay.as_secs()), Some(secs), "{text}");
        }
    }
}
