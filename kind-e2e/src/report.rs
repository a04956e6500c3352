//! What a person sees while suites run: headings, and numbered steps with ticks and times.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

/// Where times stand.
const WIDTH: usize = 78;

/// Says what begins.
pub fn heading(name: &str, about: &str) {
    line(&format!("\n{name}: {about}"));
}

/// Says how a step ended.
pub fn step(number: usize, title: &dyn Display, passed: bool, took: Duration) {
    line(&step_line(number, title, passed, took));
}

/// Says something about what is going on, such as a measured value.
pub fn note(text: &dyn Display) {
    for one in text.to_string().lines() {
        line(&format!("      {one}"));
    }
}

/// Writes a line. If nobody reads it any more, the suite still ends in order.
pub fn line(text: &str) {
    let _unread = writeln!(std::io::stdout().lock(), "{text}");
}

/// Says something on standard error, where it is not taken for the result.
pub fn aside(text: &str) {
    let _unread = writeln!(std::io::stderr().lock(), "{text}");
}

/// Says on standard error why the program ends, without a backtrace: nothing in it is unexpected.
pub fn failure(error: &anyhow::Error) {
    let _unread = writeln!(std::io::stderr().lock(), "error: {error:#}");
}

fn step_line(number: usize, title: &dyn Display, passed: bool, took: Duration) -> String {
    let mark = if passed { '✓' } else { '✗' };
    let text = format!("{number:>3} {mark} {title}");
    let took = format!("{:.1} s", took.as_secs_f64());
    let gap = WIDTH.saturating_sub(text.chars().count() + took.len()).max(1);
    format!("{text}{}{took}", " ".repeat(gap))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_in_one_column_and_long_titles_push_them() {
        let passed = step_line(1, &"pods reach pods", true, Duration::from_millis(1234));
        assert!(
            passed.starts_with("  1 ✓ pods reach pods  ") && passed.ends_with(" 1.2 s"),
            "{passed}"
        );
        assert_eq!(passed.chars().count(), WIDTH);
        let failed = step_line(12, &"x".repeat(100), false, Duration::ZERO);
        assert!(failed.starts_with(" 12 ✗ xxx") && failed.ends_with("x 0.0 s"), "{failed}");
    }
}
