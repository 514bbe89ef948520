//! Finds the credentials of a request: API keys and tokens in headers, else in the query.
//!
//! The values are only hashed. They are never stored or printed.

use http::{HeaderMap, Uri};

use super::host;

/// Headers that hold a credential.
const HEADERS: &[&str] = &["authorization", "api-key", "x-api-key", "x-goog-api-key", "ocp-apim-subscription-key"];
/// OpenAI's headers that name the account, in addition to the credential.
const ACCOUNT_HEADERS: &[&str] = &["openai-organization", "openai-project"];
/// Query parameters that hold a credential, on any host.
const PARAMETERS: &[&str] = &["api-key", "api_key", "subscription-key", "access_token"];
/// The query parameter that names the signer in a request signed by its query.
const SIGNED: &str = "x-amz-credential";
/// Google's query parameter. It counts only on Google's hosts, because `key` has other meanings elsewhere.
const GOOGLES: &str = "key";

/// Returns the credentials of a request, each as a name and the part of the value that is the same for every call.
///
/// The query counts only if no header has a credential.
pub(super) fn of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let is_google = host::is_in(host::of(uri, headers), "googleapis.com");
    let has_header = HEADERS.iter().any(|name| headers.contains_key(*name));
    let in_headers = headers.iter().filter_map(|(name, value)| {
        let (name, value) = (name.as_str(), value.as_bytes());
        match name {
            "authorization" => Some((name, signer(value).unwrap_or(value))),
            _ => (HEADERS.contains(&name) || ACCOUNT_HEADERS.contains(&name)).then_some((name, value)),
        }
    });
    let query = uri.query().filter(|_| !has_header).unwrap_or_default();
    let in_query =
        query.split('&').filter_map(|parameter| parameter.split_once('=')).filter_map(move |(name, value)| {
            let is = |known: &&str| name.eq_ignore_ascii_case(known);
            if is(&SIGNED) {
                return Some((SIGNED, value.split(['/', '%']).next()?.as_bytes()));
            }
            let known = PARAMETERS.iter().find(|known| is(known)).or((is_google && is(&GOOGLES)).then_some(&GOOGLES))?;
            Some((*known, value.as_bytes()))
        });
    in_headers.chain(in_query)
}

/// Returns the access key of a signature, because the signature itself differs for each request: `AWS4-HMAC-SHA256
/// Credential=AKIA…/20261128/…`.
///
/// Tencent's and Volcano Engine's signatures have the same form. Baidu's is `bce-auth-v1/{access key}/…`.
fn signer(authorization: &[u8]) -> Option<&[u8]> {
    let text = std::str::from_utf8(authorization).ok()?;
    if let Some(rest) = text.strip_prefix("bce-auth-v1/") {
        return Some(rest.split('/').next()?.as_bytes());
    }
    let (scheme, rest) = text.split_once(' ')?;
    if !scheme.starts_with("AWS4-") && !scheme.contains("HMAC-SHA256") {
        return None;
    }
    let (_, credential) = rest.split_once("Credential=")?;
    Some(credential.split(['/', ',', ' ']).next()?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_request(uri: &str, headers: &[(&str, &str)]) -> Vec<String> {
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let credentials = of(request.uri(), request.headers());
        credentials.map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect()
    }

    #[test]
    fn all_credential_headers_count_and_no_others() {
        let headers = [
            ("x-goog-api-key", "g"),
            ("accept", "*/*"),
            ("api-key", "a"),
            ("x-api-key", "x"),
            ("ocp-apim-subscription-key", "o"),
            ("openai-project", "p"),
            ("cookie", "c"),
            ("authorization", "Bearer b"),
            ("openai-organization", "q"),
        ];
        let mut found = of_request("https://h/?key=1", &headers);
        found.sort();
        assert_eq!(
            found,
            [
                "api-key=a",
                "authorization=Bearer b",
                "ocp-apim-subscription-key=o",
                "openai-organization=q",
                "openai-project=p",
                "x-api-key=x",
                "x-goog-api-key=g",
            ]
        );
    }

    #[test]
    fn the_query_counts_where_no_header_has_a_credential() {
        let google = "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent?alt=sse&key=k";
        for (uri, headers, expected) in [
            (google, &[][..], &["key=k"][..]),
            (google, &[("openai-project", "p")], &["openai-project=p", "key=k"]),
            (google, &[("authorization", "Bearer b")], &["authorization=Bearer b"]),
            ("https://example.com/?key=k", &[], &[]),
            ("https://example.com/?api-key=a&x=1", &[], &["api-key=a"]),
            ("https://example.com/?API_KEY=a", &[], &["api_key=a"]),
            ("https://example.com/?subscription-key=a", &[], &["subscription-key=a"]),
            ("https://aip.baidubce.com/chat?access_token=a%2Bb", &[], &["access_token=a%2Bb"]),
            ("https://example.com/?api-key=a&access_token=b", &[], &["api-key=a", "access_token=b"]),
            ("https://example.com/?api-key&&=&my_api_key=a", &[], &[]),
            (
                "https://b.amazonaws.com/?X-Amz-Credential=AKIDEXAMPLE%2F20261128%2Fus-east-1&X-Amz-Signature=s",
                &[],
                &["x-amz-credential=AKIDEXAMPLE"],
            ),
        ] {
            assert_eq!(of_request(uri, headers), expected, "{uri} {headers:?}");
        }
        let by_header =
            http::Request::get("/v1beta/models?key=k").header("host", "a.googleapis.com:443").body(()).unwrap();
        assert_eq!(of(by_header.uri(), by_header.headers()).count(), 1);
    }

    #[test]
    fn a_signature_counts_by_its_access_key() {
        for (value, expected) in [
            (
                "AWS4-HMAC-SHA256 Credential=AKID/20261128/us-east-1/bedrock/aws4_request, SignedHeaders=host, Signature=1",
                "AKID",
            ),
            ("AWS4-HMAC-SHA256 SignedHeaders=host,Credential=AKID/20261128/us-east-1,Signature=1", "AKID"),
            ("AWS4-ECDSA-P256-SHA256 Credential=AKID/20261128/bedrock/aws4_request, Signature=1", "AKID"),
            ("TC3-HMAC-SHA256 Credential=AKID/2026-11-28/hunyuan/tc3_request, SignedHeaders=host, Signature=1", "AKID"),
            ("HMAC-SHA256 Credential=AKID/20261128/cn-north-1/ark/request, SignedHeaders=host, Signature=1", "AKID"),
            ("bce-auth-v1/AKID/2026-11-28T00:00:00Z/1800/host/1", "AKID"),
            ("AWS4-HMAC-SHA256 Signature=1", "AWS4-HMAC-SHA256 Signature=1"),
            ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256"),
            ("Bearer a Credential=b/c", "Bearer a Credential=b/c"),
            ("Basic YTpi", "Basic YTpi"),
        ] {
            assert_eq!(of_request("https://h/", &[("authorization", value)]), [format!("authorization={expected}")]);
        }
    }
}
