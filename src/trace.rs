//! What happens to a call, as `tracing` events: never a body, a prompt or a credential.

use tokio::time::Instant;

use crate::classify::Verdict;
use crate::event::QuotaEvent;
use crate::quota::Controller;
use crate::response::rejection::LocalRejection;
use crate::retry::StopReason;
use crate::wait_queue::WaitQueue;

/// A call begins to wait: why, and until when if that is known.
pub(crate) fn waiting(controller: &WaitQueue<Controller>) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let now = Instant::now();
    let queued = controller.queued();
    controller.read(|controller| {
        let left = controller.until().map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero());
        let cause = match left {
            Some(_) => "cooldown",
            None if controller.in_flight() >= controller.window() => "window",
            None => "pace",
        };
        let (in_flight, window) = (controller.in_flight(), controller.window());
        tracing::debug!(cause, left_ms = left.map(as_ms), in_flight, window, queued, "waiting");
    });
}

/// The server throttled.
pub(crate) fn throttled(verdict: &Verdict, attempt: u32) {
    let scope = verdict.scope.map(crate::classify::Scope::as_str);
    let retry_after_ms = verdict.retry_after.map(as_ms);
    tracing::debug!(kind = verdict.kind.as_str(), scope, retry_after_ms, attempt, "throttled");
}

/// A success holds an error.
pub(crate) fn in_body(verdict: &Verdict) {
    let scope = verdict.scope.map(crate::classify::Scope::as_str);
    let retry_after_ms = verdict.retry_after.map(as_ms);
    tracing::debug!(kind = verdict.kind.as_str(), scope, retry_after_ms, "error in a body");
}

/// A 429 is handed to the caller.
pub(crate) fn gave_up(reason: StopReason, attempts: u32) {
    tracing::warn!(?reason, attempts, "gave up");
}

/// Something about a key is worth knowing.
pub(crate) fn event(event: &QuotaEvent) {
    tracing::info!(?event, "quota");
}

/// Slots of a plain limit were lent, because nobody reads their response bodies.
pub(crate) fn permits_lent(permits: u32) {
    tracing::warn!(permits, "lent the permits of unread response bodies");
}

/// A call was not sent.
pub(crate) fn rejected_locally(rejection: &LocalRejection) {
    tracing::debug!(code = rejection.reason.code(), retry_after_ms = rejection.retry_after.map(as_ms), "not sent");
}

fn as_ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
