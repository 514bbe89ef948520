//! The server, in a process of its own so that its work is not counted: six rate headers at once, and a JSON body later.

use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::overhead::call::rate_headers;

/// The argument that makes the bench its own server.
pub const ARGUMENT: &str = "--server";
/// The body comes so much later than its head, in a segment of its own.
const BODY_AFTER: Duration = Duration::from_millis(1);
const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Hello!"},"finish_reason":"stop"}],"usage":{"prompt_tokens":256,"completion_tokens":2,"total_tokens":258}}"#;

/// A server in a process of its own; it ends with this.
#[derive(Debug)]
pub struct Server {
    process: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts this program once more, as a server.
    ///
    /// # Errors
    ///
    /// The process does not start, or does not say where it listens.
    pub fn start() -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let mut process = Command::new(program).arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(address) => Ok(Self { process, address }),
            Err(_) => {
                let _ = process.kill();
                Err(io::Error::other(format!("the server said {line:?} instead of its address")))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Listens on loopback, says where on its standard output, and answers until its standard input ends: with the process
/// that started it.
///
/// # Errors
///
/// There is no loopback to listen on.
pub fn run() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?);
        io::stdout().flush()?;
        let mut nothing = Vec::new();
        tokio::select! {
            served = serve(listener) => served,
            read = async { tokio::io::stdin().read_to_end(&mut nothing).await } => read.map(drop),
        }
    });
    runtime.shutdown_background(); // the standard input may still be read
    served
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let server = hyper::server::conn::http1::Builder::new();
            let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    request.into_body().collect().await?;
    let body = StreamBody::new(futures_util::stream::once(async {
        tokio::time::sleep(BODY_AFTER).await;
        Ok(Frame::data(Bytes::from_static(ANSWER.as_bytes())))
    }));
    let mut response = Response::new(body);
    *response.headers_mut() = rate_headers();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
