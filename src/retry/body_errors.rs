//! Handles errors inside a 200. They are classified like any other answer, and close or cool down the key at once.

use std::sync::Arc;

use http::{StatusCode, response};

use super::call::Call;
use super::config::Shared;
use crate::classify::{Kind, Verdict};
use crate::quota::{Controller, Ticket};
use crate::request::QuotaKey;
use crate::response::error_reply::ErrorReply;
use crate::response::stream_errors::BodyErrors;
use crate::trace;
use crate::wait_queue::WaitQueue;

/// What a body needs to handle its errors: the call's key and account, and the head of its answer for the user's function.
pub(super) struct InBody {
    shared: Arc<Shared>,
    controller: Arc<WaitQueue<Controller>>,
    keys: (QuotaKey, QuotaKey),
    seq: u64,
    head: Option<Box<response::Parts>>,
    /// The call is a probe, so the key opens if its body contains no error.
    probe: bool,
}

impl<C> Call<C> {
    /// Makes the error handler of a success.
    pub(super) fn in_body(&self, ticket: &Ticket, probe: bool, head: &response::Parts) -> Box<dyn BodyErrors> {
        let head = self.shared.config.classify.is_some().then(|| Box::new(head.clone()));
        let (shared, controller) = (Arc::clone(&self.shared), Arc::clone(&self.controller));
        Box::new(InBody { shared, controller, keys: (self.key, self.account), seq: ticket.seq, head, probe })
    }
}

impl BodyErrors for InBody {
    fn read(&self, text: &[u8]) -> Option<ErrorReply> {
        self.shared.judge_text(&self.controller, self.head.as_deref(), text)
    }

    fn found(&mut self, error: ErrorReply) {
        self.probe = false;
        trace::in_body(&error.verdict);
        let seq = self.seq;
        if error.verdict.kind == Kind::QuotaExhausted {
            self.shared.close_quota(self.keys, &self.controller, error, |controller, now, error| {
                controller.on_stream_error(now, seq, &error.verdict)
            });
        } else {
            self.shared.update_quota(self.keys, &self.controller, |controller, now| {
                controller.on_stream_error(now, seq, &error.verdict)
            });
        }
    }

    fn waits(&self) -> bool {
        self.probe
    }

    fn none_found(&mut self) {
        self.probe = false;
        let seq = self.seq;
        self.shared.update_quota(self.keys, &self.controller, |controller, _| controller.on_stream_end(seq));
    }
}

impl Shared {
    /// Classifies a text inside a success, by the user's function or in the key's dialect. Returns `None` if it is no error. The
    /// headers of the success are not used.
    pub(super) fn judge_text(
        &self,
        controller: &WaitQueue<Controller>,
        head: Option<&response::Parts>,
        text: &[u8],
    ) -> Option<ErrorReply> {
        let own = self.config.classify.as_ref().zip(head).and_then(|(with, head)| with(head, text));
        let verdict = own.unwrap_or_else(|| {
            let dialect = controller.read(Controller::dialect);
            Verdict::in_dialect(dialect, StatusCode::OK, &http::HeaderMap::new(), text)
        });
        (verdict.kind != Kind::Pass).then(|| ErrorReply::new(verdict, text))
    }
}
