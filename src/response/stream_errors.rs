//! Errors inside successes: looks at a body as it streams by, copies nothing, and reads only what may be one.
//!
//! An event stream is looked at line by line, JSON as a whole, both up to [`LINE_MAX`]. A line is read only when it
//! contains `"error"` with both its quotes, or the like: within a string of a JSON document they would be escaped. A JSON
//! document counts only when it is an error and nothing else.

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

/// A longer line, or a longer JSON document, is no error: 64 KiB.
pub(crate) const LINE_MAX: usize = 64 << 10;
/// The pieces of a line that are remembered, whatever their size.
const PIECES_MAX: usize = 4096;
/// What an event that is an error contains one of.
static IN_EVENT: LazyLock<[Finder<'static>; 3]> =
    LazyLock::new(|| [Finder::new(b"\"error\""), Finder::new(b"\"error_code\""), Finder::new(b"\"base_resp\"")]);
/// What a JSON document that is an error contains: `"error"`, `"error_code"`; or MiniMax's own envelope.
static IN_JSON: LazyLock<[Finder<'static>; 2]> =
    LazyLock::new(|| [Finder::new(b"\"error"), Finder::new(b"\"base_resp\"")]);
/// What an event's data begins with.
const DATA: &[u8] = b"data:";
/// What tells the tokens that a call has used.
const IN_USAGE: &[u8] = b"\"total_tokens\"";
/// One less than the longest of these: what has to be remembered of a piece that may end within one.
const CARRY: usize = 11;

/// Reads what may be an error, and is told of what a body turned out to hold.
pub(crate) trait BodyErrors: Send + Sync {
    /// What a text says, if it is an error.
    fn read(&self, text: &[u8]) -> Option<ErrorReply>;
    /// The body holds this error. It may run callbacks of the user's.
    fn found(&mut self, error: ErrorReply);
    /// Whether somebody waits for [`none_found`](Self::none_found).
    fn waits(&self) -> bool;
    /// The first event, or the whole document, is no error. It may run callbacks of the user's.
    fn none_found(&mut self);
}

/// What is known of a body so far.
#[derive(Default)]
pub(crate) struct Observer {
    form: Form,
    /// Without it errors are not looked for.
    errors: Option<Box<dyn BodyErrors>>,
    /// The unfinished line, or the document so far; made only when one does not arrive in one piece.
    pieces: Option<Box<Pieces>>,
    /// Where somebody wants to know what the call has used.
    usage: Option<Usage>,
}

/// Tokens, as small as they are in a [`Cost`](crate::Cost): each response body carries queue for them.
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
    pub(crate) fn new(headers: &HeaderMap) -> Self {
        let form = match headers.get(CONTENT_TYPE).map(|value| value.as_bytes()) {
            Some(kind) if starts_with(kind, b"text/event-stream") => Form::Events,
            Some(kind) if starts_with(kind, b"application/json") => Form::Json,
            _ => Form::Other,
        };
        let encoded = form != Form::Other && headers.contains_key(CONTENT_ENCODING);
        Self { form: if encoded { Form::Other } else { form }, ..Self::default() }
    }

    /// Also looks for errors, where the body has a form that is looked at.
    pub(crate) fn with_errors(mut self, errors: impl FnOnce() -> Box<dyn BodyErrors>) -> Self {
        self.errors = (self.form != Form::Other).then(errors);
        self
    }

    /// Whether the body is looked at.
    pub(crate) fn looks(&self) -> bool {
        self.form != Form::Other
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

    /// Whether the body is an event stream.
    pub(crate) fn is_events(&self) -> bool {
        self.form == Form::Events
    }

    /// Looks at the next piece of the body, if there is one; `last` when none follows. Tells of an error that is complete
    /// with it.
    pub(crate) fn see(&mut self, data: Option<&Bytes>, last: bool) {
        if let (Some(data), Some(usage)) = (data, &mut self.usage)
            && self.form != Form::Other
        {
            usage.used = tokens_used(data).or(usage.used);
        }
        let Some(mut errors) = self.errors.take() else { return };
        let mut passed = false; // the first event, or the whole document
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

    /// The unfinished line, or the document, has ended.
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
        // Most pieces end with a line.
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

    /// Whether the line is an event's data. One that is too long is.
    fn is_data(&self) -> bool {
        self.skipped || self.pieces.iter().flatten().take(DATA.len()).eq(DATA)
    }
}

/// The line of the first event's data, once it is complete: `None` before that.
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
