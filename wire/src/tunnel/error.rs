//! What is wrong with bytes that a peer sent, or with a value that we were asked to send.

use std::borrow::Cow;
use std::fmt;

use super::code::{Dispatched, ErrorCode};
use super::refused::Refused;

/// Longest piece of a peer's value that an error repeats.
const VALUE_CHARS_MAX: usize = 80;

/// Why a frame, head, datagram or connection id was refused. It names the field, the value and the
/// fix, and the registered code that the peer is told.
#[derive(Clone, PartialEq, Eq)]
pub struct DecodeError(Box<Fault>);

#[derive(Clone, PartialEq, Eq)]
struct Fault {
    code: ErrorCode,
    field: Cow<'static, str>,
    value: String,
    problem: Cow<'static, str>,
    fix: Cow<'static, str>,
}

impl DecodeError {
    pub(crate) fn new(
        code: ErrorCode,
        field: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
        problem: impl Into<Cow<'static, str>>,
        fix: impl Into<Cow<'static, str>>,
    ) -> Self {
        let value = shorten(value.to_string());
        let (field, problem, fix) = (field.into(), problem.into(), fix.into());
        Self(Box::new(Fault { code, field, value, problem, fix }))
    }

    pub(crate) fn malformed(
        field: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
        problem: impl Into<Cow<'static, str>>,
        fix: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(ErrorCode::MalformedFrame, field, value, problem, fix)
    }

    /// The code to reset the stream or close the connection with.
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// The field that is wrong, such as `OPEN.port`.
    pub fn field(&self) -> &str {
        &self.0.field
    }

    /// The answer to a bad OPEN: nothing of it was dispatched.
    pub fn to_refused(&self) -> Refused {
        Refused::new(self.0.code, Dispatched::No, &self.to_string())
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { code, field, value, problem, fix } = &*self.0;
        write!(f, "{field} = {value}: {problem}; {fix} [{code}]")
    }
}

impl fmt::Debug for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecodeError({self})")
    }
}

impl std::error::Error for DecodeError {}

/// Why a value cannot be sent: it breaks a limit or a rule of the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("not sent, since a peer would refuse it: {0}")]
    Refused(DecodeError),
    #[error("{frame} is {bytes} bytes long, more than {max}; send less in it")]
    TooLarge { frame: &'static str, bytes: usize, max: usize },
    #[error("{frame} has {fields} fields, more than {max}; send fewer fields")]
    TooManyFields { frame: &'static str, fields: usize, max: usize },
    #[error("{field} = {value}: {problem}; {fix}")]
    Invalid { field: &'static str, value: String, problem: &'static str, fix: &'static str },
}

impl EncodeError {
    pub(crate) fn invalid(
        field: &'static str,
        value: impl fmt::Display,
        problem: &'static str,
        fix: &'static str,
    ) -> Self {
        Self::Invalid { field, value: shorten(value.to_string()), problem, fix }
    }
}

fn shorten(mut value: String) -> String {
    if let Some((end, _)) = value.char_indices().nth(VALUE_CHARS_MAX) {
        value.truncate(end);
        value.push_str("...");
    }
    value
}
