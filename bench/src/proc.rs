//! What the kernel says of processes: `/proc/PID/stat`, `/proc/PID/status`, `/proc/stat` (proc(5)).

use std::time::Duration;

use anyhow::Context;

/// The kernel counts CPU time in hundredths of a second (`USER_HZ`, fixed in its user interface).
const TICKS_PER_SECOND: u64 = 100;

/// User and system time that a process has used.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read stat")?;
    parse_stat(&text).with_context(|| format!("/proc/{pid}/stat is not as expected: {text}"))
}

/// Time that all processors together were not idle.
pub fn machine_cpu_time() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    parse_machine_stat(&text).context("/proc/stat is not as expected")
}

/// Resident memory in KiB.
pub fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).context("read status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()).context("no VmRSS")?;
    Ok(number.parse()?)
}

/// Fields 14 and 15; the command's name before them may contain spaces and brackets.
fn parse_stat(text: &str) -> Option<Duration> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(ticks(user + system))
}

/// `cpu user nice system idle iowait irq softirq steal …`: all but idle, iowait and steal.
fn parse_machine_stat(text: &str) -> Option<Duration> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> =
        line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let busy = [0, 1, 2, 5, 6].iter().map(|&index| fields.get(index)).sum::<Option<u64>>()?;
    Some(ticks(busy))
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_parsed_also_with_odd_names() {
        let text = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(parse_stat(text), Some(Duration::from_secs(2)));
        let text = "cpu  100 0 50 999 999 10 40 7 0 0\ncpu0 1\n";
        assert_eq!(parse_machine_stat(text), Some(Duration::from_secs(2)));
        assert_eq!(parse_stat("7 (a) S"), None);
    }

    #[test]
    fn our_own_figures_can_be_read() {
        let pid = std::process::id();
        assert!(cpu_time(pid).is_ok() && resident_kib(pid).unwrap() > 100);
        assert!(machine_cpu_time().unwrap() > Duration::ZERO);
    }
}
