//! What a 429 is evidence of, once an episode: the calls that were out when the first 429 was heard teach nothing
//! twice.

/// What the server's answer says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It names a rate.
    Rate,
    /// It says how many at once.
    Concurrency,
    /// It says neither.
    Neither,
    /// The server has no capacity, whatever this key does.
    Overload,
}

/// What it is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Cause {
    #[default]
    Rate,
    Concurrency,
}

/// One 429, attributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributed {
    pub(super) cause: Cause,
    /// It begins an episode.
    pub(super) new: bool,
}

#[derive(Debug, Default)]
pub(super) struct Attribution {
    /// The last call dispatched when the running episode began.
    epoch: u64,
    episode: Cause,
    /// Episodes in a row without a call let in.
    k: u32,
}

impl Attribution {
    /// Judges the 429 of a call; `last` is the last one dispatched, `refuted` whether concurrency is contradicted.
    pub(super) fn attribute(&mut self, seq: u64, last: u64, class: Class, refuted: bool) -> Attributed {
        let new = seq > self.epoch;
        let cause = match class {
            Class::Rate | Class::Overload => Cause::Rate,
            Class::Concurrency => Cause::Concurrency,
            Class::Neither if !new => self.episode,
            // How many at once, unless that is contradicted: then it must be a rate.
            Class::Neither if refuted => Cause::Rate,
            Class::Neither => Cause::Concurrency,
        };
        if new {
            self.k = self.k.saturating_add(1);
            self.episode = cause;
            self.epoch = last;
        }
        Attributed { cause, new }
    }

    /// Episodes in a row.
    pub(super) fn in_a_row(&self) -> u32 {
        self.k
    }

    /// Whether none of the calls after this one is known to have been throttled.
    pub(super) fn none_since(&self, seq: u64) -> bool {
        seq > self.epoch
    }

    /// A call was let in. True: it was sent after the last 429 was heard, so the episode is over.
    pub(super) fn answered(&mut self, seq: u64) -> bool {
        let over = seq > self.epoch;
        if over {
            self.k = 0;
        }
        over
    }

    pub(super) fn rested(&mut self) {
        self.k = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
