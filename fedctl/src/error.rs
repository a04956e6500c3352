//! What a command reports when it fails: `error:`, then `hint:`, and one of six exit codes.

use std::fmt;

use model::code::Code;

/// Exit codes, the same for every command (docs/reference/cli.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Unhealthy, denied, or the thing asked for failed.
    Failed = 1,
    /// The command line or a file it names is wrong.
    Usage = 2,
    /// What was waited for did not come in time.
    TimedOut = 4,
    /// The node could not be reached, or refused who we are.
    Unreachable = 5,
}

/// A failed command: what went wrong, perhaps its code, and what to do.
#[derive(Debug)]
pub struct CommandError {
    pub exit: Exit,
    pub message: String,
    pub code: Option<Code>,
    pub hint: Option<String>,
}

impl CommandError {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), code: None, hint: None }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn code(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The code stands behind the first line; more lines give the reasons.
        let (first, rest) = match self.message.split_once('\n') {
            Some((first, rest)) => (first, Some(rest)),
            None => (&*self.message, None),
        };
        write!(f, "error: {first}")?;
        if let Some(code) = self.code {
            write!(f, " ({code})")?;
        }
        if let Some(rest) = rest {
            write!(f, "\n{rest}")?;
        }
        // What was said here knows more than the registry does.
        let registered = || self.code.map(|code| code.entry().fix);
        match self.hint.as_deref().or_else(registered) {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CommandError {}

/// Anything unforeseen: the chain of causes on one line.
impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(known) => known,
            Err(other) => Self::failed(format!("{other:#}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_code_and_ends_with_the_hint() {
        let error = CommandError::new(Exit::Unreachable, "no node answers on unix:/run/x.sock")
            .code(model::code::FEDERATION_UNREACHABLE)
            .hint("is fedgate-federation running?");
        let want = "error: no node answers on unix:/run/x.sock (FED1004)\n\
                    hint: is fedgate-federation running?";
        assert_eq!(error.to_string(), want);
    }

    #[test]
    fn a_known_error_survives_anyhow() {
        let error = anyhow::Error::new(CommandError::usage("no"));
        assert_eq!(CommandError::from(error).exit, Exit::Usage);
    }
}
