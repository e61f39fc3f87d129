use std::process::ExitCode;

fn main() -> ExitCode {
    let program =
        keelson_daemon::Program::new("keelson-dns").about("Answers for the names of Services and pods");
    keelson_daemon::run(program, keelson_dns::run)
}
