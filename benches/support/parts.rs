//! What each part of a site takes that has an application in PHP-FPM.

use std::time::Instant;

use super::idle::ENGINE;
use super::proc::{self, CpuTime};

/// CPU time at one moment: of httpd with the engine, of the engine, of PHP-FPM.
pub(crate) struct Clock([CpuTime; 3]);

/// Seconds of each since then, those of httpd without the engine.
#[derive(Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) httpd: f64,
    pub(crate) engine: f64,
    pub(crate) php: f64,
}

impl Clock {
    /// Of these processes and their descendants.
    pub(crate) fn now(httpd: u32, fpm: u32) -> Self {
        Self([vec![httpd], proc::named(httpd, ENGINE), vec![fpm]].map(|roots| CpuTime::of_trees(&roots)))
    }

    pub(crate) fn since(&self, earlier: &Self) -> Cpu {
        let [all, engine, php] = [0, 1, 2].map(|index| self.0[index].seconds_since(&earlier.0[index]));
        Cpu { httpd: all - engine, engine, php }
    }
}

impl Cpu {
    pub(crate) fn sum(self) -> f64 {
        self.httpd + self.engine + self.php
    }

    /// Microseconds for each of so many.
    pub(crate) fn each(self, count: u64) -> Self {
        let each = |seconds| seconds * 1e6 / count as f64;
        Self { httpd: each(self.httpd), engine: each(self.engine), php: each(self.php) }
    }

    /// Shares of a core, in the time since then.
    pub(crate) fn shares(self, start: Instant) -> Self {
        let share = |seconds| seconds / start.elapsed().as_secs_f64();
        Self { httpd: share(self.httpd), engine: share(self.engine), php: share(self.php) }
    }
}
