//! The keys that leave a terminal without ending what runs on it: Ctrl-P Ctrl-Q. Pure.

const CTRL_P: u8 = 0x10;
const CTRL_Q: u8 = 0x11;

/// Watches what is typed.
#[derive(Debug, Default)]
pub struct Keys {
    /// Ctrl-P came last, and waits for what follows.
    held: bool,
}

impl Keys {
    /// What of it goes on to the program, and whether to leave then.
    pub fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for key in typed {
            match (std::mem::take(&mut self.held), *key) {
                (true, CTRL_Q) => return (passed, true),
                (false, CTRL_P) => self.held = true,
                (true, CTRL_P) => {
                    passed.push(CTRL_P);
                    self.held = true;
                }
                (true, key) => passed.extend([CTRL_P, key]),
                (false, key) => passed.push(key),
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = Keys::default();
        let mut all = Vec::new();
        for piece in pieces {
            let (passed, leaves) = keys.pass(piece);
            all.extend(passed);
            if leaves {
                return (all, true);
            }
        }
        (all, false)
    }

    #[test]
    fn two_keys_in_a_row_leave_however_they_arrive() {
        assert_eq!(pass(&[b"ls\x10\x11rm"]), (b"ls".to_vec(), true));
        assert_eq!(pass(&[b"ls\x10", b"\x11"]), (b"ls".to_vec(), true));
        assert_eq!(pass(&[b"\x10\x10", b"\x11"]), (b"\x10".to_vec(), true));
    }

    #[test]
    fn every_other_key_goes_on() {
        assert_eq!(pass(&[b"\x11\x10a", b"\x10", b"b\x11"]), (b"\x11\x10a\x10b\x11".to_vec(), false));
        assert_eq!(pass(&[b"\x10"]), (vec![], false), "the first waits for the second");
    }
}
