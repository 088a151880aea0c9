//! The child that speaks with strangers: one file, from one address, to stdout. It has no right that its caller could
//! spare, and what it says is believed by nobody.

use crate::exit;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url, header};
use rustix::fs::{CWD, Mode, OFlags};
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

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Every so long, at least so many bytes have to come: slower is a hold-up, not a line.
const SPEED_SPAN: Duration = Duration::from_secs(30);
const SPEED_BYTES_MIN: u64 = 30 * 1024;
/// Redirects that are followed, never from https to anything else.
const REDIRECTS_MAX: usize = 3;

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
    #[error("{url}: less than {SPEED_BYTES_MIN} bytes came within {} s", SPEED_SPAN.as_secs())]
    TooSlow { url: String },
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
    let outcome = match args.url.strip_prefix("file://") {
        Some(path) => from_disk(args, path),
        None => from_network(args),
    };
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

fn from_disk(args: &FetchArgs, path: &str) -> Result<(), FetchError> {
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
    io::copy(&mut file.take(args.most.saturating_sub(args.skip)), &mut io::stdout().lock()).map_err(failed)?;
    io::stdout().flush().map_err(failed)
}

fn from_network(args: &FetchArgs) -> Result<(), FetchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| FetchError::Io { url: args.url.clone(), source })?;
    runtime.block_on(download(args))
}

async fn download(args: &FetchArgs) -> Result<(), FetchError> {
    let url = || args.url.clone();
    let http = |error: reqwest::Error| FetchError::Http { url: url(), why: causes(&error) };
    let address = Url::parse(&args.url).map_err(|error| FetchError::Http { url: url(), why: error.to_string() })?;
    let client = client(args.proxy.as_deref(), address.scheme() == "https").map_err(http)?;
    let mut request = client.get(address).header(header::ACCEPT_ENCODING, "identity");
    if args.skip > 0 {
        request = request.header(header::RANGE, format!("bytes={}-", args.skip));
    }
    let slow = || FetchError::TooSlow { url: url() };
    let answer = tokio::time::timeout(SPEED_SPAN, request.send()).await.map_err(|_| slow())?;
    let mut answer = answer.map_err(http)?;
    // A server may ignore the range, and begins again then.
    let mut skip = match answer.status() {
        StatusCode::PARTIAL_CONTENT if args.skip > 0 => 0,
        StatusCode::OK => args.skip,
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(FetchError::NotThere(url())),
        status => return Err(FetchError::Status { url: url(), status }),
    };
    let mut left = args.most - args.skip.min(args.most) + skip;
    let (mut began, mut came) = (Instant::now(), 0);
    loop {
        let rest = SPEED_SPAN.saturating_sub(began.elapsed());
        let chunk = tokio::time::timeout(rest, answer.chunk()).await.map_err(|_| slow())?.map_err(http)?;
        let Some(chunk) = chunk else { break };
        let length = chunk.len() as u64;
        left = left.checked_sub(length).ok_or_else(|| FetchError::TooLarge { url: url(), most: args.most })?;
        let dropped = skip.min(length);
        skip -= dropped;
        let kept = &chunk[usize::try_from(dropped).unwrap_or(chunk.len())..];
        io::stdout().lock().write_all(kept).map_err(|source| FetchError::Io { url: url(), source })?;
        came += length;
        if came >= SPEED_BYTES_MIN {
            (began, came) = (Instant::now(), 0);
        }
    }
    io::stdout().flush().map_err(|source| FetchError::Io { url: url(), source })
}

fn client(proxy: Option<&str>, https: bool) -> reqwest::Result<Client> {
    let redirects = Policy::custom(|attempt| match attempt.previous().len() > REDIRECTS_MAX {
        true => attempt.error("too many redirects"),
        false => attempt.follow(),
    });
    let builder = Client::builder().no_proxy().redirect(redirects).https_only(https).connect_timeout(CONNECT_MAX);
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
