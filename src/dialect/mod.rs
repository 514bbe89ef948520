//! What differs between providers, as data: hosts, the codes of their error answers, and words only they use.
//!
//! An error answer is told by its shape, whoever sent it: the code lists of all dialects are looked through. A dialect matters
//! where two providers give one code two meanings, and then its own list comes first.

pub use crate::vocabulary::Pricing;
use crate::vocabulary::{Kind, Scope};

mod providers;

/// A provider's way of throttling, and of counting.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Dialect {
    /// A short name, in lower case.
    pub name: &'static str,
    /// Hosts that speak it: each stands for itself and its subdomains.
    pub hosts: &'static [&'static str],
    /// How it counts a call's tokens.
    pub pricing: Pricing,
    /// Words, in lower case, that give its answers away when the host is not known.
    pub(crate) marks: &'static [&'static str],
    /// Codes with letters in lower case and nothing but letters and digits kept, so that one entry stands for
    /// `RateLimitReached`, `rate_limit_reached` and `rate-limit-reached`.
    pub(crate) codes: &'static [(&'static str, Kind, Option<Scope>)],
}

impl Dialect {
    /// The dialect that a host speaks; [`GENERIC`](Self::GENERIC) when it is not known.
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
