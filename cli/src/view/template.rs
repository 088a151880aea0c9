//! `ps --format`: text with `{{.Field}}`, as docker and podman have it. Pure.

use super::{json, phase, port, status, time};
use holdfast_proto::daemon::Worker;
use jiff::Timestamp;

/// Longest template.
const TEMPLATE_BYTES_MAX: usize = 4096;

/// Why a template was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No such field.
    #[error("--format: there is no field {given:?}; fields are {}, and .Label \"KEY\"", field_names())]
    Field {
        /// What was given.
        given: String,
    },
    /// `{{` without `}}`.
    #[error("--format: {0:?} has no closing }}}}: use {{{{.Name}}}}")]
    Open(String),
    /// Longer than anybody types.
    #[error("--format takes at most {TEMPLATE_BYTES_MAX} bytes, not {0}")]
    Long(usize),
}

/// A template, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Columns of a table; without one, all is in the first.
    columns: Vec<Vec<Part>>,
    /// With a line of heads.
    pub is_table: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
    Label(String),
}

macro_rules! fields {
    ($($name:ident, $head:literal;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Field { $($name),* }

        const FIELDS: &[(&str, &str, Field)] = &[$((stringify!($name), $head, Field::$name)),*];
    };
}

fields! {
    ID, "ID";
    Name, "NAME";
    Phase, "PHASE";
    Status, "STATUS";
    Since, "SINCE";
    Pid, "PID";
    Addresses, "ADDRESSES";
    Ports, "PORTS";
    Command, "COMMAND";
    Network, "NETWORK";
    Labels, "LABELS";
    Owner, "OWNER";
    Generation, "GENERATION";
    Restarts, "RESTARTS";
    ExitCode, "EXIT CODE";
    ExternalID, "EXTERNAL ID";
    CreatedAt, "CREATED AT";
    StartedAt, "STARTED AT";
    FinishedAt, "FINISHED AT";
    NextStartAt, "NEXT START AT";
}

/// What other programs of this kind call them.
const ALSO: [(&str, Field); 3] = [("Names", Field::Name), ("Networks", Field::Network), ("State", Field::Phase)];

fn field_names() -> String {
    FIELDS.iter().map(|(name, ..)| format!(".{name}")).collect::<Vec<_>>().join(" ")
}

impl std::str::FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::Long(text.len()));
        }
        // A shell's single quotes leave `\t` as it is typed.
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let table = text.strip_prefix("table").filter(|rest| rest.starts_with([' ', '\t']));
        let columns = match table {
            Some(columns) => columns.trim_start().split('\t').map(parts).collect::<Result<_, _>>()?,
            None => vec![parts(&text)?],
        };
        Ok(Self { columns, is_table: table.is_some() })
    }
}

fn parts(mut text: &str) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    while let Some((before, rest)) = text.split_once("{{") {
        let (inside, after) = rest.split_once("}}").ok_or_else(|| TemplateError::Open(super::cell(rest, 64)))?;
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        parts.push(part(inside.trim())?);
        text = after;
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
    Ok(parts)
}

fn part(inside: &str) -> Result<Part, TemplateError> {
    let unknown = || TemplateError::Field { given: super::cell(inside, 64) };
    let word = inside.strip_prefix('.').ok_or_else(unknown)?;
    if let Some(key) = word.strip_prefix("Label ") {
        let key = key.trim().strip_prefix('"').and_then(|key| key.strip_suffix('"')).ok_or_else(unknown)?;
        return Ok(Part::Label(key.to_owned()));
    }
    let known = FIELDS.iter().find(|(name, ..)| *name == word).map(|(.., field)| *field);
    let also = || ALSO.iter().find(|(name, _)| *name == word).map(|(_, field)| *field);
    known.or_else(also).map(Part::Field).ok_or_else(unknown)
}

impl Template {
    /// Heads of the columns.
    pub fn heads(&self) -> Vec<String> {
        let head = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(field) => {
                FIELDS.iter().find(|(.., known)| known == field).map_or_else(String::new, |(_, head, _)| (*head).into())
            }
            Part::Label(key) => key.clone(),
        };
        self.columns.iter().map(|parts| super::cell(&parts.iter().map(head).collect::<String>(), 200)).collect()
    }

    /// One worker's line, or its columns; what a worker brought is made harmless.
    pub fn row(&self, worker: &Worker, now: Timestamp) -> Vec<String> {
        let value = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(field) => super::cell(&field.of(worker, now), 4096),
            Part::Label(key) => super::cell(worker.labels.get(key).map_or("", String::as_str), 4096),
        };
        self.columns.iter().map(|parts| parts.iter().map(value).collect()).collect()
    }
}

impl Field {
    fn of(self, worker: &Worker, now: Timestamp) -> String {
        let moment = |nanos| time::rfc3339(nanos).unwrap_or_default();
        match self {
            Self::ID => worker.id.clone(),
            Self::Name => worker.name.clone(),
            Self::Phase => phase(worker.phase()).to_owned(),
            Self::Status => status(worker, now),
            Self::Since => super::since(worker, now),
            Self::Pid => {
                if worker.pid == 0 {
                    String::new()
                } else {
                    worker.pid.to_string()
                }
            }
            Self::Addresses => super::bare_addresses(worker),
            Self::Ports => worker.ports.iter().map(port).collect::<Vec<_>>().join(", "),
            Self::Command => json::command(worker).join(" "),
            Self::Network => worker.network.clone(),
            Self::Labels => super::labels(worker),
            Self::Owner => worker.owner.clone(),
            Self::Generation => worker.generation.to_string(),
            Self::Restarts => worker.restarts.to_string(),
            Self::ExitCode => {
                worker.exit.as_ref().and_then(super::exit_code).map_or_else(String::new, |code| code.to_string())
            }
            Self::ExternalID => worker.external_id.clone(),
            Self::CreatedAt => moment(worker.created_at),
            Self::StartedAt => moment(worker.started_at),
            Self::FinishedAt => moment(worker.finished_at),
            Self::NextStartAt => moment(worker.next_start_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> Worker {
        Worker {
            id: "0123456789abcdef".into(),
            name: "web".into(),
            phase: holdfast_proto::daemon::Phase::Running.into(),
            labels: [("app".to_owned(), "shop".to_owned()), ("b".to_owned(), "\x1b[31m".to_owned())].into(),
            command: vec![b"a".to_vec(), b"b\tc\nd".to_vec()],
            pid: 7,
            started_at: 2_000_000_000,
            ..Worker::default()
        }
    }

    fn shown(template: &str) -> Vec<String> {
        let now = Timestamp::from_second(10).unwrap();
        template.parse::<Template>().unwrap().row(&worker(), now)
    }

    #[test]
    fn fields_stand_where_they_are_named() {
        assert_eq!(shown("{{.Name}} {{ .Phase }}!"), ["web running!"]);
        assert_eq!(shown("{{.Label \"app\"}}/{{.Label \"nosuch\"}}"), ["shop/"]);
        assert_eq!(shown("table {{.ID}}\\t{{.Names}}"), ["0123456789abcdef", "web"]);
        assert_eq!(shown("{{.Label \"b\"}}"), ["\\u{1b}[31m"]);
        assert_eq!(shown("{{.Command}}"), ["a b\\t".to_owned() + "c\\nd"]);
        assert_eq!(shown("no field"), ["no field"]);
        assert_eq!(shown("tables {{.Pid}}"), ["tables 7"]);
        let heads = "table {{.Name}}\t{{.ExitCode}}\t{{.Label \"app\"}}".parse::<Template>().unwrap();
        assert!(heads.is_table);
        assert_eq!(heads.heads(), ["NAME", "EXIT CODE", "app"]);
    }

    #[test]
    fn every_field_gives_a_line() {
        for (name, ..) in FIELDS {
            let lines = shown(&format!("<{{{{.{name}}}}}>"));
            assert!(lines[0].starts_with('<') && lines[0].ends_with('>') && !lines[0].contains('\n'), "{name}");
        }
    }

    #[test]
    fn an_unknown_field_is_refused_with_those_that_are_known() {
        let error = "{{.Nosuch}}".parse::<Template>().unwrap_err().to_string();
        assert!(error.contains(".Nosuch") && error.contains(".Name") && error.contains(".FinishedAt"), "{error}");
        for bad in ["{{", "{{.Name", "{{Name}}", "{{}}", "{{.Label app}}", "{{.Name | upper}}", "{{range .}}"] {
            assert!(bad.parse::<Template>().is_err(), "{bad:?} was taken");
        }
        assert!("x".repeat(5000).parse::<Template>().is_err());
    }
}
