//! Calls beside an event stream that stays open, behind the retry layer alone: none of them waits for the stream's end.

use std::future::Future;
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};
use tower::ServiceExt;

use crate::support_limit;
use crate::support_retry::*;
use crate::unread::{follow_up_before_reading, read, read_in_order};

/// How long the stream is.
const LENGTHS: [Option<Duration>; 3] = [Some(secs(59)), Some(secs(3_599)), None];

/// What the caller does with the stream.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Never,
    /// It reads the first event and comes back later.
    Once,
    Always,
}

/// One event now, and the end after a time, or never.
fn stream(length: Option<Duration>) -> Reply {
    let event = || Step::Data("data: {}\n\n".into());
    let steps = [event(), length.map_or(Step::Stall, Step::Pause), event()];
    Reply::body(200, Steps::new(steps)).header("content-type", "text/event-stream")
}

/// Opens a stream on a server whose further calls are answered as `then` says, and makes calls while it is open. How long
/// these take.
async fn beside_a_stream<F: Future<Output = ()>>(
    length: Option<Duration>,
    reader: Reader,
    mut then: impl FnMut(usize, &Seen) -> Reply + Send + 'static,
    calls: impl FnOnce(Client) -> F,
) -> Duration {
    let server = Server::new(move |n, seen| if n == 0 { stream(length) } else { then(n, seen) });
    let client = client(&layer(), &server);
    let mut body = client.clone().oneshot(support_limit::request()).await.unwrap().into_body();
    if !matches!(reader, Reader::Never) {
        body.frame().await.unwrap().unwrap();
    }
    let (began, what) = (Instant::now(), format!("{length:?}, {reader:?}"));
    let calls = async {
        timeout(secs(86_400), calls(client)).await.unwrap_or_else(|_| panic!("hangs beside a stream: {what}"));
        began.elapsed()
    };
    if matches!(reader, Reader::Always) {
        tokio::select! {
            elapsed = calls => elapsed,
            () = async { while body.frame().await.is_some() {} } => panic!("the stream has ended: {what}"),
        }
    } else {
        calls.await
    }
}

#[tokio::test(start_paused = true)]
async fn a_bare_429_beside_a_stream_is_waited_for_less_than_a_second_however_long_the_stream_is() {
    for length in LENGTHS {
        for reader in [Reader::Never, Reader::Once, Reader::Always] {
            let then = |n, _: &Seen| if n == 1 { Reply::bare() } else { Reply::ok() };
            let elapsed = beside_a_stream(length, reader, then, |client| async move {
                let answer = client.oneshot(support_limit::request()).await.unwrap();
                assert_eq!(answer.status(), 200);
            });
            let elapsed = elapsed.await;
            assert!(elapsed <= ms(800), "{length:?}, {reader:?}: {elapsed:?}");
        }
    }
}

/// The loser of a `select!` is not polled while a further call is made, and the winner's body is not read.
async fn unpolled_sibling(client: Client) {
    let [mut one, mut other] = [(); 2].map(|()| Box::pin(client.clone().oneshot(support_limit::request())));
    let (head, loser) = tokio::select! {
        head = &mut one => (head, other),
        head = &mut other => (head, one),
    };
    read(client.clone().oneshot(support_limit::request()).await.unwrap()).await;
    read(head.unwrap()).await;
    read(loser.await.unwrap()).await;
}

/// Whether the server throttles the call with this number; the stream has the number 0.
type Refuses = fn(usize) -> bool;

/// Every way of calling, beside every stream, on servers that throttle some of the calls.
async fn patterns(name: &str, refuses: Refuses, bound: Duration) {
    let then = move |n: usize, _: &Seen| {
        let reply = if refuses(n) { Reply::bare() } else { Reply::ok() };
        reply.after(ms(10))
    };
    for length in LENGTHS {
        for reader in [Reader::Never, Reader::Once, Reader::Always] {
            let took = [
                beside_a_stream(length, reader, then, read_in_order).await,
                beside_a_stream(length, reader, then, follow_up_before_reading).await,
                beside_a_stream(length, reader, then, unpolled_sibling).await,
            ];
            assert!(took.iter().all(|took| *took <= bound), "{name}, {length:?}, {reader:?}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn loops_beside_a_stream_end_soon_where_one_call_is_throttled() {
    patterns("the first call", |n| n == 1, ms(800)).await;
}

#[tokio::test(start_paused = true)]
async fn loops_beside_a_stream_end_soon_where_every_third_call_is_throttled() {
    patterns("every third call", |n| n % 3 == 1, secs(15)).await;
}
