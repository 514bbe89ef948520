//! Readiness of an inner service, for both layers: the instance that was polled ready is the one that is called.

use std::task::{Context, Poll};

use tower_service::Service;

use crate::response::rejection::LocalRejection;

/// The result of a call's wait.
pub(crate) enum WaitEnd<T, E> {
    /// The call is admitted, and the inner service is ready.
    Ready(T),
    /// The call is rejected locally.
    Rejected(LocalRejection),
    /// The inner service failed while becoming ready.
    Failed(E),
}

/// Records whether the inner service was ready at the first poll.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    waited: bool,
}

impl Readiness {
    /// Polls the service until it is ready. Returns true if that took time, because a cooldown may have begun
    /// meanwhile.
    pub(crate) fn poll<S: Service<R>, R>(
        &mut self,
        cx: &mut Context<'_>,
        service: &mut S,
    ) -> Poll<Result<bool, S::Error>> {
        let Poll::Ready(ready) = service.poll_ready(cx) else {
            self.waited = true;
            return Poll::Pending;
        };
        Poll::Ready(ready.map(|()| self.waited))
    }
}

/// Takes the ready instance and leaves a clone that is not ready.
pub(crate) fn take_ready<S: Clone>(service: &mut S) -> S {
    let fresh = service.clone();
    std::mem::replace(service, fresh)
}
