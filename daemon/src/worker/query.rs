//! What owners put on workers to find them again, and how they ask for them: labels, external ids, filters. Pure.

use super::Phase;
use super::spec::shown;
use holdfast_proto::daemon as wire;
use std::collections::HashMap;

/// Most labels of one worker.
pub const LABELS_MAX: usize = 64;
/// Longest key of a label.
pub const LABEL_KEY_BYTES_MAX: usize = 63;
/// Longest value of a label.
pub const LABEL_VALUE_BYTES_MAX: usize = 256;
/// Most bytes of all keys and values of one worker: they go into each of its events.
pub const LABELS_BYTES_MAX: usize = 8 * 1024;
/// Longest external id.
pub const EXTERNAL_ID_BYTES_MAX: usize = 128;
/// Most filters of one question.
pub const FILTERS_MAX: usize = 64;
/// Keys of a filter, as its refusal names them.
const KEYS: &str = "label, name, id, external-id, network, phase (for events: kind)";

/// Why a label or an external id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// Too many.
    #[error("{0} labels are given; at most {LABELS_MAX} are allowed")]
    Labels(usize),
    /// Too much of them.
    #[error("the labels take {0} bytes; at most {LABELS_BYTES_MAX} are allowed")]
    Large(usize),
    /// A key that no label has.
    #[error(
        "bad label {0:?}: use KEY=VALUE with a KEY of 1 to {LABEL_KEY_BYTES_MAX} letters, digits, '.', '_', '/', '-', \
         beginning with a letter or digit (as app=web)"
    )]
    Key(String),
    /// A value that no label has.
    #[error("bad value of label {0:?}: use at most {LABEL_VALUE_BYTES_MAX} bytes without control characters")]
    Value(String),
    /// Not an external id.
    #[error(
        "bad external id {0:?}: use 1 to {EXTERNAL_ID_BYTES_MAX} letters, digits, '.', '_', ':', '-', \
         beginning with a letter or digit"
    )]
    ExternalId(String),
}

/// Checks what the owner gave.
pub fn labels(labels: &HashMap<String, String>) -> Result<(), MarkError> {
    if labels.len() > LABELS_MAX {
        return Err(MarkError::Labels(labels.len()));
    }
    let bytes = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > LABELS_BYTES_MAX && labels.len() > 1 {
        return Err(MarkError::Large(bytes));
    }
    for (key, value) in labels {
        label_key(key)?;
        if value.len() > LABEL_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
            return Err(MarkError::Value(key.clone()));
        }
    }
    Ok(())
}

fn label_key(key: &str) -> Result<(), MarkError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'-');
    let fits = (1..=LABEL_KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(legal);
    if fits && key.as_bytes()[0].is_ascii_alphanumeric() { Ok(()) } else { Err(MarkError::Key(shown(key.as_bytes()))) }
}

/// Checks what the owner gave; empty is none.
pub fn external_id(id: &str) -> Result<(), MarkError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    let begins = id.bytes().next().is_none_or(|byte| byte.is_ascii_alphanumeric());
    if begins && id.len() <= EXTERNAL_ID_BYTES_MAX && id.bytes().all(legal) {
        Ok(())
    } else {
        Err(MarkError::ExternalId(shown(id.as_bytes())))
    }
}

/// Why a filter was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not KEY=VALUE, or of an unknown key.
    #[error("bad filter {0:?}: use KEY=VALUE with a KEY of {KEYS} (as label=app=web, phase=failed)")]
    Unknown(String),
    /// No phase of that name.
    #[error("bad filter: there is no phase {given:?}; phases are {known}")]
    Phase {
        /// What was given.
        given: String,
        /// All of them.
        known: String,
    },
    /// No kind of event of that name.
    #[error("bad filter: there is no kind of event {given:?}; kinds are {known}")]
    Kind {
        /// What was given.
        given: String,
        /// All of them.
        known: String,
    },
    /// Events have no phase.
    #[error("bad filter: events are filtered by kind (as kind=failed), not by phase")]
    Phases,
    /// Nothing after the `=`, or nothing that could ever match.
    #[error("bad filter {0:?}: its value is empty, too long, or nothing that a worker could have")]
    Value(String),
    /// Too many.
    #[error("{0} filters are given; at most {FILTERS_MAX} are allowed")]
    TooMany(usize),
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    /// A label, with this value where one is given.
    Label(String, Option<String>),
    /// A name with `*` for any characters.
    Name(String),
    /// The beginning of an id.
    Id(String),
    /// Exactly this one.
    ExternalId(String),
    /// Exactly this one.
    Network(String),
}

/// Conditions that a worker has to meet, all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    tests: Vec<Test>,
    /// Any of these; all where it is empty.
    phases: Vec<Phase>,
}

impl Filter {
    /// Reads KEY=VALUE each.
    pub fn parse<'a>(given: impl ExactSizeIterator<Item = &'a str>) -> Result<Self, FilterError> {
        if given.len() > FILTERS_MAX {
            return Err(FilterError::TooMany(given.len()));
        }
        let mut filter = Self::default();
        for text in given {
            filter.add(text)?;
        }
        Ok(filter)
    }

    fn add(&mut self, text: &str) -> Result<(), FilterError> {
        let given = || shown(text.as_bytes());
        let (key, value) = text.split_once('=').ok_or_else(|| FilterError::Unknown(given()))?;
        let refused = || FilterError::Value(given());
        let word = |bytes_max: usize, legal: &dyn Fn(u8) -> bool| {
            let fits = (1..=bytes_max).contains(&value.len()) && value.bytes().all(legal);
            if fits { Ok(value.to_owned()) } else { Err(refused()) }
        };
        let test = match key {
            "label" => {
                let (label, wanted) = match value.split_once('=') {
                    Some((label, wanted)) => (label, Some(wanted.to_owned())),
                    None => (value, None),
                };
                label_key(label).map_err(|_| refused())?;
                if wanted.as_ref().is_some_and(|wanted| wanted.len() > LABEL_VALUE_BYTES_MAX) {
                    return Err(refused());
                }
                Test::Label(label.to_owned(), wanted)
            }
            "name" => {
                let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'*');
                Test::Name(word(64, &legal)?)
            }
            "id" => {
                let legal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
                Test::Id(word(16, &legal)?)
            }
            "external-id" => {
                external_id(value).map_err(|_| refused())?;
                Test::ExternalId(word(EXTERNAL_ID_BYTES_MAX, &|_| true)?)
            }
            "network" => {
                // `bridge`, the name of one, or `macvlan:PARENT`.
                let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
                Test::Network(word(64, &legal)?)
            }
            "phase" => {
                let phase = Phase::from_name(value).ok_or_else(|| FilterError::Phase {
                    given: shown(value.as_bytes()),
                    known: Phase::ALL.map(Phase::name).join(", "),
                })?;
                self.phases.push(phase);
                return Ok(());
            }
            _ => return Err(FilterError::Unknown(given())),
        };
        self.tests.push(test);
        Ok(())
    }

    /// Whether phases are named, so that workers which are not live are asked for as well.
    pub fn names_phases(&self) -> bool {
        !self.phases.is_empty()
    }

    /// Whether a worker meets all of it.
    pub fn admits(&self, phase: Phase, worker: &wire::Worker) -> bool {
        let phase_fits = self.phases.is_empty() || self.phases.contains(&phase);
        phase_fits && self.tests.iter().all(|test| test.admits(worker))
    }
}

impl Test {
    fn admits(&self, worker: &wire::Worker) -> bool {
        match self {
            Self::Label(key, None) => worker.labels.contains_key(key),
            Self::Label(key, Some(value)) => worker.labels.get(key) == Some(value),
            Self::Name(pattern) => matches_pattern(pattern.as_bytes(), worker.name.as_bytes()),
            Self::Id(prefix) => worker.id.starts_with(prefix),
            Self::ExternalId(id) => worker.external_id == *id,
            Self::Network(network) => worker.network == *network,
        }
    }
}

/// `*` stands for any characters. Linear but for what a `*` has to give back: names have 32 bytes.
fn matches_pattern(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Where the last `*` was, and how far it has eaten.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, seen));
            at += 1;
        } else if pattern.get(at) == Some(&text[seen]) {
            (at, seen) = (at + 1, seen + 1);
        } else if let Some((star_at, eaten)) = star {
            star = Some((star_at, eaten + 1));
            (at, seen) = (star_at + 1, eaten + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
