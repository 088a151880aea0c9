//! Results on stdout: text, tables, JSON. A reader that went away is an `io::Error`, never a panic.

use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Prints text as it is.
///
/// # Errors
/// Where stdout cannot be written.
pub fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints one line of text whose control characters are shown as escapes.
///
/// # Errors
/// Where stdout cannot be written.
pub fn line(line: &str) -> io::Result<()> {
    text(&format!("{}\n", crate::view::plain(line)))
}

/// Prints one JSON document.
///
/// # Errors
/// Where stdout cannot be written.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    let document = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    text(&(crate::view::plain_json(&document) + "\n"))
}

/// Prints one JSON document in one line: one of many.
///
/// # Errors
/// Where stdout cannot be written.
pub fn json_line(value: &impl Serialize) -> io::Result<()> {
    text(&(serde_json::to_string(value).map_err(io::Error::other)? + "\n"))
}

/// Prints a table without lines; each cell has to be [`crate::view::cell`]'s or the program's own.
///
/// # Errors
/// Where stdout cannot be written.
pub fn table<const N: usize>(heads: [&str; N], rows: Vec<[String; N]>) -> io::Result<()> {
    columns(heads.map(str::to_owned).to_vec(), rows.into_iter().map(Vec::from).collect())
}

/// As [`table`]; in a terminal that is too narrow for all of it, some of these columns go, so that no line is wrapped.
///
/// # Errors
/// Where stdout cannot be written.
pub fn fitted<const N: usize>(heads: [&str; N], rows: Vec<[String; N]>, dispensable: &[&str]) -> io::Result<()> {
    let mut heads = heads.map(str::to_owned).to_vec();
    let mut rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    let stdout = io::stdout();
    // Scripts and files get every column.
    if stdout.is_terminal()
        && let Ok(size) = rustix::termios::tcgetwinsize(&stdout)
        && size.ws_col > 0
    {
        crate::view::fit::fit(&mut heads, &mut rows, size.ws_col.into(), dispensable);
    }
    columns(heads, rows)
}

/// As [`table`], with as many columns as there are heads.
///
/// # Errors
/// Where stdout cannot be written.
pub fn columns(heads: Vec<String>, rows: Vec<Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    // One line per row, however narrow the terminal: scripts and eyes both count on it.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads.into_iter().map(Cell::new));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    text(&(lines.join("\n") + "\n"))
}
