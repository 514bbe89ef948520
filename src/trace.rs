//! What happens to a call, as `tracing` events: never a body, a prompt or a credential.

use tokio::time::Instant;

use crate::classify::Verdict;
use crate::event::Event;
use crate::quota::Gate;
use crate::response::rejection::Refusal;
use crate::retry::StopReason;
use crate::wait_queue::Room;

/// A call begins to wait: why, and until when if that is known.
pub(crate) fn waiting(gate: &Room<Gate>) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let now = Instant::now();
    let queued = gate.queued();
    gate.look(|gate| {
        let left = gate.until().map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero());
        let cause = match left {
            Some(_) => "cooldown",
            None if gate.in_flight() >= gate.window() => "window",
            None => "pace",
        };
        let (in_flight, window) = (gate.in_flight(), gate.window());
        tracing::debug!(cause, left_ms = left.map(as_ms), in_flight, window, queued, "waiting");
    });
}

/// The server refused.
pub(crate) fn refused(verdict: &Verdict, attempt: u32) {
    let scope = verdict.scope.map(crate::classify::Scope::as_str);
    let retry_after_ms = verdict.retry_after.map(as_ms);
    tracing::debug!(kind = verdict.kind.as_str(), scope, retry_after_ms, attempt, "refused");
}

/// A success holds an error.
pub(crate) fn in_body(verdict: &Verdict) {
    let scope = verdict.scope.map(crate::classify::Scope::as_str);
    let retry_after_ms = verdict.retry_after.map(as_ms);
    tracing::debug!(kind = verdict.kind.as_str(), scope, retry_after_ms, "error in a body");
}

/// A refusal is handed to the caller.
pub(crate) fn gave_up(reason: StopReason, attempts: u32) {
    tracing::warn!(?reason, attempts, "gave up");
}

/// Something about a key is worth knowing.
pub(crate) fn event(event: &Event) {
    tracing::info!(?event, "quota");
}

/// Slots of a plain limit were lent, because nobody reads their response bodies.
pub(crate) fn slots_lent(slots: u32) {
    tracing::warn!(slots, "lent the slots of unread response bodies");
}

/// A call was not sent.
pub(crate) fn answered_locally(refusal: &Refusal) {
    tracing::debug!(code = refusal.reason.code(), retry_after_ms = refusal.retry_after.map(as_ms), "not sent");
}

fn as_ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
