//! async-openai through the layers, over real loopback HTTP. Nothing here measures a clock.

mod calls;
mod errors;
mod server;
mod side_by_side;

use async_openai::config::OpenAIConfig;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest, CreateChatCompletionRequestArgs,
};
use tower_429::LimitHandle;

fn config(url: &str) -> OpenAIConfig {
    OpenAIConfig::new().with_api_base(url).with_api_key("sk-test")
}

fn prompt() -> CreateChatCompletionRequest {
    let message = ChatCompletionRequestUserMessageArgs::default().content("hello").build().unwrap();
    CreateChatCompletionRequestArgs::default().model("gpt-4o").messages([message.into()]).build().unwrap()
}

/// A stream is read by a task of async-openai's, which drops it when it next runs.
async fn until_free(handle: &LimitHandle) {
    let free = async {
        while handle.in_use() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), free).await.expect("the permit comes back");
}
