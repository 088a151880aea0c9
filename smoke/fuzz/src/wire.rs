//! The wire forms between helper, launcher, shims and daemon, and what shims leave on disk.

use holdfast_launcher::control::{Hello, Order, Report};
use holdfast_launcher::counters::{AskCounters, Counters};
use holdfast_launcher::launch::{FromHelper, FromLauncher, ShimWord};
use holdfast_launcher::orders::Orders;
use holdfast_launcher::output::{
    RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, segment_number,
};
use holdfast_launcher::record::ExitRecord;
use holdfast_launcher::session::{Call, FromSession, Program, ToSession};

/// What is read writes itself back byte for byte: a message has one form.
macro_rules! one_form {
    ($bytes:expr, $($form:ty),+) => {
        $(if let Ok(message) = <$form>::decode($bytes) {
            assert_eq!(message.encode(), $bytes, "{message:?}");
        })+
    };
}

/// Between helper and launcher.
pub fn launch(bytes: &[u8]) {
    one_form!(bytes, FromLauncher, FromHelper, ShimWord);
}

/// What a shim is told to start.
pub fn orders(bytes: &[u8]) {
    one_form!(bytes, Orders);
}

/// Between daemon and shim.
pub fn control(bytes: &[u8]) {
    one_form!(bytes, Hello, Order, Report);
}

/// What a worker used.
pub fn counters(bytes: &[u8]) {
    one_form!(bytes, AskCounters, Counters);
}

/// One more program in a worker, and its streams.
pub fn session(bytes: &[u8]) {
    one_form!(bytes, Call, Program, ToSession, FromSession);
}

/// How a worker ended, as its shim leaves it.
pub fn exit_record(bytes: &[u8]) {
    one_form!(bytes, ExitRecord);
}

/// What a worker said, as its shim keeps it: headers and payloads until the first damage.
pub fn log_records(bytes: &[u8]) {
    if let Some((first, mut rest)) = bytes.split_first_chunk::<SEGMENT_HEADER_BYTES>()
        && let Some(header) = SegmentHeader::decode(first)
    {
        assert_eq!(header.encode(), *first);
        while let Some((head, more)) = rest.split_first_chunk::<RECORD_HEADER_BYTES>() {
            let Some(record) = RecordHeader::decode(head) else { break };
            assert_eq!(record.encode(), *head);
            let Some(next) = more.get(record.len as usize..) else { break };
            rest = next;
        }
    }
    if let Ok(name) = std::str::from_utf8(bytes)
        && let Some(number) = segment_number(name)
    {
        assert_eq!(format!("{number:010}"), name);
    }
}
