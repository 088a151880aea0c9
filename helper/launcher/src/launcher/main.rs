//! `holdfast-launcher`: makes shims for one owner, on the helper's word alone. With `--keep` it keeps their cgroup.
//!
//! Never does: hold a capability in the host, start a thread, listen, take orders from anybody but the helper,
//! signal a process by number, end a shim that has been released.

#[path = "../packet.rs"]
mod packet;
#[path = "../sys.rs"]
mod sys;

mod birth;
mod cgroups;
mod identity;
mod keep;
mod launch;
mod line;
mod serve;

use holdfast_proto::layout::Layout;
use holdfast_proto::words::OwnerName;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "use: holdfast-launcher --owner USER [--root DIR] | --keep | --version";

enum Command {
    Version,
    Keep,
    Serve { owner: OwnerName, layout: Layout },
}

fn main() -> ExitCode {
    let command = match parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(problem) => {
            eprintln!("holdfast-launcher: {problem}; {USAGE}");
            return ExitCode::from(2);
        }
    };
    match command {
        Command::Version => {
            println!("holdfast-launcher {}", holdfast_proto::VERSION);
            ExitCode::SUCCESS
        }
        Command::Keep => ended(keep::run()),
        Command::Serve { owner, layout } => ended(start(&owner, &layout)),
    }
}

fn ended<E: std::error::Error>(outcome: Result<(), E>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("holdfast-launcher: {error}");
    ExitCode::FAILURE
}

fn start(owner: &OwnerName, layout: &Layout) -> Result<(), serve::StartError> {
    identity::confine()?;
    holdfast_launcher::own_limits::remember();
    let _lock = holdfast_launcher::lock::take(&layout.workers_run(owner).join("launcher.lock"))?;
    let nursery = birth::Nursery::open(cgroups::Cgroups::find())?;
    serve::Launcher::new(layout.launch_socket(), nursery)?.run()
}

fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let (mut owner, mut layout) = (None, Layout::system());
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{} wants a value", word.display()));
        match word.to_str() {
            Some("--version") => return Ok(Command::Version),
            Some("--keep") => return Ok(Command::Keep),
            Some("--owner") => {
                let name = value()?;
                owner = Some(name.to_string_lossy().parse::<OwnerName>().map_err(|error| error.to_string())?);
            }
            Some("--root") => {
                let root = PathBuf::from(value()?);
                if !root.is_absolute() {
                    return Err(format!("--root wants an absolute path, not {:?}", root));
                }
                layout = Layout::below(root);
            }
            _ => return Err(format!("unknown argument {word:?}")),
        }
    }
    let owner = owner.ok_or("--owner is missing")?;
    Ok(Command::Serve { owner, layout })
}
