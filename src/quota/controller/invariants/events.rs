//! What may happen to a controller, drawn at random: calls, answers with hostile figures, cancelled calls, jumps of the clock.

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use crate::classify::RateLimitSnapshot;

#[derive(Debug, Clone)]
pub(super) enum QuotaEvent {
    Submit {
        tokens: f64,
    },
    Cancel {
        which: usize,
    },
    Pass {
        ms: u64,
    },
    /// The process was suspended for an hour.
    Jump,
    /// A success's head; its body ends later.
    Success {
        which: usize,
        shown: Figures,
    },
    Refused {
        which: usize,
        how: How,
        hint: Option<u64>,
        shown: Figures,
        again: bool,
    },
    Exhausted {
        which: usize,
    },
    Other {
        which: usize,
        too_large: bool,
        shown: Figures,
    },
    /// The end of a body, a failure, or a cancelled call.
    End {
        which: usize,
    },
    Withdrawn {
        which: usize,
    },
    /// Nobody reads the body of a call whose head has come.
    Lend {
        which: usize,
    },
    /// The end of a body whose permit was lent.
    Return {
        which: usize,
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    Rate,
    Bare,
    Concurrency,
    Overload,
}

/// Header values for requests and tokens; an empty one is left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures(pub(super) [&'static str; 6]);

const NAMES: [&str; 6] = [
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
];

impl Figures {
    pub(super) fn snapshot(self) -> Option<RateLimitSnapshot> {
        let mut headers = HeaderMap::new();
        for (name, value) in NAMES.into_iter().zip(self.0).filter(|(_, value)| !value.is_empty()) {
            headers.insert(name, HeaderValue::from_static(value));
        }
        RateLimitSnapshot::from_headers(&headers)
    }
}

fn figures() -> impl Strategy<Value = Figures> {
    let limit = || prop::sample::select(vec!["", "", "0", "-1", "1", "3", "60", "60", "500", "90000", "1e300", "nan"]);
    let left = || prop::sample::select(vec!["", "0", "0", "-1", "1", "2", "30", "59", "60", "499", "1e299", "inf"]);
    let reset = || prop::sample::select(vec!["", "0s", "1ms", "20ms", "1s", "7m12s", "60s", "-3s", "1000000000s", "x"]);
    (limit(), left(), reset(), limit(), left(), reset()).prop_map(|(a, b, c, d, e, f)| Figures([a, b, c, d, e, f]))
}

pub(super) fn event() -> impl Strategy<Value = QuotaEvent> {
    let which = || any::<prop::sample::Index>().prop_map(|index| index.index(1 << 20));
    let how = prop::sample::select(vec![How::Rate, How::Bare, How::Bare, How::Concurrency, How::Overload]);
    let hint = prop::option::of(prop::sample::select(vec![0, 1, 20, 1_000, 7_000, 119_000, 121_000, u64::MAX]));
    prop_oneof![
        6 => prop::sample::select(vec![0.0, 1.0, 10.0, 700.0, 1e5, 1e9]).prop_map(|tokens| QuotaEvent::Submit { tokens }),
        1 => which().prop_map(|which| QuotaEvent::Cancel { which }),
        4 => (0..2_000_u64).prop_map(|ms| QuotaEvent::Pass { ms }),
        1 => (0..200_000_u64).prop_map(|ms| QuotaEvent::Pass { ms }),
        1 => Just(QuotaEvent::Jump),
        4 => (which(), figures()).prop_map(|(which, shown)| QuotaEvent::Success { which, shown }),
        4 => (which(), how, hint, figures(), any::<bool>())
            .prop_map(|(which, how, hint, shown, again)| QuotaEvent::Refused { which, how, hint, shown, again }),
        1 => which().prop_map(|which| QuotaEvent::Exhausted { which }),
        1 => (which(), any::<bool>(), figures())
            .prop_map(|(which, too_large, shown)| QuotaEvent::Other { which, too_large, shown }),
        4 => which().prop_map(|which| QuotaEvent::End { which }),
        1 => which().prop_map(|which| QuotaEvent::Withdrawn { which }),
        2 => which().prop_map(|which| QuotaEvent::Lend { which }),
        1 => which().prop_map(|which| QuotaEvent::Return { which }),
    ]
}
