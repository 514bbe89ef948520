//! The inputs that fuzzing has saved, run on stable: each must pass as it did when it was saved.

#[path = "../../fuzz/targets.rs"]
mod targets;

fn each(target: &str, run: impl Fn(&[u8])) {
    let folder = format!("{}/fuzz/saved/{target}", env!("CARGO_MANIFEST_DIR"));
    let Ok(files) = std::fs::read_dir(&folder) else {
        return println!("skipped: no {folder} in a packaged crate");
    };
    let mut count = 0;
    for file in files {
        run(&std::fs::read(file.expect("a file").path()).expect("its bytes"));
        count += 1;
    }
    assert!(count >= 20, "{count} inputs of {target}");
}

#[test]
fn saved_headers_are_read() {
    each("headers", targets::headers);
}

#[test]
fn saved_error_bodies_are_judged() {
    each("error_body", targets::error_body);
}

#[test]
fn saved_delays_are_read() {
    each("durations", targets::durations);
}

#[test]
fn saved_streams_pass_byte_for_byte() {
    each("stream", targets::stream);
}
