//! Who shares a limit with this request, and what does it cost?

pub(crate) mod body;

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, Uri, request};
use tokio::time::Instant;

use crate::classify::Unit;

static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// The next number: one counter for all rooms, so that calls of different keys keep their order where they meet.
pub(crate) fn next_number() -> u64 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Which calls share one quota: a hash under a key that is drawn anew in each process.
///
/// By default it is made of the scheme and host, the credential (`authorization`, `api-key`, `x-api-key` or
/// `x-goog-api-key`), OpenAI's organisation and project headers, and the *pool*: the model in the path
/// (`/deployments/{x}/`, `/models/{x}:`) or else in the JSON body, as sent. Two keys on one shared bucket cost next to
/// nothing; one key on two buckets makes each wait for the other.
///
/// When a server says that an account's plan or balance is used up, all keys that differ in the pool alone are closed
/// together.
///
/// Put one into a request's extensions, or give a function to [`RetryOn429Layer::key`](crate::RetryOn429Layer::key),
/// to decide yourself; a key made with [`new`](Self::new) is related to no other:
///
/// ```
/// use tower_429::QuotaKey;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(QuotaKey::new(("tenant", 7)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuotaKey(u64);

impl QuotaKey {
    /// A key of your own: equal values share a quota.
    pub fn new(value: impl Hash) -> Self {
        Self(HASH.hash_one(value))
    }

    /// The default key of a request for a pool of calls, most often a model's name.
    ///
    /// ```
    /// use tower_429::QuotaKey;
    ///
    /// let (parts, ()) = http::Request::get("https://api.openai.com/v1/chat/completions").body(()).unwrap().into_parts();
    /// assert_eq!(QuotaKey::of(&parts, "gpt-4o"), QuotaKey::of(&parts, "gpt-4o"));
    /// assert_ne!(QuotaKey::of(&parts, "gpt-4o"), QuotaKey::of(&parts, "o3"));
    /// ```
    pub fn of(parts: &request::Parts, pool: &str) -> Self {
        Self::of_head(&parts.uri, &parts.headers, pool.as_bytes())
    }

    pub(crate) fn of_head(uri: &Uri, headers: &HeaderMap, pool: &[u8]) -> Self {
        let mut credential: [&[u8]; 3] = [b"", b"", b""];
        let mut host = uri.authority().map_or(&b""[..], |authority| authority.as_str().as_bytes());
        for (name, value) in headers {
            // One walk, told apart by length first: six look-ups by name cost ten times as much.
            let name = name.as_str();
            match name.len() {
                4 if name == "host" && host.is_empty() => host = value.as_bytes(),
                7 | 9 | 13 | 14 if matches!(name, "api-key" | "x-api-key" | "authorization" | "x-goog-api-key") => {
                    credential[0] = value.as_bytes();
                }
                14 if name == "openai-project" => credential[1] = value.as_bytes(),
                19 if name == "openai-organization" => credential[2] = value.as_bytes(),
                _ => {}
            }
        }
        let scheme = uri.scheme().map_or(&b""[..], |scheme| scheme.as_str().as_bytes());
        let [credential, project, organization] = credential;
        Self(hash_of([scheme, host, credential, project, organization, pool]))
    }

    pub(crate) const fn hash(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_hash(hash: u64) -> Self {
        Self(hash)
    }
}

/// Hashes several texts as one, told apart by a byte that no header and no address contains: each write to the hasher
/// costs as much as forty bytes do.
fn hash_of(texts: [&[u8]; 6]) -> u64 {
    let mut buffer = [0; 256];
    let mut hasher = HASH.build_hasher();
    let mut at = 0;
    for text in texts {
        if text.is_empty() && at < buffer.len() {
            at += 1;
        } else if let Some(room) = buffer.get_mut(at..at + text.len() + 1) {
            room[..text.len()].copy_from_slice(text);
            at += text.len() + 1;
        } else {
            hasher.write(&buffer[..at]);
            hasher.write(text);
            hasher.write_u8(0);
            buffer = [0; 256];
            at = 0;
        }
    }
    hasher.write(&buffer[..at]);
    hasher.finish()
}

/// Ready-made functions for [`RetryOn429Layer::pool`](crate::RetryOn429Layer::pool).
pub mod pool {
    /// Maps a fine-tuned model `ft:BASE:org::id` to `BASE`, whose limits it shares at OpenAI; others stay themselves.
    ///
    /// ```
    /// assert_eq!(tower_429::pool::openai_base("ft:gpt-4o-mini:acme::7p4lURel"), "gpt-4o-mini");
    /// assert_eq!(tower_429::pool::openai_base("o3"), "o3");
    /// ```
    pub fn openai_base(model: &str) -> &str {
        model.strip_prefix("ft:").and_then(|rest| rest.split(':').next()).unwrap_or(model)
    }
}

/// What one call takes from its key's limits: one request, and so many tokens.
///
/// Estimated from the body by default; put one into a request's extensions where you know better.
///
/// ```
/// use tower_429::Cost;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Cost::tokens(1_200.0));
///
/// // A provider that limits input and output by themselves:
/// request.extensions_mut().insert(Cost::tokens(1_200.0).input(200.0).output(1_000.0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    tokens: f32,
    input: f32,
    output: f32,
}

impl Cost {
    /// One request of so many tokens, all of which a limit on input alone counts, too; what is negative or no number
    /// counts as none.
    pub const fn tokens(tokens: f64) -> Self {
        let tokens = sane(tokens);
        Self { tokens, input: tokens, output: 0.0 }
    }

    /// So many of them count as input.
    #[must_use]
    pub const fn input(mut self, tokens: f64) -> Self {
        self.input = sane(tokens);
        self
    }

    /// So many of them count as output.
    #[must_use]
    pub const fn output(mut self, tokens: f64) -> Self {
        self.output = sane(tokens);
        self
    }

    /// What it takes of a bucket of this unit.
    pub(crate) const fn of(self, unit: Unit) -> f64 {
        match unit {
            Unit::Requests => 1.0,
            Unit::Tokens => self.tokens as f64,
            Unit::InputTokens => self.input as f64,
            Unit::OutputTokens => self.output as f64,
        }
    }
}

/// More than any request has, and less than what sums could overflow at.
const TOKENS_MAX: f64 = 1e9;

const fn sane(tokens: f64) -> f32 {
    if tokens > 0.0 { tokens.min(TOKENS_MAX) as f32 } else { 0.0 }
}

/// Who goes first when calls wait, set in a request's extensions.
///
/// The classes share by weight, so that none starves: while all three wait, of 21 calls 16 are interactive, 4 normal
/// and 1 batch ([`weight`](Self::weight)). Within a class the order is first come, first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Priority {
    /// Somebody is waiting for the answer.
    Interactive,
    /// The default.
    #[default]
    Normal,
    /// Work that may take as long as it takes.
    Batch,
}

impl Priority {
    pub(crate) const ALL: [Self; 3] = [Self::Interactive, Self::Normal, Self::Batch];

    /// The share of this class while others wait, too.
    pub const fn weight(self) -> u64 {
        match self {
            Self::Interactive => 16,
            Self::Normal => 4,
            Self::Batch => 1,
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// What one admission costs the class: the inverse of its weight.
    pub(crate) const fn stride(self) -> u64 {
        Self::Interactive.weight() / self.weight()
    }
}

/// Until when a call may wait, attempts and sleeps together, set in a request's extensions.
///
/// A call whose turn cannot come in time is answered locally at once (`local_deadline`), and a refused call whose next
/// sleep would not fit gets the server's refusal. An attempt that is on the wire is not interrupted: that is the
/// business of a timeout layer.
///
/// ```
/// use std::time::Duration;
/// use tower_429::Deadline;
///
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Deadline::within(Duration::from_secs(30)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    at: Instant,
}

impl Deadline {
    /// So much time from now; a time beyond what the clock can hold is no deadline in practice.
    pub fn within(time: Duration) -> Self {
        let now = Instant::now();
        Self { at: now.checked_add(time).unwrap_or(now + crate::time::NEVER) }
    }

    pub(crate) const fn at(self) -> Instant {
        self.at
    }
}

/// In a request's extensions: this call is paced and cooled down, but never sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoRetry;

/// How often this request has been sent before, in the extensions of a request that is sent again.
///
/// This is OpenTelemetry's `http.request.resend_count`; a first attempt carries none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResendCount(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn calls_share_a_quota_only_where_host_credential_project_and_pool_agree() {
        let uri = "https://api.openai.com/v1/chat/completions";
        let base = QuotaKey::of(&parts(uri, &[("authorization", "Bearer a")]), "m");
        let same = QuotaKey::of(&parts(uri, &[("x-other", "1"), ("authorization", "Bearer a")]), "m");
        assert_eq!(base, same);
        for (uri, headers, pool) in [
            ("https://eu.api.openai.com/v1", &[("authorization", "Bearer a")][..], "m"),
            ("http://api.openai.com/v1/chat/completions", &[("authorization", "Bearer a")], "m"),
            (uri, &[("authorization", "Bearer b")], "m"),
            (uri, &[("authorization", "Bearer a"), ("openai-project", "p")], "m"),
            (uri, &[("authorization", "Bearer a"), ("openai-organization", "p")], "m"),
            (uri, &[("authorization", "Bearer a")], "n"),
        ] {
            assert_ne!(base, QuotaKey::of(&parts(uri, headers), pool), "{uri} {headers:?} {pool}");
        }
    }

    #[test]
    fn a_key_does_not_show_the_credential() {
        let key = QuotaKey::of(&parts("https://h/", &[("api-key", "secret")]), "m");
        assert!(!format!("{key:?}").contains("secret"));
    }

    #[test]
    fn a_cost_is_never_negative_or_no_number() {
        assert_eq!(Cost::tokens(-3.0), Cost::tokens(0.0));
        assert_eq!(Cost::tokens(f64::NAN), Cost::tokens(0.0));
        assert!(Cost::tokens(f64::INFINITY).output(1e300).of(Unit::OutputTokens).is_finite());
    }
}
