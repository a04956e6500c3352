//! `fedctl bug-report`: collects, removes secrets, on request names, and packs.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

use crate::bug_report::{Collection, Names, Part, Way, collect, pack, scrub};
use crate::cli::{BugReport, Global};
use crate::connect::{self, Target};
use crate::error::CommandError;
use crate::printer::Printer;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportView {
    api_version: &'static str,
    kind: &'static str,
    file: String,
    redacted: bool,
    parts: Vec<String>,
    missing: Vec<MissingView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MissingView {
    part: String,
    why: String,
}

pub(super) async fn run(
    args: &BugReport,
    global: &Global,
    printer: &Printer,
) -> Result<(), CommandError> {
    let now = Timestamp::now();
    let folder = format!("fedgate-bug-report-{}", now.strftime("%Y%m%dT%H%M%SZ"));
    let path = args.to.clone().unwrap_or_else(|| PathBuf::from(format!("{folder}.tar.gz")));
    let way = way(global)?;
    printer.talk("Collecting; what does not answer is left out.");
    let mut collection = collect(&way, &args.files).await;
    let names = args.redact.then(|| names(&collection, global));
    clean(&mut collection, names);
    let readme = readme(&collection, args.redact, now);
    collection.parts.insert(0, Part { name: "README.txt".into(), text: readme });
    write(&path, &folder, &collection, now)?;
    let file = path.display().to_string();
    printer.talk(&format!("Read it before you send it: tar -xzf {file}"));
    let missing = collection.missing.into_iter().map(|(part, why)| MissingView { part, why });
    let view = ReportView {
        api_version: "fedgate.dev/v1alpha1",
        kind: "BugReport",
        file,
        redacted: args.redact,
        parts: collection.parts.into_iter().map(|part| part.name).collect(),
        missing: missing.collect(),
    };
    for MissingView { part, why } in &view.missing {
        printer.talk(&format!("missing: {part}: {why}"));
    }
    // The path alone goes to stdout, so that a script can take it.
    printer.result(&view, |view| view.file.clone())
}

/// The same options again, for the questions to the node.
fn way(global: &Global) -> Result<Way, CommandError> {
    let program = std::env::current_exe()
        .map_err(|error| CommandError::failed(format!("find this program's file: {error}")))?;
    let mut options: Vec<OsString> = Vec::new();
    let mut add = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            options.extend([name.into(), value]);
        }
    };
    let text = |value: &Option<String>| value.as_ref().map(OsString::from);
    // A plugin's --context is a kubeconfig's.
    match global.plugin {
        true => add("--context", text(&global.kube_context)),
        false => {
            add("--context", text(&global.context));
            add("--kube-context", text(&global.kube_context));
        }
    }
    add("--server", text(&global.server));
    add("--kubeconfig", global.kubeconfig.clone().map(PathBuf::into_os_string));
    add("--fedgate-namespace", text(&global.fedgate_namespace));
    let role = global.role.and_then(|role| role.to_possible_value());
    add("--role", role.map(|role| role.get_name().into()));
    let target = connect::chosen_node(global)?;
    Ok(Way {
        program,
        called: if global.plugin { "kubectl-fed".into() } else { "fedctl".into() },
        options,
        is_here: matches!(target, Target::Socket(_)),
    })
}

/// Every name that the node knows, and those in the options. Clusters first, since they are in most
/// other names.
fn names(collection: &Collection, global: &Global) -> Names {
    let mut names = Names::default();
    if let Some(clusters) = collection.json("clusters.json") {
        for cluster in clusters["items"].as_array().into_iter().flatten() {
            names.learn_name("cluster", cluster["name"].as_str().unwrap_or_default());
        }
    }
    for part in &collection.parts {
        if let Some(answer) = collection.json(&part.name) {
            names.learn(&answer);
        }
    }
    for context in [&global.context, &global.kube_context].into_iter().flatten() {
        names.learn_name("context", context);
    }
    names
}

/// Removes secrets, and names if they are known, also from what is said of missing parts.
fn clean(collection: &mut Collection, mut names: Option<Names>) {
    let mut clean = |text: &mut String| {
        *text = scrub(text);
        if let Some(names) = &mut names {
            *text = names.redact(text);
        }
    };
    for part in &mut collection.parts {
        clean(&mut part.text);
    }
    for (part, why) in &mut collection.missing {
        clean(part);
        clean(why);
    }
    // A gateway's name is in the name of its files.
    if let Some(names) = &mut names {
        for part in &mut collection.parts {
            part.name = part
                .name
                .split('/')
                .map(|step| redact_step(step, names))
                .collect::<Vec<_>>()
                .join("/");
        }
    }
}

/// The kinds of files stay readable.
fn redact_step(step: &str, names: &mut Names) -> String {
    match step.rsplit_once('.') {
        Some((stem, extension)) => format!("{}.{extension}", names.redact(stem)),
        None => names.redact(step),
    }
}

fn readme(collection: &Collection, redacted: bool, now: Timestamp) -> String {
    let mut text = format!(
        "What `fedctl bug-report` of version {} collected at {now:.0}.\n\
         Private keys and tokens were removed. {}\n\
         Ages in the files are as of that time; links and health are as gateways last reported them.\n\n",
        env!("CARGO_PKG_VERSION"),
        match redacted {
            true => "Names and addresses were replaced, each by the same word everywhere.",
            false => "Names and addresses are in it.",
        }
    );
    for part in &collection.parts {
        text += &format!("{:>9} bytes  {}\n", part.text.len(), part.name);
    }
    for (part, why) in &collection.missing {
        text += &format!("missing: {part}: {why}\n");
    }
    text
}

/// For its owner alone, and never over another file.
fn write(
    path: &Path,
    folder: &str,
    collection: &Collection,
    now: Timestamp,
) -> Result<(), CommandError> {
    let failed = |error: std::io::Error| {
        CommandError::usage(format!("write {}: {error}", path.display()))
            .hint("name a file that does not exist yet, in a folder that can be written to")
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let now = u64::try_from(now.as_second()).unwrap_or_default();
    pack(folder, &collection.parts, now, file.map_err(failed)?).map_err(failed)
}
