//! `ctl cluster status`.

use super::components::API_SERVER;
use super::layout::Layout;
use super::settings::Settings;
use super::supervisor::{self, Answer, Request};

/// Prints every component with its process, and whether the API server answers. Fails where the cluster is down.
pub async fn status(layout: &Layout) -> anyhow::Result<()> {
    let settings = Settings::load(layout)?;
    let answer = supervisor::ask(&layout.supervisor_socket(), &Request::Status).await?;
    let Some(Answer::Components(components)) = answer else {
        anyhow::bail!("no cluster runs below {}; `ctl cluster up` starts one", layout.root().display());
    };
    println!("{:<20} {:<8} {:<9} LAST EXIT", "COMPONENT", "PID", "RESTARTS");
    for component in &components {
        let pid = component.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let last = component.last_exit.as_deref().unwrap_or("-");
        println!("{:<20} {pid:<8} {:<9} {last}", component.name, component.restarts);
    }
    let client = keelson_client::connect(&layout.kubeconfig("admin"), "ctl").await?;
    let request = http::Request::get("/readyz").body(Vec::new())?;
    match client.request_text(request).await {
        Ok(_) => println!("\nThe API server answers at {}.", settings.identity()?.server),
        Err(error) => {
            println!(
                "\nThe API server does not answer ({error}); see {}",
                layout.log_file(API_SERVER).display()
            );
        }
    }
    if components.iter().any(|component| component.pid.is_none()) {
        anyhow::bail!("not every component runs; see {}", layout.state_dir().join("logs").display());
    }
    Ok(())
}
