use std::process::ExitCode;

keelson_daemon::allocator!();

fn main() -> ExitCode {
    let program = keelson_daemon::Program::new("keelson-controller-manager")
        .about("Brings what runs in the cluster to what its objects ask for");
    keelson_daemon::run(program, keelson_controller_manager::run)
}
