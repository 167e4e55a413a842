//! The launcher's arguments: written by the host, read by the launcher, defined once.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

/// What the launcher is told, without the program itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `--parent PID`: the host. When this process is no longer the launcher's parent, or ends, everything
    /// is killed. Required.
    pub parent_pid: u32,
    /// `--nice N`: added to the host's own niceness, 0 to 19.
    pub nice: u8,
    /// `--open-files N`: descriptors that the program may have open, at least [`Arguments::OPEN_FILES_MIN`];
    /// absent: as many as the host.
    pub open_files_max: Option<u32>,
    /// `--group FILE`, as often as there are: a control group's `cgroup.procs`, which the launcher enters before it starts
    /// the program.
    pub groups: Vec<PathBuf>,
    /// `--cwd DIR`: the program's working directory; absent: the host's.
    pub working_directory: Option<PathBuf>,
}

/// A program with its own arguments, the first being its path.
pub(crate) type Program = Vec<OsString>;

impl Arguments {
    /// LIMIT: fewer descriptors than this, and a program cannot even load its libraries.
    pub const OPEN_FILES_MIN: u32 = 16;
    /// The highest niceness.
    pub const NICE_MAX: u8 = 19;

    /// The arguments as the launcher takes them, followed by `program` and `program_arguments`.
    pub fn to_command_line<A: AsRef<OsStr>>(
        &self,
        program: &OsStr,
        program_arguments: impl IntoIterator<Item = A>,
    ) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec!["--parent".into(), self.parent_pid.to_string().into()];
        if self.nice > 0 {
            line.extend(["--nice".into(), self.nice.to_string().into()]);
        }
        if let Some(open_files_max) = self.open_files_max {
            line.extend(["--open-files".into(), open_files_max.to_string().into()]);
        }
        for group in &self.groups {
            line.extend(["--group".into(), group.clone().into()]);
        }
        if let Some(directory) = &self.working_directory {
            line.extend(["--cwd".into(), directory.clone().into()]);
        }
        line.push("--".into());
        line.push(program.to_owned());
        line.extend(program_arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        line
    }

    /// Reads what [`Arguments::to_command_line`] writes.
    ///
    /// # Errors
    ///
    /// [`ArgumentError`]: the host and the launcher are not of one version, or somebody started it by hand.
    pub(crate) fn parse(mut line: impl Iterator<Item = OsString>) -> Result<(Self, Program), ArgumentError> {
        let mut arguments = Self::default();
        loop {
            let Some(name) = line.next() else { return Err(ArgumentError::MissingProgram) };
            if name == "--" {
                break;
            }
            let name = name.to_string_lossy().into_owned();
            let Some(value) = line.next() else { return Err(ArgumentError::MissingValue { name }) };
            match name.as_str() {
                "--parent" => arguments.parent_pid = number(name, &value, 1, i32::MAX as u32)?,
                "--nice" => {
                    let nice = number(name, &value, 0, u32::from(Self::NICE_MAX))?;
                    arguments.nice = u8::try_from(nice).unwrap_or(Self::NICE_MAX);
                }
                "--open-files" => {
                    arguments.open_files_max = Some(number(name, &value, Self::OPEN_FILES_MIN, u32::MAX)?);
                }
                "--group" => arguments.groups.push(value.into()),
                "--cwd" => arguments.working_directory = Some(value.into()),
                _ => return Err(ArgumentError::Unknown { name }),
            }
        }
        if arguments.parent_pid == 0 {
            return Err(ArgumentError::MissingValue { name: "--parent".into() });
        }
        let program: Program = line.collect();
        if program.is_empty() {
            return Err(ArgumentError::MissingProgram);
        }
        Ok((arguments, program))
    }
}

fn number(name: String, value: &OsStr, min: u32, max: u32) -> Result<u32, ArgumentError> {
    match value.to_str().and_then(|value| value.parse().ok()) {
        Some(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(ArgumentError::Number { name, min, max }),
    }
}

/// What is wrong with the launcher's arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentError {
    /// Nothing after `--`, or no `--`.
    MissingProgram,
    /// An argument that needs a value has none, or a required one is missing.
    MissingValue {
        /// Which.
        name: String,
    },
    /// Not a number within its range.
    Number {
        /// Which.
        name: String,
        /// The least allowed.
        min: u32,
        /// The most allowed.
        max: u32,
    },
    /// No such argument.
    Unknown {
        /// Which.
        name: String,
    },
}

// By hand: the launcher has one dependency, and a derive is not worth a second.
impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingProgram => f.write_str("no program is given after `--`"),
            Self::MissingValue { name } => write!(f, "argument {name} has no value"),
            Self::Number { name, min, max } => {
                write!(f, "argument {name} takes a number from {min} to {max}")
            }
            Self::Unknown { name } => write!(f, "there is no argument {name}"),
        }
    }
}

impl std::error::Error for ArgumentError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<(Arguments, Program), ArgumentError> {
        Arguments::parse(line.iter().map(OsString::from))
    }

    #[test]
    fn what_a_host_writes_is_what_the_launcher_reads() {
        for arguments in [
            Arguments { parent_pid: 1, ..Arguments::default() },
            Arguments {
                parent_pid: 4_194_304,
                nice: 19,
                open_files_max: Some(256),
                groups: vec!["/cg/a b/cgroup.procs".into(), "/cg/c/cgroup.procs".into()],
                working_directory: Some("/tmp/a b".into()),
            },
        ] {
            let line = arguments.to_command_line(OsStr::new("/bin/true"), ["--", "--parent", "x"]);
            let (read, program) = Arguments::parse(line.into_iter()).expect("the line is well-formed");
            assert_eq!(read, arguments);
            assert_eq!(program, ["/bin/true", "--", "--parent", "x"]);
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (line, message) in [
            (&["--parent", "7"][..], "no program is given after `--`"),
            (&["--parent", "7", "--"][..], "no program is given after `--`"),
            (&["--parent"][..], "argument --parent has no value"),
            (&["--", "true"][..], "argument --parent has no value"),
            (&["--parent", "0", "--", "true"][..], "argument --parent takes a number from 1 to 2147483647"),
            (
                &["--parent", "7", "--nice", "20", "--", "true"][..],
                "argument --nice takes a number from 0 to 19",
            ),
            (&["--paren", "7", "--", "true"][..], "there is no argument --paren"),
        ] {
            assert_eq!(parse(line).expect_err("the line is wrong").to_string(), message, "{line:?}");
        }
    }
}
