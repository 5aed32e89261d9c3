//! The program `clearskies`; all of it is in the library but the choice of the memory allocator.

use std::process::ExitCode;

// Rows and records are made on one thread and dropped on another, which costs the system's allocator a third of the
// whole processor time (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`: after how many milliseconds memory that is not used any more is given back.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // Soon, so that a daemon that runs for months is small while it has nothing to do; but not so soon that the buffers
    // of a large transfer are given back and asked for again, which costs a fifth of its time.
    // SAFETY: no other thread runs yet, which is all that the function asks for.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 4) };
    clearskies_host::store::at_rest(give_back);
    clearskies_blocking::cli::main()
}

/// Gives freed memory back: the allocator does so only while it is asked for more, so that what work freed last stays.
fn give_back() {
    // SAFETY: both functions may be called on any thread at any time.
    unsafe {
        libmimalloc_sys::mi_collect(true);
        #[cfg(target_env = "gnu")]
        malloc_trim(0);
    }
}

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    /// glibc's, which SQLite takes its memory from.
    fn malloc_trim(keep: usize) -> i32;
}
