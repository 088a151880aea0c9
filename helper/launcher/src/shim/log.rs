//! Keeps the worker's output in the form of `holdfast_launcher::output`, below a cap, and never in its way.

use crate::places::{now_ns, open_in};
use crate::sys::Scratch;
use holdfast_launcher::output::{
    PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, Stream, segment_name,
    segment_number,
};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::io::{IoSlice, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Smallest segment: one that a header and a few records fit in, whatever the cap.
const SEGMENT_BYTES_MIN: u64 = 4096;

/// The output of one worker over all its generations.
pub struct Log {
    dir: OwnedFd,
    /// `None` while none can be made or after one was found damaged: the next bytes try to begin one.
    segment: Option<Segment>,
    next_number: u64,
    totals: Totals,
    /// Bytes lost since the last record, to be said by a gap.
    gap: u64,
    segment_bytes_max: u64,
    segments_max: u64,
    scratch: Scratch,
}

struct Segment {
    file: OwnedFd,
    len: u64,
}

/// Bytes over the worker's life so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    /// Written by the worker.
    offset: u64,
    /// Of these, never kept: the disk was full.
    dropped: u64,
}

/// Whether a stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Nothing there just now.
    Empty,
    /// Some was taken; there may be more.
    Some,
    /// Nobody holds the other end any more.
    Ended,
}

impl Log {
    /// Goes on with what is there. Where that is not possible a new segment is begun with the first bytes.
    pub fn open(dir: OwnedFd, bytes_max: u64, files_max: u32) -> std::io::Result<Self> {
        let mut log = Self {
            dir,
            segment: None,
            next_number: 1,
            totals: Totals::default(),
            gap: 0,
            segment_bytes_max: (bytes_max / u64::from(files_max)).max(SEGMENT_BYTES_MIN),
            segments_max: u64::from(files_max),
            scratch: Scratch::new(PAYLOAD_BYTES_MAX)?,
        };
        if let Some(last) = log.numbers().max() {
            log.next_number = last + 1;
            log.resume(last);
        }
        Ok(log)
    }

    /// Takes what a pipe has now, at most one record's worth.
    pub fn take(&mut self, pipe: &OwnedFd, stream: Stream) -> Flow {
        let got = match rustix::io::read(pipe, self.scratch.bytes()) {
            Ok(0) => return Flow::Ended,
            Ok(got) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Flow::Empty,
            Err(_) => return Flow::Ended,
        };
        let header = RecordHeader { time_ns: now_ns(), len: got as u32, stream };
        if !self.has_room(RECORD_HEADER_BYTES + got) {
            self.rotate();
        }
        let kept = self.say_gap(header.time_ns) && self.append(header, got);
        self.totals.offset += got as u64;
        if !kept {
            self.totals.dropped += got as u64;
            self.gap += got as u64;
        }
        Flow::Some
    }

    /// Says at the end what was lost last, if the disk takes it now.
    pub fn finish(&mut self) {
        self.say_gap(now_ns());
    }

    /// Bytes written by the worker, and those of them that are not kept.
    pub fn totals(&self) -> (u64, u64) {
        let first = self.numbers().min().and_then(|number| self.header(number));
        let first = first.unwrap_or(SegmentHeader { offset: 0, dropped: 0 });
        // Before the first segment nothing is kept, whatever became of it; after it only gaps are not.
        (self.totals.offset, first.offset + self.totals.dropped.saturating_sub(first.dropped))
    }

    /// Gives the memory of a burst back.
    pub fn rest(&mut self) {
        if self.scratch.is_touched() {
            self.scratch.release();
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        let gap = if self.gap > 0 { RECORD_HEADER_BYTES + 8 } else { 0 };
        let fresh = SEGMENT_HEADER_BYTES as u64;
        self.segment.as_ref().is_some_and(|s| s.len == fresh || s.len + (bytes + gap) as u64 <= self.segment_bytes_max)
    }

    /// Begins the next segment and removes the oldest beyond the cap. Where it cannot be made, bytes are dropped.
    fn rotate(&mut self) {
        self.segment = None;
        let number = self.next_number;
        let oldest_kept = (number + 1).saturating_sub(self.segments_max);
        let old: Vec<u64> = self.numbers().filter(|n| *n < oldest_kept).collect();
        for number in old {
            let _ = rustix::fs::unlinkat(&self.dir, segment_name(number), AtFlags::empty());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let name = segment_name(number);
        let Ok(file) = rustix::fs::openat(&self.dir, &name, flags, Mode::RUSR | Mode::WUSR) else { return };
        // What a gap will say in this segment does not come before it.
        let before = |total: u64| total.saturating_sub(self.gap);
        let header =
            SegmentHeader { offset: before(self.totals.offset), dropped: before(self.totals.dropped) }.encode();
        match rustix::io::pwrite(&file, &header, 0) {
            Ok(SEGMENT_HEADER_BYTES) => {
                self.segment = Some(Segment { file, len: SEGMENT_HEADER_BYTES as u64 });
                self.next_number += 1;
            }
            Ok(_) | Err(_) => {
                let _ = rustix::fs::unlinkat(&self.dir, &name, AtFlags::empty());
            }
        }
    }

    /// Writes what was lost before what comes now. False: the disk still takes nothing.
    fn say_gap(&mut self, time_ns: i64) -> bool {
        if self.gap == 0 {
            return true;
        }
        let Some(segment) = &mut self.segment else { return false };
        let header = RecordHeader { time_ns, len: 8, stream: Stream::Gap }.encode();
        let said = segment.append(&header, &self.gap.to_le_bytes());
        if said {
            self.gap = 0;
        }
        said
    }

    fn append(&mut self, header: RecordHeader, len: usize) -> bool {
        let Some(segment) = &mut self.segment else { return false };
        segment.append(&header.encode(), &self.scratch.bytes()[..len])
    }

    /// Opens segment `number`, counts what it holds, cuts off a record that a killed shim left unfinished.
    fn resume(&mut self, number: u64) {
        let Ok(file) = open_in(&self.dir, Path::new(&segment_name(number)), OFlags::RDWR) else { return };
        let Some(header) = self.header(number) else { return };
        let Ok(reader) = file.try_clone().map(std::fs::File::from) else { return };
        let found = scan(std::io::BufReader::new(reader));
        self.totals = Totals { offset: header.offset + found.bytes + found.gaps, dropped: header.dropped + found.gaps };
        if !found.damaged && rustix::fs::ftruncate(&file, found.len).is_ok() {
            self.segment = Some(Segment { file, len: found.len });
        }
    }

    fn header(&self, number: u64) -> Option<SegmentHeader> {
        let file = open_in(&self.dir, Path::new(&segment_name(number)), OFlags::RDONLY).ok()?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let got = rustix::io::pread(&file, &mut bytes, 0).ok()?;
        if got == bytes.len() { SegmentHeader::decode(&bytes) } else { None }
    }

    fn numbers(&self) -> impl Iterator<Item = u64> + use<> {
        let entries = rustix::fs::Dir::read_from(&self.dir).ok();
        entries.into_iter().flatten().flatten().filter_map(|e| segment_number(e.file_name().to_str().ok()?))
    }
}

impl Segment {
    /// Whole or not at all: what a full disk cut short is taken back.
    fn append(&mut self, header: &[u8], payload: &[u8]) -> bool {
        let wanted = header.len() + payload.len();
        match rustix::io::pwritev(&self.file, &[IoSlice::new(header), IoSlice::new(payload)], self.len) {
            Ok(written) if written == wanted => {
                self.len += wanted as u64;
                true
            }
            Ok(_) | Err(_) => {
                // If this fails as well, the next record overwrites it or a reader sees a cut-off end.
                let _ = rustix::fs::ftruncate(&self.file, self.len);
                false
            }
        }
    }
}

/// What a segment holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// Up to the end of the last whole record.
    len: u64,
    /// Of payload.
    bytes: u64,
    /// Said by gaps to be missing.
    gaps: u64,
    /// Something that is no record came after `len`.
    damaged: bool,
}

fn scan(mut segment: impl Read) -> Found {
    let mut found = Found { len: SEGMENT_HEADER_BYTES as u64, ..Found::default() };
    if segment.read_exact(&mut [0; SEGMENT_HEADER_BYTES]).is_err() {
        found.damaged = true;
        return found;
    }
    let mut head = [0; RECORD_HEADER_BYTES];
    while segment.read_exact(&mut head).is_ok() {
        let Some(header) = RecordHeader::decode(&head) else {
            found.damaged = true;
            break;
        };
        let mut payload = [0; 8];
        let whole = match header.stream {
            Stream::Gap => segment.read_exact(&mut payload).is_ok(),
            Stream::Stdout | Stream::Stderr => skip(&mut segment, u64::from(header.len)),
        };
        if !whole {
            break;
        }
        found.len += RECORD_HEADER_BYTES as u64 + u64::from(header.len);
        match header.stream {
            Stream::Gap => found.gaps += u64::from_le_bytes(payload),
            Stream::Stdout | Stream::Stderr => found.bytes += u64::from(header.len),
        }
    }
    found
}

fn skip(segment: &mut impl Read, len: u64) -> bool {
    std::io::copy(&mut segment.take(len), &mut std::io::sink()).is_ok_and(|skipped| skipped == len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(stream: Stream, payload: &[u8]) -> Vec<u8> {
        let header = RecordHeader { time_ns: 1, len: payload.len() as u32, stream };
        [&header.encode()[..], payload].concat()
    }

    fn segment(parts: &[&[u8]]) -> Vec<u8> {
        [&SegmentHeader { offset: 100, dropped: 10 }.encode()[..], &parts.concat()].concat()
    }

    #[test]
    fn a_segment_is_counted_up_to_its_last_whole_record() {
        let (out, err) = (record(Stream::Stdout, b"hello"), record(Stream::Stderr, b"!"));
        let gap = record(Stream::Gap, &7u64.to_le_bytes());
        let whole = segment(&[&out, &gap, &err]);
        let counted = Found { len: whole.len() as u64, bytes: 6, gaps: 7, damaged: false };
        assert_eq!(scan(&whole[..]), counted);
        let cut_off = [&whole[..], &out[..out.len() - 1]].concat();
        assert_eq!(scan(&cut_off[..]), counted);
        let within_a_header = [&whole[..], &out[..3]].concat();
        assert_eq!(scan(&within_a_header[..]), counted);
    }

    #[test]
    fn what_is_no_record_is_damage() {
        assert!(scan(&segment(&[&[0xff; 64]])[..]).damaged);
        assert!(scan(&[1u8, 0][..]).damaged);
    }

    fn log_in(dir: &Path, bytes_max: u64) -> Log {
        let dir = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        Log::open(dir, bytes_max, 2).unwrap()
    }

    fn feed(log: &mut Log, bytes: &[u8]) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        assert_eq!(rustix::io::write(&write, bytes).unwrap(), bytes.len());
        drop(write);
        while log.take(&read, Stream::Stdout) == Flow::Some {}
    }

    #[test]
    fn the_next_generation_goes_on_after_a_record_that_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        feed(&mut log_in(dir.path(), 1 << 20), b"first");
        let path = dir.path().join(segment_name(1));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &record(Stream::Stdout, b"lost")[..18]].concat()).unwrap();
        let mut log = log_in(dir.path(), 1 << 20);
        feed(&mut log, b"second");
        assert_eq!(log.totals(), (11, 0));
        let kept = std::fs::read(&path).unwrap();
        assert_eq!(kept[..whole.len()], whole);
        assert!(kept.ends_with(b"second") && kept.len() == whole.len() + RECORD_HEADER_BYTES + 6);
    }

    #[test]
    fn a_damaged_segment_is_left_and_a_new_one_begun() {
        let dir = tempfile::tempdir().unwrap();
        feed(&mut log_in(dir.path(), 1 << 20), b"first");
        std::fs::write(dir.path().join(segment_name(2)), b"nothing of ours").unwrap();
        let mut log = log_in(dir.path(), 1 << 20);
        feed(&mut log, b"x");
        assert!(dir.path().join(segment_name(3)).exists());
        assert_eq!(std::fs::read(dir.path().join(segment_name(2))).unwrap(), b"nothing of ours");
    }

    #[test]
    fn bytes_over_the_cap_are_counted_over_generations() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            feed(&mut log_in(dir.path(), 8192), &[b'x'; 4000]);
        }
        let log = log_in(dir.path(), 8192);
        assert_eq!(log.totals(), (12_000, 4000));
        assert_eq!(log.numbers().count(), 2);
    }
}
