//! The only door to the kernel: every `unsafe` block and every raw system call of the project is below this module.
//!
//! What [`nix`] wraps safely is used from there, by any module. What it lacks is here: the full 64-bit signal mask, `fork`,
//! the environment block, the allocator.

pub mod alloc;
pub mod capability;
pub mod child;
pub mod clock;
pub mod descriptor;
pub mod entry;
pub mod environ;
pub mod lock;
pub mod names;
pub mod oom;
pub mod process;
pub mod random;
pub mod signal;
