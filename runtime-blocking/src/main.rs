//! The program `clearskies`; all of it is in the library.

fn main() -> std::process::ExitCode {
    clearskies_blocking::cli::main()
}
