//! The provider against recorded runs of an independent model of the same rules.

mod common;

use common::{Reply, ms};
use tokio::time::{Instant, sleep_until};
use tower_429_testing::{Builder, Charge, HintUnit, Hints, Limit, Provider, go_duration};

/// When the run called "changed" cuts its limits, and when it lowers the calls at once.
const CUT: u64 = 3_001;
const FEWER_AT_ONCE: u64 = 6_001;

fn scenario(name: &str) -> Builder {
    let requests = Limit::per_minute(60).capacity(6);
    let tokens = Limit::per_minute(60_000).capacity(4_000);
    let many = Limit::per_minute(60).capacity(1_000);
    let hidden = Limit::new(3, 1.5);
    let plain = Provider::builder().requests(requests).tokens(tokens).hints(Hints::Headers);
    match name {
        "burn" => plain.at_once(3).hidden(hidden),
        "debt" => plain.charge_throttled(Charge::Debt(0.5)).hidden(hidden),
        "nothing" => plain.charge_throttled(Charge::Nothing).at_once(2),
        "starting" => plain.requests(requests.starting_at(2)).tokens(tokens.starting_at(-500)),
        "fixed" => plain.requests(requests.fixed_window()).tokens(tokens.fixed_window()).at_once(6),
        "seconds" => plain.whole_second_resets().hint_unit(HintUnit::Seconds).at_once(2),
        "shown" => plain
            .requests(Limit::per_minute(120).capacity(2).shown_as(120))
            .tokens(tokens.capacity(2_000).shown_as(60_000)),
        "refund" => plain.requests(many).refund_unused_tokens(),
        "post" => plain.requests(many).post_paid(),
        "changed" => plain
            .requests(Limit::per_minute(240).capacity(20))
            .tokens(Limit::per_minute(240_000).capacity(9_000))
            .at_once(5),
        _ => panic!("no scenario is called {name}"),
    }
}

/// The reply as the trace writes it, times to reset as Go writes them.
fn verdict(reply: &Reply, before: [usize; 5], after: [usize; 5]) -> String {
    let names = ["ok", "conc", "req", "tok", "hid"];
    let kind = (0..5).find(|&kind| after[kind] > before[kind]).unwrap();
    let header = |name: &str| reply.header(name).unwrap_or_default().to_owned();
    let hint = match reply.header("retry-after-ms") {
        Some(ms) => ms.to_owned(),
        None => reply.header("retry-after").map_or_else(|| "0".to_owned(), |secs| format!("{secs}000")),
    };
    [
        names[kind].to_owned(),
        hint,
        header("x-ratelimit-limit-requests"),
        header("x-ratelimit-remaining-requests"),
        header("x-ratelimit-reset-requests"),
        header("x-ratelimit-limit-tokens"),
        header("x-ratelimit-remaining-tokens"),
        header("x-ratelimit-reset-tokens"),
    ]
    .join(" ")
}

fn counts(provider: &Provider) -> [usize; 5] {
    let seen = provider.seen();
    [seen.accepted, seen.throttled_concurrency, seen.throttled_requests, seen.throttled_tokens, seen.throttled_hidden]
}

async fn replay(name: &str, lines: &[&str]) {
    let provider = scenario(name).build();
    let start = Instant::now();
    let mut changes = if name == "changed" { vec![CUT, FEWER_AT_ONCE] } else { vec![] };
    let mut calls = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let (call, expected) = line.split_once(" | ").unwrap();
        let call: Vec<String> = call.split(' ').map(str::to_owned).collect();
        let at: u64 = call[0].parse().unwrap();
        while changes.first().is_some_and(|&moment| moment < at) {
            let moment = changes.remove(0);
            sleep_until(start + ms(moment)).await;
            if moment == CUT { provider.cut(0.4) } else { provider.set_at_once(Some(2)) }
        }
        sleep_until(start + ms(at)).await;
        let before = counts(&provider);
        let client = provider.clone();
        let task = tokio::spawn(async move {
            let body = format!(r#"{{"max_tokens":{}}}"#, call[2]);
            let headers = [
                ("x-testing-tokens", call[1].as_str()),
                ("x-testing-output-tokens", &call[3]),
                ("x-testing-service-ms", &call[4]),
            ];
            common::read(common::send(&client, common::request(&headers, &body)).await).await
        });
        tokio::task::yield_now().await;
        calls.push((task, before, counts(&provider), expected.to_owned(), index));
    }
    for (task, before, after, expected, index) in calls {
        let mut expected: Vec<String> = expected.split(' ').map(str::to_owned).collect();
        for reset in [4, 7] {
            expected[reset] = go_duration(ms(expected[reset].parse().unwrap()));
        }
        let reply = task.await.unwrap();
        assert_eq!(verdict(&reply, before, after), expected.join(" "), "{name}, call {index}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_of_ten_recorded_runs_gets_the_recorded_answer() {
    let trace: Vec<&str> = include_str!("traces/model.txt").lines().collect();
    let calls: Vec<&str> = trace.into_iter().filter(|line| !line.starts_with('#')).collect();
    let mut runs = 0;
    for run in calls.chunk_by(|_, next| next.contains('|')) {
        replay(run[0], &run[1..]).await;
        assert_eq!(run.len(), 41);
        runs += 1;
    }
    assert_eq!(runs, 10);
}
