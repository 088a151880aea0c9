//! Fifty live workers do not notice what happens to Holdfast.

use crate::on_installed;
use anyhow::{Context, ensure};
use holdfast_smoke::{Census, DAEMON, Flow, HELPER, Host, LAUNCHER, Outside, Result, UNITS, scaled, until};
use std::net::SocketAddr;
use std::time::Duration;

const WORKERS: u32 = 50;

/// What is done to the product while its workers live.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Restart(&'static str),
    RestartAll,
    StopAndStart(&'static str),
    StopAndStartAll,
    Kill(&'static str),
    KillAll,
    DaemonReload,
    DaemonReexec,
}

const BLOWS: &[Blow] = &[
    Blow::Restart(HELPER),
    Blow::Restart(DAEMON),
    Blow::Restart(LAUNCHER),
    Blow::RestartAll,
    Blow::StopAndStart(HELPER),
    Blow::StopAndStart(DAEMON),
    Blow::StopAndStart(LAUNCHER),
    Blow::StopAndStartAll,
    Blow::Kill(HELPER),
    Blow::Kill(DAEMON),
    Blow::Kill(LAUNCHER),
    Blow::KillAll,
    Blow::DaemonReload,
    Blow::DaemonReexec,
];

impl Blow {
    fn strike(self, host: &Host) -> Result {
        let all = UNITS.join(" ");
        match self {
            Self::Restart(unit) => host.systemctl(&format!("restart {unit}")).map(drop),
            Self::RestartAll => host.systemctl(&format!("restart {all}")).map(drop),
            Self::StopAndStart(unit) => {
                host.systemctl(&format!("stop {unit}"))?;
                host.systemctl(&format!("start {unit}")).map(drop)
            }
            Self::StopAndStartAll => {
                host.systemctl(&format!("stop {all}"))?;
                host.systemctl(&format!("start {all}")).map(drop)
            }
            Self::Kill(unit) => host.kill_mains(&[unit]),
            Self::KillAll => host.kill_mains(&UNITS),
            Self::DaemonReload => host.systemctl("daemon-reload").map(drop),
            Self::DaemonReexec => host.systemctl("daemon-reexec").map(drop),
        }
    }
}

/// Fifty workers, one of them an echo server with two flows through its published port: by localhost and from outside.
fn with_fifty(host: &Host, scenario: impl FnOnce(&Census) -> Result) -> Result {
    let outside = Outside::attach(host)?;
    let alice = host.alice();
    alice.run_echo("echo", 7000)?;
    let many = format!("for i in $(seq 2 {WORKERS}); do holdfast run -d --name w$i -- sleep infinity || exit 1; done");
    alice.run_within(Duration::from_secs(120), &many)?.ok()?;
    let census = Census::take(host)?;
    ensure!(census.0.len() == WORKERS as usize, "{} of {WORKERS} live", census.0.len());
    let near = Flow::open(&host.netns(), SocketAddr::from(([127, 0, 0, 1], 7000)))?;
    let far = Flow::open(&outside.netns(), SocketAddr::new(Outside::HOST.parse()?, 7000))?;
    scenario(&census)?;
    for (name, flow) in [("by localhost", near), ("from outside", far)] {
        let echoes = flow.close().with_context(|| format!("the flow {name}"))?;
        ensure!(echoes > 10, "the flow {name} made {echoes} echoes");
        println!("flow {name}: {echoes} echoes, not reset");
    }
    Ok(())
}

/// After it, the product serves: within two seconds a new worker is launched and ends.
fn still_serves(host: &Host, after: &str) -> Result {
    let launch = || Ok(host.alice().run_within(Duration::from_secs(20), "holdfast run --rm -- echo served")?.code == 0);
    let took = until("a new worker is launched", Duration::from_secs(2), launch).with_context(|| after.to_owned())?;
    println!("{after}: a new worker ran after {} ms", took.as_millis());
    Ok(())
}

#[test]
fn fifty_workers_survive_every_restart_stop_and_kill() -> Result {
    on_installed(|host| {
        with_fifty(host, |census| {
            for blow in BLOWS {
                let after = format!("{blow:?}");
                blow.strike(host)?;
                let took = census.must_hold(host, &after)?;
                println!("{after}: 0 of {WORKERS} lost, ps right after {} ms", took.as_millis());
                still_serves(host, &after)?;
            }
            Ok(())
        })
    })
}

#[test]
fn fifty_workers_survive_random_rounds() -> Result {
    on_installed(|host| {
        with_fifty(host, |census| {
            let rounds = scaled(15);
            let mut dice = Dice::new();
            println!("seed {}", dice.0);
            for round in 1..=rounds {
                let blow = BLOWS[dice.below(BLOWS.len() as u64) as usize];
                // The next blow falls while the product still recovers from this one.
                let second = BLOWS[dice.below(BLOWS.len() as u64) as usize];
                let pause = Duration::from_millis(dice.below(300));
                let after = format!("round {round}: {blow:?}, {} ms, {second:?}", pause.as_millis());
                // A main that the last round has killed may be between two lives: the first blow needs one to fall on.
                until("every unit has a main", Duration::from_secs(5), || {
                    UNITS.iter().map(|unit| host.main_pid(unit)).collect::<Result<Vec<_>>>().map(|_| true)
                })
                .with_context(|| after.clone())?;
                blow.strike(host).with_context(|| after.clone())?;
                std::thread::sleep(pause);
                // A main that is between two lives cannot be killed: that blow is void.
                if let Err(error) = second.strike(host) {
                    println!("{after}: second blow void: {error}");
                }
                let took = census.must_hold(host, &after)?;
                println!("{after}: 0 of {WORKERS} lost, ps right after {} ms", took.as_millis());
            }
            still_serves(host, "all rounds")?;
            println!("{rounds} random rounds: 0 lost");
            Ok(())
        })
    })
}

#[test]
fn a_restart_refuses_no_call() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name stays -- sleep infinity")?;
        let calls = "n=0; while [ ! -e stop ]; do holdfast ps -q >/dev/null || { echo refused; exit 1; }; n=$((n + 1)); done; echo $n";
        let calling = host.alice().start(calls)?;
        for unit in [DAEMON, HELPER, DAEMON, LAUNCHER, DAEMON] {
            host.systemctl(&format!("restart {unit}"))?;
            std::thread::sleep(Duration::from_millis(200));
        }
        host.alice().run("touch stop")?.ok()?;
        let said = calling.wait_within(Duration::from_secs(30))?.ok()?;
        let count: u32 = said.text().parse()?;
        ensure!(count > 10, "{said}");
        println!("{count} calls during five restarts, none refused");
        Ok(())
    })
}

#[test]
fn workers_outlive_a_launch_that_is_cut_short() -> Result {
    on_installed(|host| {
        host.alice().run_worker("--name stays -- sleep infinity")?;
        let census = Census::take(host)?;
        for (round, unit) in (0..scaled(6)).zip(UNITS.iter().cycle()) {
            let launching = host.alice().start(&format!("holdfast run -d --name cut{round} -- sleep infinity"))?;
            std::thread::sleep(Duration::from_millis(u64::from(round)));
            host.kill_mains(&[unit])?;
            let said = launching.wait_within(Duration::from_secs(30))?;
            // Either it runs and is listed, or it is refused and nothing of it is there.
            holdfast_smoke::until("the product serves again", Duration::from_secs(5), || {
                Ok(host.alice().ps().is_ok())
            })?;
            let listed = host.alice().worker(&format!("cut{round}"));
            match said.code {
                0 => ensure!(listed?.live_pid()? > 0, "it was said to run\n{said}"),
                3 | 125 => {
                    // The call may have been lost after the launch: then the worker is on record, and is live or failed.
                    if let Ok(worker) = listed {
                        let settled = ["running", "failed", "stopped"].contains(&worker.phase.as_str());
                        ensure!(settled, "after the kill of {unit}: {worker:?}\n{said}");
                    }
                }
                _ => anyhow::bail!("not a promised exit code\n{said}"),
            }
            let _ = host.alice().holdfast(&format!("rm -f cut{round}"))?;
            census.must_hold(host, "a launch that was cut short")?;
        }
        Ok(())
    })
}

/// xorshift64*: the seed is printed, and `HOLDFAST_SEED` repeats a run.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let given = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64 | 1);
        Self(given.unwrap_or_else(clock))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
