//! Which host ports a launch gets: those it named, and free ones where it named none. Pure.

use super::{AskedPort, LaunchRequest, Refusal};
use crate::ledger::Ledger;
use crate::rules::Owner;
use crate::words::{Port, Start, Uid};
use std::net::{IpAddr, Ipv4Addr};

/// Named ports first, so that none of them is chosen for another. Also says which were chosen.
pub fn choose_ports(
    request: &LaunchRequest,
    owner: &Owner,
    ledger: &Ledger,
) -> Result<(Vec<Port>, Vec<usize>), Refusal> {
    let mut ports: Vec<Option<Port>> = Vec::new();
    for asked in &request.ports {
        allow_bind(asked.address, owner)?;
        let Some(host) = asked.host else {
            ports.push(None);
            continue;
        };
        let port = Port { proto: asked.proto, address: asked.address, host, worker: asked.worker };
        if !owner.grants(host) {
            return Err(Refusal::PortGrant { owner: owner.name.to_string(), asked: host, granted: owner.grant() });
        }
        if ports.iter().flatten().any(|other| other.clashes(&port)) {
            return Err(Refusal::PortTwice(port));
        }
        if let Some(holder) = ledger.holder(&port) {
            let holder = held_by(holder.start, owner.uid);
            return Err(Refusal::PortTaken { host, proto: asked.proto, holder });
        }
        ports.push(Some(port));
    }
    let mut chosen = Vec::new();
    for (index, asked) in request.ports.iter().enumerate() {
        if ports[index].is_none() {
            ports[index] = Some(choose_port(request, asked, &ports, (owner, ledger))?);
            chosen.push(index);
        }
    }
    Ok((ports.into_iter().flatten().collect(), chosen))
}

fn choose_port(
    request: &LaunchRequest,
    asked: &AskedPort,
    others: &[Option<Port>],
    (owner, ledger): (&Owner, &Ledger),
) -> Result<Port, Refusal> {
    let with = |host| Port { proto: asked.proto, address: asked.address, host, worker: asked.worker };
    let free = |port: &Port| {
        !request.avoid.contains(&(port.proto, port.host))
            && !others.iter().flatten().any(|other| other.clashes(port))
            && ledger.holder(port).is_none()
    };
    // The upper half first: what people name by hand lies below.
    let halves = [32768..=u16::MAX, 1..=32767u16];
    let candidates = halves.into_iter().flatten().filter(|host| owner.grants(*host));
    candidates.map(with).find(free).ok_or_else(|| Refusal::NoPortFree {
        owner: owner.name.to_string(),
        proto: asked.proto,
        granted: owner.grant(),
    })
}

fn allow_bind(address: IpAddr, owner: &Owner) -> Result<(), Refusal> {
    if owner.bind.contains(&address) || owner.bind.contains(&Ipv4Addr::UNSPECIFIED.into()) {
        return Ok(());
    }
    Err(Refusal::Bind { owner: owner.name.to_string(), asked: address, granted: owner.bind.clone() })
}

/// Who has it, as far as the asker may know.
pub fn held_by(holder: Start, asker: Uid) -> String {
    if holder.owner == asker { format!("your worker {}", holder.worker) } else { "another owner's worker".to_owned() }
}
