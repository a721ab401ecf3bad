//! When a secret is looked at next. Nothing here reads a clock or throws dice: both are handed in.

use std::time::Duration;

use crate::store::{Failure, Lease, Life, Term};
use crate::sys::clock::Moment;

/// The longest pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause, and how long a store is obeyed that asks for one.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// The shortest pause: whatever happens, nobody is asked more often.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// What part of a lease is left, at most, when it is fetched anew; at least a tenth less.
const LEASE_MARGIN: f64 = 0.3;
/// The same for a login.
const LOGIN_MARGIN: f64 = 0.5;
/// After the moment at which a store makes another secret, it is there.
const MARGIN: Duration = Duration::from_secs(1);
/// For so long after that moment it is asked for as if it were there the next second.
const TURNING: Duration = Duration::from_secs(10);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To fetch it.
    Fetch,
    /// To ask for its time to be made longer.
    Renew,
}

/// When something is due that has to be looked at again and again: a secret, or a login.
#[derive(Clone, Debug)]
pub struct Schedule {
    period: Duration,
    next: Moment,
    step: Step,
    failures: u32,
    /// How long what we have was granted for, and when it ends.
    granted: Option<(Duration, Moment)>,
    /// What part of it is left, at most, when another takes its place.
    margin: f64,
    /// When the store itself makes another.
    rotation: Option<Moment>,
}

impl Schedule {
    /// The first look is at a random moment of the period, so that those who started together do not come back together.
    #[must_use]
    pub fn new(period: Duration, now: Moment, random: f64) -> Self {
        Self {
            period,
            next: now + period.mul_f64(random),
            step: Step::Fetch,
            failures: 0,
            granted: None,
            rotation: None,
            margin: LEASE_MARGIN,
        }
    }

    /// A login, good for so long. What cannot be renewed is repeated before what was lent by it is fetched anew, so that this is lent by the next.
    #[must_use]
    pub fn of_login(term: Term, now: Moment, random: f64) -> Self {
        let mut schedule = Self { margin: LOGIN_MARGIN, ..Self::new(term.duration, now, 0.0) };
        schedule.until_the_end(now, random, term, term.duration);
        schedule
    }

    /// When it is due.
    #[must_use]
    pub fn next(&self) -> Moment {
        self.next
    }

    /// What is due then.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// Whether it is due, or so nearly that it can go along with what is.
    #[must_use]
    pub fn is_due(&self, now: Moment) -> bool {
        let early = if self.step == Step::Fetch && self.granted.is_none() { self.period / 10 } else { Duration::ZERO };
        self.next <= now + early
    }

    /// Whether the last look failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether the time of what we have is over.
    #[must_use]
    pub fn is_expired(&self, now: Moment) -> bool {
        self.granted.is_some_and(|(_, end)| end <= now)
    }

    /// When the time of what we have is over, if it has an end.
    #[must_use]
    pub fn end(&self) -> Option<Moment> {
        self.granted.map(|(_, end)| end)
    }

    /// When the store itself makes another, if it does.
    #[must_use]
    pub fn rotation(&self) -> Option<Moment> {
        self.rotation
    }

    /// The store itself makes another at this moment, as an agent knew that died.
    pub fn rotates(&mut self, at: Moment) {
        self.rotation = Some(at);
    }

    /// It is due now.
    pub fn hurry(&mut self, now: Moment) {
        self.next = now;
        self.step = Step::Fetch;
    }

    /// What has no end was fetched, or is as it was: after a period, give or take a tenth, it is looked at again. What has an end keeps its times.
    pub fn unchanged(&mut self, now: Moment, random: f64) {
        self.failures = 0;
        if let Some((granted, end)) = self.granted {
            // A cache on the way gives the same again: it is asked again a few times before the end, and by the period after it.
            self.until_the_end(now, random, Term { duration: end.saturating_sub(now), is_renewable: false }, granted);
            let pause = if end > now { self.period.min(end.saturating_sub(now) / 3) } else { self.period };
            self.next = self.next.max(now + pause.max(SHORTEST_PAUSE));
            return;
        }
        self.next = now + self.period.mul_f64(0.9 + 0.2 * random);
        self.step = Step::Fetch;
        // It may be changed before its time too, and to read it makes none.
        if let Some(rotation) = self.rotation.filter(|rotation| *rotation > now) {
            self.next = self.next.min(rotation + MARGIN);
        }
    }

    /// It was fetched, and is good for as long as that.
    pub fn fetched(&mut self, now: Moment, random: f64, life: &Life) {
        self.failures = 0;
        self.granted = None;
        self.rotation = None;
        match life {
            Life::Lasting => self.unchanged(now, random),
            Life::Leased(Lease { term, .. }) => self.until_the_end(now, random, *term, term.duration),
            Life::Ending(duration) => {
                self.until_the_end(now, random, Term { duration: *duration, is_renewable: false }, *duration);
            }
            Life::Rotated(duration) => {
                self.rotation = Some(now + *duration);
                self.unchanged(now, random);
            }
        }
    }

    /// Its time was made longer, and this is left now.
    pub fn renewed(&mut self, now: Moment, random: f64, term: Term) {
        self.failures = 0;
        let granted = self.granted.map_or(term.duration, |(granted, _)| granted);
        // A renewal that gives less than was granted is the last: the longest time that it can have is near its end.
        let is_last = term.duration < granted.mul_f64(0.9);
        self.until_the_end(now, random, Term { is_renewable: term.is_renewable && !is_last, ..term }, granted);
    }

    /// It was granted for so long to an agent that died, and this is left now.
    pub fn resumed(&mut self, now: Moment, random: f64, term: Term, granted: Duration) {
        self.until_the_end(now, random, term, granted);
    }

    /// Renews at two thirds of what is left and a little more; what cannot be renewed is fetched anew while there still is time for a few tries, and for the program to
    /// take it: a part of what was granted, since what is left of it may be little.
    fn until_the_end(&mut self, now: Moment, random: f64, term: Term, granted: Duration) {
        let end = now + term.duration;
        self.granted = Some((granted, end));
        (self.next, self.step) = if term.is_renewable {
            (now + term.duration.mul_f64(2.0 / 3.0 + random / 15.0), Step::Renew)
        } else {
            (end.saturating_sub(granted.mul_f64(self.margin - 0.1 * random)).max(now), Step::Fetch)
        };
    }

    /// A look failed. What may pass is tried again soon, and less and less often; what will not pass by itself, after a period. A lease that cannot be renewed any more
    /// is fetched anew.
    pub fn failed(&mut self, now: Moment, random: f64, failure: &Failure) {
        // What a store is just changing is there in a moment, and the one before is good no more.
        let is_turning = self.rotation.is_some_and(|rotation| now + MARGIN >= rotation && now < rotation + TURNING);
        let first = if is_turning { SHORTEST_PAUSE } else { FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)) };
        let bound = first.min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        let mut pause = if !failure.is_temporary() && self.step == Step::Fetch {
            self.period.mul_f64(0.9 + 0.2 * random)
        } else {
            failure.retry_after().unwrap_or_default().min(LONGEST_PAUSE) + bound.mul_f64(random)
        };
        if self.step == Step::Renew && !failure.is_temporary() {
            self.step = Step::Fetch;
            pause = Duration::ZERO;
        }
        // As long as there is time, there are some tries in it. When it is over, nobody is asked the more for it.
        if let Some((_, end)) = self.granted.filter(|(_, end)| failure.is_temporary() && *end > now) {
            pause = pause.min(end.saturating_sub(now) / 3);
        }
        self.next = now + if pause.is_zero() && self.failures == 1 { pause } else { pause.max(SHORTEST_PAUSE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FailureKind;

    const MIN: Duration = Duration::from_mins(1);
    const NOW: Moment = Duration::from_hours(100);

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn leased(duration: Duration, is_renewable: bool) -> Life {
        Life::Leased(Lease { id: "x".into(), term: Term { duration, is_renewable } })
    }

    fn refused(kind: FailureKind) -> Failure {
        Failure::new(kind, "x")
    }

    #[test]
    fn the_first_look_is_at_a_random_moment_of_the_period() {
        assert_eq!(Schedule::new(5 * MIN, NOW, 0.0).next(), NOW);
        assert_eq!(Schedule::new(5 * MIN, NOW, 0.5).next(), NOW + seconds(150));
    }

    #[test]
    fn a_secret_without_an_end_is_looked_at_after_a_period_give_or_take_a_tenth() {
        let mut schedule = Schedule::new(100 * MIN, NOW, 0.0);
        for (random, expected) in [(0.0, 90), (0.5, 100), (1.0, 110)] {
            schedule.fetched(NOW, random, &Life::Lasting);
            assert_eq!((schedule.next(), schedule.step()), (NOW + expected * MIN, Step::Fetch));
        }
    }

    #[test]
    fn what_is_nearly_due_goes_along() {
        let mut schedule = Schedule::new(100 * MIN, NOW, 0.0);
        schedule.fetched(NOW, 0.5, &Life::Lasting);
        assert!(schedule.is_due(NOW + 90 * MIN));
        assert!(!schedule.is_due(NOW + 89 * MIN));
    }

    #[test]
    fn a_lease_is_renewed_at_two_thirds_and_fetched_anew_before_the_longest_time_ends() {
        let mut schedule = Schedule::new(MIN, NOW, 0.0);
        schedule.fetched(NOW, 0.0, &leased(seconds(90), true));
        assert_eq!((schedule.next(), schedule.step()), (NOW + seconds(60), Step::Renew));
        let now = schedule.next();
        schedule.renewed(now, 1.0, Term { duration: seconds(90), is_renewable: true });
        assert_eq!((schedule.next(), schedule.step()), (now + seconds(66), Step::Renew));
        let now = schedule.next();
        schedule.renewed(now, 0.0, Term { duration: seconds(30), is_renewable: true });
        assert_eq!((schedule.next(), schedule.step()), (now + seconds(3), Step::Fetch));
        assert!(schedule.next() < schedule.end().unwrap());
    }

    #[test]
    fn a_lease_that_cannot_be_renewed_is_fetched_anew_before_its_end() {
        let mut schedule = Schedule::new(MIN, NOW, 0.0);
        schedule.fetched(NOW, 1.0, &leased(seconds(100), false));
        assert_eq!((schedule.next(), schedule.step()), (NOW + seconds(80), Step::Fetch));
    }

    #[test]
    fn what_is_left_of_a_lease_may_be_less_than_is_needed_for_another() {
        let mut schedule = Schedule::new(MIN, NOW, 0.0);
        schedule.fetched(NOW, 0.0, &leased(seconds(90), true));
        schedule.renewed(NOW, 0.0, Term { duration: seconds(20), is_renewable: true });
        assert_eq!((schedule.next(), schedule.step()), (NOW, Step::Fetch));
    }

    #[test]
    fn a_login_is_repeated_before_what_was_lent_by_it_is_fetched_anew() {
        let term = Term { duration: seconds(100), is_renewable: false };
        let login = [0.0, 1.0].map(|random| Schedule::of_login(term, NOW, random).next());
        assert_eq!(login, [NOW + seconds(50), NOW + seconds(60)]);
        let mut lease = Schedule::new(MIN, NOW, 0.0);
        lease.fetched(NOW, 0.0, &leased(seconds(100), false));
        assert!(lease.next() > login[1]);
    }

    #[test]
    fn a_lease_of_no_time_at_all_does_not_spin() {
        let mut schedule = Schedule::new(MIN, NOW, 0.0);
        schedule.fetched(NOW, 0.0, &leased(Duration::ZERO, true));
        schedule.failed(NOW, 0.0, &refused(FailureKind::Denied));
        schedule.failed(NOW, 0.0, &refused(FailureKind::Unavailable { retry_after: None }));
        assert_eq!(schedule.next(), NOW + SHORTEST_PAUSE);
    }

    #[test]
    fn the_same_lease_once_more_does_not_spin() {
        let mut schedule = Schedule::new(MIN, NOW, 0.0);
        schedule.fetched(NOW, 0.0, &leased(seconds(20), false));
        let mut now = NOW;
        let mut looks = 0;
        while now < NOW + 5 * MIN {
            now = schedule.next();
            schedule.unchanged(now, 0.5);
            looks += 1;
        }
        assert!(looks < 20, "{looks}");
    }

    #[test]
    fn a_static_role_is_read_a_second_after_its_rotation_and_by_its_period_before() {
        let mut schedule = Schedule::new(5 * MIN, NOW, 0.0);
        schedule.fetched(NOW, 0.5, &Life::Rotated(seconds(30)));
        assert_eq!(schedule.next(), NOW + seconds(31));
        schedule.fetched(NOW, 0.5, &Life::Rotated(7 * MIN));
        assert_eq!(schedule.next(), NOW + 5 * MIN);
        schedule.unchanged(NOW + 5 * MIN, 0.5);
        assert_eq!(schedule.next(), NOW + 7 * MIN + seconds(1));
        schedule.unchanged(NOW + 8 * MIN, 0.5);
        assert_eq!(schedule.next(), NOW + 13 * MIN);
    }

    #[test]
    fn a_static_role_that_is_just_being_changed_is_read_again_within_seconds() {
        let mut schedule = Schedule::new(5 * MIN, NOW, 0.0);
        schedule.fetched(NOW, 0.5, &Life::Rotated(seconds(30)));
        let being_changed = refused(FailureKind::Unavailable { retry_after: Some(seconds(1)) });
        for now in [31, 33, 35].map(|after| NOW + seconds(after)) {
            schedule.failed(now, 1.0, &being_changed);
            assert_eq!(schedule.next(), now + seconds(2));
        }
        // When it takes that long, something is wrong.
        schedule.failed(NOW + seconds(40), 1.0, &being_changed);
        assert_eq!(schedule.next(), NOW + seconds(40 + 1 + 40));
    }

    #[test]
    fn what_may_pass_is_tried_again_less_and_less_often_up_to_five_minutes() {
        let mut schedule = Schedule::new(MIN, NOW, 0.0);
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                schedule.failed(NOW, 1.0, &refused(FailureKind::Unavailable { retry_after: None }));
                schedule.next().saturating_sub(NOW).as_secs()
            })
            .collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert!(schedule.is_failing());
        schedule.unchanged(NOW, 0.5);
        assert!(!schedule.is_failing());
    }

    #[test]
    fn a_store_that_asks_for_a_pause_gets_it_up_to_five_minutes() {
        let mut schedule = Schedule::new(MIN, NOW, 0.0);
        schedule.failed(NOW, 0.0, &refused(FailureKind::Unavailable { retry_after: Some(seconds(42)) }));
        assert_eq!(schedule.next(), NOW + seconds(42));
        schedule.failed(NOW, 0.0, &refused(FailureKind::Unavailable { retry_after: Some(seconds(86_400)) }));
        assert_eq!(schedule.next(), NOW + 5 * MIN);
    }

    #[test]
    fn what_will_not_pass_by_itself_is_asked_by_the_period_alone() {
        let mut schedule = Schedule::new(10 * MIN, NOW, 0.0);
        for _ in 0..3 {
            schedule.failed(NOW, 0.5, &refused(FailureKind::Denied));
            assert_eq!(schedule.next(), NOW + 10 * MIN);
        }
    }

    #[test]
    fn a_lease_that_was_revoked_is_fetched_anew_at_once() {
        let mut schedule = Schedule::new(MIN, NOW, 0.0);
        schedule.fetched(NOW, 0.0, &leased(seconds(90), true));
        let now = schedule.next();
        schedule.failed(now, 0.5, &refused(FailureKind::NotFound));
        assert_eq!((schedule.next(), schedule.step()), (now, Step::Fetch));
    }

    #[test]
    fn as_long_as_a_lease_has_time_there_are_tries_in_it() {
        let mut schedule = Schedule::new(MIN, NOW, 0.0);
        schedule.fetched(NOW, 0.0, &leased(seconds(90), true));
        let mut now = schedule.next();
        let mut tries = 0;
        while now < schedule.end().unwrap() {
            schedule.failed(now, 1.0, &refused(FailureKind::Unavailable { retry_after: None }));
            now = schedule.next();
            tries += 1;
        }
        assert!(tries >= 5, "{tries}");
        assert!(schedule.is_expired(now));
        // A store that stays away is not asked every second for what has ended.
        schedule.failed(now, 1.0, &refused(FailureKind::Unavailable { retry_after: None }));
        assert_eq!(schedule.next(), now + 5 * MIN);
    }
}
