//! Estimates the tokens of a text. Each character has a weight that depends on its script.

/// The number of weight units per token.
const HUNDREDTHS: f64 = 100.0;
/// The weight of characters outside of the ranges below: emoji, historic scripts, and halves of surrogate pairs.
const OTHER: u8 = 150;
/// Ranges of code points, aligned to pages, and the weight of a character in hundredths of a token. ASCII counts four
/// characters per token. This is right for English and slightly too low for code.
///
/// Each weight lies between the counts of `o200k_base` and `cl100k_base`. These differ up to threefold for scripts that
/// the older vocabulary hardly covers. `cargo run -p tower-429-bench --bin tokenizer_figures` prints both for the texts
/// in `tests/tokenizers/figures.jsonl`.
const SCRIPTS: &[(usize, usize, u8)] = &[
    (0x0000, 0x007F, 25),  // ASCII
    (0x0080, 0x037F, 50),  // Latin letters with accents, and the accents
    (0x0380, 0x03FF, 60),  // Greek
    (0x0400, 0x057F, 35),  // Cyrillic
    (0x0580, 0x05FF, 65),  // Hebrew
    (0x0600, 0x07FF, 55),  // Arabic, Syriac, Thaana
    (0x0900, 0x0DFF, 60),  // Devanagari and the other scripts of India
    (0x0E00, 0x0EFF, 65),  // Thai, Lao
    (0x0F00, 0x10FF, 100), // Tibetan, Burmese, Georgian
    (0x1100, 0x11FF, 100), // Hangul, by letters
    (0x1E00, 0x1EFF, 80),  // Vietnamese
    (0x2000, 0x2BFF, 60),  // punctuation and symbols
    (0x3000, 0x30FF, 85),  // Kana, and the punctuation of Chinese and Japanese
    (0x3400, 0x9FFF, 95),  // Chinese characters
    (0xAC00, 0xD7FF, 85),  // Hangul, by syllables
    (0xF900, 0xFAFF, 100), // Chinese characters, for compatibility
    (0xFF00, 0xFF7F, 80),  // wide forms
];
/// The weight of ASCII, which most texts consist of.
const ASCII: u64 = SCRIPTS[0].2 as u64;
/// The number of code points that share one weight.
const PAGE: usize = 0x80;
/// The weights of the pages below 0x10000, which contain all scripts in use.
static WEIGHTS: [u8; 0x10000 / PAGE] = by_page();

const fn by_page() -> [u8; 0x10000 / PAGE] {
    let mut weights = [OTHER; 0x10000 / PAGE];
    let mut at = 0;
    while at < SCRIPTS.len() {
        let (first, last, weight) = SCRIPTS[at];
        let mut page = first / PAGE;
        while page <= last / PAGE {
            weights[page] = weight;
            page += 1;
        }
        at += 1;
    }
    weights
}

/// A JSON string that has been read to its closing quote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Text {
    /// The number of bytes before the closing quote.
    pub(super) len: usize,
    pub(super) tokens: f64,
}

/// Reads the string after an opening quote. Returns `None` if the string does not end.
///
/// A character counts the same as UTF-8 and as `\uXXXX`. Half a surrogate pair and each invalid byte count as one
/// character.
pub(super) fn read(rest: &[u8]) -> Option<Text> {
    // Most texts are ASCII without escapes. This search and the ASCII check process many bytes at a time.
    let plain = memchr::memchr2(b'"', b'\\', rest)?;
    let (mut at, mut hundredths) = if rest[..plain].is_ascii() { (plain, ASCII * plain as u64) } else { (0, 0) };
    loop {
        let (code, len) = match *rest.get(at)? {
            b'"' => return Some(Text { len: at, tokens: hundredths as f64 / HUNDREDTHS }),
            b'\\' => escaped(&rest[at..])?,
            0..=0x7F => {
                (at, hundredths) = (at + 1, hundredths + ASCII);
                continue;
            }
            _ => decoded(&rest[at..]),
        };
        at += len;
        hundredths += u64::from(weight(code));
    }
}

fn weight(code: u32) -> u8 {
    WEIGHTS.get(code as usize / PAGE).copied().unwrap_or(OTHER)
}

/// Returns the character of an escape, and its length in bytes.
fn escaped(rest: &[u8]) -> Option<(u32, usize)> {
    if *rest.get(1)? != b'u' {
        return Some((0, 2));
    }
    let Some(code) = hex(rest, 2) else { return Some((0, 2)) };
    // Two halves of a surrogate pair are one character.
    if (0xD800..0xDC00).contains(&code)
        && let Some([b'\\', b'u', b'd' | b'D', b'c'..=b'f' | b'C'..=b'F']) = rest.get(6..10)
        && let Some(low) = hex(rest, 8)
    {
        return Some((0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00), 12));
    }
    Some((code, 6))
}

/// Reads four hexadecimal digits at `from`.
fn hex(rest: &[u8], from: usize) -> Option<u32> {
    let digits: &[u8; 4] = rest.get(from..)?.first_chunk()?;
    digits.iter().try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)?))
}

/// Returns the first UTF-8 character, and its length in bytes. An invalid byte is one character.
fn decoded(rest: &[u8]) -> (u32, usize) {
    let code =
        |first: u8, tail: &[u8]| tail.iter().fold(u32::from(first), |code, byte| code << 6 | u32::from(byte & 0x3F));
    match *rest {
        [a @ 0xC0..0xE0, b @ 0x80..0xC0, ..] => (code(a & 0x1F, &[b]), 2),
        [a @ 0xE0..0xF0, b @ 0x80..0xC0, c @ 0x80..0xC0, ..] => (code(a & 0x0F, &[b, c]), 3),
        [a @ 0xF0..0xF8, b @ 0x80..0xC0, c @ 0x80..0xC0, d @ 0x80..0xC0, ..] => (code(a & 0x07, &[b, c, d]), 4),
        _ => (char::REPLACEMENT_CHARACTER.into(), 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(json: &[u8]) -> Option<f64> {
        read(json).map(|text| text.tokens)
    }

    #[test]
    fn the_ranges_are_in_order_and_do_not_meet() {
        assert!(SCRIPTS.windows(2).all(|two| two[0].1 < two[1].0));
        assert!(SCRIPTS.iter().all(|(first, last, _)| first < last && first % PAGE == 0 && (last + 1) % PAGE == 0));
    }

    #[test]
    fn a_character_counts_the_same_escaped_and_as_utf_8() {
        for (escaped, plain) in [
            (r#"\u0061bc""#, r#"abc""#),
            (r#"\u4f60\u597d""#, r#"你好""#),
            (r#"\u4F60\u597D""#, r#"你好""#),
            (r#"\ud83d\ude00""#, r#"😀""#),
            (r#"\n\"\\\/""#, r#"abcd""#),
        ] {
            assert_eq!(tokens(escaped.as_bytes()), tokens(plain.as_bytes()), "{escaped}");
        }
    }

    #[test]
    fn a_string_ends_at_the_first_quote_that_is_not_escaped() {
        for (json, len) in [
            (r#"" rest"#, Some(0)),
            (r#"a\"b" rest"#, Some(4)),
            (r#"a\\" rest"#, Some(3)),
            (r#"a\\\""#, None),
            (r#"a\"#, None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(read(json.as_bytes()).map(|text| text.len), len, "{json}");
        }
    }

    #[test]
    fn half_a_pair_and_bytes_that_are_no_text_are_a_character_each() {
        let one = Some(f64::from(OTHER) / HUNDREDTHS);
        for json in [&br#"\ud83d""#[..], br#"\ude00""#, b"\xff\"", b"\xe4\"", b"\xf0\""] {
            assert_eq!(tokens(json), one, "{json:?}");
        }
        assert_eq!(tokens(br#"\ud83d\u0061""#), Some(1.75), "a half, and a letter");
        assert_eq!(tokens(br#"\uD83D\uD83D\uDE00""#), Some(3.0), "a half, and a pair");
        assert_eq!(tokens(br#"\u12"x"#), Some(0.75), "an escape that is none ends no later than its quote");
    }
}
