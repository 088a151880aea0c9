//! What follows a worker's end and a change of the host: rules, flows, links, addresses and forwarding go back.

use super::{Helper, lock};
use crate::ledger::Attachment;
use crate::net::rules_watch::Culprit;
use crate::words::{LinkName, Start};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a link may outlive its worker before it is removed by hand: its namespace's end does it for nothing.
pub(super) const LINK_LINGERS: Duration = Duration::from_secs(2);
/// How long forwarding stays on without workers, for the next one comes cheaper.
const FORWARDING_LINGERS: Duration = Duration::from_secs(10);
/// How long ends of workers are gathered before conntrack is gone through for all of them.
const FLOWS_TOGETHER: Duration = Duration::from_millis(300);
/// How long an address rests before another worker gets it: late packets for its last one find nobody.
const ADDRESS_RESTS: Duration = Duration::from_secs(60);

impl Helper {
    /// Takes back what one start was given. `false`: it had nothing (any more).
    pub async fn detach(self: Arc<Self>, start: Start) -> bool {
        let attachment = lock(&self.ledger).of(start).cloned();
        match attachment {
            Some(attachment) => {
                self.take_back(&attachment).await;
                true
            }
            None => self.take_back_lan(start),
        }
    }

    /// The kernel says that a link of ours is gone.
    pub async fn link_gone(self: Arc<Self>, link: LinkName) {
        let shared = lock(&self.ledger).lan_by_witness(link).map(|link| link.start);
        if let Some(start) = shared {
            self.take_back_lan(start);
            return;
        }
        let attachment = lock(&self.ledger).by_link(link).cloned();
        if let Some(attachment) = attachment {
            Arc::clone(&self).take_back(&attachment).await;
        }
        let Some(net) = &self.net else { return };
        if let Err(error) = net.ask(move |kernel| kernel.link_gone(link)).await {
            tracing::warn!(%error, "the rules still know a link that is gone");
        }
    }

    /// Notifications were lost: takes back what has no link any more.
    pub async fn look_again(self: Arc<Self>) {
        let Some(net) = &self.net else { return };
        match net.ask(crate::net::Kernel::link_names).await {
            Ok(names) => {
                let gone: Vec<LinkName> = lock(&self.ledger).links().filter(|link| !names.contains(link)).collect();
                for link in gone {
                    Arc::clone(&self).link_gone(link).await;
                }
            }
            Err(error) => tracing::error!(%error, "links could not be listed"),
        }
    }

    /// Somebody took the ruleset away: it is laid again, and who did it goes to the journal.
    pub async fn restore_rules(&self, culprit: Option<Culprit>) {
        let Some(net) = &self.net else { return };
        let began = Instant::now();
        let attachments: Vec<Attachment> = lock(&self.ledger).all().cloned().collect();
        let workers = attachments.len();
        match net.ask(move |kernel| kernel.restore(&attachments)).await {
            Ok(true) => {
                let (pid, name) = culprit.map(|culprit| (culprit.pid, culprit.name)).unwrap_or_default();
                tracing::warn!(pid, name, workers, took = ?began.elapsed(), "the ruleset was flushed, and is restored");
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the ruleset was flushed, and cannot be restored"),
        }
    }

    /// Has conntrack forget the flows of addresses that were given back, those of a moment together.
    async fn forget_flows_soon(self: &Arc<Self>, addresses: impl Iterator<Item = IpAddr>) {
        let first = {
            let mut flows = lock(&self.flows);
            let first = flows.is_empty();
            flows.extend(addresses);
            first
        };
        if !first {
            return;
        }
        tokio::time::sleep(FLOWS_TOGETHER).await;
        let addresses = std::mem::take(&mut *lock(&self.flows));
        let Some(net) = &self.net else { return };
        match net.ask(move |kernel| kernel.forget_flows(&addresses)).await {
            Ok(0) => {}
            Ok(flows) => tracing::info!(flows, "flows of ended workers forgotten"),
            Err(error) => tracing::warn!(%error, "flows of ended workers could not be forgotten"),
        }
    }

    /// The host's own network changed: it may have another way out now.
    pub async fn host_changed(&self) {
        let Some(net) = &self.net else { return };
        let arranged = net.ask(|kernel| {
            kernel.arrange_uplinks()?;
            kernel.host6()
        });
        match arranged.await {
            Ok(host6) => lock(&self.ledger).learn_host6(host6),
            Err(error) => tracing::warn!(%error, "forwarding could not be arranged"),
        }
    }

    /// Forward chains of the host that drop what workers send, each with the rule to add.
    pub async fn forward_blockers(&self) -> Vec<String> {
        let Some(net) = &self.net else { return Vec::new() };
        let found = net.ask(crate::net::Kernel::blockers).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the host's firewall could not be read");
            Vec::new()
        });
        found.into_iter().map(|blocker| format!("{}; allow it by: {}", blocker.what, blocker.remedy)).collect()
    }

    /// Rules first, then the ledger: a port is given again only after nothing speaks of it, an address later still.
    pub(super) async fn take_back(self: Arc<Self>, attachment: &Attachment) {
        let Some(net) = self.net.clone() else { return };
        let dismissed = net.ask({
            let attachment = attachment.clone();
            move |kernel| kernel.dismiss(&attachment)
        });
        if let Err(error) = dismissed.await {
            // Kept in the ledger: not given again before the next start reads the kernel back.
            tracing::error!(start = %attachment.start, %error, "rules of a worker could not be removed");
            return;
        }
        lock(&self.ledger).strike(attachment.start);
        let (helper, attachment, address) = (Arc::clone(&self), attachment.clone(), attachment.address);
        let (flows, address6) = (Arc::clone(&self), attachment.address6);
        tokio::spawn(async move {
            let both = std::iter::once(address.into()).chain(address6.map(IpAddr::from));
            flows.forget_flows_soon(both).await;
        });
        tokio::spawn(async move {
            tokio::time::sleep(LINK_LINGERS).await;
            let unlinked = net.ask(move |kernel| kernel.unlink(&attachment)).await;
            if let Err(error) = unlinked {
                tracing::warn!(%error, "a link could not be removed");
            }
            tokio::time::sleep(FORWARDING_LINGERS - LINK_LINGERS).await;
            helper.rest_where_idle().await;
            tokio::time::sleep(ADDRESS_RESTS - FORWARDING_LINGERS).await;
            // Struck and queued without a pause in between: a network that takes the mark later comes after.
            let marks = lock(&helper.ledger).rested(address);
            for mark in marks {
                if let Err(error) = net.ask(move |kernel| kernel.part(mark)).await {
                    tracing::warn!(%error, "a network's rules could not be removed");
                }
            }
        });
    }

    /// Where nobody is attached any more, forwarding goes back to what it was.
    async fn rest_where_idle(&self) {
        let Some(net) = &self.net else { return };
        if lock(&self.ledger).is_idle()
            && let Err(error) = net.ask(crate::net::Kernel::rest).await
        {
            tracing::warn!(%error, "forwarding could not be given back");
        }
    }
}
