//! Handles fields of an error body whose names are not known.

use crate::classify::parse::json::{self, Path};

/// The maximum number of unknown fields that are read as messages.
const MAX_WORDS: usize = 8;

/// The texts that are read after all other fields of a document.
#[derive(Default)]
pub(crate) struct Rest {
    /// Messages that contain a JSON document.
    pub(crate) again: Vec<String>,
    /// Words in fields of unknown name.
    pub(crate) words: Vec<String>,
}

impl Rest {
    /// Adds the text of a field of unknown name. It is another server's response or words.
    pub(crate) fn other(&mut self, name: &[u8], raw: &[u8]) {
        let holds_answer = [&b"body"[..], b"response", b"upstream", b"provider"]
            .iter()
            .any(|part| name.windows(part.len()).any(|window| window == *part));
        let holds_words = raw.contains(&b' ') || raw.iter().any(|b| *b >= 0x80);
        if holds_answer && raw.trim_ascii().starts_with(b"{") {
            self.again.push(json::unescape(raw).into_owned());
        } else if holds_words && self.words.len() < MAX_WORDS {
            self.words.push(json::unescape(raw).into_owned());
        }
    }
}

/// Returns true if a field quotes the caller's request.
pub(crate) fn is_request(path: Path<'_, '_>) -> bool {
    let own =
        [&b"content"[..], b"contents", b"input", b"inputs", b"messages", b"parts", b"prompt", b"query", b"request"];
    path.iter().any(|key| own.contains(key))
}

/// Returns true if the messages only repeat the name of a status.
pub(crate) fn repeats_status(text: &str) -> bool {
    let known = ["too many requests", "429 too many requests", "forbidden", "bad request", "payment required", "error"];
    text.lines().all(|line| known.iter().any(|words| line.eq_ignore_ascii_case(words)))
}

#[cfg(test)]
mod tests {
    use crate::classify::body::ErrorBody;

    #[test]
    fn words_in_fields_of_any_name() {
        for (body, text) in [
            (r#"{"status":429,"note":"daily quota is used up"}"#, "daily quota is used up\n"),
            (r#"{"title":"Too Many Requests","note":"come back later"}"#, "Too Many Requests\ncome back later\n"),
            (r#"{"message":"what counts","note":"and what does not"}"#, "what counts\n"),
            (r#"{"message":"x: {\"why\":\"no more\"}"}"#, "x:\nno more\n"),
            (r#"{"message":"x: [{\"role\":\"user\",\"content\":\"my own words\"}]"}"#, "x: [\n"),
            (r#"{"statusCode":429,"responseBody":"{\"message\":\"inner words\"}"}"#, "inner words\n"),
        ] {
            assert_eq!(ErrorBody::read(body.as_bytes(), false, &|| None).text, text, "{body}");
        }
    }
}
