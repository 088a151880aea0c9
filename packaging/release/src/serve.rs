//! `holdfast-release serve`: shows a source to hosts nearby, to try a release before it is published. Reads, and nothing else.

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use clap::Args;
use holdfast_release::KEYRING_NAME;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use tower_http::services::ServeDir;

/// What was typed after `holdfast-release serve`.
#[derive(Args)]
pub struct ServeArgs {
    /// The source's folder: keyring.json with its signatures, and the channels (docs/release-format.md)
    folder: PathBuf,
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

/// Serves until it is ended.
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let folder = args.folder.canonicalize().with_context(|| args.folder.display().to_string())?;
    if !folder.join(KEYRING_NAME).is_file() {
        bail!("{} has no {KEYRING_NAME}: name the folder above the channels", folder.display());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen).await;
        let listener = listener.with_context(|| format!("listening on {}", args.listen))?;
        let address = listener.local_addr()?;
        // Whoever started it waits for this line.
        writeln!(std::io::stdout(), "serving {} at http://{address}", folder.display())?;
        writeln!(std::io::stderr(), "in a host's /etc/holdfast/update.toml: sources = [\"http://{address}\"]")?;
        Ok(axum::serve(listener, site(folder)).await?)
    })
}

/// Files below the folder, whole or by range; no lists of what is there.
fn site(folder: PathBuf) -> Router {
    let files = ServeDir::new(folder).append_index_html_on_directories(false);
    Router::new().fallback_service(files).layer(middleware::from_fn(log))
}

/// One line for each answer.
async fn log(request: Request, next: Next) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    let answer = next.run(request).await;
    // A terminal that went away is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{what} {}", answer.status().as_u16());
    answer
}
