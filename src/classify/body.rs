//! Reads an error body, whatever its form: its codes, its messages, and the delays and figures in fields of their own.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::time::Duration;

use super::duration;
use super::lenient::{self, Path, Scalar};
use super::number::number;

/// No more of a body than this is read: what the retry layer reads of one.
const MAX_BODY: usize = 64 * 1024;
/// No more of the messages than this is searched.
const MAX_TEXT: usize = 8 * 1024;
/// No more headers than this are taken from a body.
const MAX_HEADERS: usize = 32;
/// How often a message is read again as JSON, when it holds some.
const MAX_NESTING: usize = 2;
/// No more codes than this are kept, in bytes.
const MAX_CODES: usize = 2048;
/// The longest text that may be a code.
const MAX_CODE: usize = 80;

/// What an error body says.
#[derive(Debug, Default)]
pub(super) struct ErrorBody {
    /// Its codes and types, squeezed (see [`squeeze`]), a line each.
    pub(super) codes: String,
    /// Its messages, a line each; the last without an end if the body was cut off within it.
    pub(super) text: String,
    /// A page for people, from a proxy or an edge: its wording tells the kind, its figures tell nothing.
    pub(super) is_page: bool,
    /// A code of this crate's own: `local_queue_full` and the like.
    pub(super) local: bool,
    /// A status that the body gives, which counts when the answer's own is a success.
    pub(super) status: Option<StatusCode>,
    /// The longest delay that a field of its own states.
    pub(super) delay: Option<Duration>,
    pub(super) limit: Option<f64>,
    pub(super) used: Option<f64>,
    pub(super) requested: Option<f64>,
    pub(super) model: Option<String>,
    /// Rate-limit headers that a gateway put into the body.
    pub(super) headers: HeaderMap,
}

/// What a field is for, told by its name.
enum Field {
    Code,
    Message,
    /// A code or a message: `error`, `reason`, `detail`.
    Either,
    Delay,
    Millis,
    Moment,
    Limit,
    Used,
    Requested,
    Model,
    Other,
}

impl ErrorBody {
    /// Reads `body`. With `errors_only`, for an answer that claims success, nothing counts but what stands below a key
    /// such as `error`. `now` is the time since the epoch, asked for only when the body gives a date.
    pub(super) fn read(body: &[u8], errors_only: bool, now: &dyn Fn() -> Option<Duration>) -> Self {
        let mut found = Self::default();
        let body = &body[..body.len().min(MAX_BODY)];
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
        if body.is_empty() || is_binary(body) {
            return found;
        }
        found.is_page = body[0] == b'<';
        if !found.is_page {
            found.document(body, errors_only, 0, now);
        }
        if found.text.is_empty() && found.codes.is_empty() && !errors_only {
            found.message(&String::from_utf8_lossy(&body[..body.len().min(MAX_TEXT)]));
        }
        found
    }

    fn document(&mut self, body: &[u8], errors_only: bool, nesting: usize, now: &dyn Fn() -> Option<Duration>) {
        let Some(start) = lenient::start(body) else {
            return;
        };
        let mut again: Vec<String> = Vec::new();
        lenient::walk(&body[start..], |path, scalar| {
            if !errors_only || is_error(path) || path.last() == Some(&&b"model"[..]) {
                self.field(path, scalar, now, &mut again);
            }
        });
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
        again: &mut Vec<String>,
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
        let mut buffer = [0; 24];
        let (name, field) = field_of(key, &mut buffer);
        match field {
            Field::Code => self.code(name, raw),
            Field::Message | Field::Either if quoted => {
                let text = lenient::unescape(raw);
                if matches!(field, Field::Either) {
                    self.code(name, raw);
                }
                match lenient::start(text.as_bytes()) {
                    Some(at) if text[at..].contains(['"', '\'']) => {
                        self.message(&text[..at]);
                        again.push(text.into_owned());
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
                self.model = Some(lenient::unescape(raw).into_owned()).filter(|m| !m.is_empty());
            }
            _ => {}
        }
    }

    fn code(&mut self, key: &[u8], raw: &[u8]) {
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

    /// A code from elsewhere: a header.
    pub(super) fn add_code(&mut self, raw: &[u8]) {
        self.code(b"", raw);
    }

    fn message(&mut self, text: &str) {
        let room = MAX_TEXT.saturating_sub(self.text.len());
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

/// Letters in lower case and digits, and nothing else: `Throttling.RateQuota` and `throttling_rate_quota` are one.
pub(super) fn squeeze(raw: &[u8], into: &mut String) {
    into.extend(raw.iter().filter(|b| b.is_ascii_alphanumeric()).map(|b| b.to_ascii_lowercase() as char));
}

fn field_of<'b>(key: &[u8], buffer: &'b mut [u8; 24]) -> (&'b [u8], Field) {
    let mut length = 0;
    for byte in key.iter().filter(|b| b.is_ascii_alphanumeric()) {
        if length == buffer.len() {
            return (b"", Field::Other);
        }
        buffer[length] = byte.to_ascii_lowercase();
        length += 1;
    }
    let name = &buffer[..length];
    let field = match name {
        b"code" | b"type" | b"status" | b"statuscode" | b"errorcode" | b"errcode" | b"errortype" | b"limitsource"
        | b"quotaid" | b"quotametric" | b"errno" => Field::Code,
        b"error" | b"reason" | b"detail" | b"details" | b"errors" | b"title" => Field::Either,
        b"message" | b"msg" | b"errormsg" | b"errormessage" | b"statusmsg" | b"description" | b"errordescription"
        | b"raw" | b"text" | b"cause" | b"" => Field::Message,
        b"retryafter" | b"retryafterseconds" | b"retryaftersecs" | b"retryaftersec" | b"retrydelay" | b"retryin"
        | b"resetsinseconds" | b"resetinseconds" | b"resetafter" | b"resetsin" | b"resetin" | b"estimatedtime"
        | b"waitseconds" | b"retrydelayseconds" => Field::Delay,
        b"retryafterms" | b"retrydelayms" | b"retryinms" | b"resetinms" | b"resetsinms" | b"retryaftermillis" => {
            Field::Millis
        }
        b"resetsat" | b"resetat" | b"resettime" | b"retryat" | b"resetdate" => Field::Moment,
        b"limit" | b"quotavalue" | b"ratelimit" | b"maxlimit" => Field::Limit,
        b"used" | b"current" | b"usage" | b"currentusage" => Field::Used,
        b"requested" => Field::Requested,
        b"model" | b"modelname" | b"modelid" => Field::Model,
        _ => Field::Other,
    };
    (name, field)
}

/// Whether an answer that claims success gives this field as its own error: not as that of one item among many.
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

/// Compressed or otherwise not meant to be read: it begins with gzip's or zstd's mark, or control bytes abound.
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
