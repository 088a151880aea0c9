//! Limits as they are typed after `holdfast run`.

use clap::Args;
use holdfast_proto::daemon::Limits;

/// Most memory that can be typed: a power of 1024 more is no host's.
const MEMORY_BYTES_MAX: f64 = (1u64 << 50) as f64;

/// The options of `run` that limit a worker.
#[derive(Debug, Clone, Default, Args)]
pub struct LimitArgs {
    /// Most memory, as 512m or 1.5g; a worker that wants more is killed [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,
    /// Most processors, as 0.5 or 2 [default: no limit]
    #[arg(long, value_name = "COUNT", value_parser = cpus)]
    pub cpus: Option<u32>,
    /// Most processes and threads [default: 4096]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub pids: Option<u32>,
    /// Run also where this host cannot enforce a limit (`inspect` says who enforces which)
    #[arg(long)]
    pub best_effort: bool,
}

/// A limit that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Not a size.
    #[error("{0:?} is no size of memory: use a number with k, m or g, as 512m or 1.5g, 1m or more")]
    Memory(String),
    /// Not a number of processors.
    #[error("{0:?} is no number of processors: use 0.01 to 1024, as 0.5 or 2")]
    Cpus(String),
}

impl LimitArgs {
    /// As the daemon is asked; none where nothing was typed.
    pub fn message(&self) -> Option<Limits> {
        let Self { memory, cpus, pids, best_effort } = *self;
        let limits = Limits { memory_bytes: memory, cpu_millis: cpus, pids, best_effort };
        (limits != Limits::default()).then_some(limits)
    }
}

fn memory(text: &str) -> Result<u64, LimitError> {
    let refused = || LimitError::Memory(text.to_owned());
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(refused()),
    };
    let bytes = decimal(digits).ok_or_else(refused)? * unit as f64;
    if ((1u64 << 20) as f64..=MEMORY_BYTES_MAX).contains(&bytes) { Ok(bytes as u64) } else { Err(refused()) }
}

fn cpus(text: &str) -> Result<u32, LimitError> {
    let millis = decimal(text).map(|count| (count * 1000.0).round());
    match millis {
        Some(millis) if (10.0..=1_024_000.0).contains(&millis) => Ok(millis as u32),
        _ => Err(LimitError::Cpus(text.to_owned())),
    }
}

/// Digits with at most one point: no sign, no exponent, no infinity.
fn decimal(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_people_write_it() {
        for (text, bytes) in [
            ("512m", 512 << 20),
            ("1G", 1 << 30),
            ("1.5g", 3 << 29),
            ("1048576", 1 << 20),
            ("2GiB", 2 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "m", "0", "-1g", "1e9", "inf", "nan", "1.2.3g", "512 m", "512q", "1023k", "99999999999999999999t"]
        {
            assert_eq!(memory(text), Err(LimitError::Memory(text.to_owned())));
        }
    }

    #[test]
    fn processors_may_be_parts_of_one() {
        for (text, millis) in [("1.5", 1500), ("2", 2000), (".5", 500), ("0.01", 10), ("1024", 1_024_000)] {
            assert_eq!(cpus(text), Ok(millis), "{text}");
        }
        for text in ["", "0", "0.001", "-1", "1e3", "inf", "1025", "two", "1,5"] {
            assert_eq!(cpus(text), Err(LimitError::Cpus(text.to_owned())));
        }
    }
}
