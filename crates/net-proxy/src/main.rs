use std::process::ExitCode;

fn main() -> ExitCode {
    let program = keelson_daemon::Program::new("keelson-net-proxy").about("Turns Services into packet rules");
    keelson_daemon::run(program, keelson_net_proxy::run)
}
