use super::*;

fn worker(name: &str) -> wire::Worker {
    wire::Worker {
        id: "00ff00ff00ff00ff".into(),
        name: name.into(),
        network: "bridge".into(),
        labels: [("app".to_owned(), "shop".to_owned()), ("empty".to_owned(), String::new())].into(),
        external_id: "job:17".into(),
        ..Default::default()
    }
}

fn filter(texts: &[&str]) -> Result<Filter, FilterError> {
    Filter::parse(texts.iter().copied())
}

fn admits(texts: &[&str]) -> bool {
    filter(texts).unwrap().admits(Phase::Running, &worker("web-1"))
}

#[test]
fn every_condition_must_hold_and_of_phases_one() {
    assert!(admits(&[]));
    assert!(admits(&["label=app", "label=app=shop", "label=empty", "label=empty=", "name=web-1", "id=00ff"]));
    assert!(admits(&["external-id=job:17", "network=bridge", "phase=failed", "phase=running"]));
    for no in [
        "label=nosuch",
        "label=app=",
        "label=app=sho",
        "label=app=shop=",
        "name=web",
        "name=web-12",
        "id=0f",
        "external-id=job",
        "network=none",
        "phase=failed",
    ] {
        assert!(!admits(&[no]), "{no}");
        assert!(!admits(&["label=app", no]), "{no}");
    }
    assert!(filter(&["phase=failed"]).unwrap().names_phases() && !filter(&["name=x"]).unwrap().names_phases());
}

#[test]
fn a_star_stands_for_any_characters() {
    for (pattern, fits) in [
        ("*", true),
        ("web*", true),
        ("*1", true),
        ("w*-*1", true),
        ("***", true),
        ("w*b*1", true),
        ("web", false),
        ("*2", false),
        ("w*2*1", false),
        ("*web-1*x", false),
    ] {
        assert_eq!(admits(&[&format!("name={pattern}")]), fits, "{pattern}");
    }
    let stars = "*a".repeat(32);
    assert!(!filter(&[&format!("name={stars}")]).unwrap().admits(Phase::Running, &worker(&"a".repeat(31))));
}

#[test]
fn what_is_no_filter_is_refused_with_those_that_are_known() {
    let long = format!("label={}", "k".repeat(64));
    let longer = format!("name={}", "n".repeat(4096));
    for bad in [
        "",
        "=",
        "label",
        "label=",
        "label==x",
        "nosuch=1",
        "name=",
        "name=../x",
        "name=a\0b",
        "name=A",
        "id=xyz",
        "id=",
        "id=00ff00ff00ff00ff0",
        "phase=",
        "phase=Running",
        "phase=nosuch",
        "network=",
        "network=a b",
        "external-id=",
        "external-id=../x",
        "LABEL=app",
        "label=-x",
        "label=a b",
        "label=é",
        &long,
        &longer,
    ] {
        let error = filter(&[bad]).expect_err(bad).to_string();
        assert!(error.len() < 400, "{error}");
    }
    assert!(filter(&["nosuch=1"]).unwrap_err().to_string().contains("external-id, network, phase"));
    assert!(filter(&["phase=nosuch"]).unwrap_err().to_string().contains("created, starting, running"));
    assert_eq!(filter(&["name=a"; FILTERS_MAX + 1]), Err(FilterError::TooMany(FILTERS_MAX + 1)));
}

#[test]
fn labels_and_external_ids_are_what_the_contract_says() {
    let one = |key: &str, value: &str| labels(&[(key.to_owned(), value.to_owned())].into());
    for key in ["a", "app", "example.com/app_1-x", &"k".repeat(63)] {
        assert_eq!(one(key, "v é 漢"), Ok(()), "{key}");
    }
    for key in ["", "-a", ".a", "a b", "é", "a=b", "a\0", "../x", &"k".repeat(64), &"k".repeat(100_000)] {
        assert!(matches!(one(key, ""), Err(MarkError::Key(_))), "{key:.20}");
    }
    for value in ["\0", "\n", "\x1b[31m", &"v".repeat(257)] {
        assert!(matches!(one("a", value), Err(MarkError::Value(_))), "{value:?}");
    }
    let many = (0..=LABELS_MAX).map(|number| (format!("k{number}"), String::new())).collect();
    assert_eq!(labels(&many), Err(MarkError::Labels(LABELS_MAX + 1)));
    for id in ["", "a", "job:17.2_x-y", &"0".repeat(128)] {
        assert_eq!(external_id(id), Ok(()), "{id}");
    }
    for id in ["../x", "a/b", "a b", "é", "a\0", "%2e", ":a", "-a", &"0".repeat(129)] {
        assert!(external_id(id).is_err(), "{id}");
    }
}
