//! A look at everything because somebody wants it, and what came of it.

use std::time::Duration;

use super::State;
use crate::control;
use crate::sys::clock::{self, Moment};

/// Somebody wants everything to be looked at now, and waits for what comes of it.
pub(super) struct Refresh {
    waiting: Vec<usize>,
    looked: Vec<(usize, control::Looked)>,
    /// Until when it waits for the program to be told, once all is looked at.
    until: Option<Moment>,
    request: Option<control::Request>,
}

/// So long the program may take to be told before the answer says that this is to come.
const TELLING: Duration = Duration::from_secs(5);

impl State<'_> {
    /// Whoever waits for a secret to be looked at learns what came of it.
    pub(super) fn settle(&mut self, index: usize, looked: &control::Looked) {
        for refresh in &mut self.refreshes {
            if let Some(at) = refresh.waiting.iter().position(|waiting| *waiting == index) {
                refresh.waiting.swap_remove(at);
                refresh.looked.push((index, looked.clone()));
            }
            if refresh.waiting.is_empty() {
                refresh.until.get_or_insert_with(|| clock::now() + TELLING);
            }
        }
    }

    /// When somebody is to have an answer at the latest.
    pub(super) fn next_answer(&self) -> Option<Moment> {
        self.refreshes.iter().filter_map(|refresh| refresh.until).min()
    }

    /// Answers those for whom all is looked at, and the program told, or enough time has passed for it.
    pub(super) fn answer(&mut self, now: Moment) {
        let (tracked, actions) = (&self.tracked, &self.actions);
        self.refreshes.retain_mut(|refresh| {
            let is_over = refresh.until.is_some_and(|until| until <= now || actions.is_settled());
            if is_over && let Some(request) = refresh.request.take() {
                refresh.looked.sort_by_key(|(index, _)| *index);
                let rows = refresh.looked.drain(..).map(|(index, looked)| (tracked.names(index), tracked.reference(index), looked));
                request.answer(control::Answer::of_refresh(rows, actions.undone()));
            }
            !is_over
        });
    }

    pub(super) fn asked(&mut self, request: control::Request) {
        match request.kind {
            control::Kind::Health => request.answer(control::Answer::of_health(&self.seen())),
            control::Kind::Refresh => self.refresh(Some(request)),
        }
    }

    /// Looks at everything now.
    pub(super) fn refresh(&mut self, request: Option<control::Request>) {
        let waiting = self.tracked.look_at_all(clock::now());
        self.refreshes.push(Refresh { waiting, looked: Vec::new(), until: None, request });
    }
}
