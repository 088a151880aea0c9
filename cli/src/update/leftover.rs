//! Ends programs that a release which was taken back has left running: systemd sends no SIGKILL here (it would meet
//! workers), so one that ignores SIGTERM stays beside its successor. Shims are no such programs.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::path::Path;

/// What a unit runs as its main process.
const MAINS: [&str; 3] = ["holdfastd", "holdfast-helper", "holdfast-launcher"];

/// Kills what still runs from the release folder `place`, and says how many it were. What cannot be seen stays.
pub fn end(place: &Path) -> usize {
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(Pid::from_raw).filter(|pid| end_one(*pid, place)).count()
}

/// The descriptor comes first: what the number meant when it was looked at is then what is signalled.
fn end_one(pid: Pid, place: &Path) -> bool {
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    let runs = fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()));
    let is_left = runs.is_ok_and(|file| MAINS.iter().any(|main| file == place.join(main)));
    is_left && pidfd_send_signal(&process, Signal::KILL).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn a_main_is_ended_and_a_shim_is_not() {
        let root = tempfile::tempdir().unwrap();
        // The kernel tells resolved paths.
        let place = root.path().canonicalize().unwrap();
        let mut started = ["holdfastd", "holdfast-shim"].map(|name| {
            fs::copy("/bin/sleep", place.join(name)).unwrap();
            Command::new(place.join(name)).arg("60").spawn().unwrap()
        });
        assert_eq!(end(&place.join("other")), 0);
        assert_eq!(end(&place), 1);
        assert_eq!(started[0].wait().unwrap().signal(), Some(9));
        assert!(started[1].try_wait().unwrap().is_none());
        started[1].kill().unwrap();
        started[1].wait().unwrap();
    }
}
