//! Reads the output that a shim keeps: all of it, its last lines, or as it comes.
//!
//! The shim writes and rotates the files meanwhile and is never asked: a file that goes while it is read is
//! read to its end, and what went before it could be read is told as bytes that are missing.

use holdfast_launcher::output::{
    PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, Stream, segment_name,
    segment_number,
};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes read at once; holds at least one whole record.
const BLOCK_BYTES: usize = 2 * (PAYLOAD_BYTES_MAX + RECORD_HEADER_BYTES);

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of one stream.
    Bytes {
        /// Whose.
        stream: Stream,
        /// When the shim read them, ns since the Unix epoch.
        time_ns: i64,
        /// Bytes of output before them, kept or not.
        position: u64,
        /// Never empty.
        bytes: Vec<u8>,
    },
    /// Bytes are missing here.
    Missing {
        /// Bytes of output before them.
        position: u64,
        /// How many.
        bytes: u64,
    },
}

/// How much output there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Kept or not, since the worker was created.
    pub bytes: u64,
    /// Of these, not kept.
    pub dropped_bytes: u64,
}

/// A place in a worker's kept output.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    segment: Option<Segment>,
    /// Segments below this number are read or gone.
    next: u64,
    /// Bytes of output before the place; `None` until the first header is read where earlier bytes do not matter.
    position: Option<u64>,
    /// Bytes to leave out of the next record.
    skip: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    file: File,
    /// Of the next record.
    at: u64,
}

impl Reader {
    /// At the oldest byte that is kept; what went over the cap is told first.
    pub fn from_start(log_dir: &Path) -> Self {
        Self { dir: log_dir.to_owned(), segment: None, next: 0, position: Some(0), skip: 0 }
    }

    /// At the last `lines` lines of both streams together, as they came.
    pub fn from_tail(log_dir: &Path, lines: u64) -> io::Result<Self> {
        let mut numbers = numbers(log_dir)?;
        let mut wanted = None;
        while let Some(number) = numbers.pop() {
            let (mut segment, header) = match Segment::open(log_dir, number) {
                Ok(Some(opened)) => opened,
                Ok(None) => continue,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => continue,
                Err(error) => return Err(error),
            };
            let records = segment.index()?;
            // A newline at the very end ends the last line; it does not begin another one.
            let newlines = match wanted {
                Some(newlines) => newlines,
                None if records.is_empty() => continue,
                None if lines == 0 => {
                    let position = header.offset + records.iter().map(|record| record.bytes).sum::<u64>();
                    return Ok(Self::at(log_dir, segment, position, 0));
                }
                None => lines.saturating_add(u64::from(records.last().is_some_and(|record| record.ends_line))),
            };
            match seek_back(&records, newlines) {
                Ok((record, nth)) => {
                    let before = records.iter().take_while(|other| other.at < record.at).map(|other| other.bytes);
                    let position = header.offset + before.sum::<u64>();
                    segment.at = record.at;
                    let skip = segment.after_newline(nth)?;
                    return Ok(Self::at(log_dir, segment, position, skip as u64));
                }
                Err(rest) => wanted = Some(rest),
            }
        }
        Ok(Self { position: None, ..Self::from_start(log_dir) })
    }

    /// After so many bytes of output: where an earlier reading ended. What is not kept any more of the rest is told first.
    pub fn from_position(log_dir: &Path, position: u64) -> io::Result<Self> {
        let mut numbers = numbers(log_dir)?;
        while let Some(number) = numbers.pop() {
            let (mut segment, header) = match Segment::open(log_dir, number) {
                Ok(Some(opened)) if opened.1.offset <= position => opened,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => continue,
                Err(error) => return Err(error),
            };
            let records = segment.index()?;
            let mut before = header.offset;
            for record in &records {
                if before + record.bytes > position {
                    segment.at = record.at;
                    return Ok(Self::at(log_dir, segment, before, position - before));
                }
                before += record.bytes;
            }
            return Ok(Self::at(log_dir, segment, before, 0));
        }
        Ok(Self { position: Some(position), ..Self::from_start(log_dir) })
    }

    fn at(log_dir: &Path, segment: Segment, position: u64, skip: u64) -> Self {
        let next = segment.number + 1;
        Self { dir: log_dir.to_owned(), segment: Some(segment), next, position: Some(position), skip }
    }

    /// The next pieces, some [`BLOCK_BYTES`] at most; none where the end is reached for now.
    pub fn read(&mut self) -> io::Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        loop {
            if let Some(segment) = &mut self.segment {
                // Asked before reading: when a later file is there, this one is complete.
                let next = next_number(&self.dir, segment)?;
                if segment.read(&mut self.position, &mut self.skip, &mut pieces)? {
                    // All of it may have been left out: then the next block is asked for.
                    match pieces.is_empty() {
                        true => continue,
                        false => return Ok(pieces),
                    }
                }
                if next.is_none() {
                    return Ok(pieces);
                }
                self.segment = None;
            }
            let Some(number) = numbers(&self.dir)?.into_iter().find(|&number| number >= self.next) else {
                return Ok(pieces);
            };
            let (segment, header) = match Segment::open(&self.dir, number) {
                Ok(Some(opened)) => opened,
                Ok(None) => return Ok(pieces),
                // What it held is told as missing by the offset of the one after it.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(dir = %self.dir.display(), number, %error, "left out");
                    self.next = number + 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(position) = self.position.filter(|&position| header.offset > position) {
                pieces.push(Piece::Missing { position, bytes: header.offset - position });
            }
            self.position = Some(header.offset);
            self.next = number + 1;
            self.segment = Some(segment);
        }
    }
}

/// Figures of what is in the files now.
pub fn figures(log_dir: &Path) -> io::Result<Figures> {
    let numbers = numbers(log_dir)?;
    let (Some(&first), Some(&last)) = (numbers.first(), numbers.last()) else { return Ok(Figures::default()) };
    let (Some((_, first)), Some((mut segment, last))) = (Segment::open(log_dir, first)?, Segment::open(log_dir, last)?)
    else {
        return Ok(Figures::default());
    };
    let records = segment.index()?;
    let here: u64 = records.iter().map(|record| record.bytes).sum();
    let gaps: u64 = records.iter().filter(|record| record.stream == Stream::Gap).map(|record| record.bytes).sum();
    let dropped_bytes = first.offset + last.dropped.saturating_sub(first.dropped) + gaps;
    Ok(Figures { bytes: last.offset + here, dropped_bytes })
}

/// One record of a segment, for seeking.
struct Indexed {
    at: u64,
    stream: Stream,
    /// Of output that it stands for.
    bytes: u64,
    newlines: u64,
    ends_line: bool,
}

impl Segment {
    /// `None` where it is gone or its header is not (whole) there yet.
    fn open(dir: &Path, number: u64) -> io::Result<Option<(Self, SegmentHeader)>> {
        let file = match File::open(dir.join(segment_name(number))) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut header = [0; SEGMENT_HEADER_BYTES];
        match file.read_exact_at(&mut header, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let header = SegmentHeader::decode(&header)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a log file has a damaged header"))?;
        Ok(Some((Self { number, file, at: SEGMENT_HEADER_BYTES as u64 }, header)))
    }

    /// Whole records from one block; `false` where there is none (more). Damage ends the file.
    fn block(&mut self, mut each: impl FnMut(u64, RecordHeader, &[u8])) -> io::Result<bool> {
        let mut block = vec![0; BLOCK_BYTES];
        let len = read_full(&self.file, &mut block, self.at)?;
        let mut rest = &block[..len];
        let mut any = false;
        while let Some((header, after)) = rest.split_first_chunk::<RECORD_HEADER_BYTES>() {
            let Some(header) = RecordHeader::decode(header) else { break };
            let Some((payload, after)) = after.split_at_checked(header.len as usize) else { break };
            each(self.at, header, payload);
            self.at += (RECORD_HEADER_BYTES + payload.len()) as u64;
            rest = after;
            any = true;
        }
        Ok(any)
    }

    fn read(&mut self, position: &mut Option<u64>, skip: &mut u64, pieces: &mut Vec<Piece>) -> io::Result<bool> {
        self.block(|_, header, payload| {
            let all = output_bytes(header, payload);
            let left_out = std::mem::take(skip).min(all);
            let begins = position.unwrap_or(0);
            *position = Some(begins + all);
            let position = begins + left_out;
            if left_out == all {
                return;
            }
            if header.stream == Stream::Gap {
                pieces.push(Piece::Missing { position, bytes: all - left_out });
                return;
            }
            let bytes = payload.get(usize::try_from(left_out).unwrap_or(usize::MAX)..).unwrap_or_default().to_vec();
            pieces.push(Piece::Bytes { stream: header.stream, time_ns: header.time_ns, position, bytes });
        })
    }

    /// Every record from here to the end, where it then stands.
    fn index(&mut self) -> io::Result<Vec<Indexed>> {
        let mut records = Vec::new();
        let each = |records: &mut Vec<Indexed>, at, header: RecordHeader, payload: &[u8]| {
            let text = if header.stream == Stream::Gap { &[] } else { payload };
            records.push(Indexed {
                at,
                stream: header.stream,
                bytes: output_bytes(header, payload),
                newlines: text.iter().filter(|&&byte| byte == b'\n').count() as u64,
                ends_line: text.last() == Some(&b'\n'),
            });
        };
        while self.block(|at, header, payload| each(&mut records, at, header, payload))? {}
        Ok(records)
    }

    /// Where in the record at `self.at` the byte after its `nth` newline (from 1) is.
    fn after_newline(&self, nth: u64) -> io::Result<usize> {
        let mut block = vec![0; RECORD_HEADER_BYTES + PAYLOAD_BYTES_MAX];
        let len = read_full(&self.file, &mut block, self.at)?;
        let payload = block.get(RECORD_HEADER_BYTES..len).unwrap_or_default();
        let mut newlines = payload.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index + 1);
        Ok(newlines.nth(usize::try_from(nth).unwrap_or(usize::MAX).saturating_sub(1)).unwrap_or(0))
    }
}

/// The record that holds the `newlines`th newline from the end, and which of its own that is;
/// or how many are still to be found before these records.
fn seek_back(records: &[Indexed], mut newlines: u64) -> Result<(&Indexed, u64), u64> {
    for record in records.iter().rev() {
        if record.newlines >= newlines {
            return Ok((record, record.newlines - newlines + 1));
        }
        newlines -= record.newlines;
    }
    Err(newlines)
}

fn output_bytes(header: RecordHeader, payload: &[u8]) -> u64 {
    match header.stream {
        Stream::Gap => payload.try_into().map_or(0, u64::from_le_bytes),
        Stream::Stdout | Stream::Stderr => payload.len() as u64,
    }
}

/// The segment after this one, where there is one.
fn next_number(dir: &Path, segment: &Segment) -> io::Result<Option<u64>> {
    let next = segment.number + 1;
    if dir.join(segment_name(next)).exists() {
        return Ok(Some(next));
    }
    // Files go oldest first: only when this one went may its successor have gone as well.
    if segment.file.metadata()?.nlink() > 0 {
        return Ok(None);
    }
    Ok(numbers(dir)?.into_iter().find(|&number| number > segment.number))
}

/// Numbers of the segments that are there, rising. A directory that is gone has none.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        numbers.extend(entry?.file_name().to_str().and_then(segment_number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn read_full(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], at + len as u64) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
