//! What the kernel tells by itself: links of ours that vanished with their namespace, and changes of the host's own network.

use super::links::read_link;
use super::wire::{self, WireError, received};
use crate::words::LinkName;
use netlink_bindings::rt_addr::{AddrAttrs, Ifaddrmsg};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

// enum rtnetlink_groups
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV4_NETCONF: u32 = 24;
const RTNLGRP_IPV6_NETCONF: u32 = 25;
const RTM_NEWNETCONF: u16 = 80;
/// `struct netconfmsg`, padded.
const NETCONF_BYTES: usize = 4;
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

/// What was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A link of ours is gone.
    LinkGone(LinkName),
    /// Addresses, routes or forwarding of the host changed.
    HostChanged,
    /// Too much was told at once and some of it was lost: look again.
    Lost,
}

/// The socket that the kernel tells it by.
#[derive(Debug)]
pub struct Watch {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

/// Opens the socket. What happens from now on is told; what was before is for a census.
pub fn open() -> Result<OwnedFd, WireError> {
    let groups = [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF];
    let mask = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
    wire::open(libc::NETLINK_ROUTE, mask, SocketFlags::NONBLOCK)
}

impl Watch {
    /// Hands the socket to the runtime.
    pub fn new(socket: OwnedFd) -> std::io::Result<Self> {
        Ok(Self { socket: crate::sys::register(socket, Interest::READABLE)?, buffer: vec![0; DATAGRAM_BYTES_MAX] })
    }

    /// Waits for the next events, at least one.
    pub async fn next(&mut self) -> std::io::Result<Vec<Event>> {
        loop {
            let Some(datagram) = self.datagram().await? else { return Ok(vec![Event::Lost]) };
            let events: Vec<Event> = read(datagram).collect();
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

impl Watch {
    /// The next datagram; none where some were lost.
    pub async fn datagram(&mut self) -> std::io::Result<Option<&[u8]>> {
        let buffer = &mut self.buffer;
        let told = self.socket.async_io(Interest::READABLE, |fd| {
            rustix::net::recv(fd, &mut buffer[..], RecvFlags::DONTWAIT).map(|(length, _)| length).map_err(Into::into)
        });
        match told.await {
            Ok(length) => Ok(Some(&self.buffer[..length])),
            Err(error) if is_passing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Told too much at once, or short of memory for a moment: the socket is as good as before.
fn is_passing(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::NOBUFS | Errno::NOMEM | Errno::INTR))
}

fn read(datagram: &[u8]) -> impl Iterator<Item = Event> + '_ {
    received(datagram).filter_map(|message| match message.kind {
        // A port that leaves a bridge is told as RTM_DELLINK too, in the bridge's own family.
        libc::RTM_DELLINK if message.body.first() == Some(&(libc::AF_UNSPEC as u8)) => {
            read_link(message.body)?.our_name().map(Event::LinkGone)
        }
        libc::RTM_NEWADDR => (!is_ours(message.body)).then_some(Event::HostChanged),
        // Of routes only a new way out matters; each worker's link brings some that lead to it alone.
        libc::RTM_NEWROUTE => (message.body.get(1) == Some(&0)).then_some(Event::HostChanged),
        RTM_NEWNETCONF => is_a_switch(message.body).then_some(Event::HostChanged),
        _ => None,
    })
}

/// An address of a worker's link, by its label.
fn is_ours(body: &[u8]) -> bool {
    let attributes = AddrAttrs::new(body.get(Ifaddrmsg::len()..).unwrap_or_default());
    attributes.get_label().is_ok_and(|label| LinkName::from_padded(label.to_bytes()).is_some())
}

/// One setting that changed: a new link tells all of its settings at once.
fn is_a_switch(body: &[u8]) -> bool {
    let (mut position, mut settings) = (0, 0);
    let attributes = body.get(NETCONF_BYTES..).unwrap_or_default();
    while netlink_bindings::utils::chop_header(attributes, &mut position).is_some() {
        settings += 1;
    }
    // Which link, and the setting.
    settings <= 2
}
