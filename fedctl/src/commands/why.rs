//! `fedctl why`: explains hop by hop why a request reaches a service, or why it does not.

use jiff::Timestamp;
use model::why::{Question, Source, Target, Verdict};

use super::Outcome;
use crate::cli::{Global, Why};
use crate::connect;
use crate::error::CommandError;
use crate::printer::{OutputFormat, Printer};
use crate::why::{ask, judge, refused, send};

pub(super) async fn run(
    args: &Why,
    global: &Global,
    printer: &Printer,
) -> Result<Outcome, CommandError> {
    let question = question(args)?;
    let first = connect::node(global, printer).await;
    // Who is named first has to be reachable: it is the one that was chosen.
    let mut nodes = vec![("the node that was chosen".to_owned(), Ok(first?))];
    for name in &args.also {
        nodes.push((name.clone(), connect::named(name, global, printer).await));
    }
    let (facts, silent) = ask(&question, nodes, Timestamp::now()).await?;
    let mut explained = judge(&question, &facts, silent)?;
    if args.live {
        let probe = send(&explained.answer, &facts).await;
        explained.take_probe(probe);
    }
    match printer.format {
        OutputFormat::Short => printer.data(&explained.short())?,
        _ => printer.result(&explained.view(), |_| explained.table())?,
    }
    Ok(match explained.answer.verdict() {
        Verdict::Blocked => Outcome::Unwell,
        Verdict::Undecided if args.strict => Outcome::Warned,
        Verdict::Undecided | Verdict::Reaches => Outcome::Done,
    })
}

fn question(args: &Why) -> Result<Question, CommandError> {
    if !args.path.starts_with('/') {
        let message = format!("--path {:?} is not valid: a path begins with /", args.path);
        return Err(CommandError::usage(message).hint("write --path /some/path"));
    }
    let (path, _query) = args.path.split_once('?').unwrap_or((&args.path, ""));
    Ok(Question {
        source: Source::parse(&args.source).map_err(refused)?,
        target: Target::parse(&args.target).map_err(refused)?,
        path: path.to_owned(),
    })
}
