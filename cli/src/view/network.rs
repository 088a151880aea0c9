//! Networks, as people and programs see them. Pure.

use super::cell;
use super::time::rfc3339;
use holdfast_proto::daemon::Network;
use serde::Serialize;

/// Columns of `network ls`.
pub const HEADS: [&str; 4] = ["NAME", "SUBNETS", "WAY OUT", "WORKERS"];

/// A network as `--json` shows it.
#[derive(Debug, Serialize)]
pub struct NetworkJson {
    name: String,
    built_in: bool,
    internal: bool,
    subnets: Vec<String>,
    created_at: Option<String>,
    workers: Vec<MemberJson>,
}

#[derive(Debug, Serialize)]
struct MemberJson {
    id: String,
    name: String,
    addresses: Vec<String>,
}

/// For `--json`.
pub fn json(network: &Network) -> NetworkJson {
    let member = |member: &holdfast_proto::daemon::Member| MemberJson {
        id: member.id.clone(),
        name: member.name.clone(),
        addresses: member.addresses.clone(),
    };
    NetworkJson {
        name: network.name.clone(),
        built_in: network.built_in,
        internal: network.internal,
        subnets: network.subnets.clone(),
        created_at: rfc3339(network.created_at),
        workers: network.workers.iter().map(member).collect(),
    }
}

/// Its name, harmless for a terminal.
pub fn name(network: &Network) -> String {
    cell(&network.name, 32)
}

/// A line of `network ls`.
pub fn row(network: &Network) -> [String; 4] {
    [name(network), subnets(network), way_out(network).to_owned(), network.workers.len().to_string()]
}

/// `network inspect`.
pub fn lines(network: &Network) -> String {
    let mut text = format!("name      {}\nsubnets   {}\n", name(network), subnets(network));
    text += &format!("way out   {}\n", way_out(network));
    if let Some(created) = rfc3339(network.created_at) {
        text += &format!("created   {created}\n");
    }
    for (number, member) in network.workers.iter().enumerate() {
        let head = if number == 0 { "workers" } else { "" };
        let addresses: Vec<String> = member.addresses.iter().map(|address| cell(address, 64)).collect();
        text += format!("{head:<9} {:<32} {}", cell(&member.name, 32), addresses.join(" ")).trim_end();
        text.push('\n');
    }
    text
}

fn subnets(network: &Network) -> String {
    if network.subnets.is_empty() {
        return "-".to_owned();
    }
    network.subnets.iter().map(|subnet| cell(subnet, 64)).collect::<Vec<_>>().join(" ")
}

fn way_out(network: &Network) -> &'static str {
    match network.name.as_str() {
        "none" => "none",
        "host" => "the host's own",
        _ if network.internal => "none (internal)",
        _ => "open",
    }
}
