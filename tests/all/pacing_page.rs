//! The answers of `docs/pacing.md`, section "What does the controller do?", to the millisecond.

use tokio::time::Instant;

use crate::support_retry::*;

#[tokio::test(start_paused = true)]
async fn a_hundred_calls_at_once_to_a_new_key_go_in_five_waves() {
    let server = Server::new(|_, _| Reply::ok().after(secs(10)));
    let began = Instant::now();
    send_all(&client(&layer(), &server), (0..100).map(|_| request())).await;
    let sent_at = |time| server.times().into_iter().filter(|at| *at == time).count();
    assert_eq!([0, 500, 1_000, 1_500, 2_000].map(|at| sent_at(ms(at))), [16, 16, 32, 32, 4]);
    assert_eq!(began.elapsed(), secs(12), "the last call is sent after 2 s and answered 10 s later");
}

#[tokio::test(start_paused = true)]
async fn calls_after_an_empty_bucket_of_sixty_a_minute_go_a_second_apart() {
    let server = Server::new(|n, _| match n {
        0 => Reply::ok()
            .header("x-ratelimit-limit-requests", "60")
            .header("x-ratelimit-remaining-requests", "0")
            .header("x-ratelimit-reset-requests", "1m0s"),
        _ => Reply::ok(),
    });
    let client = client(&layer(), &server);
    let began = Instant::now();
    send(&client, request()).await;
    let waits: Vec<_> = send_all(&client, (0..5).map(|_| request())).await.iter().map(|outcome| outcome.head).collect();
    assert_eq!(waits, [2, 3, 4, 5, 6].map(secs));
    assert_eq!(began.elapsed(), secs(6));
}

#[tokio::test(start_paused = true)]
async fn eight_calls_to_a_server_that_takes_four_at_once_take_two_rounds_and_one_probe() {
    // Calls 0 to 3 and 9 to 12 are accepted. The others arrive while four calls are open.
    let server = Server::new(|n, _| match n {
        4..9 => Reply::bare().after(ms(100)),
        _ => Reply::ok().after(secs(10)),
    });
    let layer = layer();
    let client = client(&layer, &server);
    let began = Instant::now();
    let outcomes = send_all(&client, (0..8).map(|_| request())).await;
    assert!(outcomes.iter().all(|outcome| outcome.status == 200));
    let expected = [[0; 8].as_slice(), &[700], &[10_000; 4]].concat();
    assert_eq!(server.times(), expected.into_iter().map(ms).collect::<Vec<_>>());
    assert_eq!(began.elapsed(), secs(20));
    assert_eq!(layer.quotas().snapshot(key()).unwrap().window, 4);
}

#[tokio::test(start_paused = true)]
async fn a_key_without_quota_answers_locally_and_sends_one_call_after_thirty_seconds() {
    let server = Server::saying([Reply::status(429, NO_QUOTA)]);
    let client = client(&layer(), &server);
    let began = Instant::now();
    let mut codes = Vec::new();
    for at in [0, 1, 29, 30, 31] {
        tokio::time::sleep_until(began + secs(at)).await;
        let answer = send(&client, request()).await;
        codes.push((answer.status().as_u16(), throttle(&answer).is_some()));
        read(answer).await;
    }
    assert_eq!(codes, [(429, false), (429, true), (429, true), (200, false), (200, false)]);
    assert_eq!(server.times(), [0, 30, 31].map(secs));
}

/// The source files below a path, without those of tests.
fn sources(path: &std::path::Path) -> Vec<std::path::PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let skipped = ["tests.rs", "schedules.rs", "invariants.rs", "invariants"];
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let kept = entries.filter(|path| !skipped.iter().any(|name| path.ends_with(name)));
    kept.flat_map(|path| sources(&path)).collect()
}

#[test]
fn the_page_names_every_constant_of_the_controller_and_the_queue() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/pacing.md")).unwrap();
    for path in ["src/quota", "src/wait_queue", "src/backoff.rs"] {
        for file in sources(&root.join(path)) {
            let text = std::fs::read_to_string(&file).unwrap();
            let code = text.split("mod tests {").next().unwrap();
            for line in code.lines() {
                let Some((_, rest)) = line.split_once("const ").filter(|_| !line.contains("const fn")) else {
                    continue;
                };
                let name = rest.split(':').next().unwrap();
                assert!(page.contains(&format!("`{name}`")), "docs/pacing.md lacks {name} of {}", file.display());
            }
        }
    }
}
