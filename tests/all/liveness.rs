//! Every call ends, whatever servers answer and callers do; nothing stays behind, and no other key is slowed.
//!
//! Random servers answer in turn with what a script says. Random callers read late or never, leave, stop polling, or panic
//! in their listener. The clock jumps. The property: all calls end within a time that is computed from their number, the
//! controller is empty afterwards, and a server that is well again is used again.

use std::collections::HashSet;
use std::future::Future;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::poll_immediate;
use http_body_util::BodyExt;
use proptest::prelude::*;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower::ServiceExt;
use tower_429::{Cost, Deadline, PacingConfig, Priority, QuotaKey};

use crate::support_limit::watched;
use crate::support_retry::*;

/// Retries of each call.
const RETRIES: u32 = 3;
/// The longest wait without a hint.
const BACKOFF_MAX: Duration = secs(2);
/// A hint is exceeded by at most this.
const SPREAD_MAX: Duration = secs(5);
/// The longest time that a server takes for an answer.
const ANSWER_MAX: Duration = secs(3);
/// A caller leaves when its server has been silent for so long.
const PATIENCE: Duration = secs(30);
/// The shortest longest wait for a window probe.
const WINDOW_PROBE: Duration = secs(5);
/// What others owe of a bucket holds back a call for at most this.
const DEBT_TIME: Duration = secs(60);
/// The longest wait for a probe of a closed key.
const PROBE_MAX: Duration = secs(600);

/// What a server answers.
#[derive(Debug, Clone, Copy)]
enum Say {
    Ok,
    Bare,
    Hinted {
        ms: u64,
    },
    AtOnce,
    Overloaded,
    Error,
    Quota,
    /// A transport error.
    Broken,
    /// One of the sets of [`HOSTILE`], on this status.
    Hostile {
        which: usize,
        status: u16,
    },
    /// An event stream that never ends.
    Stream,
    /// An event stream that ends with an error.
    StreamError,
    /// No head ever comes.
    Silence,
}

/// Rate headers that contradict each other or common sense: limit, remaining, reset, of requests or of tokens.
const HOSTILE: [(&str, [&str; 3]); 8] = [
    ("requests", ["60", "0", "720h"]),
    ("requests", ["0", "0", "0s"]),
    ("requests", ["1", "0", "86400s"]),
    ("requests", ["99999999999999999999", "-1", "1ms"]),
    ("requests", ["60", "600", "NaN"]),
    ("tokens", ["1", "0", "3600s"]),
    ("tokens", ["1e308", "0", "1e308s"]),
    ("tokens", ["1000", "0", "60s"]),
];

fn say() -> impl Strategy<Value = Say> {
    prop_oneof![
        4 => Just(Say::Ok),
        3 => Just(Say::Bare),
        2 => prop_oneof![0..3_000_u64, 0..400_000_u64].prop_map(|ms| Say::Hinted { ms }),
        1 => Just(Say::AtOnce),
        1 => Just(Say::Overloaded),
        1 => Just(Say::Error),
        1 => Just(Say::Quota),
        1 => Just(Say::Broken),
        2 => (0..HOSTILE.len(), prop_oneof![Just(200), Just(404), Just(429)])
            .prop_map(|(which, status)| Say::Hostile { which, status }),
        1 => Just(Say::Stream),
        1 => Just(Say::StreamError),
        1 => Just(Say::Silence),
    ]
}

impl Say {
    fn reply(self) -> Reply {
        let event = |text: &'static str| Step::Data(text.into());
        let events = |steps: Vec<Step>| Reply::body(200, Steps::new(steps)).header("content-type", "text/event-stream");
        match self {
            Self::Ok => Reply::ok(),
            Self::Bare => Reply::bare(),
            Self::Hinted { ms } => Reply::bare().header("retry-after-ms", &ms.to_string()),
            Self::AtOnce => Reply::status(429, AT_ONCE),
            Self::Overloaded => Reply::status(529, ""),
            Self::Error => Reply::status(500, ""),
            Self::Quota => Reply::status(429, NO_QUOTA),
            Self::Broken => Reply::broken("reset"),
            Self::Hostile { which, status } => {
                let (unit, [limit, remaining, reset]) = HOSTILE[which];
                let names = match unit {
                    "requests" => {
                        ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]
                    }
                    _ => ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
                };
                let reply = Reply::status(status, if status == 429 { BARE } else { "{}" });
                reply.header(names[0], limit).header(names[1], remaining).header(names[2], reset)
            }
            Self::Stream => events(vec![event("data: {}\n\n"), Step::Stall]),
            Self::StreamError => events(vec![
                event("data: {}\n\n"),
                event("data: {\"error\":{\"message\":\"Rate limit reached\",\"code\":\"rate_limit_exceeded\"}}\n\n"),
            ]),
            Self::Silence => Reply::ok().after(secs(10_000_000)),
        }
    }
}

/// What a caller does with a body.
#[derive(Debug, Clone, Copy)]
enum Read {
    /// It reads to the end, or for so long.
    For(u64),
    /// It waits for so long before.
    Late(u64),
    /// It reads one frame, and keeps the body until all calls have ended.
    Once,
    /// It keeps it unread until all calls have ended.
    Never,
    Drop,
}

/// One call. Times are in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Caller {
    at: u64,
    deadline: Option<u64>,
    class: usize,
    tokens: Option<u32>,
    read: Read,
    /// It leaves after so long, whatever has come.
    leaves: Option<u64>,
    /// It is polled once and then not for so long.
    sleeps: Option<u64>,
}

fn caller() -> impl Strategy<Value = Caller> {
    let read = prop_oneof![
        4 => (0..2_000_u64).prop_map(Read::For),
        1 => (0..20_000_u64).prop_map(Read::Late),
        1 => Just(Read::Once),
        1 => Just(Read::Never),
        1 => Just(Read::Drop),
    ];
    let sometimes = |share, range| prop::option::weighted(share, range);
    (
        prop_oneof![Just(0), 0..60_000_u64],
        sometimes(0.2, 0..120_000_u64),
        0..3_usize,
        prop::option::weighted(0.3, prop_oneof![0..2_000_u32, Just(u32::MAX)]),
        read,
        sometimes(0.2, 0..30_000_u64),
        sometimes(0.1, 0..30_000_u64),
    )
        .prop_map(|(at, deadline, class, tokens, read, leaves, sleeps)| Caller {
            at,
            deadline,
            class,
            tokens,
            read,
            leaves,
            sleeps,
        })
}

#[derive(Debug, Clone)]
struct Plan {
    /// What the server says in turn, and after so many milliseconds.
    script: Vec<(Say, u64)>,
    callers: Vec<Caller>,
    /// When the clock jumps, and how far, in seconds.
    jumps: Vec<(u64, u64)>,
    /// The listener panics at each event whose number divides by this.
    panics: Option<usize>,
    window: u32,
    max_wait: u64,
    pacing: bool,
    seed: u64,
}

fn plan() -> impl Strategy<Value = Plan> {
    (
        prop::collection::vec((say(), 0..3_000_u64), 1..24),
        prop::collection::vec(caller(), 1..24),
        prop::collection::vec((0..120_u64, prop_oneof![Just(1_u64), Just(60), Just(3_600), Just(90_000)]), 0..3),
        prop::option::weighted(0.3, 1..4_usize),
        1..20_u32,
        prop_oneof![Just(2_u64), Just(20), Just(120)],
        prop::bool::weighted(0.9),
        any::<u64>(),
    )
        .prop_map(|(script, callers, jumps, panics, window, max_wait, pacing, seed)| Plan {
            script,
            callers,
            jumps,
            panics,
            window,
            max_wait,
            pacing,
            seed,
        })
}

impl Plan {
    /// Within how long all calls end: each of them is at the head of its class once, and is sent so often at most.
    fn bound(&self) -> Duration {
        let attempts = 1 + 2 * RETRIES; // throttled probes cost no retry, up to as many as there are retries
        let wait = secs(self.max_wait).max(WINDOW_PROBE) + DEBT_TIME + BACKOFF_MAX + SPREAD_MAX + ANSWER_MAX + PATIENCE;
        let calls = u32::try_from(self.callers.len()).unwrap();
        let jumps: u64 = self.jumps.iter().map(|(_, by)| by).sum();
        secs(120 + jumps) + wait * attempts * calls
    }
}

fn numbered(caller: &Caller, n: usize) -> Req {
    let classes = [Priority::Interactive, Priority::Normal, Priority::Batch];
    let mut request = with(classes[caller.class]);
    request.headers_mut().insert("x-n", n.into());
    if let Some(ms) = caller.deadline {
        request.extensions_mut().insert(Deadline::within(Duration::from_millis(ms)));
    }
    if let Some(tokens) = caller.tokens {
        request.extensions_mut().insert(Cost::tokens(f64::from(tokens)));
    }
    request
}

/// Which calls the server has in hand and never answers.
type Silent = Arc<Mutex<HashSet<usize>>>;

/// A call of the plan to its end; the body that is kept, if one is.
async fn live(client: Client, caller: Caller, n: usize, silent: Silent) -> Option<Answer> {
    sleep(ms(caller.at)).await;
    let head = async {
        let mut call = Box::pin(client.oneshot(numbered(&caller, n)));
        if let Some(time) = caller.sleeps {
            if let Some(answer) = poll_immediate(&mut call).await {
                return answer.ok();
            }
            sleep(ms(time)).await;
        }
        call.await.ok()
    };
    let answer = tokio::select! {
        answer = head => answer?,
        () = async {
            while !silent.lock().unwrap().contains(&n) {
                sleep(secs(1)).await;
            }
            sleep(PATIENCE).await;
        } => return None,
        () = sleep(ms(caller.leaves.unwrap_or(u64::MAX / 2))), if caller.leaves.is_some() => return None,
    };
    match caller.read {
        Read::For(time) => drop(timeout(ms(time), answer.into_body().collect()).await),
        Read::Late(time) => {
            sleep(ms(time)).await;
            drop(timeout(secs(10), answer.into_body().collect()).await);
        }
        Read::Once => {
            let mut answer = answer;
            let _ = timeout(secs(10), answer.body_mut().frame()).await;
            return Some(answer);
        }
        Read::Never => return Some(answer),
        Read::Drop => {}
    }
    None
}

fn healthy() -> QuotaKey {
    QuotaKey::new("a healthy key")
}

/// Calls one after another of a key whose server answers after 0.1 s: none of them takes longer.
async fn stay_healthy(client: Client, jumped: Arc<AtomicU64>) {
    loop {
        let (began, before) = (Instant::now(), jumped.load(Ordering::SeqCst));
        let answer = send(&client, with(healthy())).await;
        assert_eq!(answer.status(), 200);
        let _ = answer.into_body().collect().await;
        let jumps = secs(jumped.load(Ordering::SeqCst) - before);
        assert!(began.elapsed() <= jumps + ms(102), "a healthy key is slowed: {:?}", began.elapsed());
        sleep(ms(900)).await;
    }
}

async fn run(plan: Plan) {
    let (silent, well) = (Silent::default(), Arc::new(AtomicUsize::new(0)));
    let server = {
        let (plan, silent, well, mut turn) = (plan.clone(), Arc::clone(&silent), Arc::clone(&well), 0);
        Server::new(move |_, seen| {
            let Some(n) = seen.parts.headers.get("x-n") else { return Reply::ok().after(ms(100)) };
            if well.load(Ordering::SeqCst) > 0 {
                return Reply::ok().after(ms(100));
            }
            let (say, after) = plan.script[turn % plan.script.len()];
            turn += 1;
            if matches!(say, Say::Silence) {
                silent.lock().unwrap().insert(n.to_str().unwrap().parse().unwrap());
                return say.reply();
            }
            say.reply().after(ms(after))
        })
    };
    let (events, calm) = (AtomicUsize::new(0), Arc::clone(&well));
    let layer = tower_429::RetryOn429Layer::new()
        .seed(plan.seed)
        .pacing(if plan.pacing { PacingConfig::new().initial_window(plan.window) } else { PacingConfig::off() })
        .max_wait(secs(plan.max_wait))
        .max_retries(RETRIES)
        .backoff(ms(100), BACKOFF_MAX)
        .on_event(move |_, _| {
            let n = events.fetch_add(1, Ordering::SeqCst) + 1;
            if plan.panics.is_some_and(|each| n % each == 0) && calm.load(Ordering::SeqCst) == 0 {
                resume_unwind(Box::new("a bug of the listener's")); // without a message
            }
        });
    let (client, began, jumped) = (client(&layer, &server), Instant::now(), Arc::new(AtomicU64::new(0)));

    let calls: Vec<_> = (0..plan.callers.len())
        .map(|n| tokio::spawn(live(client.clone(), plan.callers[n], n, Arc::clone(&silent))))
        .collect();
    let beside = tokio::spawn(stay_healthy(client.clone(), Arc::clone(&jumped)));
    let clock = tokio::spawn({
        let (mut jumps, jumped) = (plan.jumps.clone(), Arc::clone(&jumped));
        jumps.sort_unstable();
        async move {
            let mut before = 0;
            for (at, by) in jumps {
                sleep_until(began + secs(at + before)).await;
                jumped.fetch_add(by, Ordering::SeqCst);
                tokio::time::advance(secs(by)).await;
                before += by;
            }
        }
    });

    let mut kept = Vec::new();
    let ends = began + plan.bound();
    for (n, call) in calls.into_iter().enumerate() {
        let ended = tokio::time::timeout_at(ends, call).await;
        match ended.unwrap_or_else(|_| panic!("call {n} has not ended after {:?}", plan.bound())) {
            Ok(body) => kept.extend(body),
            Err(error) => assert!(plan.panics.is_some(), "{error}"),
        }
    }
    clock.await.unwrap();
    assert!(!beside.is_finished(), "{:?}", beside.await);
    beside.abort();
    let _ = beside.await;
    drop(kept);
    let of = |key| layer.quotas().snapshot(key).map(|snapshot| (snapshot.in_flight, snapshot.queued));
    assert_eq!(of(key()).unwrap_or_default(), (0, 0), "nothing stays behind");
    assert_eq!(of(healthy()).unwrap_or_default(), (0, 0));
    assert_eq!(server.open.load(Ordering::SeqCst), 0);

    // The server is well again: what is believed of it is refuted by a probe.
    well.store(1, Ordering::SeqCst);
    let began = Instant::now();
    let caller = Caller { at: 0, deadline: None, class: 0, tokens: None, read: Read::Drop, leaves: None, sleeps: None };
    loop {
        let (client, request) = (client.clone(), numbered(&caller, 0));
        let call = tokio::spawn(async move {
            let answer = try_send(&client, request).await.unwrap();
            let ok = answer.status() == 200;
            let _ = answer.into_body().collect().await;
            ok
        });
        if matches!(call.await, Ok(true)) {
            break;
        }
        assert!(began.elapsed() <= PROBE_MAX + secs(60), "a server that is well again is not used again");
        sleep(secs(1)).await;
    }
}

fn virtually<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_call_ends_nothing_stays_behind_and_no_other_key_is_slowed(plan in plan()) {
        virtually(run(plan));
    }
}

#[test]
fn a_first_attempt_that_waits_for_tokens_is_not_called_for_the_call_at_the_head_again_and_again() {
    watched(|| {
        virtually(async {
            let server = Server::new(|n, _| match n {
                1 | 2 => Reply::bare().header("retry-after-ms", "100"),
                _ => Reply::ok(),
            });
            let client = client(&layer().pacing(PacingConfig::new().tokens_per_minute(60_000)), &server);
            let with_tokens = |tokens: f64| tokio::spawn(status_of(client.clone(), with(Cost::tokens(tokens))));
            with_tokens(60_000.0).await.unwrap();
            // Throttled twice, it lets a first attempt go before it, where there is one that may go.
            let head = with_tokens(0.0);
            tokio::task::yield_now().await;
            let behind = with_tokens(60_000.0);
            assert_eq!(timeout(secs(10), head).await.expect("hangs").unwrap(), 200);
            assert_eq!((server.count(), timeout(secs(120), behind).await.expect("hangs").unwrap()), (4, 200));
        });
    });
}

async fn status_of(client: Client, request: Req) -> u16 {
    send(&client, request).await.status().as_u16()
}
