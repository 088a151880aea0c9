//! T39, T40: what a worker reaches of the host, of its metadata service and of other workers, by IPv4 and by IPv6.

use super::network::tables;
use crate::on_fresh;
use anyhow::{Context, ensure};
use holdfast_smoke::{Host, Outside, Result, Running, scaled, until};
use std::collections::BTreeSet;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// Where programs of the host listen, on all of its addresses; it is 8080 that a worker publishes.
const LISTENED: [u16; 4] = [22, 111, 9001, 53535];

/// Listens there by IPv4 and IPv6.
const LISTEN: &str = "import socket, sys, time
kept = [socket.create_server((\"::\", int(port)), family=socket.AF_INET6, dualstack_ipv6=True) for port in sys.argv[1:]]
print(\"up\", flush=True)
time.sleep(1000)";

/// Prints what comes to UDP port 9999.
const SINK: &str = "import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind((\"::\", 9999)); print(\"up\", flush=True)
while True: print(\"got\", s.recvfrom(99)[0].decode(), flush=True)";

/// Two owners; a worker that publishes, others that do not, programs of the host that listen, metadata addresses on the host
/// itself, so that nothing but the rules can keep a worker from them.
fn on_host_to_scan(scenario: impl FnOnce(&Host, &Outside) -> Result) -> Result {
    on_fresh(|host| {
        let outside = Outside::attach(host)?;
        outside.speak_ipv6()?;
        let more =
            "set -e; for a in 169.254.169.254/32 fd00:ec2::254/128 fd20:ce::254/128; do ip address add $a dev lo; done";
        host.root().run(more)?.ok()?;
        for owner in ["alice", "bob"] {
            host.install(&format!("--owner {owner}"))?;
        }
        let (alice, bob) = (host.alice(), host.as_user("bob"));
        alice.holdfast("network create shop")?.ok()?;
        let serve = format!("-- python3 -c '{LISTEN}' 80 22 9001");
        alice.run_worker(&format!("--name web -p 8080:80 {serve}"))?;
        alice.run_worker(&format!("--name shop --network shop {serve}"))?;
        bob.run_worker(&format!("--name his {serve}"))?;
        let ports = LISTENED.map(|port| port.to_string()).join(" ");
        host.root().feed("cat > /run/listen.py", LISTEN.as_bytes())?.ok()?;
        let listens = host.root().start(&format!("exec python3 -u /run/listen.py {ports}"))?;
        for address in ["169.254.169.254", Outside::HOST, "::1", "fd00:ec2::254"] {
            until(
                "the host listens",
                PATIENCE,
                || Ok(host.root().run(&format!("nc -z -w 1 {address} 22"))?.code == 0),
            )?;
        }
        scenario(host, &outside)?;
        drop(listens);
        Ok(())
    })
}

/// All addresses of a worker, those of IPv4 first.
fn addresses(host: &Host, owner: &str, name: &str) -> Result<[String; 2]> {
    let bare = |address: &String| address.split('/').next().unwrap_or_default().to_owned();
    let all: Vec<String> = host.as_user(owner).worker(name)?.addresses.iter().map(bare).collect();
    <[String; 2]>::try_from(all).ok().with_context(|| format!("{name} of {owner} has not two addresses"))
}

/// What answers a worker of the default network.
fn scan(host: &Host, targets: &[&str]) -> Result<BTreeSet<String>> {
    let alice = host.alice();
    alice.feed("cat > scan.py", include_bytes!("../probes/scan.py"))?.ok()?;
    let ports = format!("1-{},8000-9100,53535,65535", scaled(1500).min(7999));
    let scan = format!("run --rm -v ~/scan.py:/tmp/scan.py:ro -- python3 /tmp/scan.py {ports} {}", targets.join(" "));
    let said = alice.run_within(Duration::from_secs(600), &format!("holdfast {scan}"))?.ok()?.text();
    let (found, tried) = said.rsplit_once('\n').unwrap_or(("", &said));
    println!("{tried} ports at {} addresses: {} answer", targets.len(), found.lines().count());
    ensure!(tried.starts_with("tried "), "{said}");
    Ok(found.lines().map(str::to_owned).collect())
}

fn open(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|address| format!("{address} 8080 open")).collect()
}

#[test]
fn t39_a_worker_reaches_no_service_of_the_host_and_no_metadata() -> Result {
    on_host_to_scan(|host, _| {
        let gateway_of = |address: &str| {
            let number = u32::from(address.parse::<std::net::Ipv4Addr>().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED));
            std::net::Ipv4Addr::from((number & !0x3ff) + 1).to_string()
        };
        let [web, _] = addresses(host, "alice", "web")?;
        let [shop, _] = addresses(host, "alice", "shop")?;
        let [his, _] = addresses(host, "bob", "his")?;
        let (own, other) = (gateway_of(&web), gateway_of(&his));
        let found = scan(host, &[&own, &other, Outside::HOST, "169.254.169.254", &web, &shop, &his])?;
        let allowed = open(&[&own, &other, Outside::HOST]);
        ensure!(found == allowed, "reached {found:?}, allowed is {allowed:?}");
        Ok(())
    })
}

fn start_sink(host: &Host, outside: Option<&Outside>) -> Result<Running> {
    host.root().feed("cat > /run/sink.py", SINK.as_bytes())?.ok()?;
    let line = "exec python3 -u /run/sink.py";
    let sink = outside.map_or_else(|| host.root().start(line), |outside| outside.start(line))?;
    until("the sink listens", PATIENCE, || {
        let list = "ss -Hlun sport = :9999";
        let said = outside.map_or_else(|| host.root().run(list), |outside| outside.run(list))?;
        Ok(said.text().contains("9999"))
    })?;
    Ok(sink)
}

#[test]
fn t40_ipv6_leads_no_further_than_ipv4() -> Result {
    on_host_to_scan(|host, outside| {
        let (alice, root) = (host.alice(), host.root());
        let [_, web] = addresses(host, "alice", "web")?;
        let [_, shop] = addresses(host, "alice", "shop")?;
        let [_, his] = addresses(host, "bob", "his")?;
        let of_uplink =
            root.run("ip -6 -o address show dev uplink scope link | awk '{print $4}' | cut -d/ -f1")?.text();
        let web_pid = alice.worker("web")?.live_pid()?;
        let gateway = root.run(&format!("nsenter -t {web_pid} -n ip -6 route show default | cut -d' ' -f3"))?.text();
        ensure!(gateway.starts_with("fe80::") && of_uplink.starts_with("fe80::"), "{gateway} {of_uplink}");
        let links = [format!("{gateway}%eth0"), format!("{of_uplink}%eth0"), "fe80::1%eth0".to_owned()];
        let mut targets = vec![Outside::HOST6, "fd00:ec2::254", "fd20:ce::254", &web, &shop, &his];
        targets.extend(links.iter().map(String::as_str));
        let found = scan(host, &targets)?;
        let allowed = open(&[Outside::HOST6]);
        ensure!(found == allowed, "reached {found:?}, allowed is {allowed:?}");
        forged(host, outside, web_pid, [&web, &his, &gateway])
    })
}

/// Whatever a worker could put on its link with every right over its own namespace: the host hears and believes nothing of it.
fn forged(host: &Host, outside: &Outside, pid: u32, [own, other, gateway]: [&str; 3]) -> Result {
    let root = host.root();
    let (inside, beyond) = (start_sink(host, None)?, start_sink(host, Some(outside))?);
    root.feed("cat > /run/frames6.py", include_bytes!("../probes/frames6.py"))?.ok()?;
    let mac =
        root.run(&format!("nsenter -t {pid} -n ip -o link show eth0 | grep -o 'ether [0-9a-f:]*' | cut -d' ' -f2"))?;
    // The one packet that is allowed has the host look for its router on the uplink.
    let tables = || -> Result<String> {
        let of_uplink = |line: &&str| !line.contains("dev uplink lladdr") && !line.contains("dev uplink FAILED");
        Ok(tables(host, pid)?.lines().filter(of_uplink).map(|line| format!("{line}\n")).collect())
    };
    let before = tables()?;
    let forge = format!(
        "nsenter -t {pid} -n python3 /run/frames6.py {own} {other} {gateway} {} {} {}",
        Outside::HOST6,
        Outside::SERVER6,
        mac.text()
    );
    let said = root.run(&forge)?.ok()?;
    ensure!(!said.text().contains("heard"), "the host answered\n{said}");
    root.run("bash -c 'echo control > /dev/udp/::1/9999'")?.ok()?;
    let after = tables()?;
    ensure!(after == before, "a table changed\nbefore {before}\nafter {after}");
    std::thread::sleep(Duration::from_millis(300));
    let (inside, beyond) = (inside.kill()?, beyond.kill()?);
    let words = |text: String| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    let expected = |word: &str| BTreeSet::from(["up".to_owned(), format!("got {word}")]);
    ensure!(words(inside.text().trim().to_owned()) == expected("control"), "the host heard\n{inside}");
    ensure!(words(beyond.text().trim().to_owned()) == expected("allowed"), "the outside heard\n{beyond}");
    println!("{}: neither the host nor the outside heard any but the one that is allowed", said.text());
    Ok(())
}
