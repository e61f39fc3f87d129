use std::process::ExitCode;

fn main() -> ExitCode {
    keelson_cli::cli::main()
}
