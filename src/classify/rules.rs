//! The order of the rules that turn a status, codes and wording into one verdict.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use super::body::ErrorBody;
use super::figures::Wording;
use super::headers::{self, RateLimitSnapshot};
use super::hint::{self, Stated};
use super::{Evidence, Kind, Scope, Verdict, body, reads_body};
use crate::dialect::{self, Dialect};

/// What the codes of an answer say together.
#[derive(Debug, Default)]
struct Codes {
    stop: bool,
    too_large: bool,
    overload: bool,
    concurrent: bool,
    rate: bool,
    server: bool,
    scope: Option<Scope>,
}

impl Codes {
    fn read(dialect: &Dialect, codes: &str, text: &str) -> Self {
        let mut found = Self::default();
        for code in codes.lines() {
            let mut meaning = dialect.meaning(code);
            if matches!(meaning, Some((Kind::QuotaExhausted, _))) && *dialect == Dialect::GENERIC {
                // The gravest of meanings, and the one that is not everyone's: look who is speaking.
                meaning = Dialect::by_marks(code, &text.to_ascii_lowercase()).or(meaning);
            }
            let (kind, scope) = meaning.map_or((None, None), |(kind, scope)| (Some(kind), scope));
            match kind {
                Some(Kind::QuotaExhausted) => found.stop = true,
                Some(Kind::TooLarge) => found.too_large = true,
                Some(Kind::Overloaded) => found.overload = true,
                Some(Kind::Concurrency) => found.concurrent = true,
                Some(Kind::RateLimited) => found.rate = true,
                Some(Kind::ServerError) => found.server = true,
                Some(Kind::Pass) | None => {}
            }
            let scope = scope.or_else(|| dialect::scope_of(code));
            // Gemini names the metric first and its window after it.
            let longer = |one: Scope| scope == Some(one.daily());
            found.scope = if found.scope.is_none_or(longer) { scope } else { found.scope };
        }
        found
    }

    fn any(&self) -> bool {
        self.stop || self.too_large || self.overload || self.concurrent || self.rate || self.server
    }
}

/// The verdict on an answer. `clock` is asked only for what the answer's own `date` cannot tell.
pub(super) fn verdict(
    dialect: &Dialect,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    clock: &dyn Fn() -> SystemTime,
) -> Verdict {
    let now = || headers::date(headers).or_else(|| hint::since_epoch(clock()));
    let body = match (reads_body(status), status.is_success()) {
        (false, false) => ErrorBody::default(),
        (_, success) => {
            let mut found = ErrorBody::read(body, success, &now);
            if let Some(class) = headers.get("x-amzn-errortype").filter(|_| !success) {
                found.add_code(class.as_bytes().split(|b| *b == b':').next().unwrap_or_default());
            }
            found
        }
    };
    let mut words = Wording::read(&body.text, &now);
    if body.is_page {
        words = words.without_figures();
    }
    let codes = Codes::read(dialect, &body.codes, &body.text);
    let status = match body.status {
        Some(said) if status.is_success() => said,
        // An event in a stream says no status, so that its code must tell.
        None if status.is_success() && codes.any() => StatusCode::TOO_MANY_REQUESTS,
        _ => status,
    };
    let limit = words.size().or(body.limit);
    let kind = kind(status, &body, &codes, &words, limit);
    let mut verdict = Verdict::new(kind);
    if kind == Kind::Pass {
        return verdict;
    }

    let axis = headers.get("x-ratelimit-type").or_else(|| headers.get("policy-id"));
    verdict.scope = match kind {
        Kind::Concurrency => Some(Scope::Concurrent),
        Kind::Overloaded | Kind::ServerError => None,
        _ => scope(&words, &codes)
            .or_else(|| axis.and_then(|axis| scope_of(axis.as_bytes())))
            .or(codes.scope.filter(|_| kind != Kind::QuotaExhausted || !codes.rate)),
    };
    if !matches!(kind, Kind::Overloaded | Kind::ServerError) {
        verdict.limit = limit;
        verdict.used = words.used.or(body.used);
        verdict.requested = words.requested.or(body.requested);
    }
    verdict.model = words.model.map(str::to_owned).or(body.model);

    let mut exhausted = false;
    if kind != Kind::TooLarge {
        let mut stated = Stated::read(headers, &now);
        let mut snapshot = RateLimitSnapshot::read(headers, Some(&now));
        if !body.headers.is_empty() {
            let inner = Stated::read(&body.headers, &now);
            stated = Stated { exact: stated.exact.or(inner.exact), coarse: stated.coarse.max(inner.coarse) };
            snapshot = snapshot.or_else(|| RateLimitSnapshot::read(&body.headers, Some(&now)));
        }
        let bucket = snapshot.as_ref().and_then(|snapshot| hint::exhausted(snapshot, verdict.scope));
        if let Some(bucket) = bucket.filter(|_| verdict.is_throttling() || kind == Kind::QuotaExhausted) {
            exhausted = true;
            if kind != Kind::Overloaded && verdict.scope.is_none_or(|scope| hint::speaks_of(bucket.dimension, scope)) {
                verdict.scope = verdict.scope.or(hint::scope_of(bucket.dimension));
                verdict.limit = verdict.limit.or(bucket.limit);
            }
        }
        let reset = bucket.filter(|_| exhausted).and_then(|bucket| bucket.reset);
        let reset = reset.or_else(|| hint::unified_reset(headers, &now));
        if let Some((delay, source)) = hint::delay(stated, words.delay.max(body.delay), reset) {
            (verdict.retry_after, verdict.source) = (Some(delay), Some(source));
        }
    }
    let figures = limit.or(verdict.used).or(verdict.requested).is_some();
    let named = words.names_a_limit() || figures || verdict.retry_after.is_some() || exhausted || axis.is_some();
    if named {
        verdict.evidence = Evidence::Named;
    }
    verdict
}

/// The limit that the message names, or the code, if that tells the window that the message leaves out.
fn scope(words: &Wording<'_>, codes: &Codes) -> Option<Scope> {
    let named = words.scope()?;
    let longer = words.axis.is_none() && codes.scope == Some(named.daily());
    Some(if longer { named.daily() } else { named })
}

fn scope_of(code: &[u8]) -> Option<Scope> {
    let mut squeezed = String::new();
    body::squeeze(&code[..code.len().min(80)], &mut squeezed);
    dialect::scope_of(&squeezed).or_else(|| match squeezed.as_str() {
        axis if axis.contains("token") => Some(Scope::Tokens),
        axis if axis.contains("request") || axis.contains("call") => Some(Scope::Requests),
        _ => None,
    })
}

fn kind(status: StatusCode, body: &ErrorBody, codes: &Codes, words: &Wording<'_>, limit: Option<f64>) -> Kind {
    let stop = codes.stop || words.stop;
    match status.as_u16() {
        402 => Kind::QuotaExhausted,
        408 | 409 => Kind::ServerError,
        429 => too_many(body, codes, words, limit),
        400 if stop => Kind::QuotaExhausted,
        400 if words.too_large || codes.too_large => Kind::TooLarge,
        // Amazon's older protocols answer 400 to whatever is the caller's doing.
        400 if body.codes.lines().any(|code| code.starts_with("throttlingexception")) => Kind::RateLimited,
        403 if stop => Kind::QuotaExhausted,
        403 if codes.rate || words.rate => Kind::RateLimited,
        404 if codes.stop => Kind::QuotaExhausted,
        413 if codes.stop => Kind::QuotaExhausted,
        413 => Kind::TooLarge,
        498 | 503 | 529 if codes.stop => Kind::QuotaExhausted,
        498 | 503 | 529 => Kind::Overloaded,
        500 | 502 if stop => Kind::QuotaExhausted,
        500 | 502 if body.local || codes.overload || words.overload => Kind::Overloaded,
        500 | 502 if codes.rate => Kind::RateLimited,
        500..600 => Kind::ServerError,
        _ => Kind::Pass,
    }
}

/// The many meanings of 429.
fn too_many(body: &ErrorBody, codes: &Codes, words: &Wording<'_>, limit: Option<f64>) -> Kind {
    let delay = words.delay.or(body.delay).is_some();
    if body.local {
        return Kind::Overloaded;
    }
    if codes.stop || words.stop {
        return Kind::QuotaExhausted;
    }
    // `You exceeded your current quota, please check your plan and billing details` is also what Gemini says when a
    // window of a minute is full.
    let passing = delay || codes.rate || (words.axis.is_some() && !words.month);
    if !passing && (words.stop_weak || words.month) {
        return Kind::QuotaExhausted;
    }
    let requested = words.requested.or(body.requested);
    let too_much = limit.is_some() && requested > limit;
    if limit == Some(0.0) || (!delay && (words.too_large || codes.too_large || too_much)) {
        return Kind::TooLarge;
    }
    let names_rate = words.axis.or(words.hint_of_axis).is_some();
    if codes.overload || (words.overload && !names_rate) {
        return Kind::Overloaded;
    }
    if (codes.server || words.server_fault) && !codes.rate && !words.rate && !names_rate {
        return Kind::ServerError;
    }
    if codes.concurrent || words.concurrent {
        return Kind::Concurrency;
    }
    Kind::RateLimited
}
