//! What a daemon and its successor say to each other, and its one form on the wire: length, body, check sum.
//!
//! Pure. Whatever is not exactly a word of this version is refused: a successor that cannot be understood, or that cannot
//! understand, is none.

/// The form's version; a daemon hands over to its own alone. Another one is met at an update, which then restarts.
pub const VERSION: u16 = 1;
/// Longest word.
pub const WORD_BYTES_MAX: usize = 1024;
/// First bytes of each word.
const MAGIC: [u8; 4] = *b"HFho";
/// Magic, version, length of the body.
pub const HEAD_BYTES: usize = 8;
const SUM_BYTES: usize = 8;

/// Why bytes are no word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Not of this protocol.
    #[error("this is no word of a handover")]
    Form,
    /// Another version.
    #[error("the other side speaks version {0} of the handover, this one version {VERSION}: restart the unit instead")]
    Version(u16),
    /// Over [`WORD_BYTES_MAX`].
    #[error("a word of {0} bytes is too long")]
    Long(usize),
    /// Damaged on the way.
    #[error("a word of the handover is damaged")]
    Sum,
}

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Successor: I am there. Its product version.
    Hello(String),
    /// Old: the listener comes with this; and where systemd is told things.
    Offer(Offer),
    /// Successor: all that can fail before I act has been done.
    Prepared,
    /// Old: I act no more. This is how things stand.
    Yours(State),
    /// Successor: I serve.
    Ready,
    /// Old: systemd knows you as the main process.
    Main,
    /// Either: no, or not any more; why.
    No(String),
}

/// What a successor gets before anything changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// $NOTIFY_SOCKET of the unit's main process; empty: none.
    pub notify_socket: String,
    /// $WATCHDOG_USEC of it; 0: none.
    pub watchdog_us: u64,
}

/// How things stand when the old daemon acts no more. The successor finds the same in the store, or does not take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Of the old daemon: the successor's is the next one.
    pub epoch: u64,
    /// Where every stream of events stands, or before.
    pub newest_event: u64,
    /// Workers on record.
    pub workers: u32,
    /// Calls that were handed back to their callers, who ask again.
    pub handed_back: u32,
    /// Handovers before this one since the unit was started.
    pub handovers: u32,
}

impl Word {
    /// As it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, fields) = match self {
            Self::Hello(version) => (1, text(version)),
            Self::Offer(offer) => (2, [text(&offer.notify_socket), offer.watchdog_us.to_le_bytes().to_vec()].concat()),
            Self::Prepared => (3, Vec::new()),
            Self::Yours(state) => (4, state.encode()),
            Self::Ready => (5, Vec::new()),
            Self::Main => (6, Vec::new()),
            Self::No(why) => (7, text(why)),
        };
        let length = u16::try_from(fields.len() + 1).unwrap_or(u16::MAX);
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &length.to_le_bytes(), &[kind], &fields].concat();
        bytes.extend(sum(&bytes).to_le_bytes());
        bytes
    }

    /// How many bytes the word has that begins with this head.
    pub fn length(head: [u8; HEAD_BYTES]) -> Result<usize, WordError> {
        let [a, b, c, d, version @ .., e, f] = head;
        if [a, b, c, d] != MAGIC {
            return Err(WordError::Form);
        }
        let version = u16::from_le_bytes(version);
        if version != VERSION {
            return Err(WordError::Version(version));
        }
        let length = HEAD_BYTES + usize::from(u16::from_le_bytes([e, f])) + SUM_BYTES;
        if length > WORD_BYTES_MAX { Err(WordError::Long(length)) } else { Ok(length) }
    }

    /// Reads a whole word.
    pub fn decode(bytes: &[u8]) -> Result<Self, WordError> {
        let head = bytes.first_chunk().ok_or(WordError::Form)?;
        if Self::length(*head)? != bytes.len() {
            return Err(WordError::Form);
        }
        let (said, check) = bytes.split_last_chunk::<SUM_BYTES>().ok_or(WordError::Form)?;
        if sum(said).to_le_bytes() != *check {
            return Err(WordError::Sum);
        }
        let (kind, fields) = said[HEAD_BYTES..].split_first().ok_or(WordError::Form)?;
        let mut fields = Fields(fields);
        let word = match kind {
            1 => Self::Hello(fields.text()?),
            2 => Self::Offer(Offer { notify_socket: fields.text()?, watchdog_us: fields.u64()? }),
            3 => Self::Prepared,
            4 => Self::Yours(State {
                epoch: fields.u64()?,
                newest_event: fields.u64()?,
                workers: fields.u32()?,
                handed_back: fields.u32()?,
                handovers: fields.u32()?,
            }),
            5 => Self::Ready,
            6 => Self::Main,
            7 => Self::No(fields.text()?),
            _ => return Err(WordError::Form),
        };
        if fields.0.is_empty() { Ok(word) } else { Err(WordError::Form) }
    }
}

impl State {
    fn encode(self) -> Vec<u8> {
        let Self { epoch, newest_event, workers, handed_back, handovers } = self;
        let numbers = [workers, handed_back, handovers].map(u32::to_le_bytes).concat();
        [&epoch.to_le_bytes()[..], &newest_event.to_le_bytes(), &numbers].concat()
    }

    /// Whether the store shows what this says; why not.
    pub fn check(self, (epoch, newest_event, workers): (u64, u64, usize)) -> Result<(), String> {
        let differs = |what: &str, told: u64, found: u64| {
            Err(format!("the state says {what} {told}, and the store has {found}: nothing is taken over"))
        };
        match self {
            _ if epoch != self.epoch + 1 => differs("epoch", self.epoch, epoch),
            _ if newest_event < self.newest_event => differs("event", self.newest_event, newest_event),
            _ if workers != self.workers as usize => differs("workers", self.workers.into(), workers as u64),
            _ => Ok(()),
        }
    }
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], WordError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(WordError::Form)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u64(&mut self) -> Result<u64, WordError> {
        self.take().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, WordError> {
        self.take().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, WordError> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (text, rest) = self.0.split_at_checked(length).ok_or(WordError::Form)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| WordError::Form)
    }
}

/// Cut to what a word holds: it is for a person.
fn text(text: &str) -> Vec<u8> {
    const TEXT_BYTES_MAX: usize = 900;
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let length = u16::try_from(end).unwrap_or(0);
    [&length.to_le_bytes()[..], &text.as_bytes()[..end]].concat()
}

/// FNV-1a: against damage, not against enemies, who are kept out by who may speak at all.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Vec<Word> {
        let state = State { epoch: 7, newest_event: 99, workers: 3, handed_back: 2, handovers: 1 };
        let offer = Offer { notify_socket: "/run/systemd/notify".into(), watchdog_us: 30_000_000 };
        let (hello, no) = (Word::Hello("1.2.3".into()), Word::No("it says é".repeat(300)));
        vec![hello, Word::Offer(offer), Word::Prepared, Word::Yours(state), Word::Ready, Word::Main, no]
    }

    #[test]
    fn words_survive_the_wire() {
        for word in words() {
            let bytes = word.encode();
            assert!(bytes.len() <= WORD_BYTES_MAX);
            assert_eq!(Word::length(*bytes.first_chunk().unwrap()), Ok(bytes.len()));
            let read = Word::decode(&bytes).unwrap();
            match (&word, &read) {
                (Word::No(said), Word::No(heard)) => assert!(said.starts_with(heard) && heard.len() > 800),
                _ => assert_eq!(word, read),
            }
        }
    }

    #[test]
    fn garbage_at_each_byte_is_refused() {
        for word in words() {
            let bytes = word.encode();
            for place in 0..bytes.len() {
                for change in 1..=255 {
                    let mut damaged = bytes.clone();
                    damaged[place] ^= change;
                    assert!(Word::decode(&damaged).is_err(), "{word:?}: byte {place} changed by {change}");
                }
                assert!(Word::decode(&bytes[..place]).is_err(), "{word:?}: cut at {place}");
            }
            assert_eq!(Word::decode(&[bytes, vec![0]].concat()), Err(WordError::Form));
        }
    }

    /// With a right sum, as a program of another version, or a hostile one, would send it.
    #[test]
    fn other_versions_and_forms_are_refused_by_name() {
        let summed = |mut bytes: Vec<u8>| {
            bytes.truncate(bytes.len() - SUM_BYTES);
            bytes.extend(sum(&bytes).to_le_bytes());
            bytes
        };
        for version in [0, VERSION - 1, VERSION + 1, u16::MAX] {
            let mut bytes = words()[3].encode();
            bytes[4..6].copy_from_slice(&version.to_le_bytes());
            assert_eq!(Word::decode(&summed(bytes)), Err(WordError::Version(version)));
        }
        for kind in [0, 8, 255] {
            let mut bytes = Word::Ready.encode();
            bytes[HEAD_BYTES] = kind;
            assert_eq!(Word::decode(&summed(bytes)), Err(WordError::Form));
        }
        // A field too many, a field too few, a text longer than its word.
        for (kind, fields) in
            [(3, vec![0]), (4, vec![0; 27]), (4, vec![0; 29]), (1, vec![9, 0, b'x']), (1, vec![1, 0, 255])]
        {
            let length = u16::try_from(fields.len() + 1).unwrap();
            let bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &length.to_le_bytes(), &[kind], &fields, &[0; 8]].concat();
            assert_eq!(Word::decode(&summed(bytes)), Err(WordError::Form), "{kind} {fields:?}");
        }
        let long = [&MAGIC[..], &VERSION.to_le_bytes(), &u16::MAX.to_le_bytes()].concat();
        assert_eq!(Word::length(*long.first_chunk().unwrap()), Err(WordError::Long(65_551)));
    }

    #[test]
    fn a_store_that_shows_something_else_is_not_taken_over() {
        let state = State { epoch: 7, newest_event: 99, workers: 3, handed_back: 0, handovers: 0 };
        assert_eq!(state.check((8, 99, 3)), Ok(()));
        // What happened by itself in between: a worker's end.
        assert_eq!(state.check((8, 100, 3)), Ok(()));
        for (epoch, event, workers) in [(7, 99, 3), (9, 99, 3), (8, 98, 3), (8, 99, 2), (8, 99, 4)] {
            assert!(state.check((epoch, event, workers)).is_err(), "{epoch} {event} {workers}");
        }
    }
}
