//! An HTTP server of what a publisher published, which can mean ill: the network of an update, outside Holdfast.

use crate::{Host, MIRROR, Result};
use anyhow::{Context, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{sleep, spawn};
use std::time::Duration;

/// What a mirror does to those who ask it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it serves what is there.
    None,
    /// Everything is missing.
    NotFound,
    /// Everything is a page of a hotel's network.
    Html,
    /// Everything never ends.
    Endless,
    /// Everything comes a byte a second.
    Drip,
    /// It accepts, and says nothing.
    Silent,
    /// It announces this length, whatever comes.
    Length(u64),
    /// Whatever is asked from its beginning breaks off in the middle, with a reset.
    Cut,
    /// It sends everybody there.
    Redirect(String),
    /// This file of a set has other bytes; the length is right.
    Spoiled(&'static str),
}

/// A running mirror: it ends with the test's process.
pub struct Mirror {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Mirror {
    /// Listens on the host's loopback, for [`MIRROR`]'s files.
    pub fn start(host: &Host, fault: Fault) -> Result<Self> {
        let netns = host.netns();
        let entered = spawn(move || -> Result<TcpListener> {
            let file = File::open(&netns).with_context(|| format!("open {}", netns.display()))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("enter the namespace")?;
            Ok(TcpListener::bind("127.0.0.1:0")?)
        });
        let listener = entered.join().map_err(|_| anyhow!("the listening thread panicked"))??;
        let mirror = Self { address: listener.local_addr()?, asked: Arc::default() };
        let (asked, files) = (Arc::clone(&mirror.asked), host.path(MIRROR));
        spawn(move || {
            for stream in listener.incoming().map_while(std::io::Result::ok) {
                let (asked, files, fault) = (Arc::clone(&asked), files.clone(), fault.clone());
                // A client that goes away is what most faults are for.
                spawn(move || drop(serve(stream, &asked, files, &fault)));
            }
        });
        Ok(mirror)
    }

    /// Its address for update.toml.
    pub fn source(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The paths that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(mut to: TcpStream, asked: &Mutex<Vec<String>>, files: PathBuf, fault: &Fault) -> Result {
    let head = head(&mut to)?;
    let path = head.split(' ').nth(1).context("no path")?.to_owned();
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
    match fault {
        Fault::NotFound => Ok(to.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?),
        Fault::Html => Ok(to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n<html>please log in</html>\n")?),
        Fault::Endless => {
            to.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                to.write_all(b"1000\r\n")?;
                to.write_all(&[b'x'; 0x1000])?;
                to.write_all(b"\r\n")?;
            }
        }
        Fault::Drip => {
            to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")?;
            loop {
                to.write_all(b"x")?;
                sleep(Duration::from_secs(1));
            }
        }
        Fault::Silent => {
            sleep(Duration::from_secs(3600));
            Ok(())
        }
        Fault::Redirect(there) => {
            Ok(write!(to, "HTTP/1.1 302 Found\r\nLocation: {there}{path}\r\nContent-Length: 0\r\n\r\n")?)
        }
        Fault::None | Fault::Length(_) | Fault::Cut | Fault::Spoiled(_) => {
            let begin = range_begin(&head);
            match std::fs::read(files.join(path.trim_start_matches('/'))) {
                Ok(bytes) => send(&mut to, bytes, begin, &path, fault),
                Err(error) if error.kind() == ErrorKind::NotFound => serve_nothing(&mut to),
                Err(error) => Err(error.into()),
            }
        }
    }
}

fn serve_nothing(to: &mut TcpStream) -> Result {
    Ok(to.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?)
}

fn send(to: &mut TcpStream, mut bytes: Vec<u8>, begin: usize, path: &str, fault: &Fault) -> Result {
    let whole = bytes.len();
    if let Fault::Spoiled(name) = fault
        && path.ends_with(&format!("/{name}"))
    {
        bytes[whole / 2] ^= 1;
    }
    let rest = bytes.get(begin..).context("a range behind the end")?;
    let length = if let Fault::Length(length) = fault { *length } else { rest.len() as u64 };
    match begin {
        0 => write!(to, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?,
        _ => write!(
            to,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {begin}-{}/{whole}\r\nContent-Length: {length}\r\n\r\n",
            whole - 1
        )?,
    }
    if *fault == Fault::Cut && begin == 0 && whole > 1 {
        to.write_all(&rest[..whole / 2])?;
        // What was sent has to arrive before the reset does, or nothing of it counts.
        sleep(Duration::from_millis(50));
        return Ok(rustix::net::sockopt::set_socket_linger(&*to, Some(Duration::ZERO))?);
    }
    Ok(to.write_all(rest)?)
}

fn head(from: &mut TcpStream) -> Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn range_begin(head: &str) -> usize {
    let line = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    line.and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(0)
}
