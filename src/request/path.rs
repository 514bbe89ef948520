//! What a request's path says of its pool.

/// The model in a path: `/deployments/{x}/`, as Azure has it, or `/models/{x}:`, as Google has it.
pub(crate) fn model(path: &str) -> Option<&[u8]> {
    let path = path.as_bytes();
    let mut from = 0;
    loop {
        // Both words end so, and few paths contain it.
        from += path[from..].windows(2).position(|two| two == b"s/")? + 2;
        let (before, rest) = path.split_at(from);
        let model = if before.ends_with(b"/deployments/") {
            &rest[..rest.iter().position(|byte| *byte == b'/')?]
        } else if before.ends_with(b"/models/") {
            let end = rest.iter().position(|byte| matches!(byte, b':' | b'/'))?;
            if rest[end] == b'/' {
                continue;
            }
            &rest[..end]
        } else {
            continue;
        };
        return (!model.is_empty()).then_some(model);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_in_the_paths_of_azure_and_google() {
        for (path, expected) in [
            ("/openai/deployments/my-gpt4/chat/completions", Some("my-gpt4")),
            ("/v1beta/models/gemini-2.5-pro:generateContent", Some("gemini-2.5-pro")),
            ("/v1/models/gpt-4o", None),
            ("/openai/deployments//chat", None),
            ("/v1/chat/completions", None),
            ("", None),
        ] {
            assert_eq!(model(path), expected.map(str::as_bytes), "{path}");
        }
    }
}
