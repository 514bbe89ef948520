//! What the server reads from a request: its key, model and price.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::Value;

use crate::time::seconds;

/// Request header with the price of a call in tokens. Default: one token per four characters of the
/// body, rounded up, plus `max_tokens`.
pub const TOKENS_HEADER: &str = "x-testing-tokens";

/// Request header with the tokens that the response uses. Default: `max_tokens`.
pub const OUTPUT_TOKENS_HEADER: &str = "x-testing-output-tokens";

/// Request header with the service time of a call in milliseconds. Default: a value from the
/// provider's [`ServiceTime`](crate::ServiceTime).
pub const SERVICE_MS_HEADER: &str = "x-testing-service-ms";

/// Maximum number of tokens of a call.
const MOST_TOKENS: f64 = u32::MAX as f64;

/// The key of a call, which selects its limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) credential: String,
    pub(crate) model: String,
}

/// Everything in a request that affects the decision about it.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) key: Key,
    pub(crate) model: String,
    /// Prompt and `max_tokens`.
    pub(crate) price: f64,
    pub(crate) max_tokens: f64,
    pub(crate) output: f64,
    pub(crate) stream: bool,
    pub(crate) service: Option<Duration>,
    pub(crate) body_bytes: usize,
    pub(crate) body_hash: u64,
}

impl Facts {
    /// Reads a request. Any body is accepted.
    pub(crate) fn read(headers: &HeaderMap, body: &[u8], shared_key: bool) -> Self {
        let json: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let model = json["model"].as_str().unwrap_or_default().to_owned();
        let limit = ["max_completion_tokens", "max_tokens"].map(|name| json[name].as_f64());
        let max_tokens = tokens(limit[0].or(limit[1]).unwrap_or(0.0));
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
        let prompt = (String::from_utf8_lossy(body).chars().count() as f64 / 4.0).ceil();
        let mut hasher = DefaultHasher::new();
        body.hash(&mut hasher);
        let key =
            if shared_key { Key::default() } else { Key { credential: credential(headers), model: model.clone() } };
        Self {
            key,
            model,
            price: number(TOKENS_HEADER).map_or(prompt + max_tokens, tokens),
            max_tokens,
            output: number(OUTPUT_TOKENS_HEADER).map_or(max_tokens, tokens),
            stream: json["stream"] == true,
            service: number(SERVICE_MS_HEADER).map(|ms| seconds(ms / 1e3)),
            body_bytes: body.len(),
            body_hash: hasher.finish(),
        }
    }

    /// Returns the price without the tokens reserved for the output.
    pub(crate) fn prompt(&self) -> f64 {
        (self.price - self.max_tokens).max(0.0)
    }
}

/// Clamps a number of tokens. NaN and negative numbers become 0.
fn tokens(number: f64) -> f64 {
    if number > 0.0 { number.min(MOST_TOKENS) } else { 0.0 }
}

fn credential(headers: &HeaderMap) -> String {
    let value = headers.get(AUTHORIZATION).or_else(|| headers.get("api-key"));
    value.map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Facts {
        Facts::read(&HeaderMap::new(), body, false)
    }

    #[test]
    fn a_call_costs_a_token_for_four_characters_and_its_max_tokens() {
        let facts = read(br#"{"model":"m","max_tokens":100}"#);
        assert_eq!((facts.price, facts.prompt(), facts.model.as_str()), (108.0, 8.0, "m"));
        assert_eq!(read("ääää".as_bytes()).price, 1.0);
        assert_eq!(read(br#"{"max_completion_tokens":7,"max_tokens":9}"#).max_tokens, 7.0);
        assert_eq!(read(b"").price, 0.0);
    }

    #[test]
    fn token_numbers_that_make_no_sense_are_none_or_the_most() {
        for (value, max) in [
            ("-5", 0.0),
            ("\"100\"", 0.0),
            ("null", 0.0),
            ("[1]", 0.0),
            ("1e300", MOST_TOKENS),
            ("99999999999999999999999", MOST_TOKENS),
        ] {
            let body = format!(r#"{{"max_tokens":{value}}}"#);
            assert_eq!(read(body.as_bytes()).max_tokens, max, "{value}");
        }
    }

    #[test]
    fn headers_override_price_output_and_service_time() {
        let mut headers = HeaderMap::new();
        headers.insert(TOKENS_HEADER, "500".parse().unwrap());
        headers.insert(OUTPUT_TOKENS_HEADER, "NaN".parse().unwrap());
        headers.insert(SERVICE_MS_HEADER, "1.5".parse().unwrap());
        let facts = Facts::read(&headers, br#"{"max_tokens":100}"#, false);
        assert_eq!((facts.price, facts.prompt(), facts.output), (500.0, 400.0, 0.0));
        assert_eq!(facts.service, Some(Duration::from_micros(1_500)));
    }
}
