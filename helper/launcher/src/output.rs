//! The form of kept output: segment files `<state_dir>/log/<number>` (ten digits, rising from 1), each
//! a header and records. The shim appends to the last one and begins a new one when it is full;
//! over the cap the oldest file goes, whole. All numbers are little-endian.
//!
//! ```text
//! segment  = version u8 (1), 7 zero bytes, offset u64, dropped u64, record*
//! record   = time i64 (ns since the Unix epoch), length u32, stream u8 (1 stdout, 2 stderr, 0 gap), 3 zero bytes, payload
//! gap      = a record of stream 0; its payload is the number of bytes that are missing here, u64
//! ```
//! `offset` is how many bytes of output came before this segment since the worker was created, kept or not:
//! the first segment that still exists tells how many went over the cap. `dropped` is how many of these were
//! never written (full disk). A record that the file cuts short is one that its shim was killed in: it ends the file.

/// Version of this form.
pub const VERSION: u8 = 1;

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 24;

/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 16;

/// Largest payload of one record; a larger length is damage.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Head of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Bytes of output before this segment.
    pub offset: u64,
    /// Bytes of these that were never written.
    pub dropped: u64,
}

/// Whose bytes a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Nobody's: bytes are missing here.
    Gap,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Head of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// When the shim read the bytes, ns since the Unix epoch.
    pub time_ns: i64,
    /// Bytes of payload that follow.
    pub len: u32,
    /// Whose.
    pub stream: Stream,
}

/// The name of a segment file.
pub fn segment_name(number: u64) -> String {
    format!("{number:010}")
}

/// The number of a segment file, if the name is one.
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.len() == 10 && name.bytes().all(|b| b.is_ascii_digit());
    if digits { name.parse().ok() } else { None }
}

impl SegmentHeader {
    /// The bytes of the header.
    pub fn encode(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0] = VERSION;
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..].copy_from_slice(&self.dropped.to_le_bytes());
        bytes
    }

    /// Reads a header; `None` where it is damaged or of another version.
    pub fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let (offset, dropped) = rest.split_first_chunk::<8>()?;
        (*head == [VERSION, 0, 0, 0, 0, 0, 0, 0]).then_some(())?;
        Some(Self { offset: u64::from_le_bytes(*offset), dropped: u64::from_le_bytes(dropped.try_into().ok()?) })
    }
}

impl RecordHeader {
    /// The bytes of the header.
    pub fn encode(self) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.time_ns.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12] = match self.stream {
            Stream::Gap => 0,
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        bytes
    }

    /// Reads a header; `None` where it is damaged.
    pub fn decode(bytes: &[u8; RECORD_HEADER_BYTES]) -> Option<Self> {
        let (time, rest) = bytes.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*len);
        let stream = match rest {
            [0, 0, 0, 0] if len == 8 => Stream::Gap,
            [1, 0, 0, 0] => Stream::Stdout,
            [2, 0, 0, 0] => Stream::Stderr,
            _ => return None,
        };
        (len as usize <= PAYLOAD_BYTES_MAX).then_some(Self { time_ns: i64::from_le_bytes(*time), len, stream })
    }
}
