//! Parses numbers as decimals, not as floats, so that `18.642s` is exactly 18,642 ms.

/// A decimal number: the whole part, which saturates, and billionths, rounded up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number {
    pub(crate) whole: u64,
    pub(crate) billionths: u32,
}

impl Number {
    pub(crate) fn as_f64(self) -> f64 {
        self.whole as f64 + f64::from(self.billionths) / 1e9
    }
}

/// Parses the number at the start of a text. Returns it with its length. Digits, thousands commas and a fraction are
/// accepted; a sign and an exponent are not.
pub(crate) fn number(text: &[u8]) -> Option<(Number, usize)> {
    let (mut whole, mut at, mut seen) = (0_u64, 0, false);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'0'..=b'9' => whole = whole.saturating_mul(10).saturating_add(u64::from(byte - b'0')),
            b',' if seen && is_group(&text[at + 1..]) => {}
            _ => break,
        }
        seen = true;
        at += 1;
    }
    let mut billionths = 0;
    if text.get(at) == Some(&b'.') && text.get(at + 1).is_some_and(u8::is_ascii_digit) {
        let (mut place, mut rest) = (1_000_000_000, false);
        at += 1;
        while let Some(digit) = text.get(at).filter(|b| b.is_ascii_digit()) {
            place /= 10;
            rest |= place == 0 && *digit != b'0';
            billionths += place * u32::from(digit - b'0');
            at += 1;
        }
        billionths += u32::from(rest);
        seen = true;
    }
    seen.then_some((Number { whole, billionths }, at))
}

/// Parses a number like [`number`], also with an exponent.
pub(crate) fn exponential(text: &[u8]) -> Option<(Number, usize)> {
    let (value, at) = number(text)?;
    let Some(letters) = exponent(&text[at..]) else {
        return Some((value, at));
    };
    let value: f64 = std::str::from_utf8(&text[..at + letters]).ok()?.parse().ok()?;
    // `as` saturates, so 1e300 stays large. The text has no sign, so the value is never negative.
    let billionths = if value < 1e15 { (value.fract() * 1e9).ceil() as u32 } else { 0 };
    Some((Number { whole: value as u64, billionths }, at + letters))
}

fn is_group(text: &[u8]) -> bool {
    text.len() >= 3 && text[..3].iter().all(u8::is_ascii_digit) && !text.get(3).is_some_and(u8::is_ascii_digit)
}

fn exponent(text: &[u8]) -> Option<usize> {
    if !matches!(text.first(), Some(b'e' | b'E')) {
        return None;
    }
    let sign = usize::from(matches!(text.get(1), Some(b'+' | b'-')));
    let digits = text[1 + sign..].iter().take_while(|b| b.is_ascii_digit()).count();
    (digits > 0).then_some(1 + sign + digits)
}
