//! The requests of the jobs, as a user sends them: nothing in them is meant for the layer, and what is meant for the server
//! is in headers that no real server knows.

mod text;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower_429_testing::{OUTPUT_TOKENS_HEADER, SERVICE_MS_HEADER, TOKENS_HEADER};

use crate::scenario::Job;
use crate::wire::CALL_HEADER;
use text::{CHINESE, CHINESE_ESCAPED, PROSE};

pub use text::{CHINESE_TOKENS_A_CHARACTER, IDS, IMAGE_CHAT, PROSE_TOKENS_A_CHARACTER};

/// The form of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A chat whose prompt is English prose.
    Prose,
    /// A chat whose prompt is Chinese, as UTF-8.
    Chinese,
    /// The same with `\uXXXX` for each character.
    ChineseEscaped,
    /// Sixteen inputs of 2,000 token ids each, to be embedded.
    TokenIds,
    /// A chat with an image of 2 MB in it, as base64.
    Image,
    /// A form with a file in it, which is not JSON.
    Form,
}

const MODEL: &str = "ft:gpt-4o-mini:acme::7p4lURel";
const BOUNDARY: &str = "----7d1c4c7e9b1e0b9f";

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Prose | Self::Chinese | Self::ChineseEscaped | Self::Image => "/v1/chat/completions",
            Self::TokenIds => "/v1/embeddings",
            Self::Form => "/v1/audio/transcriptions",
        }
    }

    fn content_type(self) -> String {
        match self {
            Self::Form => format!("multipart/form-data; boundary={BOUNDARY}"),
            _ => "application/json".to_owned(),
        }
    }
}

/// The request of a job: what the server is to charge, and how long it works, is in headers.
pub fn request(number: usize, job: &Job) -> Request<Full<Bytes>> {
    Request::post(format!("https://api.openai.com{}", job.kind.path()))
        .header("authorization", "Bearer test")
        .header("content-type", job.kind.content_type())
        .header(CALL_HEADER, number)
        .header(TOKENS_HEADER, job.tokens.to_string())
        .header(OUTPUT_TOKENS_HEADER, job.output.to_string())
        .header(SERVICE_MS_HEADER, format!("{:.3}", job.service.as_secs_f64() * 1e3))
        .body(Full::new(body(number, job)))
        .expect("a request of constants")
}

/// What the job sends. Calls of different numbers send different pieces of the same long text.
pub fn body(number: usize, job: &Job) -> Bytes {
    match job.kind {
        Kind::Prose => chat(job, PROSE.slice(number, job.text / PROSE_TOKENS_A_CHARACTER)),
        Kind::Chinese => chat(job, CHINESE.slice(number, job.text / CHINESE_TOKENS_A_CHARACTER)),
        Kind::ChineseEscaped => chat(job, CHINESE_ESCAPED.slice(number, job.text / CHINESE_TOKENS_A_CHARACTER)),
        Kind::TokenIds => text::token_ids(),
        Kind::Image => text::image_chat(),
        Kind::Form => form(job.text),
    }
}

fn chat(job: &Job, text: &str) -> Bytes {
    let max_tokens = job.max_tokens.map(|most| format!(r#""max_tokens":{most},"#)).unwrap_or_default();
    let head = format!(r#"{{"model":"{MODEL}",{max_tokens}"messages":[{{"role":"user","content":""#);
    [head.as_str(), text, r#""}]}"#].concat().into()
}

/// A recording: as many bytes as the text of so many tokens takes to speak, in little.
fn form(tokens: f64) -> Bytes {
    let field = |name: &str, rest: &str| {
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{rest}\r\n\r\n")
    };
    let head = format!(
        "{}whisper-1\r\n{}",
        field("model", ""),
        field("file", "; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg")
    );
    [head.as_bytes(), text::recording(tokens), format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn job(kind: Kind, text: f64) -> Job {
        Job { kind, text, max_tokens: Some(500.0), tokens: 1.0, output: 1.0, service: Duration::ZERO }
    }

    fn prompt(kind: Kind, number: usize, text: f64) -> String {
        let json: serde_json::Value = serde_json::from_slice(&body(number, &job(kind, text))).unwrap();
        assert_eq!(json["max_tokens"], 500);
        json["messages"][0]["content"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_chat_is_json_and_its_text_is_as_long_as_its_tokens_say() {
        for number in 0..50 {
            let prose = prompt(Kind::Prose, number, 300.0).chars().count();
            assert!((1_180..=1_200).contains(&prose), "{prose}"); // an escape is one character, and two bytes
            let chinese = prompt(Kind::Chinese, number, 700.0);
            assert_eq!((chinese.chars().count(), chinese.len()), (1_000, 3_000));
            assert_eq!(prompt(Kind::ChineseEscaped, number, 700.0), chinese);
        }
        assert!(prompt(Kind::Prose, 7, 23_000.0).len() > 91_000);
        assert_ne!(prompt(Kind::Prose, 1, 300.0), prompt(Kind::Prose, 2, 300.0));
    }

    #[test]
    fn ids_are_sixteen_arrays_of_two_thousand_numbers() {
        let json: serde_json::Value = serde_json::from_slice(&body(0, &job(Kind::TokenIds, 0.0))).unwrap();
        let inputs = json["input"].as_array().unwrap();
        assert_eq!(inputs.len() * inputs[0].as_array().unwrap().len(), IDS);
        assert_eq!(inputs[15].as_array().unwrap().len(), 2_000);
    }

    #[test]
    fn an_image_is_a_data_url_of_two_megabytes_beside_a_question() {
        let json: serde_json::Value = serde_json::from_slice(&body(0, &job(Kind::Image, 0.0))).unwrap();
        let [question, image] = [0, 1].map(|part| &json["messages"][0]["content"][part]);
        assert_eq!(question["text"].as_str().unwrap().len(), 938); // 940 bytes, in two of which an escape begins
        let url = image["image_url"]["url"].as_str().unwrap();
        assert!(url.starts_with("data:image/jpeg;base64,/9j/"));
        assert_eq!(url.len(), "data:image/jpeg;base64,/9j/".len() + 2_000_000);
    }

    #[test]
    fn a_form_is_no_json() {
        let form = body(0, &job(Kind::Form, 300.0));
        assert!(serde_json::from_slice::<serde_json::Value>(&form).is_err());
        assert!(form.len() > 2_400, "{}", form.len());
    }
}
