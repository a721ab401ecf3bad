//! The C entry point.
//!
//! Rust's own entry ignores SIGPIPE before `main`, which the program would inherit, and `Command` then resets it, which loses what
//! was inherited. With a `main` of our own neither happens, and blocking signals really is the first thing that we do.

#![allow(unsafe_code)]

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;

/// Defines the C `main` of a binary. `$run` gets the arguments after the program's name and gives the exit code.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        #[allow(unsafe_code, missing_docs, clippy::not_unsafe_ptr_arg_deref)]
        // SAFETY: the one definition of `main` in this binary, called once by the C runtime with argc and argv.
        #[unsafe(no_mangle)]
        pub extern "C" fn main(count: std::ffi::c_int, values: *const *const std::ffi::c_char) -> std::ffi::c_int {
            // SAFETY: the C runtime passes `count` valid strings.
            let arguments = unsafe { $crate::sys::entry::arguments(count, values) };
            // Nothing of ours waits for the C library's exit handlers.
            $crate::sys::entry::exit($run(arguments))
        }
    };
}

/// Copies the arguments after the first, which is our own name.
///
/// # Safety
///
/// `values` must point to `count` valid C strings, as the C runtime gives them to `main`.
#[must_use]
pub unsafe fn arguments(count: c_int, values: *const *const c_char) -> Vec<OsString> {
    let count = usize::try_from(count).unwrap_or(0);
    (1..count)
        .map(|index| {
            // SAFETY: `index` is below `count`, and the caller says that each is a valid C string.
            let value = unsafe { CStr::from_ptr(*values.add(index)) };
            OsString::from_vec(value.to_bytes().to_vec())
        })
        .collect()
}

/// Ends the process at once: no destructors, no exit handlers, nothing that could block.
pub fn exit(code: u8) -> ! {
    // SAFETY: _exit(2) has no preconditions and does not return.
    unsafe { libc::_exit(c_int::from(code)) }
}
