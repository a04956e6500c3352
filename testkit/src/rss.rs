//! How much memory processes have, and how fast that grows.

use std::time::Duration;

use crate::Sites;

/// Fewer looks, or a shorter time, say nothing of growth.
const LOOKS_MIN: usize = 10;
const SPAN_MIN: Duration = Duration::from_secs(10 * 60);

/// Of one process: when it was looked at, and its resident KiB.
#[derive(Debug, Clone, Default)]
pub struct Growth(Vec<(Duration, f64)>);

impl Growth {
    pub fn note(&mut self, at: Duration, kib: u64) {
        // A process has far less than 2^52 KiB.
        self.0.push((at, kib as f64));
    }

    pub fn last_mib(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, kib)| kib / 1024.0)
    }

    /// By least squares over the second half of the time, in percent of the mean per hour: the first
    /// half is when caches fill. `None` where that is too short to tell.
    pub fn percent_per_hour(&self) -> Option<f64> {
        let end = self.0.last()?.0;
        let half: Vec<(f64, f64)> = self
            .0
            .iter()
            .filter(|(at, _)| *at >= end / 2)
            .map(|(at, kib)| (at.as_secs_f64() / 3600.0, *kib))
            .collect();
        if half.len() < LOOKS_MIN || end / 2 < SPAN_MIN {
            return None;
        }
        let count = half.len() as f64;
        let (sum_x, sum_y) =
            half.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        let (mean_x, mean_y) = (sum_x / count, sum_y / count);
        let (mut over, mut under) = (0.0, 0.0);
        for (x, y) in half {
            over += (x - mean_x) * (y - mean_y);
            under += (x - mean_x) * (x - mean_x);
        }
        (under > 0.0 && mean_y > 0.0).then(|| over / under / mean_y * 100.0)
    }
}

/// Resident KiB, as the kernel says (proc_pid_status(5)).
pub fn resident_kib(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Nodes and gateways that run, by name.
pub fn of_sites(sites: &Sites) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    for site in sites.iter() {
        let name = &site.spec.name;
        all.extend(site.federation.iter().map(|it| (format!("{name} node"), it.id())));
        all.extend(site.gateway.iter().map(|it| (format!("{name} gateway"), it.id())));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_told_from_a_cache_that_fills() {
        let (mut flat, mut leaks) = (Growth::default(), Growth::default());
        for minute in 0..60u64 {
            let at = Duration::from_secs(60 * minute);
            flat.note(at, 10_000 + 100 * minute.min(20));
            leaks.note(at, 10_000 + 10 * minute);
        }
        assert!(flat.percent_per_hour().unwrap().abs() < 0.01);
        let leak = leaks.percent_per_hour().unwrap();
        assert!((5.0..7.0).contains(&leak), "{leak}");
        assert_eq!(Growth::default().percent_per_hour(), None);
        assert!(resident_kib(std::process::id()).unwrap() > 100);
    }
}
