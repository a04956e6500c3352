//! Rows about the machine that the node runs on, when that is this one: what the kernel grants.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use model::code;

use super::Row;

const MACHINE: &str = "machine";
/// The kernel's file that says how large a socket's receive buffer may be.
const RMEM_MAX: &str = "/proc/sys/net/core/rmem_max";
/// With less, bursts of UDP packets are dropped at high throughput.
const RECEIVE_BUFFER_LEAST: u64 = 2 * 1024 * 1024;
/// Each connection and each socket of a worker is a file.
const FILES_LEAST: u64 = 8192;
/// Free space of the data folder's disk.
const DISK_FREE_WARN_KIB: u64 = 1024 * 1024;
const DISK_FREE_FAIL_KIB: u64 = 64 * 1024;
/// Names of our programs as the kernel cuts them.
const PROGRAMS: [&str; 2] = ["fedgate-federat", "fedgate-gateway"];

/// What this machine says.
#[derive(Debug, Default)]
pub struct Machine {
    pub receive_buffer_max: Option<u64>,
    pub processes: Vec<Process>,
}

/// One of our programs that runs here and may be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub program: String,
    /// `None` for no limit.
    pub files_max: Option<u64>,
    /// Its data folder, and how much of that disk is free.
    pub data: Option<(PathBuf, u64)>,
}

/// Looks at this machine; what may not be looked at is left out.
pub fn read_machine() -> Machine {
    let number = fs::read_to_string(RMEM_MAX).ok().and_then(|text| text.trim().parse().ok());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut processes: Vec<Process> = entries.filter_map(|entry| process(&entry.path())).collect();
    processes.sort_by(|a, b| a.program.cmp(&b.program));
    Machine { receive_buffer_max: number, processes }
}

fn process(folder: &Path) -> Option<Process> {
    let program = fs::read_to_string(folder.join("comm")).ok()?.trim().to_owned();
    if !PROGRAMS.contains(&&*program) {
        return None;
    }
    let limits = fs::read_to_string(folder.join("limits")).ok()?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let files_max = files.split_whitespace().next()?.parse().ok();
    let data = data_folder(folder).and_then(|data| Some((data.clone(), free_kib(&data)?)));
    Some(Process { program, files_max, data })
}

/// Each of our programs holds the file `lock` in its data folder.
fn data_folder(folder: &Path) -> Option<PathBuf> {
    let open = fs::read_dir(folder.join("fd")).ok()?.flatten();
    let mut paths = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    let lock = paths.find(|path| path.is_absolute() && path.ends_with("lock"))?;
    lock.parent().map(Path::to_path_buf)
}

fn free_kib(folder: &Path) -> Option<u64> {
    let output = Command::new("df").arg("-Pk").arg(folder).output().ok()?;
    available(&String::from_utf8(output.stdout).ok()?)
}

/// The fourth column of what POSIX's df prints.
fn available(table: &str) -> Option<u64> {
    table.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}

pub fn machine_rows(machine: &Machine) -> Vec<Row> {
    let mut rows = vec![buffers(machine.receive_buffer_max)];
    match &machine.processes[..] {
        [] => rows.push(Row::skip(
            MACHINE,
            "open files and disks of Fedgate's processes",
            "none runs here that this user may look at",
        )),
        processes => rows.extend([files(processes), disks(processes)]),
    }
    rows
}

fn buffers(max: Option<u64>) -> Row {
    let Some(max) = max else {
        return Row::skip(MACHINE, "UDP buffers", format!("{RMEM_MAX} cannot be read"));
    };
    let kib = max / 1024;
    match max >= RECEIVE_BUFFER_LEAST {
        true => Row::pass(MACHINE, format!("UDP receive buffers may have {kib} KiB")),
        false => Row::warn(
            MACHINE,
            format!("UDP receive buffers may have {kib} KiB only"),
            code::UDP_BUFFER_SMALL,
        ),
    }
}

fn files(processes: &[Process]) -> Row {
    let few: Vec<String> = processes
        .iter()
        .filter_map(|process| Some((process, process.files_max?)))
        .filter(|(_, max)| *max < FILES_LEAST)
        .map(|(process, max)| format!("{}: {max}", process.program))
        .collect();
    match few.is_empty() {
        true => Row::pass(MACHINE, "Fedgate's processes may open enough files"),
        false => Row::warn(MACHINE, "few files may be open at once", code::FILE_LIMIT_LOW)
            .cause(few.join(", ")),
    }
}

fn disks(processes: &[Process]) -> Row {
    let known = || processes.iter().filter_map(|process| process.data.as_ref());
    let Some(least) = known().map(|(_, free)| *free).min() else {
        return Row::skip(MACHINE, "disk space", "no data folder can be looked at");
    };
    let scarce: Vec<String> = known()
        .filter(|(_, free)| *free < DISK_FREE_WARN_KIB)
        .map(|(folder, free)| format!("{}: {} MiB free", folder.display(), free / 1024))
        .collect();
    let text = "the disk of a data folder is nearly full";
    match least {
        0..DISK_FREE_FAIL_KIB => {
            Row::fail(MACHINE, text, code::DISK_SPACE_LOW).cause(scarce.join(", "))
        }
        DISK_FREE_FAIL_KIB..DISK_FREE_WARN_KIB => {
            Row::warn(MACHINE, text, code::DISK_SPACE_LOW).cause(scarce.join(", "))
        }
        _ => Row::pass(MACHINE, format!("data folders have {} MiB or more free", least / 1024)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Report, Verdict};
    use crate::golden;

    #[test]
    fn a_good_machine_and_a_bad_one_are_as_golden() {
        let process = |program: &str, files_max, free| Process {
            program: program.into(),
            files_max,
            data: Some((format!("/var/lib/{program}").into(), free)),
        };
        let good = Machine {
            receive_buffer_max: Some(4 << 20),
            processes: vec![
                process(PROGRAMS[0], Some(65_536), 9 << 20),
                process(PROGRAMS[1], None, 9 << 20),
            ],
        };
        let rows = machine_rows(&good);
        assert!(rows.iter().all(|row| row.verdict == Verdict::Pass), "{rows:?}");
        let bad = Machine {
            receive_buffer_max: Some(212_992),
            processes: vec![process(PROGRAMS[0], Some(1024), 1000)],
        };
        let mut rows = machine_rows(&bad);
        rows.extend(machine_rows(&Machine::default()));
        golden::check("check-machine.txt", &Report { rows }.table());
    }

    #[test]
    fn the_output_of_df_is_read() {
        let table = "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
                     /dev/vda1 103081248 50000000 48123456 52% /\n";
        assert_eq!(available(table), Some(48_123_456));
        assert_eq!(available("df: no such file\n"), None);
        assert!(free_kib(Path::new("/")).is_some());
    }
}
