//! What can be said to us that is no name: by the command line, by the daemon's calls, by the files a worker would forge.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{Census, DAEMON, Result, scaled, until};
use std::time::Duration;

#[test]
fn t27_no_word_for_a_worker_is_taken_for_a_path() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.run_worker("--name w -- sleep infinity")?;
        alice
            .run("mkdir -p /var/lib/holdfast/owners/alice/x && echo kept > /var/lib/holdfast/owners/alice/x/log")?
            .ok()?;
        let census = Census::take(host)?;
        let files = "cd /var/lib/holdfast/owners && find . -type f ! -name '*.db*' -exec md5sum {} + | sort; ls /run/holdfast/owners/alice/workers";
        let before = host.root().run(files)?.text();
        for (name, text) in
            [("h2.py", include_str!("../probes/h2.py")), ("words.py", include_str!("../probes/words.py"))]
        {
            host.root().feed(&format!("mkdir -p /srv/probes && cat > /srv/probes/{name}"), text.as_bytes())?.ok()?;
        }
        let script = "python3 /srv/probes/words.py /run/holdfast/owners/alice/daemon.sock";
        let said = alice.run_within(Duration::from_secs(180), script)?.ok()?;
        let text = said.text();
        ensure!(text.lines().last().is_some_and(|line| line.starts_with("tried ")), "{said}");
        ensure!(text.lines().count() == 1, "a word was taken for something\n{said}");
        println!("{text}");
        census.must_hold(host, "words that are no names")?;
        ensure!(host.root().run(files)?.text() == before, "files changed:\n{before}\n{}", host.root().run(files)?);
        ensure!(host.root().run("ls /tmp/pwned /etc/pwned 2>/dev/null")?.text().is_empty());
        Ok(())
    })
}

#[test]
fn t44_a_worker_cannot_write_its_own_end() -> Result {
    on_installed(|host| {
        let alice = host.alice();
        alice.feed("cat > forge.py", include_bytes!("../probes/forge.py"))?.ok()?;
        // With everything of hers bound in on purpose, as far as it goes.
        let id = alice.run_worker(
            "--name forger --volume ~/forge.py:/tmp/forge.py:ro --volume /var/lib:/mnt/state --volume /run:/mnt/run -- python3 /tmp/forge.py",
        )?;
        let code = alice.wait_code("forger")?;
        let logs = alice.holdfast("logs forger")?.ok()?.text();
        ensure!(logs.lines().last().is_some_and(|line| line.starts_with("tried ")), "the forger did not run: {logs}");
        ensure!(logs.lines().count() == 1, "a worker wrote where its end is kept:\n{logs}");
        ensure!(code == "7", "the worker's end is told as {code}, it ended with 7");
        println!("{logs}; its end and its output are told as they were");
        // The owner, who may write there, writes garbage: what is told is the truth or nothing, and the others live.
        alice.run_worker("--name lives -- sleep infinity")?;
        let census = Census::take(host)?;
        let spoil = format!(
            "import os, random, sys
random.seed(int(sys.argv[1])); d = '/var/lib/holdfast/owners/alice/workers/{id}'
names = [n for n in os.listdir(d) if n.startswith('exit.')]
for n in names:
    p = os.path.join(d, n); b = bytearray(open(p, 'rb').read()); k = random.randrange(4)
    if k == 0: b = b[:random.randrange(len(b))]
    if k == 1: b[random.randrange(len(b))] ^= 1 << random.randrange(8)
    if k == 2: b += random.randbytes(random.randrange(1, 70000))
    if k == 3: b = random.randbytes(random.randrange(200))
    open(p + '.x', 'wb').write(b); os.rename(p + '.x', p)
print(len(names))"
        );
        for round in 0..scaled(5) {
            host.keep_down(&[DAEMON])?;
            let said = alice.feed(&format!("python3 - {round}"), spoil.as_bytes())?.ok()?;
            ensure!(said.text() != "0", "no exit record was found\n{said}");
            host.bring_up(&[DAEMON])?;
            until("it answers", Duration::from_secs(20), || Ok(Census::take(host)? == census))?;
            let told = alice.holdfast("inspect --json forger")?.ok()?;
            let told: serde_json::Value = told.json()?;
            let phase = told["phase"].as_str().context("phase")?;
            ensure!(["stopped", "failed"].contains(&phase), "{told}");
        }
        alice.holdfast("rm forger")?.ok()?;
        Ok(())
    })
}
