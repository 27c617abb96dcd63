use std::process::ExitCode;

fn main() -> ExitCode {
    healthcheck_operator::cli::main()
}
