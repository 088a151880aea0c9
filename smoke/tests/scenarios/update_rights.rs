//! What a new release may do before it counts, and what cannot be slipped in between.

use crate::on_installed;
use crate::update::{runs, update};
use anyhow::ensure;
use holdfast_smoke::{Fault, Host, Mirror, Publisher, Result};
use serde_json::Value;

/// Words of our own environment that a program may hold: where the daemon is, and nothing that an update believes.
const OUR_WORDS: [&str; 2] = ["HOLDFAST_SESSION", "HOLDFAST_SOCKET"];

#[test]
fn t56_no_switch_and_no_variable_names_a_key_a_source_or_a_time() -> Result {
    on_installed(|host| {
        for program in ["holdfast", "holdfastd", "holdfast-helper", "holdfast-launcher", "holdfast-shim"] {
            let bytes = std::fs::read(host.path(&format!("/usr/local/lib/holdfast/current/{program}")))?;
            let words = bytes.split(|byte| !(byte.is_ascii_uppercase() || *byte == b'_'));
            for word in words.filter(|word| word.starts_with(b"HOLDFAST_") && word.len() > 9) {
                let word = String::from_utf8_lossy(word);
                // Two constants may lie side by side.
                let known = OUR_WORDS.iter().any(|ours| word.starts_with(ours));
                ensure!(known, "{program} knows the variable {word}");
            }
        }
        for switch in [
            "--key",
            "--pubkey-file",
            "--root",
            "--trust",
            "--source",
            "--url",
            "--manifest-url",
            "--channel",
            "--now",
            "--clock",
            "--time",
            "--insecure",
            "--no-verify",
            "--force",
            "--seq",
            "--floor",
            "--config",
        ] {
            for verb in ["update", "update --check", "system install"] {
                host.root().run(&format!("holdfast {verb} {switch}=x"))?.exits(2)?;
            }
        }
        let help =
            host.root().run("holdfast update --help; holdfast system install --help; holdfast --help")?.ok()?.text();
        for word in ["--key", "--url", "--now", "--source", "--insecure"] {
            ensure!(!help.contains(word), "--help says {word}");
        }
        Ok(())
    })
}

/// A daemon that says who tries it, to a file that anybody may write.
const CANARY: &str = r#"
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
int main(int count, char **words) {
    char line[256];
    FILE *said = fopen("/tmp/canary", "a"), *status = fopen("/proc/self/status", "r");
    while (said && status && fgets(line, sizeof line, status))
        if (!strncmp(line, "Uid", 3) || !strncmp(line, "Gid", 3) || !strncmp(line, "Groups", 6) || !strncmp(line, "Cap", 3) || !strncmp(line, "NoNewPrivs", 10))
            fputs(line, said);
    struct sockaddr_in to = { AF_INET, htons(22222), { htonl(INADDR_LOOPBACK) } };
    if (said) fprintf(said, "Network:\t%d\n", connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof to));
    if (said) fprintf(said, "Shadow:\t%d\n", access("/etc/shadow", R_OK));
    if (said) fclose(said);
    if (count > 1 && !strcmp(words[1], "--version")) { puts("holdfastd 0.1.1"); return 0; }
    return 1;
}
"#;

#[test]
fn t57_a_new_release_is_tried_as_the_owner_and_with_nothing() -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        publisher.take_next("canary")?;
        publisher.replace("canary", "holdfastd", CANARY)?;
        publisher.publish("canary", "0.1.1", 5, "")?;
        host.root().run("touch /tmp/canary && chmod 666 /tmp/canary")?.ok()?;
        let _listener = host.root().start("exec nc -lk 127.0.0.1 22222")?;
        let said = update(host, "--yes --json")?.refuses(5, &["preflight-failed"])?;
        ensure!(said.json::<Value>()?["refusal"] == "preflight-failed", "{said}");
        let seen = host.root().run("cat /tmp/canary")?.ok()?.text();
        let values = |name: &str| -> Vec<String> {
            let lines = seen.lines().filter_map(|line| line.strip_prefix(&format!("{name}:")));
            lines.map(|rest| rest.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        };
        ensure!(values("Uid").len() == 2, "it was tried {} times\n{seen}", values("Uid").len());
        for (name, wanted) in [
            ("Uid", "1000 1000 1000 1000"),
            ("Gid", "1000 1000 1000 1000"),
            ("Groups", ""),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapInh", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Network", "-1"),
            ("Shadow", "-1"),
        ] {
            ensure!(values(name).iter().all(|value| value == wanted), "{name}: it was tried with more\n{seen}");
        }
        runs(host, "0.1.0")
    })
}

fn follow(publisher: &Publisher, mirror: &Mirror) -> Result {
    publisher.configure(&format!("sources = [\"{}\"]\n", mirror.source()))
}

#[test]
fn t61_a_file_that_is_swapped_after_the_check_is_never_in_place() -> Result {
    on_installed(|host| {
        let publisher = Publisher::new(host)?;
        publisher.trust()?;
        publisher.take_next("next")?;
        publisher.publish("next", "0.1.1", 5, "")?;
        let releases = |host: &Host| -> Result<String> {
            Ok(host
                .root()
                .run("ls -A /usr/local/lib/holdfast/releases; stat -c '%U %a' /usr/local/lib/holdfast/releases")?
                .ok()?
                .text())
        };
        let before = releases(host)?;
        ensure!(before.ends_with("root 755"), "others may write there: {before}");
        for name in ["holdfast", "holdfastd", "holdfast-shim", "rules.toml", "holdfastd.template.service"] {
            let mirror = Mirror::start(host, Fault::Spoiled(name))?;
            follow(&publisher, &mirror)?;
            let said = update(host, "--yes --json")?;
            ensure!(said.code == 5, "{name}: other bytes were put in place\n{said}");
            ensure!(said.json::<Value>()?["refusal"] == "wrong-digest" && said.stderr.contains(name), "{name}: {said}");
            ensure!(releases(host)? == before, "{name}: something stays: {}", releases(host)?);
        }
        runs(host, "0.1.0")
    })
}
