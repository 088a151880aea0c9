//! What the worker has used: from its cgroup where that counts it, else from its processes.

use holdfast_launcher::counters::{Counters, MemorySource};
use holdfast_launcher::limits::Enforced;
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::time::ClockId;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// Most processes that are looked at one by one: the shim has other things to do.
const PROCESSES_MAX: usize = 10_000;

/// Larger than any file that is read here; what is cut off is not there.
const FILE_BYTES_MAX: usize = 4096;

/// In the shim's `/proc`, the shim itself.
const SHIM: u64 = 1;

/// Where counters are read.
pub struct Meter {
    /// The `/proc` of the worker's pid namespace as it was mounted: a volume over `/proc` does not lead it astray.
    proc: OwnedFd,
    /// The worker's link; empty where it has none of its own.
    link: String,
    enforced: Enforced,
    page_bytes: u64,
    ticks_per_sec: u64,
}

/// All processes of the worker, added up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    cpu_ticks: u64,
    resident_pages: u64,
    tasks: u64,
}

impl Meter {
    /// For the worker of this pid namespace.
    pub fn new(proc: OwnedFd, link: &str, enforced: Enforced) -> Self {
        let page_bytes = rustix::param::page_size() as u64;
        let ticks_per_sec = rustix::param::clock_ticks_per_second().max(1);
        Self { proc, link: link.to_owned(), enforced, page_bytes, ticks_per_sec }
    }

    /// Everything that this host counts; `ended_us`: CPU time of processes that have been reaped.
    pub fn read(&self, cgroup: Option<&OwnedFd>, ended_us: impl FnOnce() -> u64) -> Counters {
        let file = |name: &str| cgroup.and_then(|dir| text(dir, name));
        let cpu_us = file("cpu.stat").and_then(|text| field(&text, "usage_usec"));
        let memory = file("memory.current").and_then(|text| number(&text));
        let tasks = file("pids.current").and_then(|text| number(&text));
        let block = file("io.stat").map(|text| (io_total(&text, "rbytes="), io_total(&text, "wbytes=")));
        let sum = if cpu_us.is_some() && memory.is_some() && tasks.is_some() { None } else { self.processes() };
        let by_processes = |take: fn(&Sum) -> u64| sum.as_ref().map(take);
        Counters {
            at_us: monotonic_us(),
            cpu_us: cpu_us.or_else(|| {
                let live = by_processes(|sum| sum.cpu_ticks)?.saturating_mul(1_000_000) / self.ticks_per_sec;
                Some(live.saturating_add(ended_us()))
            }),
            memory: memory.map(|bytes| (bytes, MemorySource::Cgroup)).or_else(|| {
                let bytes = by_processes(|sum| sum.resident_pages)?.saturating_mul(self.page_bytes);
                Some((bytes, MemorySource::Processes))
            }),
            tasks: tasks.or_else(|| by_processes(|sum| sum.tasks)),
            network: self.network(),
            block,
            enforced: self.enforced,
        }
    }

    fn network(&self) -> Option<(u64, u64)> {
        if self.link.is_empty() {
            return None;
        }
        link_bytes(&text(&self.proc, "1/net/dev")?, &self.link)
    }

    fn processes(&self) -> Option<Sum> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Of its own position: whoever read before has left the other at the end.
        let dir = rustix::fs::openat(&self.proc, ".", flags, Mode::empty()).ok()?;
        let mut space = [MaybeUninit::uninit(); FILE_BYTES_MAX];
        let mut entries = RawDir::new(&dir, &mut space);
        let (mut sum, mut seen) = (Sum::default(), 0);
        while let Some(Ok(entry)) = entries.next() {
            let pid = entry.file_name().to_str().ok().and_then(|name| name.parse::<u64>().ok());
            let Some(pid) = pid.filter(|pid| *pid != SHIM) else { continue };
            // One that has ended meanwhile counts nothing more.
            if let Some(text) = text(&self.proc, &format!("{pid}/stat")) {
                sum.add(&text);
            }
            seen += 1;
            if seen >= PROCESSES_MAX {
                break;
            }
        }
        Some(sum)
    }
}

impl Sum {
    /// `/proc/<pid>/stat` (proc_pid_stat(5)); fields are counted behind the name, which may hold anything.
    fn add(&mut self, stat: &str) {
        let Some((_, fields)) = stat.rsplit_once(')') else { return };
        let fields: Vec<u64> = fields.split_ascii_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
        // Fields 14 to 17 of the manual: its own time, and that of the children it waited for. 20: threads. 24: pages.
        let at = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        self.cpu_ticks = (14..=17).map(at).fold(self.cpu_ticks, u64::saturating_add);
        self.tasks = self.tasks.saturating_add(at(20));
        self.resident_pages = self.resident_pages.saturating_add(at(24));
    }
}

fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

fn text(dir: &OwnedFd, name: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty()).ok()?;
    let mut buffer = [0; FILE_BYTES_MAX];
    let len = rustix::io::read(&file, &mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `key value` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(key)?.strip_prefix(' ')?))
}

/// `8:0 rbytes=1 wbytes=2 …`, a line a device.
fn io_total(text: &str, key: &str) -> u64 {
    let values = text.split_ascii_whitespace().filter_map(|word| number(word.strip_prefix(key)?));
    values.fold(0, u64::saturating_add)
}

/// Received and sent bytes of one line of `/proc/net/dev`.
fn link_bytes(text: &str, link: &str) -> Option<(u64, u64)> {
    let fields = text.lines().find_map(|line| line.trim_start().strip_prefix(link)?.strip_prefix(':'))?;
    let mut fields = fields.split_ascii_whitespace();
    Some((number(fields.next()?)?, number(fields.nth(7)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_counted_whatever_its_name() {
        let mut sum = Sum::default();
        let fields = "S 1 7 7 0 -1 4194560 9 8 7 6 100 20 3 4 20 0 5 0 77 1000000 250 18446744073709551615 1";
        sum.add(&format!("7 (sleep) {fields}"));
        sum.add(&format!("8 (a) S 1 (b) {fields}"));
        assert_eq!(sum, Sum { cpu_ticks: 254, resident_pages: 500, tasks: 10 });
        sum.add("9 (cut short) S 1");
        sum.add("");
        assert_eq!(sum.tasks, 10);
    }

    #[test]
    fn cgroup_files_are_read_as_the_kernel_writes_them() {
        assert_eq!(field("usage_usec 1234\nuser_usec 1000\n", "usage_usec"), Some(1234));
        assert_eq!(field("usage_usec_x 1\n", "usage_usec"), None);
        assert_eq!(number("max\n"), None);
        let io = "8:0 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=10 wbytes=20 rios=1 wios=1\n";
        assert_eq!((io_total(io, "rbytes="), io_total(io, "wbytes=")), (11, 22));
    }

    #[test]
    fn a_link_is_found_by_its_whole_name() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n\
                    \u{20} eth0: 1500 10 0 0 0 0 0 0 700 8 0 0 0 0 0 0\n";
        assert_eq!(link_bytes(text, "eth0"), Some((1500, 700)));
        assert_eq!(link_bytes(text, "eth"), None);
        assert_eq!(link_bytes(text, "eth00"), None);
    }
}
