//! Both ends of a wire, to measure what lies between them: `wire serve PORT`, `wire pull ADDRESS PORT SECONDS`,
//! `wire push ADDRESS PORT SECONDS`, `wire ask ADDRESS PORT ROUNDS`.
//!
//! A client's first byte says what it wants: `d` bytes until it closes, `u` to be read until it closes, `q` one byte
//! back. The clients print one JSON object.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const PIECE: usize = 256 * 1024;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", port] => serve(number(port)?),
        ["pull", address, port, seconds] => stream(address, number(port)?, number(seconds)?, b'd'),
        ["push", address, port, seconds] => stream(address, number(port)?, number(seconds)?, b'u'),
        ["ask", address, port, rounds] => ask(address, number(port)?, number(rounds)?),
        _ => Err(io::Error::other("wire serve PORT | pull|push ADDRESS PORT SECONDS | ask ADDRESS PORT ROUNDS")),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    word.parse().map_err(|_| io::Error::other(format!("{word} is no number")))
}

fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    for client in listener.incoming() {
        let client = client?;
        // A client that leaves is the end of its thread, not of the server.
        std::thread::spawn(move || answer(client));
    }
    Ok(())
}

fn answer(mut client: TcpStream) -> io::Result<()> {
    let mut wish = [0];
    client.read_exact(&mut wish)?;
    let mut piece = vec![0; PIECE];
    match wish {
        [b'd'] => loop {
            client.write_all(&piece)?;
        },
        [b'u'] => while client.read(&mut piece)? > 0 {},
        _ => client.write_all(b"a")?,
    }
    Ok(())
}

fn stream(address: &str, port: u16, seconds: u64, wish: u8) -> io::Result<()> {
    let mut server = TcpStream::connect((address, port))?;
    server.write_all(&[wish])?;
    let mut piece = vec![0; PIECE];
    let (begin, limit) = (Instant::now(), Duration::from_secs(seconds));
    let mut bytes = 0;
    while begin.elapsed() < limit {
        bytes += if wish == b'd' { server.read(&mut piece)? } else { server.write(&piece)? };
    }
    let gbit = bytes as f64 * 8.0 / 1e9 / begin.elapsed().as_secs_f64();
    println!("{{\"gbit\":{gbit:.2}}}");
    Ok(())
}

fn ask(address: &str, port: u16, rounds: usize) -> io::Result<()> {
    let mut micros = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begin = Instant::now();
        let mut server = TcpStream::connect((address, port))?;
        server.write_all(b"q")?;
        server.read_exact(&mut [0])?;
        micros.push(begin.elapsed().as_micros());
    }
    micros.sort_unstable();
    let at = |share: usize| micros.get(micros.len() * share / 100).copied().unwrap_or_default();
    println!("{{\"p50_us\":{},\"p99_us\":{}}}", at(50), at(99));
    Ok(())
}
