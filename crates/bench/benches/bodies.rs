//! What reading a request's body costs, for its model and its price: usual bodies, and such as nobody sends in good faith.
//!
//! Texts, and single values that are made large, have a bar. A body of nothing but empty values costs a few times as much a
//! byte; it is as long as it is.
//!
//! `cargo bench -p tower-429-bench --bench bodies`. Ends with an error when a bar is missed.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_429::RetryOn429Layer;

const MIB: usize = 1 << 20;
/// Short enough that most runs are not interrupted.
const LEN: usize = MIB / 4;
/// The most that reading may take.
const MOST_MS_A_MIB: f64 = 1.0;
const RUNS: usize = 200;

fn repeated(before: &str, unit: &str, after: &str) -> Bytes {
    let body = format!("{before}{}{after}", unit.repeat(LEN / unit.len()));
    body.into()
}

/// Milliseconds of a call with this body, the best of several: noise only adds.
async fn call<S>(client: &S, body: &Bytes) -> f64
where
    S: Service<Request<Full<Bytes>>, Error = Infallible> + Clone,
{
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let request = Request::post("http://localhost/v1/responses").body(Full::from(body.clone()));
        let request = request.expect("a request of constants");
        let start = Instant::now();
        let Ok(_) = client.clone().oneshot(request).await;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    best
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let inner =
        service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) });
    let client = RetryOn429Layer::new().layer(inner);
    let bodies = [
        (true, "English", repeated(r#"{"input":""#, "hello world ", r#""}"#)),
        (true, "code: every eighth character escaped", repeated(r#"{"input":""#, r"let x;\n", r#""}"#)),
        (true, "Chinese", repeated(r#"{"input":""#, "你好世界", r#""}"#)),
        (true, "Chinese as \\uXXXX", repeated(r#"{"input":""#, r"\u4f60\u597d", r#""}"#)),
        (true, "Russian", repeated(r#"{"input":""#, "привет мир ", r#""}"#)),
        (true, "an image in base64", repeated(r#"{"input":""#, "iVBORw0KGgoAAAANSUhEUg", r#"=="}"#)),
        (false, "chats of a word", repeated(r#"{"messages":["#, r#"{"role":"user","content":"hello"},"#, "{}]}")),
        (false, "numbers of tokens", repeated(r#"{"input":["#, "12345,", "1]}")),
        (true, "one number", repeated(r#"{"max_tokens":"#, "9", "}")),
        (true, "arrays in arrays", repeated(r#"{"input":"#, "[", "}")),
        (false, "empty strings", repeated(r#"{"input":["#, r#""","#, "1]}")),
        (false, "names without values", repeated("{", r#""":"#, "}")),
        (
            false,
            "spaces behind strings",
            repeated(r#"{"input":["#, "\"\"                                              ", "1]}"),
        ),
        (true, "half surrogates", repeated(r#"{"input":""#, r"\ud83d", r#""}"#)),
        (true, "escaped quotes", repeated(r#"{"input":""#, r#"\""#, r#""}"#)),
        (true, "backslashes without an end", repeated(r#"{"input":""#, r"\", "")),
        (false, "strings without an end", repeated("{", r#""a" "#, r#"""#)),
        (false, "data: URLs that are none", repeated(r#"{"input":["#, r#""data:a","#, "1]}")),
        (false, "nearly base64", repeated(r#"{"input":""#, "AAAA", r#"!"}"#)),
    ];
    println!("| body of {} KiB | ms a MiB | bar |\n|---|---|---|", LEN >> 10);
    let mut missed = 0;
    for (barred, what, body) in &bodies {
        let took = call(&client, body).await / (body.len() as f64 / MIB as f64);
        let over = *barred && took > MOST_MS_A_MIB;
        missed += usize::from(over);
        let bar = if *barred { format!("≤ {MOST_MS_A_MIB}") } else { String::new() };
        println!("| {what} | {}{took:.2} | {bar} |", if over { "**missed** " } else { "" });
    }
    let huge = Bytes::from(vec![b'['; 100_000_000]);
    println!("| 100 MB, which is not read | {:.4} ms in all | |", call(&client, &huge).await);
    if missed > 0 {
        std::process::exit(1);
    }
}
