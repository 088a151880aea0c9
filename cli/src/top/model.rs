//! What `top` shows and how keys change it. Pure.

use crate::view::usage::Usage;
use std::cmp::Ordering;

/// Longest filter: longer than any name.
const FILTER_CHARS_MAX: usize = 40;

/// What the list is sorted by. Figures: the largest first; names: from a to z.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// CPU percent.
    Cpu,
    /// Memory.
    Memory,
    /// Bytes received and sent per second.
    Network,
    /// Restarts.
    Restarts,
    /// How long it runs.
    Uptime,
    /// Name.
    Name,
}

/// Something typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are what the keys are called")]
pub enum Press {
    Letter(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Interrupt,
    /// Not a key: the terminal has another size now.
    Resized,
}

/// What comes after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Draw again.
    Stay,
    /// The end.
    Leave,
}

/// Everything that is on the screen.
#[derive(Debug)]
pub struct Model {
    /// Whose workers.
    pub owner: String,
    /// What the list is sorted by.
    pub sort: Sort,
    /// The other way round.
    pub reversed: bool,
    /// Part of the names that are shown; empty: all.
    pub filter: String,
    /// Keys go into the filter.
    pub typing: bool,
    /// Rows above the first that is shown.
    pub offset: usize,
    /// Rows that fit; known once something was drawn.
    pub page: usize,
    /// Why nothing new is to be seen.
    pub trouble: Option<String>,
    usages: Vec<Usage>,
}

impl Model {
    /// Nothing to see yet, sorted by CPU.
    pub fn new(owner: String) -> Self {
        Self {
            owner,
            sort: Sort::Cpu,
            reversed: false,
            filter: String::new(),
            typing: false,
            offset: 0,
            page: 1,
            trouble: None,
            usages: Vec::new(),
        }
    }

    /// A new look.
    pub fn take(&mut self, usages: Vec<Usage>) {
        self.usages = usages;
        self.trouble = None;
        self.clamp();
    }

    /// No new look, and why.
    pub fn say(&mut self, why: String) {
        self.trouble = Some(why);
    }

    /// All of them, shown or not.
    pub fn all(&self) -> &[Usage] {
        &self.usages
    }

    /// Those that the filter lets through, in order. Equal ones stay in the order of their names, so that lines do
    /// not jump.
    pub fn rows(&self) -> Vec<&Usage> {
        let mut rows: Vec<&Usage> =
            self.usages.iter().filter(|usage| usage.worker.name.contains(&self.filter)).collect();
        rows.sort_by(|a, b| {
            let order = self.order(a, b);
            let order = if self.reversed { order.reverse() } else { order };
            order.then_with(|| a.worker.name.cmp(&b.worker.name))
        });
        rows
    }

    fn order(&self, a: &Usage, b: &Usage) -> Ordering {
        let largest_first = |of: fn(&Usage) -> f64| of(b).total_cmp(&of(a));
        match self.sort {
            Sort::Cpu => largest_first(|usage| usage.cpu_percent.unwrap_or(-1.0)),
            Sort::Memory => largest_first(|usage| usage.counters.memory_bytes.map_or(-1.0, |bytes| bytes as f64)),
            Sort::Network => largest_first(|usage| {
                let sum = |received: f64| received + usage.sent_per_sec.unwrap_or(0.0);
                usage.received_per_sec.map_or(-1.0, sum)
            }),
            Sort::Restarts => b.worker.restarts.cmp(&a.worker.restarts),
            // The one that began first runs longest; those that do not run come last.
            Sort::Uptime => started(a).cmp(&started(b)),
            Sort::Name => a.worker.name.cmp(&b.worker.name),
        }
    }

    /// A key.
    pub fn press(&mut self, press: Press) -> Next {
        if press == Press::Interrupt {
            return Next::Leave;
        }
        if self.typing {
            self.type_filter(press);
        } else {
            match press {
                Press::Letter('q') => return Next::Leave,
                Press::Escape if self.filter.is_empty() => return Next::Leave,
                Press::Escape => self.filter.clear(),
                Press::Letter('/') => self.typing = true,
                Press::Letter('R') => self.reversed = !self.reversed,
                Press::Letter('c') => self.sort_by(Sort::Cpu),
                Press::Letter('m') => self.sort_by(Sort::Memory),
                Press::Letter('n') => self.sort_by(Sort::Network),
                Press::Letter('r') => self.sort_by(Sort::Restarts),
                Press::Letter('u') => self.sort_by(Sort::Uptime),
                Press::Letter('a') => self.sort_by(Sort::Name),
                Press::Up | Press::Letter('k') => self.offset = self.offset.saturating_sub(1),
                Press::Down | Press::Letter('j') => self.offset += 1,
                Press::PageUp => self.offset = self.offset.saturating_sub(self.page),
                Press::PageDown => self.offset += self.page,
                Press::Home => self.offset = 0,
                Press::End => self.offset = usize::MAX,
                Press::Letter(_) | Press::Enter | Press::Backspace | Press::Interrupt | Press::Resized => {}
            }
        }
        self.clamp();
        Next::Stay
    }

    /// What was found about the screen when it was drawn.
    pub fn fits(&mut self, rows: usize) {
        self.page = rows.max(1);
        self.clamp();
    }

    fn type_filter(&mut self, press: Press) {
        match press {
            Press::Letter(letter) if self.filter.chars().count() < FILTER_CHARS_MAX => self.filter.push(letter),
            Press::Backspace => drop(self.filter.pop()),
            Press::Enter => self.typing = false,
            Press::Escape => {
                self.filter.clear();
                self.typing = false;
            }
            _ => {}
        }
    }

    fn sort_by(&mut self, sort: Sort) {
        self.sort = sort;
        self.reversed = false;
        self.offset = 0;
    }

    /// The last page is full where there are rows enough.
    fn clamp(&mut self) {
        let shown = self.usages.iter().filter(|usage| usage.worker.name.contains(&self.filter)).count();
        self.offset = self.offset.min(shown.saturating_sub(self.page));
    }
}

fn started(usage: &Usage) -> i64 {
    if usage.worker.pid == 0 || usage.worker.started_at == 0 { i64::MAX } else { usage.worker.started_at }
}

#[cfg(test)]
#[path = "model_tests.rs"]
pub mod tests;
