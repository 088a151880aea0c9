//! The line between a daemon and its successor: whole words, each with a deadline.

use super::words::{HEAD_BYTES, Word, WordError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Why nothing was said or heard.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The other side has gone.
    #[error("the other side ended")]
    Ended,
    /// It said nothing, or not all of it.
    #[error("the other side was silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// It said no word.
    #[error(transparent)]
    Word(#[from] WordError),
    /// The kernel's answer.
    #[error("the line broke: {0}")]
    Io(#[from] io::Error),
}

/// A connection.
#[derive(Debug)]
pub struct Line(pub UnixStream);

impl Line {
    /// Says a word, with a descriptor or none. Words are far shorter than what a socket takes at once.
    pub fn say(&self, word: &Word, descriptor: Option<&OwnedFd>) -> Result<(), LineError> {
        let bytes = word.encode();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = descriptor.iter().map(|descriptor| descriptor.as_fd()).collect();
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let sent = sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        match sent {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(LineError::Ended),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// Answers when something was said, without holding up anything else.
    pub async fn readable(&self) -> Result<(), LineError> {
        self.0.set_nonblocking(true)?;
        Ok(tokio::net::UnixStream::from_std(self.0.try_clone()?)?.readable().await?)
    }

    /// Hears the next word, and the descriptor that came with it.
    pub fn hear(&self, within: Duration) -> Result<(Word, Option<OwnedFd>), LineError> {
        let until = Instant::now() + within;
        let mut descriptor = None;
        let mut head = [0; HEAD_BYTES];
        self.fill(&mut head, (until, within), &mut descriptor)?;
        let mut bytes = vec![0; Word::length(head)?];
        bytes[..HEAD_BYTES].copy_from_slice(&head);
        self.fill(&mut bytes[HEAD_BYTES..], (until, within), &mut descriptor)?;
        Ok((Word::decode(&bytes)?, descriptor))
    }

    fn fill(
        &self,
        mut bytes: &mut [u8],
        (until, within): (Instant, Duration),
        descriptor: &mut Option<OwnedFd>,
    ) -> Result<(), LineError> {
        while !bytes.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let patience = Timespec::try_from(left).map_err(|_| LineError::Silent(within))?;
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&patience)) {
                Ok(0) => return Err(LineError::Silent(within)),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(io::Error::from(error).into()),
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let heard = match recvmsg(&self.0, &mut [IoSliceMut::new(bytes)], &mut control, flags) {
                Ok(heard) if heard.bytes == 0 => return Err(LineError::Ended),
                Ok(heard) => heard.bytes,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::CONNRESET) => return Err(LineError::Ended),
                Err(error) => return Err(io::Error::from(error).into()),
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    *descriptor = rights.last().or(descriptor.take());
                }
            }
            bytes = &mut std::mem::take(&mut bytes)[heard..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    #[test]
    fn words_come_whole_one_by_one_and_with_their_descriptor() {
        let (one, other) = UnixStream::pair().unwrap();
        let (one, other) = (Line(one), Line(other));
        let null = std::fs::File::open("/dev/null").unwrap().into();
        one.say(&Word::Hello("1".into()), Some(&null)).unwrap();
        one.say(&Word::Ready, None).unwrap();
        let (word, descriptor) = other.hear(SOON).unwrap();
        assert!(word == Word::Hello("1".into()) && descriptor.is_some());
        assert!(matches!(other.hear(SOON), Ok((Word::Ready, None))));
        assert!(matches!(other.hear(SOON), Err(LineError::Silent(_))));
        drop(one);
        assert!(matches!(other.hear(SOON), Err(LineError::Ended)));
        assert!(matches!(other.say(&Word::Ready, None), Err(LineError::Ended)));
    }

    #[test]
    fn who_dribbles_is_not_waited_for_longer() {
        use std::io::Write;
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(&Word::Ready.encode()[..5]).unwrap();
        assert!(matches!(Line(other).hear(SOON), Err(LineError::Silent(_))));
    }
}
