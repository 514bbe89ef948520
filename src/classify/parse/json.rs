//! Walks the keys and values of anything that looks like JSON, whole or not.
//!
//! Error bodies arrive cut off, behind a prefix, as events of a stream, as a Python `repr`, with a BOM, with two documents
//! in a row or with text that is no Unicode. A strict parser reads none of these, so this one has no errors: it reports
//! the fields it finds, in one pass, without recursion, and skips what it does not understand.

use std::borrow::Cow;

/// Objects and arrays nested deeper than this are skipped.
const MAX_DEPTH: usize = 24;
/// No more values than this are reported.
const MAX_VALUES: usize = 4096;

/// A value that is neither object nor array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar<'a> {
    /// What stood between the quotes, escapes and all.
    Text(&'a [u8]),
    /// The same, of a string that the end of the text cut off.
    Cut(&'a [u8]),
    /// A number, `null`, `true`, `None`, or any other bare word.
    Bare(&'a [u8]),
}

/// Where a value was found: the keys above it, outermost first, and its own last. Items of an array have the array's key.
pub(crate) type Path<'p, 'a> = &'p [&'a [u8]];

/// The offset of the first object or array in `text`, if it has one.
pub(crate) fn start(text: &[u8]) -> Option<usize> {
    let first = text.iter().position(|b| !b.is_ascii_whitespace())?;
    if text[first] == b'[' && text[first..].iter().any(|b| matches!(b, b'"' | b'{')) {
        return Some(first);
    }
    text.iter().position(|b| *b == b'{')
}

/// Calls `report` for every scalar inside the objects and arrays of `text`.
pub(crate) fn walk<'a>(text: &'a [u8], mut report: impl FnMut(Path<'_, 'a>, Scalar<'a>)) {
    let mut path: [&'a [u8]; MAX_DEPTH + 1] = [b""; MAX_DEPTH + 1];
    let (mut depth, mut values, mut at) = (0_usize, 0, 0);
    while let Some(&byte) = text.get(at) {
        let scalar = match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth < MAX_DEPTH {
                    // Until a key of its own comes, a value belongs to the key of what holds it.
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

/// The offset of the quote that ends the string whose first quote is at `at`, or the end of a text that was cut off.
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

/// A string without its escapes; what is no Unicode becomes U+FFFD.
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

/// The letter that the digits after `\u` stand for, and how many bytes they take; half a surrogate pair is U+FFFD.
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
