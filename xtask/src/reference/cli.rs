//! `docs/reference/cli.md`: every command of `fedctl`, from its own definition.

use clap::Command;

use super::Page;

const INTRODUCTION: &str = "\
Data goes to standard output, all else to standard error. Exit status: 0 fine, 1 unhealthy or
refused, 2 wrong usage, 3 warnings with --strict, 4 a wait timed out, 5 unreachable.

";

/// Columns of the help texts; fixed, so that the page does not depend on a terminal.
const COLUMNS: usize = 100;

/// The page for a command line.
pub fn page(tree: Command) -> Page {
    let mut page = Page::new("docs/reference/cli.md", "The command line", "`fedctl/src/cli.rs`");
    page.text.push_str(INTRODUCTION);
    let mut tree = tree.term_width(COLUMNS);
    tree.build();
    describe(&tree, "", &mut page.text);
    page.text.truncate(page.text.trim_end().len());
    page.text.push('\n');
    page
}

fn describe(command: &Command, parent: &str, page: &mut String) {
    let name = format!("{parent}{}", command.get_name());
    // Values from the environment are of one machine; options of every command stand at the top.
    let top = parent.is_empty();
    let shown = command.clone().mut_args(|argument| {
        let hidden = argument.is_hide_set() || (!top && argument.is_global_set());
        argument.hide_env_values(true).hide(hidden)
    });
    let help = shown.clone().render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    let text = help.join("\n");
    page.push_str(&format!("## {name}\n\n```text\n{}\n```\n\n", text.trim_end()));
    let subcommands = command.get_subcommands();
    for subcommand in subcommands.filter(|known| !known.is_hide_set() && known.get_name() != "help")
    {
        describe(subcommand, &format!("{name} "), page);
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    #[test]
    fn each_command_has_its_section_and_global_options_stand_once() {
        let context = Arg::new("context").long("context").global(true).env("PATH");
        let detach = Arg::new("detach").long("detach").action(ArgAction::SetTrue);
        let secret = Arg::new("inner").long("inner").hide(true).action(ArgAction::SetTrue);
        let up = Command::new("up").about("Starts it").arg(detach).arg(secret);
        let demo = Command::new("demo").about("A demo").subcommand(up);
        let page = page(Command::new("fedctl").arg(context).subcommand(demo)).text;
        let sections: Vec<&str> = page.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(sections, ["## fedctl", "## fedctl demo", "## fedctl demo up"]);
        assert_eq!(page.matches("--context").count(), 1, "{page}");
        assert!(page.contains("Usage: fedctl demo up") && page.contains("--detach"), "{page}");
        assert!(!page.contains("--inner") && page.contains("[env: PATH]"), "{page}");
    }
}
