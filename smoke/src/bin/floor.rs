//! The floor under a launch: the same kernel objects that Holdfast makes for a worker on a bridge, by raw
//! system calls from one small process, and nothing else. What Holdfast adds is what it takes beyond this.
//!
//! `floor N` (root, in a network namespace of its own): N launches of /bin/true one after another; prints the
//! minimum, median and 90th percentile in microseconds. Each launch: clone3 with new user, mount, pid, net, ipc
//! and uts namespaces; id maps; veth made with its peer in the namespace, enslaved and up; address and route
//! inside; a private root of bind mounts, pivot_root; execve; wait. The link is left to die with its namespace.

use std::ffi::{CString, c_void};
use std::io::{self, Read, Write};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Instant;

const BRIDGE: &str = "hffloor";

fn main() -> io::Result<()> {
    let count: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(200);
    let host = Netlink::open()?;
    host.ask(&link_new(BRIDGE, |m| m.nest(18, |m| m.put(1, b"bridge\0"))))?;
    let bridge = index_of(BRIDGE)?;
    host.ask(&address(bridge, [10, 99, 0, 1]))?;
    host.ask(&link_up(bridge))?;
    let mut micros = Vec::with_capacity(count);
    for number in 0..count {
        let begin = Instant::now();
        launch(&host, bridge, number)?;
        micros.push(begin.elapsed().as_micros());
    }
    micros.sort_unstable();
    println!(
        "{{\"n\":{count},\"min_us\":{},\"median_us\":{},\"p90_us\":{}}}",
        micros[0],
        micros[count / 2],
        micros[count * 9 / 10]
    );
    Ok(())
}

fn launch(host: &Netlink, bridge: u32, number: usize) -> io::Result<()> {
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET;
    let flags = (flags | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64;
    // SAFETY: clone_args is a plain struct of integers, for which zero is a value.
    let mut args: libc::clone_args = unsafe { zeroed() };
    args.flags = flags;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: clone_args is fully initialised; without CLONE_VM the child is a copy, and this program has one thread.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        drop(ours);
        let failed = child(theirs, number).err();
        eprintln!("floor: child: {failed:?}");
        std::process::exit(1);
    }
    drop(theirs);
    std::fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    std::fs::write(format!("/proc/{pid}/uid_map"), "0 0 1")?;
    std::fs::write(format!("/proc/{pid}/gid_map"), "0 0 1")?;
    let netns = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
    host.ask(&veth(&format!("hff{number}"), bridge, netns.as_raw_fd()))?;
    ours.write_all(b"g")?;
    let mut status = 0;
    // SAFETY: waits for our own child; status is a valid place.
    check(unsafe { libc::waitpid(pid as i32, &mut status, 0) } as i64)?;
    if status != 0 {
        return Err(io::Error::other(format!("child ended with wait status {status}")));
    }
    Ok(())
}

fn child(mut go: std::os::unix::net::UnixStream, number: usize) -> io::Result<()> {
    go.read_exact(&mut [0])?;
    let inside = Netlink::open()?;
    inside.ask(&link_up(1))?;
    let eth0 = index_of("eth0")?;
    let last = (number % 60_000) as u16 + 2;
    inside.ask(&address(eth0, [10, 99, (last >> 8) as u8, last as u8]))?;
    inside.ask(&link_up(eth0))?;
    inside.ask(&default_route([10, 99, 0, 1]))?;
    root()?;
    let path = c("/bin/true");
    let argv = [path.as_ptr(), std::ptr::null()];
    // SAFETY: the path and both vectors are valid and end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), argv[1..].as_ptr()) };
    Err(io::Error::last_os_error())
}

/// A tmpfs with the host's trees bound read-only, a fresh proc, and pivot_root into it.
fn root() -> io::Result<()> {
    mount(None, "/", None, libc::MS_REC | libc::MS_PRIVATE)?;
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), libc::MS_NOSUID | libc::MS_NODEV)?;
    std::env::set_current_dir("/tmp")?;
    for dir in ["usr", "etc", "var", "opt", "srv"] {
        std::fs::create_dir(dir)?;
        mount(Some(&format!("/{dir}")), dir, None, libc::MS_BIND | libc::MS_REC)?;
        let read_only = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV;
        mount(None, dir, None, read_only)?;
    }
    for link in ["bin", "lib", "lib64", "sbin"] {
        std::os::unix::fs::symlink(format!("usr/{link}"), link)?;
    }
    for dir in ["proc", "dev", "run", "tmp"] {
        std::fs::create_dir(dir)?;
    }
    mount(Some("proc"), "proc", Some("proc"), libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC)?;
    mount(Some("tmpfs"), "dev", Some("tmpfs"), libc::MS_NOSUID)?;
    let here = c(".");
    // SAFETY: both paths are valid strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, here.as_ptr(), here.as_ptr()) })?;
    // SAFETY: as above.
    check(unsafe { libc::umount2(here.as_ptr(), libc::MNT_DETACH) } as i64)?;
    std::env::set_current_dir("/")
}

fn mount(source: Option<&str>, target: &str, kind: Option<&str>, flags: u64) -> io::Result<()> {
    let (source, target, kind) = (source.map(c), c(target), kind.map(c));
    let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: each pointer is null or a valid string that outlives the call.
    check(unsafe { libc::mount(pointer(&source), target.as_ptr(), pointer(&kind), flags, std::ptr::null()) } as i64)?;
    Ok(())
}

/// One rtnetlink socket that asks for an acknowledgement each time.
struct Netlink(OwnedFd);

impl Netlink {
    fn open() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) } as i64)?;
        // SAFETY: a descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    fn ask(&self, message: &Message) -> io::Result<()> {
        let mut bytes = message.0.clone();
        let len = bytes.len() as u32;
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        // SAFETY: the buffer is valid for its length.
        check(unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast::<c_void>(), bytes.len(), 0) } as i64)?;
        let mut reply = [0_u8; 4096];
        // SAFETY: the buffer is valid for its length.
        check(unsafe { libc::recv(self.0.as_raw_fd(), reply.as_mut_ptr().cast::<c_void>(), reply.len(), 0) } as i64)?;
        match i32::from_ne_bytes([reply[16], reply[17], reply[18], reply[19]]) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(-errno)),
        }
    }
}

/// A netlink request: 16 bytes of header, a fixed part, attributes (netlink(7), rtnetlink(7)).
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |m| m.0.extend_from_slice(value));
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let begin = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        let len = (self.0.len() - begin) as u16;
        self.0[begin..begin + 2].copy_from_slice(&len.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

fn ifinfo(index: u32, up: bool) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8] = up.into();
    fixed[12] = up.into();
    fixed
}

fn link_new(name: &str, fill: impl FnOnce(&mut Message)) -> Message {
    let mut message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &ifinfo(0, true));
    message.put(libc::IFLA_IFNAME, c(name).as_bytes_with_nul());
    fill(&mut message);
    message
}

fn veth(name: &str, bridge: u32, netns: RawFd) -> Message {
    link_new(name, |m| {
        m.put(libc::IFLA_MASTER, &bridge.to_ne_bytes());
        m.nest(libc::IFLA_LINKINFO, |m| {
            m.put(1, b"veth\0");
            m.nest(2, |m| {
                m.nest(1, |m| {
                    m.0.extend_from_slice(&ifinfo(0, false));
                    m.put(libc::IFLA_IFNAME, b"eth0\0");
                    m.put(libc::IFLA_NET_NS_FD, &(netns as u32).to_ne_bytes());
                });
            });
        });
    })
}

fn link_up(index: u32) -> Message {
    Message::new(libc::RTM_NEWLINK, 0, &ifinfo(index, true))
}

fn address(index: u32, ip: [u8; 4]) -> Message {
    let mut fixed = vec![libc::AF_INET as u8, 16, 0, 0];
    fixed.extend_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE, &fixed);
    message.put(2, &ip);
    message
}

fn default_route(gateway: [u8; 4]) -> Message {
    let fixed = [libc::AF_INET as u8, 0, 0, 0, libc::RT_TABLE_MAIN, 3, 0, 1, 0, 0, 0, 0];
    let mut message = Message::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE, &fixed);
    message.put(libc::RTA_GATEWAY, &gateway);
    message
}

fn index_of(name: &str) -> io::Result<u32> {
    let name = c(name);
    // SAFETY: a valid string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
