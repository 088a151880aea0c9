//! `holdfast help`.

use crate::args::{Args, HelpArgs};
use crate::exit::Stop;
use crate::help::{TOPICS, page};
use crate::out;
use clap::CommandFactory;
use std::process::ExitCode;

/// Prints the page of a topic, or the help of a verb.
///
/// # Errors
/// Where there is neither of that name.
pub fn run(args: &HelpArgs) -> anyhow::Result<ExitCode> {
    let mut command = Args::command();
    command.build();
    if let [name] = args.words.as_slice()
        && let Some(topic) = TOPICS.iter().find(|topic| topic.name == name)
    {
        out::text(&page(topic, &command))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut verb = &mut command;
    for word in &args.words {
        verb = verb.find_subcommand_mut(word).filter(|verb| !verb.is_hide_set()).ok_or_else(|| {
            let topics = TOPICS.map(|topic| topic.name).join(", ");
            let shown = crate::view::cell(word, 64);
            Stop::usage(format!("no help on {shown:?}: topics are {topics}; verbs are listed by `holdfast --help`"))
        })?;
    }
    let text = verb.render_long_help().to_string();
    out::text(&text)?;
    if args.words.is_empty() {
        let topics: String = TOPICS.iter().map(|topic| format!("  {:<10} {}\n", topic.name, topic.about)).collect();
        out::text(&format!("\nTopics, by `holdfast help TOPIC`:\n{topics}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
