//! The program `clearskies`; all of it is in the library.

// Rows and records are made on one thread and dropped on another, which costs the system's allocator a third of the
// whole processor time (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    clearskies_blocking::cli::main()
}
