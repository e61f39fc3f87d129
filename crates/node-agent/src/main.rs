use keelson_daemon::Program;
use std::process::ExitCode;

keelson_daemon::allocator!();

fn main() -> ExitCode {
    let program = Program::new("keelson-node-agent").about("Runs the pods of one node of a Keelson cluster.");
    keelson_daemon::run(program, keelson_node_agent::run)
}
