//! Modules depend downwards only, and no two files import each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The modules of `src/`, lowest first. A module may import those before it.
const ORDER: [&str; 15] = [
    "time",
    "vocabulary",
    "backoff",
    "request",
    "key_map",
    "dialect",
    "classify",
    "event",
    "wait_queue",
    "response",
    "ready",
    "trace",
    "quota",
    "limit",
    "retry",
];
/// Modules that do not import each other, although one stands before the other.
const APART: [(&str, &str); 1] = [("retry", "limit")];

/// The code of a file without its comments and its tests, by the path of its module.
fn files() -> BTreeMap<Vec<String>, String> {
    fn visit(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    visit(&src, &mut found);
    let tests = ["tests", "schedules", "invariants", "events"];
    let module = |path: &Path| -> Vec<String> {
        let path = path.strip_prefix(&src).unwrap().with_extension("");
        let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
        names.filter(|name| name != "mod").map(|name| if name == "trace_off" { "trace".into() } else { name }).collect()
    };
    let code = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
    };
    let all = found.iter().map(|path| (module(path), code(path)));
    all.filter(|(module, _)| module.last().is_none_or(|name| !tests.contains(&name.as_str()))).collect()
}

/// The paths that a file names: `crate::…` and `super::…`, resolved.
fn imports(module: &[String], code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let parent =
                if start == "super::" { module[..module.len().saturating_sub(1)].to_vec() } else { Vec::new() };
            let rest = &code[at + start.len()..];
            let path = rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next().unwrap();
            found.push(parent.into_iter().chain(path.split("::").map(str::to_owned)).collect());
        }
    }
    found
}

#[test]
fn modules_import_only_modules_below_them() {
    let rank = |name: &str| ORDER.iter().position(|one| *one == name);
    let mut wrong = Vec::new();
    for (module, code) in files() {
        let Some(own) = module.first().filter(|name| !["lib", "readme"].contains(&name.as_str())) else { continue };
        let own_rank = rank(own).unwrap_or_else(|| panic!("`{own}` has no place in the order"));
        for path in imports(&module, &code) {
            let Some(other) = path.first().filter(|name| rank(name).is_some()) else { continue };
            if rank(other) > Some(own_rank) || APART.contains(&(own, other)) {
                wrong.push(format!("{} imports {}", module.join("::"), path.join("::")));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let files = files();
    let mut edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    let is_folder =
        |module: &[String]| files.keys().any(|other| other.len() > module.len() && other.starts_with(module));
    for (module, code) in &files {
        for path in imports(module, code) {
            let target = (1..=path.len()).rev().map(|n| path[..n].to_vec()).find(|path| files.contains_key(path));
            // A folder's `mod.rs` composes its parts, so it is no part of a circle.
            if let Some(target) = target.filter(|target| target != module && !is_folder(target) && !is_folder(module)) {
                edges.entry(module.clone()).or_default().insert(target);
            }
        }
    }
    // What imports nothing that is left is taken away, until only circles are left.
    while let Some(leaf) =
        edges.iter().find(|(_, to)| to.iter().all(|to| !edges.contains_key(to))).map(|(at, _)| at.clone())
    {
        edges.remove(&leaf);
    }
    let circles: Vec<String> = edges
        .iter()
        .flat_map(|(from, to)| to.iter().map(move |to| (from, to)))
        .filter(|(_, to)| edges.contains_key(*to))
        .map(|(from, to)| format!("{} imports {}", from.join("::"), to.join("::")))
        .collect();
    assert_eq!(circles, Vec::<String>::new());
}
