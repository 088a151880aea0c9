//! What was typed after `holdfast exec`.

use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// `attach`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast run -dit --name shell -- bash
  holdfast attach shell                          Ctrl-P Ctrl-Q leaves it running
  holdfast attach --no-stdin web                 only look; `logs -f` shows what came before as well

Whoever attached last types. Signals go to the worker. Exit code: the worker's own once it ends, 0 after leaving.")]
pub struct AttachArgs {
    /// Do not pass input on
    #[arg(long)]
    pub no_stdin: bool,
    /// Name, id, or the first four or more characters of an id
    #[arg(value_name = "WORKER")]
    pub worker: String,
}

/// `exec`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast exec web -- ls -l /tmp                its output here, its exit code yours
  holdfast exec -it web -- bash                  a shell on a terminal of its own
  holdfast exec -i db -- psql < dump.sql         standard input goes along, to its end
  holdfast exec -e LEVEL=debug -w /srv web -- ./check

The program runs in the worker's cage: its network, files, limits, and no more rights. It ends with the worker at
the latest. Signals that holdfast gets (INT, TERM, HUP, QUIT) go to the program; with -t, Ctrl-C is typed there, and they end holdfast.
Where holdfast itself is gone, the program gets SIGHUP; on a terminal, SIGKILL after 5 s.
Exit code: the program's own, 128+N where signal N ended it; 2 wrong usage, 4 no such worker, 5 it does not run,
125 Holdfast failed or refused, 126 the program cannot be executed, 127 it was not found.")]
pub struct ExecArgs {
    /// Pass standard input on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the program a terminal of its own, as this one is
    #[arg(short, long)]
    pub tty: bool,
    /// Environment, besides the worker's own: KEY=VALUE, or KEY to copy it from here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub env: Vec<OsString>,
    /// Who the program is to be: the one user that the worker has, by name or number (its owner; root where it was run
    /// with --user root); every other one is refused
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Working directory inside [default: the worker's own]
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// Name, id, or the first four or more characters of an id
    #[arg(value_name = "WORKER")]
    pub worker: String,
    /// The program and its arguments
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}
