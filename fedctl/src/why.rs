//! `fedctl why`: asks nodes for facts, sends a probe, and shows what `model::why` makes of them.

mod probe;
mod read;
#[cfg(test)]
mod tests;
mod view;

use jiff::Timestamp;
use model::why::{AskError, Facts, Question, explain, service_of};

use crate::error::CommandError;
use crate::operator::Operator;

pub use probe::send;
pub use view::{Explained, Silent};

/// Asks every node for all that the question needs. A node that does not answer is only noted; at
/// least one has to.
pub async fn ask(
    question: &Question,
    nodes: Vec<(String, Result<Operator, CommandError>)>,
    now: Timestamp,
) -> Result<(Facts, Vec<Silent>), CommandError> {
    let (mut facts, mut asked, mut silent) = (Facts::new(), Vec::new(), Vec::new());
    for (name, node) in nodes {
        let read = async {
            let node = node?;
            Ok((read::node(&node, now).await?, node))
        };
        match read.await {
            Ok((found, node)) => {
                asked.push((found.cluster.clone(), node));
                facts.insert(found.cluster.clone(), found);
            }
            Err(error) => silent.push(Silent { name, error }),
        }
    }
    if facts.is_empty() {
        let first = silent.into_iter().next();
        return Err(first.map_or_else(|| CommandError::usage("no node is named"), |it| it.error));
    }
    // What a host name leads to is known only now.
    if let Some(service) = service_of(question, &facts) {
        for (cluster, node) in asked {
            if let Some(known) = facts.remove(&cluster) {
                facts.insert(cluster, read::about(&node, known, &service).await?);
            }
        }
    }
    Ok((facts, silent))
}

/// The verdict over these facts.
pub fn judge(
    question: &Question,
    facts: &Facts,
    silent: Vec<Silent>,
) -> Result<Explained, CommandError> {
    let answer = explain(question, facts).map_err(refused)?;
    Ok(Explained::new(answer, facts, silent))
}

/// An argument that is none.
pub fn refused(error: AskError) -> CommandError {
    CommandError::usage(error.to_string()).hint(error.fix)
}
