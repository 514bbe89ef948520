//! Finds the phrases of [`PHRASES`] in a message in one pass.

use std::sync::LazyLock;

use crate::classify::message::phrase_list::{PHRASES, Sign};

/// A phrase with its second byte, which rules out most phrases without a full comparison.
type Phrase = (u8, &'static [u8], Sign);

/// The phrases by first byte, longer ones first.
static INDEX: LazyLock<Vec<Vec<Phrase>>> = LazyLock::new(|| {
    let mut index = vec![Vec::new(); 256];
    for (sign, phrases) in PHRASES {
        for phrase in *phrases {
            let phrase = phrase.as_bytes();
            index[usize::from(phrase[0])].push((phrase[1], phrase, *sign));
        }
    }
    for phrases in &mut index {
        phrases.sort_by_key(|(_, phrase, _)| std::cmp::Reverse(phrase.len()));
    }
    index
});

/// Calls `found` with the meaning, the start and the end of each phrase. `plain` is the result of [`normalize`] for
/// `text`.
pub(crate) fn scan(text: &[u8], plain: &[u8], mut found: impl FnMut(Sign, usize, usize)) {
    let index = &*INDEX;
    let mut at = 0;
    while let Some(&byte) = plain.get(at) {
        let here = &plain[at..];
        // Inside a name such as `UserConcurrentRequests`, only phrases about concurrency are matched.
        let inside = at > 0 && byte.is_ascii_alphanumeric() && plain[at - 1].is_ascii_alphanumeric();
        let second = here.get(1).copied().unwrap_or_default();
        let mut phrases = index[usize::from(byte)].iter();
        if let Some((_, phrase, sign)) = phrases.find(|(known, phrase, _)| *known == second && here.starts_with(phrase))
            && (!inside || *sign == Sign::Concurrent)
        {
            found(*sign, at, at + phrase.len());
        }
        // Move to the next word. Each non-ASCII letter starts a word, because Chinese has no spaces.
        at += next_word(&text[at..]);
    }
}

/// Returns the distance to the next word, or to the next capital within a word.
fn next_word(text: &[u8]) -> usize {
    let goes_on = |pair: &[u8]| {
        let hump = pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase();
        pair[0].is_ascii_alphanumeric() && pair[1].is_ascii_alphanumeric() && !hump
    };
    1 + text.windows(2).take_while(|pair| goes_on(pair)).count()
}

/// Converts a text to lower case. Line ends, `-` and `_` become spaces. The length does not change.
pub(crate) fn normalize(text: &str) -> Vec<u8> {
    let blank = |b: u8| matches!(b, b'\n' | b'\r' | b'\t' | b'-' | b'_');
    text.bytes().map(|b| if blank(b) { b' ' } else { b.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(Sign, &str)> {
        let mut signs = Vec::new();
        scan(text.as_bytes(), &normalize(text), |sign, start, end| signs.push((sign, &text[start..end])));
        signs
    }

    #[test]
    fn each_phrase_is_listed_once_and_can_be_found() {
        let mut all: Vec<_> = PHRASES.iter().flat_map(|(_, phrases)| *phrases).collect();
        for phrase in &all {
            assert!(normalize(phrase) == phrase.as_bytes(), "{phrase}");
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "a phrase stands in two places");
    }

    #[test]
    fn the_longest_phrase_at_a_word_counts() {
        assert_eq!(found("Rate-limit hit"), [(Sign::Rate, "Rate-limit"), (Sign::Limit, "limit")]);
        assert_eq!(found("token plan"), [(Sign::Nothing, "token plan")]);
        assert_eq!(found("unlimited"), []);
    }

    #[test]
    fn camel_case_hides_calls_at_once_and_nothing_else() {
        assert_eq!(found("UserConcurrentRequests"), [(Sign::Concurrent, "Concurren")]);
        assert_eq!(found("aWaitLimit"), []);
    }
}
