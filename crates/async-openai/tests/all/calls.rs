//! Every kind of call that async-openai makes, throttled twice and then answered.

use async_openai::Client;
use async_openai::types::embeddings::CreateEmbeddingRequestArgs;
use async_openai::types::files::{CreateFileRequest, FileInput, FilePurpose};
use futures_util::StreamExt;
use serde_json::json;
use tower::ServiceBuilder;
use tower_429::{ConcurrencyLimitLayer, RetryOn429Layer};
use tower_429_async_openai::HttpService;

use crate::server::{Server, json, rate_limited, serve};
use crate::{config, prompt, until_free};

/// Refuses twice, then answers with this.
async fn refusing_twice(answer: serde_json::Value) -> Server {
    serve(move |n, _| if n < 2 { rate_limited() } else { json(&answer) }).await
}

fn client(server: &Server) -> Client<async_openai::config::OpenAIConfig> {
    let layers = ServiceBuilder::new().layer(RetryOn429Layer::new()).layer(ConcurrencyLimitLayer::new(4));
    Client::with_config(config(&server.url)).with_http_service(HttpService::new(layers))
}

#[tokio::test]
async fn chat_is_retried_with_the_same_body_and_credentials() {
    let server = refusing_twice(json!({
        "id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": "hi" }, "finish_reason": "stop" }],
    }))
    .await;
    let answer = client(&server).chat().create(prompt()).await.unwrap();
    assert_eq!(answer.choices[0].message.content.as_deref(), Some("hi"));
    let hits = server.hits();
    assert_eq!(hits.len(), 3);
    for hit in &hits {
        assert_eq!(hit.body, hits[0].body);
        assert_eq!(hit.parts.headers["authorization"], "Bearer sk-test");
        assert_eq!(hit.parts.uri.path(), "/chat/completions");
    }
}

#[tokio::test]
async fn embeddings_are_retried() {
    let server = refusing_twice(json!({
        "object": "list", "model": "e", "usage": { "prompt_tokens": 1, "total_tokens": 1 },
        "data": [{ "object": "embedding", "index": 0, "embedding": [0.5] }],
    }))
    .await;
    let request = CreateEmbeddingRequestArgs::default().model("e").input("text").build().unwrap();
    let answer = client(&server).embeddings().create(request).await.unwrap();
    assert_eq!(answer.data[0].embedding, [0.5]);
    assert_eq!(server.hits().len(), 3);
}

#[tokio::test]
async fn a_multipart_upload_is_built_anew_and_sent_whole_each_time() {
    let server = refusing_twice(json!({
        "id": "file-1", "object": "file", "bytes": 5, "created_at": 1, "filename": "a.jsonl", "purpose": "batch",
    }))
    .await;
    let file = FileInput::from_vec_u8("a.jsonl".to_owned(), b"hello".to_vec());
    let request = CreateFileRequest { file, purpose: FilePurpose::Batch, expires_after: None };
    let answer = client(&server).files().create(request).await.unwrap();
    assert_eq!(answer.id, "file-1");
    let hits = server.hits();
    assert_eq!(hits.len(), 3);
    for hit in &hits {
        let body = String::from_utf8(hit.body.to_vec()).unwrap();
        let content_type = hit.parts.headers["content-type"].to_str().unwrap();
        let boundary = content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
        assert!(body.starts_with(&format!("--{boundary}\r\n")), "the header names the body's own boundary");
        assert!(body.contains("hello") && body.trim_end().ends_with("--"));
        let length = hit.parts.headers.get("content-length").map(|length| length.to_str().unwrap().to_owned());
        assert_eq!(length, Some(body.len().to_string()));
    }
}

#[tokio::test]
async fn a_stream_is_retried_and_holds_its_permit_until_it_is_over() {
    let chunk = r#"{"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}"#;
    let server = serve(move |n, _| {
        let events = format!("data: {chunk}\n\ndata: [DONE]\n\n");
        if n < 2 { rate_limited() } else { http::Response::new(events.into()) }
    })
    .await;
    let limit = ConcurrencyLimitLayer::new(4);
    let handle = limit.handle();
    let layers = ServiceBuilder::new().layer(RetryOn429Layer::new()).layer(limit);
    let client = Client::with_config(config(&server.url)).with_http_service(HttpService::new(layers));
    let mut stream = client.chat().create_stream(prompt()).await.unwrap();
    let mut text = String::new();
    while let Some(event) = stream.next().await {
        text.push_str(event.unwrap().choices[0].delta.content.as_deref().unwrap());
    }
    assert_eq!((text.as_str(), server.hits().len()), ("hi", 3));
    drop(stream);
    until_free(&handle).await;
}

#[tokio::test]
async fn headers_that_a_layer_adds_are_on_every_attempt_of_an_upload_too() {
    let server = refusing_twice(json!({
        "id": "file-1", "object": "file", "bytes": 5, "created_at": 1, "filename": "a", "purpose": "batch",
    }))
    .await;
    let retry = RetryOn429Layer::new().idempotency_key("idempotency-key".parse().unwrap());
    let client = Client::with_config(config(&server.url)).with_http_service(HttpService::new(retry));
    let file = FileInput::from_vec_u8("a".to_owned(), vec![0; 1 << 20]);
    let request = CreateFileRequest { file, purpose: FilePurpose::Batch, expires_after: None };
    client.files().create(request).await.unwrap();
    let hits = server.hits();
    let key = |n: usize| hits[n].parts.headers["idempotency-key"].clone();
    assert_eq!((key(0), key(0)), (key(1), key(2)));
    assert!(hits.iter().all(|hit| hit.body.len() > 1 << 20));
}
