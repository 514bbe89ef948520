//! Without the feature `tracing`: nothing is told.

use crate::classify::Verdict;
use crate::event::Event;
use crate::quota::Gate;
use crate::response::rejection::Refusal;
use crate::retry::StopReason;
use crate::wait_queue::Room;

pub(crate) fn waiting(_: &Room<Gate>) {}

pub(crate) fn refused(_: &Verdict, _: u32) {}

pub(crate) fn in_body(_: &Verdict) {}

pub(crate) fn gave_up(_: StopReason, _: u32) {}

pub(crate) fn answered_locally(_: &Refusal) {}

pub(crate) fn slots_lent(_: u32) {}

pub(crate) fn event(_: &Event) {}
