//! What an error within a success means: it is judged like any other answer, and closes or cools down its key at once.

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

/// What goes with a body to judge its errors: the call's key and account, and the head of its answer where the user judges.
pub(super) struct InBody {
    shared: Arc<Shared>,
    controller: Arc<WaitQueue<Controller>>,
    keys: (QuotaKey, QuotaKey),
    seq: u64,
    head: Option<Box<response::Parts>>,
    /// The call is a probe: the key opens when its body shows no error.
    probe: bool,
}

impl<C> Call<C> {
    /// Judges the errors of a success that was let in by this ticket.
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
    /// What a text within a success says, if it is an error: by the user's own judgement, else in the key's dialect. The
    /// headers of a success say nothing of it.
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
