//! `fedctl install` and `fedctl uninstall`.

use api::kubernetes::OWN_GROUP;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams};

use super::leave::confirm;
use crate::cli::{Global, Install, Uninstall};
use crate::connect::{self, Target};
use crate::error::CommandError;
use crate::install::{Charts, Helm, Wanted, Wishes, decide};
use crate::kubernetes::{Access, Cluster, NAMESPACE_DEFAULT};
use crate::printer::Printer;
use crate::survey;

pub(super) async fn install(
    args: &Install,
    global: &Global,
    printer: &Printer,
) -> Result<(), CommandError> {
    // What is wrong here needs no cluster to be seen.
    let charts = match args.print_values {
        true => None,
        false => Some(Charts::find(args.chart.as_deref())?),
    };
    let target = connect::chosen(global)?;
    let cluster = connect::cluster(global, &target, printer).await?;
    let namespace = namespace(&target);
    let survey = survey::read(&cluster, namespace.as_deref(), Timestamp::now).await?;
    let wishes = Wishes { cluster: args.cluster.clone(), trust_domain: args.trust_domain.clone() };
    let values = decide(&survey, &wishes)?;
    let Some(charts) = charts else {
        say(&survey.problems, &values.warnings, printer);
        return printer.data(&format!("{}{}", values.yaml(), besides(args)));
    };
    printer.talk(&values.yaml());
    say(&survey.problems, &values.warnings, printer);
    let installed = survey.installed.flatten().map(|installed| installed.namespace);
    let helm = helm(global, &target, args.release.clone(), installed);
    let wanted = Wanted {
        values: args.values.clone(),
        set: args.set.clone(),
        dry_run: args.dry_run,
        wait: args.wait,
    };
    if let Some(time) = args.wait {
        printer.talk(&format!("Waiting until every pod is ready, {} s at most.", time.as_secs()));
    }
    helm.install(&charts, &values.yaml(), &wanted)?;
    if !args.dry_run {
        printer.talk(
            "Next: fedctl check · then fedctl init in the first cluster, fedctl join in others",
        );
        printer.talk("Undo: fedctl uninstall");
    }
    Ok(())
}

/// What a person asked for is Helm's to read: it is told after the values, as a comment.
fn besides(args: &Install) -> String {
    let files = args.values.iter().map(|file| format!(" --values {}", file.display()));
    let sets = args.set.iter().map(|set| format!(" --set {set}"));
    let words: String = files.chain(sets).collect();
    match words.is_empty() {
        true => words,
        false => format!("# Not in these values, and to be given to helm after them:{words}\n"),
    }
}

fn say(problems: &[String], warnings: &[String], printer: &Printer) {
    for line in problems.iter().chain(warnings) {
        printer.talk(&format!("warning: {line}"));
    }
}

pub(super) async fn uninstall(
    args: &Uninstall,
    global: &Global,
    printer: &Printer,
) -> Result<(), CommandError> {
    let target = connect::chosen(global)?;
    let cluster = connect::cluster(global, &target, printer).await?;
    let found = survey::read(&cluster, namespace(&target).as_deref(), Timestamp::now).await?;
    let installed = found.installed.flatten();
    match &installed {
        Some(installed) => printer.talk(&format!(
            "Cluster {} ({}) is installed in {}. Its volume stays, with its key in the federation, unless \
             federation.persistence.onUninstall is Delete. If it is in a federation, run `fedctl leave` first.",
            installed.cluster, installed.trust_domain, installed.namespace
        )),
        None => printer.talk("No Fedgate shows here; what is left of the release is removed."),
    }
    if args.crds {
        printer.talk("With the custom resource definitions, every object of Fedgate's kinds goes.");
    }
    confirm(args.yes, &format!("Remove Fedgate from cluster {}?", cluster.name))?;
    let installed = installed.map(|installed| installed.namespace);
    let helm = helm(global, &target, args.release.clone(), installed);
    helm.uninstall(&helm.release)?;
    if args.crds {
        helm.uninstall(Helm::crds_release())?;
        remove_crds(&cluster, printer).await?;
    }
    Ok(())
}

/// The chart asks Helm to keep them, so what it has kept is removed here.
async fn remove_crds(cluster: &Cluster, printer: &Printer) -> Result<(), CommandError> {
    fn access<'a>(verb: &'static str, name: Option<&'a str>) -> Access<'a> {
        let (group, resource) = ("apiextensions.k8s.io", "customresourcedefinitions");
        Access { verb, group, resource, namespace: None, name }
    }
    let crds = Api::<CustomResourceDefinition>::all(cluster.client.clone());
    let (all, now) = (ListParams::default(), DeleteParams::default());
    let found = cluster.ask(access("list", None), crds.list_metadata(&all)).await?;
    for name in found.items.into_iter().filter_map(|found| found.metadata.name) {
        if name.ends_with(&format!(".{OWN_GROUP}")) {
            let delete = crds.delete(&name, &now);
            cluster.ask_optional(access("delete", Some(&name)), delete).await?;
            printer.talk(&format!("customresourcedefinition {name} deleted"));
        }
    }
    Ok(())
}

fn namespace(target: &Target) -> Option<String> {
    match target {
        Target::Kubernetes { namespace, .. } => namespace.clone(),
        Target::Socket(_) => None,
    }
}

fn helm(global: &Global, target: &Target, release: String, installed: Option<String>) -> Helm {
    let namespace = namespace(target).or(installed).unwrap_or_else(|| NAMESPACE_DEFAULT.into());
    // Helm finds the current context as we did; in a pod there is none to name.
    let context = match target {
        Target::Kubernetes { context: Some(context), .. } => Some(context.clone()),
        _ => None,
    };
    Helm { kubeconfig: global.kubeconfig.clone(), context, namespace, release }
}
