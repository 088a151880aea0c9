//! While Holdfast is restarted or killed, what is typed is answered late: never refused, never lost, never done twice.

use crate::{on_fresh, on_installed};
use anyhow::ensure;
use holdfast_smoke::{DAEMON, HELPER, Host, LAUNCHER, Result, UNITS, scaled, until};
use std::collections::BTreeMap;
use std::time::Duration;

/// Clients at once, each with a new connection for each call.
const CLIENTS: usize = 16;
/// Longest that they may take for their last round.
const LAST_ROUND: Duration = Duration::from_secs(120);

/// One client: reads and launches by turns until told that it is enough. Each launch leaves a line of its own by the
/// worker itself; each call that did not do what it should is noted, with what it said.
const CLIENT: &str = r#"
k=$1; i=0
do_() { what=$1; shift; t=$(date +%s%N); "$@" >$k.out 2>$k.err || { echo "$what $k-$i: $? $(cat $k.err)" >> failed; }
        echo "$(( ($(date +%s%N) - t) / 1000000 )) $what" >> took.$k; }
written() { n=0; until [ $(grep -cx "d$k-$i" ledger/$k) -ge $1 ] || [ $n -gt 200 ]; do n=$((n+1)); sleep 0.1; done; }
while [ ! -e enough ]; do
    i=$((i+1))
    echo "$k-$i" >> wanted
    do_ run $holdfast run --rm --net none --volume $PWD/ledger:/ledger -- sh -c "echo $k-$i >> /ledger/$k"
    do_ ps $holdfast ps -q
    case $((i % 4)) in
    0)  echo "d$k-$i" >> wanted
        do_ run-d $holdfast run -d --name c$k-$i --net ${network:-none} --volume $PWD/ledger:/ledger -- sh -c "echo d$k-$i >> /ledger/$k; exec sleep 1000"
        written 1
        do_ stop $holdfast stop -t 0 c$k-$i
        do_ start $holdfast start c$k-$i; echo "d$k-$i" >> wanted
        written 2
        do_ rm $holdfast rm -f c$k-$i ;;
    1)  do_ events $holdfast events --filter kind=removed ;;
    2)  do_ network-create $holdfast network create n$k-$i
        do_ network-rm $holdfast network rm n$k-$i ;;
    esac
done
echo $k >> over
"#;

/// Runs the clients while `disturb` does its worst, then looks whether all is as it should be.
pub fn crowd(host: &Host, around: &str, disturb: impl FnOnce() -> Result) -> Result {
    let alice = host.alice();
    alice.feed("mkdir -p crowd/ledger && cat > crowd/client.sh", CLIENT.as_bytes())?.ok()?;
    alice.run("cd crowd && touch wanted failed over")?.ok()?;
    let start = format!(
        "cd crowd; {around}; export holdfast network; \
         for k in $(seq {CLIENTS}); do setsid sh client.sh $k </dev/null >>shell.log 2>&1 & done"
    );
    alice.run(&start)?.ok()?;
    disturb()?;
    alice.run("touch crowd/enough")?.ok()?;
    until("every client has ended", LAST_ROUND, || Ok(alice.run("wc -l < crowd/over")?.text() == CLIENTS.to_string()))?;
    let said = |file: &str| -> Result<String> { Ok(alice.run(&format!("cat crowd/{file}"))?.ok()?.text()) };
    let failed = said("failed")?;
    ensure!(failed.is_empty(), "refused or lost:\n{failed}");
    let count = |text: String| {
        text.lines().fold(BTreeMap::<String, usize>::new(), |mut all, line| {
            *all.entry(line.to_owned()).or_default() += 1;
            all
        })
    };
    let (wanted, done) = (count(said("wanted")?), count(said("ledger/*")?));
    let differs: Vec<_> = wanted
        .iter()
        .map(|(line, times)| (line, *times, done.get(line).copied().unwrap_or(0)))
        .filter(|(_, wanted, done)| wanted != done)
        .collect();
    ensure!(differs.is_empty() && done.len() == wanted.len(), "wanted and done differ: {differs:?}");
    let mut took: Vec<(u64, String)> = said("took.*")?
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(ms, what)| Some((ms.parse().ok()?, what.to_owned())))
        .collect();
    took.sort();
    let at = |share: usize| took.get(took.len() * share / 100).cloned();
    eprintln!(
        "{} calls, {} launches; median {:?} ms, p99 {:?} ms, worst {:?} ms",
        took.len(),
        done.values().sum::<usize>(),
        at(50),
        at(99),
        took.last()
    );
    Ok(())
}

#[test]
fn restarts_under_load_refuse_lose_and_double_nothing() -> Result {
    on_installed(|host| {
        crowd(host, "holdfast=holdfast network=bridge", || {
            for _ in 0..scaled(2) {
                for unit in [DAEMON, HELPER, LAUNCHER] {
                    host.systemctl(&format!("restart {unit}"))?;
                }
            }
            host.systemctl(&format!("restart {}", UNITS.join(" "))).map(drop)
        })
    })
}

#[test]
fn crashes_under_load_refuse_lose_and_double_nothing() -> Result {
    on_installed(|host| {
        crowd(host, "holdfast=holdfast network=bridge", || {
            for _ in 0..scaled(2) {
                for unit in [DAEMON, HELPER, LAUNCHER] {
                    host.kill_mains(&[unit])?;
                    until("it is back", Duration::from_secs(20), || Ok(host.main_pid(unit).is_ok_and(|pid| pid != 0)))?;
                }
            }
            host.kill_mains(&UNITS)
        })
    })
}

#[test]
fn crashes_of_a_session_under_load_refuse_lose_and_double_nothing() -> Result {
    const HOLDFAST: &str = "/mnt/holdfast-release/holdfast";
    on_fresh(|host| {
        host.root().run(&format!("{HOLDFAST} session start --owner alice"))?.ok()?;
        crowd(host, &format!("holdfast={HOLDFAST} network=bridge"), || {
            for _ in 0..scaled(2) {
                for program in ["holdfastd", "holdfast-helper", "holdfast-launcher"] {
                    // A program's name is cut after 15 characters (proc_pid_comm(5)).
                    let comm = &program[..program.len().min(15)];
                    let kill = format!("kill -9 $(pgrep -xo {comm})");
                    until("one was there to be killed", Duration::from_secs(20), || {
                        Ok(host.root().run(&kill)?.code == 0)
                    })?;
                }
            }
            Ok(())
        })?;
        host.root().run(&format!("{HOLDFAST} session stop"))?.ok()?;
        Ok(())
    })
}
