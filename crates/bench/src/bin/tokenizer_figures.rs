//! Counts the texts of `tests/tokenizers/figures.jsonl` with two real tokenizers, and writes the figures beside them.
//!
//! `cargo run -p tower-429-bench --bin tokenizer_figures`. A text is added as a line with `name` and `text`.

use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tokenizers/figures.jsonl");
    let (o200k, cl100k) = (tiktoken_rs::o200k_base()?, tiktoken_rs::cl100k_base()?);
    let mut lines = String::new();
    println!("| text | characters | of them ASCII | o200k_base | cl100k_base |\n|---|---|---|---|---|");
    for line in std::fs::read_to_string(&path)?.lines() {
        let row: Value = serde_json::from_str(line)?;
        let (Some(name), Some(text)) = (row["name"].as_str(), row["text"].as_str()) else {
            return Err(format!("a line needs `name` and `text`: {line}").into());
        };
        let [newer, older] = [&o200k, &cl100k].map(|tokenizer| tokenizer.encode_ordinary(text).len());
        let (all, ascii) = (text.chars().count(), text.chars().filter(char::is_ascii).count());
        println!("| {name} | {all} | {ascii} | {newer} | {older} |");
        let (name, text) = (json!(name), json!(text));
        lines += &format!(r#"{{"name":{name},"o200k_base":{newer},"cl100k_base":{older},"text":{text}}}"#);
        lines.push('\n');
    }
    Ok(std::fs::write(path, lines)?)
}
