//! Without the feature `tracing`: nothing is told.

use crate::classify::Verdict;
use crate::event::QuotaEvent;
use crate::quota::Controller;
use crate::response::rejection::LocalRejection;
use crate::retry::StopReason;
use crate::wait_queue::WaitQueue;

pub(crate) fn waiting(_: &WaitQueue<Controller>) {}

pub(crate) fn throttled(_: &Verdict, _: u32) {}

pub(crate) fn in_body(_: &Verdict) {}

pub(crate) fn gave_up(_: StopReason, _: u32) {}

pub(crate) fn rejected_locally(_: &LocalRejection) {}

pub(crate) fn permits_lent(_: u32) {}

pub(crate) fn event(_: &QuotaEvent) {}
