//! Reads the wording of a message: the cause, the limit, the figures, the model and the delay.

mod figures;
mod phrase_list;
mod phrases;
mod spent;

use std::time::Duration;

use crate::classify::Scope;
use crate::classify::message::figures::{
    Window, delay, delay_before, divided, figure, is_left, is_money, is_zero, model, none_left, number_before, pair,
    pair_before, window,
};
use crate::classify::message::spent::{Noun, Spent};
use phrase_list::Sign;

/// The meaning of a message.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Wording<'t> {
    pub(crate) stop: bool,
    /// Whether `stop` was found outside of quotes. A 400 often quotes the request that it rejects.
    pub(crate) stop_unquoted: bool,
    /// Whether the exhausted quota belongs to the whole account.
    pub(crate) account: bool,
    pub(crate) stop_weak: bool,
    pub(crate) overload: bool,
    pub(crate) concurrent: bool,
    pub(crate) too_large: bool,
    pub(crate) rate: bool,
    pub(crate) server_fault: bool,
    /// Whether the message names a window of a week or a month.
    pub(crate) month: bool,
    /// Whether the message names a window, with or without what is counted in it.
    pub(crate) window: bool,
    /// Whether the message names a window of less than a day.
    pub(crate) short_window: bool,
    /// The limit that is named with its window: `tokens per min`, `RPM`.
    pub(crate) axis: Option<Scope>,
    /// The limit that is named without its window: `token rate limit`, `for requests`.
    pub(crate) hint_of_axis: Option<Scope>,
    pub(crate) delay: Option<Duration>,
    pub(crate) limit: Option<f64>,
    pub(crate) used: Option<f64>,
    pub(crate) requested: Option<f64>,
    pub(crate) model: Option<&'t str>,
    daily: bool,
    enqueued: Option<Scope>,
    counted: Option<f64>,
    spent: Spent,
}

/// Where a phrase stands, in bytes.
struct Place<'t, 'p> {
    text: &'t str,
    /// The text, normalized.
    plain: &'p [u8],
    start: usize,
    end: usize,
}

impl<'t> Wording<'t> {
    /// Reads `text`, in which each message ends with a line end. `now` returns the time since the epoch. It is called
    /// only if the text gives a date.
    pub(crate) fn read(text: &'t str, now: &dyn Fn() -> Option<Duration>) -> Self {
        let mut found = Self::default();
        if text.is_empty() {
            return found;
        }
        let plain = phrases::normalize(text);
        phrases::scan(text.as_bytes(), &plain, |sign, start, end| {
            found.note(sign, &Place { text, plain: &plain, start, end }, now);
        });
        found
    }

    /// Keeps only the fields that decide the kind.
    pub(crate) fn without_figures(self) -> Self {
        Self {
            window: false,
            short_window: false,
            axis: None,
            hint_of_axis: None,
            delay: None,
            limit: None,
            used: None,
            requested: None,
            model: None,
            daily: false,
            enqueued: None,
            counted: None,
            ..self
        }
    }

    /// Returns the limit that the message names.
    pub(crate) fn scope(&self) -> Option<Scope> {
        if self.enqueued.is_some() {
            return self.enqueued;
        }
        let counted = self.limit.or(self.counted).is_some();
        let unnamed =
            (self.window && counted).then_some(if self.daily { Scope::DailyRequests } else { Scope::Requests });
        let unclear = self.hint_of_axis.map(|scope| if self.daily { scope.daily() } else { scope });
        self.axis.or(unclear).or(unnamed)
    }

    /// Returns the size of the limit.
    pub(crate) fn size(&self) -> Option<f64> {
        self.limit.or(self.counted)
    }

    /// Returns true if the message tells which limit was exceeded, by a name or by a figure.
    pub(crate) fn names_a_limit(&self) -> bool {
        let figures = self.size().or(self.used).or(self.requested).is_some();
        self.scope().is_some() || self.concurrent || self.window || self.daily || self.month || figures
    }

    fn note(&mut self, sign: Sign, place: &Place<'t, '_>, now: &dyn Fn() -> Option<Duration>) {
        let Place { text, plain, start, end } = *place;
        let bytes = text.as_bytes();
        let whole_word = !plain.get(end).is_some_and(u8::is_ascii_alphanumeric);
        match sign {
            Sign::Stop => self.stops(false, plain, start),
            Sign::Account => self.stops(true, plain, start),
            Sign::PlanHours => {
                // `60 requests per 1 hour limit` is a rate limit.
                let before = plain[..start].trim_ascii_end();
                let digits = before.iter().rev().take_while(|b| b.is_ascii_digit()).count();
                let rate = before[..before.len() - digits].ends_with(b"per ");
                if before.ends_with(b"five") || (digits > 0 && !rate) {
                    self.stops(false, plain, start);
                }
            }
            // `rate limit exhausted` is a rate limit.
            Sign::StopWeak => self.stop_weak |= !plain[..start].ends_with(b"rate "),
            Sign::Money if whole_word => {
                let spent = self.spent.noun(Noun::Money, bytes, start, end);
                if spent || is_zero(plain, end) || none_left(bytes, plain, start, end) {
                    self.stops(true, plain, start);
                }
            }
            Sign::Allowance if whole_word => {
                self.stop_weak |= self.spent.noun(Noun::Allowance, bytes, start, end);
                if plain[start..].starts_with(b"quota") {
                    self.sized(bytes, plain, end);
                }
            }
            Sign::Spent if whole_word && !is_denied(&plain[..start]) => match self.spent.verb(bytes, start, end) {
                Some(Noun::Money) => self.stops(true, plain, start),
                Some(Noun::Allowance) => self.stop_weak = true,
                None => {}
            },
            Sign::Overload => self.overload = true,
            Sign::Concurrent => {
                // In `TPM limit reached, reduce your concurrency`, the limit named first is the one that was exceeded.
                self.concurrent |= self.axis.is_none();
                let past = end + plain[end..].iter().take_while(|b| b.is_ascii_alphabetic()).count();
                self.counted = self.counted.or_else(|| figure(bytes, plain, past).map(|f| f.0));
            }
            Sign::TooLarge => self.too_large = true,
            Sign::Rate => self.rate = true,
            Sign::ServerFault => self.server_fault = true,
            Sign::Month => self.month = true,
            Sign::Periodic => self.month |= limit_follows(&plain[end..]),
            Sign::Daily => self.daily = true,
            Sign::Enqueued => {
                let rest = plain[end..].trim_ascii_start();
                let requests = rest.starts_with(b"request");
                self.enqueued = Some(if requests { Scope::EnqueuedRequests } else { Scope::EnqueuedTokens });
            }
            Sign::Per => self.window |= self.spans(window(&plain[end..])),
            Sign::This => (self.window, self.short_window) = (true, true),
            Sign::LimitType => self.typed(plain, end),
            Sign::Unit(scope) if whole_word => self.unit(scope, place),
            Sign::Short(scope) if whole_word => {
                self.axis = self.axis.or(Some(scope));
                let after = || figure(bytes, plain, end).map(|f| f.0);
                // A number may precede short names such as `3 RPM`. `10,000 neurons` names the limit.
                let before = || number_before(bytes, start).filter(|_| end - start <= 4);
                self.counted = self.counted.or_else(after).or_else(before);
                self.rate = true;
            }
            Sign::Delay => self.delay = self.delay.max(delay(bytes, plain, end, now)),
            Sign::DelayBefore => self.delay = self.delay.max(delay_before(bytes, start)),
            Sign::Limit => self.sized(bytes, plain, end),
            Sign::Used => {
                if let Some((used, limit)) = pair_before(bytes, start) {
                    (self.used, self.limit) = (self.used.or(Some(used)), Some(limit));
                }
                let used = figure(bytes, plain, end).filter(|(_, end)| !is_money(plain, *end));
                self.used = self.used.or(used.map(|f| f.0));
            }
            Sign::Requested => self.requested = self.requested.or_else(|| figure(bytes, plain, end).map(|f| f.0)),
            Sign::Pair => self.pair(pair(bytes, plain, end)),
            Sign::Model => self.model = self.model.or_else(|| model(text, end)),
            Sign::ModelBefore => {
                let word = text[..start].trim_end().rsplit(char::is_whitespace).next();
                self.model = self.model.or_else(|| word.and_then(|word| model(word, 0)));
            }
            Sign::Nothing | Sign::Unit(_) | Sign::Short(_) | Sign::Money | Sign::Allowance | Sign::Spent => {}
        }
    }

    fn stops(&mut self, account: bool, plain: &[u8], start: usize) {
        self.stop = true;
        self.account |= account;
        self.stop_unquoted |= !opens_quote(&plain[..start]);
    }

    /// Reads the size of a limit, unless it is an amount of money: `Limit 6000`, `limit reached (33/32)`.
    fn sized(&mut self, bytes: &[u8], plain: &[u8], at: usize) {
        if self.limit.is_some() {
            return;
        }
        if let Some((used, limit)) = pair(bytes, plain, at) {
            return self.pair(Some((used, limit)));
        }
        if let Some((size, end)) =
            figure(bytes, plain, at).filter(|(_, end)| !is_money(plain, *end) && !is_left(plain, *end, 2))
        {
            self.limit = Some(size);
            self.window |= self.spans(divided(&plain[end..]));
        }
    }

    /// Reads the counted unit that a gateway names: `Limit type: tokens`.
    fn typed(&mut self, plain: &[u8], at: usize) {
        let counted = plain[at..].trim_ascii_start();
        let counted =
            counted.trim_ascii_start().strip_prefix(b":").or_else(|| counted.strip_prefix(b"=")).unwrap_or(counted);
        match counted.trim_ascii_start() {
            what if what.starts_with(b"token") => self.axis = self.axis.or(Some(Scope::Tokens)),
            what if what.starts_with(b"request") => self.axis = self.axis.or(Some(Scope::Requests)),
            what if what.starts_with(b"max parallel") || what.starts_with(b"concurren") => self.concurrent = true,
            _ => {}
        }
    }

    fn unit(&mut self, scope: Scope, &Place { text, plain, start, end }: &Place<'t, '_>) {
        let (before, after) = (plain[..start].trim_ascii_end(), &plain[end..]);
        if let Some(window) = divided(after) {
            self.spans(Some(window));
            let named = if window == Window::Day { scope.daily() } else { scope };
            self.axis = self.axis.or(Some(named));
            self.counted = self.counted.or_else(|| number_before(text.as_bytes(), start));
            return;
        }
        let after = after.trim_ascii_start();
        let after = after.strip_prefix(b",").unwrap_or(after).trim_ascii_start();
        let named = [&b"limit"[..], b"rate limit", b"ratelimit", b"quota", b"usage", b"count", b"exceeded"]
            .iter()
            .any(|word| after.starts_with(word))
            || [&b" for"[..], b" on", b" tier", b" daily", b" max", b"number of", b" model"].iter().any(|word| before.ends_with(word))
            // `Too many requests` is the text of status 429 and names no limit.
            || (scope != Scope::Requests && before.ends_with(b"too many"));
        if named {
            self.hint_of_axis = self.hint_of_axis.or(Some(scope));
        }
    }

    fn pair(&mut self, pair: Option<(f64, f64)>) {
        let (used, limit) = pair.unzip();
        self.used = self.used.or(used);
        self.limit = self.limit.or(limit);
    }

    fn spans(&mut self, window: Option<Window>) -> bool {
        self.short_window |= window == Some(Window::Short);
        self.daily |= window == Some(Window::Day);
        self.month |= window == Some(Window::Month);
        window.is_some()
    }
}

/// Returns true if one of the next words is something that a plan limits.
fn limit_follows(text: &[u8]) -> bool {
    const LIMITED: [&[u8]; 9] =
        [b"allotment", b"allowance", b"budget", b"cap", b"limit", b"quota", b"request", b"token", b"usage"];
    let part = text.split(|b| matches!(b, b'.' | b',' | b';' | b'!')).next().unwrap_or_default();
    let mut words = part.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty()).take(4);
    words.any(|word| LIMITED.iter().any(|limited| word.starts_with(limited)))
}

/// Returns true if the next word is negated: `are not used up`.
fn is_denied(before: &[u8]) -> bool {
    [&b"not "[..], b"n't ", b"not been ", b"never "].iter().any(|word| before.ends_with(word))
}

/// Returns true if a quote begins in `text`. An apostrophe within a word is not a quote.
fn opens_quote(text: &[u8]) -> bool {
    let begins = |at: usize| at == 0 || !text[at - 1].is_ascii_alphanumeric();
    (0..text.len()).any(|at| matches!(text[at], b'"' | b'\'' | b'`') && begins(at))
}

#[cfg(test)]
mod tests;
