//! Looking into a request's JSON body: its model, and an estimate of its tokens. Total functions, one pass, no copies.

use super::Cost;
use crate::dialect::Pricing;

/// A body larger than this is not looked into: 4 MiB.
pub(crate) const PEEK_MAX: u64 = 4 << 20;
/// Characters a token, in text.
const CHARS_PER_TOKEN: f64 = 4.0;
/// What a part that is no text costs, as an estimate, whatever its bytes: an image at high detail at OpenAI.
const PART_TOKENS: f64 = 1_000.0;
/// No request is taken for larger than this, whatever it says.
const TOKENS_MAX: f64 = 1e9;
/// A string of this length without any space is data, not text.
const DATA_LEN: usize = 1_024;

/// The value of `model` in the outermost object, as sent. Nothing if it is not there or holds an escape.
pub(crate) fn model(body: &[u8]) -> Option<&[u8]> {
    let mut scan = Scan { bytes: body, at: 0 };
    scan.expect(b'{')?;
    loop {
        let key = scan.string()?;
        scan.expect(b':')?;
        if key == b"model" {
            let model = scan.string()?;
            return (!model.contains(&b'\\')).then_some(model);
        }
        scan.skip()?;
        scan.expect(b',')?;
    }
}

/// The model in a path: `/deployments/{x}/`, as Azure has it, or `/models/{x}:`, as Google has it.
pub(crate) fn model_in_path(path: &str) -> Option<&[u8]> {
    let path = path.as_bytes();
    let mut from = 0;
    loop {
        // Both words end so, and few paths contain it.
        from += path[from..].windows(2).position(|two| two == b"s/")? + 2;
        let (before, rest) = path.split_at(from);
        let model = if before.ends_with(b"/deployments/") {
            &rest[..rest.iter().position(|byte| *byte == b'/')?]
        } else if before.ends_with(b"/models/") {
            let end = rest.iter().position(|byte| matches!(byte, b':' | b'/'))?;
            if rest[end] == b'/' {
                continue;
            }
            &rest[..end]
        } else {
            continue;
        };
        return (!model.is_empty()).then_some(model);
    }
}

/// What a request's body says of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Seen<'a> {
    /// The first string of that name in the outermost object, as sent, that holds no escape.
    pub(crate) model: Option<&'a [u8]>,
    /// The tokens of its texts, and of its images and files.
    pub(crate) prompt: f64,
    /// The most it wants to have back.
    pub(crate) wanted: f64,
}

impl Seen<'_> {
    /// What the call costs, as its provider counts.
    pub(crate) fn cost(&self, pricing: Pricing) -> Cost {
        let tokens = match pricing {
            Pricing::Larger => self.prompt.max(self.wanted),
            Pricing::Sum => self.prompt + self.wanted,
        };
        Cost::tokens(tokens).input(self.prompt).output(self.wanted)
    }
}

/// Reads a body to its end: its model, and an estimate of its size.
pub(crate) fn read(body: &[u8]) -> Seen<'_> {
    let mut seen = Seen::default();
    let mut chars = 0_usize;
    let mut depth = 0_usize;
    let mut key: &[u8] = b""; // of the outermost object, until its value has been read
    let mut rest = body;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => {
                let Some(end) = end_of_string(rest) else { break };
                let text = &rest[..end];
                rest = &rest[end + 1..];
                if rest.first() == Some(&b':') || rest.trim_ascii_start().first() == Some(&b':') {
                    key = if depth == 1 { text } else { b"" };
                    continue;
                }
                if key == b"model" && depth == 1 && seen.model.is_none() && !text.contains(&b'\\') {
                    seen.model = Some(text);
                }
                if is_data(text) {
                    seen.prompt += PART_TOKENS;
                } else {
                    chars += text.len();
                }
                key = b"";
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'-' => key = b"",
            b'0'..=b'9' if matches!(key, b"max_tokens" | b"max_completion_tokens" | b"max_output_tokens") => {
                let mut number = f64::from(byte - b'0');
                while let Some((digit @ b'0'..=b'9', after)) = rest.split_first() {
                    number = f64::min(number * 10.0 + f64::from(digit - b'0'), TOKENS_MAX);
                    rest = after;
                }
                seen.wanted = f64::max(seen.wanted, number);
                key = b"";
            }
            _ => {}
        }
    }
    seen.prompt += chars as f64 / CHARS_PER_TOKEN;
    seen
}

/// Where the string ends that begins here: at the first quote that is not behind an odd number of backslashes.
#[inline]
fn end_of_string(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let end = from + quote(&text[from..])?;
        let before = &text[..end];
        if before.last() != Some(&b'\\') || before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 0 {
            return Some(end);
        }
        from = end + 1;
    }
}

/// The first quote. Most strings of a request are keys and roles: looked for in sixteen bytes at once before the search for
/// long texts is begun.
#[inline]
fn quote(text: &[u8]) -> Option<usize> {
    const EACH: u128 = u128::from_ne_bytes([1; 16]);
    if let Some(first) = text.first_chunk() {
        let nothing_where_quote = u128::from_le_bytes(*first) ^ (EACH * b'"' as u128);
        let found = nothing_where_quote.wrapping_sub(EACH) & !nothing_where_quote & (EACH * 0x80);
        if found != 0 {
            return Some(found.trailing_zeros() as usize / 8);
        }
    }
    memchr::memchr(b'"', text)
}

fn is_data(text: &[u8]) -> bool {
    text.starts_with(b"data:") || (text.len() >= DATA_LEN && !text[..DATA_LEN].contains(&b' '))
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// The next byte that is no space, left where it is.
    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// A string without its quotes; escapes stay as they are.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let rest = self.bytes.get(self.at..)?;
        let end = end_of_string(rest)?;
        self.at += end + 1;
        Some(&rest[..end])
    }

    /// Skips one value of any kind.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                _ => {
                    let word = |byte: &u8| !matches!(byte, b',' | b'}' | b']' | b'"' | b'{' | b'[');
                    let start = self.at;
                    while self.bytes.get(self.at).is_some_and(word) {
                        self.at += 1;
                    }
                    if self.at == start {
                        self.at += 1; // a comma within an array or object
                        if depth == 0 {
                            return None;
                        }
                        continue;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_model_is_found_wherever_it_stands_in_the_outermost_object() {
        for body in [
            r#"{"model":"ft:gpt-4o:a::b","messages":[]}"#,
            r#" { "messages" : [ {"role":"user","content":"a \"model\": {[ \\"} , 1.5e3, null ], "stream" : true , "model" : "ft:gpt-4o:a::b" } "#,
            r#"{"x":{"model":"inner"},"n":-1,"model":"ft:gpt-4o:a::b"}"#,
        ] {
            assert_eq!(model(body.as_bytes()), Some(&b"ft:gpt-4o:a::b"[..]), "{body}");
        }
        for body in ["", "{", "[]", r#"{"a":{"model":"m"}}"#, r#"{"model":7}"#, r#"{"model":"a\"b"}"#, r#"{"model":"#] {
            assert_eq!(model(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn the_model_is_found_in_the_paths_of_azure_and_google() {
        for (path, expected) in [
            ("/openai/deployments/my-gpt4/chat/completions", Some("my-gpt4")),
            ("/v1beta/models/gemini-2.5-pro:generateContent", Some("gemini-2.5-pro")),
            ("/v1/models/gpt-4o", None),
            ("/openai/deployments//chat", None),
            ("/v1/chat/completions", None),
            ("", None),
        ] {
            assert_eq!(model_in_path(path), expected.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn text_counts_by_its_length_and_a_picture_by_its_kind() {
        let picture = format!("data:image/png;base64,{}", "A".repeat(400_000));
        let body = format!(
            r#"{{"model":"gpt4","max_tokens": 250,"messages":[{{"content":"{}"}},{{"image_url":"{picture}"}}]}}"#,
            "word ".repeat(80)
        );
        let expected = Seen { model: Some(b"gpt4"), prompt: (400.0 + 4.0) / 4.0 + 1_000.0, wanted: 250.0 };
        assert_eq!(read(body.as_bytes()), expected);
        assert_eq!(read(br#"{"messages":[{"max_tokens":9}]}"#).wanted, 0.0, "only the outermost object's");
        assert_eq!(read(br#"{"max_tokens":-5}"#).wanted, 0.0);
        assert_eq!(read(format!(r#"{{"max_tokens":{}}}"#, "9".repeat(400)).as_bytes()).wanted, TOKENS_MAX);
    }

    #[test]
    fn reading_a_deep_body_takes_no_stack() {
        let body = "[".repeat(1 << 20);
        assert_eq!(read(body.as_bytes()), Seen::default());
        assert_eq!(model(format!("{{\"a\":{body}").as_bytes()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body: Vec<u8>) {
            let _ = model(&body);
            let seen = read(&body);
            prop_assert!(seen.prompt.is_finite() && seen.prompt >= 0.0);
        }

        #[test]
        fn the_model_agrees_with_a_json_parser(model_name in "[a-zA-Z0-9:._/-]{0,40}", content: String, n: i64) {
            let body = serde_json::json!({"content": content, "n": [n, {"model": 1}], "model": model_name}).to_string();
            prop_assert_eq!(model(body.as_bytes()), Some(model_name.as_bytes()));
            prop_assert_eq!(read(body.as_bytes()).model, Some(model_name.as_bytes()));
        }
    }
}
