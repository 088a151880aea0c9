//! Programs with a JIT, threads of their own making and a directory of their own, in the cage as it is by default.
//!
//! Node and Java are this machine's, shown to the container read-only; where it has none, the test says so. Go's
//! runtime is in every container, in a program that Debian has (restic).

use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{Host, Result, until};
use std::time::Duration;

/// Compiles while it runs, in several threads; serves and asks itself; keeps files.
const NODE: &str = r#"
const fs = require("fs"), http = require("http"), os = require("os"), { Worker, isMainThread, parentPort } = require("worker_threads");
const hot = () => { let sum = 0; for (let i = 0; i < 3e6; i++) sum = (sum + i * i) % 1000003; return sum; };
if (!isMainThread) { parentPort.postMessage(hot()); } else {
  fs.mkdirSync("state", { recursive: true });
  const code = new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]));
  Promise.all([0, 1, 2, 3].map(() => new Promise((done) => new Worker(__filename).on("message", done)))).then((sums) => {
    const server = http.createServer((request, answer) => answer.end("hello")).listen(80, () => {
      http.get("http://localhost/", (answer) => answer.on("data", (text) => {
        fs.writeFileSync("state/kept", String(text) + os.cpus().length);
        console.log("node", String(text), new Set(sums).size, code instanceof WebAssembly.Module, Object.keys(os.networkInterfaces()).includes("eth0"));
        server.close(); process.exit(0);
      }));
    });
  });
}
"#;

const JAVA: &str = r#"
import java.net.*; import java.nio.file.*; import java.util.concurrent.*; import java.util.stream.*;
public class Main {
  static long hot(long n) { long sum = 0; for (long i = 0; i < n; i++) sum = (sum + i * i) % 1000003; return sum; }
  public static void main(String[] given) throws Exception {
    var pool = Executors.newFixedThreadPool(16);
    var sums = pool.invokeAll(Collections.nCopies(16, () -> hot(2000000))).stream().map(f -> { try { return f.get(); } catch (Exception e) { return -1L; } }).distinct().count();
    var server = com.sun.net.httpserver.HttpServer.create(new InetSocketAddress(80), 0);
    server.createContext("/", exchange -> { exchange.sendResponseHeaders(200, 5); exchange.getResponseBody().write("hello".getBytes()); exchange.close(); });
    server.start();
    var text = new String(new URL("http://localhost/").openStream().readAllBytes());
    Files.createDirectories(Path.of("state")); Files.writeString(Path.of("state/kept"), text);
    var link = NetworkInterface.getByName("eth0") != null;
    System.out.println("java " + text + " " + sums + " " + link + " " + (Runtime.getRuntime().maxMemory() > 0));
    System.exit(0);
  }
  static class Collections { static <T> java.util.List<T> nCopies(int n, T t) { return java.util.Collections.nCopies(n, t); } }
}
"#;

/// Runs it attached in a directory of its own, twice: the second time from what the first one left.
fn run_twice(host: &Host, name: &str, program: &str, text: &str, expected: &str) -> Result {
    let alice = host.alice();
    alice.feed(&format!("mkdir -p {name} && cat > {name}/{program}"), text.as_bytes())?.ok()?;
    let interpreter = match name {
        "node" => "node".to_owned(),
        _ => alice.run("ls -d /usr/lib/jvm/*/bin/java | head -n 1")?.ok()?.text(),
    };
    for _ in 0..2 {
        let line = format!("holdfast run --rm --workdir ~/{name} -- {interpreter} {program}");
        let said = alice.run_within(Duration::from_secs(120), &line)?.ok()?;
        ensure!(said.text() == expected, "{said}");
        println!("{name}: {:.1} s", said.took.as_secs_f32());
    }
    alice.run(&format!("grep -q hello {name}/state/kept"))?.ok()?;
    Ok(())
}

#[test]
fn trap_4_a_node_program_runs_in_the_default_cage() -> Result {
    on_installed(|host| {
        if host.alice().run("node --version")?.code != 0 {
            println!("SKIP: this machine has no /usr/bin/node");
            return Ok(());
        }
        // Node lists running links alone, and the kernel says up to a second late that one runs whose number is the same on
        // both its ends (linkwatch_urgent_event): the first one of a host that has no other.
        host.alice().holdfast("run --rm -- true")?.ok()?;
        run_twice(host, "node", "main.js", NODE, "node hello 1 true true")
    })
}

#[test]
fn trap_4_a_java_program_runs_in_the_default_cage() -> Result {
    on_installed(|host| {
        if host.alice().run("ls -d /usr/lib/jvm/*/bin/javac")?.code != 0 {
            println!("SKIP: this machine has no JDK in /usr/lib/jvm");
            return Ok(());
        }
        run_twice(host, "java", "Main.java", JAVA, "java hello 1 true true")
    })
}

#[test]
fn trap_4_a_go_program_runs_in_the_default_cage() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run(
            "mkdir -p vault/in && cp -r /usr/lib/python3/dist-packages /etc/services vault/in 2>/dev/null; true",
        )?;
        let restic = |arguments: &str| {
            let line = format!(
                "holdfast run --rm --workdir ~/vault --env RESTIC_PASSWORD=x --env XDG_CACHE_HOME=/tmp --env GOMAXPROCS=8 -- restic -r repository {arguments}"
            );
            alice.run_within(Duration::from_secs(120), &line)
        };
        let version = restic("version")?.ok()?.text();
        ensure!(version.contains("go1."), "{version}");
        restic("init")?.ok()?;
        restic("backup in")?.ok()?;
        let checked = restic("check --read-data")?.ok()?;
        ensure!(checked.text().contains("no errors were found"), "{checked}");
        restic("restore latest --target out")?.ok()?;
        alice.run("diff -r vault/in $(find vault/out -type d -name in)")?.ok()?;
        // Detached, it is stopped as it likes to be, and leaves no lock behind.
        alice.run("holdfast run -d --name serve --workdir ~/vault --env RESTIC_PASSWORD=x -- restic -r repository cat config")?.ok()?;
        until("it ended", Duration::from_secs(30), || Ok(alice.worker("serve")?.phase == "stopped"))?;
        println!("{version}");
        Ok(())
    })
}
