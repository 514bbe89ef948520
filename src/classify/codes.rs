//! What the codes of a refusal mean: by the lists of the dialects, else by the words in them.

use super::Kind::{self, Concurrency, Overloaded, QuotaExhausted, RateLimited};
use super::Scope::{self, Concurrent, DailyRequests, DailyTokens, InputTokens, OutputTokens, Requests, Tokens};
use super::body;
use crate::dialect::Dialect;

/// What a code means: its kind, and the limit it names, if it names one.
type Meaning = (Kind, Option<Scope>);

/// What the codes of an answer say together.
#[derive(Debug)]
pub(super) struct Codes<'c> {
    codes: &'c str,
    dialect: &'c Dialect,
    pub(super) stop: bool,
    /// What stops is the account's.
    pub(super) account: bool,
    pub(super) too_large: bool,
    pub(super) overload: bool,
    pub(super) concurrent: bool,
    pub(super) rate: bool,
    pub(super) server: bool,
}

impl<'c> Codes<'c> {
    /// Reads squeezed codes, a line each; `text` are the messages beside them.
    pub(super) fn read(dialect: &'c Dialect, codes: &'c str, text: &str) -> Self {
        let (stop, account, too_large, overload) = (false, false, false, false);
        let (concurrent, rate, server) = (false, false, false);
        let mut found = Self { codes, dialect, stop, account, too_large, overload, concurrent, rate, server };
        let mut lower = None;
        for code in codes.lines() {
            let mut kind = meaning(dialect, code).map(|(kind, _)| kind);
            if kind == Some(QuotaExhausted) && *dialect == Dialect::GENERIC {
                // The gravest of meanings, and the one that is not everyone's: look who is speaking.
                let text = lower.get_or_insert_with(|| text.to_ascii_lowercase());
                if let Some(speaker) = by_marks(code, text) {
                    found.dialect = speaker;
                    kind = meaning(speaker, code).map(|(kind, _)| kind);
                }
            }
            match kind {
                Some(QuotaExhausted) => {
                    found.stop = true;
                    found.account |= !OF_A_MODEL.iter().any(|part| code.contains(part));
                }
                Some(Kind::TooLarge) => found.too_large = true,
                Some(Overloaded) => found.overload = true,
                Some(Concurrency) => found.concurrent = true,
                Some(RateLimited) => found.rate = true,
                Some(Kind::ServerError) => found.server = true,
                Some(Kind::Pass) | None => {}
            }
        }
        found
    }

    /// The limit that the codes name.
    pub(super) fn scope(&self) -> Option<Scope> {
        self.codes.lines().fold(None, |found: Option<Scope>, code| {
            let listed = meaning(self.dialect, code).and_then(|(_, scope)| scope);
            let scope = listed.or_else(|| scope_of(code));
            // Gemini names the metric first and its window after it.
            let longer = |one: Scope| scope == Some(one.daily());
            if found.is_none_or(longer) { scope } else { found }
        })
    }

    pub(super) fn any(&self) -> bool {
        self.stop || self.too_large || self.overload || self.concurrent || self.rate || self.server
    }
}

/// What a squeezed code means: by this dialect's list, then by anyone's, then by the words in it.
fn meaning(dialect: &Dialect, code: &str) -> Option<Meaning> {
    let word = || CODE_WORDS.iter().find(|(word, _)| code.contains(word));
    listed(dialect, code)
        .or_else(|| Dialect::ALL.iter().find_map(|dialect| listed(dialect, code)))
        .or_else(|| word().map(|(_, kind)| (*kind, None)))
}

/// The dialect that its own words give away, if it gives the code a meaning of its own.
fn by_marks(code: &str, text: &str) -> Option<&'static Dialect> {
    let speaks = |dialect: &Dialect| dialect.marks.iter().any(|mark| text.contains(mark));
    Dialect::ALL.iter().copied().find(|dialect| listed(dialect, code).is_some() && speaks(dialect))
}

fn listed(dialect: &Dialect, code: &str) -> Option<Meaning> {
    let (_, kind, scope) = dialect.codes.iter().find(|(name, ..)| *name == code)?;
    Some((*kind, *scope))
}

/// The limit that a header names: Azure's `policy-id` and `x-ratelimit-type`.
pub(super) fn scope_of_header(value: &[u8]) -> Option<Scope> {
    let mut squeezed = String::new();
    body::squeeze(&value[..value.len().min(80)], &mut squeezed);
    scope_of(&squeezed).or_else(|| match squeezed.as_str() {
        axis if axis.contains("token") => Some(Tokens),
        axis if axis.contains("request") || axis.contains("call") => Some(Requests),
        _ => None,
    })
}

/// Words that tell the kind of a code that no list has. `quota`, `billing`, `plan` and `credit` alone are not among
/// them: several providers use these for a window of a minute.
const CODE_WORDS: &[(&str, Kind)] = &[
    ("insufficientbalance", QuotaExhausted),
    ("insufficientcredit", QuotaExhausted),
    ("insufficientfund", QuotaExhausted),
    ("balanceinsufficient", QuotaExhausted),
    ("creditbalance", QuotaExhausted),
    ("outofcredit", QuotaExhausted),
    ("spendlimit", QuotaExhausted),
    ("spendinglimit", QuotaExhausted),
    ("budgetexceeded", QuotaExhausted),
    ("hardlimitreached", QuotaExhausted),
    ("notenoughbalance", QuotaExhausted),
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
    ("nocapacity", Overloaded),
    ("capacityexceeded", Overloaded),
    ("capacityexhausted", Overloaded),
    ("reducedcapacity", Overloaded),
    ("outofcapacity", Overloaded),
    ("serverbusy", Overloaded),
    ("queuefull", Overloaded),
    ("modelnotready", Overloaded),
    ("serviceunavailable", Overloaded),
    ("ratelimit", RateLimited),
    ("toomanyrequest", RateLimited),
    ("throttl", RateLimited),
    ("requestlimitexceeded", RateLimited),
];

/// Parts of the codes that may stop one model alone; all others speak of the account's plan, budget or balance.
const OF_A_MODEL: &[&str] = &[
    "freetier",
    "setlimitexceeded",
    "commoditynotpurchased",
    "usagenotincluded",
    "servicequotaexceeded",
    "errorcode17",
    "errorcode19",
    "1304",
];

/// The limit that a squeezed code names, by the words in it: `generaterequestsperdayperproject`,
/// `modelaccounttpmratelimitexceeded`.
fn scope_of(code: &str) -> Option<Scope> {
    let scope = CODE_SCOPES.iter().find(|(part, _)| code.contains(part))?.1;
    let daily = ["perday", "byday", "daily"].iter().any(|word| code.contains(word));
    Some(if daily { scope.daily() } else { scope })
}

/// Parts of a code that name a limit, the longer before the shorter. `request` and `token` alone do not:
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
    ("itpm", InputTokens),
    ("otpm", OutputTokens),
    ("tpm", Tokens),
    ("rpm", Requests),
    ("tpd", DailyTokens),
    ("rpd", DailyRequests),
    ("concurren", Concurrent),
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
        let found = Codes::read(&Dialect::GENERIC, "insufficientquota\n", "see help.aliyun.com");
        assert!(found.rate && !found.stop);
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
