//! What a call costs that meets no limit: the services under comparison, and how they are measured.

pub mod body;
pub mod call;
pub mod contenders;
pub mod measure;
pub mod wait_queue;

use std::collections::HashMap;

/// What the program `allocations` counted, by name. It is a program of its own, since an allocator that counts is slower:
/// what is timed has the system's own.
pub fn counted(program: &str) -> HashMap<String, f64> {
    let output = std::process::Command::new(program).output().expect("the program that counts allocations");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line =
        |line: &str| line.split_once('\t').and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
    String::from_utf8_lossy(&output.stdout).lines().filter_map(line).collect()
}
