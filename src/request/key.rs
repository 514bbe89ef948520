//! Which calls share one quota.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

use http::{HeaderMap, Uri, request};

static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);

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
            match name.as_str() {
                "host" if host.is_empty() => host = value.as_bytes(),
                "api-key" | "x-api-key" | "authorization" | "x-goog-api-key" => credential[0] = value.as_bytes(),
                "openai-project" => credential[1] = value.as_bytes(),
                "openai-organization" => credential[2] = value.as_bytes(),
                _ => {}
            }
        }
        let scheme = uri.scheme_str().unwrap_or_default().as_bytes();
        let [credential, project, organization] = credential;
        Self::new([scheme, host, credential, project, organization, pool])
    }

    pub(crate) const fn hash(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_hash(hash: u64) -> Self {
        Self(hash)
    }
}

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
}
