use super::*;
use holdfast_proto::daemon::{Counters, Phase, Worker};

/// A model of workers that differ in everything, for the screen's tests, too.
pub fn model() -> Model {
    let mut model = Model::new("alice".into());
    let usage = |name: &str, pid, cpu, memory_mib: u64, net, restarts, started_at| Usage {
        worker: Worker {
            id: "00112233445566aa".into(),
            name: name.into(),
            phase: if pid == 0 { Phase::Waiting.into() } else { Phase::Running.into() },
            pid,
            restarts,
            started_at,
            command: vec![b"python3".to_vec(), b"-m".to_vec(), b"http.server".to_vec(), b"80".to_vec()],
            addresses: vec!["10.88.0.2/22".into()],
            ..Worker::default()
        },
        counters: Counters { memory_bytes: Some(memory_mib << 20), tasks: Some(2), ..Counters::default() },
        cpu_percent: cpu,
        received_per_sec: net,
        sent_per_sec: net,
    };
    model.take(vec![
        usage("web", 7, Some(1.5), 30, Some(2048.0), 0, 3_000_000_000),
        usage("db", 8, Some(250.0), 10, None, 1, 1_000_000_000),
        usage("loops", 0, None, 0, None, 17, 0),
        usage("api", 9, Some(1.5), 20, Some(10.0), 0, 2_000_000_000),
    ]);
    model
}

fn names(model: &Model) -> Vec<&str> {
    model.rows().into_iter().map(|usage| usage.worker.name.as_str()).collect()
}

fn type_in(model: &mut Model, keys: &str) {
    for key in keys.chars() {
        assert_eq!(model.press(Press::Letter(key)), Next::Stay);
    }
}

#[test]
fn each_key_sorts_and_equal_ones_stay_in_the_order_of_names() {
    for (key, sorted) in [
        ('c', ["db", "api", "web", "loops"]),
        ('m', ["web", "api", "db", "loops"]),
        ('n', ["web", "api", "db", "loops"]),
        ('r', ["loops", "db", "api", "web"]),
        ('u', ["db", "api", "web", "loops"]),
        ('a', ["api", "db", "loops", "web"]),
    ] {
        let mut model = model();
        type_in(&mut model, &key.to_string());
        assert_eq!(names(&model), sorted, "{key}");
        type_in(&mut model, "R");
        assert_eq!(names(&model)[3], if key == 'r' { "loops" } else { sorted[0] }, "{key} reversed");
    }
}

#[test]
fn a_filter_is_typed_kept_and_cleared() {
    let mut model = model();
    // Keys that sort or leave elsewhere are letters here.
    type_in(&mut model, "/q");
    assert_eq!(names(&model), [""; 0]);
    model.press(Press::Backspace);
    type_in(&mut model, "b");
    assert_eq!(names(&model), ["db", "web"]);
    model.press(Press::Enter);
    assert!(!model.typing);
    assert_eq!(model.press(Press::Escape), Next::Stay, "first the filter goes");
    assert_eq!(names(&model).len(), 4);
    assert_eq!(model.press(Press::Escape), Next::Leave);
    type_in(&mut model, "/");
    type_in(&mut model, &"x".repeat(100));
    assert_eq!(model.filter.len(), FILTER_CHARS_MAX);
    assert_eq!(model.press(Press::Interrupt), Next::Leave, "also while typing");
}

#[test]
fn scrolling_ends_at_both_ends_whatever_the_size() {
    let mut model = model();
    model.fits(3);
    for press in [Press::Up, Press::PageUp, Press::Home] {
        model.press(press);
        assert_eq!(model.offset, 0);
    }
    for press in [Press::Down, Press::PageDown, Press::End, Press::Down] {
        model.press(press);
        assert_eq!(model.offset, 1, "the last page is full");
    }
    model.fits(100);
    assert_eq!(model.offset, 0, "everything fits now");
    model.fits(0);
    model.press(Press::End);
    assert_eq!(model.offset, 3);
    model.take(Vec::new());
    assert_eq!((model.offset, names(&model).len()), (0, 0));
}

#[test]
fn trouble_stays_until_there_is_something_new() {
    let mut model = model();
    model.say("no daemon answers".into());
    type_in(&mut model, "m");
    assert_eq!(model.trouble.as_deref(), Some("no daemon answers"));
    model.take(Vec::new());
    assert_eq!(model.trouble, None);
}
