//! `docs/reference/limits.md`: every limit of every crate, read from the `limits.rs` files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use syn::spanned::Spanned;
use syn::{Attribute, BinOp, Expr, Item, Lit, Meta, Visibility};

use super::{Page, cell};
use crate::repo::Repo;

const INTRODUCTION: &str = "\
Every queue, buffer, table and retry has a limit with a name. These are all of them. They are set
when the program is built; those that a configuration file can change are listed with its fields.

";

/// A constant of a `limits.rs`.
#[derive(Debug, PartialEq, Eq)]
struct Limit {
    name: String,
    value: String,
    meaning: String,
}

pub(super) fn page(repo: &Repo) -> Result<Page> {
    let mut page =
        Page::new("docs/reference/limits.md", "Limits", "the `limits.rs` file of each crate");
    page.text.push_str(INTRODUCTION);
    for (path, text) in repo.texts("/limits.rs") {
        let Some((name, module)) = path.split_once("/src/") else { continue };
        let module = module.trim_end_matches("limits.rs").trim_end_matches('/');
        let name = if module.is_empty() { name.to_owned() } else { format!("{name}, {module}") };
        let limits = read(text).with_context(|| format!("cannot read the limits in {path}"))?;
        write!(page.text, "## {name}\n\n| limit | value | meaning |\n|---|---|---|\n")?;
        for Limit { name, value, meaning } in limits {
            writeln!(page.text, "| `{name}` | {value} | {} |", cell(&meaning))?;
        }
        page.text.push('\n');
    }
    page.text.truncate(page.text.trim_end().len());
    page.text.push('\n');
    Ok(page)
}

fn read(text: &str) -> Result<Vec<Limit>> {
    let mut known = BTreeMap::new();
    let mut limits = Vec::new();
    for item in syn::parse_file(text)?.items {
        let Item::Const(item) = item else { continue };
        let name = item.ident.to_string();
        let value = evaluate(&item.expr, &known);
        let shown = match &value {
            Some(value) => value.show(&name),
            None => format!("`{}`", item.expr.span().source_text().unwrap_or_default()),
        };
        if let Some(value) = value {
            known.insert(name.clone(), value);
        }
        if !matches!(item.vis, Visibility::Public(_)) {
            continue; // A step on the way to a limit, such as `KIB`.
        }
        let meaning = documentation(&item.attrs);
        if meaning.is_empty() {
            bail!("`{name}` has no doc comment; say what it limits and what happens at the limit");
        }
        limits.push(Limit { name, value: shown, meaning });
    }
    Ok(limits)
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Number(u128),
    Time(Duration),
}

impl Value {
    fn show(self, name: &str) -> String {
        match self {
            Self::Time(time) => show_time(time),
            Self::Number(number) if name.ends_with("_MS") => match u64::try_from(number) {
                Ok(ms) => show_time(Duration::from_millis(ms)),
                Err(_) => number.to_string(),
            },
            Self::Number(number) if name.contains("BYTES") => show_bytes(number),
            Self::Number(number) => number.to_string(),
        }
    }

    fn number(self) -> Option<u128> {
        match self {
            Self::Number(number) => Some(number),
            Self::Time(_) => None,
        }
    }
}

fn show_time(time: Duration) -> String {
    let (ms, seconds) = (time.as_millis(), time.as_secs());
    match seconds {
        _ if !time.subsec_micros().is_multiple_of(1000) => format!("{} µs", time.as_micros()),
        _ if ms == 0 || ms % 1000 != 0 => format!("{ms} ms"),
        172_800.. if seconds.is_multiple_of(86_400) => format!("{} days", seconds / 86_400),
        _ if seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

fn show_bytes(bytes: u128) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(bits, _)| bytes > 0 && bytes.is_multiple_of(1 << bits));
    unit.map_or_else(|| format!("{bytes} B"), |(bits, unit)| format!("{} {unit}", bytes >> bits))
}

/// Works out the arithmetic that limits are written with; `None` for anything else.
fn evaluate(expr: &Expr, known: &BTreeMap<String, Value>) -> Option<Value> {
    match expr {
        Expr::Paren(inner) => evaluate(&inner.expr, known),
        Expr::Group(inner) => evaluate(&inner.expr, known),
        Expr::Cast(inner) => evaluate(&inner.expr, known),
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) => number.base10_parse().ok().map(Value::Number),
            _ => None,
        },
        Expr::Path(path) => known.get(&path.path.get_ident()?.to_string()).copied(),
        Expr::Binary(binary) => {
            let left = evaluate(&binary.left, known)?.number()?;
            let right = evaluate(&binary.right, known)?.number()?;
            let result = match binary.op {
                BinOp::Add(_) => left.checked_add(right),
                BinOp::Sub(_) => left.checked_sub(right),
                BinOp::Mul(_) => left.checked_mul(right),
                BinOp::Div(_) => left.checked_div(right),
                BinOp::Shl(_) => left.checked_shl(u32::try_from(right).ok()?),
                _ => None,
            };
            result.map(Value::Number)
        }
        Expr::Call(call) => {
            let Expr::Path(function) = &*call.func else { return None };
            let argument = evaluate(call.args.first()?, known)?.number()?;
            let argument = u64::try_from(argument).ok()?;
            let time = match function.path.segments.last()?.ident.to_string().as_str() {
                "from_secs" => Duration::from_secs(argument),
                "from_mins" => Duration::from_secs(argument.checked_mul(60)?),
                "from_hours" => Duration::from_secs(argument.checked_mul(3600)?),
                "from_millis" => Duration::from_millis(argument),
                "from_micros" => Duration::from_micros(argument),
                _ => return None,
            };
            Some(Value::Time(time))
        }
        _ => None,
    }
}

fn documentation(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else { return None };
        let Expr::Lit(literal) = &pair.value else { return None };
        match &literal.lit {
            Lit::Str(text) if pair.path.is_ident("doc") => Some(text.value()),
            _ => None,
        }
    });
    let text = lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>().join(" ");
    // Links of rustdoc lead nowhere on this page.
    text.replace("[`", "`").replace("`]", "`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(source: &str) -> Vec<(String, String)> {
        let limits = read(source).unwrap();
        limits.into_iter().map(|limit| (limit.name, limit.value)).collect()
    }

    #[test]
    fn values_are_worked_out_and_carry_their_unit() {
        for (declaration, expected) in [
            ("OPEN_MAX_BYTES: usize = 16 * 1024", "16 KiB"),
            ("WINDOW_BYTES: u64 = 1 << 24", "16 MiB"),
            ("PACKET_MAX_BYTES: usize = 1452", "1452 B"),
            ("BEACON_MS: u64 = 100", "100 ms"),
            ("STALE_MS: u64 = 90 * 1000", "90 s"),
            ("SVID_LIFE: Duration = Duration::from_secs(24 * 60 * 60)", "24 h"),
            ("ROOT_LIFE: Duration = Duration::from_secs(10 * 86_400)", "10 days"),
            ("IDLE: Duration = std::time::Duration::from_secs(120)", "2 min"),
            ("PACE: Duration = Duration::from_micros(250)", "250 µs"),
            ("HOPS_MAX: usize = (4 - 1) as usize", "3"),
            ("NAME: &str = \"a\"", "`\"a\"`"),
            ("RATIO: f64 = 0.75", "`0.75`"),
        ] {
            let source = format!("/// Meaning.\npub const {declaration};\n");
            assert_eq!(shown(&source)[0].1, expected, "{declaration}");
        }
    }

    #[test]
    fn a_limit_may_be_made_of_others() {
        let source = "const A: u8 = 6;\n/// B.\npub const B_MS: u64 = A as u64 * 100;\n";
        assert_eq!(shown(source)[0], ("B_MS".to_owned(), "600 ms".to_owned()));
    }

    #[test]
    fn a_limit_without_a_meaning_is_an_error() {
        let error = read("pub const STREAMS_MAX: usize = 1;").unwrap_err().to_string();
        assert!(error.starts_with("`STREAMS_MAX` has no doc comment"), "{error}");
    }

    #[test]
    fn the_page_has_a_section_for_each_crate() {
        let source = "/// How many\n/// a | b.\npub const A: u8 = 1;\n";
        let repo =
            Repo::sample(&[("wan/src/limits.rs", source), ("wire/src/tunnel/limits.rs", source)]);
        let page = page(&repo).unwrap();
        let table = "| limit | value | meaning |\n|---|---|---|\n| `A` | 1 | How many a \\| b. |\n";
        let expected = format!("## wan\n\n{table}\n## wire, tunnel\n\n{table}");
        assert!(page.text.ends_with(&expected), "{}", page.text);
    }
}
