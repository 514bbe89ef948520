//! Reads an error body in any format: its codes, its messages, and fields that hold delays and figures.

mod fields;
mod unknown_fields;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::time::Duration;

use crate::classify::body::fields::{Field, MAX_NAME, field_of};
use crate::classify::body::unknown_fields::{Rest, is_request, repeats_status};
use crate::classify::parse::duration;
use crate::classify::parse::json::{self, Path, Scalar};
use crate::classify::parse::number::number;
use crate::classify::{Scope, codes};

/// The maximum number of body bytes read: 64 KiB, as the retry layer reads.
const MAX_BODY: usize = 64 * 1024;
/// The maximum length of the messages that are searched: 8 KiB.
const MAX_TEXT: usize = 8 * 1024;
/// The maximum number of headers taken from a body.
const MAX_HEADERS: usize = 32;
/// The maximum depth of JSON documents inside messages.
const MAX_NESTING: usize = 3;
/// The maximum length of all codes, in bytes.
const MAX_CODES: usize = 2048;
/// The maximum length of a code, in bytes.
const MAX_CODE: usize = 80;

/// The content of an error body.
#[derive(Debug, Default)]
pub(crate) struct ErrorBody {
    /// The codes and types, squeezed (see [`squeeze`]), one per line.
    pub(crate) codes: String,
    /// Squeezed texts of more than one word that may be codes or messages, one per line.
    pub(crate) titles: String,
    /// Whether the body has the form of an Amazon error.
    pub(crate) amazon: bool,
    /// The counted unit, by a field such as `rate_limit_type`.
    pub(crate) axis: Option<Scope>,
    /// The messages, one per line. The last has no line end if the body was cut off within it.
    pub(crate) text: String,
    /// Whether the body is an HTML or XML page. The wording of a page is used; its figures are not.
    pub(crate) is_page: bool,
    /// Whether a code is one of this crate's own: `local_queue_full` and similar.
    pub(crate) local: bool,
    /// The status given in the body. It is used if the response itself has a success status.
    pub(crate) status: Option<StatusCode>,
    /// The longest delay that a field states.
    pub(crate) delay: Option<Duration>,
    pub(crate) limit: Option<f64>,
    pub(crate) used: Option<f64>,
    pub(crate) requested: Option<f64>,
    pub(crate) model: Option<String>,
    /// Rate-limit headers that a gateway put into the body.
    pub(crate) headers: HeaderMap,
}

impl ErrorBody {
    /// Reads `body`. With `errors_only`, for a response with a success status, only fields below a key such as `error`
    /// count. `now` returns the time since the epoch. It is called only if the body gives a date.
    pub(crate) fn read(body: &[u8], errors_only: bool, now: &dyn Fn() -> Option<Duration>) -> Self {
        let mut found = Self::default();
        let body = &body[..body.len().min(MAX_BODY)];
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
        if body.is_empty() || is_binary(body) {
            return found;
        }
        found.is_page = body[0] == b'<';
        match class_in_xml(body).filter(|_| found.is_page && !errors_only) {
            Some(class) => found.add_class(class),
            None if found.is_page => {}
            None => found.document(body, errors_only, 0, now),
        }
        if found.text.is_empty() && (found.codes.is_empty() || found.is_page) && !errors_only {
            found.message(&String::from_utf8_lossy(&body[..body.len().min(MAX_TEXT)]));
        }
        found
    }

    fn document(&mut self, body: &[u8], errors_only: bool, nesting: usize, now: &dyn Fn() -> Option<Duration>) {
        let Some(start) = json::start(body) else {
            return;
        };
        let mut rest = Rest::default();
        let before = self.text.len();
        json::walk(&body[start..], |path, scalar| {
            if !errors_only || is_error(path) || path.last() == Some(&&b"model"[..]) {
                self.field(path, scalar, now, &mut rest);
            }
        });
        // If no known field holds a message, any field with words is used. The same applies to a document inside a
        // message.
        if !errors_only && (nesting > 0 || repeats_status(&self.text[before..])) {
            rest.words.iter().for_each(|words| self.either(b"", words));
        }
        let again = rest.again;
        if nesting == 0 && !errors_only && !(self.text.is_empty() && self.codes.is_empty()) {
            self.message(&String::from_utf8_lossy(&body[..start.min(MAX_TEXT)]));
        }
        for inner in again {
            if nesting < MAX_NESTING {
                self.document(inner.as_bytes(), false, nesting + 1, now);
            }
        }
    }

    fn field<'a>(
        &mut self,
        path: Path<'_, 'a>,
        scalar: Scalar<'a>,
        now: &dyn Fn() -> Option<Duration>,
        rest: &mut Rest,
    ) {
        let (key, parent) = (path.last().copied().unwrap_or_default(), path.iter().nth_back(1).copied());
        let cut = matches!(scalar, Scalar::Cut(_));
        let (raw, quoted) = match scalar {
            Scalar::Text(raw) | Scalar::Cut(raw) => (raw, true),
            Scalar::Bare(b"null" | b"None" | b"true" | b"false" | b"True" | b"False") => return,
            Scalar::Bare(raw) => (raw, false),
        };
        if parent.is_some_and(|p| p.eq_ignore_ascii_case(b"headers")) {
            return self.header(key, raw);
        }
        self.amazon |= key == b"__type";
        let mut buffer = [0; MAX_NAME];
        // A delay may be an object: `"retryDelay": {"seconds": 36}`.
        let key = if key == b"seconds" { parent.unwrap_or(key) } else { key };
        let (name, field) = field_of(key, &mut buffer);
        match field {
            Field::Code => self.code(name, raw),
            Field::Message | Field::Either if quoted => {
                let text = json::unescape(raw);
                if matches!(field, Field::Either) {
                    self.either_code(name, raw);
                }
                match json::start(text.as_bytes()) {
                    Some(at) if text[at..].contains(['"', '\'']) => {
                        self.message(&text[..at]);
                        rest.again.push(text.into_owned());
                    }
                    _ => self.message(&text),
                }
                if cut && self.text.ends_with('\n') {
                    self.text.pop();
                }
            }
            Field::Delay => self.delay(duration::reset(raw, now)),
            Field::Millis => self.delay(duration::millis(raw)),
            Field::Moment => self.delay(duration::reset(raw, now)),
            Field::Limit => self.limit = self.limit.or_else(|| figure(raw)),
            Field::Used => self.used = self.used.or_else(|| figure(raw)),
            Field::Requested => self.requested = self.requested.or_else(|| figure(raw)),
            Field::Model if quoted && self.model.is_none() && raw.len() <= 100 => {
                self.model = Some(json::unescape(raw).into_owned()).filter(|m| !m.is_empty());
            }
            Field::Axis => self.axis = self.axis.or_else(|| codes::scope_of_header(raw)),
            Field::Other if quoted && !is_request(path) => rest.other(name, raw),
            _ => {}
        }
    }

    fn either(&mut self, key: &[u8], text: &str) {
        self.either_code(key, text.as_bytes());
        self.message(text);
    }

    /// Adds a text that may be a code. A text of more than one word goes to `titles`.
    fn either_code(&mut self, key: &[u8], raw: &[u8]) {
        if !raw.trim_ascii().contains(&b' ') {
            return self.code(key, raw);
        }
        if raw.len() <= MAX_CODE && self.titles.len() <= MAX_CODES {
            squeeze(raw, &mut self.titles);
            self.titles.push('\n');
        }
    }

    fn code(&mut self, key: &[u8], raw: &[u8]) {
        // Amazon puts a namespace before the class: `com.amazon.coral.availability#ThrottlingException`.
        let raw = raw.rsplit(|b| *b == b'#').next().unwrap_or_default();
        if raw.len() > MAX_CODE || raw.is_empty() || self.codes.len() > MAX_CODES {
            return;
        }
        self.local |= raw.starts_with(b"local_");
        if let Some(status) = status(raw) {
            self.status = self.status.or(Some(status));
        }
        if key == b"errorcode" && raw.len() < 3 {
            self.codes.push_str("errorcode");
        }
        squeeze(raw, &mut self.codes);
        self.codes.push('\n');
    }

    /// Adds the error class from Amazon's header: `ThrottlingException:http://…`.
    pub(crate) fn add_class(&mut self, header: &[u8]) {
        self.amazon = true;
        self.code(b"", header.split(|b| *b == b':').next().unwrap_or_default());
    }

    fn message(&mut self, text: &str) {
        let room = MAX_TEXT.saturating_sub(self.text.len());
        if text.contains('\u{2019}') {
            return self.message(&text.replace('\u{2019}', "'"));
        }
        let text = text.trim();
        if text.is_empty() || room == 0 {
            return;
        }
        let end = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.text.push_str(&text[..end]);
        self.text.push('\n');
    }

    fn delay(&mut self, delay: Option<Duration>) {
        self.delay = self.delay.max(delay);
    }

    fn header(&mut self, key: &[u8], raw: &[u8]) {
        let header = (HeaderName::from_bytes(key), HeaderValue::from_bytes(raw));
        if let ((Ok(name), Ok(value)), true) = (header, self.headers.len() < MAX_HEADERS) {
            self.headers.append(name, value);
        }
    }
}

/// Returns the error class of Amazon's query protocol: `<Code>Throttling</Code>`.
fn class_in_xml(body: &[u8]) -> Option<&[u8]> {
    let place = |text: &[u8], tag: &[u8]| text.windows(tag.len()).position(|window| window == tag);
    let rest = &body[place(body, b"<Code>")? + b"<Code>".len()..];
    Some(&rest[..place(rest, b"</Code>")?])
}

/// Appends the letters in lower case and the digits, and drops all else. `Throttling.RateQuota` and
/// `throttling_rate_quota` become equal.
pub(crate) fn squeeze(raw: &[u8], into: &mut String) {
    into.extend(raw.iter().filter(|b| b.is_ascii_alphanumeric()).map(|b| b.to_ascii_lowercase() as char));
}

/// Returns true if a field of a success response belongs to the response's own error, not to one item among many.
fn is_error(path: Path<'_, '_>) -> bool {
    let path = match path {
        [b"response" | b"", inner @ ..] => inner,
        whole => whole,
    };
    matches!(path.first(), Some(&(b"error" | b"errors" | b"base_resp" | b"error_code" | b"error_msg" | b"last_error")))
}

fn status(raw: &[u8]) -> Option<StatusCode> {
    (raw.len() == 3 && matches!(raw[0], b'4' | b'5')).then(|| StatusCode::from_bytes(raw).ok())?
}

fn figure(raw: &[u8]) -> Option<f64> {
    let (value, end) = number(raw)?;
    (end == raw.len()).then(|| value.as_f64())
}

/// Returns true if the body is not text: it begins with the magic bytes of gzip or zstd, or has many control bytes.
fn is_binary(body: &[u8]) -> bool {
    let head = &body[..body.len().min(128)];
    let control = head.iter().filter(|b| **b < 0x20 && !b.is_ascii_whitespace() || **b == 0x7f).count();
    head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || control * 16 > head.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> ErrorBody {
        ErrorBody::read(body, false, &|| Some(Duration::from_secs(1_700_000_000)))
    }

    #[test]
    fn codes_of_every_type() {
        for (body, codes) in [
            (r#"{"error":{"type":"requests","code":null,"message":"m"}}"#, "requests\n"),
            (r#"{"error":{"code":1302,"message":"m"}}"#, "1302\n"),
            (r#"{"error":"rate_limit"}"#, "ratelimit\n"),
            (r#"[{"error":{"status":"RESOURCE_EXHAUSTED"}}]"#, "resourceexhausted\n"),
            (r#"{"code":"Throttling.RateQuota","message":"m"}"#, "throttlingratequota\n"),
            ("{'error': {'code': 'slow_down'", "slowdown\n"),
        ] {
            assert_eq!(read(body.as_bytes()).codes, codes, "{body}");
        }
    }

    #[test]
    fn json_inside_a_message_is_read_too() {
        let body =
            r#"{"error":{"message":"upstream: {\"error\":{\"code\":\"insufficient_quota\",\"message\":\"no\"}}"}}"#;
        let found = read(body.as_bytes());
        assert_eq!(found.codes, "insufficientquota\n");
        assert_eq!(found.text, "upstream:\nno\n");
    }

    #[test]
    fn delays_in_fields() {
        for (body, ms) in [
            (r#"{"details":[{"retryDelay":"57.238747106s"}]}"#, 57_239),
            (r#"{"error":{"resets_in_seconds":77,"resets_at":1700000080}}"#, 80_000),
            (r#"{"retryAfterMs":"1500"}"#, 1500),
            (r#"{"estimated_time":20.5}"#, 20_500),
        ] {
            let delay = read(body.as_bytes()).delay.map(duration::ceil_ms);
            assert_eq!(delay, Some(Duration::from_millis(ms)), "{body}");
        }
    }

    #[test]
    fn unreadable_is_left_alone() {
        for body in [&b"\x1f\x8b\x08\0\0quota"[..], b"\0\x01\x02\x03insufficient_quota", b"", b"   "] {
            let found = read(body);
            assert!(found.text.is_empty() && found.codes.is_empty(), "{body:?}");
        }
        assert_eq!(read(b"caf\xe9 overloaded").text, "caf\u{fffd} overloaded\n");
    }

    #[test]
    fn a_success_has_errors_only_below_error() {
        let read = |body: &str| ErrorBody::read(body.as_bytes(), true, &|| None);
        assert_eq!(read(r#"{"message":"rate limit","type":"tokens"}"#).codes, "");
        assert_eq!(read(r#"{"error":{"code":429}}"#).status, Some(StatusCode::TOO_MANY_REQUESTS));
    }
}
