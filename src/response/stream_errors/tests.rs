//! Tests of the search in streams and documents that are split at any point.

use proptest::prelude::*;

use std::sync::{Arc, Mutex};

use http::StatusCode;

use super::*;
use crate::classify::{Kind, Verdict};

fn verdict(text: &[u8]) -> Option<Verdict> {
    let verdict = Verdict::of(StatusCode::OK, &HeaderMap::new(), text);
    (verdict.kind != Kind::Pass).then_some(verdict)
}

/// The results: `None` stands for "no error".
type Found = Arc<Mutex<Vec<Option<Kind>>>>;

impl BodyErrors for Found {
    fn read(&self, text: &[u8]) -> Option<ErrorReply> {
        Some(ErrorReply::new(verdict(text)?, text))
    }

    fn found(&mut self, error: ErrorReply) {
        self.lock().unwrap().push(Some(error.verdict.kind));
    }

    fn waits(&self) -> bool {
        self.lock().unwrap().is_empty()
    }

    fn none_found(&mut self) {
        self.lock().unwrap().push(None);
    }
}

fn observer(kind: &'static str) -> (Observer, Found) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    let found = Found::default();
    let errors = Box::new(Arc::clone(&found));
    (Observer::new(&headers).with_errors(|| errors), found)
}

/// Returns all results for a body in these pieces. With `end`, the end is a call of its own.
fn told(kind: &'static str, pieces: &[&[u8]], end: bool) -> Vec<Option<Kind>> {
    let (mut observer, found) = observer(kind);
    for (at, piece) in pieces.iter().enumerate() {
        observer.see(Some(&Bytes::copy_from_slice(piece)), !end && at + 1 == pieces.len());
    }
    if end || pieces.is_empty() {
        observer.see(None, true);
    }
    let found = found.lock().unwrap();
    found.clone()
}

fn seen(kind: &'static str, pieces: &[&[u8]]) -> Option<Kind> {
    let first = |end| told(kind, pieces, end).into_iter().flatten().next();
    assert_eq!(first(true), first(false), "it makes no difference how the end is told");
    first(true)
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
    for kind in ["text/event-stream", "application/json"] {
        let (mut observer, found) = observer(kind);
        let long = Bytes::from(vec![b'x'; 1000]);
        (0..1000).for_each(|_| observer.see(Some(&long), false));
        assert!(observer.pieces.as_ref().is_some_and(|pieces| pieces.pieces.is_empty()), "nothing is held");
        observer.see(Some(&Bytes::from(format!("\"error\"\n{}", ERRORS[1]))), false);
        let expected = (kind == "text/event-stream").then_some(Some(Kind::RateLimited));
        assert_eq!(found.lock().unwrap().first().copied(), expected, "{kind}");
    }
}

#[test]
fn the_tokens_used_are_read_only_when_somebody_wants_to_know() {
    let body = Bytes::from_static(br#"{"choices":[],"usage":{"prompt_tokens":9,"total_tokens": 1234}}"#);
    for (estimated, expected) in [(None, None), (Some(50.0), Some((50.0, 1234.0)))] {
        let mut observer = observer("application/json").0.with_usage(estimated);
        observer.see(Some(&body), true);
        assert_eq!(observer.usage(), expected);
    }
    assert_eq!(tokens_used(b"\"total_tokens\":null"), None);
}

#[test]
fn the_first_event_is_known_when_its_data_is_complete() {
    assert_eq!(first_event(b": keep-alive\n\nevent: error\ndata: {\"error\""), None);
    assert_eq!(first_event(DELTA.as_bytes()), Some(DELTA.trim_end().as_bytes()));
    let text = format!(": hello\n\n{}", ERRORS[0]);
    assert!(first_event(text.as_bytes()).is_some_and(|line| verdict(line).is_some()));
}

#[test]
fn that_there_is_no_error_is_told_once_with_the_first_event_or_the_whole_document() {
    let (sse, json) = ("text/event-stream", "application/json");
    for (kind, pieces, expected) in [
        (sse, &[DELTA, DELTA] as &[&str], &[None] as &[Option<Kind>]),
        (sse, &[": hello\n", "event: x\nda", "ta: {}\n", DELTA], &[None]),
        (sse, &[DELTA, ERRORS[1]], &[None, Some(Kind::RateLimited)]),
        (sse, &["event: error\n", &ERRORS[0]["event: error\n".len()..]], &[Some(Kind::Overloaded)]),
        (json, &["{", "}"], &[None]),
        (json, &[], &[None]),
    ] {
        for end in [false, true] {
            let pieces: Vec<_> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            assert_eq!(told(kind, &pieces, end), expected, "{kind} {pieces:?}");
        }
    }
    let (mut observer, found) = observer(sse);
    observer.see(Some(&Bytes::from_static(b": hello\n\nevent: x\ndata: {")), false);
    assert_eq!(*found.lock().unwrap(), []);
    observer.see(Some(&Bytes::from_static(b"}\n")), false);
    assert_eq!(*found.lock().unwrap(), [None]);
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
