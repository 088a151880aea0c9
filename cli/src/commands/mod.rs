//! One file per subcommand; small ones that do alike share one.

pub mod attach;
pub mod completion;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod help;
pub mod inspect;
pub mod list;
pub mod logs;
pub mod network;
pub mod prune;
pub mod run;
pub mod session;
pub mod several;
pub mod stats;
pub mod status;
pub mod system;
pub mod update;

use crate::args::{Args, Command};
use crate::caller::Caller;
use holdfast_proto::layout::Layout;
use std::process::ExitCode;

/// Does what was typed.
///
/// # Errors
/// Whatever the verb met; [`crate::exit`] turns it into words and an exit code.
pub fn run(typed: Args) -> anyhow::Result<ExitCode> {
    let owner = typed.owner.as_deref();
    let caller = || Caller::of_process(owner);
    match typed.command {
        Command::Run(args) => Ok(run::run(&args, owner)),
        Command::Exec(args) => Ok(exec::run(&args, owner)),
        Command::Attach(args) => attach::run(&args, &caller()?),
        Command::Ps(args) => list::ps(&args, &caller()?),
        Command::Port(args) => list::port(&args, &caller()?),
        Command::Logs(args) => logs::run(&args, &caller()?),
        Command::Events(args) => events::run(&args, &caller()?),
        Command::Inspect(args) => inspect::run(&args, &caller()?),
        Command::Start(args) => several::start(args, &caller()?),
        Command::Stop(args) => several::stop(args, &caller()?),
        Command::Restart(args) => several::restart(args, &caller()?),
        Command::Suspend(args) => several::suspend(args, &caller()?),
        Command::Resume(args) => several::resume(args, &caller()?),
        Command::Kill(args) => several::kill(args, &caller()?),
        Command::Rm(args) => several::rm(args, &caller()?),
        Command::Prune(args) => prune::run(&args, &caller()?),
        Command::Network(args) => network::run(&args, &caller()?),
        Command::Wait(args) => several::wait(args, &caller()?),
        Command::Stats(args) => stats::run(&args, &caller()?),
        Command::Top(args) => crate::top::run(&args, &caller()?),
        Command::Status(args) => status::status(&args, &caller()?),
        Command::Version(args) => status::version(&args),
        Command::Doctor(args) => doctor::run(&args, owner),
        Command::Help(args) => help::run(&args),
        Command::Completion(args) => completion::run(&args),
        Command::Session(args) => session::run(args, owner),
        Command::System(args) => system::run(args, &Layout::system()),
        Command::Update(args) => update::run(&args, &Layout::system()),
        Command::Fetch(args) => Ok(crate::update::fetch::run(&args)),
        Command::SessionExec(args) => crate::session::exec::run(&args, owner),
        Command::SessionSupervise(args) => crate::session::supervise::run(&args, owner),
        Command::SessionClear(args) => crate::session::clear::run(&args, owner),
        Command::Probe(args) => crate::doctor::probe::run(&args, owner),
    }
}
