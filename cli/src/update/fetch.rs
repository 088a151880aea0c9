//! The child that speaks with strangers: one file, from one address, to stdout. It has no right that its caller could
//! spare, and what it says is believed by nobody.

use crate::exit;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url, header};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{DumpableBehavior, Signal};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Exit code: there is no such file.
pub const NOT_THERE: u8 = exit::NO_SUCH;
/// Exit code: it came too slowly.
pub const TOO_SLOW: u8 = 7;
/// Exit code: it is larger than it may be.
pub const TOO_LARGE: u8 = 8;

/// Redirects that are followed, never from https to anything else.
const REDIRECTS_MAX: usize = 3;

/// How slow a server may be.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// How long a connection may take to be made.
    connect: Duration,
    /// Every so long, at least so many bytes have to come: slower is a hold-up, not a line.
    span: Duration,
    bytes_min: u64,
}

const PATIENCE: Patience =
    Patience { connect: Duration::from_secs(10), span: Duration::from_secs(30), bytes_min: 30 * 1024 };

/// What the parent asks for.
#[derive(Debug, clap::Args)]
pub struct FetchArgs {
    /// The file's address
    #[arg(long)]
    url: String,
    /// Most bytes of the whole file
    #[arg(long)]
    most: u64,
    /// Leave out so many bytes at its beginning
    #[arg(long, default_value_t = 0)]
    skip: u64,
    /// The proxy to use
    #[arg(long)]
    proxy: Option<String>,
}

/// Why it did not come.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}: there is no such file")]
    NotThere(String),
    #[error("{url}: less than {bytes_min} bytes came within {} s", .span.as_secs_f32())]
    TooSlow { url: String, bytes_min: u64, span: Duration },
    #[error("{url}: more than {most} bytes were offered")]
    TooLarge { url: String, most: u64 },
    #[error("{url}: the answer was {status}")]
    Status { url: String, status: StatusCode },
    #[error("{url}: {why}")]
    Http { url: String, why: String },
    #[error("{url}")]
    Io {
        url: String,
        #[source]
        source: io::Error,
    },
}

/// Brings one file to stdout.
pub fn run(args: &FetchArgs) -> ExitCode {
    let mut out = io::stdout().lock();
    let confined = confine().map_err(|source| FetchError::Io { url: args.url.clone(), source });
    let outcome = confined.and_then(|()| match args.url.strip_prefix("file://") {
        Some(path) => from_disk(args, path, &mut out),
        None => from_network(args, Client::builder, PATIENCE, &mut out),
    });
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let code = match error {
        FetchError::NotThere(_) => NOT_THERE,
        FetchError::TooSlow { .. } => TOO_SLOW,
        FetchError::TooLarge { .. } => TOO_LARGE,
        FetchError::Status { .. } | FetchError::Http { .. } | FetchError::Io { .. } => exit::FAILED,
    };
    let error = anyhow::Error::from(error);
    // Whoever asked may have gone.
    let _ = writeln!(io::stderr(), "{error:#}");
    ExitCode::from(code)
}

/// It gains no rights by executing anything, is not touched by others of its uid, and ends with its parent.
fn confine() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

fn from_disk(args: &FetchArgs, path: &str, out: &mut impl Write) -> Result<(), FetchError> {
    let url = || args.url.clone();
    let failed = |source| FetchError::Io { url: url(), source };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Err(FetchError::NotThere(url())),
        Err(errno) => return Err(failed(errno.into())),
    };
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(FetchError::NotThere(url()));
    }
    if about.len() > args.most {
        return Err(FetchError::TooLarge { url: url(), most: args.most });
    }
    file.seek(SeekFrom::Start(args.skip)).map_err(failed)?;
    io::copy(&mut file.take(args.most.saturating_sub(args.skip)), out).map_err(failed)?;
    out.flush().map_err(failed)
}

fn from_network(
    args: &FetchArgs,
    builder: impl Fn() -> ClientBuilder,
    patience: Patience,
    out: &mut impl Write,
) -> Result<(), FetchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| FetchError::Io { url: args.url.clone(), source })?;
    runtime.block_on(async {
        let Some((answer, skip)) = ask(args, builder, patience).await? else { return Ok(()) };
        pass_on(args, answer, skip, patience, out).await
    })
}

/// The answer, and how many of its bytes are not wanted again; none where all had come before.
async fn ask(
    args: &FetchArgs,
    builder: impl Fn() -> ClientBuilder,
    patience: Patience,
) -> Result<Option<(Response, u64)>, FetchError> {
    let url = || args.url.clone();
    let by = args.proxy.as_ref().map_or_else(String::new, |proxy| format!("by the proxy {proxy}: "));
    let http = |error: reqwest::Error| FetchError::Http { url: url(), why: format!("{by}{}", causes(&error)) };
    let address = Url::parse(&args.url).map_err(|error| FetchError::Http { url: url(), why: error.to_string() })?;
    let https = address.scheme() == "https";
    let client = |builder: ClientBuilder| {
        client(builder.connect_timeout(patience.connect).https_only(https), args.proxy.as_deref())
    };
    let client = match client(builder()) {
        // A host without any certificate authority (no package ca-certificates) can still ask by http: what comes is
        // believed by its signature alone.
        Err(_) if !https => client(builder().tls_certs_only([])),
        made => made,
    };
    let client = client.map_err(http)?;
    let mut request = client.get(address).header(header::ACCEPT_ENCODING, "identity");
    if args.skip > 0 {
        request = request.header(header::RANGE, format!("bytes={}-", args.skip));
    }
    let answer = tokio::time::timeout(patience.span, request.send()).await;
    let answer = answer.map_err(|_| slow(args, patience))?.map_err(http)?;
    match answer.status() {
        StatusCode::PARTIAL_CONTENT if args.skip > 0 => match range_begin(&answer) {
            Some(begin) if begin == args.skip => Ok(Some((answer, 0))),
            _ => Err(FetchError::Http { url: url(), why: "it answered with another range".to_owned() }),
        },
        // A server may ignore the range, and begins again then.
        StatusCode::OK => Ok(Some((answer, args.skip))),
        // The line broke after the last byte.
        StatusCode::RANGE_NOT_SATISFIABLE if args.skip > 0 => Ok(None),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(FetchError::NotThere(url())),
        status => Err(FetchError::Status { url: url(), status }),
    }
}

async fn pass_on(
    args: &FetchArgs,
    mut answer: Response,
    mut skip: u64,
    patience: Patience,
    out: &mut impl Write,
) -> Result<(), FetchError> {
    let url = || args.url.clone();
    let mut left = args.most.saturating_sub(args.skip) + skip;
    let (mut began, mut came) = (Instant::now(), 0);
    loop {
        let rest = patience.span.saturating_sub(began.elapsed());
        let chunk = tokio::time::timeout(rest, answer.chunk()).await.map_err(|_| slow(args, patience))?;
        let chunk = chunk.map_err(|error| FetchError::Http { url: url(), why: causes(&error) })?;
        let Some(chunk) = chunk else { break };
        let length = chunk.len() as u64;
        left = left.checked_sub(length).ok_or_else(|| FetchError::TooLarge { url: url(), most: args.most })?;
        let dropped = skip.min(length);
        skip -= dropped;
        let kept = &chunk[usize::try_from(dropped).unwrap_or(chunk.len())..];
        out.write_all(kept).map_err(|source| FetchError::Io { url: url(), source })?;
        came += length;
        if came >= patience.bytes_min {
            (began, came) = (Instant::now(), 0);
        }
    }
    out.flush().map_err(|source| FetchError::Io { url: url(), source })
}

fn slow(args: &FetchArgs, patience: Patience) -> FetchError {
    FetchError::TooSlow { url: args.url.clone(), bytes_min: patience.bytes_min, span: patience.span }
}

/// RFC 9110, 14.4: where the bytes begin that a partial answer has.
fn range_begin(answer: &Response) -> Option<u64> {
    let range = answer.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

fn client(builder: ClientBuilder, proxy: Option<&str>) -> reqwest::Result<Client> {
    let redirects = Policy::custom(|attempt| match attempt.previous().len() > REDIRECTS_MAX {
        true => attempt.error("too many redirects"),
        false => attempt.follow(),
    });
    let builder = builder.no_proxy().redirect(redirects);
    match proxy {
        Some(proxy) => builder.proxy(reqwest::Proxy::all(proxy)?).build(),
        None => builder.build(),
    }
}

/// reqwest tells the cause only in its sources.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
