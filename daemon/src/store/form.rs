//! The forms of the database: which one a daemon brings it to, and whether it may use one that it does not know. Pure
//! but for [`oldest_needed`]. docs/decisions/0012-two-step-forms.md says the rules for whoever adds a form.

use holdfast_proto::layout::Layout;
use std::path::Path;

/// One form, by the step that makes it of the form before it.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// SQL. Where it raises `oldest`, it says so in the table `form`, too.
    pub up: &'static str,
    /// The oldest form whose daemons still read and write what this step leaves. A step that only adds keeps that of
    /// the form before it; one that takes something away raises it.
    pub oldest: i64,
}

/// What a database says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its form; 0: it is new.
    pub form: i64,
    /// The oldest form whose daemons read and write it.
    pub oldest: i64,
}

/// The first form that says which older ones may use it; no form before it was ever released.
pub const FIRST: i64 = 5;

/// The form to bring a database to, and nothing where this build must leave it alone. `needed` is the oldest form that
/// this host may have to go back to, if there is one: no step is made that a daemon of that form could not follow.
pub fn target(found: Found, forms: &[Form], needed: Option<i64>) -> Option<i64> {
    let known = forms.len() as i64;
    if found.form > known {
        return (found.oldest <= known).then_some(found.form);
    }
    let takes = |form: &Form| form.oldest <= needed.unwrap_or(i64::MAX).max(found.oldest).max(FIRST);
    let steps = forms.iter().skip(usize::try_from(found.form).unwrap_or(0));
    Some(found.form + steps.take_while(|form| takes(form)).count() as i64)
}

/// The oldest form that this host may go back to: that of the release before, and no form at all while an update is not
/// committed. What cannot be read forbids as much.
pub fn oldest_needed(layout: &Layout) -> Option<i64> {
    let there = |path: &Path| path.symlink_metadata().is_ok();
    if there(&layout.state().join("txn")) {
        return Some(0);
    }
    let previous = layout.previous();
    there(&previous).then(|| written_by(&previous.join("release.json")).unwrap_or(0))
}

/// The form that a release's daemon writes.
fn written_by(description: &Path) -> Option<i64> {
    let release: serde_json::Value = serde_json::from_slice(&std::fs::read(description).ok()?).ok()?;
    release["state_schema"]["writes"].as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forms 1 to 9; 7 takes away what daemons of form 5 need, 9 what those of form 7 do.
    const FORMS: &[Form] = {
        const fn form(oldest: i64) -> Form {
            Form { up: "", oldest }
        }
        &[form(1), form(2), form(3), form(4), form(5), form(5), form(6), form(6), form(8)]
    };

    #[test]
    fn a_step_waits_until_nobody_can_go_back_behind_it() {
        let fresh = Found { form: 0, oldest: 0 };
        for (needed, reached) in [(None, 9), (Some(0), 6), (Some(4), 6), (Some(5), 6), (Some(6), 8), (Some(8), 9)] {
            assert_eq!(target(fresh, FORMS, needed), Some(reached), "{needed:?}");
        }
        // What was taken away already cannot be kept any more.
        let past = Found { form: 7, oldest: 6 };
        assert_eq!(target(past, FORMS, Some(5)), Some(8));
        assert_eq!(target(Found { form: 9, oldest: 8 }, FORMS, Some(0)), Some(9));
    }

    #[test]
    fn a_newer_form_is_used_as_it_is_where_it_says_so() {
        for oldest in 5..=9 {
            let found = Found { form: 12, oldest };
            assert_eq!(target(found, FORMS, None), Some(12));
        }
        assert_eq!(target(Found { form: 12, oldest: 10 }, FORMS, None), None);
    }

    /// Through any chain of releases, with any commits and ways back, no daemon meets a database that it must leave alone.
    #[test]
    fn whoever_can_come_back_can_read_what_is_there() {
        let forms = |known: usize| &FORMS[..known];
        let oldest = |form: i64| form.checked_sub(1).map_or(0, |at| FORMS[at as usize].oldest);
        // previous, current, next: any three releases in order; the update to `next` is tried, undone or kept.
        for previous in FIRST..=9 {
            for current in previous..=9 {
                for next in current..=9 {
                    for kept in [false, true] {
                        let mut form =
                            target(Found { form: 0, oldest: 0 }, forms(current as usize), Some(previous)).unwrap();
                        form = target(Found { form, oldest: oldest(form) }, forms(next as usize), Some(0)).unwrap();
                        let chain = if kept { [next, current, next] } else { [current, previous, current] };
                        for pair in chain.windows(2) {
                            // `pair[1]` is what runs, and what ran before it is what one goes back to.
                            let (before, runs) = (pair[0], pair[1]);
                            let found = Found { form, oldest: oldest(form) };
                            let reached = target(found, forms(runs as usize), Some(before));
                            form = reached.unwrap_or_else(|| panic!("{previous} {current} {next} {kept}: {found:?}"));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_release_before_says_what_is_needed_and_an_update_under_way_forbids_all() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::below(root.path());
        assert_eq!(oldest_needed(&layout), None);
        let before = layout.releases().join("1");
        std::fs::create_dir_all(&before).unwrap();
        std::os::unix::fs::symlink("releases/1", layout.previous()).unwrap();
        assert_eq!(oldest_needed(&layout), Some(0));
        std::fs::write(before.join("release.json"), r#"{"state_schema":{"writes":7,"reads_from":1}}"#).unwrap();
        assert_eq!(oldest_needed(&layout), Some(7));
        std::fs::create_dir_all(layout.state()).unwrap();
        std::fs::write(layout.state().join("txn"), "").unwrap();
        assert_eq!(oldest_needed(&layout), Some(0));
    }
}
