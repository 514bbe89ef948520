//! The course of a call as `tracing` events, without bodies, prompts and credentials.

use std::time::Duration;

use crate::classify::Verdict;
use crate::event::QuotaEvent;
use crate::response::rejection::LocalRejection;

/// A call begins to wait.
pub(crate) fn waiting(cause: &str, left: Option<Duration>, in_flight: u32, window: u32, queued: usize) {
    tracing::debug!(cause, left_ms = left.map(as_ms), in_flight, window, queued, "waiting");
}

/// The server throttled a call.
pub(crate) fn throttled(verdict: &Verdict, attempt: u32) {
    let scope = verdict.scope.map(crate::classify::Scope::as_str);
    let retry_after_ms = verdict.retry_after.map(as_ms);
    tracing::debug!(kind = verdict.kind.as_str(), scope, retry_after_ms, attempt, "throttled");
}

/// The body of a success contains an error.
pub(crate) fn in_body(verdict: &Verdict) {
    let scope = verdict.scope.map(crate::classify::Scope::as_str);
    let retry_after_ms = verdict.retry_after.map(as_ms);
    tracing::debug!(kind = verdict.kind.as_str(), scope, retry_after_ms, "error in a body");
}

/// A 429 is returned to the caller.
pub(crate) fn gave_up(reason: &dyn std::fmt::Debug, attempts: u32) {
    tracing::warn!(?reason, attempts, "gave up");
}

/// An event of a key.
pub(crate) fn event(event: &QuotaEvent) {
    tracing::info!(?event, "quota");
}

/// Permits of a plain limit were lent, because their response bodies are not read.
pub(crate) fn permits_lent(permits: u32) {
    tracing::warn!(permits, "lent the permits of unread response bodies");
}

/// A call was rejected locally.
pub(crate) fn rejected_locally(rejection: &LocalRejection) {
    tracing::debug!(code = rejection.reason.code(), retry_after_ms = rejection.retry_after.map(as_ms), "not sent");
}

fn as_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
