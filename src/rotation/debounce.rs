//! Many changes, and one action: when an action is due. Nothing here reads a clock.

use std::time::Duration;

use crate::sys::clock::Moment;

/// Changes within this time become one action.
pub const WINDOW: Duration = Duration::from_secs(2);

/// When an action acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// At the first change, and once more at the end of the window when others followed.
    Leading,
    /// At the end of the window alone.
    Trailing,
}

/// The due time of one action.
#[derive(Clone, Debug)]
pub struct Debounce {
    edge: Edge,
    due: Option<Moment>,
    /// Until when what follows waits.
    window: Moment,
}

impl Debounce {
    /// An action that nothing has asked for yet.
    #[must_use]
    pub fn new(edge: Edge) -> Self {
        Self { edge, due: None, window: Moment::ZERO }
    }

    /// Something has changed. The action waits a while longer when it is to, so that replicas do not act at once.
    pub fn change(&mut self, now: Moment, splay: Duration) {
        let is_quiet = now >= self.window;
        if is_quiet && self.due.is_none() {
            self.window = now + WINDOW;
        }
        let at = if is_quiet && self.edge == Edge::Leading { now } else { self.window.max(now) };
        // One that may not wait does not wait for another.
        self.due = Some(self.due.map_or(at + splay, |due| due.min(at + splay)));
    }

    /// The action could not be done: it is due again then.
    pub fn again(&mut self, at: Moment) {
        self.due = Some(at);
    }

    /// When the action is due, if it is.
    #[must_use]
    pub fn due(&self) -> Option<Moment> {
        self.due
    }

    /// Takes the action, if it is due now.
    pub fn take(&mut self, now: Moment) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = None;
            self.window = self.window.max(now + if self.edge == Edge::Leading { WINDOW } else { Duration::ZERO });
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Duration::from_secs(1000);

    fn after(milliseconds: u64) -> Moment {
        NOW + Duration::from_millis(milliseconds)
    }

    /// When an action acts, by when changes come.
    fn acts(edge: Edge, changes: &[u64]) -> Vec<u64> {
        let mut debounce = Debounce::new(edge);
        let mut acted = Vec::new();
        for millisecond in 0..20_000 {
            if changes.contains(&millisecond) {
                debounce.change(after(millisecond), Duration::ZERO);
            }
            if debounce.take(after(millisecond)) {
                acted.push(millisecond);
            }
        }
        acted
    }

    #[test]
    fn the_first_change_acts_at_once_and_those_that_follow_become_one_action() {
        assert_eq!(acts(Edge::Leading, &[100]), [100]);
        assert_eq!(acts(Edge::Leading, &[100, 101, 500, 2099]), [100, 2100]);
        assert_eq!(acts(Edge::Leading, &[100, 5000]), [100, 5000]);
    }

    #[test]
    fn changes_without_end_act_once_in_each_window() {
        let all: Vec<u64> = (0..8_000).step_by(10).collect();
        assert_eq!(acts(Edge::Leading, &all), [0, 2000, 4000, 6000, 8000]);
    }

    #[test]
    fn at_the_end_alone_acts_once_for_all() {
        assert_eq!(acts(Edge::Trailing, &[100]), [2100]);
        assert_eq!(acts(Edge::Trailing, &[100, 101, 500, 2099]), [2100]);
        assert_eq!(acts(Edge::Trailing, &[100, 2500]), [2100, 4500]);
    }

    #[test]
    fn a_change_that_may_not_wait_does_not_wait_for_another() {
        let mut debounce = Debounce::new(Edge::Leading);
        debounce.change(NOW, Duration::from_mins(1));
        debounce.change(after(5000), Duration::from_secs(2));
        assert_eq!(debounce.due(), Some(after(7000)));
        debounce.change(after(6000), Duration::from_mins(1));
        assert_eq!(debounce.due(), Some(after(7000)));
    }

    #[test]
    fn splay_is_waited_besides() {
        let mut debounce = Debounce::new(Edge::Leading);
        debounce.change(NOW, Duration::from_secs(7));
        assert_eq!(debounce.due(), Some(NOW + Duration::from_secs(7)));
        assert!(!debounce.take(after(6999)));
        assert!(debounce.take(after(7000)));
    }
}
