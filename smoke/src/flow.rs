//! One TCP connection that must not notice anything.

use crate::Result;
use anyhow::{Context, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

/// The longest silence that is no failure: kernel forwarding does not depend on any of our programs.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A connection to an echo worker: writes a rising number every 10 ms and reads it back.
pub struct Flow {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Flow {
    /// Connects from the network namespace `netns`, and begins to talk.
    pub fn open(netns: &Path, to: SocketAddr) -> Result<Self> {
        let mut stream = connect(netns, to)?;
        let ends = Arc::new(AtomicBool::new(false));
        let thread = spawn({
            let ends = Arc::clone(&ends);
            move || talk(&mut stream, &ends)
        });
        Ok(Self { ends, thread: Some(thread) })
    }

    /// Ends the talk; fails if the connection was reset, silent or wrong at any time. Returns the number of echoes.
    pub fn close(mut self) -> Result<u64> {
        self.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("closed once")?;
        thread.join().map_err(|_| anyhow!("the flow's thread panicked"))?
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

fn talk(stream: &mut TcpStream, ends: &AtomicBool) -> Result<u64> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let mut count = 0_u64;
    while !ends.load(Ordering::Relaxed) {
        let mut echoed = [0; 8];
        stream.write_all(&count.to_be_bytes()).with_context(|| format!("write number {count}"))?;
        stream.read_exact(&mut echoed).with_context(|| format!("read number {count} back"))?;
        ensure!(u64::from_be_bytes(echoed) == count, "number {count} came back as {echoed:?}");
        count += 1;
        sleep(Duration::from_millis(10));
    }
    Ok(count)
}

/// A thread of its own enters the namespace; the socket stays in it wherever it is used.
pub fn connect(netns: &Path, to: SocketAddr) -> Result<TcpStream> {
    let netns = PathBuf::from(netns);
    let entered = spawn(move || -> Result<TcpStream> {
        let file = File::open(&netns).with_context(|| format!("open {}", netns.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("enter the namespace")?;
        TcpStream::connect_timeout(&to, ANSWER_WITHIN).with_context(|| format!("connect to {to}"))
    });
    entered.join().map_err(|_| anyhow!("the connecting thread panicked"))?
}
