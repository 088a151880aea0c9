//! `top` on a screen of any size: what fits is shown, the name always.

use super::model::{Model, Sort};
use crate::view::usage::{Usage, bytes, memory, percent};
use crate::view::{cell, json, phase, plain, time};
use holdfast_proto::daemon::Phase;
use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table};

/// Width of the name where nothing is left over, and where much is.
const NAME_WIDTH: [u16; 2] = [14, 32];
/// A screen this wide has room for address and command.
const WIDE: u16 = 110;

const KEYS: &str = "c CPU  m memory  n net  r restarts  u uptime  a name  R turn  / filter  q quit";

/// One column: its head, its width, what it sorts by, what is in it.
struct Column {
    head: &'static str,
    width: u16,
    sort: Option<Sort>,
    is_figure: bool,
    text: fn(&Usage, Timestamp) -> String,
}

const COLUMNS: [Column; 8] = [
    Column { head: "STATUS", width: 10, sort: None, is_figure: false, text: |usage, _| status(usage).to_owned() },
    Column {
        head: "CPU%",
        width: 6,
        sort: Some(Sort::Cpu),
        is_figure: true,
        text: |usage, _| percent(usage.cpu_percent),
    },
    Column {
        head: "MEMORY",
        width: 7,
        sort: Some(Sort::Memory),
        is_figure: true,
        text: |usage, _| memory(&usage.counters),
    },
    Column { head: "TASKS", width: 5, sort: None, is_figure: true, text: |usage, _| or_dash(usage.counters.tasks) },
    Column {
        head: "IN/s",
        width: 6,
        sort: Some(Sort::Network),
        is_figure: true,
        text: |usage, _| rate(usage.received_per_sec),
    },
    Column {
        head: "OUT/s",
        width: 6,
        sort: Some(Sort::Network),
        is_figure: true,
        text: |usage, _| rate(usage.sent_per_sec),
    },
    Column {
        head: "RESTARTS",
        width: 8,
        sort: Some(Sort::Restarts),
        is_figure: true,
        text: |usage, _| usage.worker.restarts.to_string(),
    },
    Column {
        head: "UPTIME",
        width: 8,
        sort: Some(Sort::Uptime),
        is_figure: true,
        text: |usage, now| usage.uptime_secs(now).map_or_else(|| "-".to_owned(), time::span),
    },
];

/// Shown besides where there is room: address (set off from the figure before it), and the command in what is left.
const ADDRESS_WIDTH: u16 = 17;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, model: &mut Model, now: Timestamp) {
    let [head, table, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
    // One line of the table is its heads.
    model.fits(usize::from(table.height.saturating_sub(1)));
    frame.render_widget(summary(model), head);
    workers(frame, table, model, now);
    frame.render_widget(bottom(model), foot);
}

/// `holdfast: alice  4 workers  CPU 253.0%  memory ~60.0M  in 2.0K/s  out 2.0K/s`.
fn summary(model: &Model) -> Paragraph<'static> {
    let all = model.all();
    let sum =
        |of: fn(&Usage) -> Option<f64>| all.iter().filter_map(of).fold(None, |sum, x| Some(sum.unwrap_or(0.0) + x));
    let memory: u64 = all.iter().filter_map(|usage| usage.counters.memory_bytes).fold(0, u64::saturating_add);
    let about = if all.iter().all(|usage| usage.counters.memory_by_cgroup) { "" } else { "~" };
    let shown = model.rows().len();
    let count = match shown == all.len() {
        true => format!("{} {}", all.len(), if all.len() == 1 { "worker" } else { "workers" }),
        false => format!("{shown} of {} workers", all.len()),
    };
    let figures = format!(
        "  {count}  CPU {}%  memory {about}{}  in {}/s  out {}/s",
        percent(sum(|usage| usage.cpu_percent)),
        bytes(memory),
        rate(sum(|usage| usage.received_per_sec)),
        rate(sum(|usage| usage.sent_per_sec)),
    );
    Paragraph::new(Line::from(vec![Span::from(format!("holdfast: {}", cell(&model.owner, 20))).bold(), figures.into()]))
}

/// The keys, or the filter that is typed, or what is wrong.
fn bottom(model: &Model) -> Paragraph<'static> {
    let line = if let Some(trouble) = &model.trouble {
        Line::from(plain(trouble).replace('\n', " ")).style(Style::new().fg(Color::Red).add_modifier(Modifier::BOLD))
    } else if model.typing {
        Line::from(vec![
            "filter: ".bold(),
            plain(&model.filter).into(),
            "_".into(),
            "   Enter keeps it, Esc clears it".dim(),
        ])
    } else if model.filter.is_empty() {
        Line::from(KEYS).dim()
    } else {
        Line::from(vec![
            "filter: ".bold(),
            plain(&model.filter).into(),
            "   Esc clears it, / changes it, q quits".dim(),
        ])
    };
    Paragraph::new(line)
}

fn workers(frame: &mut Frame<'_>, area: Rect, model: &Model, now: Timestamp) {
    let wide = area.width >= WIDE;
    let fixed: u16 = COLUMNS.iter().map(|column| column.width + 1).sum();
    let name = area.width.saturating_sub(fixed).clamp(NAME_WIDTH[0], NAME_WIDTH[1]);
    let mut widths = vec![Constraint::Length(name)];
    widths.extend(COLUMNS.iter().map(|column| Constraint::Length(column.width)));
    let mut heads = vec![head("NAME", name, model.sort == Sort::Name, false)];
    heads.extend(COLUMNS.iter().map(|column| {
        let sorted = column.sort == Some(model.sort);
        head(column.head, column.width, sorted, column.is_figure)
    }));
    if wide {
        widths.extend([Constraint::Length(ADDRESS_WIDTH), Constraint::Fill(1)]);
        heads.extend([head("  ADDRESS", ADDRESS_WIDTH, false, false), head("COMMAND", 0, false, false)]);
    }
    let rows = model.rows().into_iter().skip(model.offset).take(model.page).map(|usage| row(usage, now, wide));
    let table = Table::new(rows, widths).column_spacing(1).header(Row::new(heads).style(Style::new().reversed()));
    frame.render_widget(table, area);
}

fn head(text: &str, width: u16, sorted: bool, is_figure: bool) -> Line<'static> {
    let text = if is_figure { right(text, width) } else { text.to_owned() };
    let style = if sorted { Style::new().bold().underlined() } else { Style::new() };
    Line::styled(text, style)
}

fn row(usage: &Usage, now: Timestamp, wide: bool) -> Row<'static> {
    let status_style = match usage.worker.phase() {
        Phase::Running => Style::new().fg(Color::Green),
        Phase::Waiting | Phase::Starting | Phase::Stopping => Style::new().fg(Color::Yellow),
        Phase::Failed => Style::new().fg(Color::Red),
        Phase::Suspending | Phase::Suspended | Phase::Resuming => Style::new().fg(Color::Blue),
        Phase::Unspecified | Phase::Created | Phase::Stopped => Style::new(),
    };
    let mut cells = vec![Line::from(cell(&usage.worker.name, NAME_WIDTH[1].into()))];
    for column in &COLUMNS {
        let text = (column.text)(usage, now);
        let text = if column.is_figure { right(&text, column.width) } else { text };
        let style = if column.head == "STATUS" { status_style } else { Style::new() };
        cells.push(Line::styled(text, style));
    }
    if wide {
        let address = usage.worker.addresses.first().map_or("-", String::as_str);
        cells.push(Line::from(format!("  {}", cell(address.split('/').next().unwrap_or(address), 15))));
        cells.push(Line::from(cell(&json::command(&usage.worker).join(" "), 200)));
    }
    Row::new(cells)
}

fn status(usage: &Usage) -> &'static str {
    phase(usage.worker.phase())
}

fn right(text: &str, width: u16) -> String {
    format!("{text:>0$}", usize::from(width))
}

fn or_dash(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn rate(per_sec: Option<f64>) -> String {
    per_sec.map_or_else(|| "-".to_owned(), |per_sec| bytes(per_sec.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::super::model::{Press, tests::model};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(model: &mut Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model, Timestamp::from_second(100).unwrap())).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn eighty_columns_hold_every_figure() {
        let lines = drawn(&mut model(), 80, 24);
        assert_eq!(
            lines[..6],
            [
                "holdfast: alice  4 workers  CPU 253.0%  memory ~60.0M  in 2.0K/s  out 2.0K/s",
                "NAME             STATUS       CPU%  MEMORY TASKS   IN/s  OUT/s RESTARTS   UPTIME",
                "db               running     250.0  ~10.0M     2      -      -        1   1m 39s",
                "api              running       1.5  ~20.0M     2    10B    10B        0   1m 38s",
                "web              running       1.5  ~30.0M     2   2.0K   2.0K        0   1m 37s",
                "loops            waiting         -     ~0B     2      -      -       17        -",
            ]
            .map(|line| line.to_owned())
        );
        assert!(lines[23].starts_with("c CPU") && lines[23].ends_with("q quit"), "{}", lines[23]);
    }

    #[test]
    fn two_hundred_columns_hold_address_and_command_too() {
        let lines = drawn(&mut model(), 200, 50);
        assert!(lines[1].contains("ADDRESS") && lines[1].ends_with("COMMAND"), "{}", lines[1]);
        assert!(lines[2].ends_with("10.88.0.2       python3 -m http.server 80"), "{}", lines[2]);
    }

    #[test]
    fn no_size_is_too_small_and_no_name_writes_on_the_screen() {
        let mut model = model();
        for (width, height) in [(1, 1), (2, 2), (10, 3), (79, 2), (300, 4)] {
            drawn(&mut model, width, height);
        }
        let mut usage = model.all()[0].clone();
        usage.worker.name = "evil\x1b[2Jname\n".into();
        model.take(vec![usage]);
        let lines = drawn(&mut model, 200, 5);
        assert!(lines[2].starts_with("evil\\u{1b}[2Jname\\n"), "{}", lines[2]);
    }

    #[test]
    fn what_is_typed_and_what_is_wrong_is_at_the_bottom() {
        let mut model = model();
        model.press(Press::Letter('/'));
        model.press(Press::Letter('w'));
        assert!(drawn(&mut model, 80, 24)[23].starts_with("filter: w_"));
        assert!(drawn(&mut model, 80, 24)[0].contains("1 of 4 workers"));
        model.say("no daemon answers".into());
        assert_eq!(drawn(&mut model, 80, 24)[23], "no daemon answers");
    }
}
