//! `holdfast network`.

use crate::args::network::{CreateArgs, InspectArgs, LsArgs, NetworkArgs, NetworkCommand, RmArgs};
use crate::caller::Caller;
use crate::client::{self, ANSWER_MAX, Daemon, present};
use crate::out;
use crate::view::network as view;
use holdfast_proto::daemon::{
    CreateNetworkRequest, InspectNetworkRequest, ListNetworksRequest, Network, RemoveNetworkRequest,
};
use std::process::ExitCode;

/// Does what was typed.
///
/// # Errors
/// Where no daemon answers, there is no such network, or it is refused.
pub fn run(args: &NetworkArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    client::with_daemon(caller, async |daemon| match &args.command {
        NetworkCommand::Create(args) => create(args, daemon).await,
        NetworkCommand::Ls(args) => list(args, &daemon).await,
        NetworkCommand::Inspect(args) => inspect(args, &daemon).await,
        NetworkCommand::Rm(args) => remove(args, daemon).await,
    })
}

async fn create(args: &CreateArgs, daemon: Daemon) -> anyhow::Result<ExitCode> {
    let subnet = args.subnet.clone().unwrap_or_default();
    let request = CreateNetworkRequest { name: args.name.clone(), subnet, internal: args.internal };
    let made = daemon.change(ANSWER_MAX, request, |mut rpc, request| async move { rpc.create_network(request).await });
    let network = present(made.await?.network)?;
    if args.json {
        out::json(&view::json(&network))?;
    } else {
        out::line(&network.name)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: &LsArgs, daemon: &Daemon) -> anyhow::Result<ExitCode> {
    let networks = daemon.ask(async |mut rpc| rpc.list_networks(ListNetworksRequest {}).await).await?.networks;
    if args.json {
        out::json(&networks.iter().map(view::json).collect::<Vec<_>>())?;
    } else if args.quiet {
        out::text(&networks.iter().map(|network| view::name(network) + "\n").collect::<String>())?;
    } else {
        out::table(view::HEADS, networks.iter().map(view::row).collect())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn inspect(args: &InspectArgs, daemon: &Daemon) -> anyhow::Result<ExitCode> {
    let request = InspectNetworkRequest { name: args.name.clone() };
    let reply = daemon.ask(async |mut rpc| rpc.inspect_network(request.clone()).await).await?;
    let network: Network = present(reply.network)?;
    if args.json {
        out::json(&view::json(&network))?;
    } else {
        out::text(&view::lines(&network))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove(args: &RmArgs, daemon: Daemon) -> anyhow::Result<ExitCode> {
    let mut removed = Vec::new();
    let mut first_error = None;
    for name in &args.names {
        let request = RemoveNetworkRequest { name: name.clone() };
        let gone =
            daemon.change(ANSWER_MAX, request, |mut rpc, request| async move { rpc.remove_network(request).await });
        match gone.await {
            Ok(_) => removed.push(name),
            Err(error) if first_error.is_none() => first_error = Some(error),
            Err(error) => crate::exit::say(&error.into()),
        }
    }
    if args.json {
        out::json(&removed)?;
    } else {
        removed.into_iter().try_for_each(|name| out::line(name))?;
    }
    first_error.map_or(Ok(ExitCode::SUCCESS), |error| Err(error.into()))
}
