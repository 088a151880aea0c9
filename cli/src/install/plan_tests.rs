use super::*;
use crate::install::facts::{Machine, ReleaseFacts};
use std::collections::BTreeMap;

fn account(name: &str, uid: u32) -> Account {
    Account { name: name.parse().unwrap(), uid, gid: uid, home: format!("/home/{name}") }
}

fn release(id: &str, units: &str) -> ReleaseFacts {
    let names = [
        "holdfast-helper.service",
        "holdfast-helper.socket",
        "holdfastd@.service",
        "holdfastd@.socket",
        "holdfast-launcher@.service",
        "holdfast-workers@.service",
        "holdfast-shutdown.service",
    ];
    let conf = [
        ("rules.toml", "version = 1\n"),
        ("holdfast.sysusers.conf", "u\n"),
        ("holdfast.tmpfiles.conf", "d\n"),
        ("holdfast.sysctl.conf", "s\n"),
    ];
    ReleaseFacts {
        id: id.to_owned(),
        version: "1.2.3".to_owned(),
        commit: "c".to_owned(),
        units: names.iter().map(|name| ((*name).to_owned(), units.as_bytes().to_vec())).collect(),
        conf: conf.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
    }
}

/// A machine where nothing is installed.
fn fresh() -> Facts {
    Facts {
        machine: Machine { systemd: Some(252), user_namespaces: Ok(()), forwards6: Forwards6::Off },
        account: account("alice", 1000),
        release: release("r1", "v1"),
        installed: None,
        rules: None,
        current: None,
        units: BTreeMap::new(),
        active: Vec::new(),
    }
}

fn request() -> Request {
    Request { ports: Vec::new(), pool6: "fd12:3456:789a::/48".into(), now: Timestamp::UNIX_EPOCH }
}

/// The same machine after `facts` was installed and all runs.
fn after(facts: &Facts) -> Facts {
    let plan = decide(facts).unwrap();
    let text = |name: &str| {
        plan.steps.iter().find_map(|step| match step {
            Step::Write { path, bytes } if path.ends_with(name) => Some(String::from_utf8(bytes.clone()).unwrap()),
            _ => None,
        })
    };
    Facts {
        rules: text("rules.toml"),
        current: Some(format!("releases/{}", facts.release.id)),
        machine: Machine { forwards6: Forwards6::Workers, ..facts.machine.clone() },
        units: facts.release.units.clone(),
        active: start_order(&plan.installed),
        installed: Some(plan.installed),
        ..facts.clone()
    }
}

fn decide(facts: &Facts) -> Result<Plan, PlanRefusal> {
    plan(facts, &request(), &Layout::system())
}

/// What is done to units, in order.
fn acts(facts: &Facts) -> Vec<String> {
    let steps = decide(facts).unwrap().steps;
    steps
        .iter()
        .filter_map(|step| match step {
            Step::Start { unit } => Some(format!("start {unit}")),
            Step::Restart { unit } => Some(format!("restart {unit}")),
            Step::Relisten { socket, .. } => Some(format!("relisten {socket}")),
            _ => None,
        })
        .collect()
}

#[test]
fn a_first_install_places_then_flips_then_records_then_starts() {
    let steps = decide(&fresh()).unwrap().steps;
    let place = |wanted: fn(&Step) -> bool| steps.iter().position(wanted).unwrap();
    let order = [
        place(|step| matches!(step, Step::Directory { .. })),
        place(|step| matches!(step, Step::Place { .. })),
        place(|step| matches!(step, Step::Link { .. })),
        place(|step| matches!(step, Step::Write { .. })),
        place(|step| matches!(step, Step::Account { .. })),
        place(|step| matches!(step, Step::Units { .. })),
        place(|step| matches!(step, Step::Enable { .. })),
        place(|step| matches!(step, Step::Start { .. })),
        place(|step| matches!(step, Step::Await { .. })),
    ];
    assert!(order.is_sorted(), "{order:?}");
    // What recovers is the new release once it answers, and not before.
    assert_eq!(order[8], steps.len() - 2);
    let last = Step::Link { path: committed(&Layout::system()), target: "releases/r1".to_owned() };
    assert_eq!(steps.last(), Some(&last));
    assert!(!steps.iter().any(|step| matches!(step, Step::Link { path, .. } if *path == Layout::system().previous())));
    let started = [
        "start holdfast-helper.socket",
        "start holdfast-helper.service",
        "start holdfast-shutdown.service",
        "start holdfastd@alice.socket",
        "start holdfast-workers@alice.service",
        "start holdfast-launcher@alice.service",
        "start holdfastd@alice.service",
    ];
    assert_eq!(acts(&fresh()), started);
}

#[test]
fn the_same_again_interrupts_nothing_and_changes_no_file() {
    let facts = after(&fresh());
    assert_eq!(acts(&facts), [""; 0]);
    let later = Request { now: Timestamp::from_second(99).unwrap(), ..request() };
    let again = plan(&facts, &later, &Layout::system()).unwrap();
    assert_eq!(Some(again.installed), facts.installed);
}

#[test]
fn another_owner_is_added_without_touching_the_first() {
    let facts = Facts { account: account("bob", 1001), ..after(&fresh()) };
    let started = [
        "start holdfastd@bob.socket",
        "start holdfast-workers@bob.service",
        "start holdfast-launcher@bob.service",
        "start holdfastd@bob.service",
    ];
    assert_eq!(acts(&facts), started);
    let plan = decide(&facts).unwrap();
    assert_eq!(plan.installed.owners.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["alice", "bob"]);
    let lines = tmpfiles("d\n", &plan.installed);
    assert_eq!(
        lines,
        "d\nd /run/holdfast/owners/alice 0755 root root -\nd /run/holdfast/owners/bob 0755 root root -\n"
    );
}

#[test]
fn a_new_release_restarts_every_owners_programs_and_keeps_the_way_back() {
    let both = after(&Facts { account: account("bob", 1001), ..after(&fresh()) });
    let facts = Facts { release: release("r2", "v1"), ..both };
    let restarted = [
        "restart holdfast-helper.service",
        "restart holdfast-launcher@alice.service",
        "restart holdfastd@alice.service",
        "restart holdfast-launcher@bob.service",
        "restart holdfastd@bob.service",
    ];
    assert_eq!(acts(&facts), restarted);
    let back = Step::Link { path: Layout::system().previous(), target: "releases/r1".to_owned() };
    assert!(decide(&facts).unwrap().steps.contains(&back));
}

#[test]
fn one_changed_unit_restarts_that_one() {
    let mut facts = after(&fresh());
    facts.units.insert("holdfastd@.service".to_owned(), b"edited".to_vec());
    assert_eq!(acts(&facts), ["restart holdfastd@alice.service"]);
}

#[test]
fn what_holds_workers_is_never_restarted() {
    let mut facts = after(&fresh());
    facts.units.insert("holdfast-workers@.service".to_owned(), b"edited".to_vec());
    assert_eq!(acts(&facts), [""; 0]);
}

#[test]
fn a_changed_listener_is_bound_anew_with_its_service() {
    let mut facts = after(&fresh());
    facts.units.insert("holdfast-helper.socket".to_owned(), b"edited".to_vec());
    assert_eq!(acts(&facts), ["relisten holdfast-helper.socket"]);
}

#[test]
fn what_does_not_run_is_started() {
    let mut facts = after(&fresh());
    facts.active.retain(|unit| unit != "holdfastd@alice.service");
    assert_eq!(acts(&facts), ["start holdfastd@alice.service"]);
}

#[test]
fn hosts_and_owners_that_cannot_work_are_refused() {
    let refused = |change: fn(&mut Facts)| {
        let mut facts = fresh();
        change(&mut facts);
        decide(&facts).unwrap_err().to_string()
    };
    assert!(refused(|f| f.machine.systemd = None).contains("holdfast session start"));
    assert!(refused(|f| f.machine.systemd = Some(251)).contains("systemd 251 is too old"));
    assert!(refused(|f| f.machine.user_namespaces = Err("max is 0".into())).contains("max is 0"));
    assert!(refused(|f| f.account.uid = 0).contains("cannot own workers"));
    assert!(refused(|f| f.account.uid = 65534).contains("cannot own workers"));
    assert!(refused(|f| f.account = account("holdfast", 999)).contains("cannot own workers"));
    assert!(refused(|f| f.account = account("john--doe", 1007)).contains("two '-' in a row"));
    assert!(refused(|f| f.rules = Some("version = 9\n".into())).contains("version = 9"));
    assert!(refused(|f| drop(f.release.conf.remove("rules.toml"))).contains("rules.toml"));
    assert!(refused(|f| *f = Facts { account: account("alice", 7), ..after(f) }).contains("has uid 7 now"));
}

#[test]
fn instances_belong_to_their_template() {
    assert_eq!(template_of("holdfastd@john.doe.service"), "holdfastd@.service");
    assert_eq!(template_of("holdfast-helper.socket"), "holdfast-helper.socket");
}

#[test]
fn ipv6_is_forwarded_for_workers_unless_the_host_is_a_router_or_has_none() {
    let does = |forwards6| {
        let facts = Facts { machine: Machine { forwards6, ..fresh().machine }, ..fresh() };
        let steps = decide(&facts).unwrap().steps;
        let writes =
            steps.iter().any(|step| matches!(step, Step::Write { path, .. } if path.ends_with("60-holdfast.conf")));
        (writes, steps.contains(&Step::Forward6))
    };
    assert_eq!(does(Forwards6::Off), (true, true));
    assert_eq!(does(Forwards6::Workers), (true, false));
    assert_eq!(does(Forwards6::Router), (false, false));
    assert_eq!(does(Forwards6::Absent), (false, false));
}
