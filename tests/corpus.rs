//! Classifies every labelled answer of the corpora, and of this crate's own fixtures, and compares field by field.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use tower_429::classify::Verdict;

const FIELDS: [&str; 7] = ["kind", "scope", "retry_after_ms", "limit", "used", "requested", "model"];

/// Cases and misses of each field, and a line for each miss.
#[derive(Default)]
struct Score {
    rows: usize,
    missed: BTreeMap<&'static str, usize>,
    lines: Vec<String>,
}

impl Score {
    fn accuracy(&self, field: &str) -> f64 {
        1.0 - self.missed.get(field).copied().unwrap_or(0) as f64 / self.rows.max(1) as f64
    }

    fn print(&self, name: &str) {
        for line in &self.lines {
            println!("{line}");
        }
        let fields: Vec<_> = FIELDS.iter().map(|f| format!("{f} {:.1} %", 100.0 * self.accuracy(f))).collect();
        println!("{name}: {} rows: {}", self.rows, fields.join(", "));
    }
}

fn headers(row: &Value) -> HeaderMap {
    let mut map = HeaderMap::new();
    let mut add = |name: &str, value: &[u8]| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    };
    let base64 = base64::engine::general_purpose::STANDARD;
    let lists = ["headers_list", "headers_list_base64"];
    for list in lists.iter().filter(|list| row[**list].is_array()) {
        for pair in row[*list].as_array().unwrap() {
            let (name, value) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            match *list {
                "headers_list" => add(name, value.as_bytes()),
                _ => add(name, &base64.decode(value).unwrap()),
            }
        }
    }
    if lists.iter().all(|list| row[*list].is_null()) {
        for (name, value) in row["headers"].as_object().unwrap() {
            add(name, value.as_str().unwrap().as_bytes());
        }
    }
    map
}

fn classify(row: &Value) -> Verdict {
    let body = match row["body_base64"].as_str() {
        Some(bytes) => base64::engine::general_purpose::STANDARD.decode(bytes).unwrap(),
        None => row["body"].as_str().unwrap_or_default().as_bytes().to_vec(),
    };
    let status = StatusCode::from_u16(row["status"].as_u64().unwrap() as u16).unwrap();
    let now = row["now_unix_ms"].as_u64().map_or_else(|| UNIX_EPOCH, |ms| UNIX_EPOCH + Duration::from_millis(ms));
    Verdict::of_at(status, &headers(row), &body, now)
}

fn answer(verdict: &Verdict, field: &str) -> Value {
    match field {
        "kind" => label(verdict.kind).into(),
        "scope" => verdict.scope.map(|s| s.as_str()).into(),
        "retry_after_ms" => verdict.retry_after.map(|d| d.as_millis() as u64).into(),
        "limit" => verdict.limit.into(),
        "used" => verdict.used.into(),
        "requested" => verdict.requested.into(),
        _ => verdict.model.clone().into(),
    }
}

fn accepts(row: &Value, field: &str, given: &Value) -> bool {
    if row["expect"].get(field).is_none() {
        return true; // nothing is said of it
    }
    let alt = match field {
        "kind" => "alt_kinds".to_owned(),
        other => format!("alt_{other}"),
    };
    let same = |wanted: &Value| match (wanted.as_f64(), given.as_f64(), wanted.as_str()) {
        (Some(wanted), Some(given), _) => (wanted - given).abs() < 1e-6,
        (None, Some(given), Some(at_least)) if at_least.starts_with(">=") => given >= at_least[2..].parse().unwrap(),
        _ => wanted == given,
    };
    let others = match &row[&alt] {
        Value::Array(list) => list.iter().any(same),
        Value::Null => row.get(&alt).is_some() && given.is_null(),
        one => same(one),
    };
    let may_be_null = row["alt_null"].as_array().is_some_and(|list| list.iter().any(|name| name == field));
    same(&row["expect"][field]) || others || (may_be_null && given.is_null())
}

fn score(path: &Path) -> Score {
    let mut score = Score::default();
    for line in std::fs::read_to_string(path).unwrap().lines().filter(|line| !line.trim().is_empty()) {
        let row: Value = serde_json::from_str(line).unwrap();
        let verdict = classify(&row);
        score.rows += 1;
        for field in FIELDS {
            let given = answer(&verdict, field);
            if !accepts(&row, field, &given) {
                *score.missed.entry(field).or_default() += 1;
                score.lines.push(format!("{} {field}: expected {}, got {given}", row["id"], row["expect"][field]));
            }
        }
    }
    score
}

fn corpus(name: &str) {
    let fallback = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    let path = std::env::var_os("TOWER_429_CORPUS").map_or_else(fallback, PathBuf::from).join(name);
    if !path.exists() {
        println!("skipped: there is no {}", path.display());
        return;
    }
    let score = score(&path);
    score.print(name);
    for field in FIELDS {
        let bar = if matches!(field, "kind" | "retry_after_ms") { 1.0 } else { 0.97 };
        assert!(score.accuracy(field) >= bar, "{name}: {field} {:.3}", score.accuracy(field));
    }
}

#[test]
fn openai() {
    corpus("openai.jsonl");
}

#[test]
fn others() {
    corpus("others.jsonl");
}

#[test]
fn fixtures() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            let score = score(&path);
            assert!(score.lines.is_empty() && score.rows >= 3, "{}: {:#?}", path.display(), score.lines);
            files += 1;
        }
    }
    assert!(files > 0, "no fixtures");
}

#[test]
fn the_wall_clock_is_not_needed() {
    let verdict = Verdict::of(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), b"");
    assert_eq!(verdict, Verdict::of_at(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), b"", SystemTime::UNIX_EPOCH));
}

/// The corpus has one word for what is never retried.
fn label(kind: tower_429::classify::Kind) -> &'static str {
    match kind {
        tower_429::classify::Kind::TooLarge | tower_429::classify::Kind::Pass => "not_retryable",
        kind => kind.as_str(),
    }
}
