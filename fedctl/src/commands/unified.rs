//! Differences between two texts, as `diff -u` shows them.

/// Lines around a change.
const CONTEXT: usize = 3;
/// Cells of the comparison's table; larger texts are shown as replaced whole.
const CELLS_MAX: usize = 16_000_000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step<'a> {
    Keep(&'a str),
    Remove(&'a str),
    Add(&'a str),
}

/// Empty when the texts are the same.
pub(super) fn diff(before_name: &str, after_name: &str, before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let steps = steps(&before.lines().collect::<Vec<_>>(), &after.lines().collect::<Vec<_>>());
    let mut text = format!("--- {before_name}\n+++ {after_name}\n");
    for hunk in hunks(&steps) {
        text.push_str(&render(&steps, hunk));
    }
    text
}

fn steps<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<Step<'a>> {
    let (rows, columns) = (before.len() + 1, after.len() + 1);
    if rows.saturating_mul(columns) > CELLS_MAX {
        let removed = before.iter().map(|line| Step::Remove(line));
        return removed.chain(after.iter().map(|line| Step::Add(line))).collect();
    }
    // Lengths of the longest common subsequences of what is left.
    let mut lengths = vec![0_u32; rows * columns];
    for row in (0..before.len()).rev() {
        for column in (0..after.len()).rev() {
            let at = row * columns + column;
            lengths[at] = if before[row] == after[column] {
                lengths[at + columns + 1] + 1
            } else {
                lengths[at + columns].max(lengths[at + 1])
            };
        }
    }
    let (mut row, mut column, mut steps) = (0, 0, Vec::new());
    while row < before.len() || column < after.len() {
        let at = row * columns + column;
        if row < before.len() && column < after.len() && before[row] == after[column] {
            steps.push(Step::Keep(before[row]));
            (row, column) = (row + 1, column + 1);
        } else if column == after.len()
            || (row < before.len() && lengths[at + columns] >= lengths[at + 1])
        {
            steps.push(Step::Remove(before[row]));
            row += 1;
        } else {
            steps.push(Step::Add(after[column]));
            column += 1;
        }
    }
    steps
}

/// Ranges of steps around changes; those that touch are one.
fn hunks(steps: &[Step<'_>]) -> Vec<std::ops::Range<usize>> {
    let mut hunks: Vec<std::ops::Range<usize>> = Vec::new();
    let changed = |step: &Step<'_>| !matches!(step, Step::Keep(_));
    for (index, _) in steps.iter().enumerate().filter(|(_, step)| changed(step)) {
        let begin = index.saturating_sub(CONTEXT);
        let end = (index + CONTEXT + 1).min(steps.len());
        match hunks.last_mut() {
            Some(last) if begin <= last.end => last.end = end,
            _ => hunks.push(begin..end),
        }
    }
    hunks
}

fn render(steps: &[Step<'_>], hunk: std::ops::Range<usize>) -> String {
    let count = |steps: &[Step<'_>]| {
        let before = steps.iter().filter(|step| !matches!(step, Step::Add(_))).count();
        let after = steps.iter().filter(|step| !matches!(step, Step::Remove(_))).count();
        (before, after)
    };
    let (skipped_before, skipped_after) = count(&steps[..hunk.start]);
    let (before, after) = count(&steps[hunk.clone()]);
    // An empty side is named by the line before it.
    let start = |skipped: usize, count: usize| if count == 0 { skipped } else { skipped + 1 };
    let mut text = format!(
        "@@ -{},{before} +{},{after} @@\n",
        start(skipped_before, before),
        start(skipped_after, after)
    );
    for step in &steps[hunk] {
        let (sign, line) = match step {
            Step::Keep(line) => (' ', line),
            Step::Remove(line) => ('-', line),
            Step::Add(line) => ('+', line),
        };
        text.push_str(&format!("{sign}{line}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(range: std::ops::Range<u32>) -> String {
        range.map(|number| format!("{number}\n")).collect()
    }

    #[test]
    fn the_same_text_has_no_difference() {
        assert_eq!(diff("a", "b", "x\n", "x\n"), "");
    }

    #[test]
    fn changes_stand_in_their_context() {
        let before = lines(0..20);
        let after = before.replace("10\n", "ten\n").replace("19\n", "19\n20\n");
        let want = "--- a\n+++ b\n@@ -8,7 +8,7 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n\
                    @@ -18,3 +18,4 @@\n 17\n 18\n 19\n+20\n";
        assert_eq!(diff("a", "b", &before, &after), want);
    }

    #[test]
    fn a_new_and_a_gone_text() {
        assert_eq!(diff("a", "b", "", "x\ny\n"), "--- a\n+++ b\n@@ -0,0 +1,2 @@\n+x\n+y\n");
        assert_eq!(diff("a", "b", "x\n", ""), "--- a\n+++ b\n@@ -1,1 +0,0 @@\n-x\n");
    }

    /// Applying the difference to the one text gives the other.
    #[test]
    fn steps_lead_from_one_text_to_the_other() {
        let mut seed = 1_u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 28
        };
        for _ in 0..200 {
            let mut text = || {
                (0..random()).map(|_| ["a", "b", "c"][random() as usize % 3]).collect::<Vec<_>>()
            };
            let (before, after) = (text(), text());
            let (mut from, mut to) = (Vec::new(), Vec::new());
            for step in steps(&before, &after) {
                match step {
                    Step::Keep(line) => {
                        from.push(line);
                        to.push(line);
                    }
                    Step::Remove(line) => from.push(line),
                    Step::Add(line) => to.push(line),
                }
            }
            assert_eq!((from, to), (before, after));
        }
    }
}
