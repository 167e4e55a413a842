//! Settings: defaults < the user's file < the project's file < environment (`SYMPHONY_*`) < flags.
//!
//! ```text
//! Layer (user's file) -+
//! Layer (project's)    +--weakest first--> Configuration: Settings, and for each where it came from
//! Layer (environment)  |
//! Layer (flags)       -+
//! ```
//!
//! No file is needed. The user's is `$XDG_CONFIG_HOME/symphony/conductor.toml`, the project's is `--config
//! FILE`, `$SYMPHONY_CONFIG`, or the nearest `conductor.toml` from the current folder upward that only this user
//! or root can have put there ([`crate::trust`]). This module must not know what the settings are used for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::trust::{Distrusted, distrust};

mod keys;
mod layer;

pub use keys::parse_timeout;
pub(crate) use keys::{KEYS, Key};
pub use layer::{Layer, Origin, ValueError};

/// File name that is looked for from the current folder upward.
pub const FILE_NAME: &str = "conductor.toml";

/// A step without `timeout` may take as long.
pub const STEP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Items of one fan-out that are in flight at the same time at most; claims bound them further.
pub const ITEMS_IN_FLIGHT_MAX_DEFAULT: u32 = 64;
/// Time that extensions have for ending before they are killed.
pub const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// What is logged when nothing is said.
pub const LOG_DEFAULT: &str = "warn";
/// LIMIT: the longest time that a setting may name.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// LIMIT: bytes of `conductor.toml`.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// The settings in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where artifacts and caches are kept: `$XDG_DATA_HOME/symphony` or `~/.local/share/symphony`.
    pub data_dir: PathBuf,
    /// Folders whose subfolders are extensions, the first one found wins. The folders `extensions`
    /// beside the melody's and the current folder's ancestors follow them.
    pub extension_dirs: Vec<PathBuf>,
    /// What is logged to stderr.
    pub log: String,
    /// Time of a step that names none.
    pub step_timeout: Duration,
    /// Time that extensions have for ending.
    pub stop_timeout: Duration,
    /// Items of one fan-out in flight at most.
    pub items_in_flight_max: u32,
    /// What claims on `cpu` share.
    pub cores: u32,
    /// Cargo profile that extensions are built with.
    pub build_profile: String,
    /// Extensions that run in the conductor's own process, by their names: their code is trusted as the conductor's.
    pub in_process: Vec<String>,
    /// Whether limits of extensions are held by control groups, where they can be used.
    pub uses_control_groups: bool,
}

impl Default for Settings {
    /// What holds where nobody says anything, except for the data folder, which depends on the environment.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            data_dir: PathBuf::new(),
            extension_dirs: Vec::new(),
            log: LOG_DEFAULT.to_owned(),
            step_timeout: STEP_TIMEOUT_DEFAULT,
            stop_timeout: STOP_TIMEOUT_DEFAULT,
            items_in_flight_max: ITEMS_IN_FLIGHT_MAX_DEFAULT,
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            build_profile: "release".to_owned(),
            in_process: Vec::new(),
            uses_control_groups: true,
        }
    }
}

/// Nothing says where data may be kept.
#[derive(Debug, thiserror::Error)]
#[error("no data folder: neither --data, SYMPHONY_DATA_DIR, XDG_DATA_HOME nor HOME is set")]
pub struct NoDataFolder;

/// The settings in force, and where each of them came from.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The settings.
    pub settings: Settings,
    /// By the place of the key in [`KEYS`]: one origin, of a setting that adds up one for each of its values.
    origins: Vec<Vec<Origin>>,
}

impl Configuration {
    /// The settings that `layers` give, the weakest first.
    ///
    /// # Errors
    ///
    /// [`NoDataFolder`]: no layer names one, and the environment has no home.
    pub fn new(
        layers: impl IntoIterator<Item = Layer>,
        get: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, NoDataFolder> {
        let mut settings =
            Settings { data_dir: data_dir_default(get).unwrap_or_default(), ..Settings::default() };
        let mut origins = vec![Vec::new(); KEYS.len()];
        for said in layers.into_iter().flat_map(|layer| layer.said) {
            let adds_up = KEYS[said.key].name == "extension-dirs";
            // INVARIANT: a layer holds only what its keys take.
            if (KEYS[said.key].set)(&mut settings, &said.values, &said.base).is_some() {
                let of_key: &mut Vec<Origin> = &mut origins[said.key];
                let replaced = if adds_up { 0..0 } else { 0..of_key.len() };
                let is_list = (KEYS[said.key].get)(&settings).is_array();
                let count = if is_list { said.values.len() } else { 1 };
                of_key.splice(replaced, std::iter::repeat_n(said.origin, count));
            }
        }
        if settings.data_dir.as_os_str().is_empty() {
            return Err(NoDataFolder);
        }
        Ok(Self { settings, origins })
    }

    /// Every setting with its value as a file would have it, and where that came from: one origin, of a list
    /// one for each element.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (&'static Key, serde_json::Value, Vec<Origin>)> {
        KEYS.iter().zip(&self.origins).map(|(key, origins)| {
            let value = (key.get)(&self.settings);
            let is_default = origins.is_empty() && !value.is_array();
            (key, value, if is_default { vec![Origin::Default] } else { origins.clone() })
        })
    }
}

/// As the XDG base directory specification says: a relative path there is ignored.
fn base_directory(get: impl Fn(&str) -> Option<OsString>, name: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| get(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    absolute(name).or_else(|| Some(absolute("HOME")?.join(below_home)))
}

fn data_dir_default(get: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    Some(base_directory(get, "XDG_DATA_HOME", ".local/share")?.join("symphony"))
}

/// Where the user's own file is, if there is one.
#[must_use]
pub fn user_file(get: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    Some(base_directory(get, "XDG_CONFIG_HOME", ".config")?.join("symphony").join(FILE_NAME))
}

/// The nearest `conductor.toml` from `folder` upward, and those before it that others than this user and root
/// could have put there: these are passed over.
#[must_use]
pub fn find_file(folder: &Path) -> (Option<PathBuf>, Vec<Distrusted>) {
    let mut passed_over = Vec::new();
    let files = folder.ancestors().map(|folder| folder.join(FILE_NAME)).filter(|file| file.is_file());
    for found in files {
        match distrust(&found) {
            Some(why) => passed_over.push(Distrusted { found, why }),
            None => return (Some(found), passed_over),
        }
    }
    (None, passed_over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_layer_wins_folders_add_up_and_each_value_knows_its_origin() {
        let file = |path: &str, text: &str| Layer::from_file(Path::new(path), text).unwrap();
        let user = file("/home/u/conductor.toml", "cores = 2\nlog = \"info\"\nextension-dirs = [\"mine\"]\n");
        let project = file(
            "/etc/conductor.toml",
            "data-dir = \"data\"\nextension-dirs = [\"one\", \"/two\"]\nstep-timeout = \"2m\"\ncores = 3\n",
        );
        let environment = Layer::from_environment(|name| match name {
            "SYMPHONY_STEP_TIMEOUT" => Some("250ms".into()),
            "SYMPHONY_EXTENSION_DIRS" => Some("/three:/four".into()),
            "SYMPHONY_LOG" => Some("".into()),
            _ => None,
        })
        .unwrap();
        let flags = Layer::default();
        let flags = flags.with("extension-dirs", Origin::Flag("--extensions"), vec!["five".into()]).unwrap();
        let found = Configuration::new([user, project, environment, flags], |_| None).unwrap();
        let settings = &found.settings;
        assert_eq!(settings.data_dir, Path::new("/etc/data"));
        assert_eq!(settings.step_timeout, Duration::from_millis(250));
        assert_eq!((settings.cores, settings.log.as_str()), (3, "info"));
        let folders = ["five", "/three", "/four", "/etc/one", "/two", "/home/u/mine"].map(PathBuf::from);
        assert_eq!(settings.extension_dirs, folders);

        let origin = |name: &str| {
            let (_, _, origins) = found.shown().find(|(key, ..)| key.name == name).unwrap();
            origins.iter().map(Origin::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(origin("cores"), "/etc/conductor.toml:4");
        assert_eq!(origin("log"), "/home/u/conductor.toml:2");
        assert_eq!(origin("step-timeout"), "$SYMPHONY_STEP_TIMEOUT");
        assert_eq!(origin("build-profile"), "default");
        let variable = "$SYMPHONY_EXTENSION_DIRS";
        let file = "/etc/conductor.toml:2";
        let expected = ["--extensions", variable, variable, file, file, "/home/u/conductor.toml:3"];
        assert_eq!(origin("extension-dirs"), expected.join(" "));
    }

    #[test]
    fn data_folder_and_user_file_follow_the_base_directories() {
        let get = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|pair| pair.0 == name).map(|pair| OsString::from(pair.1))
        };
        let from = |pairs| Configuration::new([], get(pairs)).map(|found| found.settings.data_dir);
        assert_eq!(from(&[("XDG_DATA_HOME", "/d"), ("HOME", "/h")]).unwrap(), Path::new("/d/symphony"));
        assert_eq!(
            from(&[("XDG_DATA_HOME", "d"), ("HOME", "/h")]).unwrap(),
            Path::new("/h/.local/share/symphony")
        );
        assert!(from(&[("HOME", "")]).is_err());
        let file = user_file(get(&[("HOME", "/h")])).unwrap();
        assert_eq!(file, Path::new("/h/.config/symphony/conductor.toml"));
        assert_eq!(user_file(get(&[])), None);
    }
}
