//! A look at everything because somebody wants it, and what came of it.

use super::State;
use crate::control;
use crate::sys::clock;

/// Somebody wants everything to be looked at now, and waits for what comes of it.
pub(super) struct Refresh {
    waiting: Vec<usize>,
    looked: Vec<(usize, control::Looked)>,
    request: Option<control::Request>,
}

impl State<'_> {
    /// Whoever waits for a secret to be looked at learns what came of it.
    pub(super) fn settle(&mut self, index: usize, looked: &control::Looked) {
        for refresh in &mut self.refreshes {
            if let Some(at) = refresh.waiting.iter().position(|waiting| *waiting == index) {
                refresh.waiting.swap_remove(at);
                refresh.looked.push((index, looked.clone()));
            }
        }
        let tracked = &self.tracked;
        self.refreshes.retain_mut(|refresh| {
            if refresh.waiting.is_empty() {
                refresh.looked.sort_by_key(|(index, _)| *index);
                let rows = refresh.looked.drain(..).map(|(index, looked)| (tracked.names(index), tracked.reference(index), looked));
                if let Some(request) = refresh.request.take() {
                    request.answer(control::Answer::of_refresh(rows));
                }
            }
            !refresh.waiting.is_empty()
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
        self.refreshes.push(Refresh { waiting, looked: Vec::new(), request });
    }
}
