//! What an update left: whether the release that runs and the one before are whole, and an update that is not finished.

use super::Check;
use crate::update::state::linked;
use crate::update::txn::Txn;
use holdfast_proto::layout::Layout;
use holdfast_release::Folder;

/// As it lies there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Releases {
    /// What is wrong with the release of a link, by the link's name.
    pub damaged: Vec<(&'static str, String)>,
    /// The record of an update: the release to go back to and the one that is tried, or why it cannot be read.
    pub record: Option<Result<(String, String), String>>,
}

/// Reads every byte of both releases.
pub fn look(layout: &Layout) -> Releases {
    let mut damaged = Vec::new();
    for (name, link) in [("current", layout.current()), ("current.previous", layout.previous())] {
        let why = match linked(&link) {
            Ok(None) => None,
            Ok(Some(id)) => match Folder::open(&layout.releases().join(id.as_str())) {
                Ok(folder) if folder.id() == id => None,
                Ok(folder) => Some(format!("{id} is {} by its content", folder.id())),
                Err(refusal) => Some(format!("{id}: {refusal}")),
            },
            Err(error) => Some(format!("{error:#}")),
        };
        damaged.extend(why.map(|why| (name, why)));
    }
    let record = match Txn::read(layout) {
        Ok(txn) => txn.map(|txn| Ok((txn.from, txn.to))),
        Err(error) => Some(Err(format!("{error:#}"))),
    };
    Releases { damaged, record }
}

/// Decides. Damage comes first: what is whole can be brought back, what is not has to be fetched again.
pub fn judge(releases: &Releases) -> Check {
    const NAME: &str = "release";
    const BACK: &str = "sudo /usr/local/lib/holdfast/committed/holdfast update --recover-now";
    if !releases.damaged.is_empty() {
        let found: Vec<String> = releases.damaged.iter().map(|(link, why)| format!("{link}: {why}")).collect();
        let advice = "workers go on running; install a whole release over it: sudo FOLDER/holdfast system install";
        return Check::fail(NAME, found.join("; "), advice);
    }
    match &releases.record {
        None => Check::ok(NAME, "whole, and no update under way"),
        Some(Ok((from, to))) => Check::warn(
            NAME,
            format!("an update from {from} to {to} is not finished"),
            format!("if nobody is at it, it is taken back by itself within a minute; by hand: {BACK}"),
        ),
        Some(Err(why)) => Check::fail(
            NAME,
            format!("the record of an update cannot be read: {why}"),
            "if `holdfast status` shows the release that you want, remove /var/lib/holdfast/txn; else install a release over it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn damage_is_named_before_an_update_that_is_not_finished() {
        let record = Some(Ok(("1.0.0-a".to_owned(), "1.1.0-b".to_owned())));
        let damaged = vec![("current", "wrong-digest: holdfastd".to_owned())];
        let of = |damaged: &[(&'static str, String)], record: &Option<Result<_, _>>| {
            judge(&Releases { damaged: damaged.to_vec(), record: record.clone() })
        };
        assert_eq!(of(&[], &None).level, Level::Ok);
        let cut_off = of(&[], &record);
        assert!(cut_off.level == Level::Warn && cut_off.advice.unwrap().contains("--recover-now"));
        let both = of(&damaged, &record);
        assert!(both.level == Level::Fail && both.found.contains("current: wrong-digest"), "{both:?}");
        assert_eq!(of(&[], &Some(Err("cut off".to_owned()))).level, Level::Fail);
    }
}
