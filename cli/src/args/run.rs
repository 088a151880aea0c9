//! What was typed after `holdfast run`.

use super::limits::LimitArgs;
use crate::cage;
use crate::spec;
use clap::{Args, ValueEnum};
use holdfast_proto::daemon::{Publish, Rootfs, Volume};
use holdfast_proto::restart::RestartPolicy;
use std::ffi::OsString;
use std::path::PathBuf;

/// `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast run --rm -- /bin/echo hello               attached: its output here, its exit code yours
  holdfast run -d --name web -p 8080:80 -w ~/site -- python3 -m http.server 80
  holdfast run -d --name db -v ~/data:/data -e PGDATA=/data --stop-timeout 60 -- postgres
  holdfast run -d --memory 512m --cpus 1.5 --pids 200 -- ./bot
  holdfast run -d --name db --network shop -- postgres  seen as `db` by workers of network shop alone
  holdfast run --rm --net none -- make test          no network but its own loopback
  holdfast run -d --restart on-failure:5 -- ./bot    up to five times in a row, with growing pauses
  holdfast run --rm -it -w ~/src -- bash            a shell in a cage of its own
  holdfast run -d -p 127.0.0.1:5353:53/udp -- dnsd   on one address, udp
  holdfast run --rm --rootfs ~/trees/debian --user root -- id    a tree of your own in place of the host's
  holdfast run --rm --allow-userns -- bwrap --unshare-all --ro-bind / / true    a sandbox inside the worker
  holdfast run -d --label app=shop --external-id job-17 -- ./job   run twice, it is there once

A published port answers on the host's addresses and on localhost; the worker sees the client's true address.
Exit code: the worker's own, 128+N where signal N ended it; 125 Holdfast failed or refused,
126 the program cannot be executed, 127 it was not found.")]
pub struct RunArgs {
    /// Return when the program has been executed, and print the worker's id
    #[arg(short, long)]
    pub detach: bool,
    /// Pass standard input on; with -d, input comes from whoever attaches
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the program a terminal of its own, as this one is; Ctrl-P Ctrl-Q leaves it running
    #[arg(short, long)]
    pub tty: bool,
    /// Forget the worker, with its output, once it ended
    #[arg(long)]
    pub rm: bool,
    /// Name and host name: 1 to 32 of a-z, 0-9 and '-' [default: one is made]
    #[arg(long, value_name = "NAME", value_parser = spec::name)]
    pub name: Option<String>,
    /// Network: bridge (an address of its own, NAT to the outside, no other worker in reach), none (loopback alone),
    /// host (the host's own), tap (for a virtual machine in the worker), macvlan:PARENT (a link of its own on a wire of the host's), each where the rules allow it, or one of `holdfast network create`
    #[arg(long, visible_alias = "network", value_name = "NETWORK", default_value = "bridge", value_parser = spec::network)]
    pub net: String,
    /// With macvlan:PARENT: the worker's address there, ADDRESS/PREFIX, one that nobody else has
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    pub ip: Option<String>,
    /// With macvlan:PARENT: the way out of that network [default: none]
    #[arg(long, value_name = "ADDRESS", requires = "ip")]
    pub gateway: Option<std::net::Ipv4Addr>,
    /// Publish a port of the worker on the host: [ADDR:]HOST:WORKER[/tcp|udp]
    #[arg(short, long, value_name = "PORTS", value_parser = spec::publish)]
    pub publish: Vec<Publish>,
    /// Environment: KEY=VALUE, or KEY to copy it from here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub env: Vec<OsString>,
    /// File of KEY=VALUE or KEY lines; '#' starts a comment line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory; a directory of the host that no volume covers is there read-write
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// Show a host directory or file inside the worker: SRC:DST[:ro]
    #[arg(short, long, value_name = "SRC:DST[:ro]", value_parser = spec::VolumeParser)]
    pub volume: Vec<Volume>,
    /// Start again by itself: no, on-failure, on-failure:N, always, unless-stopped [default: no]
    ///
    /// After 100 ms, then 200 ms, doubled at each end in a row up to a minute; a run of 10 s or more counts as the
    /// first again. on-failure:N gives up after N such starts in a row. Exit codes 125 and 78 (EX_CONFIG) are for good.
    /// `holdfast stop` ends it, and Ctrl-C in the foreground; `holdfast kill` does not. always and unless-stopped come back when the host has
    /// booted; unless-stopped only where it was not stopped.
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<RestartPolicy>,
    /// Root file system: a directory of the host in place of the host's own tree; `:rw` lets the worker change it
    #[arg(long, value_name = "DIR[:rw]", value_parser = cage::RootfsParser)]
    pub rootfs: Option<Rootfs>,
    /// Who the worker is inside
    #[arg(long, value_name = "USER", default_value = "owner")]
    pub user: User,
    /// Let the worker make namespaces of its own, for sandboxes within it (bwrap, Chromium)
    #[arg(long)]
    pub allow_userns: bool,
    /// Signal that asks the worker to end [default: TERM]
    #[arg(long, value_name = "SIGNAL", value_parser = spec::signal)]
    pub stop_signal: Option<u32>,
    /// Grace before SIGKILL [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=86_400))]
    pub stop_timeout: Option<u32>,
    /// Most bytes of output to keep, as 500K, 100M, 2G [default: 100M]
    #[arg(long, value_name = "SIZE", value_parser = spec::size)]
    pub log_size: Option<u64>,
    /// Files that the kept output is cut into [default: 10]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub log_files: Option<u32>,
    /// Put KEY=VALUE on the worker, to find it again by `ps --filter label=KEY=VALUE`; repeatable
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = spec::label)]
    pub labels: Vec<(String, String)>,
    /// An id of your own: the same run again gets the worker that is there, another run of this id is refused
    #[arg(long, value_name = "ID")]
    pub external_id: Option<String>,
    /// What it may use at most
    #[command(flatten)]
    pub limits: LimitArgs,
    /// The program and its arguments
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// `--user`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum User {
    /// The owner, by name and numbers
    Owner,
    /// The owner's uid and gid show as 0 (there are no others: nothing can be given away with chown)
    #[value(alias = "0")]
    Root,
}
