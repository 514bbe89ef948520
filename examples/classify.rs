//! Classifies error responses from standard input, one JSON object per line, or one response from the command line.
//!
//! ```sh
//! cargo run --example classify < answers.jsonl
//! cargo run --example classify -- --status 429 --header 'retry-after: 20' --body error.json
//! ```
//!
//! A line is `{"status":429,"headers":{…},"body":"…"}`. It may contain `headers_list` (pairs), `body_base64` and `now_unix_ms`.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use clap::Parser;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use tower_429::classify::{Kind, Verdict};

/// Maximum server delay that is honoured.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// Classify error responses of OpenAI-style APIs.
#[derive(Debug, Parser)]
struct Args {
    /// Status of one response. Without it, responses are read from standard input, one JSON object per line.
    #[arg(long)]
    status: Option<u16>,
    /// Header of that response, as `name: value`. Can be repeated.
    #[arg(long = "header", requires = "status")]
    headers: Vec<String>,
    /// File with the body of that response.
    #[arg(long, requires = "status")]
    body: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match args.status {
        Some(status) => match one(status, &args) {
            Ok(line) => {
                println!("{line}");
                ExitCode::SUCCESS
            }
            Err(problem) => {
                eprintln!("{problem}");
                ExitCode::FAILURE
            }
        },
        None => lines(),
    }
}

fn one(status: u16, args: &Args) -> Result<Value, String> {
    let mut headers = HeaderMap::new();
    for header in &args.headers {
        let (name, value) = header.split_once(':').ok_or_else(|| format!("no colon in header {header:?}"))?;
        add(&mut headers, name.trim(), value.trim())?;
    }
    let body = match &args.body {
        Some(path) => std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?,
        None => Vec::new(),
    };
    let status = StatusCode::from_u16(status).map_err(|e| e.to_string())?;
    Ok(describe(&Verdict::of(status, &headers, &body)))
}

/// Classifies every readable line. Reports an unreadable line on standard error, and fails at the end.
fn lines() -> ExitCode {
    let mut exit = ExitCode::SUCCESS;
    for (index, line) in std::io::stdin().lock().split(b'\n').enumerate() {
        let answer = line.map_err(|e| e.to_string()).and_then(|line| match line.trim_ascii() {
            [] => Ok(None),
            line => classify(line).map(Some),
        });
        match answer {
            Ok(Some(verdict)) => println!("{verdict}"),
            Ok(None) => {}
            Err(problem) => {
                eprintln!("line {}: {problem}", index + 1);
                exit = ExitCode::FAILURE;
            }
        }
    }
    exit
}

fn classify(line: &[u8]) -> Result<Value, String> {
    let row: Value = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    let status = row["status"].as_u64().and_then(|status| u16::try_from(status).ok()).ok_or("status is missing")?;
    let status = StatusCode::from_u16(status).map_err(|e| e.to_string())?;
    let mut headers = HeaderMap::new();
    if let Some(list) = row["headers_list"].as_array() {
        for pair in list {
            let text = |at: usize| pair[at].as_str().ok_or("headers_list is not a list of pairs of strings");
            add(&mut headers, text(0)?, text(1)?)?;
        }
    } else if let Some(map) = row["headers"].as_object() {
        for (name, value) in map {
            add(&mut headers, name, value.as_str().ok_or_else(|| format!("header {name} is not a string"))?)?;
        }
    }
    let body = match (row["body_base64"].as_str(), &row["body"]) {
        (Some(encoded), _) => base64::engine::general_purpose::STANDARD.decode(encoded).map_err(|e| e.to_string())?,
        (None, Value::String(body)) => body.clone().into_bytes(),
        (None, Value::Null) => Vec::new(),
        // The body is a JSON value, not a string.
        (None, other) => other.to_string().into_bytes(),
    };
    let verdict = match row["now_unix_ms"].as_u64() {
        Some(ms) => {
            let now = UNIX_EPOCH.checked_add(Duration::from_millis(ms)).ok_or("now_unix_ms is too large")?;
            Verdict::of_at(status, &headers, &body, now)
        }
        None => Verdict::of(status, &headers, &body),
    };
    Ok(describe(&verdict))
}

fn add(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| format!("{name:?}: {e}"))?;
    let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|e| format!("{name}: {e}"))?;
    headers.append(name, value);
    Ok(())
}

fn describe(verdict: &Verdict) -> Value {
    let (action, why) = action(verdict);
    json!({
        "kind": verdict.kind.as_str(),
        "scope": verdict.scope.map(|scope| scope.as_str()),
        "retry_after_ms": verdict.retry_after.map(|delay| delay.as_millis() as u64),
        "limit": verdict.limit,
        "used": verdict.used,
        "requested": verdict.requested,
        "model": verdict.model,
        "action": action,
        "why": why,
    })
}

/// Returns what the retry layer does by default, and the reason.
fn action(verdict: &Verdict) -> (&'static str, String) {
    let limit = verdict.scope.map_or("", |scope| scope.as_str()).replace('_', " ");
    match verdict.kind {
        Kind::QuotaExhausted => ("stop", "a quota, a plan or a balance is exhausted: a retry does not help".into()),
        Kind::TooLarge => ("stop", "the request alone exceeds its limit: a retry cannot succeed".into()),
        Kind::ServerError => ("pass", "the server may have processed the request: not retried by default".into()),
        _ if !verdict.is_throttling() => ("pass", "not a rate limit: passed on unchanged".into()),
        _ if verdict.stated() > Some(MAX_WAIT) => {
            let secs = verdict.stated().unwrap_or_default().as_secs();
            ("stop", format!("the server asks for a delay of {secs} s, more than {} s", MAX_WAIT.as_secs()))
        }
        Kind::Concurrency => ("retry", "too many calls in flight: fewer at once".into()),
        Kind::Overloaded => ("retry", "the server is overloaded".into()),
        _ if limit.is_empty() => ("retry", "a rate limit was reached; the response does not name it".into()),
        _ => ("retry", format!("the limit of {limit} was reached: a retry after the delay helps")),
    }
}
