//! Which machine a program is for: four fields of the ELF header, nothing more.

use crate::Refusal;

/// Bytes of a file's beginning that [`check_machine`] looks at.
pub(crate) const HEADER_BYTES: usize = 20;

/// Refuses a program that is no 64-bit little-endian ELF file for `arch` (as `x86_64`).
pub(crate) fn check_machine(name: &str, head: &[u8], arch: &str) -> Result<(), Refusal> {
    let wrong = |what: String| Err(Refusal::WrongTarget(format!("{name}: {what}")));
    // gabi: e_ident[EI_CLASS] = ELFCLASS64, e_ident[EI_DATA] = ELFDATA2LSB, e_machine at 18.
    if head.len() < HEADER_BYTES || !head.starts_with(b"\x7fELF\x02\x01") {
        return wrong("not a 64-bit little-endian ELF program".to_owned());
    }
    let found = u16::from_le_bytes([head[18], head[19]]);
    match machine(arch) {
        Some(wanted) if wanted == found => Ok(()),
        Some(wanted) => wrong(format!("its ELF machine is {found}, {arch} has {wanted}")),
        None => wrong(format!("release.json names the unknown architecture {arch:?}")),
    }
}

fn machine(arch: &str) -> Option<u16> {
    match arch {
        "x86_64" => Some(62),
        "aarch64" => Some(183),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(machine: u16) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01".to_vec();
        head.resize(18, 0);
        head.extend(machine.to_le_bytes());
        head
    }

    #[test]
    fn only_the_named_machine_passes() {
        assert!(check_machine("p", &head(62), "x86_64").is_ok());
        assert!(check_machine("p", &head(183), "aarch64").is_ok());
        let big_endian = {
            let mut h = head(62);
            h[5] = 2;
            h
        };
        for (bytes, arch) in [
            (head(183), "x86_64"),
            (head(62), "aarch64"),
            (head(62), "sparc"),
            (head(62)[..19].to_vec(), "x86_64"),
            (b"#!/bin/sh\nexit 0; # twenty".to_vec(), "x86_64"),
            (big_endian, "x86_64"),
            (Vec::new(), "x86_64"),
        ] {
            assert_eq!(check_machine("p", &bytes, arch).unwrap_err().name(), "wrong-target");
        }
    }
}
