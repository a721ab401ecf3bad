//! A build without remote stores: nobody is to be waited for.

use std::future::Future;
use std::time::Duration;

use crate::report::Failure;
use crate::store::{self, Fetched, Store, Wanted};

/// Asks a store.
pub async fn fetch(store: &dyn Store, wanted: &[Wanted], _: Duration) -> Vec<Result<Fetched, store::Failure>> {
    store.fetch(wanted).await
}

/// As [`super::ready`].
///
/// # Errors
///
/// When it would have to wait after all, which is a bug.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    super::ready(future)
}
