//! From a manifest to the program that it describes: the one place that says what an extension's process is
//! given. Used for instances and for `--describe`, so that both are restricted alike.
//!
//! This file must not know how a program is started, or what it is asked.

use std::path::PathBuf;

use crate::manifest::Manifest;
use crate::supervised::Program;

impl Program {
    /// The program of an extension as its manifest has it: the arguments of `run.command`; the variables of this
    /// process that it is permitted, and those that `run.environment` sets, which count where both name one;
    /// niceness and open files. `path` is where its binary is. It has no channel yet.
    ///
    /// ```
    /// use std::path::Path;
    /// use extension_host::{Manifest, Program};
    ///
    /// let text = "name = \"echo\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"echo\", \"--fast\"]\nnice = 5\n";
    /// let manifest = Manifest::parse(text, Path::new("extension.toml"))?;
    /// let instance = Program::of_manifest(&manifest, "/opt/echo");
    /// assert_eq!((instance.arguments, instance.nice), (vec!["--fast".into()], 5));
    /// let describe = Program::of_manifest(&manifest, "/opt/echo").with_arguments(["--describe"]);
    /// assert_eq!(describe.nice, 5);
    /// # Ok::<(), extension_host::Diagnostics>(())
    /// ```
    #[must_use]
    pub fn of_manifest(manifest: &Manifest, path: impl Into<PathBuf>) -> Self {
        let permitted = manifest.permissions.environment.iter();
        let permitted = permitted.filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
        let set = manifest.run.environment.iter().map(|(name, value)| (name.into(), value.into()));
        Self {
            environment: permitted.chain(set).collect(),
            nice: manifest.run.nice,
            open_files_max: manifest.limits.open_files_max,
            ..Self::new(path).with_arguments(manifest.run.command.iter().skip(1))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_manifest_says_all_that_its_program_is_given() {
        let text = "name = \"x\"\nversion = \"0.1.0\"\n\
                    [run]\ncommand = [\"x\", \"a\", \"b c\"]\nenvironment = { OWN = \"1\", PATH = \"/own\" }\nnice = 7\n\
                    [limits]\nopen-files = 99\n[permissions]\nenvironment = [\"PATH\", \"NO_SUCH_VARIABLE\"]\n";
        let manifest = Manifest::parse(text, Path::new("extension.toml")).expect("the manifest is right");
        let program = Program::of_manifest(&manifest, "/there/x");
        assert_eq!(program.path, Path::new("/there/x"));
        assert_eq!(program.arguments, ["a", "b c"]);
        assert_eq!((program.nice, program.open_files_max), (7, Some(99)));
        let outer = std::env::var_os("PATH").expect("a test has a PATH");
        // The later counts: what the manifest sets wins over what it permits.
        let expected = [("PATH".into(), outer), ("OWN".into(), "1".into()), ("PATH".into(), "/own".into())];
        assert_eq!(program.environment, expected);
        assert!(program.channel.is_none() && program.working_directory.is_none());
    }
}
