//! Debug.
use tower_429_bench::{results, schemes};
fn main() {
    let name = std::env::args().nth(1).unwrap();
    let seed = std::env::args().nth(2).map_or(1, |s| s.parse().unwrap());
    let scenario = tower_429_bench::scenario::all().into_iter().find(|s| s.label() == name).unwrap();
    let outcome = results::one(
        &schemes::Scheme { name: "ours", make: schemes::ours },
        &scenario,
        schemes::Setting { seed, retries: 5 },
    );
    println!("time {} done {} failed {} refused {}", outcome.time, outcome.done, outcome.failed, outcome.refused);
    let mut b = std::collections::BTreeMap::<i64, (u32, u32)>::new();
    for a in &outcome.attempts {
        let e = b.entry((a.sent * 2.0) as i64).or_default();
        e.0 += 1;
        e.1 += u32::from(a.refused);
    }
    for (t, (n, r)) in b {
        if r > 0 || t < 40 {
            println!("{:6.1} sent {n} refused {r}", t as f64 / 2.0);
        }
    }
}
