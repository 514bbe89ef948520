//! The text and the delay of a 429, as configured.

use std::time::Duration;

use serde_json::Value;

use crate::builder::Config;
use crate::go_duration;
use crate::knobs::{HintUnit, Wording};
use crate::time::round_up;
use crate::verdict::{Reason, Shortage};

const BARE: &str =
    r#"{"error":{"message":"Rate limit reached for fine-tuned model","type":"requests","code":"rate_limit_exceeded"}}"#;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The body and the delay of a 429.
#[derive(Debug)]
pub(crate) struct Words {
    pub(crate) body: String,
    /// The rounded delay in the headers.
    pub(crate) retry_after: Option<Duration>,
}

pub(crate) fn throttle(config: &Config, model: &str, reason: &Reason, wait: Duration) -> Words {
    let concurrency = matches!(reason, Reason::Concurrency { .. });
    let quota = *reason == Reason::Quota;
    let bare = match config.wording {
        _ if quota => false,
        Wording::OpenAi => false,
        Wording::Bare | Wording::BareRate => true,
        Wording::BareConcurrency => concurrency,
    };
    let silent = quota
        || (concurrency && config.no_concurrency_hint)
        || (bare && (concurrency || config.wording == Wording::Bare));
    let unit = match config.hint_unit {
        HintUnit::Milliseconds => MILLISECOND,
        HintUnit::Seconds => SECOND,
    };
    let hint = (!silent).then(|| round_up(wait, unit).max(unit));
    let retry_after = hint.filter(|_| config.hints.in_headers());
    if bare {
        return Words { body: BARE.to_owned(), retry_after };
    }
    let told = hint.filter(|_| config.hints.in_message());
    Words { body: openai(model, reason, told), retry_after }
}

/// Formats an error as OpenAI does.
pub(crate) fn error(message: &str, kind: &str, code: Option<&str>) -> String {
    let [message, kind] = [message, kind].map(|text| Value::from(text).to_string());
    let code = code.map_or(Value::Null, Value::from);
    format!(r#"{{"error":{{"message":{message},"type":{kind},"param":null,"code":{code}}}}}"#)
}

fn openai(model: &str, reason: &Reason, hint: Option<Duration>) -> String {
    let model = if model.is_empty() { "default" } else { model };
    let again = hint.map(|hint| format!(" Please try again in {}.", go_duration(hint))).unwrap_or_default();
    let rate = |unit: &str, short: char, shortage: &Shortage| {
        let Shortage { limit, used, requested, daily } = shortage;
        let (period, letter) = if *daily { ("day", 'D') } else { ("min", 'M') };
        let message = format!(
            "Rate limit reached for {model} in organization org-test on {unit} per {period} \
             ({short}P{letter}): Limit {limit}, Used {used}, Requested {requested}.{again} Visit \
             https://platform.openai.com/account/rate-limits to learn more."
        );
        error(&message, unit, Some("rate_limit_exceeded"))
    };
    match reason {
        Reason::Quota => error(
            "You exceeded your current quota, please check your plan and billing details. For \
             more information on this error, read the docs: \
             https://platform.openai.com/docs/guides/error-codes/api-errors.",
            "insufficient_quota",
            Some("insufficient_quota"),
        ),
        Reason::Concurrency { at_once } => {
            let message = format!("Too many concurrent requests: at most {at_once} at once for {model}.{again}");
            error(&message, "requests", Some("rate_limit_exceeded"))
        }
        Reason::Requests(shortage) | Reason::Hidden(shortage) => rate("requests", 'R', shortage),
        Reason::Tokens(shortage) => rate("tokens", 'T', shortage),
    }
}
