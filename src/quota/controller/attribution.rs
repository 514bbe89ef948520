//! What a 429 is evidence of: a rate limit or a limit on calls at once.
//!
//! 429s come in *episodes*. An episode begins with the 429 of a call that was sent after the episode before began. The calls
//! that were in flight then belong to it, and teach nothing a second time. It is over when a call sent after its beginning is
//! accepted.

/// What a 429 says of its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It names a rate, a wait, or a bucket that is empty by its own figures.
    Rate,
    /// It names a limit on calls at once.
    Concurrency,
    /// It says neither.
    Neither,
    /// The server has no capacity, whatever this key sends.
    Overload,
}

/// What a 429 is attributed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Cause {
    #[default]
    Rate,
    Concurrency,
}

/// The attribution of one 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributed {
    /// What the 429 itself says.
    pub(super) class: Class,
    pub(super) cause: Cause,
    /// It begins an episode.
    pub(super) new: bool,
}

/// The episodes of a key.
#[derive(Debug, Default)]
pub(super) struct Attribution {
    /// The number of the last call sent when the latest episode began.
    epoch: u64,
    /// What the latest episode is attributed to.
    episode: Cause,
    /// Episodes in a row, without a call accepted after their beginning.
    k: u32,
}

impl Attribution {
    /// Attributes the 429 of a call. `last` is the last call sent; `refuted` says that the cause cannot be concurrency.
    ///
    /// A 429 that names no cause counts as one for concurrency unless that is refuted.
    pub(super) fn attribute(&mut self, seq: u64, last: u64, class: Class, refuted: bool) -> Attributed {
        let new = seq > self.epoch;
        let cause = match class {
            Class::Rate | Class::Overload => Cause::Rate,
            Class::Concurrency => Cause::Concurrency,
            Class::Neither if !new => self.episode,
            Class::Neither if refuted => Cause::Rate,
            Class::Neither => Cause::Concurrency,
        };
        if new {
            self.k = self.k.saturating_add(1);
            self.episode = cause;
            self.epoch = last;
        }
        Attributed { class, cause, new }
    }

    /// How many episodes there were in a row.
    pub(super) fn in_a_row(&self) -> u32 {
        self.k
    }

    /// Whether none of the calls sent after this one is known to have been throttled.
    pub(super) fn none_since(&self, seq: u64) -> bool {
        seq > self.epoch
    }

    /// A call was accepted. Returns true if that ends the episode: it was sent after the episode began.
    pub(super) fn answered(&mut self, seq: u64) -> bool {
        let over = seq > self.epoch;
        if over {
            self.k = 0;
        }
        over
    }

    /// After an idle time, the next episode is the first in a row.
    pub(super) fn rested(&mut self) {
        self.k = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_429_is_attributed_as_the_table_says() {
        // An episode for concurrency began when call 10 was the last one sent; now it is call 12.
        #[rustfmt::skip]
        let rows = [
            // the 429             of call, cannot be concurrency,   cause,        begins an episode
            (Class::Rate,          10, false, Cause::Rate,        false),
            (Class::Rate,          11, false, Cause::Rate,        true),
            (Class::Overload,      11, false, Cause::Rate,        true),
            (Class::Concurrency,   10, true,  Cause::Concurrency, false),
            (Class::Concurrency,   11, true,  Cause::Concurrency, true),
            (Class::Neither,       10, true,  Cause::Concurrency, false), // as the episode it belongs to
            (Class::Neither,       11, false, Cause::Concurrency, true),
            (Class::Neither,       11, true,  Cause::Rate,        true),
        ];
        for (class, seq, refuted, cause, new) in rows {
            let mut attribution = Attribution::default();
            attribution.attribute(3, 10, Class::Concurrency, false);
            let attributed = attribution.attribute(seq, 12, class, refuted);
            assert_eq!(attributed, Attributed { class, cause, new }, "{class:?} of call {seq}, refuted: {refuted}");
            assert_eq!(attribution.in_a_row(), 1 + u32::from(new));
        }
    }

    #[test]
    fn an_accepted_call_ends_an_episode_only_if_it_was_sent_after_its_beginning() {
        for (accepted, over) in [(3, false), (10, false), (11, true)] {
            let mut attribution = Attribution::default();
            attribution.attribute(3, 10, Class::Rate, false);
            assert_eq!(attribution.answered(accepted), over, "call {accepted}");
            assert_eq!(attribution.in_a_row(), u32::from(!over), "call {accepted}");
        }
    }

    #[test]
    fn an_episode_teaches_once() {
        let mut attribution = Attribution::default();
        assert!(attribution.attribute(3, 10, Class::Rate, false).new);
        for seq in [1, 4, 10] {
            assert!(
                !attribution.attribute(seq, 12, Class::Rate, false).new,
                "{seq} was out when the first throttle was heard"
            );
        }
        assert_eq!(attribution.in_a_row(), 1);
        assert!(attribution.attribute(11, 12, Class::Rate, false).new);
        assert_eq!(attribution.in_a_row(), 2);
        assert!(!attribution.answered(12), "an answer to a call of before ends nothing");
        assert!(attribution.answered(13));
        assert_eq!(attribution.in_a_row(), 0);
    }

    #[test]
    fn calls_sent_after_a_429_was_heard_are_not_known_to_be_throttled() {
        let mut attribution = Attribution::default();
        assert!(attribution.none_since(1));
        attribution.attribute(3, 10, Class::Rate, false);
        assert!(
            !attribution.none_since(2) && !attribution.none_since(10),
            "one of those after it was throttled, or was out"
        );
        assert!(attribution.none_since(11));
    }

    #[test]
    fn a_bare_429_is_concurrency_first_and_a_rate_when_that_is_contradicted() {
        let cause = |refuted| Attribution::default().attribute(1, 1, Class::Neither, refuted).cause;
        assert_eq!(cause(false), Cause::Concurrency);
        assert_eq!(cause(true), Cause::Rate);
    }
}
