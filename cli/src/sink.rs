//! A worker's output on its way to the same descriptors here: what was seen already is left out, what is missing is said.

use crate::view::{plain, time};
use holdfast_proto::daemon::Output;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// Pieces of output that wait for a slow terminal; the daemon's stream waits behind them.
const PIECES_MAX: usize = 32;
/// `Output::stream` of standard error.
const STDERR: u32 = 2;

/// How far a worker's output was read, so that a second reading can go on where the first one broke off.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Bytes since the worker's first, kept or not.
    seen: u64,
    /// Bytes of this reading.
    read: u64,
}

impl Cursor {
    /// Everything before byte `seen` is left out.
    pub fn at(seen: u64) -> Self {
        Self { seen, read: 0 }
    }

    /// Begins another reading from the first byte on.
    pub fn rewind(&mut self) {
        self.read = 0;
    }

    /// Begins another reading where the last one ended; says where that is.
    pub fn go_on(&mut self) -> u64 {
        self.read = self.seen;
        self.seen
    }

    /// The part of a piece that was not seen before.
    pub fn advance(&mut self, mut piece: Output) -> Option<Output> {
        let length = piece.dropped + piece.bytes.len() as u64;
        let known = self.seen.saturating_sub(self.read).min(length);
        self.read += length;
        self.seen = self.seen.max(self.read);
        if known == length {
            return None;
        }
        let known_dropped = known.min(piece.dropped);
        piece.dropped -= known_dropped;
        let known_bytes = usize::try_from(known - known_dropped).unwrap_or(usize::MAX).min(piece.bytes.len());
        piece.bytes.drain(..known_bytes);
        Some(piece)
    }
}

/// Puts the time in front of each line, for each stream by itself: pieces end where the worker's writes did.
#[derive(Debug, Default)]
pub struct Stamps {
    /// Whether stdout and stderr are within a line.
    within: [bool; 2],
}

impl Stamps {
    /// The piece's bytes with the times of the lines that begin in it.
    pub fn stamp(&mut self, piece: &Output) -> Vec<u8> {
        let within = &mut self.within[usize::from(piece.stream == STDERR)];
        let time = time::rfc3339_nanos(piece.time);
        let mut stamped = Vec::with_capacity(piece.bytes.len() + 64);
        for line in piece.bytes.split_inclusive(|byte| *byte == b'\n') {
            if !*within {
                stamped.extend_from_slice(time.as_bytes());
                stamped.push(b' ');
            }
            stamped.extend_from_slice(line);
            *within = !line.ends_with(b"\n");
        }
        stamped
    }
}

/// Writes output on a thread of its own, so that signals are heard while a terminal is slow.
pub struct Sink {
    pieces: Option<SyncSender<Output>>,
    unread: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Starts the thread. With `escape`, control characters are made harmless where a terminal would act on them:
    /// root looks at what somebody else's worker wrote.
    pub fn new(escape: bool) -> Self {
        let (pieces, inbox) = sync_channel(PIECES_MAX);
        let unread = Arc::<AtomicBool>::default();
        let says = unread.clone();
        let thread = std::thread::spawn(move || write_all(&inbox, escape, &says));
        Self { pieces: Some(pieces), unread, thread: Some(thread) }
    }

    /// Hands a piece over; gives it back where the thread is behind.
    ///
    /// # Errors
    /// The piece.
    pub fn offer(&self, piece: Output) -> Result<(), Output> {
        match self.pieces.as_ref().map(|pieces| pieces.try_send(piece)) {
            Some(Err(TrySendError::Full(piece))) => Err(piece),
            // Where nobody reads any more, output goes nowhere, and the worker goes on.
            Some(Ok(()) | Err(TrySendError::Disconnected(_))) | None => Ok(()),
        }
    }

    /// Nobody reads standard output any more.
    pub fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Waits until everything is written.
    pub fn finish(mut self) {
        drop(self.pieces.take());
        if let Some(thread) = self.thread.take() {
            // It does not panic; were it to, there would be nothing left to write.
            let _ = thread.join();
        }
    }
}

/// Writes piece after piece; one stream that is gone does not silence the other.
fn write_all(inbox: &Receiver<Output>, escape: bool, unread: &AtomicBool) {
    let (mut out_gone, mut err_gone) = (false, false);
    for piece in inbox {
        let is_err = piece.stream == STDERR || piece.stream == 0;
        let gone = if is_err { &mut err_gone } else { &mut out_gone };
        *gone = *gone || write(&piece, escape).is_err();
        unread.store(out_gone, Ordering::Relaxed);
        if out_gone && err_gone {
            return;
        }
    }
}

/// Writes one piece to the descriptor that it came from; a gap is told on stderr.
///
/// # Errors
/// Where the descriptor cannot be written.
pub fn write(piece: &Output, escape: bool) -> io::Result<()> {
    if piece.dropped > 0 {
        let _ = writeln!(io::stderr(), "holdfast: {} bytes of output are not kept any more here", piece.dropped);
    }
    match piece.stream {
        0 => Ok(()),
        STDERR => put(&mut io::stderr().lock(), &piece.bytes, escape && io::stderr().is_terminal()),
        _ => put(&mut io::stdout().lock(), &piece.bytes, escape && io::stdout().is_terminal()),
    }
}

fn put(to: &mut impl Write, bytes: &[u8], escape: bool) -> io::Result<()> {
    if escape {
        to.write_all(shown(&String::from_utf8_lossy(bytes)).as_bytes())?;
    } else {
        to.write_all(bytes)?;
    }
    to.flush()
}

/// Output as a terminal may have it: tabs and colours (SGR, ECMA-48 8.3.117) are kept, all else that it would act on
/// is shown (threat T46).
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut pieces = text.split("\x1b[");
    out.push_str(&plain_but_tabs(pieces.next().unwrap_or_default()));
    for piece in pieces {
        let parameters = piece.find(|letter: char| !matches!(letter, '0'..='9' | ';' | ':')).unwrap_or(piece.len());
        let (colour, rest) = match piece[parameters..].strip_prefix('m') {
            Some(rest) => (&piece[..=parameters], rest),
            None => ("", piece),
        };
        out.push_str(if colour.is_empty() { "\\u{1b}[" } else { "\x1b[" });
        out.push_str(colour);
        out.push_str(&plain_but_tabs(rest));
    }
    out
}

fn plain_but_tabs(text: &str) -> String {
    let tabs_kept: Vec<String> = text.split('\t').map(plain).collect();
    tabs_kept.join("\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_colours_and_nothing_else_to_act_on() {
        assert_eq!(shown("a\tb\n\x1b[1;31mred\x1b[0m\x1b[mend"), "a\tb\n\x1b[1;31mred\x1b[0m\x1b[mend");
        for (hostile, harmless) in [
            ("\x1b[2J", "\\u{1b}[2J"),
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("\x1b[31\x1b[6n", "\\u{1b}[31\\u{1b}[6n"),
            ("\x1b[", "\\u{1b}["),
            ("\x1b[31", "\\u{1b}[31"),
            ("\x1b[31é", "\\u{1b}[31é"),
            ("\x1b[?1049h", "\\u{1b}[?1049h"),
            ("\r\x7f\u{9b}", "\\r\\u{7f}\\u{9b}"),
        ] {
            assert_eq!(shown(hostile), harmless);
        }
    }

    fn piece(bytes: &[u8]) -> Output {
        Output { stream: 1, bytes: bytes.to_vec(), ..Output::default() }
    }

    fn read(cursor: &mut Cursor, pieces: &[&[u8]]) -> Vec<u8> {
        pieces.iter().filter_map(|bytes| cursor.advance(piece(bytes))).flat_map(|piece| piece.bytes).collect()
    }

    #[test]
    fn a_second_reading_goes_on_where_the_first_broke_off() {
        for cut in 0..=6 {
            let mut cursor = Cursor::default();
            let all: &[u8] = b"abcdef";
            let first = read(&mut cursor, &[&all[..cut]]);
            cursor.rewind();
            let second = read(&mut cursor, &[b"ab", b"", b"cde", b"f"]);
            assert_eq!([first, second].concat(), all, "cut at {cut}");
        }
    }

    #[test]
    fn a_reading_that_goes_on_asks_for_nothing_twice() {
        assert_eq!(Cursor::at(7).go_on(), 7, "what came before is not even asked for");
        let mut cursor = Cursor::default();
        read(&mut cursor, &[b"abcd"]);
        assert_eq!(cursor.go_on(), 4);
        assert_eq!(read(&mut cursor, &[b"ef"]), b"ef");
    }

    #[test]
    fn each_line_has_the_time_of_its_first_piece() {
        let mut stamps = Stamps::default();
        let mut said = Vec::new();
        for (stream, bytes, time) in [(1, "a\nb", 1), (2, "err\n", 2), (1, "c\n\nd\n", 3), (1, "", 4)] {
            said.extend(stamps.stamp(&Output { stream, time, ..piece(bytes.as_bytes()) }));
        }
        let at = |nanos: u32| format!("1970-01-01T00:00:00.{nanos:09}Z ");
        let expected = format!("{0}a\n{0}b{1}err\nc\n{2}\n{2}d\n", at(1), at(2), at(3));
        assert_eq!(String::from_utf8(said).unwrap(), expected);
    }

    #[test]
    fn bytes_that_went_meanwhile_are_told_once() {
        let mut cursor = Cursor::default();
        read(&mut cursor, &[b"abcd"]);
        cursor.rewind();
        let gap = Output { dropped: 6, ..Output::default() };
        assert_eq!(cursor.advance(gap).map(|piece| piece.dropped), Some(2));
        assert_eq!(read(&mut cursor, &[b"gh"]), b"gh");
        cursor.rewind();
        let gap = Output { dropped: 6, ..Output::default() };
        assert_eq!(cursor.advance(gap), None);
    }
}
