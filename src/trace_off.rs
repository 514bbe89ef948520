//! The same functions without the feature `tracing`: they do nothing.

use std::time::Duration;

use crate::classify::Verdict;
use crate::event::QuotaEvent;
use crate::response::rejection::LocalRejection;

pub(crate) fn waiting(_: &str, _: Option<Duration>, _: u32, _: u32, _: usize) {}

pub(crate) fn throttled(_: &Verdict, _: u32) {}

pub(crate) fn in_body(_: &Verdict) {}

pub(crate) fn gave_up(_: &dyn std::fmt::Debug, _: u32) {}

pub(crate) fn rejected_locally(_: &LocalRejection) {}

pub(crate) fn permits_lent(_: u32) {}

pub(crate) fn event(_: &QuotaEvent) {}
