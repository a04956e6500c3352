//! `fedctl analyze`: manifests judged without a node.

use model::{ClusterName, TrustDomain};

use super::{Outcome, apply};
use crate::analysis::{Analysis, Question, analyze};
use crate::cli::Analyze;
use crate::error::CommandError;
use crate::printer::Printer;

pub(super) fn run(args: &Analyze, printer: &Printer) -> Result<Outcome, CommandError> {
    let files = apply::read(&args.files)?;
    let cluster = ClusterName::parse(&args.cluster)
        .map_err(|error| CommandError::usage(format!("--cluster {:?}: {error}", args.cluster)))?;
    let domain = args.trust_domain.as_deref().map(|name| {
        TrustDomain::parse(name)
            .map_err(|error| CommandError::usage(format!("--trust-domain {name:?}: {error}")))
    });
    let analysis = analyze(&Question {
        files: files.iter().map(|file| (&*file.name, &*file.text)).collect(),
        cluster,
        trust_domain: domain.transpose()?,
        partial: args.partial,
    });
    printer.result(&analysis, Analysis::table)?;
    Ok(match (analysis.errors, analysis.warnings) {
        (0, 0) => Outcome::Done,
        (0, _) if args.strict => Outcome::Warned,
        (0, _) => Outcome::Done,
        _ => Outcome::Unwell,
    })
}
