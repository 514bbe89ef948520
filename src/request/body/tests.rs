//! Tests with request bodies of several providers.

use proptest::prelude::*;

use super::*;

fn tokens(body: &str) -> (f64, f64) {
    let Tokens { input, output } = Estimate::of(body.as_bytes()).tokens.unwrap_or_else(|| panic!("unknown: {body}"));
    (input, output)
}

#[test]
fn the_model_is_found_wherever_it_stands_in_the_outermost_object() {
    for body in [
        r#"{"model":"ft:gpt-4o:a::b","messages":[]}"#,
        r#" { "messages" : [ {"role":"user","content":"a \"model\": {[ \\"} , 1.5e3, null ], "stream" : true , "model" : "ft:gpt-4o:a::b" } "#,
        r#"{"x":{"model":"inner"},"n":-1,"model":"ft:gpt-4o:a::b"}"#,
        r#"{"model":"first","model":7,"model":"ft:gpt-4o:a::b"}"#,
        r#"{"model":"ft:gpt-4o:a::b","input":"cut off"#,
    ] {
        assert_eq!(Estimate::of(body.as_bytes()).model, Some(&b"ft:gpt-4o:a::b"[..]), "{body}");
    }
    for body in ["", "{", "[]", r#"{"a":{"model":"m"}}"#, r#"{"model":7}"#, r#"{"model":["m"]}"#, r#"{"model":"#] {
        assert_eq!(Estimate::of(body.as_bytes()).model, None, "{body}");
    }
    assert_eq!(Estimate::of(br#"{"model":"a\/b"}"#).model, Some(&br"a\/b"[..]), "as sent");
}

#[test]
fn what_is_no_whole_json_object_has_no_estimate() {
    for body in [
        "",
        "  ",
        "7",
        "[]",
        r#"["text"]"#,
        "text",
        r#"{"input":"cut off"#,
        r#"{"input":["a""#,
        "a=b&c=d",
        "\x1f\u{8b}",
    ] {
        let estimate = Estimate::of(body.as_bytes());
        assert_eq!(estimate.tokens, None, "{body}");
        assert!(!estimate.cost(Pricing::Sum).is_known(), "{body}");
    }
    assert_eq!(tokens(" {} "), (0.0, 0.0));
}

#[test]
fn texts_are_counted_wherever_they_are() {
    for (body, input) in [
        // The names of the outermost object's members and its model are not counted.
        (r#"{"model":"a model","stream":true,"input":"sixteen letters."}"#, 4.0),
        (r#"{"input":["sixteen letters.","and four"]}"#, 6.0),
        (r#"{"messages":[{"role":"user","content":"four"}]}"#, (4 + 4 + 7 + 4) as f64 / 4.0),
        (r#"{"system":[{"text":"four"}]}"#, 2.0),
        (r#"{"messages":[{"content":[{"content":[{"text":"four"}]}]}]}"#, (7 + 7 + 4 + 4) as f64 / 4.0),
        (r#"{"tools":[{"parameters":{"city":{"type":"string"}}}]}"#, (10 + 4 + 4 + 6) as f64 / 4.0),
        (r#"{"contents":[{"parts":[{"text":"four"}]}]}"#, (5 + 4 + 4) as f64 / 4.0),
    ] {
        assert_eq!(tokens(body), (input, 0.0), "{body}");
    }
}

/// Counted by `cargo run -p tower-429-bench --bin tokenizer_figures`.
const FIGURES: &str = include_str!("../../../tests/tokenizers/figures.jsonl");

#[test]
fn a_text_of_any_script_is_estimated_within_a_factor_of_two_of_real_tokenizers() {
    for line in FIGURES.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let (name, text) = (&row["name"], row["text"].as_str().unwrap());
        let (input, _) = tokens(&serde_json::json!({"input": text}).to_string());
        for tokenizer in ["o200k_base", "cl100k_base"] {
            let counted = row[tokenizer].as_f64().unwrap();
            assert!((counted / 2.0..=counted * 2.0).contains(&input), "{name}: {input} for {counted} of {tokenizer}");
        }
    }
}

#[test]
fn numbers_are_tokens_only_in_arrays_of_the_input_and_the_prompt() {
    for (body, input) in [
        (r#"{"input":[1,2,3]}"#, 3.0),
        (r#"{"input":[[1,2,3],[4, 5]]}"#, 5.0),
        (r#"{"prompt":[[[1]],"four"]}"#, 2.0),
        (r#"{"input":[0.5,-1,1e3]}"#, 0.0),
        (r#"{"input":5}"#, 0.0),
        (r#"{"input":{"top_k":[5]}}"#, 1.25),
        (r#"{"input":[{"a":5}]}"#, 0.25),
        (r#"{"dimensions":5,"ids":[5]}"#, 0.0),
    ] {
        assert_eq!(tokens(body), (input, 0.0), "{body}");
    }
}

#[test]
fn the_wanted_output_is_found_under_each_providers_name() {
    for (body, output) in [
        (r#"{"max_tokens": 250}"#, 250.0),
        (r#"{"max_completion_tokens":250}"#, 250.0),
        (r#"{"max_output_tokens":250}"#, 250.0),
        (r#"{"max_tokens":16,"max_completion_tokens":250}"#, 250.0),
        (r#"{"generationConfig":{"maxOutputTokens":250,"candidateCount":2}}"#, 500.0),
        (r#"{"generation_config":{"max_output_tokens":250}}"#, 250.0),
        (r#"{"inferenceConfig":{"maxTokens":250}}"#, 250.0),
        (r#"{"parameters":{"max_new_tokens":250}}"#, 250.0),
        (r#"{"n":3,"max_tokens":250}"#, 750.0),
        (r#"{"max_tokens":250,"best_of":4,"n":2}"#, 1_000.0),
        (r#"{"max_tokens":250,"n":0}"#, 250.0),
        (r#"{"max_tokens":250,"n":-3}"#, 250.0),
        (r#"{"max_tokens":2.5e2}"#, 250.0),
        (r#"{"max_tokens":-5}"#, 0.0),
        (r#"{"max_tokens":"250"}"#, 0.0),
        (r#"{"max_tokens":null}"#, 0.0),
        (r#"{"messages":[{"max_tokens":9}]}"#, 0.0),
        (r#"{"max_tokens":1e400,"n":1e400}"#, TOKENS_MAX),
    ] {
        assert_eq!(tokens(body).1, output, "{body}");
    }
    assert_eq!(tokens(&format!(r#"{{"max_tokens":{}}}"#, "9".repeat(1_000_000))), (0.0, TOKENS_MAX));
}

#[test]
fn an_image_a_sound_and_a_file_count_as_one_part_each() {
    let base64 = "A".repeat(400_000);
    for body in [
        format!(r#"{{"input":[{{"image_url":"data:image/png;base64,{base64}"}}]}}"#),
        format!(r#"{{"messages":[{{"image_url":{{"url":"data:image/png;base64,{base64}"}}}}]}}"#),
        r#"{"messages":[{"image_url":{"url":"https://example.com/a.png"}}]}"#.to_owned(),
        r#"{"messages":[{"input_audio":{"data":"UklGRg=="}}]}"#.to_owned(),
        r#"{"contents":[{"inlineData":{"data":"UklGRg=="}}]}"#.to_owned(),
        r#"{"contents":[{"fileData":{"fileUri":"gs://a/b.pdf"}}]}"#.to_owned(),
        r#"{"messages":[{"source":{"data":"UklGRg=="}}]}"#.to_owned(),
        format!(r#"{{"messages":[{{"file":"{base64}"}}]}}"#),
    ] {
        let (input, _) = tokens(&body);
        assert!((PART_TOKENS..PART_TOKENS + 10.0).contains(&input), "{input}: {:.80}", body);
    }
    let (text, _) = tokens(r#"{"messages":[{"source":{"data":"a document in plain text"}}]}"#);
    assert!(text < 12.0, "{text}");
}

#[test]
fn a_text_without_spaces_is_text() {
    let chinese = format!(r#"{{"input":"{}"}}"#, "你好世界".repeat(10_000));
    let minified = serde_json::json!({"input": r#"{"a":[1,2],"b":"c"},"#.repeat(1_000)}).to_string();
    let path = format!(r#"{{"input":"{}"}}"#, "C:\\\\a.b,".repeat(1_000));
    for (body, least) in [(chinese, 20_000.0), (minified, 4_000.0), (path, 1_500.0)] {
        assert!(tokens(&body).0 >= least, "{}: {:.60}", tokens(&body).0, body);
    }
}

#[test]
fn the_price_is_the_larger_or_the_sum_as_the_provider_counts() {
    let estimate = Estimate::of(br#"{"input":"sixteen letters.","max_tokens":10}"#);
    assert_eq!(estimate.cost(Pricing::Larger), Cost::tokens(10.0).with_input(4.0).with_output(10.0));
    assert_eq!(estimate.cost(Pricing::Sum), Cost::tokens(14.0).with_input(4.0).with_output(10.0));
}

#[test]
fn a_body_that_is_too_deep_is_not_read_and_takes_no_stack() {
    let body = |deep: usize| {
        format!(r#"{{"model":"m","input":{}7,"four"{},"max_tokens":5}}"#, "[".repeat(deep), "]".repeat(deep))
    };
    assert_eq!(tokens(&body(DEPTH_MAX - 1)), (2.0, 5.0));
    for deep in [DEPTH_MAX, 100_000] {
        assert_eq!(Estimate::of(body(deep).as_bytes()), Estimate { model: Some(b"m"), tokens: None });
    }
    assert_eq!(Estimate::of("[".repeat(1 << 20).as_bytes()), Estimate::default());
    assert_eq!(Estimate::of("{".repeat(1 << 20).as_bytes()), Estimate::default());
    assert_eq!(Estimate::of(format!("{{{}", "]".repeat(1 << 20)).as_bytes()).tokens, Some(Tokens::default()));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(body: Vec<u8>) {
        let _ = Estimate::of(&body);
        let quoted = [&b"{\"input\":\""[..], &body, b"\"}"].concat();
        if let Some(Tokens { input, output }) = Estimate::of(&quoted).tokens {
            prop_assert!(input.is_finite() && input >= 0.0 && output.is_finite() && output >= 0.0);
        }
    }

    #[test]
    fn what_looks_like_json_is_read_without_panic(body in r#"\{([\[\]{}",:\\ux0-9e. -]|"model"|"input"|"n"|\\ud83d|\\ude00|true|é|你|😀){0,60}"#) {
        let _ = Estimate::of(body.as_bytes());
    }

    #[test]
    fn the_model_agrees_with_a_json_parser(model in "[a-zA-Z0-9:._/-]{0,40}", content: String, n: i64) {
        let body = serde_json::json!({"content": content, "n": [n, {"model": 1}], "model": model}).to_string();
        prop_assert_eq!(Estimate::of(body.as_bytes()).model, Some(model.as_bytes()));
    }

    #[test]
    fn any_text_counts_the_same_escaped_and_as_utf_8(text: String) {
        let plain = serde_json::json!({"input": [text]}).to_string();
        let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let escaped = format!(r#"{{"input":["{escaped}"]}}"#);
        prop_assert_eq!(tokens(&plain), tokens(&escaped));
    }
}
