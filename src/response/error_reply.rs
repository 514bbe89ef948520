//! The content of a server's error: its verdict, and the `type` and `code` that callers match on.

use serde_json::{Map, Value};

use crate::classify::Verdict;

/// The maximum length of a type, a code or a model that is kept: 64 bytes.
const WORD_MAX: usize = 64;
/// Members of a document that hold its error.
const ERROR_MEMBERS: &[&str] =
    &["error", "errors", "error_code", "error_msg", "error_message", "base_resp", "last_error"];
/// Members that may stand beside an error without being content.
const ENVELOPE_MEMBERS: &[&str] = &[
    "code",
    "created",
    "created_at",
    "detail",
    "id",
    "log_id",
    "message",
    "model",
    "msg",
    "object",
    "param",
    "path",
    "provider",
    "request_id",
    "requestId",
    "status",
    "success",
    "timestamp",
    "trace_id",
    "type",
    "usage",
    "user_id",
];

/// The content of a server's error. It is kept while the error closes a key, so its size is bounded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ErrorReply {
    pub(crate) verdict: Verdict,
    /// A string or a number. A string has only letters, digits, `_`, `.` and `-`.
    pub(crate) error_type: Option<Value>,
    pub(crate) code: Option<Value>,
}

impl ErrorReply {
    /// Creates the reply from a verdict. `text` is an error body or a line of an event.
    pub(crate) fn new(mut verdict: Verdict, text: &[u8]) -> Self {
        verdict.model = verdict.model.filter(|model| model.len() <= WORD_MAX);
        let document = documents(text).next().unwrap_or_default();
        let document = document.get("response").filter(|inner| inner.is_object()).unwrap_or(&document);
        let error = document.get("error").filter(|inner| inner.is_object()).unwrap_or(document);
        let error = error.get("base_resp").unwrap_or(error);
        let code = ["code", "error_code", "status_code"].iter().find_map(|name| word(error.get(name)?));
        Self { verdict, error_type: error.get("type").and_then(word), code }
    }
}

/// Returns a type or a code if it is safe to repeat.
fn word(value: &Value) -> Option<Value> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let repeat = match value {
        Value::String(text) => !text.is_empty() && text.len() <= WORD_MAX && text.bytes().all(plain),
        Value::Number(number) => number.is_u64(),
        _ => false,
    };
    repeat.then(|| value.clone())
}

/// Returns true if a complete JSON document is an error and has no content.
///
/// Empty members (`null`, `false`, 0, an empty text, list or object) are not content. OpenAI's Responses API returns a
/// whole response with `"status": "failed"`, which is an error.
pub(crate) fn is_only_an_error(text: &[u8]) -> bool {
    let Ok(document) = serde_json::from_slice(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)) else { return false };
    let Some(members) = single(&document) else { return false };
    let is = |name: &str, value: &str| members.get(name).and_then(Value::as_str) == Some(value);
    let failed = is("object", "response") && is("status", "failed");
    let known = |name: &str| ERROR_MEMBERS.contains(&name) || ENVELOPE_MEMBERS.contains(&name);
    failed || members.iter().all(|(name, value)| known(name) || says_nothing(value))
}

/// Returns the members of an object, or of the only object in a list.
fn single(document: &Value) -> Option<&Map<String, Value>> {
    match document {
        Value::Array(items) => match &items[..] {
            [item] => item.as_object(),
            _ => None,
        },
        other => other.as_object(),
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// Returns the JSON objects in a text. Text before the first one is skipped, such as the `data:` of an event.
fn documents(text: &[u8]) -> impl Iterator<Item = Value> {
    let start = text.iter().position(|byte| *byte == b'{').unwrap_or(text.len());
    serde_json::Deserializer::from_slice(&text[start..]).into_iter().map_while(Result::ok)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::classify::Kind;

    fn words(text: &str) -> (Option<Value>, Option<Value>) {
        let reply = ErrorReply::new(Verdict::new(Kind::QuotaExhausted), text.as_bytes());
        (reply.error_type, reply.code)
    }

    #[test]
    fn type_and_code_are_found_in_each_form_of_an_error() {
        for (text, error_type, code) in [
            (r#"{"error":{"type":"t","code":"c"}}"#, Value::from("t"), Value::from("c")),
            (r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]"#, Value::Null, Value::from(429)),
            ("data: {\"error\":{\"type\":\"t\",\"code\":\"c\"}}\r\n", Value::from("t"), Value::from("c")),
            (r#"{"type":"error","error":{"type":"billing_error"}}"#, Value::from("billing_error"), Value::Null),
            (r#"{"response":{"error":{"code":"c"}}}"#, Value::Null, Value::from("c")),
            (r#"{"code":"Arrearage","message":"m"}"#, Value::Null, Value::from("Arrearage")),
            (r#"{"error":"words","code":"c"}"#, Value::Null, Value::from("c")),
            (r#"{"base_resp":{"status_code":1008}}"#, Value::Null, Value::from(1008)),
            (r#"{"error_code":17,"error_msg":"m"}"#, Value::Null, Value::from(17)),
            (r#"{"error":{"code":"no quotes \" in"#, Value::Null, Value::Null),
            ("no JSON", Value::Null, Value::Null),
        ] {
            let wanted = |value: Value| Some(value).filter(|value| !value.is_null());
            assert_eq!(words(text), (wanted(error_type), wanted(code)), "{text}");
        }
    }

    #[test]
    fn what_is_kept_is_small() {
        let long = "a".repeat(10_000);
        let verdict = Verdict::new(Kind::QuotaExhausted).with_model(long.clone());
        let reply = ErrorReply::new(verdict, format!(r#"{{"error":{{"code":"{long}","type":"{long}"}}}}"#).as_bytes());
        assert_eq!(reply, ErrorReply { verdict: Verdict::new(Kind::QuotaExhausted), error_type: None, code: None });
    }

    #[test]
    fn a_document_with_content_is_no_error() {
        for (text, expected) in [
            (r#"{"error":{"code":"c"}}"#, true),
            ("\u{feff}{\"error\":1}\n", true),
            (r#"{"error":{},"choices":null,"n":0,"flag":false,"text":"","list":[],"map":{}}"#, true),
            (r#"{"error":{},"choices":[{}]}"#, false),
            (r#"{"error":{},"n":1}"#, false),
            (r#"{"error":{},"flag":true}"#, false),
            (r#"{"object":"response","status":"failed","output":[{}],"error":{}}"#, true),
            (r#"{"object":"batch","status":"failed","output":[{}],"error":{}}"#, false),
            (r#"[{"error":{}}]"#, true),
            (r#"[{"error":{}},{}]"#, false),
            (r#"{"error":{}} {"error":{}}"#, false),
            (r#"{"error":{"code":"#, false),
            (r#""error""#, false),
        ] {
            assert_eq!(is_only_an_error(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text: Vec<u8>) {
            let _ = (is_only_an_error(&text), ErrorReply::new(Verdict::new(Kind::QuotaExhausted), &text));
        }
    }
}
