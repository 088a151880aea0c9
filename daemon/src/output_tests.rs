use super::*;

/// Writes as a shim does.
struct Log {
    dir: tempfile::TempDir,
    number: u64,
    offset: u64,
}

impl Log {
    fn new() -> Self {
        let mut log = Self { dir: tempfile::tempdir().unwrap(), number: 0, offset: 0 };
        log.rotate();
        log
    }

    fn rotate(&mut self) {
        self.number += 1;
        let header = SegmentHeader { offset: self.offset, dropped: 0 }.encode();
        std::fs::write(self.path(self.number), header).unwrap();
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.path().join(segment_name(number))
    }

    fn append(&self, bytes: &[u8]) {
        use std::io::Write;
        std::fs::OpenOptions::new().append(true).open(self.path(self.number)).unwrap().write_all(bytes).unwrap();
    }

    fn write(&mut self, stream: Stream, text: &str) {
        let header = RecordHeader { time_ns: 1, len: text.len() as u32, stream };
        self.append(&[&header.encode()[..], text.as_bytes()].concat());
        self.offset += text.len() as u64;
    }

    fn out(&mut self, text: &str) {
        self.write(Stream::Stdout, text);
    }

    fn gap(&mut self, bytes: u64) {
        let header = RecordHeader { time_ns: 1, len: 8, stream: Stream::Gap };
        self.append(&[&header.encode()[..], &bytes.to_le_bytes()].concat());
        self.offset += bytes;
    }
}

/// All that can be read now: text, and `<N>` for N missing bytes.
fn read_all(reader: &mut Reader) -> String {
    let mut text = String::new();
    loop {
        let pieces = reader.read().unwrap();
        if pieces.is_empty() {
            return text;
        }
        for piece in pieces {
            match piece {
                Piece::Bytes { bytes, .. } => text.push_str(&String::from_utf8(bytes).unwrap()),
                Piece::Missing { bytes, .. } => text.push_str(&format!("<{bytes}>")),
            }
        }
    }
}

fn tail(log: &Log, lines: u64) -> String {
    read_all(&mut Reader::from_tail(log.dir.path(), lines).unwrap())
}

#[test]
fn all_is_read_in_order_with_its_streams() {
    let mut log = Log::new();
    log.out("one\n");
    log.write(Stream::Stderr, "two\n");
    log.rotate();
    log.out("three");
    let mut reader = Reader::from_start(log.dir.path());
    let mut pieces = reader.read().unwrap();
    pieces.extend(reader.read().unwrap());
    let streams: Vec<_> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Bytes { stream, bytes, .. } => (*stream, String::from_utf8(bytes.clone()).unwrap()),
            Piece::Missing { .. } => panic!("nothing is missing"),
        })
        .collect();
    let expected = [(Stream::Stdout, "one\n"), (Stream::Stderr, "two\n"), (Stream::Stdout, "three")];
    assert_eq!(streams, expected.map(|(stream, text)| (stream, text.to_owned())));
}

#[test]
fn a_reader_goes_on_where_it_was_as_more_comes_and_files_rotate() {
    let mut log = Log::new();
    let mut reader = Reader::from_start(log.dir.path());
    assert_eq!(read_all(&mut reader), "");
    for turn in 0..5 {
        log.out(&format!("a{turn}\n"));
        assert_eq!(read_all(&mut reader), format!("a{turn}\n"));
        log.out(&format!("b{turn}\n"));
        log.rotate();
        log.out(&format!("c{turn}\n"));
        assert_eq!(read_all(&mut reader), format!("b{turn}\nc{turn}\n"));
    }
}

#[test]
fn a_record_that_is_being_written_waits_and_one_that_was_cut_off_is_left_out() {
    let mut log = Log::new();
    log.out("whole\n");
    let header = RecordHeader { time_ns: 1, len: 6, stream: Stream::Stdout }.encode();
    log.append(&[&header[..], b"hal"].concat());
    let mut reader = Reader::from_start(log.dir.path());
    assert_eq!(read_all(&mut reader), "whole\n");
    log.append(b"ves");
    log.offset += 6;
    assert_eq!(read_all(&mut reader), "halves");
    // The shim was killed in this one; the next generation began a new file.
    log.append(&header[..9]);
    log.rotate();
    log.out("next\n");
    assert_eq!(read_all(&mut reader), "next\n");
    assert_eq!(read_all(&mut Reader::from_start(log.dir.path())), "whole\nhalvesnext\n");
}

#[test]
fn missing_bytes_are_told_where_they_are_missing() {
    let mut log = Log::new();
    log.out("12345");
    log.rotate();
    log.out("67890");
    log.gap(42);
    log.out("end\n");
    std::fs::remove_file(log.path(1)).unwrap();
    assert_eq!(read_all(&mut Reader::from_start(log.dir.path())), "<5>67890<42>end\n");
    let expected = Figures { bytes: 5 + 5 + 42 + 4, dropped_bytes: 5 + 42 };
    assert_eq!(figures(log.dir.path()).unwrap(), expected);
    assert_eq!(tail(&log, 1), "67890<42>end\n");
}

#[test]
fn a_file_that_goes_while_it_is_read_is_read_to_its_end() {
    let mut log = Log::new();
    log.out("first\n");
    let mut reader = Reader::from_start(log.dir.path());
    assert_eq!(read_all(&mut reader), "first\n");
    log.out("rest\n");
    for _ in 0..3 {
        log.rotate();
        log.out("12345\n");
    }
    for number in 1..=3 {
        std::fs::remove_file(log.path(number)).unwrap();
    }
    assert_eq!(read_all(&mut reader), "rest\n<12>12345\n");
}

#[test]
fn damage_ends_a_file_and_not_the_reading() {
    let mut log = Log::new();
    log.out("good\n");
    log.append(&[0xff; 64]);
    log.rotate();
    log.out("more\n");
    assert_eq!(read_all(&mut Reader::from_start(log.dir.path())), "good\nmore\n");
    log.rotate();
    log.out("lost\n");
    std::fs::write(log.path(3), [9; 100]).unwrap();
    log.rotate();
    log.out("last\n");
    assert_eq!(read_all(&mut Reader::from_start(log.dir.path())), "good\nmore\n<5>last\n");
}

#[test]
fn the_last_lines_are_found_across_records_and_files() {
    let mut log = Log::new();
    for line in 1..=30 {
        log.out(&format!("line {line}\n"));
        if line % 7 == 0 {
            log.rotate();
        }
    }
    assert_eq!(tail(&log, 0), "");
    assert_eq!(tail(&log, 1), "line 30\n");
    assert_eq!(tail(&log, 3), "line 28\nline 29\nline 30\n");
    assert_eq!(tail(&log, 10).lines().count(), 10);
    assert_eq!(tail(&log, 30).lines().count(), 30);
    assert_eq!(tail(&log, 31).lines().count(), 30);
    assert_eq!(tail(&log, u64::MAX).lines().count(), 30);
}

#[test]
fn the_last_lines_are_found_within_one_record_and_without_a_newline_at_the_end() {
    let mut log = Log::new();
    log.out("a\nb\nc\nd");
    assert_eq!(tail(&log, 1), "d");
    assert_eq!(tail(&log, 2), "c\nd");
    assert_eq!(tail(&log, 4), "a\nb\nc\nd");
    assert_eq!(tail(&log, 0), "");
    log.write(Stream::Stderr, "e\n\n");
    assert_eq!(tail(&log, 1), "\n");
    assert_eq!(tail(&log, 2), "de\n\n");
    assert_eq!(tail(&log, 3), "c\nde\n\n");
}

#[test]
fn the_tail_of_nothing_is_nothing_and_follows() {
    let mut log = Log::new();
    let mut reader = Reader::from_tail(log.dir.path(), 5).unwrap();
    assert_eq!(read_all(&mut reader), "");
    log.out("now\n");
    assert_eq!(read_all(&mut reader), "now\n");
    assert_eq!(read_all(&mut Reader::from_tail(&log.dir.path().join("gone"), 5).unwrap()), "");
    assert_eq!(figures(&log.dir.path().join("gone")).unwrap(), Figures::default());
}

#[test]
fn large_output_is_read_in_blocks() {
    let mut log = Log::new();
    let line = "x".repeat(PAYLOAD_BYTES_MAX - 1) + "\n";
    for _ in 0..20 {
        log.out(&line);
    }
    let mut reader = Reader::from_start(log.dir.path());
    assert!(reader.read().unwrap().len() < 5);
    assert_eq!(read_all(&mut Reader::from_start(log.dir.path())).len(), 20 * PAYLOAD_BYTES_MAX);
    assert_eq!(tail(&log, 2).len(), 2 * PAYLOAD_BYTES_MAX);
}

#[test]
fn a_second_reading_begins_where_the_first_ended_whatever_was_kept() {
    let mut log = Log::new();
    log.out("one\n");
    log.write(Stream::Stderr, "two\n");
    log.rotate();
    log.gap(5);
    log.out("three\nfour\n");
    log.rotate();
    log.out("five");
    // A byte of the gap stands for itself.
    let all: Vec<char> = "one\ntwo\n\0\0\0\0\0three\nfour\nfive".chars().collect();
    for cut in 0..=all.len() {
        let rest = read_all(&mut Reader::from_position(log.dir.path(), cut as u64).unwrap());
        let gap = all[cut..].iter().filter(|letter| **letter == '\0').count();
        let expected: String = all[cut..].iter().collect();
        let expected = expected.replacen(&"\0".repeat(gap), &format!("<{gap}>"), usize::from(gap > 0));
        assert_eq!(rest, expected, "cut at {cut}");
    }
    assert_eq!(read_all(&mut Reader::from_position(log.dir.path(), 1000).unwrap()), "");
    std::fs::remove_file(log.path(1)).unwrap();
    assert_eq!(read_all(&mut Reader::from_position(log.dir.path(), 2).unwrap()), "<6><5>three\nfour\nfive");
    let mut tail = Reader::from_tail(log.dir.path(), 1).unwrap();
    let pieces = tail.read().unwrap();
    assert!(matches!(pieces[..], [Piece::Bytes { position: 24, .. }]), "{pieces:?}");
    let mut tail = Reader::from_tail(log.dir.path(), 2).unwrap();
    let pieces = tail.read().unwrap();
    assert!(matches!(pieces[..], [Piece::Bytes { position: 19, .. }]), "{pieces:?}");
}
