//! The environment block that the kernel put on our stack.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use zeroize::Zeroize;

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
}

/// Copies the entries whose text starts with `prefix`, as they are: an empty prefix gives all, also those without `=`, with an empty
/// name, or twice the same.
#[must_use]
pub fn entries(prefix: &[u8]) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    // SAFETY: one thread, and nothing of ours or of the C library changes the environment; `environ` ends with a null pointer.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let text = CStr::from_ptr(*entry).to_bytes();
            if text.starts_with(prefix) {
                entries.push(text.to_vec());
            }
            entry = entry.add(1);
        }
    }
    entries
}

/// Overwrites every entry in place, so that neither a scan of our memory nor `/proc/PID/environ` shows what we were given, and leaves the
/// environment empty.
pub fn wipe() {
    // SAFETY: as above; the strings lie on the initial stack, which is writable, and nothing borrows from them (`entries` copies).
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let length = CStr::from_ptr(*entry).count_bytes();
            std::slice::from_raw_parts_mut((*entry).cast::<u8>(), length).zeroize();
            *entry = std::ptr::null_mut();
            entry = entry.add(1);
        }
    }
}
