//! From the plan to the secrets: each distinct secret is fetched once, and every failure is told.

mod imports;
mod patience;
mod together;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::cli::Command;
use crate::environment::check_entry;
use crate::plan::{Delivery, Plan, Target, consequence};
use crate::reference::{Options, Reference, Scheme};
use crate::report::{self, Code, Failure, Problem, count, printable};
use crate::secret::{Secret, Version};
use crate::store::{self, Content, FailureKind, Fetched, Life, Renew, Store, Wanted};
use crate::template::{self, Piece};
pub use patience::{Patience, block_on as with_runtime};

/// The values of a plan's deliveries, in their order.
pub type Secrets = Vec<Value>;

/// What a delivery comes to.
#[derive(Debug)]
pub enum Value {
    /// Nothing: an optional secret that does not exist.
    Absent,
    /// The bytes for a variable or a file.
    Secret(Secret),
    /// Variables, by the names that the store gives.
    Variables(Vec<(String, Secret)>),
}

/// Fetches everything that the plan refers to and makes the values.
///
/// # Errors
///
/// The problems of all deliveries, in their order.
pub async fn all(plan: &Plan, stores: &Stores, command: Command) -> Result<(Secrets, Answers), Failure> {
    let answers = fetch(plan, stores).await;
    answers.secrets(plan, command).map(|secrets| (secrets, answers))
}

/// Tells warnings, which with `--strict` are errors.
///
/// # Errors
///
/// The warnings, when they are.
pub fn heed(plan: &Plan, warnings: &[Problem], command: Command) -> Result<(), Failure> {
    if plan.is_strict && !warnings.is_empty() {
        let summary = format!("--strict makes errors of warnings; {}", consequence(command));
        return Err(Failure { problems: warnings.to_vec(), summary });
    }
    report::warn_of(warnings);
    Ok(())
}

/// All that deliveries gave, or the problems of all of them.
///
/// # Errors
///
/// The problems, in their order.
pub fn together<T>(results: impl ExactSizeIterator<Item = Result<T, Vec<Problem>>>, command: Command) -> Result<Vec<T>, Failure> {
    let total = results.len();
    let mut given = Vec::with_capacity(total);
    let mut problems = Vec::new();
    let mut failed = 0;
    for result in results {
        match result {
            Ok(one) => given.push(one),
            Err(found) => {
                problems.extend(found);
                failed += 1;
            }
        }
    }
    if problems.is_empty() {
        return Ok(given);
    }
    let summary = format!("{failed} of {} failed; {}", count(total, "secret"), consequence(command));
    Err(Failure { problems, summary })
}

/// The stores of a plan, each opened once.
pub struct Stores {
    list: Vec<Opened>,
}

struct Opened {
    scheme: Scheme,
    name: String,
    is_remote: bool,
    store: Result<Box<dyn Store>, store::Failure>,
}

impl Stores {
    /// Opens the stores that the plan refers to. Nobody is asked yet.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let mut stores = Self { list: Vec::new() };
        for (_, reference) in plan.references() {
            if let Some(row) = store::row(reference.scheme).filter(|_| stores.find(reference).is_none()) {
                let store = (row.open)(&plan.settings, plan.settings.instance(reference));
                let (scheme, name) = (reference.scheme, reference.store_name().to_owned());
                stores.list.push(Opened { scheme, name, is_remote: row.is_remote, store });
            }
        }
        stores
    }

    fn find(&self, reference: &Reference) -> Option<&Opened> {
        self.list.iter().find(|opened| opened.scheme == reference.scheme && opened.name == reference.store_name())
    }

    /// The store of a reference, as one whose logins and secrets have an end; none when they have none.
    #[must_use]
    pub fn renewing(&self, reference: &Reference) -> Option<&dyn Renew> {
        self.find(reference)?.store.as_ref().ok()?.renewing()
    }

    /// Every store whose logins and secrets have an end, by its name.
    pub fn all_renewing(&self) -> impl Iterator<Item = (&str, &dyn Renew)> {
        self.list.iter().filter_map(|opened| Some((opened.name.as_str(), opened.store.as_ref().ok()?.renewing()?)))
    }

    /// Asks each store once for all that is wanted of it, and all stores side by side.
    pub async fn fetch(&self, wanted: Vec<Wanted>, patience: Patience) -> Vec<Answer> {
        let mut batches: Vec<Vec<Wanted>> = self.list.iter().map(|_| Vec::new()).collect();
        for wanted in wanted {
            let is_its = |opened: &Opened| opened.scheme == wanted.reference.scheme && opened.name == wanted.reference.store_name();
            if let Some(index) = self.list.iter().position(is_its) {
                batches[index].push(wanted);
            }
        }
        let asked = self.list.iter().zip(batches).filter(|(_, batch)| !batch.is_empty());
        join_all(asked.map(|(opened, batch)| opened.ask(batch, patience))).await.into_iter().flatten().collect()
    }

    /// What the stores remark of how it went.
    fn remarks(&self) -> Vec<Problem> {
        let of_one = |opened: &Opened| {
            let remarks = opened.store.as_ref().map_or_else(|_| Vec::new(), |store| store.remarks());
            let about = |remark: store::Failure| Problem {
                hint: remark.hint.clone(),
                ..Problem::new(remark.code(), remark.cause).about(&opened.name)
            };
            remarks.into_iter().map(about).collect::<Vec<_>>()
        };
        self.list.iter().flat_map(of_one).collect()
    }
}

impl Opened {
    async fn ask(&self, batch: Vec<Wanted>, patience: Patience) -> Vec<Answer> {
        let started = Instant::now();
        let results = match &self.store {
            Ok(store) if self.is_remote => patience::fetch(&**store, &batch, patience).await,
            Ok(store) => store.fetch(&batch).await,
            Err(failure) => batch.iter().map(|_| Err(failure.clone())).collect(),
        };
        let took = started.elapsed();
        batch.into_iter().zip(results).map(|(wanted, result)| Answer { reference: wanted.reference, result, took }).collect()
    }
}

/// What the stores said.
#[derive(Default)]
pub struct Answers {
    list: Vec<Answer>,
    /// What the stores remark of how it went.
    remarks: Vec<Problem>,
    /// The names of the variables that there are without those that a store names.
    taken: BTreeSet<Vec<u8>>,
}

/// What a store said about one secret.
pub struct Answer {
    /// Which secret.
    pub reference: Reference,
    /// What it said.
    pub result: Result<Fetched, store::Failure>,
    /// How long the store took for all that it was asked at once.
    pub took: Duration,
}

impl Answer {
    /// The version, if there was an answer with one.
    #[must_use]
    pub fn version(&self) -> Option<&Version> {
        match &self.result {
            Ok(Fetched::New { version, .. }) => Some(version),
            _ => None,
        }
    }

    /// How long the secret is good for, if there was an answer that tells.
    #[must_use]
    pub fn life(&self) -> Option<&Life> {
        match &self.result {
            Ok(Fetched::New { life, .. }) => Some(life),
            _ => None,
        }
    }
}

/// Asks for all that the plan refers to, each distinct secret once.
pub async fn fetch(plan: &Plan, stores: &Stores) -> Answers {
    let wanted = plan.secrets().map(|reference| Wanted { reference: reference.clone(), since: None }).collect();
    let mut list = stores.fetch(wanted, Patience::For(plan.timeout)).await;
    // A start does not wait for it: what is mixed now is another change soon, for those who watch.
    stores.read_together(&mut list, |reference| together::is_in_group(plan, reference)).await;
    Answers { remarks: stores.remarks(), ..Answers::new(plan, list) }
}

impl Answers {
    /// The answers to what was asked for a plan.
    #[must_use]
    pub fn new(plan: &Plan, list: Vec<Answer>) -> Self {
        let has_imports = plan.deliveries.iter().any(|delivery| delivery.target == Target::Variables);
        Self { list, remarks: Vec::new(), taken: if has_imports { plan.names() } else { BTreeSet::new() } }
    }

    /// The answers, each secret once.
    pub fn iter(&self) -> impl Iterator<Item = &Answer> {
        self.list.iter()
    }

    /// Makes the values of all deliveries, and tells what is worth a word.
    ///
    /// # Errors
    ///
    /// The problems of all deliveries, in their order.
    pub fn secrets(&self, plan: &Plan, command: Command) -> Result<Secrets, Failure> {
        report::warn_of(&self.leases(plan));
        let warned = heed(plan, &self.warnings(plan), command);
        let secrets = together(plan.deliveries.iter().map(|delivery| self.value(delivery)), command);
        report::both(warned, secrets).map(|((), secrets)| secrets)
    }

    /// The answer about a reference.
    #[must_use]
    pub fn about(&self, reference: &Reference) -> Option<&Answer> {
        self.list.iter().find(|answer| answer.reference.same_secret(reference))
    }

    /// The secrets that end with a lease, each once. It is nothing that a better plan would avoid.
    #[must_use]
    pub fn leases(&self, plan: &Plan) -> Vec<Problem> {
        let about = |answer: &Answer, problem: Problem| {
            let first = plan.references().find(|(_, reference)| reference.same_secret(&answer.reference));
            first.map(|(delivery, reference)| delivery.about(problem.about(reference)))
        };
        let leased = |answer: &Answer| {
            let Some(Life::Leased(lease)) = answer.life() else { return None };
            if plan.rotation.as_ref().is_some_and(|rotation| rotation.watched(&answer.reference).is_some()) {
                return None;
            }
            let lease = humantime::format_duration(lease.term.duration);
            let problem = Problem::new(Code::Configuration, format!("is valid for {lease}, and nothing renews it"));
            about(answer, problem.hint("add --watch, and it is renewed and replaced; or start the container anew before that"))
        };
        self.list.iter().filter_map(leased).collect()
    }

    /// What is worth a word although everything was fetched.
    #[must_use]
    pub fn warnings(&self, plan: &Plan) -> Vec<Problem> {
        let mut warnings = self.remarks.clone();
        for delivery in plan.deliveries.iter().filter(|delivery| delivery.target == Target::Variables) {
            let cause = format!("is set by other means, which win over {}", delivery.name);
            for key in delivery.value.references().flat_map(|reference| self.taken_keys(reference)) {
                warnings.push(Problem::new(Code::Configuration, &cause).about(printable(key.as_bytes())).hint("remove one of the two"));
            }
        }
        warnings
    }

    /// The keys of a secret that are variables already.
    fn taken_keys(&self, reference: &Reference) -> Vec<String> {
        let entries = self.content(reference).and_then(store::entries).unwrap_or_default();
        entries.into_iter().map(|(key, _)| key).filter(|key| self.taken.contains(key.as_bytes())).collect()
    }

    /// Why a delivery was left to a start, if it was.
    #[must_use]
    pub fn untried(&self, delivery: &Delivery) -> Option<&str> {
        let failures = delivery.value.references().filter_map(|reference| self.about(reference)?.result.as_ref().err());
        failures.into_iter().find(|failure| failure.kind == FailureKind::Untried).map(|failure| failure.cause.as_str())
    }

    /// Makes the value of a delivery.
    ///
    /// # Errors
    ///
    /// A problem for each reference in it that failed, or one about the value as a whole.
    pub fn value(&self, delivery: &Delivery) -> Result<Value, Vec<Problem>> {
        if delivery.target == Target::Variables {
            return self.variables(delivery);
        }
        let mut value = Secret::default();
        let mut problems = Vec::new();
        let mut is_absent = false;
        for piece in &delivery.value.pieces {
            match piece {
                Piece::Text(text) => value.push(text),
                Piece::Secret(reference, filters) => match self.part(reference, filters) {
                    Ok(Some(part)) if value.is_empty() => value = part,
                    Ok(Some(part)) => value.push(part.expose()),
                    Ok(None) => is_absent |= delivery.value.pieces.len() == 1,
                    Err(failure) => problems.push(problem(delivery, reference, failure)),
                },
            }
            if value.len() > store::LARGEST {
                let failure = too_large();
                problems.push(Problem { hint: failure.hint, ..problem_with_all(delivery, failure.cause) });
                break;
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        if is_absent {
            return Ok(Value::Absent);
        }
        if delivery.strip_newlines {
            let end = value.expose().iter().rposition(|&byte| byte != b'\n').map_or(0, |last| last + 1);
            value.resize(end);
        }
        check_variable(delivery, &value).map_err(|problem| vec![problem])?;
        Ok(Value::Secret(value))
    }

    /// The keys of the one secret that the delivery refers to.
    fn variables(&self, delivery: &Delivery) -> Result<Value, Vec<Problem>> {
        let Some(reference) = delivery.value.references().next() else { return Ok(Value::Absent) };
        match self.content(reference) {
            Ok(content) => imports::variables(delivery, reference, content, &self.taken).map(Value::Variables),
            Err(failure) if failure.kind == FailureKind::NotFound && reference.options.optional => Ok(Value::Absent),
            Err(failure) => Err(vec![problem(delivery, reference, failure)]),
        }
    }

    /// What the store gave for a reference.
    fn content(&self, reference: &Reference) -> Result<&Content, store::Failure> {
        match self.about(reference).map(|answer| &answer.result) {
            Some(Ok(Fetched::New { content, .. })) => Ok(content),
            Some(Err(failure)) => Err(failure.clone()),
            // Nothing can be unchanged when no version was known.
            Some(Ok(Fetched::Unchanged)) | None => Err(store::Failure::new(FailureKind::Protocol, "the store gave no answer")),
        }
    }

    /// One reference: its secret, the selected part, and what the options and filters make of it.
    fn part(&self, reference: &Reference, filters: &[template::Filter]) -> Result<Option<Secret>, store::Failure> {
        let Options { optional, default, decode_base64, trim, .. } = &reference.options;
        let selected = self.content(reference).and_then(|content| store::select(content, reference.selector.as_ref()));
        let mut secret = match selected {
            Err(failure) if failure.kind == FailureKind::NotFound && default.is_some() => {
                Secret::copy_of(default.as_deref().unwrap_or_default().as_bytes())
            }
            Err(failure) if failure.kind == FailureKind::NotFound && *optional => return Ok(None),
            result => {
                let mut secret = result?;
                if *decode_base64 {
                    secret = template::base64_decode(&secret).map_err(invalid)?;
                }
                if *trim { template::trim(&secret) } else { secret }
            }
        };
        for filter in filters {
            secret = filter.apply(&secret).map_err(invalid)?;
            if secret.len() > store::LARGEST {
                return Err(too_large());
            }
        }
        Ok(Some(secret))
    }
}

/// What is made of secrets is bounded as they are: a short text can ask for a thousand times a large one.
fn too_large() -> store::Failure {
    let hint = "take the part that is needed, with #KEY, or deliver the secrets one by one";
    invalid("the value that is made of it is larger than 1 MiB").hint(hint)
}

fn invalid(cause: &str) -> store::Failure {
    store::Failure::new(FailureKind::Invalid, cause)
}

fn problem(delivery: &Delivery, reference: &Reference, failure: store::Failure) -> Problem {
    let code = failure.code();
    let mut problem = delivery.about(Problem::new(code, failure.cause).about(reference));
    problem.hint = failure.hint;
    if failure.kind == FailureKind::NotFound && problem.hint.is_none() {
        problem.hint = Some(match (delivery.strip_newlines, &delivery.place) {
            (true, None) => format!("mount the secret there, or leave the variable alone with --skip {}", delivery.name),
            (true, Some(_)) => "mount the secret there, or write NAME: \"${file:/PATH?optional=true}\" if it may be missing".to_owned(),
            (false, _) if delivery.target == Target::Variables => "add ?optional=true to the path if it may be missing".to_owned(),
            (false, _) => "add ?optional=true or ?default=… if it may be missing".to_owned(),
        });
    }
    problem
}

/// Whether the value can be where it goes.
fn check_variable(delivery: &Delivery, value: &Secret) -> Result<(), Problem> {
    let Target::Variable(name) = &delivery.target else { return Ok(()) };
    let Err(cause) = check_entry(name, value.expose()) else { return Ok(()) };
    let hint = match (delivery.strip_newlines, &delivery.place) {
        (true, None) => format!("let the program read the file itself: --skip {}", delivery.name),
        (true, Some(_)) => "deliver it as a file, by files:".to_owned(),
        (false, _) => format!("deliver it as a file: {}_FILE=REFERENCE", delivery.name),
    };
    Err(problem_with_all(delivery, cause).hint(hint))
}

/// A problem that the value has as a whole; the first reference in it stands for all.
fn problem_with_all(delivery: &Delivery, cause: String) -> Problem {
    let mut problem = Problem::new(Code::Data, cause);
    if let Some(reference) = delivery.value.references().next() {
        problem = problem.about(reference);
    }
    delivery.about(problem)
}

/// Runs a future to its end: those of local stores are ready at once, and need no runtime.
///
/// # Errors
///
/// When the system has no room for a runtime.
pub fn block_on<T>(plan: &Plan, future: impl Future<Output = T>) -> Result<T, Failure> {
    if plan.is_remote() { patience::block_on(future) } else { ready(future) }
}

/// The result of a future that waits for nothing.
///
/// # Errors
///
/// When it would have to wait after all, which is a bug.
pub fn ready<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err(Problem::new(Code::Internal, "a local store did not answer at once").into()),
    }
}
