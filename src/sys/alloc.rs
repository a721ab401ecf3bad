//! A global allocator that wipes memory before it gives it back.
//!
//! Zeroing our own buffers alone is not enough: libraries copy (a JSON parser, a growing `Vec`), and each copy that is freed
//! would stay readable in the heap.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

use zeroize::Zeroize;

/// The system's allocator, with every block overwritten by zeros when it is freed or moved.
pub struct Zeroing;

// SAFETY: every call is passed on to `System` with the same layout; between, only bytes of a block that we own are written.
unsafe impl GlobalAlloc for Zeroing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` was allocated with `layout`, so it is valid for writes of `layout.size()` bytes until it is freed.
        unsafe {
            std::slice::from_raw_parts_mut(block, layout.size()).zeroize();
            System.dealloc(block, layout);
        }
    }

    // `realloc` is left to the default: allocate, copy, `dealloc`, which wipes the old block. The system's own might leave a copy behind.
}
