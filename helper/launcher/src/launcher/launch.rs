//! What one launch waits for, decided apart from doing it: the shim says `Ready`, the helper says `Release`,
//! in either order; then the shim is let go.

use holdfast_launcher::launch::Wiring;

/// Where a launch is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Stage {
    /// Neither word has come.
    #[default]
    Born,
    /// The shim's cage stands.
    Ready,
    /// The helper has wired it.
    Wired(Wiring),
}

/// What follows from a word.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// The other word is awaited.
    Wait(Stage),
    /// Both have come.
    Go(Wiring),
    /// That word had come before: whoever said it is not in its right mind.
    Twice,
}

impl Stage {
    /// The shim said `Ready`.
    pub fn ready(self) -> Next {
        match self {
            Self::Born => Next::Wait(Self::Ready),
            Self::Wired(wiring) => Next::Go(wiring),
            Self::Ready => Next::Twice,
        }
    }

    /// The helper said `Release`.
    pub fn wired(self, wiring: Wiring) -> Next {
        match self {
            Self::Born => Next::Wait(Self::Wired(wiring)),
            Self::Ready => Next::Go(wiring),
            Self::Wired(_) => Next::Twice,
        }
    }

    /// What was being waited for, for the message when it did not come in time.
    pub fn awaited(&self) -> &'static str {
        match self {
            Self::Born | Self::Wired(_) => "shim ready in time",
            Self::Ready => "helper's release in time",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_when_both_words_came_in_either_order() {
        let wiring = Wiring { link: "eth0".to_owned(), ..Wiring::default() };
        assert_eq!(Stage::Born.ready(), Next::Wait(Stage::Ready));
        assert_eq!(Stage::Ready.wired(wiring.clone()), Next::Go(wiring.clone()));
        assert_eq!(Stage::Born.wired(wiring.clone()), Next::Wait(Stage::Wired(wiring.clone())));
        assert_eq!(Stage::Wired(wiring.clone()).ready(), Next::Go(wiring));
    }

    #[test]
    fn no_word_counts_twice() {
        assert_eq!(Stage::Ready.ready(), Next::Twice);
        assert_eq!(Stage::Wired(Wiring::default()).wired(Wiring::default()), Next::Twice);
    }
}
