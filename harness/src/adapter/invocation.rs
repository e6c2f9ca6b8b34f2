// SPDX-License-Identifier: Apache-2.0
//! A command that is ready to be started.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

/// Program, arguments, the whole environment and the working folder of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The program's path, then its arguments; never empty.
    pub argv: Vec<OsString>,
    /// All the environment the command sees.
    pub env: BTreeMap<String, OsString>,
    /// The working folder.
    pub cwd: PathBuf,
}

impl Invocation {
    /// The command for the standard library; standard streams are left to the caller.
    pub fn command(&self) -> Command {
        let program = self.argv.first().map_or(OsStr::new(""), OsString::as_os_str);
        let mut command = Command::new(program);
        command.args(self.argv.iter().skip(1)).env_clear().envs(&self.env).current_dir(&self.cwd);
        command
    }
}

/// The command as one line for a shell, without the environment.
impl fmt::Display for Invocation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, argument) in self.argv.iter().enumerate() {
            let argument = argument.to_string_lossy();
            let plain = !argument.is_empty()
                && argument.chars().all(|letter| letter.is_alphanumeric() || "-_./:=@,+%".contains(letter));
            if index > 0 {
                out.write_str(" ")?;
            }
            if plain {
                out.write_str(&argument)?;
            } else {
                write!(out, "'{}'", argument.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_can_be_given_to_a_shell() {
        let argv = ["/bin/printf", "%s|", "a b", "it's", "", "$HOME", "{x}"].map(OsString::from).to_vec();
        let invocation = Invocation { argv, env: BTreeMap::new(), cwd: PathBuf::from("/") };
        let line = invocation.to_string();
        assert_eq!(line, r"/bin/printf '%s|' 'a b' 'it'\''s' '' '$HOME' '{x}'");
        let through_shell = Command::new("sh").args(["-c", &line]).output().expect("a shell").stdout;
        assert_eq!(invocation.command().output().expect("printf").stdout, through_shell);
    }
}
