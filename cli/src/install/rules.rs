//! `/etc/holdfast/rules.toml`: an owner's section is added, ports are added; all else stays as the administrator wrote it.

use super::record::Account;
use toml_edit::{Array, DocumentMut, Item, Table, value};

/// Ports that every owner has by default.
const PORTS_DEFAULT: &str = "1024-65535";
/// The form that the helper reads.
const VERSION: i64 = 1;

/// Why rules cannot be extended. Nothing was changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesRefusal {
    /// Not TOML, or not of this form.
    #[error("rules.toml is not understood: {0}")]
    Form(String),
    /// The section is another account's.
    #[error("rules.toml: [owners.{owner}] has uid {found}, the account has {uid}: mend the section or remove it")]
    OtherUid {
        /// Login name.
        owner: String,
        /// What the file says.
        found: i64,
        /// What the account has.
        uid: u32,
    },
    /// Another section has the owner's uid.
    #[error("rules.toml: [owners.{other}] has uid {uid}, which is {owner}'s: remove or rename the section")]
    Twice {
        /// Login name.
        owner: String,
        /// The other section.
        other: String,
        /// The uid of both.
        uid: u32,
    },
    /// Not ports.
    #[error("--ports {0:?}: write ports as N or N-M, several with commas (as 80,443 or 1-1023)")]
    Ports(String),
}

/// Reads `--ports`: `N` or `N-M`, separated by commas, each from 1 to 65535.
///
/// # Errors
/// Where it is not that.
pub fn parse_ports(text: &str) -> Result<Vec<String>, RulesRefusal> {
    let bad = || RulesRefusal::Ports(text.to_owned());
    let port =
        |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && text.bytes().all(|b| b.is_ascii_digit()));
    text.split(',')
        .map(|part| {
            let part = part.trim();
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (port(first), port(last)) {
                (Some(first), Some(last)) if first <= last => Ok(part.to_owned()),
                _ => Err(bad()),
            }
        })
        .collect()
}

/// The rules' text with a section for `account` that grants at least `ports` and the default ports. A new section has
/// the IPv6 prefix `pool6`. Where all is there already, the text is returned as it is.
///
/// # Errors
/// Where the text is not understood or speaks of another account.
pub fn extend(text: &str, account: &Account, ports: &[String], pool6: &str) -> Result<String, RulesRefusal> {
    let form = |what: &str| RulesRefusal::Form(what.to_owned());
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| form(&error.to_string()))?;
    match document.get("version").and_then(Item::as_integer) {
        Some(VERSION) => {}
        Some(other) => return Err(form(&format!("version = {other}, this release writes version = {VERSION}"))),
        None => return Err(form("there is no version = 1")),
    }
    let owners = document.entry("owners").or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let owners = owners.as_table_mut().ok_or_else(|| form("[owners] is no table"))?;
    let name = account.name.as_str();
    let uid_of = |section: &Item| section.get("uid").and_then(Item::as_integer);
    let other = owners.iter().find(|(key, section)| *key != name && uid_of(section) == Some(account.uid.into()));
    if let Some((other, _)) = other {
        return Err(RulesRefusal::Twice { owner: name.to_owned(), other: other.to_owned(), uid: account.uid });
    }
    let fresh = !owners.contains_key(name);
    let section = owners.entry(name).or_insert_with(|| Item::Table(new_section(account, pool6)));
    match uid_of(section) {
        Some(uid) if uid == i64::from(account.uid) => {}
        found => {
            let (owner, found) = (name.to_owned(), found.unwrap_or_default());
            return Err(RulesRefusal::OtherUid { owner, found, uid: account.uid });
        }
    }
    let section = section.as_table_mut().ok_or_else(|| form(&format!("[owners.{name}] is no table")))?;
    add_ports(section, ports).ok_or_else(|| form(&format!("[owners.{name}] ports is no list of texts")))?;
    if !fresh {
        return Ok(document.to_string());
    }
    // What stood at the end stays above the new section: there it explains the file, below it would seem a part of it.
    let end = document.trailing().as_str().unwrap_or_default().to_owned();
    let gap = if end.is_empty() || end.ends_with("\n") { "" } else { "\n" };
    document.set_trailing("");
    if let Some(section) =
        document.get_mut("owners").and_then(|owners| owners.get_mut(name)).and_then(Item::as_table_mut)
    {
        section.decor_mut().set_prefix(format!("{end}{gap}\n"));
    }
    Ok(document.to_string())
}

/// The rules' text without the section of `name`.
///
/// # Errors
/// Where the text is not understood.
pub fn without(text: &str, name: &str) -> Result<String, RulesRefusal> {
    let form = |what: String| RulesRefusal::Form(what);
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| form(error.to_string()))?;
    if let Some(owners) = document.get_mut("owners").and_then(Item::as_table_mut) {
        owners.remove(name);
    }
    Ok(document.to_string())
}

/// A new owner's prefix.
///
/// # Errors
/// Where the kernel gives no random bytes.
pub fn fresh_prefix() -> anyhow::Result<String> {
    let mut bits = [0; 5];
    getrandom::fill(&mut bits).map_err(|error| anyhow::anyhow!("the kernel gave no random bytes: {error}"))?;
    Ok(private_prefix(bits))
}

fn new_section(account: &Account, pool6: &str) -> Table {
    let mut section = Table::new();
    section.insert("uid", value(i64::from(account.uid)));
    section.insert("pool6", value(pool6));
    section
}

/// 40 random bits after `fd`, so that no two owners, on this host or others, have the same (RFC 4193).
fn private_prefix([a, b, c, d, e]: [u8; 5]) -> String {
    // Those that clouds answer in begin with a zero, or with 0x20 and one.
    let a = if matches!(a, 0 | 0x20) { 0x68 } else { a };
    let groups = [0xfd00 | u16::from(a), u16::from_be_bytes([b, c]), u16::from_be_bytes([d, e])];
    format!("{}/48", std::net::Ipv6Addr::from([groups[0], groups[1], groups[2], 0, 0, 0, 0, 0]))
}

/// Adds what is missing of `ports`; where the section has no list yet, the defaults come first.
fn add_ports(section: &mut Table, ports: &[String]) -> Option<()> {
    if ports.is_empty() {
        return Some(());
    }
    let list = section.entry("ports").or_insert_with(|| value(Array::from_iter([PORTS_DEFAULT])));
    let list = list.as_array_mut()?;
    for port in ports {
        if !list.iter().any(|there| there.as_str() == Some(port)) {
            list.push(port);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL6: &str = "fd12:3456:789a::/48";
    const OTHER6: &str = "fd12:3456:789b::/48";
    const DEFAULT: &str = include_str!("../../../packaging/rules.toml");

    fn account(name: &str, uid: u32) -> Account {
        Account { name: name.parse().unwrap(), uid, gid: uid, home: "/".into() }
    }

    #[test]
    fn an_owner_is_added_below_what_is_there() {
        let once = extend(DEFAULT, &account("alice", 1000), &[], POOL6).unwrap();
        assert!(once.starts_with(DEFAULT.trim_end()), "{once}");
        assert!(once.ends_with("\n[owners.alice]\nuid = 1000\npool6 = \"fd12:3456:789a::/48\"\n"), "{once}");
        assert_eq!(extend(&once, &account("alice", 1000), &[], POOL6).unwrap(), once);
        let both = extend(&once, &account("b.ob", 1001), &["80".into()], OTHER6).unwrap();
        let section = "uid = 1001\npool6 = \"fd12:3456:789b::/48\"\nports = [\"1024-65535\", \"80\"]\n";
        assert!(both.ends_with(&format!("\n[owners.\"b.ob\"]\n{section}")), "{both}");
        assert_eq!(without(&both, "b.ob").unwrap(), once);
    }

    #[test]
    fn what_the_administrator_wrote_stays() {
        let text = "version = 1 # ours\n\n[owners.alice] # she\nuid = 1000\nports = [\"2000-3000\"] # few\n";
        assert_eq!(extend(text, &account("alice", 1000), &[], POOL6).unwrap(), text);
        let more = extend(text, &account("alice", 1000), &["80".into(), "2000-3000".into()], POOL6).unwrap();
        assert_eq!(more, text.replace("[\"2000-3000\"]", "[\"2000-3000\", \"80\"]"));
    }

    #[test]
    fn rules_of_another_account_or_form_are_refused() {
        let alice = account("alice", 1000);
        for (text, part) in [
            ("version = 1\n[owners.alice]\nuid = 7\n", "has uid 7"),
            ("version = 1\n[owners.alice]\n", "has uid 0"),
            ("version = 1\n[owners.bob]\nuid = 1000\n", "owners.bob"),
            ("version = 2\n", "version = 2"),
            ("", "no version"),
            ("version = 1\nowners = 3\n", "no table"),
            ("version = [", "not understood"),
            ("version = 1\n[owners.alice]\nuid = 1000\nports = 80\n", "no list"),
        ] {
            let error = extend(text, &alice, &["80".into()], POOL6).expect_err(text).to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_prefix_is_private_and_no_cloud_s() {
        assert_eq!(private_prefix([0x12, 0x34, 0x56, 0x78, 0x9a]), "fd12:3456:789a::/48");
        for bits in [[0; 5], [0x20, 0, 0xce, 1, 2], [0xff; 5]] {
            let prefix = private_prefix(bits);
            assert!(!prefix.starts_with("fd00") && !prefix.starts_with("fd20") && prefix.starts_with("fd"), "{prefix}");
        }
    }

    #[test]
    fn ports_are_numbers_and_ranges() {
        assert_eq!(parse_ports("80, 443,1-1023").unwrap(), ["80", "443", "1-1023"]);
        for bad in ["", "0", "65536", "5-4", "a", "80,", "+80", "1-2-3", "-1", "80;81"] {
            assert!(parse_ports(bad).is_err(), "{bad:?} was taken");
        }
    }
}
