//! How long, and how often, a store is asked that may not answer.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use humantime::format_duration;
use tokio::time::{Instant, sleep, timeout_at};

use crate::report::{self, Code, Failure, Problem};
use crate::store::{self, FailureKind, Fetched, Store, Wanted};
use crate::sys::signal::{self, Signal};

/// The longest pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// No store is obeyed that asks for a longer one.
const LONGEST_WISH: Duration = Duration::from_mins(5);

/// How a store is asked.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// Again and again for what it could not give now, this long.
    For(Duration),
    /// Once: whoever asks will ask again later. Only the time for the answer is bounded.
    Once(Duration),
}

/// Asks a store, with patience for what it could not give now. Whatever else it answers stands.
pub async fn fetch(store: &dyn Store, wanted: &[Wanted], patience: Patience) -> Vec<Result<Fetched, store::Failure>> {
    let (Patience::For(time) | Patience::Once(time)) = patience;
    let deadline = Instant::now() + time;
    let mut answers: Vec<Option<Result<Fetched, store::Failure>>> = wanted.iter().map(|_| None).collect();
    let mut open: Vec<usize> = (0..wanted.len()).collect();
    for attempt in 0.. {
        let batch: Vec<Wanted> = open.iter().map(|&index| wanted[index].clone()).collect();
        let Ok(results) = timeout_at(deadline, store.fetch(&batch)).await else { break };
        for (&index, result) in open.iter().zip(results) {
            answers[index] = Some(result);
        }
        open.retain(|&index| matches!(&answers[index], Some(Err(failure)) if failure.is_temporary()));
        let failures: Vec<&store::Failure> = open.iter().filter_map(|&index| answers[index].as_ref()?.as_ref().err()).collect();
        let wish = failures.iter().filter_map(|failure| failure.retry_after()).max().unwrap_or_default();
        let pause = pause(attempt) + wish.min(LONGEST_WISH);
        if failures.is_empty() || matches!(patience, Patience::Once(_)) || Instant::now() + pause >= deadline {
            break;
        }
        if attempt == 0 {
            let problem =
                Problem::new(Code::Unavailable, format!("{}; trying again, for {} at most", failures[0].cause, format_duration(time)));
            report::warn_of(&[problem.about(wanted[0].reference.store_name())]);
        }
        sleep(pause).await;
    }
    let silent = || {
        store::Failure::new(FailureKind::Unavailable { retry_after: None }, format!("no answer within {}", format_duration(time)))
            .hint("is it overloaded, or does something on the way hold the answer back? --timeout gives it longer")
    };
    answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(silent()))).collect()
}

/// Full jitter: any time up to the bound, so that those who failed together do not come back together.
fn pause(attempt: u32) -> Duration {
    let bound = FIRST_PAUSE.saturating_mul(1 << attempt.min(16)).min(LONGEST_PAUSE);
    // A hasher has keys of its own, which the system's random numbers made: good enough to spread.
    let random = RandomState::new().hash_one(attempt) >> 32;
    bound.mul_f64(f64::from(u32::try_from(random).unwrap_or(u32::MAX)) / f64::from(u32::MAX))
}

/// Runs a future on a runtime of one thread.
///
/// # Errors
///
/// When the system has no room for it.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    outlive_broken_pipes();
    let runtime = room().and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build()).map_err(|error| {
        Problem::new(Code::System, format!("the stores cannot be asked: {}", report::os_error(&error)))
            .hint("the container may lack descriptors (ulimit -n) or memory")
    })?;
    let result = runtime.block_on(future);
    // Not waiting for a thread that still looks a name up.
    runtime.shutdown_background();
    Ok(result)
}

/// Makes sure that there are descriptors for a runtime: tokio panics when it finds none for the first.
fn room() -> std::io::Result<()> {
    let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC);
    let _held = [pipe()?, pipe()?, pipe()?];
    Ok(())
}

/// A server that ends a connection which is still written to must not end us: tokio's writes raise SIGPIPE. A handler is gone with the program, which finds the
/// signal as we found it; ignored it stays ignored.
fn outlive_broken_pipes() {
    if !signal::is_ignored(Signal::PIPE) {
        let _ = signal_hook::flag::register(Signal::PIPE.0, Arc::default());
    }
}
