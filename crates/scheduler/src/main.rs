use std::process::ExitCode;

fn main() -> ExitCode {
    let program = keelson_daemon::Program::new("keelson-scheduler").about("Places pods on nodes");
    keelson_daemon::run(program, keelson_scheduler::run)
}
