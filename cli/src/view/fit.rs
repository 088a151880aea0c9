//! Makes a table fit a terminal: what matters least goes first, then the longest is cut. Pure.

/// Between two columns; as `out` prints them.
const GAP: usize = 3;
/// Characters that are left of a column that is cut.
const CUT_LEAST: usize = 10;

/// Drops columns by their heads, in this order, until the rest fits into `width` characters with its last column cut;
/// then cuts the last column and, where that is not enough, the widest ones.
pub fn fit(heads: &mut Vec<String>, rows: &mut [Vec<String>], width: usize, dispensable: &[&str]) {
    for head in dispensable {
        if least(heads, rows) <= width {
            break;
        }
        if let Some(place) = heads.iter().position(|other| other == head) {
            heads.remove(place);
            rows.iter_mut().for_each(|row| drop(row.remove(place)));
        }
    }
    let mut place = heads.len().saturating_sub(1);
    // The last one, then the widest, and the widest of those.
    for _ in 0..=heads.len() {
        let widths = widths(heads, rows);
        let over = (widths.iter().sum::<usize>() + widths.len().saturating_sub(1) * GAP).saturating_sub(width);
        let room = widths.get(place).map_or(0, |wide| wide.saturating_sub(over)).max(CUT_LEAST);
        for text in heads.iter_mut().skip(place).take(1).chain(rows.iter_mut().filter_map(|row| row.get_mut(place))) {
            *text = cut(text, room);
        }
        place = widest(heads, rows).unwrap_or(0);
    }
}

fn widths(heads: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let longest = |place: usize| rows.iter().filter_map(|row| row.get(place)).map(|text| text.chars().count()).max();
    heads.iter().enumerate().map(|(place, head)| head.chars().count().max(longest(place).unwrap_or(0))).collect()
}

/// What the table takes with its last column cut.
fn least(heads: &[String], rows: &[Vec<String>]) -> usize {
    let mut widths = widths(heads, rows);
    if let Some(last) = widths.last_mut() {
        *last = (*last).min(CUT_LEAST);
    }
    widths.iter().sum::<usize>() + widths.len().saturating_sub(1) * GAP
}

fn widest(heads: &[String], rows: &[Vec<String>]) -> Option<usize> {
    let widths = widths(heads, rows);
    (0..widths.len()).max_by_key(|place| widths[*place])
}

fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::super::LESS;
    use super::*;

    fn fitted(width: usize, status: &str) -> Vec<String> {
        let mut heads: Vec<String> = super::super::HEADS.map(str::to_owned).to_vec();
        let row = |name: &str, status: &str| {
            [
                "0123456789abcdef",
                name,
                status,
                "2 minutes ago",
                "0",
                "10.88.0.2",
                "*:8080->80/tcp",
                "python3 -m http.server 80",
            ]
            .map(str::to_owned)
            .to_vec()
        };
        let mut rows = vec![row("web", "running"), row("billing-database-primary", status)];
        fit(&mut heads, &mut rows, width, &LESS);
        std::iter::once(&heads).chain(&rows).map(|row| row.join(" | ")).collect()
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        assert_eq!(fitted(200, "running")[0], super::super::HEADS.join(" | "));
        assert!(fitted(200, "running")[1].ends_with("| python3 -m http.server 80"));
    }

    #[test]
    fn eighty_columns_keep_name_status_and_where_it_answers() {
        let expected = [
            "NAME | STATUS | ADDRESS | PORTS | COMMAND",
            "web | running | 10.88.0.2 | *:8080->80/tcp | python3 -m ht…",
            "billing-database-primary | running | 10.88.0.2 | *:8080->80/tcp | python3 -m ht…",
        ];
        assert_eq!(fitted(80, "running"), expected);
        let long = fitted(80, "waiting (3), again in 24 seconds");
        assert_eq!(long[0], "NAME | STATUS | PORTS | COMMAND");
        assert!(long[2].contains("waiting (3), again in …"), "{long:?}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_down_to_fifty_columns() {
        for width in 50..200 {
            for status in ["running", "waiting (3), again in 24 seconds"] {
                let lines = fitted(width, status);
                let heads: Vec<String> = lines[0].split(" | ").map(str::to_owned).collect();
                let rows: Vec<Vec<String>> =
                    lines[1..].iter().map(|line| line.split(" | ").map(str::to_owned).collect()).collect();
                let total = widths(&heads, &rows).iter().sum::<usize>() + (heads.len() - 1) * GAP;
                assert!(total <= width, "{width}: {total} {lines:?}");
            }
        }
    }
}
