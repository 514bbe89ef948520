//! Reads the wording of a message: what it blames, which limit it names, the figures, the model and the delay.

use std::time::Duration;

use super::Scope;
use super::figures::{Window, delay, divided, figure, model, number_before, window};
use super::phrases::{self, Sign};

/// What a message says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wording<'t> {
    pub(super) stop: bool,
    /// The same outside of quotes: a 400 often quotes the request that it refuses.
    pub(super) stop_unquoted: bool,
    /// What stops is the account's.
    pub(super) account: bool,
    pub(super) stop_weak: bool,
    pub(super) overload: bool,
    pub(super) concurrent: bool,
    pub(super) too_large: bool,
    pub(super) rate: bool,
    pub(super) server_fault: bool,
    pub(super) month: bool,
    /// It names a window, though perhaps not what is counted in it.
    pub(super) window: bool,
    /// The limit that it names with its window: `tokens per min`, `RPM`.
    pub(super) axis: Option<Scope>,
    /// The limit that it names less clearly: `token rate limit`, `for requests`.
    pub(super) hint_of_axis: Option<Scope>,
    pub(super) delay: Option<Duration>,
    pub(super) limit: Option<f64>,
    pub(super) used: Option<f64>,
    pub(super) requested: Option<f64>,
    pub(super) model: Option<&'t str>,
    daily: bool,
    enqueued: Option<Scope>,
    counted: Option<f64>,
}

impl<'t> Wording<'t> {
    /// Reads `text`, each message of which ends with a line end. `now` is the time since the epoch, asked for only when the text gives a date.
    pub(super) fn read(text: &'t str, now: &dyn Fn() -> Option<Duration>) -> Self {
        let mut found = Self::default();
        if text.is_empty() {
            return found;
        }
        let plain = phrases::normalize(text);
        phrases::scan(&plain, |sign, start, end| found.note(sign, text, &plain, start, end, now));
        found
    }

    /// Only what tells the kind.
    pub(super) fn without_figures(self) -> Self {
        Self {
            window: false,
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

    /// The limit that the message names, if it names one.
    pub(super) fn scope(&self) -> Option<Scope> {
        if self.enqueued.is_some() {
            return self.enqueued;
        }
        let counted = self.limit.or(self.counted).is_some();
        let unnamed =
            (self.window && counted).then_some(if self.daily { Scope::DailyRequests } else { Scope::Requests });
        let unclear = self.hint_of_axis.map(|scope| if self.daily { scope.daily() } else { scope });
        self.axis.or(unclear).or(unnamed)
    }

    /// The limit's size.
    pub(super) fn size(&self) -> Option<f64> {
        self.limit.or(self.counted)
    }

    /// Whether it says which limit was met, be it by a figure.
    pub(super) fn names_a_limit(&self) -> bool {
        let figures = self.size().or(self.used).or(self.requested).is_some();
        self.scope().is_some() || self.concurrent || self.window || self.daily || self.month || figures
    }

    fn note(
        &mut self,
        sign: Sign,
        text: &'t str,
        plain: &[u8],
        start: usize,
        end: usize,
        now: &dyn Fn() -> Option<Duration>,
    ) {
        let bytes = text.as_bytes();
        let whole_word = !plain.get(end).is_some_and(u8::is_ascii_alphanumeric);
        match sign {
            Sign::Stop | Sign::Account => {
                self.stop = true;
                self.account |= sign == Sign::Account;
                self.stop_unquoted |= !opens_quote(&plain[..start]);
            }
            Sign::StopWeak => self.stop_weak = true,
            Sign::Overload => self.overload = true,
            Sign::Concurrent => {
                // `TPM limit reached, reduce your concurrency`: what is named first is what was met.
                self.concurrent |= self.axis.is_none();
                let past = end + plain[end..].iter().take_while(|b| b.is_ascii_alphabetic()).count();
                self.counted = self.counted.or_else(|| figure(bytes, plain, past).map(|f| f.0));
            }
            Sign::TooLarge => self.too_large = true,
            Sign::Rate => self.rate = true,
            Sign::ServerFault => self.server_fault = true,
            Sign::Month => self.month = true,
            Sign::Daily => self.daily = true,
            Sign::Enqueued => {
                let rest = plain[end..].trim_ascii_start();
                let requests = rest.starts_with(b"request");
                self.enqueued = Some(if requests { Scope::EnqueuedRequests } else { Scope::EnqueuedTokens });
            }
            Sign::Per => self.window |= self.spans(window(&plain[end..])),
            Sign::Unit(scope) if whole_word => self.unit(scope, bytes, plain, start, end),
            Sign::Short(scope) if whole_word => {
                self.axis = self.axis.or(Some(scope));
                self.counted = self.counted.or_else(|| figure(bytes, plain, end).map(|f| f.0));
                self.rate = true;
            }
            Sign::Delay => self.delay = self.delay.max(delay(bytes, plain, end, now)),
            Sign::Limit => {
                if let Some((size, end)) = self.limit.is_none().then(|| figure(bytes, plain, end)).flatten() {
                    self.limit = Some(size);
                    self.window |= self.spans(divided(&plain[end..]));
                }
            }
            Sign::Used => self.used = self.used.or_else(|| figure(bytes, plain, end).map(|f| f.0)),
            Sign::Requested => self.requested = self.requested.or_else(|| figure(bytes, plain, end).map(|f| f.0)),
            Sign::Pair => self.pair(bytes, plain, end),
            Sign::Model => self.model = self.model.or_else(|| model(text, end)),
            Sign::ModelBefore => {
                let word = text[..start].trim_end().rsplit(char::is_whitespace).next();
                self.model = self.model.or_else(|| word.and_then(|word| model(word, 0)));
            }
            Sign::Unit(_) | Sign::Short(_) => {}
        }
    }

    fn unit(&mut self, scope: Scope, bytes: &[u8], plain: &[u8], start: usize, end: usize) {
        let (before, after) = (plain[..start].trim_ascii_end(), &plain[end..]);
        if let Some(window) = divided(after) {
            self.spans(Some(window));
            let named = if window == Window::Day { scope.daily() } else { scope };
            self.axis = self.axis.or(Some(named));
            self.counted = self.counted.or_else(|| number_before(bytes, start));
            return;
        }
        let after = after.trim_ascii_start();
        let after = after.strip_prefix(b",").unwrap_or(after).trim_ascii_start();
        let named = [&b"limit"[..], b"rate limit", b"ratelimit", b"quota", b"usage", b"count", b"exceeded"]
            .iter()
            .any(|word| after.starts_with(word))
            || [&b" for"[..], b" on", b" tier", b" daily", b" max", b"number of", b" model"].iter().any(|word| before.ends_with(word))
            // `Too many requests` is what 429 means, and says no more.
            || (scope != Scope::Requests && before.ends_with(b"too many"));
        if named {
            self.hint_of_axis = self.hint_of_axis.or(Some(scope));
        }
    }

    fn pair(&mut self, bytes: &[u8], plain: &[u8], at: usize) {
        if let Some((used, end)) = figure(bytes, plain, at)
            && bytes.get(end) == Some(&b'/')
            && let Some((limit, _)) = figure(bytes, plain, end + 1)
        {
            self.used = self.used.or(Some(used));
            self.limit = self.limit.or(Some(limit));
        }
    }

    fn spans(&mut self, window: Option<Window>) -> bool {
        self.daily |= window == Some(Window::Day);
        self.month |= window == Some(Window::Month);
        window.is_some()
    }
}

/// Whether a quote begins somewhere in `text`; an apostrophe within a word is none.
fn opens_quote(text: &[u8]) -> bool {
    let begins = |at: usize| at == 0 || !text[at - 1].is_ascii_alphanumeric();
    (0..text.len()).any(|at| matches!(text[at], b'"' | b'\'' | b'`') && begins(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::duration;

    fn read(text: &str) -> Wording<'static> {
        let line: &'static str = Box::leak(format!("{text}\n").into_boxed_str());
        Wording::read(line, &|| Some(Duration::from_secs(1_700_000_000)))
    }

    #[test]
    fn scopes() {
        for (text, scope) in [
            ("Rate limit reached for m-1 on tokens per min (TPM): Limit 5", Some(Scope::Tokens)),
            ("on requests per day (RPD): Limit 5", Some(Scope::DailyRequests)),
            ("of 20,000 input tokens per minute", Some(Scope::InputTokens)),
            ("You exceeded token rate limit of your tier", Some(Scope::Tokens)),
            ("exceeded call rate limit", Some(Scope::Requests)),
            ("Rate limit reached for requests", Some(Scope::Requests)),
            ("Rate limit of 50 per 86400s exceeded", Some(Scope::DailyRequests)),
            ("Enqueued token limit reached", Some(Scope::EnqueuedTokens)),
            ("Limit: 200 / day.", Some(Scope::DailyRequests)),
            ("Rate limit reached for fine-tuned model", None),
            ("Too many requests, please slow down", None),
        ] {
            assert_eq!(read(text).scope(), scope, "{text}");
        }
    }

    #[test]
    fn numbers() {
        for (text, limit, used, requested) in [
            ("Limit 6000, Used 5034, Requested ~1443", Some(6000.0), Some(5034.0), Some(1443.0)),
            ("Limit: 60.000000 / min. Current: 70.000000 / min.", Some(60.0), Some(70.0), None),
            ("Limit: 15/1min", Some(15.0), None, None),
            ("(actual/limit): 65605/16000", Some(16000.0), Some(65605.0), None),
            ("of 1,000,000 input tokens per minute", Some(1e6), None, None),
            ("limit: 30K", Some(30_000.0), None, None),
            ("for limit gpt-4.1-long-context", None, None, None),
        ] {
            let found = read(text);
            assert_eq!((found.size(), found.used, found.requested), (limit, used, requested), "{text}");
        }
    }

    #[test]
    fn delays() {
        for (text, ms) in [
            ("Please try again in 6m0s. Visit", Some(360_000)),
            ("please try again after 1 seconds", Some(1000)),
            ("Please retry after 60 seconds", Some(60_000)),
            ("Please wait 52220 seconds before retrying", Some(52_220_000)),
            ("Expected available in 831.0 seconds.", Some(831_000)),
            ("Try again in 58 hours", Some(208_800_000)),
            ("replenished in 1.00:00:05", Some(86_405_000)),
            ("try again at 2023-11-14T22:13:50Z", Some(30_000)),
            ("请在 30 秒后重试", Some(30_000)),
            ("Retry-After: 7", Some(7000)),
            ("try again in -5 seconds", None),
            ("retry after a brief wait", None),
            ("try again in an hour", None),
            ("maxWaitMs (15000ms)", None),
            ("10 per 86400s", None),
        ] {
            let delay = read(text).delay.map(|d| duration::ceil_ms(d).as_millis() as u64);
            assert_eq!(delay, ms, "{text}");
        }
    }

    #[test]
    fn models() {
        for (text, model) in [
            ("Rate limit reached for gpt-4.1 in organization org-x", Some("gpt-4.1")),
            ("reached for ft:gpt-3.5-turbo:acme::8x in", Some("ft:gpt-3.5-turbo:acme::8x")),
            ("reached for model `llama-3.3-70b-versatile` in", Some("llama-3.3-70b-versatile")),
            ("limit: 20, model: gemini-2.5-pro.", Some("gemini-2.5-pro")),
            ("qwen/qwen3:free is temporarily rate-limited upstream", Some("qwen/qwen3:free")),
            ("reached for requests", None),
            ("reached for fine-tuned model", None),
            ("reached for organization org-abc1 on", None),
        ] {
            assert_eq!(read(text).model, model, "{text}");
        }
    }
}
