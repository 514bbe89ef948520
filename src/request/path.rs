//! Finds the pool of a request in its path: a model, or a resource of OpenAI's API.

use super::host::is_in;

/// Resources of OpenAI's API that have limits of their own, not those of a model.
const RESOURCES: &[&str] = &[
    "assistants",
    "audio",
    "batches",
    "containers",
    "conversations",
    "evals",
    "files",
    "fine-tunes",
    "fine_tuning",
    "images",
    "models",
    "organization",
    "realtime",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
];
/// The path segments before a resource: OpenAI's and compatible APIs', Azure's, and Anthropic's for batches.
const BEFORE_RESOURCES: &[&str] = &["v1", "openai", "messages"];

/// Returns the model in a path, as sent.
pub(crate) fn model<'a>(host: &str, path: &'a str) -> Option<&'a str> {
    let by_host = if is_in(host, "amazonaws.com") || is_in(host, "amazonaws.com.cn") {
        behind(path, "/model/", 1)
    } else if is_in(host, "cloudflare.com") {
        rest_behind(path, "/ai/run/").or_else(|| rest_behind(path, "/workers-ai/").filter(|rest| rest.starts_with('@')))
    } else if is_in(host, "api-inference.huggingface.co") || is_in(host, "router.huggingface.co") {
        behind(path, "/models/", 2)
    } else if is_in(host, "api.replicate.com") {
        behind(path, "/models/", 2).or_else(|| behind(path, "/deployments/", 2))
    } else {
        None
    };
    // Azure's, Google's and OpenAI's older paths are matched on any host, because proxies use them, too.
    let anywhere = || behind(path, "/openai/deployments/", 1).or_else(|| behind(path, "/v1/engines/", 1));
    by_host.or_else(anywhere).or_else(|| before_colon(path, "/models/"))
}

/// Returns the resource in a path, if it has limits of its own.
pub(crate) fn resource(path: &str) -> Option<&str> {
    let after = path.split('/').skip(1);
    let mut pairs = path.split('/').zip(after);
    pairs.find(|(before, it)| BEFORE_RESOURCES.contains(before) && RESOURCES.contains(it)).map(|(_, it)| it)
}

/// Returns the part of a path after `mark`.
fn rest_behind<'a>(path: &'a str, mark: &str) -> Option<&'a str> {
    let at = memchr::memmem::find(path.as_bytes(), mark.as_bytes())?;
    Some(&path[at + mark.len()..]).filter(|rest| !rest.is_empty())
}

/// Returns at most `segments` path segments after `mark`.
fn behind<'a>(path: &'a str, mark: &str, segments: usize) -> Option<&'a str> {
    let rest = rest_behind(path, mark)?;
    let end = rest.match_indices('/').nth(segments - 1).map_or(rest.len(), |(at, _)| at);
    Some(&rest[..end]).filter(|found| !found.is_empty() && !found.starts_with('/'))
}

/// Returns the segment after `mark` up to its colon: `/models/gemini-2.5-pro:generateContent`.
fn before_colon<'a>(path: &'a str, mark: &str) -> Option<&'a str> {
    let segments = path.match_indices(mark).filter_map(|(at, _)| path[at + mark.len()..].split('/').next());
    segments.filter_map(|segment| segment.split_once(':')).map(|(model, _)| model).find(|model| !model.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_in_the_paths_of_each_provider() {
        for (host, path, expected) in [
            // Azure, and proxies that have its paths
            ("r.openai.azure.com", "/openai/deployments/my-gpt4/chat/completions", Some("my-gpt4")),
            ("localhost", "/openai/deployments/my-gpt4/chat/completions", Some("my-gpt4")),
            ("r.openai.azure.com", "/openai/deployments//chat", None),
            ("r.openai.azure.com", "/openai/v1/chat/completions", None),
            ("api.openai.com", "/v1/engines/davinci/completions", Some("davinci")),
            // Google
            (
                "generativelanguage.googleapis.com",
                "/v1beta/models/gemini-2.5-pro:generateContent",
                Some("gemini-2.5-pro"),
            ),
            (
                "us-central1-aiplatform.googleapis.com",
                "/v1/projects/p/locations/us-central1/publishers/anthropic/models/claude-opus-4@20250514:rawPredict",
                Some("claude-opus-4@20250514"),
            ),
            ("generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-pro", None),
            ("generativelanguage.googleapis.com", "/v1beta/models/:generateContent", None),
            ("generativelanguage.googleapis.com", "/v1beta/openai/chat/completions", None),
            // Bedrock
            (
                "bedrock-runtime.us-east-1.amazonaws.com",
                "/model/us.anthropic.claude-sonnet-4-20250514-v1%3A0/converse-stream",
                Some("us.anthropic.claude-sonnet-4-20250514-v1%3A0"),
            ),
            (
                "bedrock-runtime.us-east-1.amazonaws.com",
                "/model/amazon.nova-lite-v1:0/invoke",
                Some("amazon.nova-lite-v1:0"),
            ),
            (
                "bedrock-runtime.us-east-1.amazonaws.com",
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/invoke",
                Some("arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x"),
            ),
            ("bedrock-runtime.us-east-1.amazonaws.com", "/guardrail/g/version/1/apply", None),
            ("example.com", "/model/a/invoke", None),
            // Cloudflare
            (
                "api.cloudflare.com",
                "/client/v4/accounts/0a1b/ai/run/@cf/meta/llama-3.1-8b-instruct",
                Some("@cf/meta/llama-3.1-8b-instruct"),
            ),
            ("gateway.ai.cloudflare.com", "/v1/0a1b/gw/workers-ai/@cf/meta/llama", Some("@cf/meta/llama")),
            ("gateway.ai.cloudflare.com", "/v1/0a1b/gw/workers-ai/v1/chat/completions", None),
            ("api.cloudflare.com", "/client/v4/accounts/0a1b/ai/v1/chat/completions", None),
            // Hugging Face
            ("api-inference.huggingface.co", "/models/openai/whisper-large-v3", Some("openai/whisper-large-v3")),
            ("api-inference.huggingface.co", "/models/gpt2", Some("gpt2")),
            (
                "router.huggingface.co",
                "/hf-inference/models/google/gemma-2-2b-it/v1/chat/completions",
                Some("google/gemma-2-2b-it"),
            ),
            ("huggingface.co", "/api/models/google/gemma-2-2b-it", None),
            // Replicate
            (
                "api.replicate.com",
                "/v1/models/meta/meta-llama-3-70b-instruct/predictions",
                Some("meta/meta-llama-3-70b-instruct"),
            ),
            ("api.replicate.com", "/v1/deployments/acme/app/predictions", Some("acme/app")),
            ("api.replicate.com", "/v1/predictions", None),
            // No model in the path
            ("api.openai.com", "/v1/models/gpt-4o", None),
            ("api.openai.com", "/v1/chat/completions", None),
            ("api.github.com", "/repos/o/r/deployments/1/statuses", None),
            ("api.openai.com", "/", None),
            ("api.openai.com", "", None),
        ] {
            assert_eq!(model(host, path), expected, "{host}{path}");
        }
    }

    #[test]
    fn resources_of_apis_like_openais_are_pools_and_all_else_is_not() {
        for (path, expected) in [
            ("/v1/vector_stores/vs_1/files", Some("vector_stores")),
            ("/v1/batches/b1", Some("batches")),
            ("/v1/files", Some("files")),
            ("/v1/fine_tuning/jobs", Some("fine_tuning")),
            ("/v1/threads/t/messages", Some("threads")),
            ("/v1/models/gpt-4o", Some("models")),
            ("/openai/v1/vector_stores", Some("vector_stores")),
            ("/openai/files", Some("files")),
            ("/compatible-mode/v1/batches", Some("batches")),
            ("/v1/messages/batches/b1/results", Some("batches")),
            ("/v1/chat/completions", None),
            ("/v1/responses/r1", None),
            ("/v1/embeddings", None),
            ("/repos/o/r/pulls/1/files", None),
            ("/files", None),
            ("/v1", None),
            ("", None),
        ] {
            assert_eq!(resource(path), expected, "{path}");
        }
    }
}
