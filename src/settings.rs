//! Every setting of the program, and the layers that it can come from.
//!
//! A setting has one name, its key, in every layer: `--state-save-interval` on the command line,
//! `state-save-interval` in a TOML file. What has a value in several layers takes it from the
//! first of: flag, environment, file, default. An empty environment variable counts as not set,
//! because that is what `VARIABLE=` in a compose file means.
//!
//! Values are texts here, and every text carries where it came from, so that
//! [`crate::config`] has one parser for all layers and every error can say what to change.
//!
//! # Which broker, if the environment says several
//!
//! `DISCOGS_BROKER`, else `AMQP_CONNECTION`, which is a whole address, else the parts
//! `RABBITMQ_HOST` (`rabbitmq` if not set), `RABBITMQ_PORT` and the virtual host `/`, if any
//! variable of RabbitMQ is set.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use crate::download;
use crate::fs::{self, FileSystem};

/// The environment variables.
pub type Environment = BTreeMap<String, String>;

/// The environment of this process.
pub fn environment() -> Environment {
    std::env::vars_os()
        .map(|(name, value)| (lossy(&name), lossy(&value)))
        .collect()
}

/// A name or value that is not UTF-8 is none of ours, or no file that exists.
fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

/// The file that is read if it is in the working directory and no other is named.
pub const DEFAULT_FILE: &str = "discogs-extractor.toml";

/// How a setting is given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A positional argument.
    Position,
    /// `--key VALUE`
    Value(&'static str),
    /// `--key VALUE`, may be repeated; a comma separates as well.
    List(&'static str),
    /// `--key CHOICE`
    Choice(&'static [&'static str]),
    /// `--key`
    Switch,
    /// Not at all, because every user of the machine can see command lines.
    Secret,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name in a file; with `--` in front, its flag.
    pub key: &'static str,
    /// Its flag.
    pub form: Form,
    /// The environment variables that set it, the first that is set counts.
    pub variables: &'static [&'static str],
    /// Its default; empty if it has none.
    pub default: &'static str,
    /// What it is about, a heading of the help.
    pub heading: &'static str,
    /// What it does.
    pub help: &'static str,
}

const WHAT: &str = "What is read";
const WHERE: &str = "Where messages go";
const STATE: &str = "State and recovery";
const LIMITS: &str = "Limits";
const DOWNLOADS: &str = "Downloads";
const OUTPUT: &str = "Output";
const WATCHING: &str = "Watching";

/// Every setting, in the order of the help.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "root",
        form: Form::Position,
        variables: &["DISCOGS_ROOT"],
        default: ".",
        heading: WHAT,
        help: "A directory with dumps named discogs_YYYYMMDD_KIND.xml.gz, or one such dump",
    },
    Setting {
        key: "dump-version",
        form: Form::Value("YYYYMMDD"),
        variables: &["DISCOGS_DUMP_VERSION"],
        default: "",
        heading: WHAT,
        help: "The version to process; the newest in the directory if not given",
    },
    Setting {
        key: "kinds",
        form: Form::List("KINDS"),
        variables: &["DISCOGS_KINDS"],
        default: "",
        heading: WHAT,
        help: "Only these kinds, like artists,labels; all four if not given",
    },
    Setting {
        key: "broker",
        form: Form::List("URL"),
        variables: &["DISCOGS_BROKER", "AMQP_CONNECTION"],
        default: "file:spool",
        heading: WHERE,
        help: "file:DIR (JSON Lines), amqp://USER:PASSWORD@HOST:PORT/VHOST, amqps://.., \
               rabbitmq-stream://.. and rabbitmq-stream+tls://.. (streams, exactly once), or null: \
               (nowhere); several addresses are the nodes of one cluster",
    },
    Setting {
        key: "username",
        form: Form::Secret,
        variables: &["RABBITMQ_USERNAME"],
        default: "",
        heading: WHERE,
        help: "The user, for addresses that name none",
    },
    Setting {
        key: "username-file",
        form: Form::Value("FILE"),
        variables: &["RABBITMQ_USERNAME_FILE"],
        default: "",
        heading: WHERE,
        help: "A file that holds the user, for addresses that name none",
    },
    Setting {
        key: "password",
        form: Form::Secret,
        variables: &["RABBITMQ_PASSWORD"],
        default: "",
        heading: WHERE,
        help: "The password, for addresses that hold none",
    },
    Setting {
        key: "password-file",
        form: Form::Value("FILE"),
        variables: &["RABBITMQ_PASSWORD_FILE"],
        default: "",
        heading: WHERE,
        help: "A file that holds the password, for addresses that hold none",
    },
    Setting {
        key: "ca-file",
        form: Form::Value("FILE"),
        variables: &["DISCOGS_CA_FILE"],
        default: "",
        heading: WHERE,
        help: "Certificates (PEM) of authorities to trust for TLS, besides the system's",
    },
    Setting {
        key: "topology",
        form: Form::Choice(&["fanout", "topic"]),
        variables: &["DISCOGS_TOPOLOGY"],
        default: "fanout",
        heading: WHERE,
        help: "fanout: an exchange PREFIX-KIND for each kind; topic: the one exchange of older \
               consumers, without extraction_complete",
    },
    Setting {
        key: "exchange-prefix",
        form: Form::Value("PREFIX"),
        variables: &["DISCOGS_EXCHANGE_PREFIX"],
        default: "discogsography-discogs",
        heading: WHERE,
        help: "What the names of the fanout exchanges, or of the streams, begin with",
    },
    Setting {
        key: "declare-queues",
        form: Form::List("NAMES"),
        variables: &["DISCOGS_DECLARE_QUEUES"],
        default: "",
        heading: WHERE,
        help: "Quorum queues to declare and bind, for consumers that don't do that; {kind} in a \
               name stands for the kind, like archive-{kind}",
    },
    Setting {
        key: "message-profile",
        form: Form::Choice(&["normalised", "raw"]),
        variables: &["DISCOGS_MESSAGE_PROFILE"],
        default: "normalised",
        heading: WHERE,
        help: "The shape of record messages: normalised, or raw as xmltodict makes it",
    },
    Setting {
        key: "state-dir",
        form: Form::Value("DIR"),
        variables: &["DISCOGS_STATE_DIR"],
        default: "",
        heading: STATE,
        help: "Where the state marker, the lock and dead letters are; the directory of the dumps \
               if not given",
    },
    Setting {
        key: "state-save-interval",
        form: Form::Value("RECORDS"),
        variables: &["DISCOGS_STATE_SAVE_INTERVAL", "STATE_SAVE_INTERVAL"],
        default: "5000",
        heading: STATE,
        help: "Save after this many records; at most these and a window are repeated after a crash",
    },
    Setting {
        key: "state-save-max-age",
        form: Form::Value("DURATION"),
        variables: &["DISCOGS_STATE_SAVE_MAX_AGE"],
        default: "30s",
        heading: STATE,
        help: "Save after this time at the latest, if anything was published",
    },
    Setting {
        key: "reprocess",
        form: Form::Switch,
        variables: &["DISCOGS_REPROCESS", "FORCE_REPROCESS"],
        default: "false",
        heading: STATE,
        help: "Begin at record 1 whatever the state marker says",
    },
    Setting {
        key: "failures-per-day",
        form: Form::Value("NUMBER"),
        variables: &["DISCOGS_FAILURES_PER_DAY"],
        default: "1",
        heading: STATE,
        help: "How often a run is interrupted, for `tune`; 0.1 is every ten days",
    },
    Setting {
        key: "record-bytes-max",
        form: Form::Value("SIZE"),
        variables: &["DISCOGS_RECORD_BYTES_MAX"],
        default: "64MiB",
        heading: LIMITS,
        help: "The largest record, in bytes of XML; a larger one is a dead letter",
    },
    Setting {
        key: "source-threads",
        form: Form::Value("THREADS"),
        variables: &["DISCOGS_SOURCE_THREADS"],
        default: "2",
        heading: LIMITS,
        help: "Threads that read a dump and make messages of it",
    },
    Setting {
        key: "window-messages",
        form: Form::Value("MESSAGES"),
        variables: &["DISCOGS_WINDOW_MESSAGES"],
        default: "1000",
        heading: LIMITS,
        help: "The most messages that wait for a confirm",
    },
    Setting {
        key: "window-bytes",
        form: Form::Value("SIZE"),
        variables: &["DISCOGS_WINDOW_BYTES"],
        default: "16MiB",
        heading: LIMITS,
        help: "The most bytes of messages that wait for a confirm",
    },
    Setting {
        key: "dead-letters-max",
        form: Form::Value("RECORDS"),
        variables: &["DISCOGS_DEAD_LETTERS_MAX"],
        default: "100",
        heading: LIMITS,
        help: "The most records of a dump that may be skipped as malformed",
    },
    Setting {
        key: "confirm-timeout",
        form: Form::Value("DURATION"),
        variables: &["DISCOGS_CONFIRM_TIMEOUT"],
        default: "30s",
        heading: LIMITS,
        help: "How long a confirm may take before the connection is made anew",
    },
    Setting {
        key: "stop-timeout",
        form: Form::Value("DURATION"),
        variables: &["DISCOGS_STOP_TIMEOUT"],
        default: "10s",
        heading: LIMITS,
        help: "How long a stop waits for confirms before it saves and ends",
    },
    Setting {
        key: "download-url",
        form: Form::Value("URL"),
        variables: &["DISCOGS_DOWNLOAD_URL"],
        default: download::HOST,
        heading: DOWNLOADS,
        help: "The host that lists and has the dumps",
    },
    Setting {
        key: "check-days",
        form: Form::Value("DAYS"),
        variables: &["DISCOGS_CHECK_DAYS", "PERIODIC_CHECK_DAYS"],
        default: "15",
        heading: DOWNLOADS,
        help: "How long `follow` waits after a version before it looks for the next",
    },
    Setting {
        key: "keep",
        form: Form::Value("VERSIONS"),
        variables: &["DISCOGS_KEEP"],
        default: "",
        heading: DOWNLOADS,
        help: "How many versions `follow` leaves on the disk; all if not given",
    },
    Setting {
        key: "progress",
        form: Form::Choice(&["auto", "lines", "never"]),
        variables: &["DISCOGS_PROGRESS"],
        default: "auto",
        heading: OUTPUT,
        help: "auto: bars on a terminal, else lines; lines: a log line every 15 s",
    },
    Setting {
        key: "log-format",
        form: Form::Choice(&["text", "json"]),
        variables: &["DISCOGS_LOG_FORMAT"],
        default: "text",
        heading: OUTPUT,
        help: "The form of log lines, which go to stderr",
    },
    Setting {
        key: "log-level",
        form: Form::Choice(&["error", "warn", "info", "debug", "trace"]),
        variables: &["DISCOGS_LOG_LEVEL"],
        default: "info",
        heading: OUTPUT,
        help: "The least important log lines to write",
    },
    Setting {
        key: "listen",
        form: Form::Value("ADDRESS"),
        variables: &["DISCOGS_LISTEN"],
        default: "",
        heading: WATCHING,
        help: "Where the program can be watched in a browser, and by health checks and Prometheus: \
               an address like 127.0.0.1:8000, or off; if not given, `follow` listens there, and \
               `run` does not listen",
    },
];

/// The settings that say where a state marker is.
pub const PLACE: &[&str] = &["root", "dump-version", "state-dir"];

/// The settings of downloads, which a run does not make.
pub const DOWNLOAD: &[&str] = &["download-url"];

/// The settings of `follow` alone.
pub const FOLLOW: &[&str] = &["check-days", "keep"];

/// The settings of `tune` alone.
pub const TUNE: &[&str] = &["failures-per-day"];

/// The settings of one run, which make no sense in many.
pub const ONCE: &[&str] = &["dump-version", "reprocess"];

/// The settings of what is written on the screen.
pub const LOG: &[&str] = &["progress", "log-format", "log-level"];

/// Variables of older extractors that have nothing to set any more, and why.
const IGNORED_VARIABLES: &[(&str, &str)] = &[(
    "BATCH_SIZE",
    "there are no batches, every record is a message of its own; --window-messages bounds how \
     many are under way",
)];

/// The setting called `key`.
pub fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// A value that makes no sense: where it came from, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {problem}")]
pub struct ConfigError {
    /// `--kinds`, `environment variable DISCOGS_ROOT`, `discogs-extractor.toml: kinds`.
    pub origin: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// The layers, in rising order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Built in.
    Default,
    /// A TOML file.
    File,
    /// An environment variable.
    Environment,
    /// The command line.
    Flag,
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// As it was written.
    pub text: String,
    /// The layer.
    pub layer: Layer,
    /// The exact place, for people.
    pub origin: String,
}

impl Value {
    /// The error that this value makes no sense.
    pub fn error(&self, problem: impl Into<String>) -> ConfigError {
        let origin = match self.layer {
            Layer::Default => format!("default `{}`", self.text),
            _ => self.origin.clone(),
        };
        let problem = problem.into();
        ConfigError { origin, problem }
    }
}

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The TOML file, if one is named.
    pub file: Option<PathBuf>,
    /// Values by key.
    pub values: BTreeMap<&'static str, String>,
}

/// The effective value of every setting that has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    values: BTreeMap<&'static str, Value>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Values {
    /// Lays flags over environment over file over defaults.
    ///
    /// # Errors
    /// A file that can't be read, is no TOML, or has a key that is no setting.
    pub fn load(
        fs: &dyn FileSystem,
        flags: &Flags,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let mut values = Self::default();
        for setting in SETTINGS
            .iter()
            .filter(|setting| !setting.default.is_empty())
        {
            values.set(setting, Layer::Default, "default", setting.default);
        }
        values.add_file(fs, flags.file.as_deref())?;
        values.add_environment(environment);
        for (key, text) in &flags.values {
            let setting = setting(key).expect("every flag is a setting");
            let origin = match setting.form {
                Form::Position => "PATH on the command line".to_owned(),
                _ => format!("--{key}"),
            };
            values.set(setting, Layer::Flag, &origin, text);
        }
        Ok(values)
    }

    /// The value of the setting `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        debug_assert!(setting(key).is_some(), "{key} is a setting");
        self.values.get(key)
    }

    fn set(&mut self, setting: &'static Setting, layer: Layer, origin: &str, text: &str) {
        let value = Value {
            text: text.to_owned(),
            layer,
            origin: origin.to_owned(),
        };
        self.values.insert(setting.key, value);
    }

    fn add_file(&mut self, fs: &dyn FileSystem, named: Option<&Path>) -> Result<(), ConfigError> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        let file = path.display().to_string();
        let failed = |origin: String, problem: String| ConfigError { origin, problem };
        let bytes = match fs::read(fs, path) {
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            Err(error) => return Err(failed(file, format!("cannot read the file: {error}"))),
            Ok(bytes) => bytes,
        };
        let text = String::from_utf8_lossy(&bytes);
        let table: toml::Table = text
            .parse()
            .map_err(|error| failed(file.clone(), format!("not TOML: {error}")))?;
        for (key, value) in table {
            let origin = format!("{file}: {key}");
            let Some(setting) = setting(&key) else {
                return Err(failed(origin, unknown_key()));
            };
            let text = text_of(&value).map_err(|problem| failed(origin.clone(), problem))?;
            self.set(setting, Layer::File, &origin, &text);
        }
        Ok(())
    }

    fn add_environment(&mut self, environment: &Environment) {
        let get = |name: &str| environment.get(name).filter(|text| !text.is_empty());
        if let Some((url, origin)) = rabbitmq_parts(environment) {
            let broker = setting("broker").expect("a setting");
            self.set(broker, Layer::Environment, &origin, &url);
        }
        for setting in SETTINGS {
            let set = setting
                .variables
                .iter()
                .find_map(|name| get(name).map(|text| (name, text)));
            if let Some((name, text)) = set {
                let origin = format!("environment variable {name}");
                self.set(setting, Layer::Environment, &origin, text);
            }
        }
        for (name, why) in IGNORED_VARIABLES {
            if get(name).is_some() {
                self.warnings
                    .push(format!("environment variable {name} is ignored: {why}"));
            }
        }
    }

    /// The effective configuration as TOML, each value with its origin; `mask` hides secrets.
    pub fn to_toml(&self, mask: impl Fn(&Setting, &str) -> String) -> String {
        let mut text = String::from(
            "# The effective configuration. Flags win over environment variables, those over the\n\
             # file, the file over defaults.\n",
        );
        let mut heading = "";
        for setting in SETTINGS {
            if heading != setting.heading {
                heading = setting.heading;
                let _ = write!(text, "\n# {heading}\n");
            }
            let _ = match self.get(setting.key) {
                None => writeln!(text, "# {} is not set", setting.key),
                Some(value) => writeln!(
                    text,
                    "{} = {}  # {}",
                    setting.key,
                    toml_value(&mask(setting, &value.text)),
                    value.origin
                ),
            };
        }
        text
    }
}

/// A text as the TOML value that is read back as the same text.
fn toml_value(text: &str) -> String {
    let is_boolean = text == "true" || text == "false";
    let is_number = text
        .parse()
        .is_ok_and(|number: i64| number.to_string() == text);
    match is_boolean || is_number {
        true => text.to_owned(),
        false => toml::Value::String(text.to_owned()).to_string(),
    }
}

fn unknown_key() -> String {
    let keys: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
    format!("there is no such setting; there are {}", keys.join(", "))
}

/// A value of a TOML file as text; the items of an array with commas between.
fn text_of(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(boolean) => Ok(boolean.to_string()),
        toml::Value::Array(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(text_of).collect();
            Ok(items?.join(","))
        }
        _ => Err(format!(
            "a {} is of no use here; write a string, a whole number, true, false, or an array",
            value.type_str()
        )),
    }
}

/// The broker that the parts in the environment describe, if there are any.
fn rabbitmq_parts(environment: &Environment) -> Option<(String, String)> {
    const PARTS: [&str; 6] = [
        "RABBITMQ_HOST",
        "RABBITMQ_PORT",
        "RABBITMQ_USERNAME",
        "RABBITMQ_USERNAME_FILE",
        "RABBITMQ_PASSWORD",
        "RABBITMQ_PASSWORD_FILE",
    ];
    let get = |name: &str| environment.get(name).filter(|text| !text.is_empty());
    let set: Vec<_> = PARTS
        .into_iter()
        .filter(|name| get(name).is_some())
        .collect();
    let origin = match set.as_slice() {
        [] => return None,
        [name] => format!("environment variable {name}"),
        names => format!("environment variables {}", names.join(", ")),
    };
    let host = get("RABBITMQ_HOST").map_or("rabbitmq", |host| host);
    let host = match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    };
    let port = get("RABBITMQ_PORT").map_or("5672", |port| port);
    Some((format!("amqp://{host}:{port}"), origin))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of a test")]
mod tests {
    use super::*;
    use crate::fs::OsFileSystem;

    /// The values of a file with the text `toml`, an environment and flags.
    fn load(
        toml: &str,
        environment: &[(&str, &str)],
        flags: &[(&'static str, &str)],
    ) -> Result<Values, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file.toml");
        std::fs::write(&file, toml).unwrap();
        let owned = |text: &str| text.to_owned();
        let flags = Flags {
            file: Some(file),
            values: flags
                .iter()
                .map(|(key, text)| (*key, owned(text)))
                .collect(),
        };
        let environment = environment.iter();
        let environment = environment
            .map(|(name, text)| (owned(name), owned(text)))
            .collect();
        Values::load(&OsFileSystem, &flags, &environment).map_err(|mut error| {
            let directory = format!("{}/", directory.path().display());
            error.origin = error.origin.replace(&directory, "");
            error
        })
    }

    #[test]
    fn flags_win_over_environment_over_file_over_default() {
        type Pairs = &'static [(&'static str, &'static str)];
        let check = |toml, environment: Pairs, flags: Pairs, key, expected, layer| {
            let values = load(toml, environment, flags).unwrap();
            let value = values.get(key).unwrap();
            assert_eq!((value.text.as_str(), value.layer), (expected, layer));
        };
        let (key, toml) = ("state-save-interval", "state-save-interval = 2");
        let old: Pairs = &[("STATE_SAVE_INTERVAL", "3")];
        let both: Pairs = &[
            ("STATE_SAVE_INTERVAL", "3"),
            ("DISCOGS_STATE_SAVE_INTERVAL", "4"),
        ];
        check("", &[], &[], key, "5000", Layer::Default);
        check(toml, &[], &[], key, "2", Layer::File);
        check(toml, old, &[], key, "3", Layer::Environment);
        check(toml, both, &[], key, "4", Layer::Environment);
        let flag: Pairs = &[("state-save-interval", "5")];
        check(toml, both, flag, key, "5", Layer::Flag);
        let empty: Pairs = &[("STATE_SAVE_INTERVAL", "")];
        check(toml, empty, &[], key, "2", Layer::File);
        let list = "kinds = [\"labels\", \"artists\"]";
        check(list, &[], &[], "kinds", "labels,artists", Layer::File);
        check(
            "reprocess = true",
            &[],
            &[],
            "reprocess",
            "true",
            Layer::File,
        );
        check(
            "",
            &[("DISCOGS_ROOT", "/data")],
            &[],
            "root",
            "/data",
            Layer::Environment,
        );
    }

    #[test]
    fn the_environment_names_one_broker() {
        let check = |environment: &[(&str, &str)], url, origin| {
            let values = load("broker = \"null:\"", environment, &[]).unwrap();
            let broker = values.get("broker").unwrap();
            let place = broker.origin.rsplit('/').next().unwrap();
            assert_eq!((broker.text.as_str(), place), (url, origin));
        };
        let (host, url) = (("RABBITMQ_HOST", "h"), ("AMQP_CONNECTION", "amqp://c"));
        let own = ("DISCOGS_BROKER", "file:d");
        check(&[], "null:", "file.toml: broker");
        check(
            &[host],
            "amqp://h:5672",
            "environment variable RABBITMQ_HOST",
        );
        check(
            &[host, ("RABBITMQ_PORT", "7")],
            "amqp://h:7",
            "environment variables RABBITMQ_HOST, RABBITMQ_PORT",
        );
        check(
            &[("RABBITMQ_PASSWORD_FILE", "f")],
            "amqp://rabbitmq:5672",
            "environment variable RABBITMQ_PASSWORD_FILE",
        );
        check(
            &[("RABBITMQ_HOST", "::1")],
            "amqp://[::1]:5672",
            "environment variable RABBITMQ_HOST",
        );
        check(
            &[host, url],
            "amqp://c",
            "environment variable AMQP_CONNECTION",
        );
        check(
            &[host, url, own],
            "file:d",
            "environment variable DISCOGS_BROKER",
        );
    }

    #[test]
    fn a_wrong_file_is_explained() {
        let check = |toml, origin, problem: &str| {
            let error = load(toml, &[], &[]).unwrap_err();
            assert_eq!(error.origin, origin);
            assert!(error.problem.contains(problem), "{error}");
        };
        check(
            "colour = 1",
            "file.toml: colour",
            "no such setting; there are root,",
        );
        check("config = 1", "file.toml: config", "no such setting");
        check("broker = ", "file.toml", "not TOML");
        check(
            "kinds = 1.5",
            "file.toml: kinds",
            "a float is of no use here",
        );
        check("[kinds]", "file.toml: kinds", "a table is of no use here");
        let flags = Flags {
            file: Some("nowhere.toml".into()),
            ..Flags::default()
        };
        let error = Values::load(&OsFileSystem, &flags, &Environment::new()).unwrap_err();
        assert!(
            error.to_string().starts_with("nowhere.toml: cannot read"),
            "{error}"
        );
    }

    #[test]
    fn what_is_ignored_is_said() {
        let values = load("", &[("BATCH_SIZE", "100")], &[]).unwrap();
        assert_eq!(values.warnings.len(), 1);
        assert!(values.warnings[0].contains("BATCH_SIZE is ignored"));
        assert_eq!(load("", &[], &[]).unwrap().warnings, [""; 0]);
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        let texts: &[(&'static str, &str)] = &[
            ("root", "with \"quotes\""),
            ("kinds", "labels,artists"),
            ("dump-version", "20260801"),
            ("dead-letters-max", "007"),
            ("reprocess", "true"),
        ];
        let printed = load("", &[], texts)
            .unwrap()
            .to_toml(|_, text| text.to_owned());
        let read = load(&printed, &[], &[]).unwrap();
        for (key, text) in texts {
            assert_eq!(read.get(key).unwrap().text, *text, "{key}");
        }
        assert!(
            printed.contains("kinds = \"labels,artists\"  # --kinds\n"),
            "{printed}"
        );
        assert!(printed.contains("# password is not set\n"), "{printed}");
    }

    #[test]
    fn settings_are_consistent() {
        for setting in SETTINGS {
            let is_value = !matches!(setting.form, Form::Secret | Form::Position);
            let flag = format!("DISCOGS_{}", setting.key.replace('-', "_").to_uppercase());
            let is_named = setting.variables.iter().any(|name| *name == flag);
            let is_rabbitmq = setting.variables[0].starts_with("RABBITMQ_");
            assert!(!is_value || is_named || is_rabbitmq, "{}", setting.key);
        }
        for key in [PLACE, DOWNLOAD, FOLLOW, TUNE, ONCE, LOG].concat() {
            assert!(setting(key).is_some(), "{key}");
        }
    }
}
