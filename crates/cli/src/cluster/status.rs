//! `ctl cluster status`.

use super::components::API_SERVER;
use super::keeper::Keeper;
use super::layout::Layout;
use super::settings::Settings;

/// Prints every component with its process, and whether the API server answers. Fails where the cluster is down.
pub async fn status(layout: &Layout) -> anyhow::Result<()> {
    let settings = Settings::load(layout)?;
    let keeper = Keeper::of(layout, &settings)?;
    let Some(components) = keeper.states().await? else {
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
            println!("\nThe API server does not answer ({error}); see {}", keeper.log_of(API_SERVER));
        }
    }
    if let Some(down) = components.iter().find(|component| component.pid.is_none()) {
        anyhow::bail!("{} does not run; see {}", down.name, keeper.log_of(&down.name));
    }
    Ok(())
}
