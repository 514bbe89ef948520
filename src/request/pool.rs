//! Ready-made functions for [`RetryOn429Layer::pool`](crate::RetryOn429Layer::pool).

/// Maps a fine-tuned model `ft:BASE:org::id` to `BASE`, with which it shares limits at OpenAI. Other names are returned
/// unchanged.
///
/// ```
/// assert_eq!(tower_429::pool::openai_base("ft:gpt-4o-mini:acme::7p4lURel"), "gpt-4o-mini");
/// assert_eq!(tower_429::pool::openai_base("o3"), "o3");
/// ```
pub fn openai_base(model: &str) -> &str {
    model.strip_prefix("ft:").and_then(|rest| rest.split(':').next()).unwrap_or(model)
}
