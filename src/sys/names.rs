//! How the C library looks host names up.

#![allow(unsafe_code)]

/// Makes the C library read `/etc/hosts` and ask the name servers of `/etc/resolv.conf`, whatever the image's `nsswitch.conf` says: its modules would be loaded
/// into a static binary that they were not built for, and end it. Not to be called while another thread looks a name up.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            /// In every glibc since 2.1, declared in `nss.h`; it cannot fail for a database that is known.
            fn __nss_configure_lookup(database: *const std::ffi::c_char, line: *const std::ffi::c_char) -> std::ffi::c_int;
        }
        // SAFETY: both are C strings that live for ever, and no other thread looks a name up, as the caller sees to.
        unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
    }
}
