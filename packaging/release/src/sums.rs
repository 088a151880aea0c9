//! The strict grammar of `SHA256SUMS`: what `sha256sum` writes, and nothing else that it would read.

use crate::{Digest, RELEASE_NAME, Refusal, SUMS_BYTES_MAX, SUMS_NAME};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A name that a release may hold: `[A-Za-z0-9._-]+`, at most 255 bytes, not `.` or `..`. So it is never a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

/// The names and digests of a release. `release.json` is always among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums(BTreeMap<FileName, Digest>);

impl FromStr for FileName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > 255 || !text.bytes().all(legal) || text == "." || text == ".." {
            return Err("the name is not of A-Z, a-z, 0-9, '.', '_' and '-'");
        }
        Ok(Self(text.to_owned()))
    }
}

impl Sums {
    /// Reads the exact bytes of a `SHA256SUMS`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let whole = |what| Refusal::BadSumsGrammar { line: 0, what };
        if bytes.len() as u64 > SUMS_BYTES_MAX {
            return Err(whole("it is above 64 KiB"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| whole("it is not ASCII"))?;
        let lines = text.strip_suffix('\n').ok_or(whole("the last line has no end"))?;
        let mut sums: BTreeMap<FileName, Digest> = BTreeMap::new();
        for (index, line) in lines.split('\n').enumerate() {
            let at = |what| Refusal::BadSumsGrammar { line: index + 1, what };
            let (name, digest) = parse_line(line).map_err(at)?;
            if sums.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(at("names are not sorted and unique"));
            }
            sums.insert(name, digest);
        }
        let sums = Self(sums);
        match sums.digest(RELEASE_NAME) {
            Some(_) => Ok(sums),
            None => Err(Refusal::MissingFile { name: RELEASE_NAME.to_owned(), why: "SHA256SUMS does not name it" }),
        }
    }

    /// Of names with their digests, as a builder has them.
    pub fn of(files: impl IntoIterator<Item = (FileName, Digest)>) -> Self {
        Self(files.into_iter().collect())
    }

    /// The digest of a name.
    pub fn digest(&self, name: &str) -> Option<Digest> {
        self.0.iter().find(|(known, _)| known.as_str() == name).map(|(_, digest)| *digest)
    }

    /// All names, sorted by their bytes.
    pub fn names(&self) -> impl Iterator<Item = &FileName> {
        self.0.keys()
    }
}

/// One line without its end: 64 lower-case hex digits, two spaces, a name.
fn parse_line(line: &str) -> Result<(FileName, Digest), &'static str> {
    let (digest, rest) = line.split_at_checked(64).ok_or("it is shorter than a digest")?;
    let digest = digest.parse().map_err(|()| "it does not begin with 64 lower-case hex digits")?;
    let name: FileName = rest.strip_prefix("  ").ok_or("no two spaces after the digest")?.parse()?;
    let own = name.as_str() == SUMS_NAME || name.as_str().starts_with("SHA256SUMS.");
    if own { Err("it names SHA256SUMS or its signature") } else { Ok((name, digest)) }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, digest)| writeln!(f, "{digest}  {name}"))
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FileName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn refused(text: &str) -> &'static str {
        Sums::parse(text.as_bytes()).expect_err(text).name()
    }

    #[test]
    fn what_sha256sum_writes_is_taken_as_it_is() {
        let text = format!("{A}  holdfast\n{A}  release.json\n");
        let sums = Sums::parse(text.as_bytes()).unwrap();
        assert_eq!(sums.names().map(FileName::as_str).collect::<Vec<_>>(), ["holdfast", "release.json"]);
        assert_eq!(sums.to_string(), text);
    }

    #[test]
    fn what_sha256sum_would_read_beyond_that_is_refused() {
        let json = format!("{A}  release.json\n");
        for bad in [
            String::new(),
            "\n".to_owned(),
            json.trim_end().to_owned(),
            format!("{json}\n"),
            format!("\n{json}"),
            json.replace('\n', "\r\n"),
            json.replace("  ", " *"),
            json.replace("  ", " "),
            json.replace("  ", "\t"),
            json.replace("  ", "   "),
            json.to_uppercase(),
            format!("\\{json}"),
            format!("\u{feff}{json}"),
            format!("# comment\n{json}"),
            format!("{json}{json}"),
            format!("{A}  z\n{json}"),
            format!("SHA256 (release.json) = {A}\n"),
            format!("{A}  a/b\n{json}"),
            format!("{A}  ..\n{json}"),
            format!("{A}  .\n{json}"),
            format!("{A}  \n{json}"),
            format!("{A}  a b\n{json}"),
            format!("{A}  a\0\n{json}"),
            format!("{A}  é\n{json}"),
            format!("{A}  SHA256SUMS\n{json}"),
            format!("{A}  SHA256SUMS.sig\n{json}"),
            format!("{}  a\n{json}", &A[..62]),
            format!("{A}0  a\n{json}"),
        ] {
            assert_eq!(refused(&bad), "bad-sums-grammar", "{bad:?}");
        }
        assert_eq!(refused(&format!("{A}  holdfast\n")), "missing-file");
    }

    #[test]
    fn the_cap_holds() {
        let text: String =
            (0..2000).map(|n| format!("{A}  a{n:04}\n")).chain([format!("{A}  release.json\n")]).collect();
        assert_eq!(refused(&text), "bad-sums-grammar");
    }

    proptest! {
        #[test]
        fn whatever_is_taken_writes_itself_back(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(sums) = Sums::parse(&bytes) {
                prop_assert_eq!(sums.to_string().into_bytes(), bytes);
            }
        }

        #[test]
        fn a_changed_byte_never_reads_as_the_same(at in 0usize..200, to in any::<u8>()) {
            let text = format!("{A}  holdfast\n{A}  holdfastd\n{A}  release.json\n").into_bytes();
            let mut changed = text.clone();
            let at = at % text.len();
            changed[at] = to;
            prop_assume!(changed != text);
            if let Ok(sums) = Sums::parse(&changed) {
                prop_assert_ne!(sums, Sums::parse(&text).unwrap());
            }
        }

        #[test]
        fn any_set_of_names_survives(names in proptest::collection::btree_set("[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", 0..20)) {
            let names = names.into_iter().filter(|name| !name.starts_with("SHA256SUMS"));
            let files = names.chain([RELEASE_NAME.to_owned()]).map(|n| (n.parse().unwrap(), Digest::of(n.as_bytes())));
            let sums = Sums::of(files);
            prop_assert_eq!(Sums::parse(sums.to_string().as_bytes()).unwrap(), sums);
        }
    }
}
