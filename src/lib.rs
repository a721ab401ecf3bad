//! secret-init: delivers secrets to a program in a container, and runs it as a good init would.
//!
//! The modules in the order of the way, from the arguments to the running program:
//!
//! ```text
//! cli + environment -> plan -> resolve (store) -> deliver -> run
//!                                                            supervise (PID 1) beside it
//! ```
//!
//! Each looks down only, as `tests/architecture.rs` makes sure.

pub mod agent;
pub mod audit;
pub mod cli;
pub mod config;
pub mod control;
pub mod deliver;
pub mod environment;
pub mod handshake;
pub mod health;
pub mod inspect;
pub mod listen;
pub mod metrics;
pub mod plan;
pub mod policy;
pub mod reference;
pub mod report;
pub mod resolve;
pub mod rotation;
pub mod run;
pub mod secret;
pub mod store;
pub mod supervise;
pub mod sys;
pub mod template;
pub mod user;
