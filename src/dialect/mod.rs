//! Provider data: hosts, error codes, and words that identify a provider.
//!
//! An error response is classified by its form: the code lists of all dialects are searched. A known dialect matters
//! only where two providers use one code with two meanings. Its own list is then searched first.

pub use crate::vocabulary::Pricing;
use crate::vocabulary::{Kind, Scope};

mod providers;

/// How a provider reports throttling and counts tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Dialect {
    /// A short name in lower case.
    pub name: &'static str,
    /// The hosts of the provider. Each entry includes its subdomains.
    pub hosts: &'static [&'static str],
    /// How the provider counts the tokens of a call.
    pub pricing: Pricing,
    /// Words in lower case that identify the provider in an error text when the host is not known.
    pub(crate) marks: &'static [&'static str],
    /// Error codes in lower case, with only letters and digits kept. One entry stands for `RateLimitReached`,
    /// `rate_limit_reached` and `rate-limit-reached`.
    pub(crate) codes: &'static [(&'static str, Kind, Option<Scope>)],
}

impl Dialect {
    /// Returns the dialect of a host, or [`GENERIC`](Self::GENERIC) if the host is not known.
    pub fn for_host(host: &str) -> &'static Self {
        let speaks = |known: &&&str| crate::request::host::is_in(host, known);
        Self::ALL.iter().find(|d| d.hosts.iter().any(|h| speaks(&h))).map_or(&Self::GENERIC, |d| *d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_squeezed_and_listed_once_a_dialect() {
        for dialect in Dialect::ALL {
            for (at, (code, ..)) in dialect.codes.iter().enumerate() {
                assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{code}");
                assert!(dialect.codes[..at].iter().all(|(other, ..)| other != code), "{code} twice");
            }
        }
    }

    #[test]
    fn hosts() {
        for (host, name) in [
            ("api.openai.com", "openai"),
            ("my-resource.openai.azure.com", "azure-openai"),
            ("bedrock-runtime.us-east-1.amazonaws.com", "bedrock"),
            ("notapi.openai.com.example", "generic"),
            ("evilapi.groq.com", "generic"),
            ("API.GROQ.COM", "groq"),
            ("localhost", "generic"),
        ] {
            assert_eq!(Dialect::for_host(host).name, name, "{host}");
        }
    }
}
