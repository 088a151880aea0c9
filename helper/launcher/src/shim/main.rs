//! `holdfast-shim`: parent of one worker and PID 1 of its pid namespace. Only the launcher starts it.
//!
//! Builds the cage by mount descriptors, waits for the launcher's word, executes the worker without any privilege,
//! keeps its output, tells watchers, leaves the exit record. Its end is the end of the worker.
//!
//! Never does: run the worker where a step of the cage failed, start a thread, depend on anything that can be
//! replaced or restarted while the worker lives.

#[path = "../packet.rs"]
mod packet;
#[path = "../sys.rs"]
mod sys;

mod confine;
mod devices;
mod freeze;
mod halt;
mod hidden;
mod life;
mod limit;
mod log;
mod meter;
mod mounts;
mod netlink;
mod own;
mod places;
mod proc;
mod root;
mod session;
mod session_flow;
mod sessions;
mod streams;
mod tap;
mod targets;
mod terminal;
mod tree;
mod volumes;
mod watchers;
mod worker;

use confine::Confinement;
use halt::{Halt, Step};
use hidden::Hidden;
use holdfast_launcher::launch::{PACKET_BYTES_MAX, ShimWord, Wiring};
use holdfast_launcher::orders::{self, Network, Orders};
use nix::sys::signal::SigSet;
use places::Places;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::rc::Rc;

/// What the launcher leaves open (birth.rs there).
const ORDERS: i32 = 3;
const PAIR: i32 = 4;
const CGROUP: i32 = 5;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == "--version") {
        println!("holdfast-shim {}", holdfast_proto::VERSION);
        return ExitCode::SUCCESS;
    }
    let (Some(memfd), Some(pair)) = (sys::inherited(ORDERS), sys::inherited(PAIR)) else {
        eprintln!("holdfast-shim: is started by holdfast-launcher alone");
        return ExitCode::from(2);
    };
    let cgroup = sys::inherited(CGROUP);
    match shim(memfd, pair.as_fd(), cgroup) {
        Ok(()) => ExitCode::SUCCESS,
        Err(halt) => {
            // Where the launcher is gone there is nobody to tell; the record, if there could be one, says it too.
            let _ = packet::send(pair.as_fd(), &ShimWord::Failed(halt.failure).encode(), &[]);
            ExitCode::from(halt::CAGE)
        }
    }
}

/// From the orders to the record. An error has come before the launcher's word to go.
fn shim(memfd: OwnedFd, pair: BorrowedFd<'_>, cgroup: Option<OwnedFd>) -> Result<(), Halt> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step("dumpable")?;
    rustix::thread::set_name(c"holdfast-shim").step("name")?;
    // PID 1 dies of no signal but SIGKILL from outside; blocked, none interrupts it either.
    SigSet::all().thread_block().step("block signals")?;
    // Whatever the launcher was started from: no terminal of its reaches in here, and files get plain modes.
    rustix::process::setsid().step("setsid")?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let orders = read_orders(&memfd)?;
    drop(memfd);
    let places = Places::open(&orders, cgroup).inspect_err(|halt| places::leave_early(&orders, halt))?;
    let cage = cage(&orders, &places).inspect_err(|halt| places.leave_not_started(&orders, halt))?;
    let enforced = limit::apply(&orders.limits, places.worker_cgroup.as_ref())
        .inspect_err(|halt| places.leave_not_started(&orders, halt))?;
    let wiring = match packet::send(pair, &ShimWord::Ready.encode(), &[]) {
        Ok(()) => await_go(pair).inspect_err(|halt| places.leave_not_started(&orders, halt))?,
        // The launch was called off while the cage was being built.
        Err(_) => None,
    };
    let Some(wiring) = wiring else {
        places.leave_nothing();
        return Ok(());
    };
    life::live(orders, places, cage, enforced, &wiring);
    Ok(())
}

/// What is left of building the cage for running the worker in it.
struct Cage {
    /// The worker's working directory, O_PATH.
    workdir: OwnedFd,
    /// `/dev/null` inside.
    null: OwnedFd,
    /// The worker's `/proc`.
    proc: OwnedFd,
    /// Settings of its network namespace, which the worker cannot change.
    network_knobs: OwnedFd,
    /// What every process in it is held by.
    confinement: Rc<Confinement>,
}

fn cage(orders: &Orders, places: &Places) -> Result<Cage, Halt> {
    let host =
        rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step("open the host's /proc")?;
    let host = mounts::read(&host)?;
    let hidden = Hidden::find(orders, &host)?;
    let volumes = volumes::open(orders, &host, &hidden)?;
    let tree = tree::Tree::open(orders, &host, &hidden)?;
    let cage = root::build(root::Parts { orders, places, volumes, hidden: &hidden, tree })?;
    match orders.network {
        Network::Own | Network::Tap => {
            rustix::system::sethostname(orders.hostname.as_bytes()).step("sethostname")?;
            netlink::loopback_up()?;
        }
        Network::Host => confine::close_abstract_sockets()?,
    }
    Ok(cage)
}

fn read_orders(memfd: &OwnedFd) -> Result<Orders, Halt> {
    let len = rustix::fs::fstat(memfd).step("orders: size")?.st_size as usize;
    if len > orders::BYTES_MAX {
        return Err(Halt::new(halt::CAGE, "orders: over 1 MiB", Errno::FBIG));
    }
    let mut bytes = vec![0; len];
    let got = rustix::io::pread(memfd, &mut bytes, 0).step("orders: read")?;
    Orders::decode(&bytes[..got]).map_err(|error| Halt::new(halt::CAGE, format!("orders: {error}"), Errno::INVAL))
}

/// Waits for the word to go; `None`: the launcher is gone, and so is the launch. The launcher keeps the deadline:
/// it ends this process when it is over.
fn await_go(pair: BorrowedFd<'_>) -> Result<Option<Wiring>, Halt> {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut buffer = [0; PACKET_BYTES_MAX];
    loop {
        match packet::receive(pair, &mut buffer) {
            // With our word that it had not read: reset (unix(7)).
            Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(None),
            Ok((len, _)) => {
                return match ShimWord::decode(&buffer[..len]) {
                    Ok(ShimWord::Go(wiring)) => Ok(Some(wiring)),
                    _ => Err(Halt::new(halt::CAGE, "launcher's word", Errno::PROTO)),
                };
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(Halt::new(halt::CAGE, "await the launcher", errno)),
        }
        poll(&mut [PollFd::new(&pair, PollFlags::IN)], None).step("await the launcher")?;
    }
}
