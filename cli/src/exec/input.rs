//! Standard input on its way to a program: read on a thread of its own, kept until the program has it.

use std::collections::VecDeque;
use std::io::Read;
use tokio::sync::mpsc;

/// Most bytes that are under way (the daemon's contract).
const WINDOW_BYTES: usize = 64 * 1024;
/// Bytes that are read and sent at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// Reads standard input to its end; the channel closes there. The thread ends with the process: nothing interrupts
/// a read from a terminal.
pub fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (pieces, inbox) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(len) => {
                    if pieces.blocking_send(buffer[..len].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    inbox
}

/// Input that the program has not taken, so that it can be sent again to another daemon.
#[derive(Debug, Default)]
pub struct Untaken {
    bytes: VecDeque<u8>,
    /// Offset of the first byte that is kept.
    taken: u64,
    /// Offset of the next byte to send.
    sent: u64,
    /// There is no more after what is kept.
    pub ended: bool,
}

impl Untaken {
    /// Whether more may be read.
    pub fn has_room(&self) -> bool {
        !self.ended && self.bytes.len() + PIECE_BYTES <= WINDOW_BYTES
    }

    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// What is to be sent next, and its offset.
    pub fn next(&mut self) -> Option<(u64, Vec<u8>)> {
        let offset = self.sent;
        let skipped = usize::try_from(offset - self.taken).unwrap_or(usize::MAX);
        let piece: Vec<u8> = self.bytes.iter().skip(skipped).take(PIECE_BYTES).copied().collect();
        self.sent += piece.len() as u64;
        (!piece.is_empty()).then_some((offset, piece))
    }

    /// The program has everything before `offset`.
    pub fn take(&mut self, offset: u64) {
        let fresh = usize::try_from(offset.saturating_sub(self.taken)).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.drain(..fresh);
        self.taken += fresh as u64;
        self.sent = self.sent.max(self.taken);
    }

    /// What is pushed first stands at `offset`: others typed before.
    pub fn begin(&mut self, offset: u64) {
        (self.taken, self.sent) = (offset, offset);
    }

    /// Another daemon says that everything before `offset` has arrived.
    pub fn resume(&mut self, offset: u64) {
        self.sent = offset.clamp(self.taken, self.taken + self.bytes.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_sent_again_from_where_it_arrived() {
        let mut input = Untaken::default();
        input.push(b"abcdef");
        assert_eq!(input.next(), Some((0, b"abcdef".to_vec())));
        assert_eq!(input.next(), None);
        input.take(2);
        input.resume(4);
        assert_eq!(input.next(), Some((4, b"ef".to_vec())));
        input.resume(0);
        assert_eq!(input.next(), Some((2, b"cdef".to_vec())), "what the program has is not kept");
        input.take(6);
        assert!(input.next().is_none() && input.has_room());
    }

    #[test]
    fn no_more_is_read_than_may_be_under_way() {
        let mut input = Untaken::default();
        while input.has_room() {
            input.push(&[0; PIECE_BYTES]);
        }
        assert_eq!(input.bytes.len(), WINDOW_BYTES);
        input.take(PIECE_BYTES as u64);
        assert!(input.has_room());
        input.ended = true;
        assert!(!input.has_room());
    }
}
