//! The key of the calls that share one quota.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

use http::{HeaderMap, HeaderValue, Uri, request};

use super::{credentials, host, path};

static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The key of the calls that share one quota.
///
/// It is a hash with a random secret per process.
///
/// By default it is derived from the scheme and host, the credentials, and the *pool*. The pool is the model in the
/// path, else the model in the JSON body, else the resource in the path. Two keys for one limit cost a few 429s. One
/// key for two limits makes calls wait without need. The package's `docs/keys.md` lists the rules and what to do where
/// they do not fit.
///
/// When a server says that the plan or the balance of an account is exhausted, all keys that differ only in the pool
/// are closed together.
///
/// To choose the key yourself, insert one into a request's extensions or pass a function to
/// [`RetryOn429Layer::key`](crate::RetryOn429Layer::key). A key made with [`new`](Self::new) belongs to no account, so
/// an exhausted balance closes that key alone.
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
    /// Creates a key from a value. Equal values give the same key.
    pub fn new(value: impl Hash) -> Self {
        Self(HASH.hash_one(value))
    }

    /// Returns the default key of a request for a pool, usually the name of a model.
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
        // A sum does not depend on the order of the headers.
        let credentials = credentials::of(uri, headers).map(|credential| HASH.hash_one(credential));
        let credentials = credentials.fold(0, u64::wrapping_add);
        let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
        let authority = authority.or_else(|| headers.get("host").map(HeaderValue::as_bytes)).unwrap_or_default();
        Self::new((uri.scheme_str(), authority, credentials, pool))
    }

    /// Returns the key of a request. `model` is the model in its body.
    pub(crate) fn of_model(
        uri: &Uri,
        headers: &HeaderMap,
        model: Option<&[u8]>,
        pool_of: Option<&dyn Fn(&str) -> &str>,
    ) -> Self {
        let in_path = path::model(host::of(uri, headers), uri.path());
        let in_body = || model.map(|model| std::str::from_utf8(model).unwrap_or_default());
        let pool = in_path.or_else(in_body).or_else(|| path::resource(uri.path())).unwrap_or_default();
        let pool = pool_of.map_or(pool, |pool_of| pool_of(pool));
        Self::of_head(uri, headers, pool.as_bytes())
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

    #[test]
    fn every_credential_counts_in_any_order() {
        let of = |headers: &[(&str, &str)]| QuotaKey::of(&parts("https://gateway/v1/chat/completions", headers), "m");
        let both = of(&[("authorization", "Bearer a"), ("api-key", "b")]);
        assert_eq!(both, of(&[("api-key", "b"), ("accept", "*/*"), ("authorization", "Bearer a")]));
        for headers in [
            &[("authorization", "Bearer a")][..],
            &[("api-key", "b")],
            &[("authorization", "Bearer a"), ("api-key", "c")],
            &[("authorization", "Bearer c"), ("api-key", "b")],
            &[("authorization", "b"), ("api-key", "Bearer a")],
        ] {
            assert_ne!(both, of(headers), "{headers:?}");
        }
        let twice = |one, other| of(&[("x-api-key", one), ("x-api-key", other)]);
        assert_eq!(twice("a", "b"), twice("b", "a"));
    }

    #[test]
    fn the_pool_is_the_model_in_the_path_or_the_body_else_the_resource() {
        let uri = Uri::from_static("https://api.openai.com/v1/batches/b1");
        let key = |model, of| QuotaKey::of_model(&uri, &HeaderMap::new(), model, of);
        let pool = |pool: &str| QuotaKey::of_head(&uri, &HeaderMap::new(), pool.as_bytes());
        assert_eq!(key(None, None), pool("batches"));
        assert_eq!(key(Some(b"m"), None), pool("m"));
        assert_eq!(key(Some(b"m"), Some(&|_| "mine")), pool("mine"));
        assert_eq!(key(None, Some(&|_| "mine")), pool("mine"));
        let uri = Uri::from_static("https://h/openai/deployments/d/chat/completions");
        let in_path = QuotaKey::of_model(&uri, &HeaderMap::new(), Some(b"m"), None);
        assert_eq!(in_path, QuotaKey::of_head(&uri, &HeaderMap::new(), b"d"));
    }
}
