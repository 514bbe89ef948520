//! Response bodies that nobody reads, behind the retry layer alone and behind both layers.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use tokio::time::timeout;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_429::{ConcurrencyLimitLayer, PacingConfig, QuotaEvent, ReleaseAt, RetryOn429Layer};
use tower_429_testing::{Provider, ServiceTime};

use crate::support_limit::{ms, request, timed};
use crate::support_retry::{self as support, AT_ONCE, NO_QUOTA, Reply, Server, Steps};
use crate::unread::{
    Answers, SECOND, follow_up_before_reading, heads_then_bodies, read, read_in_order, unpolled_sibling,
    within_five_seconds,
};

/// A server that takes four calls at once, for 10 ms each.
fn four_at_once() -> Provider {
    Provider::builder().at_once(4).service_time(ServiceTime::Fixed(ms(10))).build()
}

#[tokio::test(start_paused = true)]
async fn the_retry_layer_alone_ends_where_heads_are_collected_and_the_server_takes_four() {
    let (layer, server) = (RetryOn429Layer::new().seed(1), four_at_once());
    within_five_seconds(heads_then_bodies(layer.layer(server.clone()), 20)).await;
    assert_eq!(server.seen().accepted, 20);
}

#[tokio::test(start_paused = true)]
async fn loops_that_leave_heads_unread_end_with_the_retry_layer_alone() {
    for seed in 0..10 {
        let layer = || RetryOn429Layer::new().seed(seed);
        within_five_seconds(read_in_order(layer().layer(four_at_once()))).await;
        within_five_seconds(follow_up_before_reading(layer().layer(four_at_once()))).await;
        within_five_seconds(unpolled_sibling(
            layer().pacing(PacingConfig::new().initial_window(1)).layer(four_at_once()),
        ))
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn both_layers_lend_one_above_the_other() {
    let (retry, limit) =
        (RetryOn429Layer::new().seed(1).pacing(PacingConfig::new().initial_window(4)), ConcurrencyLimitLayer::new(3));
    let handle = limit.handle();
    let stack = || ServiceBuilder::new().layer(retry.clone()).layer(limit.clone()).service(Answers::default());
    within_five_seconds(heads_then_bodies(stack(), 12)).await;
    within_five_seconds(unpolled_sibling(stack())).await;
    assert_eq!((handle.in_use(), handle.lent(), handle.queued()), (0, 0, 0));
}

/// A layer whose events are kept.
fn heard(layer: RetryOn429Layer) -> (RetryOn429Layer, Arc<Mutex<Vec<QuotaEvent>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&events);
    (layer.on_event(move |_, event| heard.lock().unwrap().push(*event)), events)
}

#[tokio::test(start_paused = true)]
async fn one_event_says_that_permits_were_lent_and_the_next_one_when_all_have_returned() {
    let (layer, events) = heard(RetryOn429Layer::new().seed(1));
    let service = layer.layer(four_at_once());
    let lent = || {
        let events = events.lock().unwrap();
        events.iter().filter(|event| matches!(event, QuotaEvent::PermitsLent { permits: 1.. })).count()
    };
    for episode in 1..=3 {
        let heads = join_all((0..20).map(|_| service.clone().oneshot(request())));
        let heads = within_five_seconds(heads).await;
        assert_eq!(lent(), episode);
        for head in heads {
            read(head.unwrap()).await;
        }
    }
    assert_eq!(lent(), 3);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lent_where_that_is_off_or_the_permit_ends_with_the_head() {
    let never = RetryOn429Layer::new().seed(1).lend_unread_after(None);
    let headers = RetryOn429Layer::new().seed(1).release_at(ReleaseAt::Headers);
    for layer in [never, headers] {
        let (layer, events) = heard(layer);
        let limit = ConcurrencyLimitLayer::new(2).release_at(ReleaseAt::Headers);
        let stack = ServiceBuilder::new().layer(layer).layer(limit.clone()).service(four_at_once());
        let _ = timeout(60 * SECOND, heads_then_bodies(stack, 20)).await;
        let lent = |event: &QuotaEvent| matches!(event, QuotaEvent::PermitsLent { .. });
        assert!(!events.lock().unwrap().iter().any(lent));
        assert_eq!((limit.handle().in_use(), limit.handle().lent()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_counts_unread_streams_is_asked_again_after_a_backoff_and_the_window_keeps_room_for_them() {
    let stream = || Reply::body(200, Steps::new([support::Step::Data("a".into()), support::Step::Stall]));
    let server = Server::new(move |n, _| if n < 2 { stream() } else { Reply::status(429, AT_ONCE) });
    let layer = support::layer();
    let client = support::client(&layer, &server);
    let unread = [support::send(&client, support::request()).await, support::send(&client, support::request()).await];
    let (throttled, elapsed) = timed(support::send(&client, support::request())).await;
    assert_eq!((throttled.status().as_u16(), server.count()), (429, 9), "the first attempt, a probe and five retries");
    let times = server.times();
    let gaps = times[2..].windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.min().unwrap() >= ms(250), "{times:?}");
    assert!(elapsed < 60 * SECOND, "{elapsed:?}");
    let snapshot = layer.quotas().snapshot(support::key()).unwrap();
    assert!(snapshot.window >= 2, "{snapshot:?}");
    assert!(snapshot.in_flight <= 1, "{snapshot:?}");
    drop(unread);
    assert_eq!(layer.quotas().snapshot(support::key()).unwrap().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_answer_nobody_reads_keeps_no_other_probe_back() {
    let body = || Steps::new([support::Step::Data("a".into()), support::Step::Stall]);
    let replies = [Reply::status(429, NO_QUOTA), Reply::body(418, body())];
    let server = Server::saying(replies);
    let client = support::client(&support::layer(), &server);
    assert_eq!(support::send(&client, support::request()).await.status(), 429);
    tokio::time::sleep(40 * SECOND).await;
    let unread = support::send(&client, support::request()).await;
    assert_eq!(unread.status(), 418);
    tokio::time::sleep(SECOND).await; // probes are a second apart
    assert_eq!(support::send(&client, support::request()).await.status(), 200);
    drop(unread);
}
