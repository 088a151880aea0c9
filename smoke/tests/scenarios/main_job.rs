//! The main job: two workers on a bridge, one published; each verb does what its word says.

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{ExitShown, Host, Outside, Result, until};
use serde_json::Value;
use std::time::{Duration, Instant};

const PAGE: &str = "hello from a real directory";

fn with_site(host: &Host) -> Result {
    host.alice().run(&format!("mkdir -p site && echo '{PAGE}' > site/index.html"))?.ok()?;
    host.alice().run_web("web", 8080, "/home/alice/site")
}

#[test]
fn a_published_page_is_had_by_localhost_by_address_from_outside_and_from_a_worker() -> Result {
    on_installed(|host| {
        let outside = Outside::attach(host)?;
        with_site(host)?;
        let alice = host.alice();
        let fetch = "curl -fsS --max-time 5";
        ensure!(alice.run(&format!("{fetch} http://localhost:8080/"))?.ok()?.text() == PAGE);
        ensure!(alice.run(&format!("{fetch} http://127.0.0.1:8080/"))?.ok()?.text() == PAGE);
        ensure!(alice.run(&format!("{fetch} http://{}:8080/", Outside::HOST))?.ok()?.text() == PAGE);
        ensure!(outside.run(&format!("{fetch} http://{}:8080/", Outside::HOST))?.ok()?.text() == PAGE);
        let other = alice.holdfast(&format!("run --rm -- {fetch} http://{}:8080/", Outside::HOST))?.ok()?;
        ensure!(other.text() == PAGE, "{other}");
        let past = alice.holdfast("run --rm -- curl -fsS --max-time 2 http://web/")?;
        ensure!(past.code != 0, "a worker of the default network reached another past its published port\n{past}");
        // The worker saw who it was: http.server writes the client's address to stderr.
        let log = alice.holdfast("logs web")?.ok()?;
        ensure!(log.stderr.contains(&format!("{} - - ", Outside::CLIENT)), "no true client address\n{log}");
        Ok(())
    })
}

#[test]
fn a_worker_reaches_the_outside_behind_the_hosts_address() -> Result {
    on_installed(|host| {
        let outside = Outside::attach(host)?;
        let server = outside.start("exec python3 -u -m http.server --bind 198.51.100.7 8000")?;
        until("the server outside answers", Duration::from_secs(5), || {
            Ok(host.alice().run("curl -fsS -o /dev/null http://198.51.100.7:8000/")?.code == 0)
        })?;
        host.alice()
            .holdfast("run --rm -- curl -fsS -o /dev/null --max-time 5 http://198.51.100.7:8000/from-worker/../")?
            .ok()?;
        let said = server.kill()?;
        ensure!(said.stderr.lines().count() >= 2, "{said}");
        ensure!(
            said.stderr.lines().filter(|line| line.contains("GET")).all(|line| line.starts_with(Outside::HOST)),
            "{said}"
        );
        // Nobody outside reaches a worker but by its published ports.
        let address = {
            host.alice().run_echo("hidden", 7070)?;
            host.alice().worker("hidden")?.address()?.to_owned()
        };
        outside.run("ip route add 10.88.0.0/16 via 203.0.113.1")?.ok()?;
        let direct = outside.run(&format!("nc -z -w 2 {address} 7000"))?;
        ensure!(direct.code != 0, "a port that is not published answered\n{direct}");
        Ok(())
    })
}

#[test]
fn host_services_metadata_and_loopback_are_closed_to_workers() -> Result {
    on_installed(|host| {
        Outside::attach(host)?;
        let service = host.root().start("exec python3 -m http.server 9999")?;
        until("a host service listens", Duration::from_secs(5), || {
            Ok(host.root().run("curl -fsS -o /dev/null http://127.0.0.1:9999/")?.code == 0)
        })?;
        host.root().run("ip address add 169.254.169.254/32 dev lo")?.ok()?;
        let gateway = host.alice().holdfast("run --rm -- ip route show default")?.ok()?.text();
        let gateway = gateway.split_whitespace().nth(2).unwrap_or("10.88.0.1").to_owned();
        for target in [gateway.as_str(), Outside::HOST, "169.254.169.254", "127.0.0.1"] {
            let tried = host
                .alice()
                .holdfast(&format!("run --rm -- curl -s -o /dev/null --max-time 2 http://{target}:9999/"))?;
            ensure!(tried.code != 0, "a worker reached the host at {target}\n{tried}");
        }
        drop(service);
        Ok(())
    })
}

#[test]
fn run_prints_ids_codes_and_streams_as_promised() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let said = alice.holdfast("run --rm -- sh -c 'echo out; echo err >&2; exit 42'")?.exits(42)?;
        ensure!(said.text() == "out" && said.stderr.lines().any(|line| line == "err"), "{said}");
        alice.holdfast("run --rm -- sh -c 'kill -TERM $$'")?.exits(128 + 15)?;
        alice.holdfast("run --rm -- sh -c 'kill -SEGV $$'")?.exits(128 + 11)?;
        alice.holdfast("run --rm -- /no/such/program")?.exits(127)?;
        alice.holdfast("run --rm -- no-such-program")?.exits(127)?;
        alice.holdfast("run --rm -- /etc/passwd")?.exits(126)?;
        alice.holdfast("run -d -- /no/such/program")?.exits(127)?;
        alice.holdfast("run -d -- /etc/passwd")?.exits(126)?;
        ensure!(alice.ps_all()?.is_empty(), "what never ran is not listed");
        let id = alice.run_worker("--name n1 -- sh -c 'exit 3'")?;
        ensure!(alice.wait_code(&id)? == "3" && alice.wait_code("n1")? == "3" && alice.wait_code(&id[..6])? == "3");
        ensure!(alice.holdfast("wait n1 n1")?.ok()?.text() == "3\n3");
        Ok(())
    })
}

#[test]
fn stop_returns_when_the_worker_is_gone_and_rm_forgets_it() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker(
            "--name polite -- sh -c 'trap \"echo bye; exit 9\" TERM; echo ready; while :; do sleep 0.1; done'",
        )?;
        until("it is ready", Duration::from_secs(5), || Ok(alice.holdfast("logs polite")?.text().contains("ready")))?;
        alice.holdfast("rm polite")?.refuses(5, &["polite"])?;
        let pid = alice.worker("polite")?.live_pid()?;
        alice.holdfast("stop polite")?.ok()?;
        ensure!(!host.path(&format!("/proc/{pid}")).exists(), "stop returned before it was gone");
        ensure!(alice.holdfast("logs polite")?.ok()?.text().ends_with("bye"));
        ensure!(alice.worker("polite")?.exit == Some(ExitShown::code(9)));
        ensure!(alice.worker("polite")?.phase == "stopped");
        // A deaf one: SIGKILL after its own grace.
        alice.run_worker(
            "--name deaf --stop-timeout 1 -- sh -c 'trap \"\" TERM; echo ready; while :; do sleep 0.1; done'",
        )?;
        until("it is ready", Duration::from_secs(5), || Ok(alice.holdfast("logs deaf")?.text().contains("ready")))?;
        let began = Instant::now();
        alice.holdfast("stop deaf")?.ok()?;
        ensure!(began.elapsed() > Duration::from_millis(900) && began.elapsed() < Duration::from_secs(4));
        ensure!(alice.worker("deaf")?.exit == Some(ExitShown::signal(9)));
        alice.holdfast("rm polite deaf")?.ok()?;
        ensure!(alice.ps_all()?.is_empty());
        alice.holdfast("logs polite")?.refuses(4, &["polite"])?;
        let left = host.root().run("ls /var/lib/holdfast/owners/alice/workers")?;
        ensure!(left.text().is_empty(), "rm forgets the output too\n{left}");
        Ok(())
    })
}

#[test]
fn start_restart_and_kill_do_what_the_words_say() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name w --stop-signal INT --publish 8081:7000 -- sh -c 'trap \"exit 5\" INT; trap \"echo hup\" HUP; echo up; while :; do sleep 0.1; done'")?;
        until("it is up", Duration::from_secs(5), || Ok(alice.holdfast("logs w")?.text().contains("up")))?;
        alice.holdfast("kill -s HUP w")?.ok()?;
        until("it saw the signal", Duration::from_secs(5), || Ok(alice.holdfast("logs w")?.text().contains("hup")))?;
        let first = alice.worker("w")?;
        alice.holdfast("restart w")?.ok()?;
        let second = alice.worker("w")?;
        ensure!(second.id == first.id && second.generation == first.generation + 1 && second.pid != first.pid);
        ensure!(second.exit == Some(ExitShown::code(5)), "the stop signal was not SIGINT: {second:?}");
        alice.holdfast("start w")?.refuses(5, &["w"])?;
        alice.holdfast("kill w")?.ok()?;
        ensure!(alice.wait_code("w")? == "137");
        alice.holdfast("start w")?.ok()?;
        ensure!(alice.worker("w")?.generation == first.generation + 2);
        ensure!(alice.worker("w")?.ports == first.ports);
        alice.holdfast("rm -f w")?.ok()?;
        Ok(())
    })
}

#[test]
fn logs_follow_tail_and_cap() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name l -- sh -c 'for i in $(seq 1 100); do echo line $i; done; sleep 1; echo last'")?;
        let followed = alice.holdfast("logs -f l")?.ok()?.text();
        ensure!(followed.lines().count() == 101 && followed.ends_with("last"), "{followed}");
        ensure!(alice.holdfast("logs --tail 2 l")?.ok()?.text() == "line 100\nlast");
        alice.run_worker("--name capped --log-size 1MiB --log-files 4 -- sh -c 'seq 1 1000000'")?;
        alice.wait_code("capped")?;
        let shown = alice.holdfast("logs capped")?.ok()?;
        ensure!(
            shown.stdout.len() <= 1024 * 1024 && shown.stdout.len() > 512 * 1024,
            "{} bytes kept",
            shown.stdout.len()
        );
        ensure!(shown.text().ends_with("\n1000000"), "the newest bytes are kept");
        let inspected: Value = alice.holdfast("inspect --json capped")?.ok()?.json()?;
        let log = &inspected["log"];
        ensure!(log["bytes"] == 6_888_896_u64, "{log}");
        ensure!(
            log["dropped"].as_u64() == Some(6_888_896 - shown.stdout.len() as u64),
            "{log}, kept {}",
            shown.stdout.len()
        );
        ensure!(shown.stderr.contains(&log["dropped"].to_string()), "logs says how many bytes went\n{}", shown.stderr);
        Ok(())
    })
}

#[test]
fn json_has_the_fields_of_the_contract() -> Result {
    on_installed(|host| {
        with_site(host)?;
        let alice = host.alice();
        let web = alice.worker("web")?;
        ensure!(web.phase == "running" && web.owner == "alice" && web.network == "bridge" && web.generation == 1);
        ensure!(
            web.command == ["python3", "-u", "-m", "http.server", "80"]
                && web.exit.is_none()
                && web.finished_at.is_none()
        );
        ensure!(
            web.ports.len() == 1
                && web.ports[0].host == 8080
                && web.ports[0].worker == 80
                && web.ports[0].proto == "tcp"
        );
        ensure!(web.address()?.starts_with("10.88."), "{:?}", web.addresses);
        let pid = web.live_pid()?;
        ensure!(
            host.alice()
                .run(&format!("tr '\\0' ' ' < /proc/{pid}/cmdline"))?
                .text()
                .starts_with("python3 -u -m http.server")
        );
        let inspected: Value = alice.holdfast("inspect --json web")?.ok()?.json()?;
        for field in ["spec", "limits", "shim", "log", "history", "id", "phase"] {
            ensure!(inspected.get(field).is_some(), "inspect --json lacks {field}: {inspected}");
        }
        ensure!(inspected["shim"]["pid"].as_u64().is_some_and(|shim| shim != u64::from(pid)), "{inspected}");
        let status: Value = alice.holdfast("status --json")?.ok()?.json()?;
        ensure!(status["workers"]["live"] == 1 && status["workers"]["failed"] == 0, "{status}");
        let ports: Value = alice.holdfast("port --json web")?.ok()?.json()?;
        ensure!(ports[0]["host"] == 8080, "{ports}");
        ensure!(alice.holdfast("port web")?.ok()?.text().contains("8080"));
        for verb in ["version --json", "doctor --json"] {
            let _: Value = alice.holdfast(verb)?.json()?;
        }
        Ok(())
    })
}

#[test]
fn inside_a_worker_it_is_as_the_contract_says() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        let inside = |line: &str| -> Result<String> {
            Ok(alice.holdfast(&format!("run --rm --name probe -- sh -c '{line}'"))?.ok()?.text())
        };
        ensure!(inside("id -u; id -g; pwd; hostname")? == "1000\n1000\n/\nprobe");
        let env = inside("env | cut -d= -f1 | grep -v \"^PWD$\\|^SHLVL$\\|^_$\\|^OLDPWD$\" | sort | tr \"\\n\" \" \"")?;
        ensure!(env == "HOME HOSTNAME LANG PATH TERM USER", "{env}");
        ensure!(
            inside(
                "ls -A /home /run /tmp /var/tmp /var/lib/holdfast 2>/dev/null | grep -v : | grep -v ^$ | grep -v ^alice$ | wc -l"
            )? == "0"
        );
        ensure!(inside("touch /etc/x /usr/x /x 2>/dev/null; echo $?")? == "1");
        ensure!(inside("touch /tmp/x /run/x /dev/shm/x && echo written")? == "written");
        ensure!(inside("cat /proc/sys/net/ipv4/ip_unprivileged_port_start")? == "0");
        ensure!(inside("ls /proc/self/fd | wc -l")? == "4", "0, 1, 2, and ls's own");
        ensure!(inside("cat /proc/1/comm")?.contains("holdfast-shim"));
        let said = alice.run("mkdir -p d && echo FROM=file > e && holdfast run --rm --env A=b --env-file e --workdir ~/d --volume /etc:/mnt:ro -- sh -c 'echo $A $FROM; pwd; touch made; cat /mnt/hostname'")?.ok()?;
        ensure!(said.text() == "b file\n/home/alice/d\nsmoke", "{said}");
        alice.run("test -f d/made")?.ok()?;
        Ok(())
    })
}

#[test]
fn a_worker_without_network_has_loopback_alone() -> Result {
    on_installed(|host| {
        let links = host.alice().holdfast("run --rm --net none -- ip -o link")?.ok()?.text();
        ensure!(links.lines().count() == 1 && links.contains("LOOPBACK,UP"), "{links}");
        host.alice().holdfast("run --rm --net none --publish 8080:80 -- true")?.exits(125)?;
        Ok(())
    })
}
