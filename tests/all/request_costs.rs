//! What a call costs before anything is known of its key.

use tower::{Layer, ServiceExt};
use tower_429_testing::{Limit, Provider, ServiceTime};

use crate::support_retry::*;

/// A chat of about so many tokens: 4 characters each.
fn chat(tokens: usize) -> Req {
    let text = "abc ".repeat(tokens);
    let mut request = unkeyed("");
    *request.body_mut() =
        serde_json::json!({"model": "m", "messages": [{"role": "user", "content": text}]}).to_string().into();
    request
}

#[tokio::test(start_paused = true)]
async fn a_cold_key_with_a_limit_on_tokens_fails_no_call_and_refuses_few() {
    let provider =
        Provider::builder().tokens(Limit::per_minute(125_000)).service_time(ServiceTime::Fixed(ms(500))).build();
    let client = layer().layer(provider.clone());
    let calls: Vec<_> = (0..60).map(|_| tokio::spawn(client.clone().oneshot(chat(4_000)))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert!(provider.seen().throttled() <= 3, "{}", provider.seen().throttled());
}

#[tokio::test(start_paused = true)]
async fn a_body_in_another_script_is_paced_like_one_in_english() {
    for escaped in [false, true] {
        // 4,000 characters, about as many tokens; the provider counts what it was told.
        let text = "人人生而自由在尊".repeat(500);
        let text = if escaped { text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect() } else { text };
        let body = format!(r#"{{"model":"m","input":"{text}"}}"#);
        let provider =
            Provider::builder().tokens(Limit::per_minute(125_000)).service_time(ServiceTime::Fixed(ms(500))).build();
        let client = layer().layer(provider.clone());
        let calls: Vec<_> = (0..60)
            .map(|_| {
                let mut request = unkeyed("");
                *request.body_mut() = body.clone().into();
                request.headers_mut().insert(tower_429_testing::TOKENS_HEADER, "4000".parse().unwrap());
                tokio::spawn(client.clone().oneshot(request))
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap().status(), 200);
        }
        assert!(provider.seen().throttled() <= 3, "escaped: {escaped}: {}", provider.seen().throttled());
    }
}
