//! `config show`: every setting with its value and where that came from. Also where every command gets its
//! configuration from.

use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde_json::{Value, json};

use super::args::Global;
use super::table::{Table, write_json};
use super::{stdout_failed, wrong_file};
use crate::config::{self, Configuration, Layer, Origin};
use crate::exit::{Exit, Failure};
use crate::printable;
use crate::trust::Distrusted;

/// The settings, and the files that were read for them.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) configuration: Configuration,
    files: Vec<ConfigurationFile>,
    /// Found upward and passed over.
    pub(super) distrusted: Vec<Distrusted>,
}

#[derive(Debug)]
struct ConfigurationFile {
    /// Whose settings are in it: the user's or the project's.
    whose: &'static str,
    file: PathBuf,
    is_there: bool,
}

/// Reads the files, the environment and the flags.
pub(super) fn read(global: &Global, current: &Path) -> Result<Read, Failure> {
    let get = |name: &str| env::var_os(name);
    let mut files = Vec::new();
    let mut layers = Vec::new();
    if let Some(file) = config::user_file(get) {
        let is_there = file.exists();
        if is_there {
            layers.push(read_file(&file, "it is the user's own")?);
        }
        files.push(ConfigurationFile { whose: "user", file, is_there });
    }
    let by_variable = get("SYMPHONY_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from);
    let named = global.config.clone().map(|file| (current.join(file), "--config names it"));
    let named = named.or_else(|| Some((current.join(by_variable?), "$SYMPHONY_CONFIG names it")));
    let mut distrusted = Vec::new();
    let mut nearest = || {
        let found;
        (found, distrusted) = config::find_file(current);
        Some((found?, "it is the nearest one upward from here"))
    };
    if let Some((file, why)) = named.or_else(&mut nearest) {
        // The user's own may be the nearest one too.
        if !files.iter().any(|known| known.file == file) {
            layers.push(read_file(&file, why)?);
            files.push(ConfigurationFile { whose: "project", file, is_there: true });
        }
    }
    layers.push(Layer::from_environment(get).map_err(Failure::usage)?);
    layers.push(flags(global).map_err(Failure::usage)?);
    let mut configuration = Configuration::new(layers, get)
        .map_err(|error| Failure::environment(error).with_help("name a folder with --data DIR"))?;
    configuration.settings.data_dir = current.join(&configuration.settings.data_dir);
    Ok(Read { configuration, files, distrusted })
}

fn flags(global: &Global) -> Result<Layer, config::ValueError> {
    let paths =
        |paths: &[PathBuf]| paths.iter().map(|path| path.clone().into_os_string()).collect::<Vec<_>>();
    let data: Vec<OsString> = paths(global.data.as_slice());
    let log = global.log.iter().map(OsString::from).collect();
    Layer::default()
        .with("data-dir", Origin::Flag("--data"), data)?
        .with("extension-dirs", Origin::Flag("--extensions"), paths(&global.extensions))?
        .with("log", Origin::Flag("--log"), log)
}

/// `why` this file is read, for whoever wonders.
fn read_file(file: &Path, why: &str) -> Result<Layer, Failure> {
    let unreadable = |error: io::Error| {
        let context = format!("the configuration {} cannot be read", file.display());
        Failure::usage(anyhow::Error::from(error).context(context)).with_help(why)
    };
    let text = read_bounded(file).map_err(unreadable)?;
    Layer::from_file(file, &text).map_err(|found| wrong_file(&found))
}

/// The text of a file, of which a device may have no end; a pipe would be waited for.
fn read_bounded(file: &Path) -> io::Result<String> {
    let opened =
        OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(file)?;
    if opened.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("it is a pipe"));
    }
    let mut text = String::new();
    let bytes = opened.take(config::FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if bytes as u64 > config::FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {} bytes", config::FILE_BYTES_MAX)));
    }
    Ok(text)
}

pub(super) fn show(global: &Global, current: &Path) -> Result<Exit, Failure> {
    let Read { configuration, files, distrusted } = read(global, current)?;
    if global.json {
        let settings: serde_json::Map<String, Value> = configuration
            .shown()
            .map(|(key, value, origins)| {
                let from: Vec<Value> = origins.iter().map(document_of).collect();
                (key.name.to_owned(), json!({ "value": value, "from": from, "variable": key.variable }))
            })
            .collect();
        let files: Vec<Value> = files
            .iter()
            .map(|file| {
                json!({ "file": file.file.to_string_lossy(), "whose": file.whose, "read": file.is_there })
            })
            .chain(distrusted.iter().map(|file| {
                json!({
                    "file": file.found.to_string_lossy(), "whose": "others", "read": false, "ignored": file.why
                })
            }))
            .collect();
        write_json(&json!({ "settings": settings, "files": files })).map_err(stdout_failed)?;
        return Ok(Exit::Success);
    }
    let mut table = Table::new(&["SETTING", "VALUE", "FROM"]);
    for (key, value, origins) in configuration.shown() {
        let values = match value {
            Value::Array(values) if values.is_empty() => vec![Value::from("-")],
            Value::Array(values) => values,
            value => vec![value],
        };
        for (index, value) in values.iter().enumerate() {
            let origin = origins.get(index).unwrap_or(&Origin::Default);
            let name = if index == 0 { key.name } else { "" };
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            table.row([name.to_owned(), value, origin.to_string()]);
        }
    }
    let mut out = io::stdout().lock();
    table.write(&mut out).map_err(stdout_failed)?;
    for (index, file) in files.iter().enumerate() {
        let gap = if index == 0 { "\n" } else { "" };
        let state = if file.is_there { "" } else { ", which is not there" };
        let text = format!("the {}'s file: {}{state}", file.whose, file.file.display());
        writeln!(out, "{gap}{}", printable::line(&text)).map_err(stdout_failed)?;
    }
    for Distrusted { found, why } in &distrusted {
        let text = format!("ignored: {}, because {why}", found.display());
        writeln!(out, "{}", printable::line(&text)).map_err(stdout_failed)?;
    }
    Ok(Exit::Success)
}

fn document_of(origin: &Origin) -> Value {
    match origin {
        Origin::Default => json!({ "kind": "default" }),
        Origin::File { file, line } => {
            json!({ "kind": "file", "file": file.to_string_lossy(), "line": line })
        }
        Origin::Variable(name) => json!({ "kind": "variable", "name": name }),
        Origin::Flag(name) => json!({ "kind": "flag", "name": name }),
    }
}
