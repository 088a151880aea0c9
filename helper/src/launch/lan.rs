//! Links on wires of the host's: made into a worker's namespace, and given back.

use super::{Helper, LINK_LINGERS, LaunchError, lock};
use crate::lan::LanLink;
use crate::net::INSIDE;
use crate::netns::Netns;
use crate::words::{Start, Uid};
use holdfast_launcher::launch::Wiring;
use std::sync::Arc;

impl Helper {
    /// What one owner's workers hold on wires.
    pub fn on_wires(&self, owner: Uid) -> Vec<LanLink> {
        lock(&self.ledger).lan_of_owner(owner).cloned().collect()
    }

    pub(super) async fn wire_lan(&self, link: LanLink, netns: Netns) -> Result<Wiring, LaunchError> {
        let net = self.net.as_ref().ok_or(LaunchError::NoCapability)?;
        let (start, address) = (link.start, link.address);
        let wiring = Wiring {
            link: INSIDE.to_owned(),
            addresses: vec![(address.address.into(), address.prefix)],
            gateways: link.gateway.into_iter().map(Into::into).collect(),
            no_ipv6: true,
        };
        net.ask(move |kernel| kernel.share_wire(&link, &netns.into_fd())).await?;
        lock(&self.ledger).link_lan(start);
        Ok(wiring)
    }

    /// Gives it back; the witness goes with the worker's namespace, or a little later by hand. `false`: it had nothing.
    pub(super) fn take_back_lan(self: Arc<Self>, start: Start) -> bool {
        let Some(link) = lock(&self.ledger).strike_lan(start) else { return false };
        tokio::spawn(async move {
            tokio::time::sleep(LINK_LINGERS).await;
            let Some(net) = &self.net else { return };
            if let Err(error) = net.ask(move |kernel| kernel.dismiss_witness(&link)).await {
                tracing::warn!(%error, "a witness could not be removed");
            }
        });
        true
    }
}
