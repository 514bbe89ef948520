//! Reads the figures, windows, delays and names beside a phrase of a message.
//!
//! `plain` is the message as [`normalize`](crate::classify::message::phrases::normalize) returns it, with the same
//! offsets. Figures are read from the original message, where a minus sign is kept.

use std::time::Duration;

use crate::classify::parse::number::number;
use crate::classify::parse::{date, duration};

/// The length of a window, in the classes that matter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Window {
    Short,
    Day,
    Month,
}

/// Returns the window after a unit: `per min`, ` / day`, `per model per minute`. `(TPM)` is not read.
pub(crate) fn divided(text: &[u8]) -> Option<Window> {
    let mut text = text.trim_ascii_start();
    if let Some(rest) = text.strip_prefix(b"/") {
        return window(rest.trim_ascii_start());
    }
    for word in [&b"a "[..], b"every ", b"each "] {
        if let Some(rest) = text.strip_prefix(word) {
            return window(rest);
        }
    }
    for _ in 0..4 {
        text = text.strip_prefix(b"per ")?;
        if let Some(found) = window(text) {
            return Some(found);
        }
        let word = text.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
        text = text[word..].trim_ascii_start();
    }
    None
}

/// Returns the window at the start of a text: `minute`, `60s`, `1 day`.
pub(crate) fn window(text: &[u8]) -> Option<Window> {
    if let Some((span, _)) = duration::prose(text) {
        return Some(match span.as_secs() {
            0..86_400 => Window::Short,
            86_400..1_728_000 => Window::Day,
            _ => Window::Month,
        });
    }
    let digits = text.iter().take_while(|b| b.is_ascii_digit() || **b == b' ').count();
    let text = &text[digits..];
    let word = &text[..text.iter().take_while(|b| b.is_ascii_alphabetic()).count()];
    match word {
        b"day" | b"days" | b"d" => Some(Window::Day),
        b"week" | b"month" | b"months" | b"year" => Some(Window::Month),
        b"s" | b"m" | b"h" | b"hr" | b"hour" | b"hours" => Some(Window::Short),
        _ if word.starts_with(b"min") || word.starts_with(b"sec") => Some(Window::Short),
        _ => None,
    }
}

/// Returns the figure after a label, and its end: ` 30000`, `: 60.000000`, ` ~12,903`, ` of 30K`.
pub(crate) fn figure(bytes: &[u8], plain: &[u8], at: usize) -> Option<(f64, usize)> {
    const FILLERS: [&[u8]; 8] = [b"of ", b"is ", b"was ", b"at ", b"to ", b"up to ", b"reached ", b"set to "];
    let mut at = at;
    for _ in 0..3 {
        at += bytes
            .get(at..)?
            .iter()
            .take_while(|b| matches!(b, b' ' | b':' | b'=' | b'~' | b'(' | b')' | b'"' | b'\''))
            .count();
        at += FILLERS.iter().find(|word| plain[at..].starts_with(word)).map_or(0, |word| word.len());
    }
    let (value, length) = number(&bytes[at..])?;
    let mut end = at + length;
    let scale = match bytes.get(end) {
        Some(b'k' | b'K') => 1e3,
        Some(b'M') => 1e6,
        _ => 1.0,
    };
    end += usize::from(scale > 1.0);
    // A figure at the end of the text may be cut off.
    let broken = bytes.get(end).is_none_or(|b| matches!(b, b'%' | b'-' | b':') || b.is_ascii_alphanumeric());
    (!broken).then_some((value.as_f64() * scale, end))
}

/// Returns the used amount and the limit after a label: `33/32`, also in brackets. `15/1min` is not a pair.
pub(crate) fn pair(bytes: &[u8], plain: &[u8], at: usize) -> Option<(f64, f64)> {
    const FILLERS: [&[u8]; 3] = [b"reached", b"exceeded", b"hit"];
    let rest = plain.get(at..)?;
    let filler = FILLERS.iter().find(|word| rest.trim_ascii_start().starts_with(word));
    let past = filler.map_or(0, |word| rest.len() - rest.trim_ascii_start().len() + word.len());
    let (used, end) = figure(bytes, plain, at + past)?;
    let limit = bytes[end..].starts_with(b"/").then(|| figure(bytes, plain, end + 1))?;
    limit.map(|(limit, _)| (used, limit))
}

/// Returns the used amount and the limit before a label: `(1500/1500 used)`.
pub(crate) fn pair_before(bytes: &[u8], end: usize) -> Option<(f64, f64)> {
    let text = bytes[..end].trim_ascii_end();
    let in_pair = |b: &&u8| b.is_ascii_digit() || matches!(b, b',' | b'.' | b'/');
    let start = text.len() - text.iter().rev().take(40).take_while(in_pair).count();
    let whole = &bytes[..end];
    pair(whole, whole, start)
}

/// Returns true if the figure that ends at `end` is an amount of money.
pub(crate) fn is_money(plain: &[u8], end: usize) -> bool {
    let after = plain[end..].trim_ascii_start();
    [&b"$"[..], b"usd", b"eur", b"cny", b"dollar", b"cent", b"credit", "元".as_bytes(), "€".as_bytes()]
        .iter()
        .any(|unit| after.starts_with(unit))
}

/// Returns the number before a unit: `20,000 input tokens per minute`.
pub(crate) fn number_before(bytes: &[u8], end: usize) -> Option<f64> {
    let text = bytes[..end].trim_ascii_end();
    let text = text.strip_suffix(b"API").unwrap_or(text).trim_ascii_end();
    let length = text
        .iter()
        .rev()
        .take(40)
        .take_while(|b| b.is_ascii_digit() || matches!(b, b',' | b'.' | b'K' | b'k' | b'M'))
        .count();
    let start = text.len() - length;
    if start > 0 && (text[start - 1].is_ascii_alphanumeric() || text[start - 1] == b'-') {
        return None;
    }
    figure(bytes, bytes, start).map(|f| f.0)
}

/// Returns the delay after a phrase such as `try again in`.
pub(crate) fn delay(bytes: &[u8], plain: &[u8], at: usize, now: &dyn Fn() -> Option<Duration>) -> Option<Duration> {
    const FILLERS: [&[u8]; 18] = [
        b"about ",
        b"an additional ",
        b"approx. ",
        b"approx ",
        b"period ",
        b"til ",
        b"until ",
        b"approximately ",
        b"around ",
        b"at least ",
        b"for ",
        b"another ",
        b"time ",
        b"is ",
        b"in ",
        b"after ",
        b"at ",
        b"seconds",
    ];
    let moment = [&b" at"[..], b" on", "于".as_bytes()].iter().any(|word| plain[..at].ends_with(word));
    let mut at = at;
    for _ in 0..4 {
        at += bytes
            .get(at..)?
            .iter()
            .take_while(|b| matches!(b, b' ' | b':' | b'=' | b'~' | b'(' | b'"' | b'\''))
            .count();
        at += FILLERS.iter().find(|word| plain[at..].starts_with(word)).map_or(0, |word| word.len());
    }
    let rest = &bytes[at..];
    if let Some((then, _)) = date::written(rest, date::zone_of(bytes)) {
        return duration::until(then, now);
    }
    // A delay at the end of the text may be cut off: `6m` of `6ms`, `1` of `12 seconds`.
    if let Some((delay, end)) = duration::prose(rest) {
        // A time of day is not a delay.
        let time_of_day = moment && rest[..end].contains(&b':');
        return (end < rest.len() && !time_of_day).then_some(delay);
    }
    let (_, end) = number(rest)?;
    let next = rest.get(end)?;
    let full_stop = *next == b'.' && rest.get(end + 1).is_some_and(|b| !b.is_ascii_digit());
    let ended = full_stop || matches!(next, b',' | b';' | b')' | b']' | b'}' | b'"' | b'\'' | b'\n');
    ended.then(|| duration::reset(&rest[..end], now)).flatten()
}

/// Returns the delay before a phrase: `30 秒后重试`, `30 seconds before retrying`.
pub(crate) fn delay_before(bytes: &[u8], end: usize) -> Option<Duration> {
    let text = bytes[..end].trim_ascii_end();
    let first = text.len().saturating_sub(40);
    let begins = |at: &usize| text[*at].is_ascii_digit() && (*at == 0 || !is_in_number(text[*at - 1]));
    // A time of day is not a delay.
    let starts = (first..text.len()).filter(begins).filter(|at| !text[*at..].contains(&b':'));
    let whole = |at: usize| duration::prose(&text[at..]).filter(|(_, length)| at + length == text.len());
    starts.filter_map(whole).map(|(delay, _)| delay).next()
}

/// Returns true if the amount after a label is zero: `balance: $0.00`.
pub(crate) fn is_zero(plain: &[u8], at: usize) -> bool {
    let mut rest = &plain[at..];
    for filler in [&b" left"[..], b" currently", b" is", b" of", "为".as_bytes(), "：".as_bytes(), b":", b" "] {
        rest = rest.strip_prefix(filler).unwrap_or(rest);
    }
    let sign = ["$", "€", "¥", "￥", "＄"].iter().find_map(|sign| rest.strip_prefix(sign.as_bytes()));
    let rest = sign.unwrap_or(rest);
    number(rest).is_some_and(|(sum, end)| sum.as_f64() == 0.0 && !rest.get(end).is_some_and(u8::is_ascii_alphanumeric))
}

/// Returns true if the text says that nothing of a unit remains: `0 credits left`.
pub(crate) fn none_left(bytes: &[u8], plain: &[u8], start: usize, end: usize) -> bool {
    is_left(plain, end, 1) && number_before(bytes, start) == Some(0.0)
}

/// Returns true if one of the next words says that the figure before is a remainder, not a size.
pub(crate) fn is_left(plain: &[u8], at: usize, words: usize) -> bool {
    let part = plain[at..].split(|b| matches!(b, b',' | b'.' | b';' | b':')).next().unwrap_or_default();
    let mut next = part.split(|b| !b.is_ascii_alphabetic()).filter(|word| !word.is_empty()).take(words);
    next.any(|word| [&b"left"[..], b"remaining", b"available"].contains(&word))
}

fn is_in_number(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b',' | b'-' | b':')
}

/// Returns the model's name at `at`: one word with a digit or a hyphen.
pub(crate) fn model(text: &str, at: usize) -> Option<&str> {
    let mut rest = text.get(at..)?;
    for _ in 0..2 {
        rest = rest.trim_start_matches([' ', ':', '=', '`', '\'', '"', '\\', '(']);
        for word in ["the ", "model ", "model: ", "is "] {
            rest = rest.strip_prefix(word).unwrap_or(rest);
        }
    }
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '/' | '@' | '-');
    let name = &rest[..rest.find(|c| !in_name(c)).unwrap_or(rest.len())];
    let name = name.trim_end_matches(['.', ':', '/', '-']);
    let letters = name.bytes().any(|b| b.is_ascii_alphabetic());
    let parts = name.contains('-') || name.bytes().any(|b| b.is_ascii_digit());
    let other = ["org-", "proj_", "fine-tuned", "http", "per-", "pay-", "free-", "user-", "sk-", "www."];
    let other = other.iter().any(|start| name.starts_with(start)) || is_address(name);
    (letters && parts && name.len() <= 100 && !other).then_some(name)
}

/// Returns true for a host with or without a path, a mail address or an IPv6 address.
fn is_address(name: &str) -> bool {
    let host = name.split_once('@').map_or(name, |(_, host)| host);
    let host = host.split(['/', ':']).next().unwrap_or_default();
    let domain = host.rsplit_once('.').map(|(_, domain)| domain);
    let known = ["com", "org", "net", "io", "dev", "cn", "example", "internal", "local"];
    let v6 = name.matches(':').count() > 2 && name.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    v6 || domain.is_some_and(|domain| known.contains(&domain))
}
