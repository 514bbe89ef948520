//! Requests that are too long, break off or make no sense.

mod common;

use bytes::Bytes;
use common::{call_with, ms, read, request, send};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Channel, Full};
use tower_429_testing::{Limit, MAX_BODY_BYTES, Provider};
use tower_service::Service as _;

async fn send_bytes(provider: &Provider, body: impl Into<Bytes>) -> StatusCode {
    let Ok(response) = provider.clone().call(Request::new(Full::new(body.into()))).await;
    response.status()
}

#[tokio::test(start_paused = true)]
async fn a_long_body_is_served_and_one_that_is_too_long_is_throttled() {
    let provider = Provider::builder().tokens(Limit::per_minute(4_000_000)).build();
    assert_eq!(send_bytes(&provider, vec![b'x'; 10_000_000]).await, StatusCode::OK);
    assert_eq!(provider.level_tokens(), 1_500_000.0);
    assert_eq!(send_bytes(&provider, vec![b'x'; MAX_BODY_BYTES]).await, 429);
    assert_eq!(send_bytes(&provider, vec![b'x'; MAX_BODY_BYTES + 1]).await, 413);
    let seen = provider.seen();
    assert_eq!((seen.unreadable, seen.body_bytes.len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_body_in_pieces_is_put_together_and_the_limit_counts_all_of_them() {
    let provider = Provider::default();
    let (mut sender, body) = Channel::<Bytes>::new(1);
    let task = tokio::spawn(provider.clone().call(Request::new(body)));
    for piece in ["{\"model\"", ":\"pie", "ces\"}"] {
        tokio::time::sleep(ms(10)).await;
        sender.send_data(Bytes::from(piece)).await.unwrap();
    }
    drop(sender);
    let Ok(response) = task.await.unwrap();
    assert_eq!(read(response).await.json()["model"], "pieces");

    let (mut sender, body) = Channel::<Bytes>::new(1);
    let task = tokio::spawn(provider.clone().call(Request::new(body)));
    while sender.send_data(Bytes::from(vec![b' '; 1 << 20])).await.is_ok() {}
    let Ok(response) = task.await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_a_bad_request() {
    let provider = Provider::default();
    let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(2);
    sender.send_data(Bytes::from_static(b"{")).await.unwrap();
    sender.abort(std::io::Error::other("gone"));
    let Ok(response) = provider.clone().call(Request::new(body)).await;
    let reply = read(response).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    assert_eq!((provider.seen().unreadable, provider.seen().arrived()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn trailers_are_read_over() {
    let provider = Provider::default();
    let body = Full::new(Bytes::from_static(b"{}")).with_trailers(async { Some(Ok(http::HeaderMap::new())) });
    let Ok(response) = provider.clone().call(Request::new(body)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(provider.seen().body_bytes, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_no_json_is_served_all_the_same() {
    let provider = Provider::builder().tokens(Limit::new(1_000_000, 0)).build();
    let deep = "[".repeat(100_000);
    for (body, price) in [
        (&b""[..], 0.0),
        (b"{\"model\":", 3.0),
        (b"\xff\xfe\x00\x80", 1.0),
        (b"[1,2]", 2.0),
        (b"\"text\"", 2.0),
        (br#"{"model":7,"stream":"yes"}"#, 7.0),
        (deep.as_bytes(), 25_000.0),
    ] {
        let before = provider.level_tokens();
        assert_eq!(send_bytes(&provider, body.to_vec()).await, StatusCode::OK);
        assert_eq!(before - provider.level_tokens(), price);
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_of_tokens_that_make_no_sense_get_an_answer() {
    for (max, charged) in [("-7", 0.0), (r#""12""#, 0.0), ("1e300", f64::from(u32::MAX))] {
        let provider = Provider::builder().tokens(Limit::new(1_000, 1)).post_paid().build();
        let body = format!(r#"{{"max_tokens":{max}}}"#);
        let response = send(&provider, request(&[("x-testing-tokens", "0")], &body)).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(provider.level_tokens(), 1_000.0 - charged, "{max}");
    }
}

#[tokio::test(start_paused = true)]
async fn testing_headers_that_make_no_sense_count_as_nothing_or_are_left_out() {
    let provider = Provider::builder().tokens(Limit::new(100, 0)).build();
    for (value, price) in [("-1", 0.0), ("NaN", 0.0), ("many", 4.0), ("inf", f64::from(u32::MAX))] {
        let before = provider.level_tokens();
        let headers = [("x-testing-tokens", value), ("x-testing-service-ms", "-inf")];
        call_with(&provider, &headers).await;
        // "inf" needs a full bucket, which this one is not any more
        let paid = if value == "inf" { 0.0 } else { price };
        assert_eq!(before - provider.level_tokens(), paid, "{value}");
    }
    assert_eq!(provider.seen().throttled_tokens, 1);
}

#[tokio::test(start_paused = true)]
async fn a_hostile_model_name_is_escaped_in_the_answer() {
    let provider = Provider::builder().requests(Limit::new(1, 0)).build();
    let body = r#"{"model":"\"},{\u0000\n"}"#;
    for status in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        let reply = read(send(&provider, request(&[], body)).await).await;
        assert_eq!(reply.status, status);
        assert!(reply.json().is_object());
    }
}
