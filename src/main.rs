//! The command `secret-init`: one match over what it can do, and the straight line that all of it walks.

#![no_main]

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::time::Instant;

use secret_init::agent::{Agent, Beginning, Master};
use secret_init::audit::Audit;
use secret_init::cli::{self, Arguments, Command};
use secret_init::config::{self, Config};
use secret_init::deliver::{self, Delivered, Place};
use secret_init::environment::Environment;
use secret_init::handshake::Stay;
use secret_init::plan::{Plan, consequence};
use secret_init::report::{self, Code, Failure, Level, Problem, Style};
use secret_init::resolve::{Answers, Secrets, Stores};
use secret_init::run::{self, Inherited, Program};
use secret_init::supervise::{self, Children, Start};
use secret_init::sys::{alloc::Zeroing, entry, environ};
use secret_init::user::Account;
use secret_init::{agent, control, inspect, policy, resolve};

#[global_allocator]
static ALLOCATOR: Zeroing = Zeroing;

secret_init::entry!(main_with);

fn main_with(arguments: Vec<OsString>) -> u8 {
    let inherited = Inherited::take();
    report::prepare();
    match cli::parse(arguments, &environ::entries(cli::PREFIX)) {
        Ok(arguments) => run(&arguments, &inherited).unwrap_or_else(|failure| failure.print(arguments.command.is_aside())),
        Err(misuse) => {
            report::configure(Level::default(), misuse.log_format);
            misuse.failure.print(false)
        }
    }
}

fn run(arguments: &Arguments, inherited: &Inherited) -> Result<u8, Failure> {
    report::configure(arguments.options.log_level, arguments.options.log_format);
    // A supervisor waits for signals itself, that of a sidecar too.
    if !arguments.command.runs_a_program() && !arguments.command.stays() {
        inherited.end_on_signals();
    }
    match arguments.command {
        Command::Supervise | Command::Sidecar => supervise::run(&arguments.options, inherited.ending, &Container { arguments, inherited }),
        Command::Exec => exec(arguments, inherited).map(|never| match never {}),
        Command::Write => prepare(&warned_of(plan(arguments, &environ::entries(b""))?), arguments).map(|_| 0),
        Command::Plan => report::answer(&inspect::plan(&warned_of(plan(arguments, &environ::entries(b""))?))),
        Command::Check => check(arguments),
        Command::Policy(platform) => report::answer(&policy::of(&warned_of(plan(arguments, &environ::entries(b""))?), platform)?),
        Command::Health => control::ask(control::Kind::Health, &arguments.options),
        Command::Refresh => control::ask(control::Kind::Refresh, &arguments.options),
        Command::ManPage => report::answer(&cli::man_page()),
        Command::Completion(shell) => report::answer(&cli::completion(shell)),
        Command::Schema => report::answer(&config::schema()),
        Command::Help => report::answer(&cli::help(Style::of_stdout())),
        Command::Version => report::answer(concat!("secret-init ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

/// A container with a supervisor: what its children do.
struct Container<'a> {
    arguments: &'a Arguments,
    inherited: &'a Inherited,
}

impl Children for Container<'_> {
    /// Becomes the program. When stores have to be asked over a network, or something is watched, it is the agent instead, which delivers to another that does.
    fn start(&self, start: &Start) -> Result<Infallible, Failure> {
        let entries = environ::entries(b"");
        let plan = warned_of(plan(self.arguments, &entries)?);
        let is_sidecar = self.arguments.command == Command::Sidecar;
        let stays = plan.rotation.as_ref();
        if !plan.is_remote() && stays.is_none() {
            let Prepared { delivered, place, account, .. } = prepare(&plan, self.arguments)?;
            start.keep(place.lock());
            return self.become_program(start, delivered, account);
        }
        start.close_what_is_not_ours(None);
        agent::end_with_the_supervisor();
        if !is_sidecar {
            agent::prefer_to_be_killed();
        }
        let prepared = prepare(&plan, self.arguments)?;
        start.keep(prepared.place.lock());
        let Some(rotation) = stays else {
            start.hand_over(&agent::seal(&prepared.delivered)?, Stay::No);
            entry::exit(0)
        };
        let Prepared { account, place, stores, secrets, answers, delivered, audit } = prepared;
        let memory = agent::Memory::of_start(&entries, &self.arguments.options, &plan, &stores, &answers, &secrets);
        drop(entries);
        if is_sidecar {
            start.commit();
            start.leave();
        } else {
            // Should this agent die before it could say more, there will be another all the same.
            start.link().remember(&memory.write()?);
            start.hand_over(&agent::seal(&delivered)?, if rotation.restarts() { Stay::Restarting } else { Stay::Signalling });
        }
        drop(delivered);
        let agent = Agent { plan: &plan, rotation, arguments: self.arguments, account, place, stores, audit };
        self.stay(&agent, start, Beginning::Start(answers, secrets, memory))
    }

    fn go_on(&self, start: &Start, delivered: OwnedFd) -> Result<Infallible, Failure> {
        self.become_program(start, agent::unseal(&delivered)?, Account::wanted(self.arguments)?)
    }

    fn take_over(&self, start: &Start, memory: OwnedFd, code: u8) -> Result<Infallible, Failure> {
        report::warn_of(agent::died(code).as_slice());
        self.go_on_watching(start, memory).map_err(agent::unwatched)
    }
}

impl Container<'_> {
    fn go_on_watching(&self, start: &Start, memory: OwnedFd) -> Result<Infallible, Failure> {
        start.close_what_is_not_ours(Some(&memory));
        agent::end_with_the_supervisor();
        let memory = agent::Memory::read(memory)?;
        // Relative paths of the arguments start where the container did.
        let _ = memory.directory.as_ref().map(std::env::set_current_dir);
        if let Some(path) = memory.changed_input(&self.arguments.options) {
            return Err(agent::changed(&path).into());
        }
        let plan = plan(self.arguments, &memory.environment())?;
        let Some(rotation) = &plan.rotation else { return Err(Problem::new(Code::Configuration, "nothing is watched any more").into()) };
        let account = Account::wanted(self.arguments)?;
        let mut place = Place::open(&plan, self.arguments, account.as_ref())?;
        place.reserve(&plan)?;
        let stores = Stores::of(&plan);
        let audit = Audit::open(self.arguments.options.audit.as_deref())?;
        let agent = Agent { plan: &plan, rotation, arguments: self.arguments, account, place, stores, audit };
        self.stay(&agent, start, Beginning::Memory(memory))
    }

    fn become_program(&self, start: &Start, mut delivered: Delivered, account: Option<Account>) -> Result<Infallible, Failure> {
        run::pass_on_listen_pid(&mut delivered.environment);
        start.commit();
        Program::new(&self.arguments.program, delivered, account).run(self.inherited)
    }

    /// Stays as the agent, or as a sidecar, which nobody tells what to do but signals.
    fn stay(&self, agent: &Agent, start: &Start, beginning: Beginning) -> Result<Infallible, Failure> {
        let master = match self.arguments.command {
            Command::Sidecar => Master::of_signals()?,
            _ => Master::Supervisor(start.link()),
        };
        resolve::with_runtime(agent.stay(master, beginning))?
    }
}

/// Becomes the program, and nothing of us stays.
fn exec(arguments: &Arguments, inherited: &Inherited) -> Result<Infallible, Failure> {
    inherited.end_on_signals();
    let Prepared { delivered, account, .. } = prepare(&warned_of(plan(arguments, &environ::entries(b""))?), arguments)?;
    Program::new(&arguments.program, delivered, account).run(inherited)
}

/// What a program needs, in its place, and what an agent goes on with.
struct Prepared {
    delivered: Delivered,
    account: Option<Account>,
    place: Place,
    stores: Stores,
    answers: Answers,
    secrets: Secrets,
    audit: Audit,
}

/// From the plan to secrets that lie where the program looks for them.
fn prepare(plan: &Plan, arguments: &Arguments) -> Result<Prepared, Failure> {
    let started = Instant::now();
    let audit = audit_of(arguments)?;
    let account = Account::wanted(arguments);
    let place = Place::open(plan, arguments, account.as_ref().ok().and_then(Option::as_ref));
    let stores = Stores::of(plan);
    let answers = resolve::block_on(plan, resolve::fetch(plan, &stores))?;
    answers.iter().for_each(|answer| audit.fetched(plan, answer));
    let secrets = answers.secrets(plan, arguments.command);
    let ((account, mut place), secrets) = report::both(report::both(account, place), secrets)?;
    if plan.rotation.is_some() && arguments.command.stays() {
        place.reserve(plan).map_err(|problem| failed(arguments, problem))?;
    }
    let delivered = deliver::all(plan, &secrets, &mut place, arguments, account.as_ref())?;
    report::inform(|| inspect::summary(plan, &secrets, delivered.directory.as_deref(), started.elapsed()));
    Ok(Prepared { delivered, account, place, stores, answers, secrets, audit })
}

/// Tries all that a start would, and makes and changes nothing.
fn check(arguments: &Arguments) -> Result<u8, Failure> {
    let plan = warned_of(plan(arguments, &environ::entries(b""))?);
    let account = Account::wanted(arguments);
    let place = Place::check(&plan, arguments, account.as_ref().ok().and_then(Option::as_ref));
    let secrets = audit_of(arguments).and_then(|audit| inspect::check(&plan, &audit));
    report::both(report::both(account, place), secrets).map(|(_, code)| code)
}

/// The record of accesses. Nothing is fetched without it, once somebody wants one.
fn audit_of(arguments: &Arguments) -> Result<Audit, Failure> {
    Audit::open(arguments.options.audit.as_deref()).map_err(|problem| failed(arguments, problem))
}

fn failed(arguments: &Arguments, problem: Problem) -> Failure {
    Failure { problems: vec![problem], summary: consequence(arguments.command).to_owned() }
}

/// What would be done. It reads no secret, but for the values in environment files.
fn plan(arguments: &Arguments, entries: &[Vec<u8>]) -> Result<Plan, Failure> {
    let options = &arguments.options;
    Plan::new(arguments, &Environment::load(entries, &options.env_files), &Config::load(options.config.as_deref()))
}

fn warned_of(plan: Plan) -> Plan {
    report::warn_of(&plan.warnings);
    plan
}
