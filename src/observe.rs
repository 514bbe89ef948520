//! Errors inside successes: looks at a body as it streams by, copies nothing, and reads only what may be one.
//!
//! An event stream is looked at line by line, JSON as a whole, both up to [`LINE_MAX`]. A line is read only when it
//! contains `"error"` with both its quotes: within a string of a JSON document they would be escaped.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use memchr::memmem::{self, Finder};
use memchr::{memchr, memrchr};

use crate::classify::{Kind, Verdict};

/// A longer line, or a longer JSON document, is no error: 64 KiB.
pub(crate) const LINE_MAX: usize = 64 << 10;
/// The pieces of a line that are remembered, whatever their size.
const PIECES_MAX: usize = 4096;
/// What an event that is an error contains.
static IN_EVENT: LazyLock<[Finder<'static>; 1]> = LazyLock::new(|| [Finder::new(b"\"error\"")]);
/// What a JSON document that is an error contains: `"error"`, `"error_code"`; or MiniMax's own envelope.
static IN_JSON: LazyLock<[Finder<'static>; 2]> =
    LazyLock::new(|| [Finder::new(b"\"error"), Finder::new(b"\"base_resp\"")]);
/// What tells the tokens that a call has used.
const IN_USAGE: &[u8] = b"\"total_tokens\"";
/// One less than the longest of these: what has to be remembered of a piece that may end within one.
const CARRY: usize = 10;

/// What is known of a body so far.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    form: Form,
    /// It did not come at once with its head. Kept here, where it takes no room: bodies are moved, and each move is a copy.
    waited: bool,
    /// The unfinished line, or the document so far; made only when one does not arrive in one piece.
    pieces: Option<Box<Pieces>>,
    /// Where somebody wants to know what the call has used.
    usage: Option<Usage>,
}

/// Tokens, as small as they are in a [`Cost`](crate::Cost): each response body carries room for them.
#[derive(Debug)]
struct Usage {
    estimated: f32,
    used: Option<f32>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Neither: not looked at.
    #[default]
    Other,
    Json,
    Events,
}

#[derive(Debug, Default)]
struct Pieces {
    pieces: Vec<Bytes>,
    len: usize,
    /// One of the words has been seen.
    suspicious: bool,
    /// Too long to be an error: forgotten up to its end.
    skipped: bool,
    /// The last bytes before the next piece.
    carry: [u8; CARRY],
    carried: usize,
}

impl Observer {
    /// An observer for a body of the type that these headers say.
    #[inline]
    pub(crate) fn new(headers: &HeaderMap) -> Self {
        let form = match headers.get(CONTENT_TYPE).map(|value| value.as_bytes()) {
            Some(kind) if starts_with(kind, b"text/event-stream") => Form::Events,
            Some(kind) if starts_with(kind, b"application/json") => Form::Json,
            _ => Form::Other,
        };
        let encoded = form != Form::Other && headers.contains_key(CONTENT_ENCODING);
        Self { form: if encoded { Form::Other } else { form }, ..Self::default() }
    }

    /// Also looks for the tokens that were used.
    pub(crate) fn with_usage(mut self, estimated: Option<f64>) -> Self {
        self.usage = estimated.map(|estimated| Usage { estimated: estimated as f32, used: None });
        self
    }

    /// What the call was estimated at, and what the body said last that it has used. One that says so across two pieces is
    /// not understood: then the estimate stands.
    pub(crate) fn usage(&self) -> Option<(f64, f64)> {
        let usage = self.usage.as_ref()?;
        Some((usage.estimated.into(), usage.used?.into()))
    }

    /// The next piece of the body is not there yet.
    pub(crate) fn waits(&mut self) {
        self.waited = true;
    }

    /// Whether the body was ever waited for.
    pub(crate) fn waited(&self) -> bool {
        self.waited
    }

    /// Whether the body is an event stream.
    pub(crate) fn is_events(&self) -> bool {
        self.form == Form::Events
    }

    /// Looks at the next piece of the body; `last` when none follows. Tells of an error that is complete with it.
    #[inline]
    pub(crate) fn see(&mut self, data: &Bytes, last: bool) -> Option<Verdict> {
        if let Some(usage) = &mut self.usage
            && self.form != Form::Other
        {
            usage.used = tokens_used(data).or(usage.used);
        }
        match self.form {
            Form::Other => None,
            Form::Json => self.see_json(data, last),
            Form::Events => {
                let found = self.see_events(data);
                if last { self.end().or(found) } else { found }
            }
        }
    }

    /// The body has ended: what was left unfinished counts.
    pub(crate) fn end(&mut self) -> Option<Verdict> {
        let pieces = self.pieces.take()?;
        if pieces.suspicious && !pieces.skipped { verdict(&pieces.concat()) } else { None }
    }

    fn see_json(&mut self, data: &Bytes, last: bool) -> Option<Verdict> {
        if last && self.pieces.is_none() {
            let suspicious = data.len() <= LINE_MAX && IN_JSON.iter().any(|word| word.find(data).is_some());
            return if suspicious { verdict(data) } else { None };
        }
        let pieces = self.pieces.get_or_insert_default();
        pieces.push(data.clone(), &*IN_JSON);
        if pieces.skipped {
            (self.form, self.pieces) = (Form::Other, None); // too long: nothing more to look at
        }
        if last { self.end() } else { None }
    }

    fn see_events(&mut self, data: &Bytes) -> Option<Verdict> {
        let mut found = None;
        let mut rest = 0;
        if self.pieces.is_some() {
            let Some(end) = memchr(b'\n', data) else {
                self.keep(data.clone());
                return None;
            };
            self.keep(data.slice(..end));
            found = self.end();
            rest = end + 1;
        }
        // Most pieces end with a line.
        let whole = data.last() == Some(&b'\n');
        let complete =
            if whole { data.len() } else { memrchr(b'\n', &data[rest..]).map_or(rest, |end| rest + end + 1) };
        let lines = &data[rest..complete];
        let mut from = 0;
        while let Some(at) = IN_EVENT[0].find(&lines[from..]).map(|at| from + at) {
            let start = memrchr(b'\n', &lines[..at]).map_or(0, |end| end + 1);
            let end = memchr(b'\n', &lines[at..]).map_or(lines.len(), |end| at + end);
            found = found.or_else(|| verdict(&lines[start..end]));
            from = end;
        }
        if complete < data.len() {
            self.keep(data.slice(complete..));
        }
        found
    }

    fn keep(&mut self, piece: Bytes) {
        self.pieces.get_or_insert_default().push(piece, &*IN_EVENT);
    }
}

impl Pieces {
    fn push(&mut self, piece: Bytes, words: &[Finder<'_>]) {
        if self.skipped {
            return;
        }
        self.len += piece.len();
        if self.len > LINE_MAX || self.pieces.len() >= PIECES_MAX {
            *self = Self { skipped: true, ..Self::default() };
            return;
        }
        if !self.suspicious {
            let mut seam = [0; 2 * CARRY];
            let after = piece.len().min(CARRY);
            seam[..self.carried].copy_from_slice(&self.carry[..self.carried]);
            seam[self.carried..self.carried + after].copy_from_slice(&piece[..after]);
            let seam = &seam[..self.carried + after];
            let has = |text: &[u8]| words.iter().any(|word| word.find(text).is_some());
            self.suspicious = has(&piece) || has(seam);
            let carry = if piece.len() >= CARRY { &piece[piece.len() - CARRY..] } else { seam };
            let kept = carry.len().min(CARRY);
            self.carry[..kept].copy_from_slice(&carry[carry.len() - kept..]);
            self.carried = kept;
        }
        self.pieces.push(piece);
    }

    fn concat(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

/// What a line or a document says, if it is an error.
fn verdict(text: &[u8]) -> Option<Verdict> {
    let verdict = Verdict::of(StatusCode::OK, &HeaderMap::new(), text);
    (verdict.kind != Kind::Pass).then_some(verdict)
}

/// What the first event says, once its data is complete: `None` before that.
pub(crate) fn first_event(read: &[u8]) -> Option<Option<Verdict>> {
    let mut rest = read;
    while let Some(end) = memchr(b'\n', rest) {
        let line = &rest[..end];
        if line.starts_with(b"data:") {
            return Some(verdict(line));
        }
        rest = &rest[end + 1..];
    }
    None
}

/// The last `"total_tokens": n`.
fn tokens_used(data: &[u8]) -> Option<f32> {
    let at = memmem::rfind(data, IN_USAGE)? + IN_USAGE.len();
    let number =
        data[at..].iter().skip_while(|byte| matches!(byte, b':' | b' ')).take_while(|byte| byte.is_ascii_digit());
    let number: Vec<u8> = number.take(12).copied().collect();
    std::str::from_utf8(&number).ok()?.parse().ok()
}

fn starts_with(value: &[u8], prefix: &[u8]) -> bool {
    value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn observer(kind: &'static str) -> Observer {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
        Observer::new(&headers)
    }

    fn seen(kind: &'static str, pieces: &[&[u8]]) -> Option<Kind> {
        let mut observer = observer(kind);
        let mut found = None;
        for (at, piece) in pieces.iter().enumerate() {
            found = found.or(observer.see(&Bytes::copy_from_slice(piece), at + 1 == pieces.len()));
        }
        found.or(observer.end()).map(|verdict| verdict.kind)
    }

    const DELTA: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"an \\\"error\\\": {\\\"code\\\": 429}\"}}]}\n\n";
    const ERRORS: [&str; 4] = [
        "event: error\ndata: {\"type\": \"error\", \"error\": {\"type\": \"overloaded_error\", \"message\": \"Overloaded\"}}\n\n",
        "data: {\"error\":{\"message\":\"Rate limit reached for requests\",\"type\":\"requests\",\"code\":\"rate_limit_exceeded\"}}\n\n",
        "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"Rate limit reached. Please try again in 1.2s.\"}}}\n\n",
        "data: {\"id\":\"gen-1\",\"choices\":[],\"error\":{\"code\":429,\"message\":\"Rate limit exceeded\"}}\r\n\r\n",
    ];

    #[test]
    fn an_error_event_is_found_and_words_within_a_text_are_not() {
        assert_eq!(seen("text/event-stream; charset=utf-8", &[DELTA.as_bytes(), DELTA.as_bytes()]), None);
        for error in ERRORS {
            let kind = seen("text/event-stream", &[DELTA.as_bytes(), error.as_bytes(), DELTA.as_bytes()]);
            assert!(matches!(kind, Some(Kind::RateLimited | Kind::Overloaded)), "{kind:?}: {error}");
        }
        assert_eq!(seen("text/plain", &[ERRORS[1].as_bytes()]), None, "not what it says it is");
    }

    #[test]
    fn an_error_document_is_found_in_one_piece_and_in_many() {
        let error = br#"{"error":{"message":"Rate limit exceeded","code":429}}"#;
        let pieces: Vec<&[u8]> = error.chunks(3).collect();
        assert_eq!(seen("application/json", &[error]), Some(Kind::RateLimited));
        assert_eq!(seen("application/json", &pieces), Some(Kind::RateLimited));
        assert_eq!(seen("application/json", &[br#"{"id":"x","error":null,"choices":[]}"#]), None);
    }

    #[test]
    fn a_line_without_end_is_forgotten_and_what_follows_it_is_seen() {
        let mut observer = observer("text/event-stream");
        let long = Bytes::from(vec![b'x'; 1000]);
        assert!((0..1000).all(|_| observer.see(&long, false).is_none()));
        assert!(observer.pieces.as_ref().is_some_and(|pieces| pieces.pieces.is_empty()), "nothing is held");
        assert!(observer.see(&Bytes::from(format!("\"error\"\n{}", ERRORS[1])), false).is_some());
    }

    #[test]
    fn the_tokens_used_are_read_only_when_somebody_wants_to_know() {
        let body = Bytes::from_static(br#"{"choices":[],"usage":{"prompt_tokens":9,"total_tokens": 1234}}"#);
        for (estimated, expected) in [(None, None), (Some(50.0), Some((50.0, 1234.0)))] {
            let mut observer = observer("application/json").with_usage(estimated);
            observer.see(&body, true);
            assert_eq!(observer.usage(), expected);
        }
        assert_eq!(tokens_used(b"\"total_tokens\":null"), None);
    }

    #[test]
    fn the_first_event_is_known_when_its_data_is_complete() {
        assert_eq!(first_event(b": keep-alive\n\nevent: error\ndata: {\"error\""), None);
        assert_eq!(first_event(DELTA.as_bytes()), Some(None));
        assert!(first_event(format!(": hello\n\n{}", ERRORS[0]).as_bytes()).flatten().is_some());
    }

    proptest! {
        #[test]
        fn it_makes_no_difference_where_a_stream_is_split(
            order in proptest::collection::vec(0..6_usize, 1..8),
            cuts in proptest::collection::vec(0..2_000_usize, 0..12),
        ) {
            let text: String = order.iter().map(|at| ERRORS.get(*at).copied().unwrap_or(DELTA)).collect();
            let text = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            let whole = text.split(|byte| *byte == b'\n').find_map(verdict).map(|verdict| verdict.kind);
            prop_assert_eq!(seen("text/event-stream", &pieces), whole);
        }

        #[test]
        fn any_bytes_in_any_pieces_are_seen_without_panic(pieces: Vec<Vec<u8>>) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let _ = (seen("text/event-stream", &pieces), seen("application/json", &pieces));
        }
    }
}
