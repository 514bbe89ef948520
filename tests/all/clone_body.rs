//! What may be sent twice: copies that are identical to the last byte, and bodies that cannot be copied.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_429::{RetryOn, StopReason};

use crate::support_retry::*;

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_copied_is_sent_once_and_whole() {
    // The first copy is made to read the body, for the call's price.
    for (copies, sent) in [(0, 1), (1, 1), (2, 2)] {
        let server = Server::new(|_, _| Reply::bare());
        let count = Arc::new(AtomicUsize::new(0));
        #[derive(Clone)]
        struct Some(usize, Arc<AtomicUsize>);
        impl tower_429::CloneBody<Full<Bytes>> for Some {
            fn clone_body(&self, body: &Full<Bytes>) -> Option<Full<Bytes>> {
                (self.1.fetch_add(1, Ordering::SeqCst) < self.0).then(|| body.clone())
            }
        }
        let layer = layer().replay(Some(copies, count));
        let answer = layer.layer(server.clone()).oneshot(request()).await.unwrap();
        assert_eq!(info(&answer).unwrap().stopped, Option::Some(StopReason::NotReplayable));
        assert_eq!(server.count(), sent);
        assert!(server.seen().iter().all(|seen| seen.body == r#"{"model":"m","input":"hello"}"#));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), BARE);
    }
    let server = Server::new(|_, _| Reply::bare());
    let answer = layer().no_replay().layer(server.clone()).oneshot(request()).await.unwrap();
    assert_eq!((server.count(), info(&answer).unwrap().stopped), (1, Some(StopReason::NotReplayable)));
    assert_eq!(server.seen()[0].body, r#"{"model":"m","input":"hello"}"#);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_the_callers_request_to_the_last_byte_whatever_happened_before() {
    let large: &'static str =
        Box::leak(format!(r#"{{"input":"{}","model":"m"}}"#, "x".repeat(1 << 20)).into_boxed_str());
    for failure in [|| Reply::bare(), || Reply::broken("reset"), || Reply::status(500, "")] {
        let server = Server::saying([failure(), failure()]);
        let mut request = Request::put("https://api.openai.com:8443/v1/x?y=1")
            .version(http::Version::HTTP_2)
            .header("a", "1")
            .header("a", "2")
            .header("authorization", "Bearer b")
            .body(Full::from(large))
            .unwrap();
        request.extensions_mut().insert(key());
        let answer = send(&client(&layer().retry_on(RetryOn::openai_sdk()), &server), request).await;
        assert_eq!(answer.status(), 200);
        let seen = server.seen();
        assert_eq!(seen.len(), 3);
        for seen in seen {
            assert_eq!(seen.body, large);
            assert_eq!((seen.parts.method, seen.parts.version), (http::Method::PUT, http::Version::HTTP_2));
            assert_eq!(seen.parts.uri, "https://api.openai.com:8443/v1/x?y=1");
            assert_eq!(seen.parts.headers.get_all("a").iter().collect::<Vec<_>>(), ["1", "2"]);
            assert_eq!(seen.parts.headers.len(), 3);
        }
    }
}
