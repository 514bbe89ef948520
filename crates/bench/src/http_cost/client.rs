//! The stacks around a hyper client, and the workers that call through them.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tower::{Service, ServiceExt};
use tower_429::RetryOn429Layer;

use super::Usage;
use crate::overhead::call;

/// Tasks that call at the same time, each one call after another.
pub const WORKERS: usize = 16;
/// Calls of one turn.
pub const CALLS: usize = 40_000;

type Hyper = Client<HttpConnector, Full<Bytes>>;
type Calling = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
/// Makes one call through its stack and reads the answer to its end.
type Caller = Arc<dyn Fn(Request<Full<Bytes>>) -> Calling + Send + Sync>;

/// One stack, and what a call through it took in each run.
pub struct Contender {
    /// What the table calls it.
    pub name: &'static str,
    caller: Caller,
    /// Processor time of a call, run by run.
    pub runs: Vec<Usage>,
}

impl std::fmt::Debug for Contender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contender").field("name", &self.name).field("runs", &self.runs).finish_non_exhaustive()
    }
}

/// All of them: the bare client first, both of our layers last.
pub fn all() -> Vec<Contender> {
    let hyper = || -> Hyper { Client::builder(TokioExecutor::new()).build_http() };
    let layer = RetryOn429Layer::new;
    vec![
        contender("hyper alone", hyper()),
        contender("tower's pair", call::tower_pair(hyper())),
        contender("retry", call::retry(&layer(), hyper())),
        contender("limit", call::limit(hyper())),
        contender("**both**", call::both(&layer(), hyper())),
    ]
}

fn contender<S, RB>(name: &'static str, service: S) -> Contender
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + Send + Sync + 'static,
    S::Error: ToString,
    S::Future: Send,
    RB: Body<Data = Bytes> + Send,
    RB::Error: ToString,
{
    let caller = move |request| -> Calling {
        let call = service.clone().oneshot(request);
        Box::pin(async move {
            let response = call.await.map_err(|error| error.to_string())?;
            let status = response.status();
            response.into_body().collect().await.map_err(|error| error.to_string())?;
            if status.is_success() { Ok(()) } else { Err(status.to_string()) }
        })
    };
    Contender { name, caller: Arc::new(caller), runs: Vec::new() }
}

impl Contender {
    /// Makes so many calls with so many credentials; notes what a call took.
    ///
    /// # Errors
    ///
    /// A call failed, or the processor time cannot be read here.
    pub async fn run(&mut self, server: SocketAddr, keys: usize, calls: usize) -> Result<(), String> {
        let unknown = "processor time can be read on Unix only";
        let before = Usage::now().ok_or(unknown)?;
        let next = Arc::new(AtomicUsize::new(0));
        let mut workers = JoinSet::<Result<(), String>>::new();
        for _ in 0..WORKERS {
            let (caller, next) = (Arc::clone(&self.caller), Arc::clone(&next));
            workers.spawn(async move {
                let body = call::body();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= calls {
                        return Ok(());
                    }
                    caller(request(server, number % keys, &body)?).await?;
                }
            });
        }
        while let Some(worker) = workers.join_next().await {
            worker.map_err(|error| error.to_string())??;
        }
        let used = Usage::now().ok_or(unknown)?.since(before);
        let each = |span: std::time::Duration| span.div_f64(calls as f64);
        self.runs.push(Usage { user: each(used.user), system: each(used.system) });
        Ok(())
    }
}

fn request(server: SocketAddr, key: usize, body: &Bytes) -> Result<Request<Full<Bytes>>, String> {
    let mut request = call::request(call::Headers::TenOwned, body);
    *request.uri_mut() = format!("http://{server}/v1/chat/completions").parse().map_err(|_| "no address")?;
    let credential = HeaderValue::try_from(format!("Bearer sk-proj-{key:032}")).map_err(|_| "no header")?;
    request.headers_mut().insert(http::header::AUTHORIZATION, credential);
    Ok(request)
}
