//! The API server's program.

use anyhow::Context;
use keelson_api_server::config::Config;
use keelson_api_server::run;
use keelson_daemon::{Daemon, Program, Runtime};

keelson_daemon::allocator!(fast);

const PROGRAM: Program = Program::new("keelson-api-server")
    .about("Serves the Kubernetes API: the only one who speaks with the store")
    .runtime(Runtime::Multi(0));

fn main() -> std::process::ExitCode {
    // Buffers come and go by the hundred: in huge pages most of what the kernel zeroes and holds would serve nothing.
    // Where it cannot be switched off it costs time, nothing else.
    let _ = nix::sys::prctl::set_thp_disable(true);
    keelson_daemon::run(PROGRAM, async |config: Config, daemon: Daemon| {
        if let keelson_api_server::config::StoreBackend::Embedded = config.store {
            std::fs::create_dir_all(&config.data_dir)
                .with_context(|| format!("could not create {}", config.data_dir.display()))?;
        }
        let store = keelson_store::open(config.store()).await.context("could not open the store")?;
        let security = run::product_security();
        let running = run::start(config, daemon.clone(), store, security).await?;
        daemon.notify_serving(running.address);
        running.wait().await;
        Ok(())
    })
}
