//! The phrases that tell what a message means, as data, and the one pass that finds them.
//!
//! Phrases are in lower case and begin where a word begins; a blank stands for a blank, a line's end, `-` or `_`. Where
//! two begin at the same letter the longer one counts. The words *quota*, *billing*, *plan* and *credit* alone never
//! mean stop: several providers use them for windows of a minute.

use super::Scope::{self, DailyRequests, DailyTokens, Images, InputTokens, OutputTokens, Requests, Tokens};

/// What a phrase tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Sign {
    /// The account's plan, budget or balance is used up.
    Account,
    /// A quota is used up that may be one model's.
    Stop,
    /// The same, unless the message also names a short window or states a delay.
    StopWeak,
    /// The server has no capacity.
    Overload,
    /// Too many calls at once.
    Concurrent,
    /// The request alone is larger than its limit.
    TooLarge,
    /// Some rate was too high.
    Rate,
    /// The server failed.
    ServerFault,
    /// A window of a month.
    Month,
    /// A window of a day.
    Daily,
    /// What waits in batches.
    Enqueued,
    /// A window follows.
    Per,
    /// What is counted; its window may follow.
    Unit(Scope),
    /// What is counted, its window included.
    Short(Scope),
    /// A delay or a date follows.
    Delay,
    /// The limit's size follows.
    Limit,
    /// What was in use follows.
    Used,
    /// What the request asked for follows.
    Requested,
    /// What was in use and the limit follow.
    Pair,
    /// A model's name follows.
    Model,
    /// A model's name stands before.
    ModelBefore,
}

use Sign::{
    Account, Concurrent, Daily, Delay, Enqueued, Limit, Model, ModelBefore, Month, Overload, Pair, Per, Rate,
    Requested, ServerFault, Short, Stop, StopWeak, TooLarge, Unit, Used,
};

/// Calls `found` with each phrase's sign, and where it begins and ends, in a text that [`normalize`] made.
pub(super) fn scan(text: &[u8], mut found: impl FnMut(Sign, usize, usize)) {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let (from, to) = BUCKETS[usize::from(byte)];
        let here = &text[at..];
        // The second byte rules most out before the phrase is compared.
        let second = here.get(1);
        let mut phrases = PHRASES[from..to].iter();
        let hit = phrases.find(|(phrase, _)| phrase.as_bytes().get(1) == second && here.starts_with(phrase.as_bytes()));
        if let Some((phrase, sign)) = hit {
            found(*sign, at, at + phrase.len());
        }
        // On to the next word; letters beyond ASCII are words of their own, as Chinese has no blanks.
        at += here.iter().take_while(|b| b.is_ascii_alphanumeric()).count().max(1);
    }
}

/// Lower case, and blanks for line ends, `-` and `_`, so that offsets stay those of `text`.
pub(super) fn normalize(text: &str) -> Vec<u8> {
    let blank = |b: u8| matches!(b, b'\n' | b'\r' | b'\t' | b'-' | b'_');
    text.bytes().map(|b| if blank(b) { b' ' } else { b.to_ascii_lowercase() }).collect()
}

/// For each first byte, where its phrases begin and end in [`PHRASES`].
const BUCKETS: [(usize, usize); 256] = {
    let mut buckets = [(0, 0); 256];
    let mut at = 0;
    while at < PHRASES.len() {
        let first = PHRASES[at].0.as_bytes()[0] as usize;
        if buckets[first].1 == 0 {
            buckets[first].0 = at;
        }
        at += 1;
        buckets[first].1 = at;
    }
    buckets
};

/// Sorted by the first byte, then the longer before the shorter.
#[rustfmt::skip]
const PHRASES: &[(&str, Sign)] = &[
    ("24 hours", Daily), ("24h", Daily),
    ("account is in arrears", Account), ("account is not active", Account), ("all available credits", Account),
    ("at maximum capacity", Overload), ("account not active", Account), ("available again in", Delay),
    ("api usage limits", Account), ("at full capacity", Overload), ("at the same time", Concurrent),
    ("active requests", Concurrent), ("available after", Delay), ("actual/limit", Pair), ("available at", Delay),
    ("available in", Delay), ("all workers", Overload), ("at capacity", Overload), ("again in", Delay),
    ("at once", Concurrent), ("actual", Used),
    ("budget has been exceeded", Account), ("balance is insufficient", Account), ("billing is not active", Account),
    ("balance insufficient", Account), ("billing hard limit", Account), ("billing not active", Account),
    ("budget exceeded", Account), ("back in", Delay),
    ("credit limit reached for your account", Account), ("credits have been exhausted", Account),
    ("capacity has been exceeded", Overload), ("capacity has been reached", Overload),
    ("credit balance is too low", Account), ("credit balance too low", Account), ("capacity temporarily", Overload),
    ("capacity constraint", Overload), ("capacity available", Overload), ("check your billing", Account),
    ("capacity exceeded", Overload), ("completion tokens", Unit(OutputTokens)), ("credits exhausted", Account),
    ("capacity reached", Overload), ("completion token", Unit(OutputTokens)), ("credits depleted", Account),
    ("capacity limit", Overload), ("currently busy", Overload), ("current usage", Used), ("current/limit", Pair),
    ("capacity is", Overload), ("cold start", Overload), ("concurren", Concurrent), ("currently", Used),
    ("current", Used), ("calls", Unit(Requests)), ("call", Unit(Requests)),
    ("daily free allocation", Stop), ("daily usage limit", StopWeak), ("daily budget", Account),
    ("daily limit", StopWeak), ("daily quota", StopWeak), ("daily", Daily),
    ("exceeded your monthly included credits", Account), ("exceeded your current quota", StopWeak),
    ("exceeded the current quota", StopWeak), ("exceeded your usage limit", StopWeak),
    ("exhausted all your credit", Account), ("exhausted your capacity", Stop), ("exceeded current quota", StopWeak),
    ("exhausted your credit", Account), ("exceeded your budget", Account), ("exhausted your quota", StopWeak),
    ("exceeded capacity", Overload), ("exceeded budget", Account), ("engine is busy", Overload),
    ("exceeds budget", Account), ("exceeded for", Model), ("enqueued", Enqueued),
    ("free tier of the model has been exhausted", Stop), ("free tier quota exhausted", Stop),
    ("free usage quota exceeded", Stop), ("free allocated quota", Stop), ("free models per day", Stop),
    ("free usage quota", Stop), ("free allocation", Stop), ("free quota", Stop), ("for model", Model),
    ("generated tokens", Unit(OutputTokens)), ("generations", Unit(Requests)),
    ("hit your usage limit", Stop), ("heavy traffic", Overload), ("heavy demand", Overload),
    ("high traffic", Overload), ("high demand", Overload), ("heavy load", Overload), ("high load", Overload),
    ("insufficient account balance", Account), ("is currently overloaded", ModelBefore),
    ("insufficient capacity", Overload), ("internal server error", ServerFault), ("insufficient balance", Account),
    ("is currently loading", Overload), ("insufficient credit", Account), ("insufficient funds", Account),
    ("insufficient quota", StopWeak), ("internal error", ServerFault), ("is temporarily", ModelBefore),
    ("is overloaded", ModelBefore), ("input images", Unit(Images)), ("input tokens", Unit(InputTokens)),
    ("in parallel", Concurrent), ("input token", Unit(InputTokens)), ("in arrears", Account), ("is loading", Overload),
    ("in flight", Concurrent), ("inflight", Concurrent), ("images", Unit(Images)), ("image", Unit(Images)),
    ("itpm", Short(InputTokens)), ("ipm", Short(Images)),
    ("lack of capacity", Overload), ("lifetime limit", Stop), ("limited to", Limit), ("limit for", Model),
    ("limit", Limit),
    ("maximum pending requests", Overload), ("monthly included credits", Account), ("monthly usage limit", Account),
    ("model is not ready", Overload), ("monthly budget", Account), ("model is busy", Overload),
    ("monthly limit", Stop), ("monthly quota", Stop), ("max budget", Account), ("messages", Unit(Requests)),
    ("max rpm", Limit), ("max tpm", Limit), ("maximum", Limit), ("monthly", Month), ("models", Unit(Requests)),
    ("model", Model), ("max", Limit),
    ("number of connections", Concurrent), ("no available workers", Overload), ("no remaining credits", Account),
    ("not enough capacity", Overload), ("not enough balance", Account), ("not enough credit", Account),
    ("not enough funds", Account), ("no capacity", Overload), ("no credits", Account), ("no healthy", Overload),
    ("no workers", Overload), ("not ready", Overload), ("neurons", Short(DailyTokens)),
    ("out of call volume quota", Account), ("open connections", Concurrent), ("out of capacity", Overload),
    ("out of credits", Account), ("output tokens", Unit(OutputTokens)), ("output token", Unit(OutputTokens)),
    ("over budget", Account), ("overloaded", Overload), ("overload", Overload), ("overdue", Account),
    ("otpm", Short(OutputTokens)),
    ("per day per user per tier", Stop), ("parallel request", Concurrent), ("payment required", Account),
    ("pending requests", Overload), ("plan has expired", Account), ("please recharge", StopWeak),
    ("prepaid credit", Account), ("prompt tokens", Unit(InputTokens)), ("prompt token", Unit(InputTokens)),
    ("peak load", Overload), ("per month", Month), ("per day", Daily), ("prompts", Unit(Requests)),
    ("perday", Daily), ("per ", Per),
    ("quota has been exhausted for this month", Stop), ("quota has been exhausted", StopWeak),
    ("queue has exceeded", Overload), ("quota is exhausted", StopWeak), ("quota exhausted", StopWeak),
    ("queue exceeded", Overload), ("queue is full", Overload), ("queue length", Overload),
    ("queue limit", Overload), ("queue full", Overload), ("quota for", Model), ("queries", Unit(Requests)),
    ("query", Unit(Requests)), ("quota", Limit), ("qpd", Short(DailyRequests)), ("qpm", Short(Requests)),
    ("qps", Short(Requests)),
    ("resource has been exhausted. please try again later", Overload),
    ("resource exhausted. please try again later", Overload), ("request exceeds the maximum tokens", TooLarge),
    ("request exceeds the token", TooLarge), ("requested too many tokens", TooLarge),
    ("requests are too frequent", Rate), ("reached your usage limit", Stop), ("rate limited upstream", Overload),
    ("recharge your account", StopWeak), ("request was too large", TooLarge), ("requires more credits", Account),
    ("ratelimited upstream", Overload), ("request is too large", TooLarge), ("request too frequent", Rate),
    ("resource unavailable", Overload), ("reached your weekly", Stop), ("requests at a time", Concurrent),
    ("ran out of credit", Account), ("request frequency", Rate), ("request too large", TooLarge),
    ("run out of credit", Account), ("reduced capacity", Overload), ("run out of quota", StopWeak),
    ("running requests", Concurrent), ("requested/limit", Pair), ("replenished in", Delay),
    ("request tokens", Unit(Tokens)), ("retry it after", Delay), ("request queue", Overload),
    ("replenish in", Delay), ("resets after", Delay), ("reached for", Model), ("requests to", Model),
    ("reset after", Delay), ("retry after", Delay), ("retrying in", Delay), ("rate limit", Rate),
    ("ratelimit", Rate), ("requested", Requested), ("resets at", Delay), ("resets in", Delay), ("resets on", Delay),
    ("resume in", Delay), ("requests", Unit(Requests)), ("reset at", Delay), ("reset in", Delay),
    ("reset on", Delay), ("retry at", Delay), ("retry in", Delay), ("request", Unit(Requests)),
    ("rpd", Short(DailyRequests)), ("rph", Short(Requests)), ("rpm", Short(Requests)), ("rps", Short(Requests)),
    ("specified api usage limits", Account), ("subscription has expired", Account), ("single request exceeds", TooLarge),
    ("subscription expired", Account), ("server had an error", ServerFault), ("service unavailable", Overload),
    ("session usage limit", Stop), ("still being loaded", Overload), ("servers are busy", Overload),
    ("service is busy", Overload), ("server is busy", Overload), ("spending limit", Account),
    ("system is busy", Overload), ("service busy", Overload), ("simultaneous", Concurrent), ("spending cap", Account),
    ("server busy", Overload), ("shared pool", Overload), ("spend limit", Account), ("system busy", Overload),
    ("slow down", Rate), ("spend cap", Account),
    ("temporarily unavailable", Overload), ("temporarily unable", Overload), ("too many request", Rate),
    ("trial has ended", Account), ("try again after", Delay), ("time remaining", Delay), ("too frequently", Rate),
    ("too large for", Model), ("too many call", Rate), ("trial expired", Account), ("try again at", Delay),
    ("try again in", Delay), ("try after", Delay), ("too busy", Overload), ("too fast", Rate), ("throttl", Rate),
    ("tokens", Unit(Tokens)), ("token", Unit(Tokens)), ("tpd", Short(DailyTokens)), ("tpm", Short(Tokens)),
    ("tps", Short(Tokens)),
    ("usage limit has been reached", Stop), ("used all of your credits", Account), ("used all your credits", Account),
    ("upstream rate limit", Overload), ("usage limit reached", Stop), ("unavailable due to", Overload),
    ("used up your daily", Stop), ("unusually high", Overload), ("usage/limit", Pair), ("used/limit", Pair),
    ("until", Delay), ("usage", Used), ("used", Used),
    ("weekly usage limit", Stop), ("wait for about", Delay), ("wait at least", Delay), ("weekly budget", Account),
    ("wait another", Delay), ("weekly limit", Stop), ("wait about", Delay), ("warming up", Overload),
    ("wait for", Delay), ("wait", Delay),
    ("余额已用完", Account), ("余额不足", Account),
    ("免费额度", Stop), ("充值", StopWeak), ("并发", Concurrent),
    ("无可用资源包", Stop), ("拥挤", Overload), ("欠费", Account), ("每日", StopWeak),
    ("等待", Delay), ("繁忙", Overload),
    ("请求过于频繁", Rate), ("访问量过大", Overload), ("请求速率", Short(Requests)), ("请求频率", Short(Requests)),
    ("调用频率", Short(Requests)), ("请等待", Delay), ("请于", Delay), ("请在", Delay), ("负载", Overload), ("过载", Overload),
    ("额度已用完", Stop), ("额度不足", Stop), ("速率", Rate), ("限流", Rate), ("频率", Rate),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted() {
        for pair in PHRASES.windows(2) {
            let (one, two) = (pair[0].0.as_bytes(), pair[1].0.as_bytes());
            assert!(one[0] < two[0] || one[0] == two[0] && one.len() >= two.len(), "{pair:?}");
        }
        for (phrase, _) in PHRASES {
            assert!(normalize(phrase) == phrase.as_bytes(), "{phrase}");
        }
    }
}
