//! The worker's network where a virtual machine in it is to have the address: a tap device of the owner's beside the
//! link, and packets routed between the two.
//!
//! The namespace keeps no address of the worker's. Whoever asks the tap for any other address hears that it is here, so a
//! guest may call any of its network its gateway; what it sends goes by the link, where the host's rules are.

use crate::halt::{CAGE, Halt, Step};
use crate::netlink;
use crate::sys;
use holdfast_launcher::launch::{TUN, Wiring};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};

/// Name of the device, for a virtual machine's monitor to open.
const TAP: &str = "tap0";
/// Of this end of it: where a guest is looked for from.
const OWN: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
/// Of a machine and nobody else's.
const HOST_PREFIX: u8 = 32;

/// Makes the device, opens the way between it and the link.
pub fn set_up(wiring: &Wiring, network_knobs: &OwnedFd) -> Result<(), Halt> {
    let guest = wiring.addresses.iter().find_map(|(ip, _)| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
    let guest = guest.ok_or_else(|| Halt::new(CAGE, "address for the guest", Errno::ADDRNOTAVAIL))?;
    let device = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step(TUN)?;
    sys::make_tap(device.as_fd(), TAP, rustix::process::geteuid().as_raw()).step("make tap0")?;
    drop(device);
    for (knob, value) in
        [("ipv4/ip_forward", "1"), ("ipv4/conf/tap0/proxy_arp", "1"), ("ipv6/conf/tap0/disable_ipv6", "1")]
    {
        match rustix::fs::openat(network_knobs, knob, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) if knob.starts_with("ipv6") => {}
            opened => {
                opened.and_then(|file| rustix::io::write(file, value.as_bytes())).step(knob)?;
            }
        }
    }
    netlink::open_way(&wiring.link, TAP, (OWN, HOST_PREFIX), guest)
}
