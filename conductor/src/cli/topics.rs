//! What there is to know beyond commands and flags: examples, exit codes, settings, environment, files. The end
//! of `--help`, and sections of the manual page.

use crate::config::KEYS;

const EXAMPLES: &str = "\
conductor run melodies/folder-report.toml -i path=.   run a melody with an input
conductor melody graph melodies/folder-report.toml    see what waits for what
conductor call echo.echo '{\"text\": \"hello\"}'          call one method
conductor serve                                       stay up; then: conductor ps, call, why, stop
conductor doctor                                      see what this machine can do";

const EXIT_CODES: &str = "\
0    everything asked for was done
1    the run, the call or the check failed
2    wrong command line, input, arguments, melody, manifest or configuration
3    something needed is missing or unusable: a program, cargo, the data folder, stdout
129  cancelled by SIGHUP
130  cancelled by Ctrl-C
143  cancelled by SIGTERM
With --json, a command that fails before its own document leaves {\"error\": ...} on stdout.";

const ENVIRONMENT: &str = "\
SYMPHONY_CONFIG     the project's configuration file, like --config
SYMPHONY_SDK        the folder of extension-sdk, for `new extension`
XDG_CONFIG_HOME     where the user's configuration is, if not in ~/.config
XDG_DATA_HOME       where the data folder is, if not in ~/.local/share
CARGO, PATH         where cargo is looked for
CARGO_TARGET_DIR    and what else cargo reads goes to cargo as it is
NO_COLOR            set to anything: no colours, not from cargo either
TERM                dumb or unset: nothing moves, one line for each change
An extension sees only the variables that its manifest names, and SYMPHONY_INSTANCE, by which the
host knows it again.";

const FILES: &str = "\
conductor.toml                       settings of the project: the nearest one upward
~/.config/symphony/conductor.toml    settings of the user; the project's are stronger
~/.local/share/symphony/             the data folder: artifacts, records of builds
extensions/*/extension.toml          extensions: beside the melody, here, and upward";

/// The sections, each with its heading.
pub(super) fn sections() -> Vec<(&'static str, String)> {
    let settings = KEYS.iter().map(|key| format!("{:<20} {:<29} {}", key.name, key.variable, key.about));
    let settings: Vec<String> = settings.collect();
    let settings = format!(
        "{}\nFlags are stronger than the environment, that than the project's file, that than the user's.\n\
         `conductor config show` tells the values in force, and where each came from.",
        settings.join("\n")
    );
    vec![
        ("EXAMPLES", EXAMPLES.to_owned()),
        ("EXIT CODES", EXIT_CODES.to_owned()),
        ("SETTINGS", settings),
        ("ENVIRONMENT", ENVIRONMENT.to_owned()),
        ("FILES", FILES.to_owned()),
    ]
}

/// All of them, as `--help` ends.
pub(super) fn text() -> String {
    let sections =
        sections().into_iter().map(|(heading, body)| format!("{heading}\n  {}", body.replace('\n', "\n  ")));
    sections.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_named_with_its_variable_and_no_line_is_too_long_for_a_terminal() {
        let text = text();
        for key in KEYS {
            assert!(text.contains(key.name) && text.contains(key.variable), "{}", key.name);
        }
        let longest = text.lines().max_by_key(|line| line.len()).unwrap_or_default();
        assert!(longest.len() <= 100, "{longest}");
    }
}
