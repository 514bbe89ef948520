//! Sends the same calls to a fine-tuned model with a low quota through three clients, over real HTTP on loopback.
//!
//! `cargo run --example quickstart`
//!
//! The server accepts 60 requests per 6 seconds after a burst of 30, and 8 calls at once. It throttles with the message
//! `Rate limit reached for fine-tuned model`. Each client sends 150 calls at the same moment. The clients are:
//!
//! 1. a bare hyper client,
//! 2. tower's own retry and concurrency limit, with a typical hand-written policy,
//! 3. `RetryOn429` without settings.
//!
//! The example exits with an error if a call of the third client fails.
//!
//! With `--token-quota`, the server limits only tokens and throttles with OpenAI's messages. This command sends 200 calls of
//! 4,000 tokens at 125,000 tokens per 6 seconds:
//!
//! `cargo run --release --example quickstart -- --calls 200 --tokens-per-call 4000 --token-quota 125000`

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt, retry::Policy};
use tower_429::RetryOn429Layer;
use tower_429_testing::{Hints, Limit, Provider, ServiceTime, Wording};

/// Send the same calls to a model with a low quota through three clients.
#[derive(Parser, Clone, Copy)]
struct Args {
    /// Calls of each client, all sent at once.
    #[arg(long, default_value_t = 150)]
    calls: u32,
    /// Requests that the server accepts per 6 seconds.
    #[arg(long, default_value_t = 60)]
    quota: u32,
    /// Requests that the server accepts in one burst.
    #[arg(long, default_value_t = 30)]
    burst: u32,
    /// Calls that the server accepts at once.
    #[arg(long, default_value_t = 8)]
    at_once: u32,
    /// Service time of a call in milliseconds.
    #[arg(long, default_value_t = 500)]
    work: u64,
    /// Concurrency limit of the second client. It is not the server's limit, which the client does not know.
    #[arg(long, default_value_t = 16)]
    limit: usize,
    /// Tokens in the body of each call, at four characters per token.
    #[arg(long, requires = "token_quota", value_parser = clap::value_parser!(u32).range(LEAST_TOKENS..=MOST_TOKENS))]
    tokens_per_call: Option<u32>,
    /// Tokens that the server accepts per 6 seconds. Replaces its limits on requests and on calls at once.
    #[arg(long, requires = "tokens_per_call", value_parser = clap::value_parser!(u32).range(1..))]
    token_quota: Option<u32>,
}

/// Tokens of a body without text, and of a body of 4 MiB.
const LEAST_TOKENS: i64 = 50;
const MOST_TOKENS: i64 = 1 << 20;
/// Characters of a body that the server counts as one token.
const CHARACTERS: usize = 4;
/// The text that the bodies repeat.
const TEXT: &str = "Each of us has read the same report, and each of us has understood something else. ";
/// The period of the quota.
const PERIOD: Duration = Duration::from_secs(6);

impl Args {
    fn provider(&self) -> Provider {
        let server = Provider::builder().service_time(ServiceTime::Fixed(Duration::from_millis(self.work)));
        if let Some(tokens) = self.token_quota {
            return server.tokens(Limit::per(tokens, PERIOD)).build();
        }
        let quota = Limit::new(self.burst, f64::from(self.quota) / PERIOD.as_secs_f64()).shown_as(self.quota);
        server.requests(quota).at_once(self.at_once as usize).wording(Wording::BareRate).hints(Hints::Headers).build()
    }

    /// Describes the server's limits.
    fn limits(&self) -> String {
        match self.token_quota {
            Some(tokens) => format!("{tokens} tokens each 6 s"),
            None => {
                format!("{} requests each 6 s after a burst of {}, {} at once", self.quota, self.burst, self.at_once)
            }
        }
    }

    /// Returns the body of a call: a short question, or text with the configured number of tokens.
    fn body(&self, number: u32) -> String {
        let question = |rest: &str| {
            format!(
                r#"{{"model":"ft:gpt-4o-mini:acme::7p4lURel","messages":[{{"role":"user","content":"Question {number}{rest}"}}]}}"#
            )
        };
        let Some(tokens) = self.tokens_per_call else { return question("") };
        let missing = (tokens as usize * CHARACTERS).saturating_sub(question(": ").len());
        let text: String = TEXT.chars().cycle().take(missing).collect();
        question(&format!(": {text}"))
    }

    /// Returns the shortest time in which the server can accept all calls, in seconds.
    fn ideal(&self) -> f64 {
        let (calls, work) = (f64::from(self.calls), self.work as f64 / 1e3);
        if let (Some(each), Some(quota)) = (self.tokens_per_call, self.token_quota) {
            // The bucket starts full, so the first quota of tokens takes no time.
            let later = calls * f64::from(each) - f64::from(quota);
            return later.max(0.0) / f64::from(quota) * PERIOD.as_secs_f64() + work;
        }
        let quota = (calls - f64::from(self.burst)) * PERIOD.as_secs_f64() / f64::from(self.quota);
        let rounds = (calls / f64::from(self.at_once)).ceil();
        f64::max(quota + work, rounds * work)
    }
}

struct Row {
    name: &'static str,
    done: usize,
    failed: usize,
    throttled: usize,
    time: f64,
    most: usize,
}

type Hyper = Client<HttpConnector, Full<Bytes>>;

/// A typical hand-written policy: five retries after `retry-after`, else after a doubling delay with jitter.
#[derive(Clone)]
struct ByHand {
    attempts: u32,
}

impl<RB, E> Policy<Request<Full<Bytes>>, Response<RB>, E> for ByHand {
    type Future = tokio::time::Sleep;

    fn retry(&mut self, _: &mut Request<Full<Bytes>>, result: &mut Result<Response<RB>, E>) -> Option<Self::Future> {
        let response = result.as_ref().ok().filter(|response| response.status() == 429)?;
        self.attempts += 1;
        let hint = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let backoff = Duration::from_millis(250 << self.attempts).mul_f64(0.5 + 0.5 * fastrand::f64());
        (self.attempts <= 5).then(|| sleep(hint.map_or(backoff, Duration::from_secs)))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args = Args::parse();
    let of = args.tokens_per_call.map(|tokens| format!(" of {tokens} tokens")).unwrap_or_default();
    println!("server: {}; {} calls{of} at the same moment; ideal {:.1} s\n", args.limits(), args.calls, args.ideal());
    let bars = MultiProgress::new();
    let bare = run("hyper alone", &args, &bars, |client| client).await?;
    let by_hand = |client| {
        let retry = tower::retry::RetryLayer::new(ByHand { attempts: 0 });
        ServiceBuilder::new().layer(retry).concurrency_limit(args.limit).service(client)
    };
    let tower = run("tower: retry + limit", &args, &bars, by_hand).await?;
    let paced = |client| ServiceBuilder::new().layer(RetryOn429Layer::new()).service(client);
    let ours = run("RetryOn429", &args, &bars, paced).await?;

    println!("\n{:22}{:>6}{:>8}{:>7}{:>9}{:>9}{:>11}", "", "done", "failed", "429s", "time", "÷ ideal", "in flight");
    for row in [&bare, &tower, &ours] {
        let times = if row.failed == 0 { format!("×{:.2}", row.time / args.ideal()) } else { "–".into() };
        let time = format!("{:.1} s", row.time);
        println!(
            "{:22}{:>6}{:>8}{:>7}{time:>9}{times:>9}{:>11}",
            row.name, row.done, row.failed, row.throttled, row.most
        );
    }
    println!("\n429s per success of RetryOn429: {:.2}", ours.throttled as f64 / ours.done.max(1) as f64);
    Ok(if ours.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends all calls at once through a client, to a new server.
async fn run<S, RB>(
    name: &'static str,
    args: &Args,
    bars: &MultiProgress,
    stack: impl FnOnce(Hyper) -> S,
) -> Result<Row, Box<dyn Error>>
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone,
    RB: Body<Data = Bytes>,
{
    let provider = args.provider();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let server =
        tokio::spawn(axum::serve(listener, axum::Router::new().fallback_service(provider.clone())).into_future());

    let style = "{msg:22}{bar:40} {pos:>4} done in {elapsed}";
    let bar = bars
        .add(ProgressBar::new(args.calls.into()).with_message(name).with_style(ProgressStyle::with_template(style)?));
    let client = stack(Client::builder(TokioExecutor::new()).build_http());
    let start = Instant::now();
    let results = join_all((0..args.calls).map(|number| {
        let (client, bar) = (client.clone(), bar.clone());
        async move {
            let ok = ask(client, address, args.body(number)).await;
            bar.inc(u64::from(ok));
            ok
        }
    }));
    let results = results.await;
    let time = start.elapsed().as_secs_f64();
    bar.abandon();
    server.abort();

    let (seen, done) = (provider.seen(), results.iter().filter(|ok| **ok).count());
    let (throttled, most) = (seen.throttled(), seen.most_in_flight);
    if bar.is_hidden() {
        println!("{name}: {done} of {} done in {time:.1} s", args.calls); // without a terminal there is no progress bar
    }
    Ok(Row { name, done, failed: results.len() - done, throttled, time, most })
}

/// Makes one call. Returns whether it succeeded, up to the end of its body.
async fn ask<S, RB>(client: S, address: SocketAddr, body: String) -> bool
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>>,
    RB: Body<Data = Bytes>,
{
    let request = Request::post(format!("http://{address}/v1/chat/completions"))
        .header("content-type", "application/json")
        .header("authorization", "Bearer test")
        .body(Full::new(Bytes::from(body)));
    let Ok(request) = request else { return false };
    let Ok(response) = client.oneshot(request).await else { return false };
    response.status().is_success() && response.into_body().collect().await.is_ok()
}
