//! How far the bringing of a release has come: a bar on a terminal, a line for each file elsewhere.

use super::tell;
use crate::update::stage::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// What is shown so far.
#[derive(Default)]
pub struct Shown {
    file: String,
    bar: Option<ProgressBar>,
}

impl Shown {
    /// Shows how far it is now.
    pub fn tell(&mut self, progress: Progress<'_>) {
        let name = progress.file.name.as_str();
        let is_new = self.file != name;
        name.clone_into(&mut self.file);
        let bar = self.bar.get_or_insert_with(|| ProgressBar::new(progress.whole).with_style(style()));
        // It hides where stderr is no terminal, or one that cannot move its cursor.
        let hidden = bar.is_hidden();
        if is_new && hidden {
            tell(&format!("fetch {name} ({} KiB)", progress.file.size.div_ceil(1024)));
        } else if is_new {
            bar.set_message(self.file.clone());
        }
        bar.set_position(progress.done);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            // What comes next begins on a line of its own, and what has come stays to be seen.
            bar.set_message(if bar.position() == bar.length().unwrap_or_default() { "fetched" } else { "stopped" });
            bar.abandon();
        }
    }
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("- {msg:24} [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
