//! The package: what is in it, and what dpkg makes of it on a machine of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use testkit::programs;
use wan::netns::Netns;

use super::machine::{self, Machine};

const LIMIT: Duration = Duration::from_secs(120);
/// In a shell that ends with the first failure, a `!` hides what fails: POSIX 2.8.1, `set -e`.
const NO: &str = "no() { ! \"$@\" || { echo \"this works and should not: $*\"; exit 1; }; }";
const UNITS: [&str; 2] = ["fedgate-federation.service", "fedgate-gateway.service"];

/// The package of the programs that were built, and a later one of the same.
pub(crate) fn packages() -> &'static [PathBuf; 2] {
    static PACKAGES: OnceLock<[PathBuf; 2]> = OnceLock::new();
    PACKAGES.get_or_init(|| ["1.0~1", "1.0~2"].map(|version| build(version, "first")))
}

fn build(version: &str, folder: &str) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/deb.sh");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("deb").join(folder);
    let programs = programs::path("fedctl");
    let mut command = Command::new(script);
    command.arg(programs.parent().unwrap()).arg(folder).arg(version);
    // Packing well takes minutes, and is not ours to test.
    command.env("DEB_COMPRESSION", "none").env("SOURCE_DATE_EPOCH", "1700000000");
    PathBuf::from(output(&mut command).trim())
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn dpkg_deb(arguments: &[&str], package: &Path) -> String {
    let [verb, rest @ ..] = arguments else { panic!("a verb") };
    output(Command::new("dpkg-deb").arg(verb).arg(package).args(rest))
}

#[test]
fn the_package_is_what_debian_expects() {
    if Command::new("dpkg-shlibdeps").arg("--version").output().is_err() {
        println!(
            "skipped: three_machines::package::the_package_is_what_debian_expects: needs dpkg-dev"
        );
        return;
    }
    let package = &packages()[0];
    let again = build("1.0~1", "again");
    assert!(
        std::fs::read(package).unwrap() == std::fs::read(&again).unwrap(),
        "the same programs give other bytes"
    );
    let field = |name: &str| dpkg_deb(&["--field", name], package).trim().to_owned();
    assert_eq!((field("Package"), field("Version")), ("fedgate".into(), "1.0~1".into()));
    let depends = field("Depends");
    for library in ["libc6 (>= ", "libstdc++6 (>= ", "init-system-helpers", "systemd"] {
        assert!(depends.contains(library), "{depends}");
    }
    assert!(field("Installed-Size").parse::<u64>().unwrap() > 1000);
    assert!(!field("Description").lines().next().unwrap().ends_with('.'));
    contents(&dpkg_deb(&["--contents"], package));
    let conffiles = dpkg_deb(&["--info", "conffiles"], package);
    let conffiles: BTreeSet<&str> = conffiles.lines().collect();
    let expected = [
        "/etc/default/fedgate-federation",
        "/etc/default/fedgate-gateway",
        "/etc/logrotate.d/fedgate",
    ];
    assert_eq!(conffiles, BTreeSet::from(expected));
    let sums = dpkg_deb(&["--info", "md5sums"], package);
    assert!(sums.lines().any(|line| line.ends_with("  usr/bin/fedgate-gateway")), "{sums}");
}

/// All of it is root's, nobody else writes to it, and only programs can be run.
fn contents(list: &str) {
    let mut files = BTreeSet::new();
    for line in list.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (mode, owner, path) = (words[0], words[1], words[5]);
        assert_eq!(owner, "root/root", "{line}");
        let expected = match path {
            _ if path.ends_with('/') => "drwxr-xr-x",
            _ if path.starts_with("./usr/bin/") => "-rwxr-xr-x",
            _ => "-rw-r--r--",
        };
        assert_eq!(mode, expected, "{line}");
        files.insert(path);
    }
    for path in [
        "./usr/bin/fedctl",
        "./usr/bin/fedgate-federation",
        "./usr/bin/fedgate-gateway",
        "./usr/lib/systemd/system/fedgate-federation.service",
        "./usr/lib/systemd/system/fedgate-gateway.service",
        "./usr/lib/sysusers.d/fedgate.conf",
        "./usr/lib/tmpfiles.d/fedgate.conf",
        "./usr/share/bash-completion/completions/fedctl",
        "./usr/share/doc/fedgate/changelog.gz",
        "./usr/share/doc/fedgate/copyright",
        "./usr/share/man/man1/fedctl.1.gz",
        "./usr/share/man/man8/fedgate-gateway.8.gz",
        "./etc/fedgate/manifests/",
    ] {
        assert!(files.contains(path), "{path} is missing");
    }
}

#[test]
fn dpkg_installs_upgrades_removes_and_purges_it() {
    if let Some(reason) = machine::unavailable() {
        println!(
            "skipped: three_machines::package::dpkg_installs_upgrades_removes_and_purges_it: {reason}"
        );
        return;
    }
    let [package, later] = packages();
    let folder = tempfile::Builder::new().prefix("fg-deb-").tempdir().unwrap();
    // Its ports are nobody else's.
    let netns = Netns::create("debian").unwrap();
    let machine = Machine::start("debian", &netns, folder.path());
    for package in [package, later] {
        machine.receive(package);
    }
    let run = |commands: &str| machine.run(&format!("{NO}\n{commands}"), LIMIT);
    let calls = || {
        let calls = machine.read("/run/systemd/stand-in/calls");
        machine.run("rm -f /run/systemd/stand-in/calls", LIMIT);
        calls
    };
    run("dpkg -i fedgate_1.0~1_*.deb");
    let told = calls();
    for unit in UNITS {
        assert!(told.contains(&format!("start {unit}")), "{told}");
    }
    // Nothing is configured, so nothing runs.
    run("id fedgate; no pgrep -x fedgate-federat; no pgrep -x fedgate-gateway");
    the_units_are_sound(&machine);

    run("cp /usr/share/doc/fedgate/examples/*.yaml /etc/fedgate/
        systemctl start fedgate-federation fedgate-gateway
        echo kept > /etc/fedgate/manifests/note.txt
        sed -i 's/#FEDGATE_LOG=.*/FEDGATE_LOG=debug/' /etc/default/fedgate-gateway");
    the_daemons_are_hemmed_in(&machine);
    let _ = calls();
    run("dpkg -i fedgate_1.0~2_*.deb");
    let told = calls();
    for unit in UNITS {
        assert!(told.contains(&format!("restart {unit}")), "{told}");
    }
    // The old gateway drained, and the new one runs with what the administrator wrote.
    let notified = machine.notified("fedgate-gateway");
    let drained = ["STOPPING=1", "EXIT=0", "READY=1"].map(|sign| notified.rfind(sign));
    assert!(drained.is_sorted() && drained[0].is_some(), "{notified}");
    assert!(machine.log("fedgate-gateway").contains("<7>"), "no line of the level debug");

    run("dpkg -r fedgate
        no pgrep -x fedgate-federat; no pgrep -x fedgate-gateway
        test -d /var/lib/fedgate/federation/ca; test -s /etc/fedgate/federation.yaml");
    run("dpkg -P fedgate
        no test -e /var/lib/fedgate; no test -e /etc/default/fedgate-gateway
        no ls -d /etc/systemd/system/fedgate*; no ls -d /etc/systemd/system/*/fedgate*
        test -s /etc/fedgate/manifests/note.txt");
}

/// As systemd's own programs judge them.
fn the_units_are_sound(machine: &Machine) {
    for unit in UNITS {
        let path = format!("/usr/lib/systemd/system/{unit}");
        let told = machine.run(&format!("systemd-analyze verify {path} 2>&1 || true"), LIMIT);
        let ours: Vec<&str> = told.lines().filter(|line| line.contains("fedgate")).collect();
        assert!(ours.is_empty(), "{ours:?}");
        // From 0 (all that can be closed is closed) to 10, times ten.
        let judge = format!("systemd-analyze security --offline=true --threshold=20 {unit}");
        machine.run(&judge, LIMIT);
    }
}

/// Who they run as, what they may do, and who may open what they made.
fn the_daemons_are_hemmed_in(machine: &Machine) {
    let told = machine.run(
        "stat -c '%a %U %n' /var/lib/fedgate/federation /var/lib/fedgate/gateway /run/fedgate \
            /run/fedgate/resource.sock /run/fedgate/operator.sock /run/fedgate/relay.sock
        for program in fedgate-federat fedgate-gateway; do
            grep -E '^(Uid|CapEff|NoNewPrivs)' /proc/$(pgrep -x $program)/status
        done
        id -u fedgate",
        LIMIT,
    );
    let words: Vec<&str> = told.split_whitespace().collect();
    let uid = words[words.len() - 5]; // before the four that end every run;
    let all = words.join(" ");
    let expected = format!(
        "700 fedgate /var/lib/fedgate/federation 700 fedgate /var/lib/fedgate/gateway \
         755 fedgate /run/fedgate 600 fedgate /run/fedgate/resource.sock \
         600 fedgate /run/fedgate/operator.sock 600 fedgate /run/fedgate/relay.sock \
         Uid: {uid} {uid} {uid} {uid} CapEff: 0000000000000000 NoNewPrivs: 1 \
         Uid: {uid} {uid} {uid} {uid} CapEff: 0000000000000400 NoNewPrivs: 1 {uid}"
    );
    assert!(all.starts_with(&expected), "{all}\n{expected}");
}
