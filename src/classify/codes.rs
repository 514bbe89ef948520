//! Maps the codes of an error response to a kind and a limit: by the dialects' lists, else by the words in the code.

use crate::classify::Kind::{self, Concurrency, Overloaded, QuotaExhausted, RateLimited, ServerError, TooLarge};
use crate::classify::Scope::{
    self, Concurrent, DailyRequests, DailyTokens, InputTokens, OutputTokens, Requests, Tokens,
};
use crate::classify::body;
use crate::dialect::Dialect;

/// The meaning of a code: its kind, and the limit that it names.
type Meaning = (Kind, Option<Scope>);

/// The combined meaning of all codes of a response.
#[derive(Debug)]
pub(super) struct Codes<'c> {
    codes: &'c str,
    dialect: &'c Dialect,
    pub(super) stop: bool,
    /// Whether an unambiguous code, not a title, set `stop`.
    pub(super) stop_by_code: bool,
    /// Whether a quota is exhausted, unless the response states that it resets soon.
    pub(super) stop_weak: bool,
    /// Whether the exhausted quota belongs to the whole account.
    pub(super) account: bool,
    pub(super) too_large: bool,
    pub(super) overload: bool,
    pub(super) concurrent: bool,
    pub(super) rate: bool,
    pub(super) server: bool,
}

impl<'c> Codes<'c> {
    /// Reads squeezed codes, one per line. `titles` are texts of several words that may be codes. `text` holds the
    /// messages of the response.
    pub(super) fn read(dialect: &'c Dialect, codes: &'c str, titles: &str, text: &str) -> Self {
        let mut found = Self {
            codes,
            dialect,
            stop: false,
            stop_by_code: false,
            stop_weak: false,
            account: false,
            too_large: false,
            overload: false,
            concurrent: false,
            rate: false,
            server: false,
        };
        let mut lower = None;
        let words = titles.lines().map(|title| (title, false));
        for (code, sure) in codes.lines().map(|code| (code, true)).chain(words) {
            let weak = code == "quotaexceeded" || STOP_WEAK.iter().any(|part| code.contains(part));
            found.stop_weak |= weak;
            found.stop_by_code |= weak && sure;
            let mut kind = meaning(dialect, code).map(|(kind, _)| kind);
            if kind == Some(QuotaExhausted) && *dialect == Dialect::GENERIC {
                // Some providers use this code for a rate limit, so look for words that identify the provider.
                let text = lower.get_or_insert_with(|| text.to_ascii_lowercase());
                if let Some(speaker) = by_marks(code, text) {
                    found.dialect = speaker;
                    kind = meaning(speaker, code).map(|(kind, _)| kind);
                }
            }
            match kind {
                Some(QuotaExhausted) => {
                    found.stop = true;
                    found.stop_by_code |= sure;
                    found.account |= !NOT_OF_THE_ACCOUNT.iter().any(|part| code.contains(part));
                }
                Some(TooLarge) => found.too_large = true,
                Some(Overloaded) => found.overload = true,
                Some(Concurrency) => found.concurrent = true,
                Some(RateLimited) => found.rate = true,
                Some(ServerError) => found.server = true,
                Some(Kind::Pass) | None => {}
            }
        }
        found
    }

    /// Returns the limit that the codes name.
    pub(super) fn scope(&self) -> Option<Scope> {
        self.codes.lines().fold(None, |found: Option<Scope>, code| {
            let listed = meaning(self.dialect, code).and_then(|(_, scope)| scope);
            let scope = listed.or_else(|| scope_of(code));
            // Gemini names the metric first and its window in a later code.
            let longer = |one: Scope| scope == Some(one.daily());
            if found.is_none_or(longer) { scope } else { found }
        })
    }

    pub(super) fn any(&self) -> bool {
        self.stop || self.too_large || self.overload || self.concurrent || self.rate || self.server
    }
}

/// Returns the meaning of a squeezed code: by this dialect's list, then by all lists, then by the words in it.
fn meaning(dialect: &Dialect, code: &str) -> Option<Meaning> {
    let word = || CODE_WORDS.iter().find(|(word, _)| code.contains(word));
    listed(dialect, code)
        .or_else(|| Dialect::ALL.iter().find_map(|dialect| listed(dialect, code)))
        .or_else(|| lacks_money(code).then_some((QuotaExhausted, None)))
        .or_else(|| word().map(|(_, kind)| (*kind, None)))
}

/// Returns true if the code says that money is exhausted: `INSUFFICIENT_ACCOUNT_BALANCE`, `credits_exhausted`.
fn lacks_money(code: &str) -> bool {
    let has = |parts: &[&str]| parts.iter().any(|part| code.contains(part));
    let money = has(&["credit", "balance", "fund", "wallet", "prepay"]);
    let spent = has(&["insufficient", "depleted", "exhausted", "notenough", "outof", "toolow", "usedup"]);
    let quota = code.contains("quota") && (code.starts_with("insufficient") || has(&["notenough", "outof"]));
    (money && spent) || quota
}

/// Returns the kind of a 400 of Amazon's older protocols, if its error class means throttling or no capacity.
pub(super) fn of_amazon(codes: &str, amazon: bool) -> Option<Kind> {
    let mut classes = codes.lines().filter(|code| amazon || code.ends_with("exception"));
    let (kind, _) = classes.find_map(|code| listed(&Dialect::BEDROCK, code))?;
    matches!(kind, RateLimited | Overloaded).then_some(kind)
}

/// Returns the dialect that the text identifies, if that dialect lists the code.
fn by_marks(code: &str, text: &str) -> Option<&'static Dialect> {
    let speaks = |dialect: &Dialect| dialect.marks.iter().any(|mark| text.contains(mark));
    Dialect::ALL.iter().copied().find(|dialect| listed(dialect, code).is_some() && speaks(dialect))
}

fn listed(dialect: &Dialect, code: &str) -> Option<Meaning> {
    let (_, kind, scope) = dialect.codes.iter().find(|(name, ..)| *name == code)?;
    Some((*kind, *scope))
}

/// Returns the limit that a header or a field names: Azure's `policy-id` and `x-ratelimit-type`, LiteLLM's
/// `rate_limit_type`.
pub(super) fn scope_of_header(value: &[u8]) -> Option<Scope> {
    let mut squeezed = String::new();
    body::squeeze(&value[..value.len().min(80)], &mut squeezed);
    scope_of(&squeezed).or_else(|| match squeezed.as_str() {
        axis if axis.contains("token") => Some(Tokens),
        axis if axis.contains("request") || axis.contains("call") => Some(Requests),
        _ => None,
    })
}

/// Parts of codes that are in no list, and their kind. `quota`, `billing`, `plan` and `credit` alone are not included,
/// because several providers use them for a limit per minute.
const CODE_WORDS: &[(&str, Kind)] = &[
    ("creditbalance", QuotaExhausted),
    ("creditlimitexceeded", QuotaExhausted),
    ("nocredit", QuotaExhausted),
    ("spendlimit", QuotaExhausted),
    ("spendinglimit", QuotaExhausted),
    ("budgetexceeded", QuotaExhausted),
    ("exceededbudget", QuotaExhausted),
    ("overbudget", QuotaExhausted),
    ("hardlimitreached", QuotaExhausted),
    ("accountquotaexceeded", QuotaExhausted),
    ("quotareached", QuotaExhausted),
    ("tokenquotaexhausted", QuotaExhausted),
    ("usagelimiterror", QuotaExhausted),
    ("usagelimitexceeded", QuotaExhausted),
    ("outofcallvolume", QuotaExhausted),
    ("planexpired", QuotaExhausted),
    ("subscriptionexpired", QuotaExhausted),
    ("trialexpired", QuotaExhausted),
    ("usagecap", QuotaExhausted),
    ("billinglimit", QuotaExhausted),
    ("billinghard", QuotaExhausted),
    ("billingnot", QuotaExhausted),
    ("overdue", QuotaExhausted),
    ("arrear", QuotaExhausted),
    ("usagelimitreached", QuotaExhausted),
    ("paymentrequired", QuotaExhausted),
    ("concurren", Concurrency),
    ("inflight", Concurrency),
    ("parallelrequest", Concurrency),
    ("overload", Overloaded),
    ("capacity", Overloaded),
    ("serverbusy", Overloaded),
    ("queuefull", Overloaded),
    ("modelnotready", Overloaded),
    ("serviceunavailable", Overloaded),
    ("ratelimit", RateLimited),
    ("toomanyrequest", RateLimited),
    ("throttl", RateLimited),
    ("requestlimitexceeded", RateLimited),
    ("contextlengthexceeded", TooLarge),
    ("prompttoolong", TooLarge),
    ("upstreamerror", ServerError),
    ("providererror", ServerError),
    ("providerresponseerror", ServerError),
    ("internalerror", ServerError),
    ("engineerror", ServerError),
];

/// Parts of codes of a quota that may reset soon: `QUOTA_EXHAUSTED`, `MONTHLY_REQUEST_COUNT`.
const STOP_WEAK: &[&str] = &["quotaexhausted", "monthly", "weekly", "dailyquota", "dailylimit"];

/// Parts of codes that may concern one model or one key only. All other codes concern the whole account.
const NOT_OF_THE_ACCOUNT: &[&str] = &[
    "freetier",
    "setlimitexceeded",
    "commoditynotpurchased",
    "usagenotincluded",
    "servicequotaexceeded",
    "errorcode17",
    "errorcode19",
    "tokenquota",
    "1304",
];

/// Returns the limit that a squeezed code names: `generaterequestsperdayperproject`,
/// `modelaccounttpmratelimitexceeded`.
fn scope_of(code: &str) -> Option<Scope> {
    let scope = CODE_SCOPES.iter().find(|(part, _)| code.contains(part))?.1;
    let daily = ["perday", "byday", "daily"].iter().any(|word| code.contains(word));
    Some(if daily { scope.daily() } else { scope })
}

/// Parts of a code that name a limit. Longer parts come first. `request` and `token` alone are not included:
/// `invalid_request_error`, `invalid_token`.
const CODE_SCOPES: &[(&str, Scope)] = &[
    ("inputtoken", InputTokens),
    ("outputtoken", OutputTokens),
    ("tokensper", Tokens),
    ("tokencount", Tokens),
    ("tokenrate", Tokens),
    ("tokenslimit", Tokens),
    ("tokenlimit", Tokens),
    ("toomanytokens", Tokens),
    ("requestsper", Requests),
    ("requestrate", Requests),
    ("requestslimit", Requests),
    ("bymodelby", Requests),
    ("byminute", Requests),
    ("byday", Requests),
    ("itpm", InputTokens),
    ("otpm", OutputTokens),
    ("tpm", Tokens),
    ("rpm", Requests),
    ("tpd", DailyTokens),
    ("rpd", DailyRequests),
    ("concurren", Concurrent),
    ("parallelrequest", Concurrent),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_code_two_meanings() {
        let kind = |dialect, code| meaning(&dialect, code).map(|meaning| meaning.0);
        assert_eq!(kind(Dialect::OPENAI, "insufficientquota"), Some(QuotaExhausted));
        assert_eq!(kind(Dialect::DASHSCOPE, "insufficientquota"), Some(RateLimited));
        assert_eq!(kind(Dialect::GENERIC, "modelaccountrpmratelimitexceeded"), Some(RateLimited));
        assert_eq!(kind(Dialect::GENERIC, "creditlimit"), None);
        let found = Codes::read(&Dialect::GENERIC, "insufficientquota\n", "", "see help.aliyun.com");
        assert!(found.rate && !found.stop);
    }

    #[test]
    fn codes_that_no_list_has() {
        for (code, kind) in [
            ("insufficientg1creditsbalance", Some(QuotaExhausted)),
            ("creditsexhausted", Some(QuotaExhausted)),
            ("insufficientaccountbalance", Some(QuotaExhausted)),
            ("gousagelimiterror", Some(QuotaExhausted)),
            ("insufficientpermissions", None),
            ("concurrentrequestlimitexceeded", Some(Concurrency)),
            ("maxparallelrequests", Some(Concurrency)),
            ("insufficientcapacity", Some(Overloaded)),
            ("contextlengthexceeded", Some(TooLarge)),
            ("upstreamerror", Some(ServerError)),
            ("invalidrequesterror", None),
        ] {
            assert_eq!(meaning(&Dialect::GENERIC, code).map(|meaning| meaning.0), kind, "{code}");
        }
    }

    #[test]
    fn amazon_answers_400_to_a_throttle() {
        assert_eq!(of_amazon("throttlingexception\n", false), Some(RateLimited));
        assert_eq!(of_amazon("serviceunavailableexception\n", false), Some(Overloaded));
        assert_eq!(of_amazon("requestlimitexceeded\n", true), Some(RateLimited));
        // Other providers use this code for a page that is too long.
        assert_eq!(of_amazon("requestlimitexceeded\n", false), None);
        assert_eq!(of_amazon("validationexception\n", true), None);
    }

    #[test]
    fn words_are_no_code() {
        let found = Codes::read(&Dialect::GENERIC, "", "insufficientbalance\n", "");
        assert!(found.stop && !found.stop_by_code);
        let found = Codes::read(&Dialect::GENERIC, "quotaexceeded\n", "", "");
        assert!(found.stop_weak && found.stop_by_code && !found.stop);
    }

    #[test]
    fn scopes_in_codes() {
        for (code, scope) in [
            ("generaterequestsperdayperprojectpermodelfreetier", Some(DailyRequests)),
            ("generatecontentpaidtierinputtokenspermodelperminute", Some(InputTokens)),
            ("modelaccounttpmratelimitexceeded", Some(Tokens)),
            ("userbymodelbyday", Some(DailyRequests)),
            ("invalidrequesterror", None),
        ] {
            assert_eq!(scope_of(code), scope, "{code}");
        }
        assert_eq!(scope_of_header(b"DeploymentRatelimit-Token"), Some(Tokens));
    }
}
