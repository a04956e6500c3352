//! Findings about objects, as gateways send them back and operators read them.

use model::code::Code;
use model::{Diagnostic, Severity};

use super::convert::text;
use super::{limits, proto};
use crate::error::{At, WireError};

/// Decodes a finding; `None` when its code is newer than this build.
pub fn decode_diagnostic(message: proto::Diagnostic) -> Result<Option<Diagnostic>, WireError> {
    decode_at(At::message("Diagnostic"), message)
}

/// Texts beyond [`limits::TEXT_BYTES_MAX`] are cut, so that a finding about a monstrous object
/// does not silence the findings beside it.
pub fn encode_diagnostic(diagnostic: &Diagnostic) -> proto::Diagnostic {
    let severity = match diagnostic.severity {
        Severity::Warning => proto::Severity::Warning,
        Severity::Error => proto::Severity::Error,
    };
    proto::Diagnostic {
        severity: severity.into(),
        code: diagnostic.code.number().into(),
        object: cut(&diagnostic.object),
        field: cut(&diagnostic.field),
        message: cut(&diagnostic.message),
        fix: cut(&diagnostic.fix),
    }
}

pub(super) fn decode_diagnostics(
    at: &At<'_>,
    messages: Vec<proto::Diagnostic>,
) -> Result<Vec<Diagnostic>, WireError> {
    at.field("diagnostics").check_len(messages.len(), limits::DIAGNOSTICS_MAX)?;
    let mut diagnostics = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        diagnostics.extend(decode_at(at.entry("diagnostics", index), message)?);
    }
    Ok(diagnostics)
}

fn decode_at(at: At<'_>, message: proto::Diagnostic) -> Result<Option<Diagnostic>, WireError> {
    let severity = match proto::Severity::try_from(message.severity) {
        Ok(proto::Severity::Warning) => Severity::Warning,
        Ok(proto::Severity::Error) => Severity::Error,
        _ => {
            let problem = "use WARNING (1) or ERROR (2)";
            return Err(at.field("severity").refuse(message.severity, problem));
        }
    };
    let code = decode_code(at.field("code"), message.code)?;
    let object = text(at.field("object"), message.object)?;
    let field = text(at.field("field"), message.field)?;
    let fix = text(at.field("fix"), message.fix)?;
    let message = text(at.field("message"), message.message)?;
    Ok(code.map(|code| Diagnostic { severity, code, object, field, message, fix }))
}

/// `None`: a code of a later registry.
pub(super) fn decode_code(at: At<'_>, number: u32) -> Result<Option<Code>, WireError> {
    if !(1000..9000).contains(&number) {
        return Err(at.refuse(number, "FED codes are 1000 to 8999"));
    }
    Ok(Code::parse(&number.to_string()))
}

pub(super) fn cut(text: &str) -> String {
    let mut end = text.len().min(limits::TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_string()
}
