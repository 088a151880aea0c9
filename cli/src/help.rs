//! `holdfast help TOPIC`: pages on what no one verb's help can say. What a page says of an option or verb is shown where
//! this program has it.

use clap::Command;

/// A page.
#[derive(Debug, Clone, Copy)]
pub struct Topic {
    /// As it is typed.
    pub name: &'static str,
    /// In one line.
    pub about: &'static str,
    page: &'static str,
}

/// Every page.
pub const TOPICS: [Topic; 4] = [
    Topic {
        name: "networks",
        about: "what a worker can reach, and who reaches it",
        page: include_str!("help/networks.txt"),
    },
    Topic { name: "rules", about: "what root allows an owner", page: include_str!("help/rules.txt") },
    Topic { name: "limits", about: "memory, processors, processes, output", page: include_str!("help/limits.txt") },
    Topic {
        name: "rootfs",
        about: "which files a worker sees, and how to get others",
        page: include_str!("help/rootfs.txt"),
    },
];

/// The page of a topic; `typed` is the command as it is built.
pub fn page(topic: &Topic, typed: &Command) -> String {
    // A line `@run --rootfs` or `@network` begins a part that holds where the option or verb is there; `@` ends it.
    let mut shown = true;
    let mut page = String::new();
    for line in topic.page.lines() {
        match line.strip_prefix('@') {
            Some(needs) => shown = has(typed, needs),
            None if shown => {
                page.push_str(line);
                page.push('\n');
            }
            None => {}
        }
    }
    page
}

fn has(typed: &Command, needs: &str) -> bool {
    let mut words = needs.split_whitespace();
    let Some(verb) = words.next() else { return true };
    let Some(verb) = typed.find_subcommand(verb) else { return false };
    words.all(|option| verb.get_arguments().any(|arg| arg.get_long() == option.strip_prefix("--")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn pages_fit_a_terminal_and_name_only_what_is_there() {
        let typed = crate::args::Args::command();
        for topic in &TOPICS {
            let page = page(topic, &typed);
            assert!(page.lines().count() > 10 && page.is_ascii(), "{}", topic.name);
            for line in page.lines() {
                assert!(line.len() <= 80 && !line.starts_with('@'), "{}: {line}", topic.name);
                let Some(example) = line.trim_start().strip_prefix("holdfast ") else { continue };
                let words: Vec<&str> = example.split_whitespace().collect();
                let verb = typed.find_subcommand(words[0]).unwrap_or_else(|| panic!("{}: no verb {line}", topic.name));
                let ours = words.iter().skip(1).take_while(|word| **word != "--");
                for option in ours.filter_map(|word| word.strip_prefix("--")) {
                    let known = |command: &clap::Command| {
                        command
                            .get_arguments()
                            .any(|arg| arg.get_long_and_visible_aliases().is_some_and(|all| all.contains(&option)))
                    };
                    assert!(
                        known(verb) || verb.get_subcommands().any(known),
                        "{}: no option --{option}: {line}",
                        topic.name
                    );
                }
            }
        }
    }

    #[test]
    fn parts_are_shown_where_their_option_is_there() {
        let typed = Command::new("x").subcommand(Command::new("run").arg(clap::Arg::new("a").long("a")));
        let topic = Topic { name: "t", about: "", page: "1\n@run --a\n2\n@run --b\n3\n@network\n4\n@\n5\n" };
        assert_eq!(page(&topic, &typed), "1\n2\n5\n");
    }
}
