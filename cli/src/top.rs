//! `holdfast top`: what workers use, live. The terminal is given back as it was, whatever ends it.

mod model;
mod screen;

use crate::args::stats::TopArgs;
use crate::caller::Caller;
use crate::client::{self, Daemon};
use crate::commands::stats::{LOOK_EVERY, look};
use crate::exit::{SIGNAL_BASE, Stop};
use crate::view::usage::Looks;
use holdfast_proto::daemon::{StatsRequest, WorkerStats};
use jiff::Timestamp;
use model::{Model, Next, Press};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How long the keyboard's thread may be deaf to the end.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Keys that wait to be heard; who types faster waits.
const KEYS_MAX: usize = 64;

/// Shows workers until `q`.
///
/// # Errors
/// Where stdin and stdout are no terminal, or no daemon answers at first.
pub fn run(args: &TopArgs, caller: &Caller) -> anyhow::Result<ExitCode> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Stop::usage("top needs a terminal; for a script or a file: holdfast stats --no-stream").into());
    }
    let owner = caller.owner.to_string();
    let request = StatsRequest { workers: Vec::new(), all: args.all };
    client::with_daemon(caller, async |mut daemon| {
        // Before the terminal is taken, so that a failure reads like that of any other verb.
        let mut looks = Looks::default();
        let mut model = Model::new(owner);
        model.take(looks.take(look(&mut daemon, &request).await?));
        let mut taken = Taken::take()?;
        live(&mut taken.terminal, &mut model, looks, daemon, request).await
    })
}

/// The terminal while it is ours. Dropped, or at a panic: given back.
struct Taken {
    terminal: DefaultTerminal,
}

impl Taken {
    fn take() -> std::io::Result<Self> {
        Ok(Self { terminal: ratatui::try_init()? })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = ratatui::try_restore();
    }
}

async fn live(
    terminal: &mut DefaultTerminal,
    model: &mut Model,
    mut looks: Looks,
    daemon: Daemon,
    request: StatsRequest,
) -> anyhow::Result<ExitCode> {
    let mut signals = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()]
        .map(|kind| signal(kind).map(|signal| (kind.as_raw_value(), signal)));
    let [terminated, hung_up, interrupted] = &mut signals;
    let ((term, terminated), (hup, hung_up), (int, interrupted)) =
        (opened(terminated)?, opened(hung_up)?, opened(interrupted)?);
    let mut seen = look_on(daemon, request);
    let mut keys = Keyboard::listen()?;
    loop {
        let now = Timestamp::now();
        terminal.draw(|frame| screen::draw(frame, model, now))?;
        let ended = tokio::select! {
            look = seen.recv() => {
                match look {
                    Some(Ok(stats)) => model.take(looks.take(stats)),
                    Some(Err(why)) => model.say(why),
                    None => model.say("nobody asks the daemon any more; leave with q".to_owned()),
                }
                None
            }
            press = keys.presses.recv() => match press.map(|press| model.press(press)) {
                Some(Next::Stay) => None,
                Some(Next::Leave) | None => return Ok(ExitCode::SUCCESS),
            },
            _ = terminated.recv() => Some(term),
            _ = hung_up.recv() => Some(hup),
            _ = interrupted.recv() => Some(int),
        };
        if let Some(signal) = ended {
            return Ok(ExitCode::from(SIGNAL_BASE.saturating_add(u8::try_from(signal).unwrap_or(0))));
        }
    }
}

type Heard = (i32, tokio::signal::unix::Signal);

fn opened(signal: &mut std::io::Result<Heard>) -> anyhow::Result<(i32, &mut tokio::signal::unix::Signal)> {
    match signal {
        Ok((number, signal)) => Ok((*number, signal)),
        Err(error) => anyhow::bail!("signals cannot be caught: {error}"),
    }
}

/// Looks on and on, so that a daemon that is away keeps no key waiting.
fn look_on(mut daemon: Daemon, request: StatsRequest) -> mpsc::Receiver<Result<Vec<WorkerStats>, String>> {
    let (looks, seen) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let outcome = look(&mut daemon, &request).await.map_err(|error| error.to_string());
            if looks.send(outcome).await.is_err() {
                return;
            }
        }
    });
    seen
}

/// A thread that reads keys: a terminal can be read only by waiting for it.
struct Keyboard {
    presses: mpsc::Receiver<Press>,
    over: Arc<AtomicBool>,
}

impl Keyboard {
    fn listen() -> std::io::Result<Self> {
        let (heard, presses) = mpsc::channel(KEYS_MAX);
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        std::thread::Builder::new().name("keys".into()).spawn(move || {
            while !until.load(Ordering::Acquire) {
                let press = match event::poll(KEY_WAIT).and_then(|there| there.then(event::read).transpose()) {
                    Ok(None) => continue,
                    Ok(Some(event)) => press(&event),
                    // The terminal is gone; the end of the channel says so.
                    Err(_) => return,
                };
                if press.is_some_and(|press| heard.blocking_send(press).is_err()) {
                    return;
                }
            }
        })?;
        Ok(Self { presses, over })
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

fn press(event: &Event) -> Option<Press> {
    match event {
        Event::Resize(..) => Some(Press::Resized),
        Event::Key(KeyEvent { kind: KeyEventKind::Press | KeyEventKind::Repeat, code, modifiers, .. }) => match code {
            KeyCode::Char('c' | 'd') if modifiers.contains(KeyModifiers::CONTROL) => Some(Press::Interrupt),
            KeyCode::Char(letter) if !modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {
                Some(Press::Letter(*letter))
            }
            KeyCode::Enter => Some(Press::Enter),
            KeyCode::Esc => Some(Press::Escape),
            KeyCode::Backspace => Some(Press::Backspace),
            KeyCode::Up => Some(Press::Up),
            KeyCode::Down => Some(Press::Down),
            KeyCode::PageUp => Some(Press::PageUp),
            KeyCode::PageDown => Some(Press::PageDown),
            KeyCode::Home => Some(Press::Home),
            KeyCode::End => Some(Press::End),
            _ => None,
        },
        _ => None,
    }
}
