//! Reads Prometheus's text format as strictly as its own parser does, so that a page that a scrape
//! would refuse fails a test.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};

/// A series' labels in the order of their names.
type Labels = Vec<(String, String)>;

/// One sample of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// A parsed page.
#[derive(Debug, Clone, Default)]
pub struct Page {
    pub samples: Vec<Sample>,
    /// Kind by family: `counter`, `gauge`, `histogram`.
    pub kinds: BTreeMap<String, String>,
}

impl Page {
    /// Reads a page, and checks what a scrape would refuse: syntax, samples without their family's
    /// TYPE, duplicates, histograms whose buckets do not add up.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut page = Self::default();
        ensure!(text.ends_with('\n'), "the page does not end with a line's end");
        for (index, line) in text.lines().enumerate() {
            let at = || format!("line {}: {line}", index + 1);
            if let Some(comment) = line.strip_prefix('#') {
                page.comment(comment).with_context(at)?;
            } else if !line.is_empty() {
                page.sample(line).with_context(at)?;
            }
        }
        page.check_histograms()?;
        Ok(page)
    }

    /// The sum of the samples of this name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).map(|sample| sample.value).sum()
    }

    /// The samples of this name that have these labels.
    pub fn find<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            let has =
                |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|v| v == value);
            sample.name == name && labels.iter().all(has)
        })
    }

    fn comment(&mut self, comment: &str) -> anyhow::Result<()> {
        let mut words = comment.trim_start().splitn(3, ' ');
        if words.next() != Some("TYPE") {
            return Ok(());
        }
        let (name, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let known = ["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind);
        ensure!(known, "there is no kind {kind:?}");
        let first = self.kinds.insert(name.into(), kind.into()).is_none();
        ensure!(first, "a second TYPE for {name}");
        Ok(())
    }

    fn sample(&mut self, line: &str) -> anyhow::Result<()> {
        let name_end = line.find(['{', ' ']).context("there is no value")?;
        let (name, rest) = line.split_at(name_end);
        ensure!(is_name(name), "{name:?} is no metric's name");
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => parse_labels(rest)?,
            None => (BTreeMap::new(), rest),
        };
        let mut words = rest.split_ascii_whitespace();
        let value = words.next().context("there is no value")?;
        let value: f64 = match value {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            number => number.parse().with_context(|| format!("{number:?} is no number"))?,
        };
        ensure!(words.next().is_none(), "text follows the value");
        ensure!(self.has_type(name), "no TYPE stands before {name}");
        let twin = self.samples.iter().any(|other| other.name == name && other.labels == labels);
        ensure!(!twin, "the series is there already");
        self.samples.push(Sample { name: name.into(), labels, value });
        Ok(())
    }

    fn has_type(&self, name: &str) -> bool {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let histogram = |base: &str| self.kinds.get(base).is_some_and(|kind| kind == "histogram");
        base.is_some_and(histogram) || self.kinds.contains_key(name)
    }

    fn check_histograms(&self) -> anyhow::Result<()> {
        for (family, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut series = BTreeMap::<Labels, Vec<(f64, f64)>>::new();
            for sample in self.find(&format!("{family}_bucket"), &[]) {
                let mut labels = sample.labels.clone();
                let bound = labels.remove("le").with_context(|| format!("{family}: no le"))?;
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse()? };
                series.entry(labels.into_iter().collect()).or_default().push((bound, sample.value));
            }
            for (labels, mut buckets) in series {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                let rising = buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1);
                ensure!(rising, "{family} {labels:?}: buckets are not cumulative: {buckets:?}");
                let Some(&(f64::INFINITY, all)) = buckets.last() else {
                    bail!("{family} {labels:?}: there is no bucket +Inf");
                };
                let labels: Vec<_> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                let count_name = format!("{family}_count");
                let count = self.sum(&count_name, &labels);
                ensure!(count == all, "{family} {labels:?}: count {count}, but +Inf has {all}");
            }
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// After the brace that opens; returns what follows the one that closes.
fn parse_labels(mut rest: &str) -> anyhow::Result<(BTreeMap<String, String>, &str)> {
    let (mut labels, mut names) = (BTreeMap::new(), BTreeSet::new());
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once("=\"").context("a label has no value")?;
        ensure!(is_name(name) && !name.contains(':'), "{name:?} is no label's name");
        ensure!(names.insert(name.to_string()), "label {name} stands twice");
        let (value, after) = parse_value(after)?;
        labels.insert(name.to_string(), value);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// After the quote that opens; returns what follows the one that closes.
fn parse_value(text: &str) -> anyhow::Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[index + 1..])),
            '\\' => match characters.next().map(|(_, escaped)| escaped) {
                Some('n') => value.push('\n'),
                Some(plain @ ('\\' | '"')) => value.push(plain),
                other => bail!("there is no escape {other:?}"),
            },
            plain => value.push(plain),
        }
    }
    bail!("a label's value does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTOGRAM: &str = "\
# HELP t Time.
# TYPE t histogram
t_bucket{r=\"a\",le=\"0.5\"} 1
t_bucket{r=\"a\",le=\"+Inf\"} 3
t_sum{r=\"a\"} 4.5
t_count{r=\"a\"} 3
";

    #[test]
    fn a_good_page_is_read() {
        let page = Page::parse(HISTOGRAM).unwrap();
        assert_eq!(page.sum("t_count", &[("r", "a")]), 3.0);
        let text = "# TYPE up gauge\nup{a=\"x\\\"y\\n\\\\\",b=\"}\"} 1\nup 2\n";
        let page = Page::parse(text).unwrap();
        assert_eq!(page.samples[0].labels["a"], "x\"y\n\\");
        assert_eq!(page.sum("up", &[]), 3.0);
    }

    #[test]
    fn what_a_scrape_refuses_is_refused() {
        let swap = |from, to| HISTOGRAM.replace(from, to);
        for (text, problem) in [
            ("up 1\n".to_string(), "no TYPE"),
            ("# TYPE up gauge\nup\n".into(), "no value"),
            ("# TYPE up gauge\nup one\n".into(), "no number"),
            ("# TYPE up gauge\nup 1 \n1up 1\n".into(), "no metric's name"),
            ("# TYPE up gauge\nup 1\nup 1\n".into(), "already"),
            ("# TYPE up gauge\nup{a=\"1} 1\n".into(), "does not end"),
            ("# TYPE up gauge\nup{a=\"\\x\"} 1\n".into(), "no escape"),
            ("# TYPE up gauge\nup{a=\"1\",a=\"2\"} 1\n".into(), "twice"),
            ("# TYPE up gauge\n# TYPE up counter\n".into(), "second TYPE"),
            ("# TYPE up gage\n".into(), "no kind"),
            ("# TYPE up gauge\nup 1".into(), "line's end"),
            (swap("+Inf\"} 3", "+Inf\"} 0"), "not cumulative"),
            (swap("t_count{r=\"a\"} 3", "t_count{r=\"a\"} 4"), "but +Inf has"),
            (swap("+Inf", "9"), "no bucket +Inf"),
        ] {
            let error = format!("{:#}", Page::parse(&text).expect_err(&text));
            assert!(error.contains(problem), "{error:?} has not {problem:?}");
        }
    }
}
