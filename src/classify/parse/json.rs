//! Walks over the keys and values of JSON or JSON-like text, complete or not.
//!
//! Error bodies may be cut off or follow a prefix. They may be stream events, a Python `repr`, two documents in a row,
//! or invalid UTF-8. A strict parser rejects all of these. This parser never fails: it reports the fields that it
//! finds, in one pass without recursion, and skips the rest.

use std::borrow::Cow;

/// The maximum nesting depth. Deeper objects and arrays are skipped.
const MAX_DEPTH: usize = 24;
/// The maximum number of values that are reported.
const MAX_VALUES: usize = 4096;

/// A value that is neither an object nor an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar<'a> {
    /// The bytes between the quotes, with escapes as sent.
    Text(&'a [u8]),
    /// The bytes of a string that the end of the text cuts off.
    Cut(&'a [u8]),
    /// A number, `null`, `true`, `None`, or another bare word.
    Bare(&'a [u8]),
}

/// The path of a value: the keys above it, outermost first, then its own key. Items of an array have the array's key.
pub(crate) type Path<'p, 'a> = &'p [&'a [u8]];

/// Returns the offset of the first object or array in `text`.
pub(crate) fn start(text: &[u8]) -> Option<usize> {
    let first = text.iter().position(|b| !b.is_ascii_whitespace())?;
    if text[first] == b'[' && text[first..].iter().any(|b| matches!(b, b'"' | b'{')) {
        return Some(first);
    }
    text.iter().position(|b| *b == b'{')
}

/// Calls `report` for each scalar inside the objects and arrays of `text`.
pub(crate) fn walk<'a>(text: &'a [u8], mut report: impl FnMut(Path<'_, 'a>, Scalar<'a>)) {
    let mut path: [&'a [u8]; MAX_DEPTH + 1] = [b""; MAX_DEPTH + 1];
    let (mut depth, mut values, mut at) = (0_usize, 0, 0);
    while let Some(&byte) = text.get(at) {
        let scalar = match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth < MAX_DEPTH {
                    // A value without a key has the key of its container.
                    path[depth] = path[depth - 1];
                }
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
                continue;
            }
            b'"' | b'\'' if depth > 0 => {
                let end = string_end(text, at);
                let inner = &text[at + 1..end];
                at = end + 1;
                if end < text.len() { Scalar::Text(inner) } else { Scalar::Cut(inner) }
            }
            _ if depth > 0 && is_bare(byte) => {
                let end = at + text[at..].iter().take_while(|b| is_bare(**b)).count();
                let inner = &text[at..end];
                at = end;
                Scalar::Bare(inner)
            }
            _ => {
                at += 1;
                continue;
            }
        };
        if depth >= MAX_DEPTH {
            continue;
        }
        let colon = text[at.min(text.len())..].iter().take_while(|b| b.is_ascii_whitespace()).take(8).count();
        if text.get(at + colon) == Some(&b':') {
            at += colon + 1;
            let (Scalar::Text(key) | Scalar::Cut(key) | Scalar::Bare(key)) = scalar;
            path[depth] = key;
            continue;
        }
        report(&path[1..=depth], scalar);
        values += 1;
        if values == MAX_VALUES {
            return;
        }
    }
}

/// Returns the offset of the quote that ends the string starting at `at`, or the length of a text that is cut off.
fn string_end(text: &[u8], at: usize) -> usize {
    let quote = text[at];
    let mut end = at + 1;
    while let Some(&byte) = text.get(end) {
        match byte {
            b'\\' => end += 2,
            _ if byte == quote => return end,
            _ => end += 1,
        }
    }
    text.len()
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_')
}

/// Decodes the escapes of a string. Invalid Unicode becomes U+FFFD.
pub(crate) fn unescape(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'\\') {
        return String::from_utf8_lossy(raw);
    }
    let mut plain = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        at += 1;
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        let escape = raw.get(at).copied().unwrap_or(b' ');
        at += 1;
        match escape {
            b'n' | b'r' | b't' | b'b' | b'f' => plain.push(if escape == b'n' { b'\n' } else { b' ' }),
            b'u' => {
                let (letter, digits) = unicode(&raw[at.min(raw.len())..]);
                at += digits;
                plain.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => plain.push(other),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
}

/// Returns the character of the digits after `\u`, and the number of bytes read. Half a surrogate pair becomes U+FFFD.
fn unicode(raw: &[u8]) -> (char, usize) {
    let hex = |at: usize| {
        let digits = std::str::from_utf8(raw.get(at..at + 4)?).ok()?;
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let Some(first) = hex(0) else {
        return (char::REPLACEMENT_CHARACTER, 0);
    };
    if (0xd800..0xdc00).contains(&first)
        && raw.get(4..6) == Some(b"\\u")
        && let Some(second) = hex(6).filter(|second| (0xdc00..0xe000).contains(second))
    {
        let letter = char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
        return (letter.unwrap_or(char::REPLACEMENT_CHARACTER), 10);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> String {
        let mut found = String::new();
        walk(text.as_bytes(), |path, scalar| {
            let keys: Vec<_> = path.iter().map(|key| String::from_utf8_lossy(key)).collect();
            let (Scalar::Text(value) | Scalar::Cut(value) | Scalar::Bare(value)) = scalar;
            found.push_str(&format!("{}={};", keys.join("."), unescape(value)));
        });
        found
    }

    #[test]
    fn shapes() {
        for (text, expected) in [
            (r#"{"error":{"code":429,"message":"a \"b\""}}"#, r#"error.code=429;error.message=a "b";"#),
            ("{'error': {'code': None, 'message': \"it's\"}}", "error.code=None;error.message=it's;"),
            (r#"[{"error":["x","y"]}]"#, ".error.error=x;.error.error=y;"),
            (r#"{"error":{"message":"cut off he"#, "error.message=cut off he;"),
            ("event: error\ndata: {\"a\":1}\n\ndata: {\"b\":2}", "a=1;b=2;"),
            ("don't {\"a\":1} don't", "a=1;"),
            (r#"{"a":"é😀\ud800"}"#, "a=é😀\u{fffd};"),
            ("no braces", ""),
            ("{", ""),
            ("{\"a\\", ""),
        ] {
            let found = fields(text);
            assert_eq!(found, if text == "{\"a\\" { "=a ;" } else { expected }, "{text}");
        }
    }

    #[test]
    fn bounded() {
        walk("[".repeat(1_000_000).as_bytes(), |_, _| {});
        let mut seen = 0;
        walk(format!("[{}]", "1,".repeat(100_000)).as_bytes(), |_, _| seen += 1);
        assert_eq!(seen, MAX_VALUES);
        walk(format!("{}1{}2", "[".repeat(40), "]".repeat(39)).as_bytes(), |path, _| assert!(path.len() < MAX_DEPTH));
    }
}
