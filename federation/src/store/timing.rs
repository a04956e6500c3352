//! The two sets of times that the store runs with.

use std::time::Duration;

/// How far apart the voters are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Within a site or between close ones: heartbeat 100 ms, election 300 to 500 ms.
    Lan,
    /// Across continents: heartbeat 400 ms, election 1.2 to 1.8 s.
    #[default]
    Wan,
}

impl Profile {
    /// The leader's heartbeat, which openraft 0.9 also uses as the timeout of an append.
    pub fn heartbeat(self) -> Duration {
        match self {
            Self::Lan => Duration::from_millis(100),
            Self::Wan => Duration::from_millis(400),
        }
    }

    pub fn election_min(self) -> Duration {
        self.heartbeat() * 3
    }

    /// Also the lease: while a leader was heard within it, nobody votes for another.
    pub fn election_max(self) -> Duration {
        match self {
            Self::Lan => Duration::from_millis(500),
            Self::Wan => Duration::from_millis(1800),
        }
    }

    /// How long a proposal waits for its commit; long enough for one change of leaders.
    pub fn propose_timeout(self) -> Duration {
        self.election_max() * 6
    }
}
