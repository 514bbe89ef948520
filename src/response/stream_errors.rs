//! Finds errors inside the bodies of successful responses while they stream through, without copying them.
//!
//! An event stream is searched by line, a JSON body as a whole, both up to [`LINE_MAX`]. A line is parsed only if it
//! contains `"error"` with both quotes, or a similar word; inside a JSON string the quotes would be escaped. A JSON
//! document counts only if it is an error without other content.

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use bytes::Bytes;
use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use memchr::memmem::{self, Finder};
use memchr::{memchr, memrchr};

use super::error_reply::{ErrorReply, is_only_an_error};

/// The maximum length of a line or a JSON document that is parsed: 64 KiB.
pub(crate) const LINE_MAX: usize = 64 << 10;
/// The maximum number of pieces of a line that are kept. It bounds the memory used by small pieces.
const PIECES_MAX: usize = 4096;
/// Words of which an error event contains at least one.
static IN_EVENT: LazyLock<[Finder<'static>; 3]> =
    LazyLock::new(|| [Finder::new(b"\"error\""), Finder::new(b"\"error_code\""), Finder::new(b"\"base_resp\"")]);
/// Words of which a JSON error document contains at least one: `"error"`, `"error_code"`, or MiniMax's `"base_resp"`.
static IN_JSON: LazyLock<[Finder<'static>; 2]> =
    LazyLock::new(|| [Finder::new(b"\"error"), Finder::new(b"\"base_resp\"")]);
/// The prefix of an event's data line.
const DATA: &[u8] = b"data:";
/// The member that holds the tokens that a call has used.
const IN_USAGE: &[u8] = b"\"total_tokens\"";
/// The length of the longest word less one: the bytes kept of a piece, since it may end within a word.
const CARRY: usize = 11;

/// Parses possible errors of a body and receives the results.
pub(crate) trait BodyErrors: Send + Sync {
    /// Parses a text. Returns `None` if it is not an error.
    fn read(&self, text: &[u8]) -> Option<ErrorReply>;
    /// Receives an error of the body. It may run a callback of the user.
    fn found(&mut self, error: ErrorReply);
    /// Returns true if the result of [`none_found`](Self::none_found) is needed.
    fn waits(&self) -> bool;
    /// Receives that the first event, or the whole document, is not an error. It may run a callback of the user.
    fn none_found(&mut self);
}

/// The state of the search in one body.
#[derive(Default)]
pub(crate) struct Observer {
    form: Form,
    /// `None` if errors are not searched for.
    errors: Option<Box<dyn BodyErrors>>,
    /// The unfinished line or document. It is created only if a line does not arrive in one piece.
    pieces: Option<Box<Pieces>>,
    /// `None` if the used tokens are not searched for.
    usage: Option<Usage>,
}

/// Token counts as `f32`, to save memory: each response body holds one.
#[derive(Debug)]
struct Usage {
    estimated: f32,
    used: Option<f32>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Any other type. It is not searched.
    #[default]
    Other,
    Json,
    Events,
}

#[derive(Debug, Default)]
struct Pieces {
    pieces: Vec<Bytes>,
    len: usize,
    /// Whether one of the words was found.
    suspicious: bool,
    /// Whether the line is too long to be an error. It is dropped up to its end.
    skipped: bool,
    /// The last bytes of the previous piece.
    carry: [u8; CARRY],
    carried: usize,
}

impl Observer {
    /// Creates an observer for a body with these headers.
    pub(crate) fn new(headers: &HeaderMap) -> Self {
        let form = match headers.get(CONTENT_TYPE).map(|value| value.as_bytes()) {
            Some(kind) if starts_with(kind, b"text/event-stream") => Form::Events,
            Some(kind) if starts_with(kind, b"application/json") => Form::Json,
            _ => Form::Other,
        };
        let encoded = form != Form::Other && headers.contains_key(CONTENT_ENCODING);
        Self { form: if encoded { Form::Other } else { form }, ..Self::default() }
    }

    /// Enables the search for errors, if the type of the body is searched.
    pub(crate) fn with_errors(mut self, errors: impl FnOnce() -> Box<dyn BodyErrors>) -> Self {
        self.errors = (self.form != Form::Other).then(errors);
        self
    }

    /// Returns true if the type of the body is searched.
    pub(crate) fn looks(&self) -> bool {
        self.form != Form::Other
    }

    /// Enables the search for the used tokens, if the cost was estimated.
    pub(crate) fn with_usage(mut self, estimated: Option<f64>) -> Self {
        self.usage = estimated.map(|estimated| Usage { estimated: estimated as f32, used: None });
        self
    }

    /// Returns the estimated tokens and the last used tokens that the body states. A number split across two pieces is
    /// not found; the estimate then stays.
    pub(crate) fn usage(&self) -> Option<(f64, f64)> {
        let usage = self.usage.as_ref()?;
        Some((usage.estimated.into(), usage.used?.into()))
    }

    /// Returns true if the body is an event stream.
    pub(crate) fn is_events(&self) -> bool {
        self.form == Form::Events
    }

    /// Searches the next piece of the body. `last` is true if no piece follows. It reports an error that is complete
    /// with this piece.
    pub(crate) fn see(&mut self, data: Option<&Bytes>, last: bool) {
        if let (Some(data), Some(usage)) = (data, &mut self.usage)
            && self.form != Form::Other
        {
            usage.used = tokens_used(data).or(usage.used);
        }
        let Some(mut errors) = self.errors.take() else { return };
        let mut passed = false; // the first event, or the whole document, is complete
        let found = match (self.form, data) {
            (Form::Other, _) | (_, None) => None,
            (Form::Json, Some(data)) => self.see_json(data, last, &*errors),
            (Form::Events, Some(data)) => self.see_events(data, &*errors, &mut passed),
        };
        let found = if last { found.or_else(|| self.end(&*errors)) } else { found };
        match found {
            Some(error) => errors.found(error),
            None if (passed || last) && errors.waits() => errors.none_found(),
            None => {}
        }
        self.errors = Some(errors);
    }

    /// Parses the unfinished line or document at its end.
    fn end(&mut self, errors: &dyn BodyErrors) -> Option<ErrorReply> {
        let pieces = self.pieces.take()?;
        let text = (pieces.suspicious && !pieces.skipped).then(|| pieces.concat())?;
        self.read(&text, errors)
    }

    fn read(&self, text: &[u8], errors: &dyn BodyErrors) -> Option<ErrorReply> {
        if self.form == Form::Json && !is_only_an_error(text) { None } else { errors.read(text) }
    }

    fn see_json(&mut self, data: &Bytes, last: bool, errors: &dyn BodyErrors) -> Option<ErrorReply> {
        if last && self.pieces.is_none() {
            let suspicious = data.len() <= LINE_MAX && IN_JSON.iter().any(|word| word.find(data).is_some());
            return if suspicious { self.read(data, errors) } else { None };
        }
        self.pieces.get_or_insert_default().push(data.clone(), &*IN_JSON);
        None
    }

    fn see_events(&mut self, data: &Bytes, errors: &dyn BodyErrors, passed: &mut bool) -> Option<ErrorReply> {
        let mut found = None;
        let mut rest = 0;
        if self.pieces.is_some() {
            let Some(end) = memchr(b'\n', data) else {
                self.keep(data.clone());
                return None;
            };
            self.keep(data.slice(..end));
            *passed = self.pieces.as_ref().is_some_and(|pieces| pieces.is_data());
            found = self.end(errors);
            rest = end + 1;
        }
        // Most pieces end at a line end.
        let whole = data.last() == Some(&b'\n');
        let complete =
            if whole { data.len() } else { memrchr(b'\n', &data[rest..]).map_or(rest, |end| rest + end + 1) };
        let lines = &data[rest..complete];
        *passed |= errors.waits() && lines.split(|byte| *byte == b'\n').any(|line| line.starts_with(DATA));
        let mut from = 0;
        while let Some(at) = IN_EVENT.iter().filter_map(|word| word.find(&lines[from..])).min().map(|at| from + at) {
            let start = memrchr(b'\n', &lines[..at]).map_or(0, |end| end + 1);
            let end = memchr(b'\n', &lines[at..]).map_or(lines.len(), |end| at + end);
            found = found.or_else(|| errors.read(&lines[start..end]));
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

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("form", &self.form).finish_non_exhaustive()
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

    /// Returns true if the line is the data of an event. A line that is too long counts as data.
    fn is_data(&self) -> bool {
        self.skipped || self.pieces.iter().flatten().take(DATA.len()).eq(DATA)
    }
}

/// Returns the data line of the first event, or `None` if it is not complete.
pub(crate) fn first_event(read: &[u8]) -> Option<&[u8]> {
    let mut rest = read;
    while let Some(end) = memchr(b'\n', rest) {
        let line = &rest[..end];
        if line.starts_with(DATA) {
            return Some(line);
        }
        rest = &rest[end + 1..];
    }
    None
}

/// Returns the last `"total_tokens": n`.
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
