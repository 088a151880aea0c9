//! The bytes of one session that are under way, and what each side knows of them. Pure.

use holdfast_launcher::session::{DATA_BYTES_MAX, WINDOW_BYTES};
use std::collections::VecDeque;

/// Most pieces of output that are kept: a program that changes its stream with each byte waits sooner.
const PIECES_MAX: usize = 256;

/// Output: read from the program and kept until its reader has taken it.
#[derive(Debug, Default)]
pub struct Outgoing {
    pieces: VecDeque<Piece>,
    /// Offset of the first byte that is kept.
    taken: u64,
    /// Offset of the next byte to send.
    sent: u64,
    /// Offset of the next byte to read.
    read: u64,
}

#[derive(Debug)]
struct Piece {
    is_stderr: bool,
    bytes: Vec<u8>,
}

impl Outgoing {
    /// How many bytes may be read from the program now.
    pub fn room(&self) -> usize {
        if self.pieces.len() >= PIECES_MAX {
            return 0;
        }
        WINDOW_BYTES - (self.read - self.taken) as usize
    }

    /// Adds what was read, at most [`Outgoing::room`].
    pub fn push(&mut self, is_stderr: bool, bytes: &[u8]) {
        self.read += bytes.len() as u64;
        match self.pieces.back_mut() {
            Some(last) if last.is_stderr == is_stderr && last.bytes.len() + bytes.len() <= DATA_BYTES_MAX => {
                last.bytes.extend_from_slice(bytes);
            }
            _ => self.pieces.push_back(Piece { is_stderr, bytes: bytes.to_vec() }),
        }
    }

    /// What is to be sent next: stream, offset, bytes.
    pub fn next(&self) -> Option<(bool, u64, &[u8])> {
        let mut begin = self.taken;
        for piece in &self.pieces {
            let end = begin + piece.bytes.len() as u64;
            if self.sent < end {
                let bytes = &piece.bytes[(self.sent - begin) as usize..];
                return Some((piece.is_stderr, self.sent, &bytes[..bytes.len().min(DATA_BYTES_MAX)]));
            }
            begin = end;
        }
        None
    }

    /// So many bytes of what [`Outgoing::next`] gave were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The reader has everything before `offset`. False: it cannot have.
    pub fn take(&mut self, offset: u64) -> bool {
        if offset > self.sent {
            return false;
        }
        while self.taken < offset
            && let Some(first) = self.pieces.front_mut()
        {
            let part = (offset - self.taken).min(first.bytes.len() as u64);
            self.taken += part;
            if part == first.bytes.len() as u64 {
                self.pieces.pop_front();
            } else {
                first.bytes.drain(..part as usize);
            }
        }
        true
    }

    /// Another reader goes on at `offset`. False: that is gone, or not yet there.
    pub fn rewind(&mut self, offset: u64) -> bool {
        if offset < self.taken || offset > self.read {
            return false;
        }
        self.sent = offset;
        self.take(offset)
    }
}

/// Input: arrived, and kept until the program reads it.
#[derive(Debug, Default)]
pub struct Incoming {
    buffer: VecDeque<u8>,
    /// Bytes that went to the program.
    taken: u64,
    /// Of these, told to the sender.
    told: u64,
    /// No more will come.
    ended: bool,
    /// Nobody reads any more: what comes is thrown away.
    unread: bool,
}

impl Incoming {
    /// Bytes that arrived.
    pub fn received(&self) -> u64 {
        self.taken + self.buffer.len() as u64
    }

    /// Takes bytes in; those that arrived before are skipped. False: some are missing before them, or they are more
    /// than the window lets through, or come after the end.
    pub fn accept(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let Some(known) = self.received().checked_sub(offset) else { return false };
        let Some(fresh) = bytes.get(known as usize..) else { return true };
        if self.buffer.len() + fresh.len() > WINDOW_BYTES || (self.ended && !fresh.is_empty()) {
            return false;
        }
        if self.unread {
            self.taken += fresh.len() as u64;
        } else {
            self.buffer.extend(fresh);
        }
        true
    }

    /// There is no more after `offset`. False: that is not what arrived.
    pub fn end(&mut self, offset: u64) -> bool {
        self.ended = offset == self.received();
        self.ended
    }

    /// Bytes for the program.
    pub fn pending(&self) -> &[u8] {
        match self.buffer.as_slices() {
            ([], rest) => rest,
            (first, _) => first,
        }
    }

    /// The program has so many of them.
    pub fn wrote(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
        self.taken += bytes as u64;
        if self.buffer.is_empty() {
            self.buffer = VecDeque::new();
        }
    }

    /// The program closed its input.
    pub fn discard(&mut self) {
        self.unread = true;
        self.wrote(self.buffer.len());
    }

    /// Everything was given to the program, and there will be no more.
    pub fn is_over(&self) -> bool {
        self.ended && self.buffer.is_empty()
    }

    /// How far the sender is to be told that the program is, if that is worth a packet.
    pub fn news(&self) -> Option<u64> {
        let fresh = self.taken - self.told;
        (fresh >= WINDOW_BYTES as u64 / 4 || (fresh > 0 && self.buffer.is_empty())).then_some(self.taken)
    }

    /// The sender was told.
    pub fn told(&mut self, offset: u64) {
        self.told = offset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(out: &mut Outgoing) -> Vec<(bool, u64, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some((is_stderr, offset, bytes)) = out.next() {
            let bytes = bytes.to_vec();
            out.sent(bytes.len());
            all.push((is_stderr, offset, bytes));
        }
        all
    }

    #[test]
    fn output_is_sent_in_order_and_kept_until_it_is_taken() {
        let mut out = Outgoing::default();
        out.push(false, b"ab");
        out.push(false, b"c");
        out.push(true, b"de");
        assert_eq!(drain(&mut out), [(false, 0, b"abc".to_vec()), (true, 3, b"de".to_vec())]);
        assert!(!out.take(6), "nobody has what was not sent");
        assert!(out.take(4));
        assert_eq!(out.room(), WINDOW_BYTES - 1);
        out.push(true, b"f");
        assert!(out.rewind(4) && !out.rewind(3) && !out.rewind(7));
        assert_eq!(drain(&mut out), [(true, 4, b"ef".to_vec())]);
        assert!(out.take(6) && out.pieces.is_empty() && out.room() == WINDOW_BYTES);
    }

    #[test]
    fn output_is_bounded_in_bytes_and_in_pieces() {
        let mut out = Outgoing::default();
        while out.room() > 0 {
            out.push(false, &vec![b'x'; out.room().min(DATA_BYTES_MAX)]);
        }
        assert!(out.pieces.len() <= WINDOW_BYTES / DATA_BYTES_MAX + 1);
        let mut out = Outgoing::default();
        let mut is_stderr = false;
        while out.room() > 0 {
            out.push(is_stderr, b"x");
            is_stderr = !is_stderr;
        }
        assert_eq!(out.pieces.len(), PIECES_MAX);
    }

    #[test]
    fn any_cut_of_the_output_is_gone_on_from() {
        for cut in 0..=10u64 {
            let mut out = Outgoing::default();
            out.push(false, b"01234");
            out.push(true, b"56789");
            let first: Vec<u8> = drain(&mut out).into_iter().flat_map(|(_, _, bytes)| bytes).collect();
            assert!(out.rewind(cut));
            let second: Vec<u8> = drain(&mut out).into_iter().flat_map(|(_, _, bytes)| bytes).collect();
            assert_eq!([&first[..cut as usize], &second].concat(), b"0123456789");
        }
    }

    #[test]
    fn input_arrives_once_whatever_is_sent_again() {
        let mut input = Incoming::default();
        assert!(input.accept(0, b"abc") && input.accept(1, b"bcd") && input.accept(0, b"ab"));
        assert!(!input.accept(5, b"x"), "a gap");
        assert_eq!((input.pending(), input.received()), (&b"abcd"[..], 4));
        input.wrote(3);
        assert_eq!(input.news(), None, "one more byte is under way");
        assert!(!input.end(3) && input.end(4) && !input.is_over());
        assert!(input.accept(2, b"cd") && !input.accept(4, b"x"), "nothing comes after the end");
        input.wrote(1);
        assert!(input.is_over());
        assert_eq!(input.news(), Some(4));
        input.told(4);
        assert_eq!(input.news(), None);
    }

    #[test]
    fn input_stays_within_the_window() {
        let mut input = Incoming::default();
        assert!(input.accept(0, &vec![0; WINDOW_BYTES]) && !input.accept(WINDOW_BYTES as u64, b"x"));
        input.wrote(input.pending().len());
        assert!(input.accept(WINDOW_BYTES as u64, b"x"));
    }

    #[test]
    fn input_that_nobody_reads_is_counted_and_thrown_away() {
        let mut input = Incoming::default();
        assert!(input.accept(0, b"abc"));
        input.discard();
        assert!(input.accept(3, b"def") && input.pending().is_empty());
        assert_eq!(input.news(), Some(6));
    }
}
