//! Judges an SPDX licence expression against the list of accepted licences.

use super::table::LICENSES;

/// Whether `expression` can be satisfied with accepted licences alone.
pub(super) fn accepted(expression: &str) -> bool {
    // Old manifests write `A/B` for `A OR B`.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words };
    let accepted = parser.any();
    accepted && parser.words.is_empty()
}

struct Parser<'a> {
    words: &'a [&'a str],
}

impl Parser<'_> {
    fn any(&mut self) -> bool {
        let mut accepted = self.all();
        while self.take("OR") {
            accepted |= self.all();
        }
        accepted
    }

    fn all(&mut self) -> bool {
        let mut accepted = self.one();
        while self.take("AND") {
            accepted &= self.one();
        }
        accepted
    }

    fn one(&mut self) -> bool {
        if self.take("(") {
            let accepted = self.any();
            return self.take(")") && accepted;
        }
        let Some((name, rest)) = self.words.split_first() else { return false };
        self.words = rest;
        if self.take("WITH") {
            let Some((exception, rest)) = self.words.split_first() else { return false };
            self.words = rest;
            return LICENSES.contains(&format!("{name} WITH {exception}").as_str());
        }
        LICENSES.contains(name)
    }

    fn take(&mut self, word: &str) -> bool {
        let Some((first, rest)) = self.words.split_first() else { return false };
        if *first == word {
            self.words = rest;
        }
        *first == word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_judged_as_a_whole() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("MIT OR GPL-2.0-only", true),
            ("MIT AND GPL-2.0-only", false),
            ("Unlicense/MIT", true),
            ("(Apache-2.0 OR MIT) AND BSD-3-Clause", true),
            ("(Apache-2.0 OR MIT) AND MPL-2.0", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", true),
            ("GPL-2.0-only WITH Classpath-exception-2.0", false),
            ("MIT OR", true),
            ("(MIT", false),
            ("MIT)", false),
            ("", false),
        ] {
            assert_eq!(accepted(expression), expected, "{expression}");
        }
    }
}
