//! Real launches by the real launcher and shim: what a worker finds, leaves, and cannot do.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod stage;

use holdfast_launcher::control::Report;
use holdfast_launcher::launch::{FromHelper, FromLauncher, Wiring};
use holdfast_launcher::orders::Volume;
use holdfast_launcher::output::Stream;
use holdfast_launcher::record::Outcome;
use stage::{Stage, Watch, output, record, segments, wait_gone};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn exit_codes_and_signals_are_recorded_as_they_were() {
    let Some(stage) = Stage::set("exit codes") else { return };
    for (script, outcome) in [
        ("exit 0", Outcome::Code(0)),
        ("exit 42", Outcome::Code(42)),
        ("kill -SEGV $$", Outcome::Signal(11)),
        ("kill -KILL $$", Outcome::Signal(9)),
        ("kill -PIPE $$", Outcome::Signal(13)),
    ] {
        let (record, _) = stage.sh(script);
        assert_eq!(record.outcome, outcome, "{script}");
        assert!(record.finished_at_ns >= record.started_at_ns && record.started_at_ns > 0);
        assert_eq!((record.generation, record.nonce), (1, [7; 16]));
    }
    assert_eq!(stage.run(&stage.orders(&["/bin/true"])).outcome, Outcome::Code(0));
}

#[test]
fn what_cannot_be_executed_is_126_or_127_and_says_what() {
    let Some(stage) = Stage::set("not started") else { return };
    let not_started = |orders| match stage.run(&orders).outcome {
        Outcome::NotStarted { code, failure } => (code, failure.step, failure.errno),
        other => panic!("{other:?}"),
    };
    assert_eq!(not_started(stage.orders(&["nosuch"])), (127, "program nosuch".to_owned(), libc::ENOENT));
    let mut orders = stage.orders(&["/bin/true"]);
    orders.control_dir = "/nope".into();
    stage.ask_prepare(&orders, 1);
    let Outcome::NotStarted { code: 125, failure } = record(&orders).outcome else { panic!("executed") };
    assert_eq!(failure.step, "control directory /nope");
    while !matches!(stage.hear().0, FromLauncher::Failed { .. }) {}
    assert_eq!(not_started(stage.orders(&["/etc/passwd"])), (126, "program /etc/passwd".to_owned(), libc::EACCES));
    let failed = |change: &dyn Fn(&mut holdfast_launcher::orders::Orders)| {
        let mut orders = stage.orders(&["/bin/true"]);
        change(&mut orders);
        stage.ask_prepare(&orders, 1);
        // A shim may be gone before it is announced.
        let said = loop {
            match stage.hear().0 {
                FromLauncher::Failed { failure, .. } => break failure,
                FromLauncher::Prepared { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        match record(&orders).outcome {
            Outcome::NotStarted { code, failure } if failure == said => (code, failure.step, failure.errno),
            other => panic!("{other:?}"),
        }
    };
    let volume =
        |source: &str, target: &str| vec![Volume { source: source.into(), target: target.into(), read_only: false }];
    assert_eq!(failed(&|o| o.workdir = "/nope".into()), (127, "working directory /nope".to_owned(), libc::ENOENT));
    let missing = failed(&|o| o.volumes = volume("/nope", "/data"));
    assert_eq!(missing, (127, "volume source /nope".to_owned(), libc::ENOENT));
    let read_only = failed(&|o| o.volumes = volume("/var/tmp", "/usr/nope"));
    assert_eq!(read_only, (126, "volume target /usr/nope".to_owned(), libc::EROFS));
    let (code, step, _) =
        failed(&|o| o.volumes = vec![Volume { source: o.state_dir.clone(), target: "/data".into(), read_only: true }]);
    assert!(code == 126 && step.contains("is not for workers"), "{step}");
}

#[test]
fn every_byte_of_output_is_kept() {
    let Some(stage) = Stage::set("output") else { return };
    for mib in [1, 100] {
        let script = format!("head -c {mib}M /dev/zero | tr '\\0' x; echo end >&2");
        let orders = stage.orders(&["sh", "-c", &script]);
        let began = Instant::now();
        let record = stage.run(&orders);
        println!("{mib} MiB of output in {:?}", began.elapsed());
        assert_eq!(record.outcome, Outcome::Code(0));
        let out = output(&orders, Stream::Stdout);
        assert!(out.len() == mib << 20 && out.iter().all(|byte| *byte == b'x'));
        assert_eq!(output(&orders, Stream::Stderr), b"end\n");
        assert_eq!((record.log_bytes, record.log_dropped_bytes), ((mib << 20) as u64 + 4, 0));
    }
}

#[test]
fn output_over_the_cap_goes_by_whole_files_and_is_counted() {
    let Some(stage) = Stage::set("rotation") else { return };
    let mut orders = stage.orders(&["sh", "-c", "head -c 1M /dev/zero"]);
    (orders.log_bytes_max, orders.log_files_max) = (256 << 10, 4);
    let first = stage.run(&orders);
    let kept = output(&orders, Stream::Stdout).len() as u64;
    assert!(segments(&orders).len() <= 4 && kept <= 256 << 10 && kept > 100 << 10, "{kept}");
    assert_eq!((first.log_bytes, first.log_dropped_bytes), (1 << 20, (1 << 20) - kept));
    assert_eq!(segments(&orders)[0].1.offset, (1 << 20) - kept);
    // The next generation goes on where this one ended.
    orders.generation = 2;
    orders.argv = vec!["echo".into(), "again".into()];
    let second = stage.run(&orders);
    assert_eq!(second.log_bytes, (1 << 20) + 6);
    assert!(output(&orders, Stream::Stdout).ends_with(b"again\n"));
}

#[test]
fn worker_has_descriptors_0_to_2_and_no_privilege() {
    let Some(stage) = Stage::set("privilege") else { return };
    let (record, out) = stage.sh("ls /proc/$$/fd; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; id -u; pwd");
    assert_eq!(record.outcome, Outcome::Code(0));
    let uid = stage.uid.to_string();
    let expected: Vec<String> = ["0", "1", "2"]
        .into_iter()
        .map(str::to_owned)
        .chain(["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}:\t{:016x}", 0)))
        .chain(["NoNewPrivs:\t1".to_owned(), "Seccomp:\t2".to_owned(), uid, "/".to_owned()])
        .collect();
    assert_eq!(out.lines().collect::<Vec<_>>(), expected);
    let (_, out) = stage
        .sh("unshare -U true && echo new; mount -t tmpfs x /tmp && echo mounted; kill -9 1; ls /proc/1/fd; echo alive");
    assert_eq!(out, "alive\n");
}

#[test]
fn worker_sees_its_own_world() {
    let Some(stage) = Stage::set("world") else { return };
    let (_, out) = stage.sh("hostname; cat /etc/hosts; cat /etc/resolv.conf; echo $(ls /proc | grep -c '^[0-9]')");
    assert_eq!(out, "web-1\n127.0.0.1\tlocalhost\nnameserver 192.0.2.1\n5\n");
    let (_, out) = stage.sh("for d in / /usr /etc /sys; do touch $d/x 2>/dev/null && echo wrote $d; done
         for d in /tmp /var/tmp /run /dev /dev/shm; do touch $d/x || echo cannot write $d; done
         ls -A /sys | wc -l; ls /home /root 2>/dev/null; echo > /dev/null && echo null; head -c 3 /dev/zero | wc -c
         cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls -A /tmp /run; cat /sys/class/net/x 2>/dev/null
         cat /proc/net/dev | grep -c :");
    assert_eq!(out, "0\nnull\n3\n0\n/run:\nx\n\n/tmp:\nx\n1\n");
    let hidden = stage.root.path().join("var/lib/holdfast");
    let (_, out) = stage.sh(&format!("ls -A {0} | wc -l; ls -A {0}/../../../run | wc -l", hidden.display()));
    // The stage lies in /var/tmp, which is the worker's own.
    assert_eq!(out, "0\n0\n");
}

#[test]
fn volumes_and_working_directory_are_where_they_were_asked_for() {
    let Some(stage) = Stage::set("volumes") else { return };
    let site = stage.root.path().join("site");
    fs::create_dir(&site).unwrap();
    fs::write(site.join("page"), "hello\n").unwrap();
    fs::set_permissions(&site, fs::Permissions::from_mode(0o777)).unwrap();
    let volume = |target: &str, read_only| Volume { source: site.clone(), target: target.into(), read_only };
    let mut orders =
        stage.orders(&["sh", "-c", "cat page; pwd; touch /home/alice/new/made; touch /srv2/no || echo ro"]);
    orders.volumes = vec![volume("/home/alice/new", false), volume("/srv2", true)];
    // One file on a file that is there, one on one that is not.
    orders.volumes.push(Volume { source: site.join("page"), target: "/etc/hostname".into(), read_only: true });
    orders.volumes.push(Volume { source: site.join("page"), target: "/opt2/page".into(), read_only: true });
    // What lies below a volume and is hidden stays hidden.
    orders.volumes.push(Volume { source: stage.root.path().to_owned(), target: "/all".into(), read_only: true });
    orders.argv[2].push("; cat /etc/hostname /opt2/page; ls /all /all/var/lib/holdfast /all/run/holdfast");
    orders.workdir = "/home/alice/new".into();
    assert_eq!(stage.run(&orders).outcome, Outcome::Code(0));
    let out = String::from_utf8(output(&orders, Stream::Stdout)).unwrap();
    assert_eq!(
        out,
        "hello\n/home/alice/new\nro\nhello\nhello\n/all:\nrun\nsite\nvar\n\n/all/run/holdfast:\n\n/all/var/lib/holdfast:\n"
    );
    assert!(site.join("made").exists() && !site.join("no").exists());
}

#[test]
fn watchers_with_the_nonce_hear_running_and_the_end() {
    let Some(stage) = Stage::set("watchers") else { return };
    let orders = stage.orders(&["sh", "-c", "read x; sleep 0.3; exit 3"]);
    let prepared = stage.prepare(&orders);
    stage.release(&prepared, Wiring::default());
    let watch = Watch::connect(&stage, &orders, orders.nonce);
    let mut pidfd = None;
    loop {
        match watch.hear() {
            Some((Report::Preparing { generation: 1, .. }, _)) => {}
            Some((Report::Running { generation: 1, started_at_ns, .. }, mut fds)) => {
                assert!(started_at_ns > 0);
                pidfd = fds.pop();
            }
            Some((Report::Ended(ended), _)) => {
                assert_eq!(ended, record(&orders));
                assert_eq!(ended.outcome, Outcome::Code(3));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    wait_gone(&pidfd.unwrap());
    wait_gone(&prepared.pidfd);
    assert!(!stage.has_socket(&orders));
}

#[test]
fn watchers_without_nonce_or_of_another_uid_hear_nothing() {
    let Some(stage) = Stage::set("strangers") else { return };
    let orders = stage.orders(&["sleep", "1"]);
    let prepared = stage.launch(&orders);
    assert!(Watch::connect(&stage, &orders, [8; 16]).hear().is_none());
    assert!(Watch::connect_as(&stage, &orders, orders.nonce, 0).hear().is_none());
    wait_gone(&prepared.pidfd);
}

#[test]
fn workers_outlive_their_launcher_and_the_next_one_serves() {
    let Some(mut stage) = Stage::set("launcher killed") else { return };
    let orders = stage.orders(&["sh", "-c", "sleep 0.5; echo last; exit 42"]);
    let released = stage.launch(&orders);
    let paused = stage.prepare(&stage.orders(&["/bin/true"]));
    stage.kill_launcher();
    // Not released, so it ends with its launcher.
    wait_gone(&paused.pidfd);
    stage.restart_launcher();
    assert_eq!(stage.sh("echo hi").1, "hi\n");
    wait_gone(&released.pidfd);
    assert_eq!(record(&orders).outcome, Outcome::Code(42));
    assert_eq!(output(&orders, Stream::Stdout), b"last\n");
    // A second one ends the first by its lock.
    stage.restart_launcher();
    assert_eq!(stage.sh("echo again").1, "again\n");
}

#[test]
fn a_launch_that_is_not_released_is_undone() {
    let Some(mut stage) = Stage::set("undone") else { return };
    let orders = stage.orders(&["/bin/true"]);
    let aborted = stage.prepare(&orders);
    stage.say(&FromHelper::Abort { seq: aborted.seq }, None);
    assert!(matches!(stage.hear().0, FromLauncher::Failed { seq, .. } if seq == aborted.seq));
    wait_gone(&aborted.pidfd);
    let left: Vec<_> = fs::read_dir(&orders.state_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left == ["log"] && !stage.has_socket(&orders), "{left:?}");
    let dropped = stage.prepare(&stage.orders(&["/bin/true"]));
    stage.hang_up();
    wait_gone(&dropped.pidfd);
    // Words of an earlier daemon are void.
    stage.ask_prepare(&orders, 9);
    assert!(matches!(stage.hear().0, FromLauncher::Prepared { .. }));
    stage.ask_prepare(&stage.orders(&["/bin/true"]), 8);
    assert!(matches!(stage.hear().0, FromLauncher::Failed { failure, .. } if failure.errno == libc::ESTALE));
}

#[test]
fn workers_sit_in_cgroups_of_their_own_which_go_with_them() {
    let Some((cgroup, mut stage)) = Stage::set_delegated("cgroups") else { return };
    assert_eq!(cgroup.members("launcher"), [stage.launcher_pid()]);
    let orders = stage.orders(&["sh", "-c", "grep ^0:: /proc/self/cgroup; sleep 1"]);
    let prepared = stage.launch(&orders);
    let name = format!("w-{}", orders.worker);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(cgroup.members(&format!("{name}/shim")), [prepared.shim_pid]);
    assert!(!cgroup.members(&format!("{name}/worker")).is_empty());
    // A launcher that comes back finds a live worker below the cgroup that it divides.
    stage.kill_launcher();
    stage.restart_launcher();
    let (_, out) = stage.sh("grep ^0:: /proc/self/cgroup");
    assert_eq!(out, "0::/\n");
    assert!(cgroup.workers().contains(&name));
    wait_gone(&prepared.pidfd);
    assert_eq!(output(&orders, Stream::Stdout), b"0::/\n");
    // Its shim was no child of this launcher: the sweep takes it, at the latest at the next start.
    stage.kill_launcher();
    stage.restart_launcher();
    await_true(|| cgroup.workers().is_empty());
    let paused = stage.prepare(&stage.orders(&["/bin/true"]));
    stage.kill_launcher();
    wait_gone(&paused.pidfd);
    stage.restart_launcher();
    await_true(|| cgroup.workers().is_empty());
}

#[test]
fn workers_sit_beside_the_launchers_cgroup_with_controllers_on() {
    let Some((cgroup, mut stage)) = Stage::set_in_slice("slice") else { return };
    let orders = stage.orders(&["sh", "-c", "grep ^0:: /proc/self/cgroup; sleep 1"]);
    let prepared = stage.launch(&orders);
    let name = format!("w-{}", orders.worker);
    await_true(|| !cgroup.members(&format!("{name}/worker")).is_empty());
    assert_eq!(cgroup.members(&format!("{name}/shim")), [prepared.shim_pid]);
    // Any controller will do to see that a launcher comes back beside it: a hybrid host's v2 has none that limits.
    let there = std::fs::read_to_string(cgroup.workers.join("cgroup.controllers")).unwrap();
    let on = std::fs::read_to_string(cgroup.workers.join("cgroup.subtree_control")).unwrap();
    for controller in ["cpu", "memory", "pids"] {
        let has = |text: &str| text.split_whitespace().any(|word| word == controller);
        assert_eq!(has(&there), has(&on), "{controller} is enabled where it is there");
    }
    println!("controllers there: {there:?}, on for workers: {on:?}");
    stage.kill_launcher();
    stage.restart_launcher();
    let (_, out) = stage.sh("grep ^0:: /proc/self/cgroup");
    assert_eq!(out, "0::/\n");
    wait_gone(&prepared.pidfd);
    stage.kill_launcher();
    stage.restart_launcher();
    await_true(|| cgroup.workers().is_empty());
}

#[test]
fn limits_are_the_cgroups_where_it_has_the_controller_and_refused_where_not() {
    let Some((cgroup, stage)) = Stage::set_in_slice("limits") else { return };
    let there = std::fs::read_to_string(cgroup.workers.join("cgroup.controllers")).unwrap();
    let has = |name: &str| there.split_whitespace().any(|word| word == name);
    let mut orders = stage.orders(&["sh", "-c", "head -c 300000000 /dev/zero | tail -c 299999999 | wc -c"]);
    orders.limits.memory_bytes = Some(32 << 20);
    let prepared = stage.launch_or_fail(&orders);
    if has("memory") {
        wait_gone(&prepared.expect("prepared").pidfd);
        let record = record(&orders);
        assert_eq!((&record.outcome, record.oom), (&Outcome::Signal(9), true), "killed as a whole");
        println!("memory.max at work: {record:?}");
    } else {
        assert_eq!(prepared.err().expect("a refusal").step, "limit of memory: no controller");
        println!("not seen here: v2 has no memory controller ({there:?})");
    }
    let mut orders = stage.orders(&["sh", "-c", "sleep 1"]);
    (orders.limits.cpu_millis, orders.limits.tasks, orders.limits.best_effort) = (Some(500), 7, true);
    let prepared = stage.launch(&orders);
    let worker = cgroup.workers.join(format!("w-{}/worker", orders.worker));
    await_true(|| !cgroup.members(&format!("w-{}/worker", orders.worker)).is_empty());
    for (controller, file, value) in [("cpu", "cpu.max", "50000 100000\n"), ("pids", "pids.max", "7\n")] {
        let said = std::fs::read_to_string(worker.join(file)).ok();
        assert_eq!(said.as_deref(), has(controller).then_some(value), "{file}");
    }
    wait_gone(&prepared.pidfd);
}

#[test]
fn link_is_wired_and_the_worker_s_own_name_resolves_at_once() {
    let Some(stage) = Stage::set("wiring") else { return };
    let orders =
        stage.orders(&["sh", "-c", "ip -o addr show eth0; ip route; cat /etc/hosts; cat /sys/class/net/lo/flags"]);
    let prepared = stage.prepare(&orders);
    let netns = format!("--net=/proc/{}/fd/{}", std::process::id(), prepared.netns.as_raw_fd());
    for words in ["link add eth0 type veth peer name far", "link set far up"] {
        let made = Command::new("nsenter").args([&netns, "ip"]).args(words.split(' ')).status().unwrap();
        assert!(made.success());
    }
    let wiring = Wiring {
        no_ipv6: false,
        link: "eth0".to_owned(),
        addresses: vec![("10.88.0.9".parse().unwrap(), 22), ("fd00:88::9".parse().unwrap(), 64)],
        gateways: vec!["10.88.0.1".parse().unwrap(), "fd00:88::1".parse().unwrap()],
    };
    stage.release(&prepared, wiring);
    wait_gone(&prepared.pidfd);
    assert_eq!(record(&orders).outcome, Outcome::Code(1), "cat of a file in the empty /sys");
    let out = String::from_utf8(output(&orders, Stream::Stdout)).unwrap();
    for part in ["inet 10.88.0.9/22", "inet6 fd00:88::9/64", "default via 10.88.0.1 dev eth0"] {
        assert!(out.contains(part), "{out}");
    }
    assert!(out.ends_with("127.0.0.1\tlocalhost\n10.88.0.9\tweb-1\nfd00:88::9\tweb-1\n"), "{out}");
    // A link that is not there: the worker is not executed, and the record says why.
    let orders = stage.orders(&["/bin/true"]);
    let prepared = stage.prepare(&orders);
    stage.release(&prepared, Wiring { link: "eth0".to_owned(), ..Wiring::default() });
    let Outcome::NotStarted { code: 125, failure } = record(&orders).outcome else { panic!("executed unwired") };
    assert_eq!((failure.step.as_str(), failure.errno), ("link eth0", libc::ENODEV));
}

#[test]
fn full_disk_costs_output_but_never_the_record_or_the_worker() {
    let Some(stage) = Stage::set("full disk") else { return };
    let mut orders = stage.orders(&["sh", "-c", "head -c 1M /dev/zero; echo done > /tmp/x; cat /tmp/x >&2; exit 7"]);
    let small = Small::mount(&orders.state_dir, stage.uid);
    let record = stage.run(&orders);
    assert_eq!(record.outcome, Outcome::Code(7));
    let kept: usize = output(&orders, Stream::Stdout).len() + output(&orders, Stream::Stderr).len();
    assert!(kept > 64 << 10 && kept < 256 << 10, "{kept}");
    assert_eq!(record.log_bytes, (1 << 20) + 5);
    assert_eq!(record.log_dropped_bytes, record.log_bytes - kept as u64);
    // With room again, the gap is said before what comes next.
    small.grow();
    orders.generation = 2;
    orders.argv = vec!["echo".into(), "more".into()];
    stage.run(&orders);
    assert!(output(&orders, Stream::Stdout).ends_with(b"more\n"));
}

/// A file system that is soon full.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(path: &'a Path, uid: u32) -> Self {
        let options = format!("size=256k,mode=0700,uid={uid},gid={uid}");
        assert!(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "hf-small"])
                .arg(path)
                .status()
                .unwrap()
                .success()
        );
        Self(path)
    }

    fn grow(&self) {
        assert!(Command::new("mount").args(["-o", "remount,size=4m"]).arg(self.0).status().unwrap().success());
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn await_true(condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < until, "not in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn figures() {
    let Some(stage) = Stage::set("figures") else { return };
    let open = || fs::read_dir(format!("/proc/{}/fd", stage.launcher_pid())).unwrap().count();
    let open_before = open();
    let mut times: Vec<[Duration; 3]> = (0..100)
        .map(|_| {
            let orders = stage.orders(&["/bin/true"]);
            let began = Instant::now();
            let prepared = stage.prepare(&orders);
            let paused = began.elapsed();
            stage.release(&prepared, Wiring::default());
            let released = began.elapsed();
            record(&orders);
            [paused, released, began.elapsed()]
        })
        .collect();
    assert_eq!(open(), open_before, "descriptors of the launcher after 100 launches");
    for (index, what) in ["Prepared", "Released", "record of /bin/true"].into_iter().enumerate() {
        times.sort_by_key(|time| time[index]);
        let at = |n: usize| times[n][index];
        println!("Prepare to {what}: min {:?} median {:?} p90 {:?}", at(0), at(50), at(90));
    }
    let shims: Vec<_> = (0..20).map(|_| stage.launch(&stage.orders(&["sleep", "6"]))).collect();
    std::thread::sleep(Duration::from_secs(2));
    let pss: u64 = shims.iter().map(|shim| pss_kib(shim.shim_pid)).sum();
    println!("PSS of a shim at 20: {} KiB", pss / 20);
    for shim in &shims {
        wait_gone(&shim.pidfd);
    }
}

fn pss_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
