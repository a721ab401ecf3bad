//! What others ask the agent over a socket: a few at a time, each with an end, so that nobody who is slow, silent or many keeps it from its work.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// As many connections are served at a time.
const AT_ONCE: usize = 16;
/// How long one may take to say what it wants, and to take its answer.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may when others wait for its place, in the kernel.
const LEAST: Duration = Duration::from_millis(20);

/// A socket that connections come from.
pub trait Listener: Send + 'static {
    /// A connection.
    type Stream: Send + 'static;

    /// The next one.
    fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Stream>>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        self.poll_accept(context).map_ok(|(stream, _)| stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        self.poll_accept(context).map_ok(|(stream, _)| stream)
    }
}

/// The questions that came in. Dropped, it listens no more.
pub struct Questions<T> {
    asked: mpsc::Receiver<T>,
    accepting: AbortHandle,
}

impl<T: Send + 'static> Questions<T> {
    /// Listens. `serve` talks to one connection to its end, and puts what it asks into the queue. Only within a runtime of tokio.
    pub fn of<L, F>(listener: L, serve: impl Fn(L::Stream, mpsc::Sender<T>) -> F + Send + 'static) -> Self
    where
        L: Listener + Sync,
        F: Future<Output = ()> + Send + 'static,
    {
        let (queue, asked) = mpsc::channel(AT_ONCE);
        Self { asked, accepting: tokio::spawn(accept(listener, queue, serve)).abort_handle() }
    }

    /// The next question. Nothing is lost when it is not waited for to the end.
    pub async fn next(&mut self) -> T {
        match self.asked.recv().await {
            Some(question) => question,
            // It is never closed from the other side.
            None => pending().await,
        }
    }
}

impl<T> Drop for Questions<T> {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept<T, L, F>(listener: L, queue: mpsc::Sender<T>, serve: impl Fn(L::Stream, mpsc::Sender<T>) -> F)
where
    L: Listener + Sync,
    F: Future<Output = ()> + Send + 'static,
{
    let mut served: VecDeque<(Instant, AbortHandle)> = VecDeque::with_capacity(AT_ONCE);
    loop {
        // No descriptor is left, say: some time later there may be one.
        let Ok(stream) = poll_fn(|context| listener.poll(context)).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        served.retain(|(_, talk)| !talk.is_finished());
        // Who has been there the longest says nothing, or does not take what it asked for: what asks and listens is gone by then.
        if served.len() == AT_ONCE
            && let Some((since, oldest)) = served.pop_front()
        {
            sleep_until(since + LEAST).await;
            oldest.abort();
        }
        served.push_back((Instant::now(), tokio::spawn(serve(stream, queue.clone())).abort_handle()));
    }
}
